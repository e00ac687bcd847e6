//! `kubectl crt rescue`: brings back agents that have lost their token, and rotates the tokens of their clusters.
//!
//! For each cluster it diagnoses what is wrong and which way leads to the agent. A rescue is a run of its own, which sets no token's
//! value. The ordinary rotation follows. Where Rancher itself deploys the agent through the machines of the cluster, the rotation alone
//! brings the agent back.

mod diagnosing;

use std::time::Duration;

use cli::app::{Context, DryRun, GlobalFlags};
use cli::output::{self, ListKind};
use cli::rotation::results::Results;
use cli::rotation::several::{self, Confirmation, Each, Parallelism};
use cli::rotation::{Job, RotationResult, Target, Verb};
use cli::{ExitCode, Failures};
use client::connection::ContextCluster;
use client::error::{Error, Kind};
use client::secret::Secret;
use engine::controller::Controller;
use engine::rotation::Check;
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};
use rancher::cluster::{self, Cluster, ClusterKind};

use self::diagnosing::{LostCluster, Next};
use super::rotate::Common;
use crate::connections::{MANAGEMENT, Management};
use crate::contexts::{ContextFlags, Contexts};
use crate::controller::{CrtController, RescueController};
use crate::report::API_VERSION;
use crate::report::rescue::{Row, is_disconnected};
use crate::rotation::rescue::Rescue as RescueRotation;

/// The flags of `kubectl crt rescue`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("which").required(true).args(["targets", "selector", "disconnected"]))]
pub(crate) struct Rescue {
    /// Cluster id, display name, or namespace/name of the provisioning cluster
    #[arg(value_name = "CLUSTER")]
    targets: Vec<String>,

    /// Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.(e.g. -l key1=value1,key2=value2,key3 in (value3)). Matching objects must satisfy all of the specified label constraints.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// Rescue all clusters whose agent was connected once and is not connected now
    #[arg(long)]
    disconnected: bool,

    /// Make the agent's old token valid again for the rescue, where nothing else leads to the cluster. Anyone else who has it can connect as the cluster meanwhile
    #[arg(long)]
    reactivate_old_token: bool,

    /// Read the agent's old token from standard input; only for one cluster, and with --yes
    #[arg(long, requires = "reactivate_old_token")]
    token_stdin: bool,

    /// Maximum number of clusters at a time
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    max_parallel: u16,

    /// What `rotate` has too.
    #[command(flatten)]
    common: Common,

    /// How to reach the downstream clusters.
    #[command(flatten)]
    contexts: ContextFlags,
}

const LIST: ListKind = ListKind {
    api_version: API_VERSION,
    kind: "RescueDiagnosisList",
};

/// How many clusters are diagnosed at a time. Most of the time is waited for agents that do not answer.
const DIAGNOSED_AT_ONCE: usize = 32;

const EXAMPLES: &str = "\
Examples:
  # Show what is wrong with each cluster that is not connected, and which way leads to it
  kubectl crt rescue --disconnected --match-contexts --dry-run

  # Rescue one cluster over a context that does not go through Rancher
  kubectl crt rescue staging --downstream-context staging-direct

  # Rescue a cluster that nothing else leads to, with the token that its agent still has
  kubectl crt rescue staging --reactivate-old-token --token-stdin --yes < token.txt

Kill it at any point: run the same command again to resume, or `kubectl crt rollback` to undo it.

Exit codes: 0 done, 1 failed or rolled back, 2 usage, 4 pending (run it again), 5 held by another run, 130 interrupted.";

/// What a token that is valid again means.
const REACTIVATES: &str = "--reactivate-old-token makes a revoked token valid again until the agent is back. A third party that has the token \
                           can connect as the cluster meanwhile, and its connections stay open until Rancher restarts.";

impl Rescue {
    fn check(&self) -> Result<(), Error> {
        let common = &self.common.run;
        if self.token_stdin && !common.yes && common.dry_run == DryRun::None {
            return Err(
                Error::usage("--token-stdin needs --yes: standard input cannot answer the confirmation")
                    .hint("pass --yes, or --dry-run to print the plan"),
            );
        }
        Ok(())
    }
}

