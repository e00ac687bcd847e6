//! Reads everything that the stages depend on: Nodes, snapshots, the backup Secret, the supervisor of each server, and the nodes.
//!
//! Servers are read in parallel, and each gets one request after the other. Where the API server of the kubeconfig is away, that of
//! another server is read instead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::cluster_identity;
use client::connection::Server as ApiServer;
use client::error::{Error, Kind};
use client::secret::Fingerprint;
use engine::controller::Failure;
use engine::rotation::Timer;
use futures::future::join_all;
use supervisor::node::{self, ClusterNode};
use supervisor::snapshot::{self, SnapshotFile};
use tokio::time::{Instant, timeout};

use super::abstraction::{Inputs, ServerReading, is_agent};
use super::backup::{self, Backup, tokens_of};
use super::{OutputTarget, Run, ServerTokenController, output};
use crate::server_token::connections::ServerTarget;
use crate::server_token::rotation::observed::{Observed, Output, Repin};

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
pub(super) struct Latest {
    pub(super) at: Instant,
    pub(super) nodes: Vec<ClusterNode>,
    pub(super) targets: Vec<ServerTarget>,
    pub(super) readings: BTreeMap<String, ServerReading>,
    pub(super) backup: Option<Backup>,
    pub(super) seen: Observed,
}

