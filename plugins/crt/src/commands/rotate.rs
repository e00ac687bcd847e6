//! `kubectl crt rotate`: rotate a cluster's registration tokens without losing its agent.

use std::time::Duration;

use cli::app::{Context, GlobalFlags};
use cli::rotation::outcome::refusal;
use cli::rotation::results::{Results, RunFlags, SeveralFlags};
use cli::rotation::several::{self, Confirmation, Each};
use cli::rotation::{Job, RotationResult, Target, Verb, force};
use cli::ui::Ui;
use cli::{ExitCode, Failures};
use client::duration;
use client::error::Error;
use engine::controller::Controller;
use engine::rotation::{Blocker, Check};
use rancher::cluster::{self, Cluster, ClusterKind};

use crate::connections::{Connections, DownstreamFlags, MANAGEMENT, Management};
use crate::controller::{CrtController, Options, Reactivation, check, unsupported};
use crate::report;
use crate::rotation::Crt;

/// The flags of `kubectl crt rotate`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("which").required(true).args(["targets", "selector", "all"]))]
pub(crate) struct Rotate {
    /// Cluster id, display name, or namespace/name of the provisioning cluster
    #[arg(value_name = "CLUSTER")]
    targets: Vec<String>,

    /// Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.(e.g. -l key1=value1,key2=value2,key3 in (value3)). Matching objects must satisfy all of the specified label constraints.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// Rotate all clusters except local, which has no agent
    #[arg(long)]
    all: bool,

    /// Rotate only the agent's token and leave the other registration tokens of the cluster unchanged
    #[arg(long)]
    only_agent: bool,

    /// How many at once.
    #[command(flatten)]
    several: SeveralFlags,

    /// What both commands have.
    #[command(flatten)]
    common: Common,

    /// How to reach the downstream cluster.
    #[command(flatten)]
    downstream: DownstreamFlags,
}

/// The flags that `rotate`, `rollback` and `rescue` share.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Common {
    /// What every plugin has.
    #[command(flatten)]
    pub(super) run: RunFlags,

    /// Override a check; can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::parser::<Crt>())]
    force: Vec<Check>,

    /// Roll back if the new token is not proven within this time; at most 15m
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = timeout)]
    timeout: Duration,

    /// Wait this long before revoking the old token, so that a redeploy that Rancher began earlier can finish
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration::parse)]
    settle: Duration,
}

impl Common {
    /// The options of a run.
    pub(super) fn options(&self, only_agent: bool, rescue: Option<Reactivation>) -> Options {
        Options {
            only_agent,
            forced: self.force.iter().copied().collect(),
            timeout: self.timeout,
            settle: self.settle,
            rescue,
        }
    }

    /// Whether this check, or the one of a blocker, is overridden.
    pub(super) fn forces(&self, check: &str) -> bool {
        self.force.iter().any(|forced| forced.name == check)
    }

    /// The overridden checks that count in every observation, so that a resumed run needs them too.
    pub(super) fn forced_throughout(&self) -> String {
        let throughout = |check: &&Check| {
            [
                check::CONTEXT,
                check::ADDRESS,
                check::MACHINE,
                check::WEAK_PROOF,
                check::UNMEASURED,
            ]
            .contains(*check)
        };
        let names = self.force.iter().filter(throughout).map(|check| check.name);
        names.collect::<Vec<_>>().join(",")
    }
}

const EXAMPLES: &str = "\
Examples:
  # Print the plan
  kubectl crt rotate staging --dry-run

  # Rotate one cluster; asks for confirmation before the first change
  kubectl crt rotate staging

  # Rotate only the agent's token, without confirmation, in a script
  kubectl crt rotate c-x7k2p --only-agent --yes -o json

  # Rotate several clusters, one at a time; no other one is started after a failure
  kubectl crt rotate -l env=test --max-parallel 1 --yes

Kill it at any point: run the same command again to resume, or `kubectl crt rollback` to restore the original state.

Exit codes: 0 done, 1 failed or rolled back, 2 usage, 4 pending (run it again), 5 held by another run, 130 interrupted.";

/// The longest `--timeout`: Kubernetes completes a held rollout after twenty minutes, which must include a rollback.
const LONGEST: Duration = Duration::from_mins(15);

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration::parse(text).map_err(|error| error.to_string())?;
    if timeout > LONGEST {
        return Err(format!(
            "at most {}: a rollout is held for twenty minutes, which must include the time for a rollback",
            duration::format(LONGEST)
        ));
    }
    Ok(timeout)
}

/// Runs it.
pub(crate) async fn run(rotate: Rotate, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let common = &rotate.common;
    let results = Results::new(&context.ui, &common.run, rotate.targets.len() == 1)?;
    let management = Management::open(global, &context.environment)?;
    let mut unknown = Failures::of(&context.ui, "clusters", rotate.targets.len());
    let clusters = clusters(&rotate, &management, &context.ui, &mut unknown).await?;
    let selected = clusters.len() + unknown.all().len();
    if selected > 1 && rotate.downstream.downstream_context.is_some() {
        let message = format!("--downstream-context leads to one cluster, but {selected} clusters are selected");
        return Err(Error::usage(message).hint("name one cluster, or use a context of Rancher to reach all of them"));
    }
    let mut opened = Vec::new();
    for cluster in clusters {
        opened.push(Opened::open(cluster, common, &rotate.downstream, &management, global, context).await);
    }
    let command = Command {
        verb: Verb::Rotate,
        only_agent: rotate.only_agent,
        common,
        context,
        results: &results,
    };
    match opened.as_slice() {
        [] if unknown.all().is_empty() => {
            context.ui.status("No clusters found.");
            results.print(&[]);
            Ok(ExitCode::Done)
        }
        [only] if unknown.all().is_empty() => {
            let (result, ended) = command.on(only).await;
            results.print(&[result]);
            ended.map(|()| ExitCode::Done)
        }
        several => command.on_several(several, rotate.several, &unknown).await,
    }
}