/// Runs it.
pub(crate) async fn run(rescue: Rescue, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    rescue.check()?;
    let ui = &context.ui;
    let results = Results::new(ui, &rescue.common.run, rescue.targets.len() == 1)?;
    let token = if rescue.token_stdin {
        Some(well_formed(ui.read_secret().await?)?)
    } else {
        None
    };
    let management = Management::open(global, &context.environment)?;
    let mut unknown = Failures::of(ui, "clusters", rescue.targets.len());
    let clusters = clusters(&rescue, &management, &mut unknown).await?;
    let selected = clusters.len() + unknown.all().len();
    if rescue.token_stdin && selected != 1 {
        let message = format!("--token-stdin is the token of one cluster, but {selected} clusters are selected");
        return Err(Error::usage(message).hint("name one cluster"));
    }
    if selected == 0 {
        let none = if rescue.disconnected {
            "All clusters are connected."
        } else {
            "No clusters found."
        };
        ui.status(none);
        return command_without_clusters(&rescue, &results, context);
    }
    let command = Command {
        contexts: rescue.contexts.typed(&management, &clusters, selected).await?,
        candidates: rescue.contexts.candidates(global, &context.environment)?,
        rescue: &rescue,
        management: &management,
        global,
        context,
        results: &results,
        token,
    };
    let diagnoses = clusters.into_iter().map(|cluster| command.diagnose(cluster));
    let lost_clusters: Vec<LostCluster> = stream::iter(diagnoses).buffered(DIAGNOSED_AT_ONCE).collect().await;
    if rescue.common.run.dry_run != DryRun::None {
        return command.plan(&lost_clusters, unknown).await;
    }
    if lost_clusters.iter().any(|lost| lost.old_token.permitted) {
        ui.warn(REACTIVATES);
    }
    match lost_clusters.as_slice() {
        [only] if unknown.all().is_empty() => {
            let (result, ended) = Box::pin(command.on(only)).await;
            results.print_one(&only.of_rescue, &result, ended.is_ok());
            results.print(&[result]);
            ended.map(|()| ExitCode::Done)
        }
        several => Box::pin(command.on_several(several, &unknown)).await,
    }
}

fn command_without_clusters(rescue: &Rescue, results: &Results<'_>, context: &Context) -> Result<ExitCode, Error> {
    if rescue.common.run.dry_run == DryRun::None {
        results.print(&[]);
    } else if rescue.common.run.output.is_some() {
        output::print_list::<Row>(&context.ui, &rescue.common.run.output_flags(), LIST, &[], "")?;
    }
    Ok(ExitCode::Done)
}

/// The value is not repeated: it may be another secret, which was piped in by mistake.
fn well_formed(token: Secret) -> Result<Secret, Error> {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if token.expose().chars().all(is_of_token) {
        return Ok(token);
    }
    Err(Error::usage(
        "the text on standard input is not a registration token: a token has only letters, digits and '-', '_', '.'",
    )
    .hint("pass the value alone, on one line"))
}

/// The selected clusters, each once, in the order of the command line or by id.
async fn clusters(rescue: &Rescue, management: &Management, unknown: &mut Failures<'_>) -> Result<Vec<Cluster>, Error> {
    if !rescue.targets.is_empty() {
        return management.clusters(&rescue.targets, unknown).await;
    }
    let listed = cluster::list(&management.server.client, rescue.selector.as_deref()).await;
    let mut clusters = listed.map_err(|error| error.on(MANAGEMENT))?;
    let is_local = |cluster: &Cluster| cluster.kind == ClusterKind::Local;
    clusters.retain(|cluster| !is_local(cluster) && (!rescue.disconnected || is_disconnected(cluster)));
    clusters.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(clusters)
}

/// What is the same for every cluster of one command.
struct Command<'a> {
    rescue: &'a Rescue,
    management: &'a Management,
    global: &'a GlobalFlags,
    context: &'a Context,
    results: &'a Results<'a>,
    contexts: Contexts,
    /// The contexts of the kubeconfig among which those of the clusters are found.
    candidates: Vec<ContextCluster>,
    /// The agent's old token.
    token: Option<Secret>,
}

