//! From what was read to the state that the next step depends on. **The safety of a rotation rests on this as much as on its stages.**
//!
//! An answer that is missing never counts as a permission: it is unknown, and the stages wait or refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::secret::Fingerprint;
use k8s_openapi::jiff::SignedDuration;
use node_access::{Configuration, NodeState, PlaceKind, TokenPlace};
use supervisor::node::{ClusterNode, EtcdMember, NodeManager, StartConfiguration};
use supervisor::snapshot::SnapshotFile;
use supervisor::{
    CaHash, ClockReading, EncryptionBlocker, EncryptionStatus, ProbeResult, SupervisorKind, UnknownReason,
};

use super::RotatedToken;
use super::tokens::fingerprint_of;
use crate::server_token::rotation::observed::{
    Clocks, Cluster, Configured, Datastore, Encryption, Files, Login, Members, Needs, Observed, Options, Output, Role,
    RoundResult, Server, Snapshots,
};
use crate::server_token::rotation::record::Record;
use crate::server_token::rotation::step::SnapshotKind;

/// K3s compares the times of files in whole seconds: two clocks have to differ by less.
const CLOSE: Duration = Duration::from_secs(2);
/// Less is the time of the requests.
const AHEAD: SignedDuration = SignedDuration::from_millis(250);

/// What one server has answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerReading {
    /// To each known token of the run, as server and as node.
    pub(crate) as_server: Vec<(Fingerprint, ProbeResult)>,
    pub(crate) as_node: Vec<(Fingerprint, ProbeResult)>,
    /// Whether its own API server is ready. `None`: it was not asked.
    pub(crate) readiness: Option<Result<(), String>>,
    /// `None`: it was not asked, since it accepts no known token.
    pub(crate) encryption: Option<Result<EncryptionStatus, String>>,
    pub(crate) clock: Option<ClockReading>,
    pub(crate) ca_hash: Option<CaHash>,
    /// Why it could not be asked.
    pub(crate) problem: Option<String>,
}

/// What this process knows of its own writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// It has begun the run.
    pub(crate) is_own: bool,
    /// One of its writes got no answer, or is being sent.
    pub(crate) is_unanswered: bool,
    pub(crate) round: RoundResult,
    /// By snapshots that were taken since the last write, or, without snapshots, by a second PUT.
    pub(crate) files: BTreeMap<String, Files>,
    pub(crate) restarting: BTreeMap<String, Restarting>,
    pub(crate) printed: Option<Fingerprint>,
}

/// A restart that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restarting {
    /// What the server accepted before.
    pub(crate) accepted: Login,
    pub(crate) was_configured: bool,
    /// What it accepted as node before.
    pub(crate) as_node: Option<Login>,
    /// It has been away since.
    pub(crate) was_away: bool,
    /// It has not answered since.
    pub(crate) was_silent: bool,
}

/// Everything that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) rotates: RotatedToken,
    /// The run, as a part of names.
    pub(crate) run: Option<&'a str>,
    pub(crate) kind: SupervisorKind,
    pub(crate) given: Fingerprint,
    pub(crate) given_new: Option<Fingerprint>,
    pub(crate) nodes: &'a [ClusterNode],
    pub(crate) readings: &'a BTreeMap<String, ServerReading>,
    /// By node access.
    pub(crate) node_states: &'a BTreeMap<String, NodeState>,
    pub(crate) snapshots: &'a [SnapshotFile],
    pub(crate) backup: Option<&'a Record>,
    /// The servers of the run, as far as it has recorded them.
    pub(crate) of_run: &'a BTreeSet<String>,
    /// The Nodes of whose configuration the run may have a backup, by the backup Secret.
    pub(crate) configuration_backups: &'a BTreeSet<String>,
    /// Nothing that another process, or this one, has sent can still arrive.
    pub(crate) has_arrived: bool,
    /// The values of all tokens of the run are known, so each server was asked with all of them.
    pub(crate) all_known: bool,
    pub(crate) is_harvester: bool,
    pub(crate) options: &'a Options,
    pub(crate) output: &'a Output,
    pub(crate) memory: &'a Memory,
}

