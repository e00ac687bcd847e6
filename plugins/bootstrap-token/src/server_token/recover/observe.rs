//! Reads everything that the diagnosis depends on.

use std::collections::BTreeMap;
use std::time::Duration;

use client::access;
use client::connection::Server as ApiServer;
use client::error::{Error, Kind};
use engine::controller::Failure;
use futures::future::join_all;
use node_access::{NodeAccess, NodeState, NodeTarget, ServiceManager, ServiceOptions};
use supervisor::node::{self, ClusterNode, EtcdMember, StartConfiguration};
use supervisor::ready::{self, ApiReadiness};
use supervisor::{
    ClockReading, Credential, EncryptionStatus, ProbeResult, ServerAddress, Supervisor, SupervisorKind, TokenHash,
};
use tokio::time::{Instant, timeout};

use super::{RUN, Recoverer};
use crate::server_token::connections::ServerTarget;
use crate::server_token::node_way::{NO_RUN, NodeWay, check_machine};
use crate::server_token::readiness::readiness;
use crate::server_token::recovery::facts::{FailedStarts, RecoveryFacts, Response, ServerFacts};
use crate::server_token::rotation::observed::{Clocks, Datastore, Encryption};
use crate::server_token::session::abstraction::{datastore, encryption_of};
use crate::server_token::session::reading::narrow_clocks;

/// How long an API server may take to answer a read.
const API: Duration = Duration::from_secs(4);

/// What one server has answered.
struct ProbedServer {
    name: String,
    response: Response,
    loaded: Option<TokenHash>,
    encryption: Option<Result<EncryptionStatus, String>>,
    clock: Option<ClockReading>,
    problem: Option<String>,
    /// It has rejected every known token, and its readiness cannot be asked otherwise.
    is_closed: bool,
}

impl ProbedServer {
    fn unanswered(name: &str, response: Response, problem: String) -> Self {
        Self {
            name: name.to_owned(),
            response,
            loaded: None,
            encryption: None,
            clock: None,
            problem: Some(problem),
            is_closed: false,
        }
    }
}

