//! `kubectl crt rotate`: a cluster's registration tokens get new values, the agent's by the protocol.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::outcome::{Asked, RotationResult, refusal};
use cli::rotation::results::{Results, RunFlags};
use cli::rotation::{Job, Subject};
use cli::ui::Ui;
use client::duration;
use client::error::Error;
use rancher::cluster::{self, Cluster, ClusterKind};

use super::work::Work;
use crate::controller::{Check, CrtActor, Options, not_rotated};
use crate::report::product;
use crate::sides::{DownstreamFlags, MANAGEMENT, Management};

/// What is typed after `kubectl crt rotate`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("which").required(true).args(["subjects", "selector", "all"]))]
pub(crate) struct Rotate {
    /// Clusters by id, display name, or namespace/name of the provisioning cluster
    #[arg(value_name = "CLUSTER")]
    pub subjects: Vec<String>,

    /// All clusters whose labels match, such as env=test,tier!=gold
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// All clusters but local, which has no agent
    #[arg(long)]
    pub all: bool,

    /// Change only the token of the agent; other registration tokens of the cluster stay as they are
    #[arg(long)]
    pub only_agent: bool,

    /// What both verbs have.
    #[command(flatten)]
    pub common: Common,
}

/// The flags that `rotate` and `rollback` share.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Common {
    /// What every plugin has.
    #[command(flatten)]
    pub run: RunFlags,

    /// Override a check by its name; can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = check())]
    pub force: Vec<Check>,

    /// How long the new token may take to be proven, before the old one is restored; at most 15m
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = timeout)]
    pub timeout: Duration,

    /// How long a redeploy that Rancher began before may take to land
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration::parse)]
    pub settle: Duration,

    /// The other side.
    #[command(flatten)]
    pub downstream: DownstreamFlags,
}

const EXAMPLES: &str = "\
Examples:
  # See what would be done
  kubectl crt rotate staging --dry-run

  # Rotate one cluster; asks before the first change
  kubectl crt rotate staging

  # Only the agent's token, without a question, for a script
  kubectl crt rotate c-x7k2p --only-agent --yes -o json

  # Several, one after the other; the first that fails ends it
  kubectl crt rotate -l env=test --yes

It may be stopped or killed at any moment: the old token works until the new one is proven. The same command goes on
where it was, and `kubectl crt rollback` restores the start until the old token is retired.

Exit codes: 0 done, 1 failed or undone, 2 usage, 4 pending (run it again), 5 held by another run, 130 interrupted.";

/// The longest `--timeout`: going back must fit into the twenty minutes after which Kubernetes ends a held roll-out.
const LONGEST: Duration = Duration::from_mins(15);

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration::parse(text).map_err(|error| error.to_string())?;
    if timeout > LONGEST {
        return Err(format!(
            "at most {}: a roll-out is held for twenty minutes, and going back must fit into them",
            duration::format(LONGEST)
        ));
    }
    Ok(timeout)
}

fn check() -> impl clap::builder::TypedValueParser<Value = Check> {
    PossibleValuesParser::new(Check::ALL.map(Check::name)).try_map(|name| name.parse::<Check>())
}

/// Runs it.
pub(crate) async fn run(rotate: Rotate, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let results = Results::new(&context.ui, &rotate.common.run, rotate.subjects.len() == 1)?;
    let management = Management::open(global, &context.environment)?;
    let clusters = clusters(&rotate, &management, &context.ui).await?;
    if clusters.len() > 1 && rotate.common.downstream.downstream_context.is_some() {
        let message = format!(
            "--downstream-context leads to one cluster, but {} clusters are to be rotated",
            clusters.len()
        );
        return Err(Error::usage(message).hint("name one cluster, or use a context of Rancher to reach all of them"));
    }
    if clusters.is_empty() {
        context.ui.status("No clusters found.");
        results.print(&[])?;
        return Ok(ExitCode::Done);
    }
    let command = Command {
        asked: Asked::Rotate,
        only_agent: rotate.only_agent,
        common: &rotate.common,
        global,
        context,
        results: &results,
    };
    let mut all = Vec::new();
    let mut failed = None;
    let mut waiting = clusters.into_iter();
    for cluster in waiting.by_ref() {
        let (result, ended) = command.on(&management, cluster).await?;
        all.push(result);
        if let Err(error) = ended {
            failed = Some(error);
            break;
        }
    }
    results.print(&all)?;
    let not_begun: Vec<String> = waiting.map(|cluster| cluster.id.to_string()).collect();
    match failed {
        None => Ok(ExitCode::Done),
        Some(error) if not_begun.is_empty() => Err(error),
        Some(error) => Err(error.hint(format!("not begun: {}", not_begun.join(", ")))),
    }
}

