//! The observed state that the next step depends on: names, fingerprints and states. No secret and no time.
//!
//! Most of it is that of the rotation of the server token. Of a [`Server`] it uses `accepts` for the server token, `as_node` for the token
//! that it accepts as node (here it is always asked), and `configured` for the agent token in its configuration. [`Login::Another`] as
//! node is the old token where the record does not have it, also if it is passed or can be read later. A token that a server rejects with 401 while it starts is rejected: with the right one
//! it answers 500 or 503 then. So what it accepts is known before it is ready.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;
use engine::rotation::Action;

pub use crate::server_token::rotation::observed::{
    Clocks, Cluster, Configured, Datastore, Encryption, Login, Members, Options, Output, Role, Server,
};

use super::record::{Record, Saved};

/// The observed state of one rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    pub cluster: Cluster,
    pub options: Options,
    pub purpose: Purpose,
    /// The server token, which the user has passed.
    pub given: Fingerprint,
    /// The new agent token that the user has passed.
    pub given_new: Option<Fingerprint>,
    /// The old agent token that the user has passed, or that was read from a node.
    pub given_old: Option<Fingerprint>,
    /// By the names of their Nodes.
    pub servers: BTreeMap<String, Server>,
    pub members: Members,
    /// Servers that are joining: a Node, a learner or a member without the rest.
    pub joining: BTreeSet<String>,
    pub encryption: Encryption,
    pub clocks: Clocks,
    /// The servers with the newest `cred/passwd`: those whose file has the latest time. Empty: the file of a server cannot be read yet.
    /// `None`: there is no node access.
    pub newest: Option<BTreeSet<String>>,
    /// The servers whose process has started since the last PUT that the run has recorded, or else since the run began. `None`: not
    /// known. With node access nothing depends on it.
    pub started: Option<BTreeSet<String>>,
    pub put: PutResult,
    /// The record in the backup Secret. The Secret holds the values of O and N, sealed with the server token.
    pub backup: Option<Record>,
    pub output: Output,
    /// Another process may have sent a write that has not arrived: this one has not begun the run, or a write got no answer.
    pub may_be_in_flight: bool,
    /// By the names of their Nodes. One that cannot be read or written has an unknown configuration, and no backup.
    pub agents: BTreeMap<String, Agent>,
    /// `--agents`: the new token is written into the configuration of agents that have the old one.
    pub writes_agents: bool,
}

/// An agent. Servers do not depend on it, and it needs its token only when it joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    /// The token in its configuration.
    pub configured: Configured,
    /// The run has a backup of a file of it.
    pub has_configuration_backup: bool,
}

/// The last PUT that was begun, as far as this process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PutResult {
    /// There was none, or another process has begun it, or it got no answer.
    #[default]
    Unknown,
    /// This process has recorded that it begins, and has not sent it.
    Recorded,
    /// It was answered with 200.
    Done(Saved),
}

/// What the user has asked for. Of the stages, only the survey tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The first agent token.
    Set,
    #[default]
    Rotate,
    /// Agents use the server token afterwards.
    Remove,
}

impl Purpose {
    pub(crate) fn action(self) -> Action {
        match self {
            Self::Set => Action {
                verb: "set",
                noun: "change",
                done: "set",
            },
            Self::Rotate => Action::ROTATE,
            Self::Remove => Action {
                verb: "remove",
                noun: "removal",
                done: "removed",
            },
        }
    }
}

/// What a server accepts as node. The inner `None` is the old token where that is not known.
#[expect(
    clippy::option_option,
    reason = "the inner one is a token of the record, which may not be known"
)]
pub(crate) fn as_node(server: &Server) -> Option<Option<Fingerprint>> {
    match server.as_node {
        Some(Login::Accepts(value)) => Some(Some(value)),
        Some(Login::Another) => Some(None),
        Some(Login::Unknown) | None => None,
    }
}

impl Observed {
    /// `None`: the old token, which is not known.
    pub(crate) fn all_accept(&self, value: Option<Fingerprint>) -> bool {
        self.servers.values().all(|server| as_node(server) == Some(value))
    }

    /// What a server accepts as node after a start with this configuration. `None`: not known.
    pub(crate) fn would_accept(&self, configured: Configured) -> Option<Fingerprint> {
        match configured {
            Configured::Nowhere => Some(self.given),
            Configured::Token(value) => value,
            Configured::Unknown => None,
        }
    }
}
