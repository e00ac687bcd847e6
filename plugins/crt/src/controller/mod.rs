//! The half of the rotation that does I/O: [`CrtController`] reads both connections and applies single steps.
//!
//! It decides nothing. What it reads becomes an [`Observed`] of names and fingerprints (`abstraction`). The step that is decided on
//! comes back as a [`Step`], which it sends with the versions of the objects that it read last (`apply`).

mod abstraction;
mod apply;
pub(crate) mod check;
mod dry_run;
mod observe;
mod preflight;
mod provisioned;
mod rescue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cli::test_times::unless_shortened;
use client::access::Needed;
use client::connection::Server;
use client::error::{Error, Kind};
use client::secret::{Fingerprint, Secret};
use engine::controller::{Controller, Failure, PlanOf, ServerCheck, Summary};
use engine::lock::Fence;
use engine::rotation::{Check, Rotation as _, Timer};
use engine::run::{Draw, Run};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rancher::cluster::ClusterId;
use rancher::probe::ProbeResult;
use rancher::token::{self, SYSTEM, generate};
use tokio::sync::OnceCell;

use self::abstraction::{Names, Snapshot};
#[cfg(test)]
pub(crate) use self::abstraction::{REACTIVATED, REACTIVATED_VALUE};
pub(crate) use self::abstraction::{TEMPORARY_LABEL, TRIGGERED, reactivation};
pub(crate) use self::preflight::unsupported;
pub(crate) use self::rescue::RescueController;
use crate::connections::{Connections, Downstream, Route};
use crate::report;
use crate::report::rotation::HarvesterToken;
use crate::rotation::Crt;
use crate::rotation::observed::{DownstreamIdentity, Observed};
use crate::rotation::rescue::Rescue;
use crate::rotation::step::Step;

/// The field manager of every write.
pub(crate) const FIELD_MANAGER: &str = "kubectl-crt";

/// The options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Rotate only the agent's token.
    pub(crate) only_agent: bool,
    /// The checks that are overridden.
    pub(crate) forced: BTreeSet<Check>,
    /// The time within which the new token must be proven.
    pub(crate) timeout: Duration,
    /// How long a redeploy that was rendered earlier may be in flight.
    pub(crate) settle: Duration,
    /// `None`: the agent has to be connected.
    pub(crate) rescue: Option<Reactivation>,
}

/// The old token of an agent that is to be rescued.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reactivation {
    /// It may be made valid again (`--reactivate-old-token`).
    pub(crate) permitted: bool,
    /// Its value, where the user has given it.
    pub(crate) value: Option<Secret>,
}

/// The controller of one cluster.
pub(crate) struct CrtController<'a> {
    connections: &'a Connections,
    downstream: &'a Downstream,
    options: Options,
    /// The stages are those of a rescue.
    is_rescue: bool,
    /// The time to live of a token, by Rancher's setting, which is read once.
    ttl: OnceCell<SignedDuration>,
    /// The token in Harvester's setting.
    harvester: OnceCell<HarvesterToken>,
    state: Mutex<State>,
}

/// What the next step and the next look need of earlier looks.
#[derive(Default)]
struct State {
    snapshot: Option<Snapshot>,
    names: Names,
    /// Every value that this process has drawn or read, so that a value can be proven to be rejected after its object is deleted.
    values: BTreeMap<Fingerprint, Secret>,
    /// Values that should be rejected and cannot be probed, since this process does not know them.
    unproven: BTreeSet<Fingerprint>,
    /// The probe results, with the versions of the tokens for which they are valid.
    probed: Option<(Vec<String>, BTreeMap<Fingerprint, ProbeResult>)>,
    has_feature: Option<bool>,
    /// Whether the downstream cluster is the right one. Once proven it stays so: a connection leads to one cluster.
    downstream: Option<DownstreamIdentity>,
    /// The cluster that each value belongs to, by Rancher.
    owners: BTreeMap<Fingerprint, ClusterId>,
    /// The version of the Cluster that was read last, and since when.
    cluster_version: Option<(String, Timestamp)>,
    /// When this process looked first.
    began: Option<Timestamp>,
    /// The trigger since which the provisioning cluster was seen not `Ready`; empty: before any.
    not_ready: Option<String>,
    /// How often this process has created a new agent pod.
    restarts: u32,
}

/// RKE2 and K3s look at a changed file within 15 s. A plan that is applied means that the file is written.
fn file_is_read() -> Duration {
    unless_shortened("KUBECTL_ROTATION_TEST_FILE_IS_READ", Duration::from_secs(20))
}

/// Where the rollout cannot be observed: from Rancher's apply until the new agent has connected and the old one is gone. Seen on Rancher
/// 2.15.0: 2 to 5 s.
const AGENT_IS_REPLACED: Duration = Duration::from_secs(20);
/// What remains unknown where the agent cannot be looked at.
const UNREAD: &str = "Not verified: which token the agent's Deployment and pods have, since they cannot be read on the downstream cluster.";
/// How long the first new agent pod may take to connect before another one is created. Each further one gets twice the time, up to
/// eight minutes.
const RECONNECT: Duration = Duration::from_secs(30);
const DOUBLINGS: u32 = 4;