/// The selected clusters, each once, in the order of the command line or by id.
async fn clusters(
    rotate: &Rotate,
    management: &Management,
    ui: &Ui,
    unknown: &mut Failures<'_>,
) -> Result<Vec<Cluster>, Error> {
    if rotate.targets.is_empty() {
        let listed = cluster::list(&management.server.client, rotate.selector.as_deref()).await;
        let mut clusters = listed.map_err(|error| error.on(MANAGEMENT))?;
        let before = clusters.len();
        clusters.retain(|cluster| cluster.kind != ClusterKind::Local);
        if clusters.len() < before {
            ui.status("Skipping cluster local: it has no agent.");
        }
        clusters.sort_by(|a, b| a.id.cmp(&b.id));
        return Ok(clusters);
    }
    management.clusters(&rotate.targets, unknown).await
}

/// One cluster, and its connections.
pub(super) struct Opened {
    pub(super) target: Target,
    /// An error if it cannot be rotated, which is known from the management cluster alone: there may be no route to it.
    pub(super) connections: Result<Connections, Error>,
    pub(super) result: RotationResult,
}

impl Opened {
    pub(super) async fn open(
        cluster: Cluster,
        common: &Common,
        downstream: &DownstreamFlags,
        management: &Management,
        global: &GlobalFlags,
        context: &Context,
    ) -> Self {
        let commands = downstream.commands(&cluster.id, global);
        let commands = commands.with_to_run("--force", Some(&common.forced_throughout()));
        let target = report::rotation::target(&cluster, commands);
        let mut result = RotationResult::of(&target);
        let is_forced = |blocker: &Blocker| blocker.check.is_some_and(|check| common.forces(check));
        let connections = if let Some(blocker) = unsupported(&cluster).filter(|blocker| !is_forced(blocker)) {
            Err(refusal(&target, vec![blocker], &mut result))
        } else {
            management
                .connections(cluster, downstream, global, &context.environment)
                .await
                .and_then(|connections| connections.downstream().map(drop).map(|()| connections))
        };
        Self {
            target,
            connections,
            result,
        }
    }
}

/// What is the same for every cluster of one command.
pub(super) struct Command<'a> {
    pub(super) verb: Verb,
    pub(super) only_agent: bool,
    pub(super) common: &'a Common,
    pub(super) context: &'a Context,
    pub(super) results: &'a Results<'a>,
}

impl Command<'_> {
    /// Runs it for one cluster, and prints how it ended.
    pub(super) async fn on(&self, opened: &Opened) -> (RotationResult, Result<(), Error>) {
        self.with(opened, self.controller(opened)).await
    }

    /// The same with this controller.
    pub(super) async fn with<C: Controller>(
        &self,
        opened: &Opened,
        controller: Result<C, Error>,
    ) -> (RotationResult, Result<(), Error>) {
        let mut result = opened.result.clone();
        let ended = match controller {
            Ok(controller) => Box::pin(self.job(opened, &controller, false).run(&mut result)).await,
            Err(error) => {
                result.fail(&error);
                Err(error)
            }
        };
        self.results.print_one(&opened.target, &result, ended.is_ok());
        (result, ended)
    }

    /// Rotates several. Those that cannot be reached fail, and no other one is started after a failure.
    async fn on_several(
        &self,
        opened: &[Opened],
        flags: SeveralFlags,
        unknown: &Failures<'_>,
    ) -> Result<ExitCode, Error> {
        let ui = &self.context.ui;
        let controllers: Vec<_> = opened.iter().map(|each| (each, self.controller(each))).collect();
        let mut all = Vec::new();
        for (each, controller) in &controllers {
            all.push(match controller {
                Ok(controller) => Each::new(self.job(each, controller, true)),
                Err(error) => Each::failed(&each.target, each.result.clone(), error.clone()),
            });
        }
        let print =
            |each: &Each<'_, CrtController<'_>>| self.results.print_one(each.target, &each.result, each.ended.is_ok());
        let parallelism = flags.parallelism(true);
        let confirmation = Confirmation {
            yes: self.common.run.yes,
            question: None,
        };
        Box::pin(several::run(ui, &mut all, parallelism, confirmation, print)).await?;
        let (results, end) = several::end(all, unknown);
        self.results.print(&results);
        end
    }

    fn controller<'c>(&self, opened: &'c Opened) -> Result<CrtController<'c>, Error> {
        let options = self.common.options(self.only_agent, None);
        let connections = opened.connections.as_ref().map_err(Clone::clone)?;
        CrtController::new(connections, options).map_err(|error| self.context.ui.by_signal(error))
    }

    fn job<'j, C: Controller>(&'j self, opened: &'j Opened, controller: &'j C, among: bool) -> Job<'j, C> {
        Job {
            ui: &self.context.ui,
            controller,
            target: &opened.target,
            verb: self.verb,
            yes: self.common.run.yes,
            dry_run: self.common.run.dry_run,
            plan_is_data: self.results.plan_is_data(),
            among: among.then_some(opened.target.name.as_str()),
            force_lock: self.common.forces(Check::LOCK.name),
            force_journal: self.common.forces(Check::JOURNAL.name),
        }
    }
}
