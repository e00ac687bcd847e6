//! One command with the servers of one cluster: connections, what was read of servers and nodes, and what this process has sent.
//!
//! The rotations of the server token and of the agent token share it. It decides nothing. What it reads becomes an [`Observed`] of names,
//! fingerprints and states ([`abstraction`]).
//!
//! [`Observed`]: super::rotation::observed::Observed

pub(crate) mod abstraction;
pub(crate) mod backup;
pub(crate) mod explain;
mod node_states;
pub(crate) mod nodes;
pub(crate) mod observe;
pub(crate) mod output;
pub(crate) mod reading;
pub(crate) mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cli::rotation::Commands;
use cli::ui::Ui;
use client::access::Needed;
use client::error::Error;
use client::secret::Fingerprint;
use engine::controller::Failure;
use engine::engine::LONGEST_OBSERVATION;
use engine::rotation::{Check, Rotation, Timer};
use engine::run::Run;
use node_access::ServiceOptions;
use supervisor::{CaHash, ServerToken as GivenServerToken, Supervisor, SupervisorKind, TokenUser, TokenValue};
use tokio::time::Instant;

use self::abstraction::Memory;
use self::node_states::NodeStates;
use self::observe::Latest;
use self::tokens::{Tokens, with_hash};
use super::connections::{Access, SupervisorFlags};
use super::in_flight::in_flight;
use super::node_way::NodeWay;
use super::rotation::blockers::{UNMEASURED, UNPIN};
use super::rotation::observed::{Options as RotationOptions, Output, Repin};
use crate::cluster::ClusterConnection;
use crate::report::target::CLUSTER;

/// The token that a command rotates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RotatedToken {
    Server,
    Agent,
}

impl RotatedToken {
    /// Whose token it is, in its `K10` form.
    pub(crate) fn user(self) -> TokenUser {
        match self {
            Self::Server => TokenUser::Server,
            Self::Agent => TokenUser::Node,
        }
    }
}

/// What the user has asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) rotates: RotatedToken,
    pub(crate) kind: SupervisorKind,
    /// The server token: the current one or, where a run is resumed, the new one.
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
    /// To standard output, before any server has it.
    Print,
}

impl Options {
    pub(crate) fn has_node_access(&self) -> bool {
        !matches!(self.nodes, NodeWay::ByHand)
    }

    pub(crate) fn node_timeout(&self) -> Duration {
        self.nodes.longest()
    }

    pub(crate) fn of_rotation(&self) -> RotationOptions {
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

/// A run, as far as it does not matter which token is rotated.
#[derive(Clone, Debug)]
pub(crate) struct RunFacts {
    pub(crate) id: String,
    /// Nothing that another process, or this one, has sent can still arrive.
    pub(crate) has_arrived: bool,
}

impl<R: Rotation> From<&Run<R>> for RunFacts {
    fn from(run: &Run<R>) -> Self {
        Self {
            id: run.id.to_string(),
            has_arrived: run.passed(Timer::InFlight),
        }
    }
}

pub(crate) struct Session<'a> {
    pub(crate) ui: &'a Ui,
    pub(crate) cluster: &'a ClusterConnection,
    pub(crate) flags: &'a SupervisorFlags,
    pub(crate) access: Access,
    pub(crate) options: Options,
    state: Mutex<State>,
}

/// What an observation leaves for the next step and the next observation.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) tokens: Tokens,
    pub(crate) latest: Option<Latest>,
    pub(crate) memory: Memory,
    /// The last observation was without a run: the next run is begun by this process.
    had_no_run: bool,
    own_run: Option<String>,
    /// The last step has changed neither servers nor nodes.
    pub(crate) is_reusable: bool,
    /// By the names of servers.
    pub(crate) supervisors: BTreeMap<String, Supervisor>,
    pub(crate) node_states: NodeStates,
    pub(crate) skipped_agents: BTreeSet<String>,
    /// The nodes were read after everything in flight had arrived.
    has_arrived: bool,
    /// The permissions for pods are checked, and abandoned ones are deleted.
    is_prepared: bool,
    cluster_uid: Option<String>,
    /// When the API server of the kubeconfig was found to be away.
    api_away: Option<Instant>,
    is_no_harvester: bool,
    /// The pods of another process of the run are deleted.
    is_cleaned_up: bool,
}