impl Inputs<'_> {
    pub(crate) fn observed(self) -> Observed {
        let datastore = datastore(self.nodes);
        let (servers, joining) = self.servers(datastore);
        let agents = self.nodes.iter().filter(|node| is_agent(node, self.kind));
        let agents = agents.map(|node| (node.name.clone(), self.agent(node)));
        Observed {
            cluster: self.cluster(datastore, servers.keys()),
            options: self.options.clone(),
            given: self.given,
            given_new: self.given_new,
            members: members(servers.values(), datastore),
            joining,
            encryption: encryption(servers.keys(), self.readings),
            clocks: self.clocks(servers.keys()),
            backup: self.backup.cloned(),
            output: self.output.clone(),
            snapshots: match self.run {
                Some(run) => snapshots(run, servers.keys(), self.snapshots),
                None => Snapshots::default(),
            },
            round: self.memory.round.clone(),
            may_be_in_flight: self.may_be_in_flight(),
            agents: agents.collect(),
            servers,
        }
    }

    fn may_be_in_flight(&self) -> bool {
        self.run.is_some() && (!self.memory.is_own || self.memory.is_unanswered)
    }

    fn cluster<'s>(&self, datastore: Datastore, servers: impl Iterator<Item = &'s String>) -> Cluster {
        let of_servers = |name: &String| self.nodes.iter().find(|node| node.name == *name);
        let servers: Vec<&ClusterNode> = servers.filter_map(of_servers).collect();
        let can: Vec<Option<bool>> = servers
            .iter()
            .map(|node| self.kind.can_change_token(&node.version))
            .collect();
        let managers: Vec<NodeManager> = self.nodes.iter().filter_map(|node| node.manager).collect();
        let hashes: BTreeSet<String> = self
            .readings
            .values()
            .filter_map(|reading| Some(reading.ca_hash.as_ref()?.to_string()))
            .collect();
        Cluster {
            supervisor: self.kind,
            datastore,
            manager: if self.is_harvester || managers.contains(&NodeManager::Harvester) {
                Some(NodeManager::Harvester)
            } else {
                managers.first().copied()
            },
            can_change_token: if can.contains(&Some(false)) {
                Some(false)
            } else {
                (!can.contains(&None)).then_some(true)
            },
            is_ca_rotating: hashes.len() > 1,
        }
    }

    /// The servers, and those that are joining. One that the run has already given a token is a server, whatever its Node shows.
    fn servers(&self, datastore: Datastore) -> (BTreeMap<String, Server>, BTreeSet<String>) {
        let round = self.backup.and_then(|record| record.round.as_ref());
        let is_of_round = |name: &String| round.is_some_and(|round| round.order.contains(name));
        let is_of_run = |name: &String| self.of_run.contains(name) || is_of_round(name);
        let (mut servers, mut joining) = (BTreeMap::new(), BTreeSet::new());
        for node in self.nodes.iter().filter(|node| node.supervisor().is_some()) {
            let is_learner = node.is_etcd && matches!(node.etcd_member, EtcdMember::NotVoter | EtcdMember::Missing);
            if datastore == Datastore::Etcd && is_learner && !is_of_run(&node.name) {
                joining.insert(node.name.clone());
            } else {
                servers.insert(node.name.clone(), self.server(node, datastore));
            }
        }
        (servers, joining)
    }

    fn server(&self, node: &ClusterNode, datastore: Datastore) -> Server {
        let unread = ServerReading::default();
        let reading = self.readings.get(&node.name).unwrap_or(&unread);
        let state = self.node_states.get(&node.name);
        Server {
            role: match (node.is_control_plane, node.is_etcd) {
                (true, true) => Role::Full,
                (true, false) if datastore != Datastore::Etcd => Role::Full,
                (true, false) => Role::ControlPlaneOnly,
                (false, _) => Role::EtcdOnly,
            },
            accepts: login(&reading.as_server, self.all_known),
            as_node: match self.rotates {
                RotatedToken::Server => {
                    (!has_agent_token(node, state)).then(|| login(&reading.as_node, self.all_known))
                }
                RotatedToken::Agent => Some(starting_login(&reading.as_node, self.all_known)),
            },
            is_ready: reading.readiness == Some(Ok(())) && node.is_ready == Some(true),
            member: node.etcd_member,
            configured: self.configured(node, state),
            has_configuration_backup: match state {
                Some(state) => !state.backups.is_empty(),
                None => self.configuration_backups.contains(&node.name),
            },
            files: match state {
                // They may change at any moment.
                _ if self.may_be_in_flight() && !self.has_arrived => Files::Unknown,
                Some(state) => files(state),
                None => self.memory.files.get(&node.name).cloned().unwrap_or(Files::Unknown),
            },
            is_restarting: self.memory.restarting.contains_key(&node.name),
        }
    }

    /// Node access shows what the next start finds; without it, what the last one has found.
    fn configured(&self, node: &ClusterNode, state: Option<&NodeState>) -> Configured {
        let is_for_agents = self.rotates == RotatedToken::Agent;
        if let Some(state) = state {
            return configured(&state.configuration, is_for_agents);
        }
        let token = match &node.start {
            StartConfiguration::Read { agent_token, .. } if is_for_agents => agent_token,
            StartConfiguration::Read { token, .. } => token,
            StartConfiguration::Unknown(_) => return Configured::Unknown,
        };
        match (token.is_empty(), self.options.has_node_access) {
            (false, _) => Configured::Token(None),
            (true, false) => Configured::Nowhere,
            (true, true) => Configured::Unknown,
        }
    }

    fn agent(&self, node: &ClusterNode) -> Configured {
        match (self.node_states.get(&node.name), &node.start) {
            (Some(state), _) => configured(&state.configuration, false),
            (None, StartConfiguration::Read { token, .. }) if token.is_empty() => Configured::Nowhere,
            (None, StartConfiguration::Read { .. }) => Configured::Token(None),
            (None, StartConfiguration::Unknown(_)) => Configured::Unknown,
        }
    }

    fn clocks<'s>(&self, servers: impl Iterator<Item = &'s String>) -> Clocks {
        let read = |name: &'s String| Some((name, self.readings.get(name)?.clock?));
        let servers: Vec<&String> = servers.collect();
        let clocks: Vec<(&String, ClockReading)> = servers.iter().filter_map(|name| read(name)).collect();
        if clocks.len() < servers.len() {
            Clocks::Unknown
        } else {
            compare_clocks(&clocks)
        }
    }
}

