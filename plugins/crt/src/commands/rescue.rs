//! `kubectl crt rescue`: brings agents back that have lost their token, and rotates the tokens of their clusters.
//!
//! For each cluster it diagnoses what is wrong and which way leads to the agent. A rescue is a run of its own, which sets no token's
//! value. The ordinary rotation follows. Where Rancher itself deploys the agent through the machines of the cluster, the rotation alone
//! brings the agent back.

use std::time::Duration;

use cli::app::{Context, DryRun, GlobalFlags};
use cli::output::{self, ListKind};
use cli::rotation::outcome::refusal;
use cli::rotation::results::Results;
use cli::rotation::several::{self, Confirmation, Each, Parallelism};
use cli::rotation::{Commands, Job, RotationResult, Target, Verb, leases};
use cli::{ExitCode, Failures};
use client::access::{self, Needed};
use client::connection::ContextCluster;
use client::error::{Error, Kind};
use client::secret::Secret;
use engine::controller::Controller;
use engine::rotation::{Check, Rotation as _};
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};
use rancher::cluster::{self, Cluster, ClusterId, ClusterKind};

use super::rotate::{Common, Opened};
use crate::connections::{Connections, DOWNSTREAM, DownstreamFlags, MANAGEMENT, Management, Route};
use crate::contexts::{self, ContextFlags, Contexts};
use crate::controller::{CrtController, Reactivation, RescueController, check};
use crate::report::API_VERSION;
use crate::report::inputs::DiagnosisInputs;
use crate::report::rescue::{Cause, Diagnosis, Means, Missing, Row, Way, is_disconnected};
use crate::report::rotation::{ClusterRotation, target_of_rescue};
use crate::rights;
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

/// Rancher takes half a minute to report a disconnected agent: too long for thirty of them.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
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

/// What is done with one cluster.
enum Next {
    /// Nothing.
    Nothing,
    /// It cannot be rescued.
    Refuse(Error),
    /// The rescue, and then the rotation.
    Rescue,
    /// The rotation: it rescues the cluster, or a rescue has ended before.
    Rotate,
}