impl<'a> CrtController<'a> {
    /// For a cluster with open connections.
    ///
    /// # Errors
    /// There is no route to the downstream cluster.
    pub(crate) fn new(connections: &'a Connections, options: Options) -> Result<Self, Error> {
        let downstream = connections.downstream()?;
        let given = options.rescue.as_ref().and_then(|old| old.value.clone());
        let values = given.map(|value| (value.fingerprint(), value)).into_iter().collect();
        Ok(Self {
            connections,
            downstream,
            options,
            is_rescue: false,
            ttl: OnceCell::new(),
            harvester: OnceCell::new(),
            state: Mutex::new(State {
                values,
                ..State::default()
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the agent cannot be looked at.
    fn is_unread(&self) -> bool {
        let state = self.state();
        let snapshot = state.snapshot.as_ref();
        snapshot.is_some_and(|snapshot| snapshot.deployment.is_err())
    }

    /// What Harvester's setting has, on a cluster of Harvester.
    fn harvester(&self, plan: &PlanOf<Self>) -> Option<String> {
        report::rotation::harvester(*self.harvester.get()?, &plan.record)
    }

    /// The value that this command may make valid again.
    fn reactivates(&self) -> Option<Fingerprint> {
        let old = self
            .options
            .rescue
            .as_ref()
            .filter(|old| old.permitted && self.is_rescue)?;
        old.value.as_ref().map(Secret::fingerprint)
    }

    fn forces(&self, check: Check) -> bool {
        self.options.forced.contains(&check)
    }
}

impl Controller for CrtController<'_> {
    type Rotation = Crt;

    async fn observe(&self, run: Option<&Run<Crt>>) -> Result<Observed, Failure> {
        Box::pin(self.look(run)).await
    }

    fn needs(&self) -> Vec<Needed<'_>> {
        let state = self.state();
        let needs = |snapshot| preflight::needs(self.connections, self.downstream, snapshot);
        state.snapshot.as_ref().map_or_else(Vec::new, needs)
    }

    fn draw(&self) -> Box<dyn Draw + Send + '_> {
        Box::new(self)
    }

    async fn apply(&self, step: &Step, run: &Run<Crt>, fence: &Fence) -> Result<(), Failure> {
        self.send(step, run, fence).await?;
        if matches!(step, Step::PointHeld { .. }) {
            self.state().restarts += 1;
        }
        Ok(())
    }

    fn lasts(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Proof => self.options.timeout,
            Timer::Quiet if self.connections.provisioning.is_some() => self.options.settle.max(file_is_read()),
            Timer::Quiet if self.is_unread() => self.options.settle.max(AGENT_IS_REPLACED),
            Timer::Quiet => self.options.settle,
            // Where pods start slowly, a pod that is replaced too early never connects.
            Timer::Retry => RECONNECT * 2_u32.pow(self.state().restarts.min(DOUBLINGS)),
            Timer::Cache | Timer::InFlight => Duration::ZERO,
        }
    }

    fn server(&self) -> &Server {
        &self.connections.management
    }

    fn resumable_by(&self) -> String {
        format!(
            "anyone with permission to rotate on the management cluster and on cluster {}",
            self.connections.cluster.id
        )
    }

    fn reached(&self) -> String {
        format!(", reached {}", self.downstream.route)
    }

    /// The route through Rancher depends on the agent's own tunnel, which may be down.
    fn explain(&self, error: Error) -> Error {
        if error.kind == Kind::Pending
            && let Some(until) = self.kept_valid_until()
        {
            return error.hint(format!(
                "the values from before the rotation stay valid until {until} at least; running the command again extends that"
            ));
        }
        if self.downstream.route != Route::ThroughRancher || error.kind != Kind::Unavailable {
            return error;
        }
        let commands = &self.connections.commands;
        let status = commands.status();
        let rescue = commands.other(Rescue::KIND).map(|other| other.commands.rotate());
        let error = error.hint(format!(
            "Rancher reaches the cluster through its agent, whose tunnel may be down: see `{status}`"
        ));
        let error = match rescue.filter(|_| !self.is_rescue) {
            Some(rescue) => error.hint(format!("`{rescue}` brings back an agent that has lost its token")),
            None => error,
        };
        error.hint("pass a context that does not go through the agent with --downstream-context")
    }

    async fn dry_run(&self, step: &Step) -> ServerCheck {
        dry_run::check(self.connections, step).await
    }

    fn also_invalidated(&self, plan: &PlanOf<Self>) -> Vec<String> {
        let is_forward = !plan.direction.is_rollback();
        self.harvester(plan).filter(|_| is_forward).into_iter().collect()
    }

    fn unproven(&self) -> Vec<String> {
        let unproven = |token: &Fingerprint| {
            format!("Not verified: that Rancher rejects {token}. No object has its value any more.")
        };
        self.state().unproven.iter().map(unproven).collect()
    }

    async fn summary(&self, _before: &Observed, plan: Option<&PlanOf<Self>>) -> Summary {
        let client = &self.connections.management.client;
        let tokens = token::list(client, &self.connections.cluster.id).await.ok();
        let system = tokens.as_ref().and_then(|tokens| tokens.named(SYSTEM));
        Summary {
            in_use: system.and_then(|token| token.current().map(Secret::fingerprint)),
            message: report::rotation::summary(
                &self.connections.cluster,
                plan,
                tokens.as_ref(),
                &self.connections.commands,
                [
                    self.is_unread().then(|| UNREAD.to_owned()),
                    plan.and_then(|plan| self.harvester(plan)),
                    self.after_a_leak(),
                ],
            ),
        }
    }
}

/// Draws values from the operating system, and keeps them for the step.
impl Draw for &CrtController<'_> {
    fn credential(&mut self) -> Fingerprint {
        // Without randomness nothing is kept, and the step finds no value to send.
        let Ok(value) = generate() else {
            return Fingerprint::of("");
        };
        let fingerprint = value.fingerprint();
        self.state().values.insert(fingerprint, value);
        fingerprint
    }

    fn mark(&mut self) -> String {
        self.server().clock.now().to_string()
    }
}