/// Whether a Node is of an agent of K3s or RKE2.
pub(crate) fn is_agent(node: &ClusterNode, kind: SupervisorKind) -> bool {
    node.supervisor().is_none() && node.distribution.supervisor() == Some(kind)
}

/// What a server accepts. One password at a time: where two are accepted, it has restarted in between.
pub(crate) fn login(results: &[(Fingerprint, ProbeResult)], all_known: bool) -> Login {
    let is_unknown = |result: &ProbeResult| matches!(result, ProbeResult::Unknown(_));
    if results.is_empty() || results.iter().any(|(_, result)| is_unknown(result)) {
        return Login::Unknown;
    }
    let mut accepted = results.iter().filter(|(_, result)| *result == ProbeResult::Accepted);
    match (accepted.next(), accepted.next()) {
        (Some((value, _)), None) => Login::Accepts(*value),
        (None, _) if all_known => Login::Another,
        _ => Login::Unknown,
    }
}

/// The same of a server that may be starting. If it has rejected every other token and then answers that it is not ready, it accepts this
/// one.
pub(crate) fn starting_login(results: &[(Fingerprint, ProbeResult)], all_known: bool) -> Login {
    let is_rejected = |(_, result): &(Fingerprint, ProbeResult)| *result == ProbeResult::Rejected;
    match results {
        [
            others @ ..,
            (value, ProbeResult::Unknown(UnknownReason::Starting | UnknownReason::Unexpected(500))),
        ] if !others.is_empty() && others.iter().all(is_rejected) => Login::Accepts(*value),
        _ => login(results, all_known),
    }
}

/// Whether agents have a token of their own, which no rotation of the server token changes.
pub(crate) fn has_agent_token(node: &ClusterNode, state: Option<&NodeState>) -> bool {
    if state.is_some_and(|state| state.configuration.effective(true).is_some()) {
        return true;
    }
    matches!(&node.start, StartConfiguration::Read { agent_token, .. } if !agent_token.is_empty())
}

