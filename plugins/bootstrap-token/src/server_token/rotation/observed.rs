//! The observed state that the next step depends on: names, fingerprints and states. No secret and no time.
//!
//! What is said to be known is known to *this process*: after it has begun, or after a write that got no answer, the next start of a
//! server is [`Files::Unknown`] until a snapshot or the node shows it.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;
use supervisor::SupervisorKind;
use supervisor::node::{EtcdMember, NodeManager};

use super::record::Record;

/// The observed state of one rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    pub cluster: Cluster,
    pub options: Options,
    /// The token that the user has passed: the old one, or the new one where a run is resumed.
    pub given: Fingerprint,
    /// The new token that the user has passed.
    pub given_new: Option<Fingerprint>,
    /// By the names of their Nodes.
    pub servers: BTreeMap<String, Server>,
    pub members: Members,
    /// Servers that are joining: a Node, a learner or a member without the rest.
    pub joining: BTreeSet<String>,
    pub encryption: Encryption,
    pub clocks: Clocks,
    /// The record in the backup Secret. The Secret holds the value of each of its tokens, sealed with the others.
    pub backup: Option<Record>,
    pub output: Output,
    pub snapshots: Snapshots,
    /// The last round, as far as this process knows.
    pub round: RoundResult,
    /// Another process may have sent a write that has not arrived: this one has not begun the run, or a write got no answer.
    pub may_be_in_flight: bool,
    /// Where the token of the agents is configured.
    pub agents: BTreeMap<String, Configured>,
}

/// What the preflight checks of the cluster look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    pub supervisor: SupervisorKind,
    pub datastore: Datastore,
    pub manager: Option<NodeManager>,
    /// Whether every server has the endpoint. `None`: the version of one is not known.
    pub can_change_token: Option<bool>,
    /// A new CA waits for restarts (`rotate-ca`).
    pub is_ca_rotating: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datastore {
    /// Embedded etcd. The only one with snapshots.
    Etcd,
    Sqlite,
    /// A database of its own.
    External,
}

/// What the user has asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// Files of nodes can be read and edited, and servers restarted. Otherwise an operator does that by hand.
    pub has_node_access: bool,
    /// `--force=unpin`
    pub force_unpin: bool,
    /// `--force=unmeasured`
    pub force_unmeasured: bool,
    /// `--only NODE`: no other server is restarted.
    pub only: Option<String>,
    /// `--pause-between`
    pub pauses: bool,
    pub repin: Repin,
}

/// Where the new token is configured at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Repin {
    #[default]
    Nowhere,
    /// `--repin`: on the servers that had one.
    Servers,
    /// `--repin --agents`: on these, and on the agents that have one.
    ServersAndAgents,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    pub role: Role,
    /// What it accepts as server.
    pub accepts: Login,
    /// What it accepts as node. `None`: agents have a token of their own.
    pub as_node: Option<Login>,
    pub is_ready: bool,
    pub member: EtcdMember,
    pub configured: Configured,
    /// The run's backup of its configuration exists: the run has removed a token from it.
    pub has_configuration_backup: bool,
    /// What its next start finds, unless a token is configured.
    pub files: Files,
    /// This process has asked for its restart, and has not seen it come back.
    pub is_restarting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Full,
    ControlPlaneOnly,
    EtcdOnly,
}

/// What a server answers when it is asked with each token of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Login {
    /// This one, and it rejects the others.
    Accepts(Fingerprint),
    /// It rejects all of them.
    Another,
    /// No answer, or 503, which says nothing.
    Unknown,
}

/// Where a token is configured, which a start uses instead of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Configured {
    /// By the files of the node, or, without node access, by what its last start has shown.
    Nowhere,
    /// With its fingerprint, which only node access shows.
    Token(Option<Fingerprint>),
    Unknown,
}

/// The password in `server/token` and `server/cred/passwd`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Files {
    Unknown,
    /// By an on-demand snapshot that was taken when nothing was in flight, or by node access.
    Hold(Fingerprint),
    /// They differ, or one is missing or empty.
    Damaged,
}

/// Whether the members of etcd are the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Members {
    /// They are, or there is no etcd.
    Same,
    Differ,
    Unknown,
}

/// Whether the encryption of Secrets allows a change of the token: it is off, or complete and the same on every server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    Safe,
    /// With the reason.
    Unsafe(String),
    /// A server does not say.
    Unknown,
}

/// The clocks of the servers, by the `Date` of their answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Clocks {
    /// They may differ by less than 2 s. The server that is furthest ahead, if there are several.
    Close(Option<String>),
    /// They differ by 2 s or more.
    Skewed,
    Unknown,
}

/// Where the user gets the new token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    Nowhere,
    /// `--write-token`, or the file of `--new-token-file`.
    File {
        path: String,
        /// What it holds, once that is synced to the disk.
        holds: Option<Fingerprint>,
    },
    /// `--print-token`: what this process has printed.
    Print {
        printed: Option<Fingerprint>,
    },
}

/// The snapshots of this run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Snapshots {
    /// The first ones, once every server has one. They are kept.
    pub first: Option<Needs>,
    /// There are some that only show what a server has in its files.
    pub has_checking: bool,
    /// The last ones, once every server has one. They are kept.
    pub last: Option<Needs>,
}

/// The token that snapshots need to be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// All need this one.
    Token(Fingerprint),
    /// They differ, or it is not known.
    Unknown,
}

/// How the last round ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum RoundResult {
    /// Another process began it, or one of its requests got no answer and none was carried out.
    #[default]
    Unknown,
    /// This process has recorded that it begins, and has not sent it.
    Recorded,
    /// This process has begun it, and each server has carried out the first request. The last server has the newest files. Without
    /// snapshots, a second round of this kind does not change that.
    Complete,
    /// It was sent again, or a server has carried out a second request only. Which files are the newest is not known.
    Repeated,
    /// This server has answered 500 before any server had carried it out.
    Rejected(String),
    /// That server has its former value again, and carried that out.
    Healed,
    /// That server has answered 500 again.
    NotHealed(String),
}

impl Server {
    pub(crate) fn is_up(&self, datastore: Datastore) -> bool {
        let votes = datastore != Datastore::Etcd || self.member == EtcdMember::Voter;
        self.is_ready && votes && !self.is_restarting && self.accepts != Login::Unknown
    }

    /// Whether it has loaded this token, for servers and, unless agents have their own, for nodes.
    pub(crate) fn has_loaded(&self, value: Fingerprint) -> bool {
        let accepted = |login: Login| login == Login::Accepts(value);
        accepted(self.accepts) && self.as_node.is_none_or(accepted)
    }
}

impl Observed {
    pub(crate) fn has_snapshots(&self) -> bool {
        self.cluster.datastore == Datastore::Etcd
    }

    /// Whether all servers have this token in their files. `None`: not known of all.
    pub(crate) fn all_hold(&self, value: Fingerprint) -> Option<bool> {
        let mut all = true;
        for server in self.servers.values() {
            match &server.files {
                Files::Hold(held) => all &= *held == value,
                Files::Damaged => all = false,
                Files::Unknown => return None,
            }
        }
        Some(all)
    }

    /// What the files of the servers have is not known any more.
    pub fn forget_files(&mut self) {
        for server in self.servers.values_mut() {
            server.files = Files::Unknown;
        }
    }
}