impl Recoverer<'_> {
    /// One observation. With node access, tokens that are found there are tried at once.
    pub(super) async fn observe(&mut self) -> Result<RecoveryFacts, Failure> {
        self.problems.clear();
        let nodes = self.api_nodes().await?;
        self.prepare().await?;
        self.find_servers(nodes)?;
        self.connect().await?;
        let mut states = self.read_nodes().await;
        if self.supervisors.is_empty() && self.nodes.is_empty() && has_no_server(&states) {
            let before = self.kind;
            self.kind = other_kind(before);
            let other = self.read_nodes().await;
            if has_no_server(&other) {
                self.kind = before;
            } else {
                states = other;
            }
        }
        self.learn_tokens(&states).await?;
        match self.read_leftovers().await {
            // It answers, and its etcd does not: it counts as away.
            Err(error) if error.kind.is_transient() => self.api = None,
            read => read?,
        }
        if self.tokens.is_empty() {
            let error = Error::usage("no token of the servers is known").hint(
                "pass each token that the cluster has had with --token-file, or use --node-exec, which can read them",
            );
            return Err(error.into());
        }
        let readings = join_all(self.targets.iter().map(|target| self.read_server(target))).await;
        let clocks = self.compare_clocks(&readings).await;
        let encryption = encryption(&readings);
        let mut servers = BTreeMap::new();
        for (reading, state) in readings.into_iter().zip(states) {
            let state = self.usable(&reading, state)?;
            let facts = self.server_facts(&reading, state);
            servers.insert(reading.name, facts);
        }
        let has_api = self.api.is_some();
        let kind_of_datastore = datastore(&self.nodes);
        if has_api && kind_of_datastore == Datastore::External {
            let message = "the servers have an external datastore, for which nothing was measured";
            let hint = "see the documentation of K3s, and restore the datastore with its token";
            return Err(Error::failed(message).hint(hint).into());
        }
        let is_in_flight = self.in_flight.is_some_and(|until| Instant::now() < until);
        Ok(RecoveryFacts {
            supervisor: self.kind,
            servers,
            members_are_servers: has_api.then(|| are_members(&self.nodes, kind_of_datastore)),
            encryption,
            at_hand: self.tokens.at_hand(),
            proven: self.proven,
            last_round: self.last_round.clone(),
            may_be_in_flight: is_in_flight,
            has_snapshots: has_api && kind_of_datastore == Datastore::Etcd,
            clocks,
        })
    }

    /// The Nodes, from the API server that has answered last, else from that of the kubeconfig, else from that of a server.
    async fn api_nodes(&mut self) -> Result<Option<Vec<ClusterNode>>, Error> {
        let last = self.api.take();
        let named = last.is_none().then(|| self.cluster.server.clone());
        for server in last.into_iter().chain(named).chain(self.other_api_servers()) {
            match timeout(API, node::list(&server.client)).await {
                Ok(Ok(nodes)) => {
                    self.api = Some(server);
                    return Ok(Some(nodes));
                }
                Ok(Err(error)) => {
                    let error = Error::from(error);
                    if !error.kind.is_transient() {
                        return Err(error);
                    }
                }
                Err(_) => {}
            }
        }
        Ok(None)
    }

    fn other_api_servers(&self) -> Vec<ApiServer> {
        if self.cluster.is_through_rancher() {
            return Vec::new();
        }
        let reached = self.supervisors.values().map(Supervisor::address);
        let addresses: Vec<&ServerAddress> = reached
            .chain(self.targets.iter().filter_map(ServerTarget::address))
            .collect();
        let urls = addresses.into_iter().map(ServerAddress::api_url);
        let connected = urls.filter_map(|url| self.cluster.connection.at(url).connect().ok());
        connected.collect()
    }

    fn find_servers(&mut self, nodes: Option<Vec<ClusterNode>>) -> Result<(), Error> {
        match nodes {
            Some(nodes) => {
                self.targets = self.addresses.servers(&nodes)?;
                self.nodes = nodes;
            }
            // They were found while there was an API server.
            None if !self.nodes.is_empty() => {}
            None if self.addresses.names_servers() => self.targets = self.addresses.named_servers()?,
            None => {
                return Err(Error::new(Kind::Unreachable, "no API server of the cluster answers")
                    .hint("pass --server-address NODE=HOST for each server: the recovery works without the Kubernetes API"));
            }
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let unknown: Vec<&ServerTarget> = self
            .targets
            .iter()
            .filter(|target| !self.supervisors.contains_key(&target.name))
            .collect();
        let connected = join_all(unknown.iter().map(|target| target.connect(&self.access))).await;
        let mut supervisors = Vec::new();
        for (target, supervisor) in unknown.iter().zip(connected) {
            match supervisor {
                Ok(supervisor) => supervisors.push((target.name.clone(), supervisor)),
                Err(error) if is_away(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.supervisors.extend(supervisors);
        let reached = self.supervisors.values().next().map(Supervisor::kind);
        let known = self.targets.iter().find_map(ServerTarget::kind).or(reached);
        self.kind = known.unwrap_or(self.kind);
        Ok(())
    }

    async fn read_server(&self, target: &ServerTarget) -> ProbedServer {
        let name = &target.name;
        let Some(supervisor) = self.supervisors.get(name) else {
            // It may answer while it is starting, and is not verified then.
            return match target.connect(&self.access).await {
                Err(error) if error.kind == Kind::Unavailable => {
                    ProbedServer::unanswered(name, Response::NotReady, error.message)
                }
                Err(error) => ProbedServer::unanswered(name, Response::None, error.message),
                Ok(_) => ProbedServer::unanswered(name, Response::NotReady, "it has just begun to answer".to_owned()),
            };
        };
        let clock = match supervisor.clock().await {
            Ok(clock) => clock,
            Err(error @ supervisor::Error::NoResponse { .. }) => {
                return ProbedServer::unanswered(name, Response::None, error.to_string());
            }
            Err(error) => return ProbedServer::unanswered(name, Response::NotReady, error.to_string()),
        };
        let (mut login, mut is_closed) = (None, true);
        for (hash, password) in self.tokens.passwords() {
            match supervisor.probe(Credential::Server(&password)).await {
                ProbeResult::Accepted => {
                    login = Some((hash, password));
                    break;
                }
                ProbeResult::Rejected => {}
                ProbeResult::Unknown(_) => is_closed = false,
            }
        }
        let is_control_plane = self.node(name).is_none_or(|node| node.is_control_plane);
        let api = Some(supervisor.address()).filter(|_| is_control_plane);
        let readiness = match (&login, api) {
            (Some((_, password)), _) => readiness(&self.cluster.connection, supervisor, api, password, false).await,
            (None, Some(api)) => match ready::api_ready(&self.cluster.connection, api).await {
                ApiReadiness::Ready => Ok(()),
                ApiReadiness::NotReady(reason) => {
                    is_closed = false;
                    Err(reason)
                }
                ApiReadiness::NotUsable(reason) => Err(reason),
            },
            (None, None) => Err("it accepts no known token".to_owned()),
        };
        let encryption = match &login {
            Some((_, password)) => Some(supervisor.encryption(password).await.map_err(|error| error.to_string())),
            None => None,
        };
        ProbedServer {
            name: name.clone(),
            is_closed: is_closed && login.is_none() && readiness.is_err(),
            response: match readiness {
                Ok(()) => Response::Ready,
                Err(_) => Response::NotReady,
            },
            loaded: login.map(|(hash, _)| hash),
            encryption,
            clock: Some(clock),
            problem: readiness.err(),
        }
    }

    /// The clocks of the servers that answer, narrowed by each reading.
    async fn compare_clocks(&mut self, readings: &[ProbedServer]) -> Clocks {
        let narrowed = |reading: &ProbedServer| {
            let (name, clock) = (reading.name.clone(), reading.clock?);
            let before = self.clocks.get(&name);
            Some((name, before.map_or(clock, |before| before.narrowed(clock))))
        };
        let mut current: BTreeMap<String, ClockReading> = readings.iter().filter_map(narrowed).collect();
        let supervisors = &self.supervisors;
        let ask = async |name: String| supervisors.get(&name)?.clock().await.ok();
        let clocks = narrow_clocks(&mut current, ask).await;
        self.clocks = current;
        clocks
    }

    /// The way to the node of a server. `None`: by hand, or a pod while there is no API server, or while the node is not ready: the
    /// kubelet is a part of the server. `run`: whose backups are meant.
    pub(super) fn node_access(&self, server: &str, run: &str) -> Result<Option<(NodeAccess, NodeTarget)>, Error> {
        let is_ready = self.node(server).is_some_and(|node| node.is_ready == Some(true));
        let client = match (&self.options.nodes, &self.api) {
            (NodeWay::Pod { .. }, None) => return Ok(None),
            (NodeWay::Pod { .. }, _) if !is_ready => return Ok(None),
            (_, api) => api.as_ref().unwrap_or(&self.cluster.server).client.clone(),
        };
        let service = ServiceOptions {
            kind: self.kind,
            ..self.options.service.clone()
        };
        let Some(access) = self.options.nodes.access(self.ui, &client, service, run, self.pods()) else {
            return Ok(None);
        };
        let invalid = |why: String| Error::failed(format!("cannot reach node {server}: {why}"));
        let ip = self.node(server).and_then(|node| node.internal_ips.first());
        let host = match ip {
            Some(ip) => Some(ip.parse().map_err(|error| invalid(format!("{error}")))?),
            None => self
                .targets
                .iter()
                .find(|target| target.name == server)
                .and_then(ServerTarget::host),
        };
        let host = host.ok_or_else(|| invalid("its address is not known".to_owned()))?;
        let target = NodeTarget::new(server, host).map_err(|error| invalid(error.to_string()))?;
        Ok(Some((access, target)))
    }

    /// The run of pods. Without the lock they may be of another process, which only diagnoses.
    pub(super) fn pods(&self) -> &'static str {
        if self.lock.is_some() { RUN } else { NO_RUN }
    }

    /// Where the machine of a server may be off, what the server answers counts alone. Anything else has to be known, so it is read again.
    fn usable(
        &mut self,
        reading: &ProbedServer,
        state: Result<Option<NodeState>, Error>,
    ) -> Result<Option<NodeState>, Failure> {
        if reading.is_closed {
            let message = format!("server {} accepts none of the known tokens", reading.name);
            let hint = "pass the token that it was started with by --token-file";
            return Err(Error::failed(message).hint(hint).into());
        }
        if let Some(problem) = &reading.problem {
            self.problems
                .insert(format!("server {}", reading.name), problem.clone());
        }
        let by_pod = self.options.nodes.is_by_pod();
        match state {
            Ok(Some(read)) => {
                let machine_id = self.node(&reading.name).map_or("", |node| node.machine_id.as_str());
                check_machine(&reading.name, machine_id, &read)?;
                Ok(Some(read))
            }
            Err(error) if reading.response == Response::None || by_pod && reading.response != Response::Ready => {
                self.problems.insert(format!("node {}", reading.name), error.message);
                Ok(None)
            }
            other => other.map_err(Failure::Transient),
        }
    }

    async fn read_nodes(&self) -> Vec<Result<Option<NodeState>, Error>> {
        join_all(self.targets.iter().map(|target| self.read_node(&target.name))).await
    }

    async fn read_node(&self, server: &str) -> Result<Option<NodeState>, Error> {
        let Some((access, target)) = self.node_access(server, RUN)? else {
            return Ok(None);
        };
        Ok(Some(access.read(&target, true).await?))
    }

    /// Reads the values of tokens that the nodes have and that are not known.
    async fn learn_tokens(&mut self, states: &[Result<Option<NodeState>, Error>]) -> Result<(), Error> {
        let mut learned = Vec::new();
        for (target, state) in self.targets.iter().zip(states) {
            let Ok(Some(state)) = state else { continue };
            let missing: Vec<TokenHash> = tokens_of(state).filter(|token| !self.tokens.has(*token)).collect();
            if missing.is_empty() {
                continue;
            }
            let Some((access, node)) = self
                .node_access(&target.name, RUN)?
                .filter(|(access, _)| access.returns_secrets())
            else {
                continue;
            };
            let read = access.read_tokens(&node).await?;
            learned.extend(read.into_iter().filter(|token| missing.contains(&token.hash())));
        }
        for token in learned {
            self.tokens.add(token);
        }
        Ok(())
    }

    fn server_facts(&mut self, reading: &ProbedServer, state: Option<NodeState>) -> ServerFacts {
        let node = self.node(&reading.name).cloned();
        let datastore = datastore(&self.nodes);
        let mut server = ServerFacts {
            response: reading.response,
            is_full: node
                .as_ref()
                .is_none_or(|node| node.is_control_plane && (node.is_etcd || datastore != Datastore::Etcd)),
            member: node.as_ref().map_or(EtcdMember::Unknown, |node| node.etcd_member),
            loaded: reading.loaded,
            snapshot: None,
            placed: None,
            start: node.map_or(StartConfiguration::Unknown("there is no API server"), |node| node.start),
            node: state,
            starts: FailedStarts::default(),
            starts_once: false,
            needs_save: None,
        };
        let (limit, number) = (self.limit(), self.starts);
        let memory = self.memory(&reading.name);
        if memory.follow(&mut server, Instant::now(), limit, number) {
            self.proven = server.loaded.or(self.proven);
        }
        server
    }

    /// Once, before the first pod.
    async fn prepare(&mut self) -> Result<(), Error> {
        if let Some(server) = self.api.as_ref().filter(|_| !self.is_prepared) {
            self.options
                .nodes
                .prepare(self.ui, server, self.needed(server, false))
                .await?;
            self.is_prepared = true;
        }
        Ok(())
    }

    /// The permissions that this run needs, where an API server answers.
    pub(super) async fn require_permissions(&self, has_snapshots: bool) -> Result<(), Error> {
        match &self.api {
            Some(server) => access::require(&[self.needed(server, has_snapshots)]).await,
            None => Ok(()),
        }
    }

    fn needed<'s>(&self, server: &'s ApiServer, has_snapshots: bool) -> access::Needed<'s> {
        let side = crate::report::target::CLUSTER;
        let rights = self.options.nodes.rights(crate::rights::SERVER_RECOVER, has_snapshots);
        access::Needed { server, side, rights }
    }
}

