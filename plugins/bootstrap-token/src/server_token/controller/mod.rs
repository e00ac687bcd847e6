//! The I/O of the rotation of the server token: [`ServerTokenController`] reads the servers and applies single steps.
//!
//! It decides nothing. What it reads becomes an [`Observed`] of names, fingerprints and states ([`abstraction`]).

pub(super) mod abstraction;
mod apply;
pub(super) mod backup;
mod explain;
mod node_states;
pub(super) mod nodes;
mod observe;
pub(super) mod output;
pub(super) mod reading;
mod round;
pub(super) mod tokens;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cli::rotation::Commands;
use cli::ui::Ui;
use client::access::Needed;
use client::connection::Server;
use client::error::Error;
use engine::controller::{Controller, Failure, PlanOf, ServerCheck, Summary};
use engine::engine::LONGEST_OBSERVATION;
use engine::lock::Fence;
use engine::rotation::{Check, Timer};
use engine::run::{Draw, RunId};
use node_access::ServiceOptions;
use supervisor::snapshot::SnapshotFile;
use supervisor::{ServerToken as GivenServerToken, Supervisor, SupervisorKind, TokenValue};
use tokio::time::Instant;

use self::abstraction::Memory;
use self::node_states::NodeStates;
use self::observe::Latest;
use self::tokens::{SystemRandom, Tokens};
use crate::cluster::ClusterConnection;
use crate::report::target::CLUSTER;
use crate::rights::SERVER_ROTATE;
use crate::server_token::connections::{Access, SupervisorFlags};
use crate::server_token::in_flight::in_flight;
use crate::server_token::node_way::NodeWay;
use crate::server_token::rotation::ServerToken;
use crate::server_token::rotation::blockers::{UNMEASURED, UNPIN};
use crate::server_token::rotation::observed::{Observed, Options as RotationOptions, Repin};
use crate::server_token::rotation::step::Step;

type Run = engine::run::Run<ServerToken>;

/// What the user has asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) kind: SupervisorKind,
    /// The current token, or the new one where a run is resumed.
    pub(crate) given: GivenServerToken,
    pub(crate) given_new: Option<TokenValue>,
    pub(crate) output: OutputTarget,
    pub(crate) nodes: NodeWay,
    pub(crate) service: ServiceOptions,
    pub(crate) restart_timeout: Duration,
    pub(crate) pause_between: Option<Duration>,
    pub(crate) only: Option<String>,
    pub(crate) repin: Repin,
    pub(crate) forced: Vec<Check>,
    pub(crate) commands: Commands,
}

/// Where the new token goes.
#[derive(Clone, Debug)]
pub(crate) enum OutputTarget {
    Nowhere,
    File(PathBuf),
    /// To standard output, before the first PUT.
    Print,
}

impl Options {
    pub(crate) fn has_node_access(&self) -> bool {
        !matches!(self.nodes, NodeWay::ByHand)
    }

    fn node_timeout(&self) -> Duration {
        self.nodes.longest()
    }

    fn of_rotation(&self) -> RotationOptions {
        RotationOptions {
            has_node_access: self.has_node_access(),
            force_unpin: self.forced.contains(&UNPIN),
            force_unmeasured: self.forced.contains(&UNMEASURED),
            only: self.only.clone(),
            pauses: self.pause_between.is_some(),
            repin: self.repin,
        }
    }
}

/// Observes the servers of one cluster, and applies steps to them.
pub(crate) struct ServerTokenController<'a> {
    ui: &'a Ui,
    cluster: &'a ClusterConnection,
    flags: &'a SupervisorFlags,
    access: Access,
    options: Options,
    state: Mutex<State>,
}