impl<'a> Session<'a> {
    /// # Errors
    /// If the given server token could not be set again.
    pub(crate) fn new(
        ui: &'a Ui,
        cluster: &'a ClusterConnection,
        flags: &'a SupervisorFlags,
        access: Access,
        options: Options,
    ) -> Result<Self, Error> {
        let given = options
            .given
            .value()
            .map_err(|error| Error::failed(format!("the current server token could not be set again: {error}")))?;
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

    /// The permissions of a command.
    pub(crate) fn needed(&self, command: &str) -> Needed<'_> {
        let state = self.state();
        let is_of_server = self.options.rotates == RotatedToken::Server;
        let has_snapshots = state.latest.as_ref().is_some_and(|latest| latest.seen.has_snapshots());
        Needed {
            server: &self.cluster.server,
            side: CLUSTER,
            rights: self.options.nodes.rights(command, is_of_server && has_snapshots),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn given(&self) -> Fingerprint {
        self.options.given.password().fingerprint()
    }

    /// Nodes are read by commands or pods, and once more where a server has just come back.
    pub(crate) fn longest_observation(&self) -> Duration {
        let by_nodes = if self.options.has_node_access() {
            self.options.node_timeout() * 2
        } else {
            Duration::ZERO
        };
        LONGEST_OBSERVATION + by_nodes
    }

    pub(crate) fn lasts(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Proof => self.options.restart_timeout,
            Timer::Quiet => self.options.pause_between.unwrap_or_default(),
            Timer::InFlight => in_flight(),
            Timer::Retry | Timer::Cache => Duration::ZERO,
        }
    }

    pub(crate) fn server_names(&self) -> Vec<String> {
        let state = self.state();
        let servers = state.latest.iter().flat_map(|latest| latest.seen.servers.keys());
        servers.cloned().collect()
    }

    pub(crate) fn ca_hash(&self) -> Option<CaHash> {
        let state = self.state();
        state.supervisors.values().next().map(|known| known.ca_hash().clone())
    }

    /// Whether the file of the user holds the new token, or this process has printed it.
    pub(crate) fn output(&self) -> Output {
        match &self.options.output {
            OutputTarget::Nowhere => Output::Nowhere,
            OutputTarget::File(path) => Output::File {
                path: path.display().to_string(),
                holds: output::holds(path),
            },
            OutputTarget::Print => Output::Print {
                printed: self.state().memory.printed,
            },
        }
    }

    pub(crate) fn write_output(&self, value: Fingerprint) -> Result<(), Failure> {
        match &self.options.output {
            OutputTarget::File(path) => {
                let text = self.text(value)?;
                output::write(path, &text).map_err(Failure::Permanent)
            }
            OutputTarget::Print | OutputTarget::Nowhere => self.state().tokens.require(value).map(drop),
        }
    }

    pub(crate) fn print(&self, value: Fingerprint) -> Result<(), Failure> {
        let text = self.text(value)?;
        self.ui.out(text.expose());
        self.state().memory.printed = Some(value);
        Ok(())
    }

    /// A token as nodes join with it.
    pub(crate) fn text(&self, value: Fingerprint) -> Result<client::secret::Secret, Failure> {
        let token = self.state().tokens.require(value)?;
        // Where the agent token is removed, agents use the server token.
        let user = if value == self.given() {
            TokenUser::Server
        } else {
            self.options.rotates.user()
        };
        Ok(with_hash(&token, user, self.ca_hash().as_ref()))
    }
}
