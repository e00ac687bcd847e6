//! Reads what the stages depend on: Nodes, the supervisor of each server, and the nodes.
//!
//! Servers are read in parallel, and each gets one request after the other. Where the API server of the kubeconfig is away, that of
//! another server is read instead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::cluster_identity;
use client::connection::Server as ApiServer;
use client::error::{Error, Kind};
use engine::controller::Failure;
use futures::future::join_all;
use supervisor::node::{self, ClusterNode};
use supervisor::snapshot::SnapshotFile;
use tokio::time::{Instant, timeout};

use super::abstraction::{Inputs, ServerReading, is_agent, starting_login};
use super::reading::accepted_as_server;
use super::{RotatedToken, RunFacts, Session};
use crate::server_token::connections::ServerTarget;
use crate::server_token::rotation::observed::{Observed, Repin};
use crate::server_token::rotation::record::Record;

/// How long what was read of servers and nodes counts after a step that does not change them.
const FRESH: Duration = Duration::from_secs(3);
/// How often the configuration of a node is read while nothing changes it. By pod, it is read where a step depends on it.
const NODE_FRESH: Duration = Duration::from_secs(10);
const NODE_FRESH_BY_POD: Duration = Duration::from_mins(10);
/// How long an API server may take to answer a read, so that another one can be asked within one observation.
const API: Duration = Duration::from_secs(4);
/// How long another API server is read before the named one is tried again.
const AWAY: Duration = Duration::from_secs(5);

/// What the last observation has read, for the next step.
#[derive(Clone, Debug)]
pub(crate) struct Latest {
    pub(crate) at: Instant,
    pub(crate) nodes: Vec<ClusterNode>,
    pub(crate) targets: Vec<ServerTarget>,
    pub(crate) readings: BTreeMap<String, ServerReading>,
    pub(crate) seen: Observed,
}

impl Latest {
    /// The Node of a server.
    pub(crate) fn node(&self, name: &str) -> Option<&ClusterNode> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// An observation that has begun.
pub(crate) struct Begun {
    /// What was read before, and still counts.
    pub(crate) reused: Option<Latest>,
    nodes: Vec<ClusterNode>,
    targets: Vec<ServerTarget>,
    is_harvester: bool,
}

/// What an observation depends on beside servers and nodes.
pub(crate) struct Context<'a> {
    pub(crate) run: Option<&'a RunFacts>,
    /// `Some`: directly before a step that cannot be conditional. Then nothing of servers is taken from an earlier observation, and
    /// nothing of the nodes of these servers.
    pub(crate) checked: Option<&'a [&'a str]>,
    pub(crate) snapshots: &'a [SnapshotFile],
    pub(crate) backup: Option<&'a Record>,
    /// The servers and agents of the run, as far as it has recorded them.
    pub(crate) of_run: BTreeSet<String>,
    /// The Nodes of whose configuration the run may have a backup.
    pub(crate) configuration_backups: BTreeSet<String>,
    /// Each server can be asked with every token of the run.
    pub(crate) all_known: bool,
}