/// The clusters that are meant, each once, in the order of the command line or by id.
async fn clusters(rotate: &Rotate, management: &Management, ui: &Ui) -> Result<Vec<Cluster>, Error> {
    if rotate.subjects.is_empty() {
        let listed = cluster::list(&management.server.client, rotate.selector.as_deref()).await;
        let mut clusters = listed.map_err(|error| error.on(MANAGEMENT))?;
        let before = clusters.len();
        clusters.retain(|cluster| cluster.kind != ClusterKind::Local);
        if clusters.len() < before {
            ui.status("Cluster local is left out: it has no agent.");
        }
        clusters.sort_by(|a, b| a.id.cmp(&b.id));
        return Ok(clusters);
    }
    let mut clusters: Vec<Cluster> = Vec::new();
    for name in &rotate.subjects {
        let cluster = management.cluster(name).await?;
        if clusters.iter().all(|known| known.id != cluster.id) {
            clusters.push(cluster);
        }
    }
    Ok(clusters)
}

/// What is the same for every cluster of one command.
pub(super) struct Command<'a> {
    pub(super) asked: Asked,
    pub(super) only_agent: bool,
    pub(super) common: &'a Common,
    pub(super) global: &'a GlobalFlags,
    pub(super) context: &'a Context,
    pub(super) results: &'a Results<'a>,
}

impl Command<'_> {
    /// Works on one cluster, and tells how it ended.
    pub(super) async fn on(
        &self,
        management: &Management,
        cluster: Cluster,
    ) -> Result<(RotationResult, Result<(), Error>), Error> {
        let again = self.common.downstream.again(&cluster.id, self.global);
        let subject = product::subject(&cluster, again);
        let mut result = RotationResult::of(&subject);
        let ended = self.try_on(management, cluster, subject.clone(), &mut result).await;
        let ended = ended.map_err(|error| self.context.ui.by_signal(error));
        if let Err(error) = &ended {
            result.fail(error);
        }
        self.results.tell(&subject, &result, ended.is_ok())?;
        Ok((result, ended))
    }

    async fn try_on(
        &self,
        management: &Management,
        cluster: Cluster,
        subject: Subject,
        result: &mut RotationResult,
    ) -> Result<(), Error> {
        let Self {
            common,
            global,
            context,
            ..
        } = self;
        // Known from the management side alone: there may be no agent to reach the other one by.
        if let Some(obstacle) = not_rotated(&cluster) {
            return Err(refusal(&subject, vec![obstacle], result));
        }
        let name = common.downstream.downstream_context.as_deref();
        let sides = management
            .sides(cluster, &global.connection, name, &context.environment)
            .await?;
        let options = Options {
            only_agent: self.only_agent,
            forced: common.force.iter().copied().collect::<BTreeSet<_>>(),
            timeout: common.timeout,
            settle: common.settle,
        };
        let work = Work {
            sides: &sides,
            actor: CrtActor::new(&sides, options.clone())?,
            options,
            subject,
        };
        let job = Job {
            ui: &context.ui,
            work: &work,
            asked: self.asked,
            yes: common.run.yes,
            dry_run: common.run.dry_run,
            plan_is_data: self.results.plan_is_data(),
            among: None,
            force_lock: common.force.contains(&Check::Lock),
            force_journal: common.force.contains(&Check::Journal),
        };
        job.run(result).await
    }
}