pub(crate) fn configured(configuration: &Configuration, for_agents: bool) -> Configured {
    // Which tokens a file has that is no list of keys is not known. It counts as one that has a token for servers.
    let is_unread = |place: &TokenPlace| place.kind == PlaceKind::Yaml && place.line == 0;
    if for_agents && configuration.places.iter().any(is_unread) {
        return Configured::Unknown;
    }
    match configuration.effective(for_agents) {
        None => Configured::Nowhere,
        Some(place) => Configured::Token(place.fingerprint.and_then(fingerprint_of)),
    }
}

/// `server/token` and the row of the server in `cred/passwd` have the same password, or a start may find either.
fn files(state: &NodeState) -> Files {
    let of_token = state.server_token.as_ref().and_then(|file| file.fingerprint);
    let passwd = state
        .passwd
        .iter()
        .find(|passwd| passwd.file.file.ends_with("/cred/passwd"));
    let row = passwd.and_then(|passwd| passwd.rows.iter().find(|(user, _)| user == "server"));
    match (of_token, row.and_then(|(_, value)| *value)) {
        (Some(token), Some(row)) if token == row => fingerprint_of(token).map_or(Files::Damaged, Files::Hold),
        _ => Files::Damaged,
    }
}

pub(crate) fn datastore(nodes: &[ClusterNode]) -> Datastore {
    let servers = || nodes.iter().filter(|node| node.supervisor().is_some());
    let has_endpoint = |node: &ClusterNode| {
        matches!(
            node.start,
            StartConfiguration::Read {
                has_datastore_endpoint: true,
                ..
            }
        )
    };
    if servers().any(|node| node.is_etcd) {
        Datastore::Etcd
    } else if servers().any(has_endpoint) || servers().count() > 1 {
        Datastore::External
    } else {
        Datastore::Sqlite
    }
}

fn members<'s>(servers: impl Iterator<Item = &'s Server>, datastore: Datastore) -> Members {
    let members: Vec<EtcdMember> = servers.map(|server| server.member).collect();
    if datastore != Datastore::Etcd || members.iter().all(|member| *member == EtcdMember::Voter) {
        Members::Same
    } else if members
        .iter()
        .any(|member| matches!(member, EtcdMember::Missing | EtcdMember::NotVoter))
    {
        Members::Differ
    } else {
        Members::Unknown
    }
}

fn encryption<'s>(servers: impl Iterator<Item = &'s String>, readings: &BTreeMap<String, ServerReading>) -> Encryption {
    let status = |name: &String| readings.get(name)?.encryption.as_ref()?.as_ref().ok();
    encryption_of(servers.map(|name| (name.as_str(), status(name))))
}

/// Unsafe by what any server says, safe only by what all of them say. `None`: one does not say.
pub(crate) fn encryption_of<'s>(servers: impl Iterator<Item = (&'s str, Option<&'s EncryptionStatus>)>) -> Encryption {
    let mut is_missing = false;
    let mut known: Vec<(&str, &EncryptionStatus)> = Vec::new();
    for (name, status) in servers {
        match status {
            Some(status) => known.push((name, status)),
            None => is_missing = true,
        }
    }
    match EncryptionStatus::safe_for_round(known) {
        Err(EncryptionBlocker::Unknown(_) | EncryptionBlocker::NoServer) => Encryption::Unknown,
        Err(blocker) => Encryption::Unsafe(blocker.to_string()),
        Ok(()) if is_missing => Encryption::Unknown,
        Ok(()) => Encryption::Safe,
    }
}

/// How often clocks are read until their difference is known.
pub(crate) const CLOCK_TRIES: usize = 5;
/// At another part of the second each time.
pub(crate) const CLOCK_PAUSE: Duration = Duration::from_millis(230);