impl Latest {
    /// The Node of a server.
    pub(super) fn node(&self, name: &str) -> Option<&ClusterNode> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

impl ServerTokenController<'_> {
    /// `checked`: directly before a step that cannot be conditional. Then nothing of servers is taken from an earlier observation, and
    /// nothing of the nodes of these servers.
    pub(super) async fn observation(&self, run: Option<&Run>, checked: Option<&[&str]>) -> Result<Observed, Failure> {
        self.note_run(run);
        self.prepare().await?;
        let reused = self.reusable(checked.is_some());
        let (nodes, targets) = match &reused {
            Some(latest) => (latest.nodes.clone(), latest.targets.clone()),
            None => self.servers().await?,
        };
        let name = run.map(|run| run.id.to_string());
        let backup = match &reused {
            Some(latest) => latest.backup.clone(),
            None => self.backup(name.as_deref()).await?,
        };
        let snapshots = self.snapshots().await?;
        let tokens_known = self.tokens_known(run, backup.as_ref());
        let readings = match &reused {
            Some(latest) => latest.readings.clone(),
            None => self.readings(&nodes, &targets).await,
        };
        let is_harvester = self.is_harvester(run).await?;
        let (output, options) = (self.output(), self.options.of_rotation());
        let removed = backup.iter().flat_map(|backup| backup.content.removed.keys().cloned());
        let removed: BTreeSet<String> = removed.collect();
        let seen = loop {
            self.node_states(run, &nodes, &readings, checked).await?;
            let mut state = self.state();
            let mut seen = Inputs {
                run: name.as_deref(),
                kind: self.options.kind,
                given: self.options.given.password().fingerprint(),
                given_new: self.options.given_new.as_ref().map(|new| new.password().fingerprint()),
                nodes: &nodes,
                readings: &readings,
                node_states: &state.node_states.all(),
                snapshots: &snapshots,
                backup: backup.as_ref().map(|backup| &backup.content.record),
                configuration_backups: &removed,
                has_arrived: run.is_some_and(|run| run.passed(Timer::InFlight)),
                all_known: tokens_known,
                is_harvester,
                options: &options,
                output: &output,
                memory: &state.memory,
            }
            .observed();
            let restarting = state.memory.restarting.len();
            state.memory.follow_restarts(&mut seen);
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
            backup,
            seen: seen.clone(),
        });
        Ok(seen)
    }

    /// Once, before the first pod.
    async fn prepare(&self) -> Result<(), Failure> {
        if !self.state().is_prepared {
            let (nodes, server) = (&self.options.nodes, &self.cluster.server);
            nodes.prepare(self.ui, server, self.needed()).await?;
            self.state().is_prepared = true;
        }
        Ok(())
    }

    /// Whether this process has begun the run: the observation before was without one.
    fn note_run(&self, run: Option<&Run>) {
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
    pub(super) async fn read_api<T, F>(&self, read: impl Fn(kube::Client) -> F) -> Result<T, Failure>
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

    /// The backup Secret of the run, after its tokens were opened.
    async fn backup(&self, run: Option<&str>) -> Result<Option<Backup>, Failure> {
        let Some(run) = run else { return Ok(None) };
        let found = self
            .read_api(|client| async move { backup::read(&client, run).await })
            .await?;
        let Some(backup) = found else { return Ok(None) };
        let tokens = self.state().tokens.clone();
        let is_missing = |token: Fingerprint| !tokens.knows(token);
        let given = self.options.given.password().fingerprint();
        let is_of_run = tokens_of(&backup.content.record).any(|token| token == given);
        if is_of_run && tokens_of(&backup.content.record).any(is_missing) {
            let opened = backup
                .content
                .clone()
                .opened(tokens, self.cluster_uid().await?, run.to_owned());
            self.state().tokens = opened.await.map_err(Failure::Permanent)?;
        }
        Ok(Some(backup))
    }

    /// The uid of kube-system, which a sealed token is bound to.
    pub(super) async fn cluster_uid(&self) -> Result<String, Failure> {
        if let Some(uid) = &self.state().cluster_uid {
            return Ok(uid.clone());
        }
        let uid = self
            .read_api(|client| async move { Ok(cluster_identity::uid(&client).await?) })
            .await?;
        self.state().cluster_uid = Some(uid.clone());
        Ok(uid)
    }

    /// Only this process takes and deletes the snapshots of its run.
    async fn snapshots(&self) -> Result<Vec<SnapshotFile>, Failure> {
        if let Some(read) = &self.state().snapshots {
            return Ok(read.clone());
        }
        let kind = self.options.kind;
        let read = self
            .read_api(|client| async move { Ok(snapshot::list(&client, kind).await?) })
            .await?;
        self.state().snapshots = Some(read.clone());
        Ok(read)
    }

    /// Whether each server can be asked with every token of the run.
    fn tokens_known(&self, run: Option<&Run>, backup: Option<&Backup>) -> bool {
        let state = self.state();
        let records = run.map(|run| &run.record).into_iter();
        let records = records.chain(backup.map(|backup| &backup.content.record));
        records.flat_map(tokens_of).all(|token| state.tokens.knows(token))
    }

    async fn is_harvester(&self, run: Option<&Run>) -> Result<bool, Failure> {
        if run.is_some() || self.state().is_no_harvester {
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

    fn output(&self) -> Output {
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

    /// Reads the nodes where there is access to them. While a server restarts or is not up, its files are being written, and are not
    /// read.
    async fn node_states(
        &self,
        run: Option<&Run>,
        nodes: &[ClusterNode],
        readings: &BTreeMap<String, ServerReading>,
        checked: Option<&[&str]>,
    ) -> Result<(), Failure> {
        if !self.options.has_node_access() {
            return Ok(());
        }
        let is_up = |name: &String| readings.get(name).is_some_and(|read| read.readiness == Some(Ok(())));
        self.forget_outdated(run, nodes, is_up);
        let by_pod = self.options.nodes.is_by_pod();
        let fresh = if by_pod { NODE_FRESH_BY_POD } else { NODE_FRESH };
        // Where a read costs little, every server is checked.
        let is_checked = |name: &str| checked.is_some_and(|servers| !by_pod || servers.contains(&name));
        let with_agents = self.options.repin == Repin::ServersAndAgents;
        let is_due = |node: &&ClusterNode| {
            let is_read = if node.supervisor().is_some() {
                is_up(&node.name) && !self.state().memory.restarting.contains_key(&node.name)
            } else {
                with_agents && is_agent(node, self.options.kind)
            };
            let is_due = self.state().node_states.is_due(&node.name, fresh);
            is_read && (is_due || node.supervisor().is_some() && is_checked(&node.name))
        };
        let due: Vec<&ClusterNode> = nodes.iter().filter(is_due).collect();
        let read = join_all(due.iter().map(|node| self.read_node(run, node))).await;
        for (node, read) in due.iter().zip(read) {
            self.state().node_states.insert(&node.name, read?);
        }
        Ok(())
    }

    /// What was read of nodes, and what their files may not have any more.
    fn forget_outdated(&self, run: Option<&Run>, nodes: &[ClusterNode], is_up: impl Fn(&String) -> bool) {
        let mut state = self.state();
        let has_arrived = run.is_some_and(|run| run.passed(Timer::InFlight));
        if has_arrived && !state.has_arrived {
            state.node_states.clear();
        }
        state.has_arrived = has_arrived;
        state
            .node_states
            .retain(|name| nodes.iter().any(|node| node.name == name));
        for node in nodes.iter().filter(|node| node.supervisor().is_some()) {
            if !is_up(&node.name) {
                state.node_states.is_down(&node.name);
            }
        }
    }
}