impl Session<'_> {
    /// `command`: whose permissions are needed.
    pub(crate) async fn begin_observation(
        &self,
        run: Option<&RunFacts>,
        is_checked: bool,
        command: &str,
    ) -> Result<Begun, Failure> {
        self.note_run(run);
        self.prepare(command).await?;
        let reused = self.reusable(is_checked);
        let (nodes, targets) = match &reused {
            Some(latest) => (latest.nodes.clone(), latest.targets.clone()),
            None => self.servers().await?,
        };
        let is_harvester = self.is_harvester(run.is_some()).await?;
        Ok(Begun {
            reused,
            nodes,
            targets,
            is_harvester,
        })
    }

    /// Reads servers and nodes.
    pub(crate) async fn end_observation(&self, begun: Begun, context: &Context<'_>) -> Result<Observed, Failure> {
        let Begun {
            reused,
            nodes,
            targets,
            is_harvester,
        } = begun;
        let readings = match &reused {
            Some(latest) => latest.readings.clone(),
            None => self.readings(&nodes, &targets).await,
        };
        let (output, options) = (self.output(), self.options.of_rotation());
        let seen = loop {
            self.node_states(context, &nodes, &readings).await?;
            let mut state = self.state();
            let mut seen = Inputs {
                rotates: self.options.rotates,
                run: context.run.map(|run| run.id.as_str()),
                kind: self.options.kind,
                given: self.given(),
                given_new: self.options.given_new.as_ref().map(|new| new.password().fingerprint()),
                nodes: &nodes,
                readings: &readings,
                node_states: &state.node_states.all(),
                snapshots: context.snapshots,
                backup: context.backup,
                of_run: &context.of_run,
                configuration_backups: &context.configuration_backups,
                has_arrived: context.run.is_some_and(|run| run.has_arrived),
                all_known: context.all_known,
                is_harvester,
                options: &options,
                output: &output,
                memory: &state.memory,
            }
            .observed();
            let restarting = state.memory.restarting.len();
            state.memory.follow_restarts(&mut seen, self.options.rotates);
            // The node of a server that is back was not read while it was starting.
            if state.memory.restarting.len() == restarting || !options.has_node_access {
                break seen;
            }
        };
        let at = reused.map_or_else(Instant::now, |latest| latest.at);
        self.state().latest = Some(Latest {
            at,
            nodes,
            targets,
            readings,
            seen: seen.clone(),
        });
        Ok(seen)
    }

    /// Once, before the first pod.
    async fn prepare(&self, command: &str) -> Result<(), Failure> {
        if !self.state().is_prepared {
            let (nodes, server) = (&self.options.nodes, &self.cluster.server);
            nodes.prepare(self.ui, server, self.needed(command)).await?;
            self.state().is_prepared = true;
        }
        Ok(())
    }

    /// Whether this process has begun the run: the observation before was without one.
    fn note_run(&self, run: Option<&RunFacts>) {
        let mut state = self.state();
        match run {
            None => state.own_run = None,
            Some(run) if state.memory.is_own && state.own_run.as_ref() == Some(&run.id) => {}
            Some(run) => {
                state.memory.is_own = state.had_no_run;
                // It was begun on what was read directly before, under the lock.
                state.is_reusable = state.memory.is_own;
                state.own_run = Some(run.id.clone());
            }
        }
        state.had_no_run = run.is_none();
    }

    /// Servers, nodes and the backup Secret as they were read last, directly after a step that has changed no server and no node.
    fn reusable(&self, is_checked: bool) -> Option<Latest> {
        let mut state = self.state();
        let is_reusable = std::mem::take(&mut state.is_reusable) && !is_checked;
        let latest = state.latest.clone().filter(|_| is_reusable)?;
        (latest.at.elapsed() < FRESH).then_some(latest)
    }

    async fn servers(&self) -> Result<(Vec<ClusterNode>, Vec<ServerTarget>), Failure> {
        let nodes = self
            .read_api(|client| async move { Ok(node::list(&client).await?) })
            .await?;
        let targets = self.flags.addresses.servers(&nodes).map_err(Failure::Permanent)?;
        if let Some(only) = &self.options.only
            && !targets.iter().any(|target| target.name == *only)
        {
            return Err(Failure::Permanent(Error::usage(format!(
                "server {only:?} of --only not found"
            ))));
        }
        Ok((nodes, targets))
    }

    /// Reads from the API server of the kubeconfig or, while that is away, from that of another server.
    pub(crate) async fn read_api<T, F>(&self, read: impl Fn(kube::Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let named = async || {
            let answer = timeout(API, read(self.cluster.client().clone())).await;
            answer.unwrap_or_else(|_| Err(Error::new(Kind::Unavailable, "the API server does not answer")))
        };
        let others = self.other_api_servers();
        let is_away = self.state().api_away.is_some_and(|at| at.elapsed() < AWAY);
        let first = if is_away && !others.is_empty() {
            None
        } else {
            match named().await {
                Err(error) if error.kind.is_transient() => Some(error),
                other => return Ok(other?),
            }
        };
        if first.is_some() {
            self.state().api_away = Some(Instant::now());
        }
        for server in others {
            if let Ok(Ok(found)) = timeout(API, read(server.client)).await {
                return Ok(found);
            }
        }
        match first {
            Some(error) => Err(error.into()),
            None => Ok(named().await?),
        }
    }

    /// Behind Rancher, its proxy has other API servers by itself.
    fn other_api_servers(&self) -> Vec<ApiServer> {
        if self.cluster.is_through_rancher() {
            return Vec::new();
        }
        let targets = self.state().latest.as_ref().map(|latest| latest.targets.clone());
        let named = self.cluster.connection.server();
        let urls = targets
            .iter()
            .flatten()
            .filter_map(|target| Some(target.address()?.api_url()));
        let others = urls.filter(|url| url.host_str() != named.host_str());
        others
            .filter_map(|url| self.cluster.connection.at(url).connect().ok())
            .collect()
    }

    /// The uid of kube-system, which a sealed token is bound to.
    pub(crate) async fn cluster_uid(&self) -> Result<String, Failure> {
        if let Some(uid) = &self.state().cluster_uid {
            return Ok(uid.clone());
        }
        let uid = self
            .read_api(|client| async move { Ok(cluster_identity::uid(&client).await?) })
            .await?;
        self.state().cluster_uid = Some(uid.clone());
        Ok(uid)
    }

    async fn is_harvester(&self, has_run: bool) -> Result<bool, Failure> {
        if has_run || self.state().is_no_harvester {
            return Ok(false);
        }
        let is_harvester = match node::is_harvester(self.cluster.client()).await {
            // The labels of its Nodes show it too.
            Err(error) if error.is_forbidden() => false,
            other => other.map_err(Error::from)?,
        };
        self.state().is_no_harvester = !is_harvester;
        Ok(is_harvester)
    }

    /// Reads the nodes where there is access to them. While a server restarts or is not up, its files are being written, and are not
    /// read.
    async fn node_states(
        &self,
        context: &Context<'_>,
        nodes: &[ClusterNode],
        readings: &BTreeMap<String, ServerReading>,
    ) -> Result<(), Failure> {
        let Context { run, checked, .. } = *context;
        if !self.options.has_node_access() {
            return Ok(());
        }
        let by_pod = self.options.nodes.is_by_pod();
        // A start writes what it accepts from agents before it answers. A pod starts once the server is ready.
        let is_answer_enough = self.options.rotates == RotatedToken::Agent && !by_pod;
        let is_up = |name: &String| {
            readings.get(name).is_some_and(|read| {
                read.readiness == Some(Ok(())) || is_answer_enough && accepted_as_server(read).is_some()
            })
        };
        self.forget_outdated(run, nodes, readings, is_up);
        let fresh = if by_pod { NODE_FRESH_BY_POD } else { NODE_FRESH };
        // Where a read costs little, every server is checked.
        let is_checked = |name: &str| checked.is_some_and(|servers| !by_pod || servers.contains(&name));
        let with_agents = self.options.repin == Repin::ServersAndAgents;
        let is_due = |node: &&ClusterNode| {
            let is_read = if node.supervisor().is_some() {
                is_up(&node.name) && !self.state().memory.restarting.contains_key(&node.name)
            } else {
                (with_agents || context.of_run.contains(&node.name))
                    && is_agent(node, self.options.kind)
                    && !self.state().skipped_agents.contains(&node.name)
            };
            let is_due = self.state().node_states.is_due(&node.name, fresh);
            is_read && (is_due || node.supervisor().is_some() && is_checked(&node.name))
        };
        let due: Vec<&ClusterNode> = nodes.iter().filter(is_due).collect();
        let read = join_all(due.iter().map(|node| self.read_node(run, node))).await;
        for (node, read) in due.iter().zip(read) {
            match read {
                Err(Failure::Transient(error) | Failure::Permanent(error))
                    if node.supervisor().is_none() && self.options.rotates == RotatedToken::Agent =>
                {
                    self.skip_agent(&node.name, &error);
                }
                read => self.state().node_states.insert(&node.name, read?),
            }
        }
        Ok(())
    }

    /// What was read of nodes, and what their files may not have any more.
    fn forget_outdated(
        &self,
        run: Option<&RunFacts>,
        nodes: &[ClusterNode],
        readings: &BTreeMap<String, ServerReading>,
        is_up: impl Fn(&String) -> bool,
    ) {
        let mut state = self.state();
        let has_arrived = run.is_some_and(|run| run.has_arrived);
        if has_arrived && !state.has_arrived {
            state.node_states.clear();
        }
        state.has_arrived = has_arrived;
        state
            .node_states
            .retain(|name| nodes.iter().any(|node| node.name == name));
        let rotates = self.options.rotates;
        let before = state.latest.as_ref().map(|latest| latest.readings.clone());
        // A server that accepts another token from agents has started, and has written its files.
        let has_changed = |name: &String| {
            let of =
                |readings: &BTreeMap<String, ServerReading>| Some(starting_login(&readings.get(name)?.as_node, true));
            rotates == RotatedToken::Agent && before.as_ref().and_then(of) != of(readings)
        };
        for node in nodes.iter().filter(|node| node.supervisor().is_some()) {
            if !is_up(&node.name) || has_changed(&node.name) {
                state.node_states.is_down(&node.name);
            }
        }
    }
}
