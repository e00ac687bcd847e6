//! The half of the rotation that does I/O: [`CrtController`] reads both sides and applies single steps.
//!
//! It decides nothing. What it reads becomes an [`Observed`] of names and fingerprints (`abstraction`). The step that is decided on
//! comes back as a [`Step`], which it sends with the versions of the objects that it read last (`apply`).

mod abstraction;
mod apply;
pub(crate) mod check;
mod dry_run;
mod observe;
mod preflight;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::clock::ServerClock;
use client::connection::Server;
use client::error::{Error, Kind};
use client::secret::{Fingerprint, Secret};
use engine::controller::{Controller, Failure, PlanOf, ServerCheck, Summary};
use engine::lock::Fence;
use engine::rotation::{Check, Timer};
use engine::run::{Draw, Run};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rancher::cluster::ClusterId;
use rancher::probe::ProbeResult;
use rancher::token::{self, SYSTEM, generate};
use tokio::sync::OnceCell;

use self::abstraction::{Names, Snapshot};
pub(crate) use self::abstraction::{TEMPORARY_LABEL, TRIGGERED};
pub(crate) use self::preflight::not_rotated;
use crate::report::product;
use crate::rotation::Crt;
use crate::rotation::observed::{Downstream as Which, Observed};
use crate::rotation::step::Step;
use crate::sides::{Downstream, Path, Sides};

/// The field manager of every write.
pub const FIELD_MANAGER: &str = "kubectl-crt";

/// The options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Only the token of the agent gets a new value.
    pub(crate) only_agent: bool,
    /// The checks that do not count.
    pub(crate) forced: BTreeSet<Check>,
    /// How long the new token may take to be proven.
    pub(crate) timeout: Duration,
    /// How long a redeploy may be in flight that was rendered before.
    pub(crate) settle: Duration,
}

/// The controller of one cluster.
pub(crate) struct CrtController<'a> {
    sides: &'a Sides,
    downstream: &'a Downstream,
    options: Options,
    /// How long Rancher keeps a token valid: asked once.
    ttl: OnceCell<SignedDuration>,
    state: Mutex<State>,
}

/// What one look leaves for the next step, and for the next look.
#[derive(Default)]
struct State {
    snapshot: Option<Snapshot>,
    names: Names,
    /// Every value that this process has drawn or read. A value that no object holds any more can still be shown to be rejected.
    known: BTreeMap<Fingerprint, Secret>,
    /// Values that should be rejected and that Rancher could not be asked about, since no object holds them any more.
    unproven: BTreeSet<Fingerprint>,
    /// The answers about values, for as long as the tokens are the same.
    answered: Option<(Vec<String>, BTreeMap<Fingerprint, ProbeResult>)>,
    has_feature: Option<bool>,
    /// Whether the downstream cluster is the right one. What was shown once stays so: a connection leads to one place.
    downstream: Option<Which>,
    /// The cluster that Rancher says each value belongs to.
    belongs: BTreeMap<Fingerprint, ClusterId>,
    /// The version of the Cluster that was seen last, and since when.
    cluster_version: Option<(String, Timestamp)>,
    has_permissions: bool,
    /// How often this process has created a new pod of the agent.
    restarts: u32,
}

/// How long the first new pod of the agent may take to connect before there is another one. Each has twice the time of the one
/// before …
const RECONNECT: Duration = Duration::from_secs(30);
/// … up to eight minutes.
const DOUBLINGS: u32 = 4;

impl<'a> CrtController<'a> {
    /// For a cluster whose sides are open.
    ///
    /// # Errors
    /// There is no way to the downstream cluster.
    pub(crate) fn new(sides: &'a Sides, options: Options) -> Result<Self, Error> {
        let downstream = sides.downstream()?;
        Ok(Self {
            sides,
            downstream,
            options,
            ttl: OnceCell::new(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn draw(&self) -> Box<dyn Draw + '_> {
        Box::new(FromTheSystem {
            state: self.state(),
            clock: self.server().clock.clone(),
        })
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
            Timer::Quiet => self.options.settle,
            // Where pods start slowly, one that is replaced before it could connect never does.
            Timer::Retry => RECONNECT * 2_u32.pow(self.state().restarts.min(DOUBLINGS)),
            Timer::Cache => Duration::ZERO,
        }
    }

    fn server(&self) -> &Server {
        &self.sides.management
    }

    fn resumable_by(&self) -> String {
        format!(
            "anyone with the permissions on the management cluster and on {} that the rotation was begun with",
            self.sides.cluster.id
        )
    }

    fn reached(&self) -> String {
        format!(", reached {}", self.downstream.path)
    }

    /// The way through Rancher depends on the agent's own tunnel, which may be what is missing.
    fn explain(&self, error: Error) -> Error {
        if self.downstream.path != Path::Derived || error.kind != Kind::Unavailable {
            return error;
        }
        error
            .hint("Rancher reaches the cluster through its agent, whose tunnel may be down: see `kubectl crt status`")
            .hint("pass a context that does not go through the agent with --downstream-context")
    }

    async fn dry_run(&self, step: &Step) -> ServerCheck {
        dry_run::check(self.sides, step).await
    }

    fn unproven(&self) -> Vec<String> {
        let unproven = |token: &Fingerprint| {
            format!(
                "Not verified: that Rancher rejects {token}. No object has its value any more, so it cannot be asked."
            )
        };
        self.state().unproven.iter().map(unproven).collect()
    }

    async fn summary(&self, before: &Observed, plan: Option<&PlanOf<Self>>) -> Summary {
        let found = token::get(&self.sides.management.client, &self.sides.cluster.id, SYSTEM).await;
        let system = found.ok().flatten();
        Summary {
            in_use: system.and_then(|token| token.current().map(Secret::fingerprint)),
            message: product::summary(before, plan),
        }
    }
}

/// Draws from the operating system, and keeps what it drew for the step.
struct FromTheSystem<'a> {
    state: MutexGuard<'a, State>,
    clock: ServerClock,
}

impl Draw for FromTheSystem<'_> {
    fn credential(&mut self) -> Fingerprint {
        // Without randomness nothing is kept, and the step finds no value to send.
        let Ok(value) = generate() else {
            return Fingerprint::of("");
        };
        let fingerprint = value.fingerprint();
        self.state.known.insert(fingerprint, value);
        fingerprint
    }

    fn mark(&mut self) -> String {
        self.clock.now().to_string()
    }
}
