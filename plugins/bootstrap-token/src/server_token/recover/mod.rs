//! The I/O of the recovery: [`Recovery`](crate::server_token::recovery) decides, and [`Recoverer`] observes, carries out one action, and
//! observes again.
//!
//! It works with what is there: the Kubernetes API of any server, or none; the Lease of the rotations, where that API answers; access to
//! nodes, or an operator. So each part of an observation can be missing, and is unknown then.

mod act;
mod finish;
mod leftovers;
mod lock;
mod memory;
mod observe;
pub(crate) mod report;
mod round;
mod run;
mod tokens;

use std::collections::BTreeMap;
use std::time::Duration;

use cli::rotation::Commands;
use cli::ui::Ui;
use client::connection::Server as ApiServer;
use client::error::Error;
use engine::lock::LockGuard;
use engine::run::RunId;
use node_access::ServiceOptions;
use supervisor::node::ClusterNode;
use supervisor::{ClockReading, ServerToken, Supervisor, SupervisorKind, TokenHash};
use tokio::time::Instant;
use url::Url;

use self::leftovers::Leftovers;
use self::memory::ServerMemory;
use self::tokens::KnownTokens;
use crate::cluster::ClusterConnection;
use crate::server_token::connections::{Access, ServerFlags, ServerTarget};
use crate::server_token::in_flight::in_flight;
use crate::server_token::node_way::NodeWay;
use crate::server_token::recovery::facts::RoundFacts;
use crate::server_token::session::OutputTarget;

/// The run in the names of backups on nodes. There is one recovery at a time, and a repeated one deletes what is left.
const RUN: &str = "recover";

/// What the user has asked for.
pub(crate) struct RecoverOptions {
    /// The ones to prefer first.
    pub(crate) tokens: Vec<ServerToken>,
    /// That of `--new-token-file`, which is among them.
    pub(crate) given_new: Option<ServerToken>,
    pub(crate) output: OutputTarget,
    pub(crate) nodes: NodeWay,
    /// Those of K3s; the kind is set once it is known.
    pub(crate) service: ServiceOptions,
    pub(crate) restart_timeout: Option<Duration>,
    pub(crate) yes: bool,
    /// Diagnose only.
    pub(crate) dry_run: bool,
    /// The diagnosis is what standard output is for.
    pub(crate) is_data: bool,
    pub(crate) commands: Commands,
}

/// Recovers the servers of one cluster.
pub(crate) struct Recoverer<'a> {
    ui: &'a Ui,
    cluster: &'a ClusterConnection,
    addresses: &'a ServerFlags,
    access: Access,
    options: RecoverOptions,
    /// A part of the names of snapshots.
    id: RunId,
    kind: SupervisorKind,
    tokens: KnownTokens,
    /// The Nodes, as they were read last. Empty: never.
    nodes: Vec<ClusterNode>,
    /// The API server that has answered last.
    api: Option<ApiServer>,
    targets: Vec<ServerTarget>,
    supervisors: BTreeMap<String, Supervisor>,
    clocks: BTreeMap<String, ClockReading>,
    /// Why servers or nodes could not be asked.
    problems: BTreeMap<String, String>,
    lock: Option<LockGuard>,
    /// The API server through which it is renewed.
    lock_url: Option<Url>,
    /// The Lease was looked for.
    leftovers: Option<Leftovers>,
    /// The permissions for pods are checked, and abandoned ones are deleted.
    is_prepared: bool,
    in_flight: Option<Instant>,
    memory: BTreeMap<String, ServerMemory>,
    /// Of this process.
    starts: usize,
    proven: Option<TokenHash>,
    last_round: Option<RoundFacts>,
    /// The tokens of the rounds of this process.
    sent: Vec<TokenHash>,
    /// How many rounds began with a PUT that was not sent.
    unsent: usize,
}

impl<'a> Recoverer<'a> {
    pub(crate) fn new(
        ui: &'a Ui,
        cluster: &'a ClusterConnection,
        addresses: &'a ServerFlags,
        access: Access,
        options: RecoverOptions,
    ) -> Self {
        let mut tokens = KnownTokens::default();
        for token in &options.tokens {
            tokens.add(token.clone());
        }
        Self {
            ui,
            cluster,
            addresses,
            access,
            options,
            id: RunId::draw(),
            kind: SupervisorKind::K3s,
            tokens,
            nodes: Vec::new(),
            api: None,
            targets: Vec::new(),
            supervisors: BTreeMap::new(),
            clocks: BTreeMap::new(),
            problems: BTreeMap::new(),
            lock: None,
            lock_url: None,
            leftovers: None,
            is_prepared: false,
            in_flight: None,
            memory: BTreeMap::new(),
            starts: 0,
            proven: None,
            last_round: None,
            sent: Vec::new(),
            unsent: 0,
        }
    }

    /// How long anything may take that is waited for.
    fn limit(&self) -> Duration {
        self.options.restart_timeout.unwrap_or(match self.kind {
            SupervisorKind::K3s => Duration::from_mins(5),
            SupervisorKind::Rke2 => Duration::from_mins(15),
        })
    }

    fn memory(&mut self, server: &str) -> &mut ServerMemory {
        self.memory.entry(server.to_owned()).or_default()
    }

    /// A write of this process got no answer.
    fn may_arrive(&mut self) {
        self.in_flight = Some(Instant::now() + in_flight());
    }

    fn node(&self, name: &str) -> Option<&ClusterNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The supervisor of a server, which was reached before.
    fn supervisor(&self, server: &str) -> Result<Supervisor, Error> {
        let known = self.supervisors.get(server).cloned();
        known.ok_or_else(|| Error::failed(format!("server {server} was never reached")))
    }
}