impl Command<'_> {
    /// Prints the diagnosis of each, and the plan of a single one.
    async fn plan(&self, lost_clusters: &[LostCluster], unknown: Failures<'_>) -> Result<ExitCode, Error> {
        let ui = &self.context.ui;
        let rows: Vec<Row> = lost_clusters.iter().filter_map(|lost| lost.row(self.global)).collect();
        output::print_list(
            ui,
            &self.rescue.common.run.output_flags(),
            LIST,
            &rows,
            "No clusters were diagnosed.",
        )?;
        if let ([only], true) = (lost_clusters, unknown.all().is_empty()) {
            return Box::pin(self.on(only)).await.1.map(|()| ExitCode::Done);
        }
        let mut failed = unknown;
        for lost in lost_clusters {
            if let (Next::Refuse(error), None) = (&lost.next, &lost.diagnosis) {
                failed.add(&lost.opened.target.name, error.clone())?;
            }
        }
        failed.end("diagnosed").map(|()| ExitCode::Done)
    }

    /// One cluster.
    async fn on(&self, lost: &LostCluster) -> (RotationResult, Result<(), Error>) {
        let mut result = RotationResult::of(&lost.of_rescue);
        let ended = match &lost.next {
            Next::Nothing => {
                result = lost.nothing();
                Ok(())
            }
            Next::Refuse(error) => Err(error.clone()),
            Next::Rotate => return self.rotate(lost, false, self.rescue.common.run.yes).await,
            Next::Rescue => match self.rescuer(lost) {
                Ok(controller) => {
                    let yes = self.rescue.common.run.yes;
                    let job = self.rescue_job(lost, &controller, false, yes);
                    Box::pin(job.run(&mut result)).await
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = &ended {
            result.fail(error);
        } else if matches!(lost.next, Next::Rescue) && self.rescue.common.run.dry_run == DryRun::None {
            let (next, ended) = self.follow(lost, false).await;
            result.continue_with(next);
            return (result, ended);
        }
        (result, ended)
    }

    /// Several. A failure of one does not stop the others.
    async fn on_several(&self, lost_clusters: &[LostCluster], unknown: &Failures<'_>) -> Result<ExitCode, Error> {
        let ui = &self.context.ui;
        let rescuers: Vec<_> = lost_clusters.iter().map(|lost| self.rescuer(lost)).collect();
        let rotators: Vec<_> = lost_clusters.iter().map(|lost| self.rotator(lost)).collect();
        let yes = self.rescue.common.run.yes;
        let (mut rescues, mut rotations) = (Vec::new(), Vec::new());
        for ((lost, rescuer), rotator) in lost_clusters.iter().zip(&rescuers).zip(&rotators) {
            let (of_rescue, of_rotation) = (&lost.of_rescue, &lost.opened.target);
            let failed = |error: &Error| Each::failed(of_rescue, RotationResult::of(of_rescue), error.clone());
            match (&lost.next, rescuer, rotator) {
                (Next::Nothing, ..) => rescues.push(Each::done(of_rescue, lost.nothing())),
                (Next::Refuse(error), ..) | (Next::Rescue, Err(error), _) | (Next::Rotate, _, Err(error)) => {
                    rescues.push(failed(error));
                }
                (Next::Rescue, Ok(controller), _) => {
                    let job = Each::new(self.rescue_job(lost, controller, true, yes));
                    rescues.push(job.followed_by(self.follow(lost, true).boxed()));
                }
                (Next::Rotate, _, Ok(controller)) => {
                    rotations.push(Each::new(self.job(of_rotation, controller, true, yes)));
                }
            }
        }
        let count = lost_clusters.iter().filter(|lost| lost.is_rescued()).count();
        let question = format!(
            "This rescues {count} clusters, and rotates their registration tokens. Anything else that uses one of the old values stops \
             working."
        );
        let parallelism = Parallelism {
            max: self.rescue.max_parallel.into(),
            jitter: Duration::ZERO,
            stop_on_failure: false,
        };
        let mut confirmation = Confirmation {
            yes,
            question: Some(&question),
        };
        let print = |each: &Each<'_, _>| self.results.print_one(each.target, &each.result, each.ended.is_ok());
        let begun = Box::pin(several::run(ui, &mut rescues, parallelism, confirmation, print)).await?;
        confirmation.yes |= begun > 0;
        let print = |each: &Each<'_, _>| self.results.print_one(each.target, &each.result, each.ended.is_ok());
        Box::pin(several::run(ui, &mut rotations, parallelism, confirmation, print)).await?;
        let mut all: Vec<_> = rescues.into_iter().map(|each| (each.result, each.ended)).collect();
        all.extend(rotations.into_iter().map(|each| (each.result, each.ended)));
        let (results, end) = several::end_of(all, RescueRotation::ACTION, unknown);
        self.results.print(&results);
        end
    }

    /// The rotation after the rescue.
    async fn follow(&self, lost: &LostCluster, among: bool) -> (RotationResult, Result<(), Error>) {
        self.context.ui.status(format!(
            "{}: its agent is connected again. Rotating its registration tokens.",
            lost.of_rescue.display
        ));
        let (mut result, ended) = self.rotate(lost, among, true).await;
        let ended = ended.map_err(|mut error| {
            let Target { display, commands, .. } = &lost.opened.target;
            error.message = format!("{display} was rescued, but not rotated: {}", error.message);
            if error.kind != Kind::Pending {
                error = error.hint(format!("`{}` rotates its registration tokens", commands.rotate()));
            }
            result.message = Some(error.message.clone());
            error
        });
        (result, ended)
    }

    async fn rotate(&self, lost: &LostCluster, among: bool, yes: bool) -> (RotationResult, Result<(), Error>) {
        let target = &lost.opened.target;
        let mut result = RotationResult::of(target);
        let ended = match self.rotator(lost) {
            Ok(controller) => Box::pin(self.job(target, &controller, among, yes).run(&mut result)).await,
            Err(error) => {
                result.fail(&error);
                Err(error)
            }
        };
        if result.outcome == "rotated" {
            result.end("rescued");
        }
        (result, ended)
    }

    fn rescuer<'c>(&self, lost: &'c LostCluster) -> Result<RescueController<'c>, Error> {
        let connections = lost.opened.connections.as_ref().map_err(Clone::clone)?;
        let options = self.rescue.common.options(false, Some(lost.old_token.clone()));
        RescueController::new(connections, options).map_err(|error| self.context.ui.by_signal(error))
    }

    fn rotator<'c>(&self, lost: &'c LostCluster) -> Result<CrtController<'c>, Error> {
        let connections = lost.opened.connections.as_ref().map_err(Clone::clone)?;
        let options = self.rescue.common.options(false, Some(lost.old_token.clone()));
        CrtController::new(connections, options).map_err(|error| self.context.ui.by_signal(error))
    }

    fn rescue_job<'j>(
        &'j self,
        lost: &'j LostCluster,
        controller: &'j RescueController<'j>,
        among: bool,
        yes: bool,
    ) -> Job<'j, RescueController<'j>> {
        let job = self.job(&lost.of_rescue, controller, among, yes);
        Job {
            force_journal: job.force_journal || lost.discards_rotation,
            ..job
        }
    }

    fn job<'j, C: Controller>(&'j self, target: &'j Target, controller: &'j C, among: bool, yes: bool) -> Job<'j, C> {
        let common = &self.rescue.common;
        Job {
            ui: &self.context.ui,
            controller,
            target,
            verb: Verb::Rotate,
            yes,
            dry_run: common.run.dry_run,
            plan_is_data: self.results.plan_is_data(),
            among: among.then_some(target.name.as_str()),
            force_lock: common.forces(Check::LOCK.name),
            force_journal: common.forces(Check::JOURNAL.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_token_is_refused_and_not_repeated() {
        for malformed in ["two words", "{\"token\":\"k2vq5\"}", "k2vq5\nk2vq5", "k2vq5\u{1b}"] {
            let error = well_formed(Secret::new(malformed)).unwrap_err();
            assert!(!error.message.contains("k2vq5"), "{error}");
        }
        assert!(well_formed(Secret::new("k2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf4mgsp6x")).is_ok());
    }
}