/// Nothing answers there, or it is starting.
fn is_away(error: &Error) -> bool {
    error.kind.is_transient() || error.kind == Kind::TimedOut
}

/// No node that was read has a service or a file of a server of this kind.
fn has_no_server(states: &[Result<Option<NodeState>, Error>]) -> bool {
    let mut read = states.iter().flatten().flatten().peekable();
    let is_empty = |state: &NodeState| state.service.manager == ServiceManager::Unknown && state.server_token.is_none();
    read.peek().is_some() && read.all(is_empty)
}

fn other_kind(kind: SupervisorKind) -> SupervisorKind {
    match kind {
        SupervisorKind::K3s => SupervisorKind::Rke2,
        SupervisorKind::Rke2 => SupervisorKind::K3s,
    }
}

/// Those of the server, not those of agents.
fn tokens_of(state: &NodeState) -> impl Iterator<Item = TokenHash> {
    let places = state.configuration.places.iter();
    let configured = places
        .filter(|place| !place.key.is_for_agents())
        .filter_map(|place| place.fingerprint);
    let rows = state.passwd.iter().flat_map(|passwd| &passwd.rows);
    let former = rows
        .filter(|(user, _)| user == "server")
        .filter_map(|(_, value)| *value);
    let file = state.server_token.as_ref().and_then(|file| file.fingerprint);
    configured.chain(file).chain(former)
}

fn are_members(nodes: &[ClusterNode], datastore: Datastore) -> bool {
    let mut servers = nodes.iter().filter(|node| node.supervisor().is_some());
    datastore != Datastore::Etcd || servers.all(|node| node.etcd_member == EtcdMember::Voter)
}

/// Of the servers that are ready.
fn encryption(readings: &[ProbedServer]) -> Encryption {
    let ready = readings.iter().filter(|reading| reading.response == Response::Ready);
    encryption_of(ready.map(|reading| {
        let status = reading.encryption.as_ref().and_then(|status| status.as_ref().ok());
        (reading.name.as_str(), status)
    }))
}