/// One cluster, and what was found.
struct Patient {
    id: ClusterId,
    opened: Opened,
    /// The same target, for the rescue.
    of_rescue: Target,
    diagnosis: Option<Diagnosis>,
    old_token: Reactivation,
    next: Next,
}

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
    let patients: Vec<Patient> = stream::iter(diagnoses).buffered(DIAGNOSED_AT_ONCE).collect().await;
    if rescue.common.run.dry_run != DryRun::None {
        return command.plan(&patients, unknown).await;
    }
    if patients.iter().any(|patient| patient.old_token.permitted) {
        ui.warn(REACTIVATES);
    }
    match patients.as_slice() {
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
    /// The context of a cluster that does not go through Rancher.
    async fn context_of(&self, cluster: &mut Cluster) -> Result<Option<String>, Error> {
        if let Some(context) = self.contexts.get(&cluster.id) {
            return Ok(Some(context.clone()));
        }
        if self.candidates.is_empty() {
            return Ok(None);
        }
        let read = cluster::get(&self.management.server.client, &cluster.id).await;
        // A list has no CA.
        if let Some(read) = read.map_err(|error| error.on(MANAGEMENT))? {
            cluster.ca_certificate = read.ca_certificate;
        }
        let Some(ca) = cluster.ca_certificate.as_deref() else {
            return Ok(None);
        };
        let names = contexts::with_ca(&self.candidates, ca);
        let found = contexts::first_proven(&names, ca, self.global, &self.context.environment).await;
        let ui = &self.context.ui;
        match found {
            Some(found) => ui.status(format!(
                "cluster {}: using context {found}, which has its CA",
                cluster.id
            )),
            None if names.is_empty() => {}
            None => ui.warn(format!(
                "cluster {}: none of the contexts with its CA answers: {}",
                cluster.id,
                names.join(", ")
            )),
        }
        Ok(found.map(str::to_owned))
    }

    /// Finds out what is wrong with a cluster, and which way leads to it.
    async fn diagnose(&self, mut cluster: Cluster) -> Patient {
        let (downstream_context, failed) = match self.context_of(&mut cluster).await {
            Ok(context) => (context, None),
            Err(error) => (None, Some(error)),
        };
        let id = cluster.id.clone();
        let downstream = DownstreamFlags { downstream_context };
        let (common, management) = (&self.rescue.common, self.management);
        let opened = Opened::open(cluster, common, &downstream, management, self.global, self.context).await;
        let mut patient = Patient {
            id,
            of_rescue: self.target_of_rescue(&opened.target),
            opened,
            diagnosis: None,
            old_token: Reactivation::default(),
            next: Next::Nothing,
        };
        let examined = match failed {
            Some(error) => Err(error),
            None => self.examine(&mut patient).await,
        };
        if let Err(error) = examined {
            patient.next = Next::Refuse(error);
        }
        patient
    }

    fn target_of_rescue(&self, target: &Target) -> Target {
        let mut target = target_of_rescue(target);
        let flags = [
            (self.rescue.reactivate_old_token, "--reactivate-old-token"),
            (self.rescue.token_stdin, "--token-stdin"),
            (self.rescue.token_stdin, "--yes"),
        ];
        for (_, flag) in flags.into_iter().filter(|(is_given, _)| *is_given) {
            target.commands = target.commands.switched_on_to_rotate(flag);
        }
        target
    }

    async fn examine(&self, patient: &mut Patient) -> Result<(), Error> {
        let connections = patient.connections()?;
        let (inputs, rotation) = futures::join!(
            Box::pin(DiagnosisInputs::collect(connections, LONGEST_ANSWER)),
            leases::of(&connections.management, &patient.opened.target.lease)
        );
        let rotation: Option<ClusterRotation> = rotation?;
        let means = self.means(connections, &inputs).await?;
        let diagnosis = Diagnosis::of(&inputs, &means);
        let is_resumed = rotation
            .as_ref()
            .is_some_and(|rotation| rotation.is_of(RescueRotation::KIND));
        if diagnosis.way == Some(Way::OldToken) || (is_resumed && self.rescue.reactivate_old_token) {
            let of_secret = || inputs.credentials.as_ref().ok()?.as_ref()?.token.clone();
            patient.old_token = Reactivation {
                permitted: true,
                value: self.token.clone().or_else(of_secret),
            };
        }
        patient.next = self.next(&diagnosis, rotation.as_ref(), patient);
        if diagnosis.way == Some(Way::OldToken)
            && let Ok(connections) = &mut patient.opened.connections
        {
            // The token was read over a context that may only read, which is of no further use.
            *connections = connections.clone().through_rancher();
        }
        patient.diagnosis = Some(diagnosis);
        Ok(())
    }

    async fn means(&self, connections: &Connections, inputs: &DiagnosisInputs) -> Result<Means, Error> {
        let downstream = connections.downstream()?;
        let may_write = match (&downstream.route, &inputs.deployment) {
            (_, Err(_)) => false,
            (Route::ThroughRancher, _) => true,
            (Route::Context(_), _) => {
                let rights = rights::TABLE.required("rescue", DOWNSTREAM, &[rights::POINTS], &[]);
                let needed = Needed {
                    server: &downstream.server,
                    side: DOWNSTREAM,
                    rights,
                };
                match access::require(&[needed]).await {
                    Err(error) if error.kind == Kind::Forbidden => false,
                    allowed => allowed.map(|()| true)?,
                }
            }
        };
        let given = match (&self.token, &inputs.storage) {
            (Some(token), Ok(storage)) => {
                let result = connections.probe.check_times(*storage, token, 2).await;
                Some((token.fingerprint(), result))
            }
            (_, _) => None,
        };
        Ok(Means {
            route: Some(downstream.route.clone()),
            may_write,
            trusts_context: self.rescue.common.forces(check::CONTEXT.name),
            reactivates: self.rescue.reactivate_old_token,
            given,
        })
    }

    fn next(&self, diagnosis: &Diagnosis, rotation: Option<&ClusterRotation>, patient: &Patient) -> Next {
        let target = &patient.opened.target;
        match rotation {
            Some(rotation) if rotation.is_of(RescueRotation::KIND) => return Next::Rescue,
            // It may be the one that follows a rescue.
            Some(rotation) if rotation.in_progress() => return Next::Rotate,
            _ => {}
        }
        match (&diagnosis.way, &diagnosis.cause) {
            (Some(Way::ByRancher), cause) if *cause != Cause::TokensDeleted => Next::Rotate,
            (Some(_), _) => Next::Rescue,
            (None, Cause::None) if rotation.is_some_and(was_rescued) => Next::Rotate,
            (None, Cause::None) => Next::Nothing,
            (None, _) => {
                let message = format!("cannot rescue {}: {}", target.display, diagnosis.message);
                let mut hints = diagnosis.hints(&patient.commands(diagnosis, self.global));
                if diagnosis.missing.is_none() {
                    hints.push(format!("`{}` shows what fails", target.commands.status()));
                }
                Next::Refuse(hints.into_iter().fold(Error::failed(message), Error::hint))
            }
        }
    }

    /// Prints the diagnosis of each, and the plan of a single one.
    async fn plan(&self, patients: &[Patient], unknown: Failures<'_>) -> Result<ExitCode, Error> {
        let ui = &self.context.ui;
        let rows: Vec<Row> = patients.iter().filter_map(|patient| patient.row(self.global)).collect();
        output::print_list(
            ui,
            &self.rescue.common.run.output_flags(),
            LIST,
            &rows,
            "No clusters were diagnosed.",
        )?;
        if let ([only], true) = (patients, unknown.all().is_empty()) {
            return Box::pin(self.on(only)).await.1.map(|()| ExitCode::Done);
        }
        let mut failed = unknown;
        for patient in patients {
            if let (Next::Refuse(error), None) = (&patient.next, &patient.diagnosis) {
                failed.add(&patient.opened.target.name, error.clone())?;
            }
        }
        failed.end("diagnosed").map(|()| ExitCode::Done)
    }

    /// One cluster.
    async fn on(&self, patient: &Patient) -> (RotationResult, Result<(), Error>) {
        let mut result = RotationResult::of(&patient.of_rescue);
        let ended = match &patient.next {
            Next::Nothing => {
                result = patient.nothing();
                Ok(())
            }
            Next::Refuse(error) => Err(error.clone()),
            Next::Rotate => return self.rotate(patient, false, self.rescue.common.run.yes).await,
            Next::Rescue => match self.rescuer(patient) {
                Ok(controller) => {
                    let yes = self.rescue.common.run.yes;
                    let job = self.job(&patient.of_rescue, &controller, false, yes);
                    Box::pin(job.run(&mut result)).await
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = &ended {
            result.fail(error);
        } else if matches!(patient.next, Next::Rescue) && self.rescue.common.run.dry_run == DryRun::None {
            let (next, ended) = self.follow(patient, false).await;
            result.continue_with(next);
            return (result, ended);
        }
        (result, ended)
    }

    /// Several. A failure of one does not stop the others.
    async fn on_several(&self, patients: &[Patient], unknown: &Failures<'_>) -> Result<ExitCode, Error> {
        let ui = &self.context.ui;
        let rescuers: Vec<_> = patients.iter().map(|patient| self.rescuer(patient)).collect();
        let rotators: Vec<_> = patients.iter().map(|patient| self.rotator(patient)).collect();
        let yes = self.rescue.common.run.yes;
        let (mut rescues, mut rotations) = (Vec::new(), Vec::new());
        for ((patient, rescuer), rotator) in patients.iter().zip(&rescuers).zip(&rotators) {
            let (of_rescue, of_rotation) = (&patient.of_rescue, &patient.opened.target);
            let failed = |error: &Error| Each::failed(of_rescue, RotationResult::of(of_rescue), error.clone());
            match (&patient.next, rescuer, rotator) {
                (Next::Nothing, ..) => rescues.push(Each::done(of_rescue, patient.nothing())),
                (Next::Refuse(error), ..) | (Next::Rescue, Err(error), _) | (Next::Rotate, _, Err(error)) => {
                    rescues.push(failed(error));
                }
                (Next::Rescue, Ok(controller), _) => {
                    let job = Each::new(self.job(of_rescue, controller, true, yes));
                    rescues.push(job.followed_by(self.follow(patient, true).boxed()));
                }
                (Next::Rotate, _, Ok(controller)) => {
                    rotations.push(Each::new(self.job(of_rotation, controller, true, yes)));
                }
            }
        }
        let count = patients.iter().filter(|patient| patient.is_rescued()).count();
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
    async fn follow(&self, patient: &Patient, among: bool) -> (RotationResult, Result<(), Error>) {
        self.context.ui.status(format!(
            "{}: its agent is connected again. Rotating its registration tokens.",
            patient.of_rescue.display
        ));
        let (mut result, ended) = self.rotate(patient, among, true).await;
        let ended = ended.map_err(|mut error| {
            let Target { display, commands, .. } = &patient.opened.target;
            error.message = format!("{display} was rescued, but not rotated: {}", error.message);
            if error.kind != Kind::Pending {
                error = error.hint(format!("`{}` rotates its registration tokens", commands.rotate()));
            }
            result.message = Some(error.message.clone());
            error
        });
        (result, ended)
    }

    async fn rotate(&self, patient: &Patient, among: bool, yes: bool) -> (RotationResult, Result<(), Error>) {
        let target = &patient.opened.target;
        let mut result = RotationResult::of(target);
        let ended = match self.rotator(patient) {
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

    fn rescuer<'c>(&self, patient: &'c Patient) -> Result<RescueController<'c>, Error> {
        let connections = patient.opened.connections.as_ref().map_err(Clone::clone)?;
        let options = self.rescue.common.options(false, Some(patient.old_token.clone()));
        RescueController::new(connections, options).map_err(|error| self.context.ui.by_signal(error))
    }

    fn rotator<'c>(&self, patient: &'c Patient) -> Result<CrtController<'c>, Error> {
        let connections = patient.opened.connections.as_ref().map_err(Clone::clone)?;
        let options = self.rescue.common.options(false, Some(patient.old_token.clone()));
        CrtController::new(connections, options).map_err(|error| self.context.ui.by_signal(error))
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

impl Patient {
    /// Its connections, or why it cannot be rescued, which is known from the management cluster alone.
    fn connections(&self) -> Result<&Connections, Error> {
        self.opened.connections.as_ref().map_err(|error| {
            let mut result = self.opened.result.clone();
            match std::mem::take(&mut result.blockers) {
                blockers if blockers.is_empty() => error.clone(),
                blockers => refusal(&self.of_rescue, blockers, &mut result),
            }
        })
    }

    fn nothing(&self) -> RotationResult {
        let mut result = RotationResult::of(&self.of_rescue);
        result.end("nothing-to-do");
        let why = self
            .diagnosis
            .as_ref()
            .map_or("", |diagnosis| diagnosis.message.as_str());
        result.message = Some(format!("nothing to rescue in {}: {why}", self.of_rescue.display));
        result
    }

    fn is_rescued(&self) -> bool {
        matches!(self.next, Next::Rescue | Next::Rotate)
    }

    /// The commands about it, without the context that did not help.
    fn commands(&self, diagnosis: &Diagnosis, global: &GlobalFlags) -> Commands {
        match diagnosis.missing {
            Some(Missing::Context) => DownstreamFlags::default().commands(&self.id, global),
            _ => self.opened.target.commands.clone(),
        }
    }

    fn row(&self, global: &GlobalFlags) -> Option<Row> {
        let diagnosis = self.diagnosis.as_ref()?;
        Some(Row::of(diagnosis, &self.commands(diagnosis, global)))
    }
}

/// A rescue was the last run, and its rotation has not followed.
fn was_rescued(rotation: &ClusterRotation) -> bool {
    // Of whichever kind the Lease is now: the rotation has taken it before it began.
    rotation.record.last_result.as_deref() == Some(RescueRotation::ACTION.done)
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