/// What an observation leaves for the next step and the next observation.
#[derive(Default)]
struct State {
    tokens: Tokens,
    latest: Option<Latest>,
    memory: Memory,
    /// The last observation was without a run: the next run is begun by this process.
    had_no_run: bool,
    own_run: Option<RunId>,
    /// The last step has changed neither servers nor nodes.
    is_reusable: bool,
    /// By the names of servers.
    supervisors: BTreeMap<String, Supervisor>,
    node_states: NodeStates,
    /// The nodes were read after everything in flight had arrived.
    has_arrived: bool,
    /// The permissions for pods are checked, and abandoned ones are deleted.
    is_prepared: bool,
    /// `None`: they have to be read.
    snapshots: Option<Vec<SnapshotFile>>,
    cluster_uid: Option<String>,
    /// When the API server of the kubeconfig was found to be away.
    api_away: Option<Instant>,
    is_no_harvester: bool,
    /// The pods of another process of the run are deleted.
    is_cleaned_up: bool,
    /// Why PUTs of the last round failed.
    reasons: Vec<String>,
}

impl<'a> ServerTokenController<'a> {
    /// # Errors
    /// If the given token could not be set again by a rollback.
    pub(crate) fn new(
        ui: &'a Ui,
        cluster: &'a ClusterConnection,
        flags: &'a SupervisorFlags,
        access: Access,
        options: Options,
    ) -> Result<Self, Error> {
        let given = options.given.value().map_err(|error| {
            Error::failed(format!(
                "the current token could not be set again by a rollback: {error}"
            ))
        })?;
        let mut state = State::default();
        state.tokens.insert(given);
        if let Some(new) = &options.given_new {
            state.tokens.insert(new.clone());
        }
        Ok(Self {
            ui,
            cluster,
            flags,
            access,
            options,
            state: Mutex::new(state),
        })
    }

    fn needed(&self) -> Needed<'_> {
        let state = self.state();
        let has_snapshots = state.latest.as_ref().is_some_and(|latest| latest.seen.has_snapshots());
        Needed {
            server: &self.cluster.server,
            side: CLUSTER,
            rights: self.options.nodes.rights(SERVER_ROTATE, has_snapshots),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Controller for ServerTokenController<'_> {
    type Rotation = ServerToken;

    async fn observe(&self, run: Option<&Run>) -> Result<Observed, Failure> {
        Box::pin(self.observation(run, None)).await
    }

    /// Nodes are read by commands or pods, and once more where a server has just come back.
    fn longest_observation(&self) -> Duration {
        let by_nodes = if self.options.has_node_access() {
            self.options.node_timeout() * 2
        } else {
            Duration::ZERO
        };
        LONGEST_OBSERVATION + by_nodes
    }

    fn draw(&self) -> Box<dyn Draw + Send + '_> {
        Box::new(SystemRandom(self))
    }

    fn needs(&self) -> Vec<Needed<'_>> {
        vec![self.needed()]
    }

    async fn apply(&self, step: &Step, run: &Run, fence: &Fence) -> Result<(), Failure> {
        Box::pin(self.send(step, run, fence)).await
    }

    fn longest(&self, step: &Step) -> Duration {
        self.longest_step(step)
    }

    fn lasts(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Proof => self.options.restart_timeout,
            Timer::Quiet => self.options.pause_between.unwrap_or_default(),
            Timer::InFlight => in_flight(),
            Timer::Retry | Timer::Cache => Duration::ZERO,
        }
    }

    fn server(&self) -> &Server {
        &self.cluster.server
    }

    fn resumable_by(&self) -> String {
        "anyone who has the old or the new token, and the permissions in kube-system that the rotation was started with"
            .to_owned()
    }

    fn explain(&self, error: Error) -> Error {
        self.explained(error)
    }

    async fn dry_run(&self, step: &Step) -> ServerCheck {
        self.check(step).await
    }

    fn unproven(&self) -> Vec<String> {
        self.not_proven()
    }

    async fn summary(&self, _: &Observed, _: Option<&PlanOf<Self>>) -> Summary {
        self.summarized()
    }
}