/// `Date` has whole seconds: where the clocks may differ by 2 s and need not, it is not known.
pub(crate) fn compare_clocks(clocks: &[(&String, ClockReading)]) -> Clocks {
    let mut is_close = true;
    for (at, (_, one)) in clocks.iter().enumerate() {
        for (_, other) in &clocks[..at] {
            let (least, most) = one.difference(other);
            if least >= CLOSE {
                return Clocks::Skewed;
            }
            is_close &= most < CLOSE;
        }
    }
    if !is_close {
        return Clocks::Unknown;
    }
    let ahead = clocks.iter().max_by_key(|(_, clock)| clock.ahead());
    let is_first = |(name, first): &&(&String, ClockReading)| {
        let others = clocks.iter().filter(|(other, _)| other != name);
        let mut margins = others.map(|(_, clock)| first.ahead() - clock.ahead());
        clocks.len() > 1 && margins.all(|margin| margin >= AHEAD)
    };
    Clocks::Close(ahead.filter(is_first).map(|(name, _)| (*name).clone()))
}

/// What the names of the snapshots of a run begin with. No two kinds have a common beginning, by which the server would prune them.
pub(crate) fn snapshot_name(run: &str, kind: SnapshotKind) -> String {
    let kind = match kind {
        SnapshotKind::First => "first",
        SnapshotKind::Checking => "check",
        SnapshotKind::Last => "last",
    };
    format!("server-token-{run}-{kind}")
}

/// The snapshots of one kind that a server has taken for a run, the newest last.
pub(crate) fn taken<'f>(
    run: &str,
    kind: SnapshotKind,
    server: &str,
    files: &'f [SnapshotFile],
) -> Vec<&'f SnapshotFile> {
    let prefix = format!("{}-", snapshot_name(run, kind));
    let is_one = |file: &&SnapshotFile| file.node == server && file.name.starts_with(&prefix);
    let mut taken: Vec<&SnapshotFile> = files.iter().filter(is_one).collect();
    taken.sort_by(|one, other| (&one.created, &one.name).cmp(&(&other.created, &other.name)));
    taken
}

fn snapshots<'s>(run: &str, servers: impl Iterator<Item = &'s String>, files: &[SnapshotFile]) -> Snapshots {
    let servers: Vec<&String> = servers.collect();
    let prefix = format!("{}-", snapshot_name(run, SnapshotKind::Checking));
    let needs = |kind| {
        let of_server = |name: &&String| {
            let taken = taken(run, kind, name, files);
            taken
                .into_iter()
                .rev()
                .find(|file| file.is_ready)
                .map(|file| file.token_hash)
        };
        let hashes: Option<Vec<_>> = servers.iter().map(of_server).collect();
        let hashes = hashes.filter(|hashes| !hashes.is_empty())?;
        let first = hashes[0].and_then(fingerprint_of);
        let is_same = hashes.iter().all(|hash| *hash == hashes[0]);
        Some(first.filter(|_| is_same).map_or(Needs::Unknown, Needs::Token))
    };
    Snapshots {
        first: needs(SnapshotKind::First),
        has_checking: files.iter().any(|file| file.name.starts_with(&prefix)),
        last: needs(SnapshotKind::Last),
    }
}

impl Memory {
    /// What the files of the servers have is not known any more.
    pub(crate) fn forget_files(&mut self) {
        self.files.clear();
    }

    /// Follows the restarts that were asked for. One has happened if the server was away, accepts another token, or shows another
    /// configuration, and is back. After a change of the agent token it need only answer: it is changed before it is ready.
    pub(crate) fn follow_restarts(&mut self, seen: &mut Observed, rotates: RotatedToken) {
        self.restarting.retain(|name, restart| {
            let Some(server) = seen.servers.get(name) else {
                return false;
            };
            let is_up = server.is_ready && server.accepts != Login::Unknown;
            restart.was_away |= !is_up;
            restart.was_silent |= server.accepts == Login::Unknown;
            let answers_again = server.accepts != Login::Unknown && restart.was_silent;
            if rotates == RotatedToken::Agent && (answers_again || is_other_login(restart.as_node, server.as_node)) {
                return false;
            }
            let is_other = server.accepts != restart.accepted
                || restart.was_configured && server.configured == Configured::Nowhere;
            !(is_up && (restart.was_away || is_other))
        });
        for (name, server) in &mut seen.servers {
            server.is_restarting = self.restarting.contains_key(name);
        }
    }
}

fn is_other_login(before: Option<Login>, now: Option<Login>) -> bool {
    now != before && !matches!(now, Some(Login::Unknown) | None)
}

#[cfg(test)]
pub(crate) mod tests;
