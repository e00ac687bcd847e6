//! Reads both clusters.

use std::collections::BTreeSet;

use client::error::Error;
use client::ownership;
use client::secret::Fingerprint;
use engine::controller::Failure;
use engine::run::Run;
use futures::future::{join_all, try_join_all, try_join3};
use k8s_openapi::jiff::Timestamp;
use rancher::TokenStorage;
use rancher::agent::{self, Deployment, Pod, StvAggregation};
use rancher::cluster::{self, Cluster, ClusterKind};
use rancher::harvester;
use rancher::probe::ProbeResult;
use rancher::settings;
use rancher::token::{self, Tokens};
use rancher::token_storage::MixedTokenStorage;

use super::abstraction::{Names, PROBES, RUN, Snapshot, Unread, is_still_valid, values_to_probe};
use super::{CrtController, FIELD_MANAGER, check, preflight, rescue};
use crate::connections::{DOWNSTREAM, LONGEST_ANSWER, MANAGEMENT, Route};
use crate::report::inputs;
use crate::rotation::Crt;
use crate::rotation::observed::{Address, DownstreamIdentity, Observed};
use crate::rotation::stages::{restores_failure, target, was_placed};

/// The objects of the downstream cluster.
type DownstreamObjects = (Result<Deployment, Unread>, Vec<Pod>, Option<StvAggregation>);

impl CrtController<'_> {
    /// The Cluster, its tokens, and whether the feature exists that shows storage `secret`.
    async fn read_management(&self) -> Result<(Cluster, Tokens, bool), Error> {
        let client = &self.connections.management.client;
        let id = &self.connections.cluster.id;
        let feature = async {
            let known = self.state().has_feature;
            match known {
                Some(known) => Ok(known),
                None => match settings::has_feature(client, settings::TTL_ROTATION).await {
                    Err(error) if error.is_forbidden() => Ok(false),
                    other => other,
                },
            }
        };
        let read = futures::try_join!(cluster::get(client, id), token::list(client, id), feature);
        let (cluster, tokens, has_feature) = read.map_err(|error| error.on(MANAGEMENT))?;
        let cluster = cluster.ok_or_else(|| Error::failed(format!("cluster {id} was deleted")))?;
        Ok((cluster, tokens, has_feature))
    }

    async fn read_downstream(&self, run: Option<&Run<Crt>>) -> Result<DownstreamObjects, Error> {
        let client = &self.downstream.server.client;
        let read = async {
            let (deployment, pods, stv) = futures::join!(
                agent::deployment(client),
                agent::pods(client),
                agent::stv_aggregation(client)
            );
            Ok::<_, rancher::Error>((deployment?, pods?, stv?))
        };
        let unreachable = (Err(Unread::Unreachable), Vec::new(), None);
        let read = if self.waits_for_agent() {
            match tokio::time::timeout(LONGEST_ANSWER, read).await {
                Err(_) => return Ok(unreachable),
                Ok(read) => read,
            }
        } else {
            read.await
        };
        let (deployment, pods, stv) = match read {
            Err(error) if self.waits_for_agent() && error.is_agent_disconnected() => return Ok(unreachable),
            Err(error) if error.is_forbidden() => {
                let error = error.on(DOWNSTREAM);
                return Ok((Err(self.without_permissions(error, run)?), Vec::new(), None));
            }
            read => read.map_err(|error| error.on(DOWNSTREAM))?,
        };
        let deployment = deployment.ok_or_else(|| {
            Error::failed("Deployment cattle-system/cattle-cluster-agent not found on the downstream cluster")
        })?;
        Ok((Ok(deployment), pods, stv))
    }

    /// A rescue continues without an agent that leads to the cluster; so does the rotation where machines bring it back.
    fn waits_for_agent(&self) -> bool {
        self.options.rescue.is_some()
            && self.downstream.route == Route::ThroughRancher
            && (self.is_rescue || self.connections.provisioning.is_some())
    }

    /// A run that has changed the agent by itself cannot be finished without permissions there: its rollout may be held.
    fn without_permissions(&self, error: Error, run: Option<&Run<Crt>>) -> Result<Unread, Error> {
        match run {
            Some(run) if !run.record.old_secret.is_empty() => Err(error),
            Some(_) if !self.forces(check::WEAK_PROOF) => Err(error.hint(format!(
                "the rotation was begun without this permission: --force={} continues it so",
                check::WEAK_PROOF.name
            ))),
            _ => Ok(Unread::Forbidden(error)),
        }
    }

    /// Harvester's setting, once. It is only reported, so it never stops a run.
    async fn read_harvester(&self, snapshot: &Snapshot) {
        if snapshot.cluster.kind != ClusterKind::Harvester {
            return;
        }
        let read = async {
            let token = harvester::registration_token(&self.downstream.server.client).await;
            let token = token.or(Err(()))?;
            Ok(token.map(|token| token.fingerprint()))
        };
        self.harvester.get_or_init(|| read).await;
    }

    /// One look: read the objects, abstract them, probe the values that matter, and before a run do the preflight checks.
    pub(super) async fn look(&self, run: Option<&Run<Crt>>) -> Result<Observed, Failure> {
        let ((cluster, tokens, has_feature), (deployment, pods, stv), provisioned) = Box::pin(try_join3(
            self.read_management(),
            self.read_downstream(run),
            self.read_provisioned(),
        ))
        .await?;
        let storage = TokenStorage::of(has_feature, &tokens.tokens).map_err(|mixed| self.mixed_storage(run, &mixed))?;
        self.state().has_feature = Some(has_feature);
        let now = self.connections.management.clock.now();
        let (downstream, pushes) = futures::join!(
            async {
                match deployment {
                    Ok(_) => self.identity(&cluster).await,
                    // Nothing is read or written there.
                    Err(_) => Ok(DownstreamIdentity::Proven),
                }
            },
            self.pushes(storage)
        );
        let cluster_changed = self.cluster_changed(&cluster, now);
        let mut snapshot = Snapshot {
            downstream: downstream?,
            pushes: pushes?,
            move_forced: self.forces(check::ADDRESS),
            weak_proof_forced: self.forces(check::WEAK_PROOF),
            is_rescue: self.is_rescue,
            reactivates: self.reactivates(),
            writer: String::new(),
            cluster_changed,
            storage,
            cluster,
            tokens,
            provisioned,
            deployment,
            pods,
            credentials: Vec::new(),
            created: Vec::new(),
            stv,
            probe_results: [].into(),
            tunnel_works: None,
            now,
            downstream_now: self.downstream.server.clock.now(),
        };
        self.follow_ready(&mut snapshot);
        self.read_harvester(&snapshot).await;
        let names = self.read_credentials(&mut snapshot, run).await?;
        if snapshot.deployment.is_ok() {
            snapshot.created = self.created(run).await?;
        }
        snapshot.tunnel_works = self.call(&snapshot, run).await;
        snapshot.writer = self.writer(&snapshot, &names, run).await;
        let mut seen = snapshot.observed(&names, run);
        self.probe(&mut snapshot, &mut seen, run).await;
        if run.is_none() {
            self.preflight(&snapshot, &mut seen).await.map_err(Failure::Permanent)?;
        }
        let mut state = self.state();
        state.names = names;
        state.snapshot = Some(snapshot);
        Ok(seen)
    }

    async fn preflight(&self, snapshot: &Snapshot, seen: &mut Observed) -> Result<(), Error> {
        let connections = self.connections;
        seen.only_agent = self.options.only_agent;
        let mut found = if self.is_rescue {
            preflight::of_rescue(connections, snapshot)
        } else {
            preflight::blockers(connections, snapshot, seen, self.options.rescue.is_some())
        };
        if preflight::unsupported(&snapshot.cluster).is_none() {
            found.extend(preflight::owned(connections, self.downstream, snapshot).await?);
        }
        found.retain(|blocker| {
            !self
                .options
                .forced
                .iter()
                .any(|check| blocker.check == Some(check.name))
        });
        seen.blockers = found;
        Ok(())
    }

    /// Whether the downstream cluster is the one that the tokens belong to.
    async fn identity(&self, cluster: &Cluster) -> Result<DownstreamIdentity, Failure> {
        let before = self.state().downstream;
        if let Some(known @ (DownstreamIdentity::Proven | DownstreamIdentity::Another)) = before {
            return Ok(known);
        }
        let identity = match self.downstream.identity(cluster).await? {
            DownstreamIdentity::Unproven if self.forces(check::CONTEXT) => DownstreamIdentity::Trusted,
            identity => identity,
        };
        self.state().downstream = Some(identity);
        Ok(identity)
    }

    /// Where Rancher's next push would send the agent. With storage `status` this program triggers no push.
    async fn pushes(&self, storage: TokenStorage) -> Result<Option<Address>, Error> {
        if storage == TokenStorage::Status {
            return Ok(inputs::pushed_address(&self.connections.settings));
        }
        match settings::read_address(&self.connections.management.client).await {
            Ok(settings) => Ok(inputs::pushed_address(&settings)),
            Err(error) if error.is_forbidden() => Ok(None),
            Err(error) => Err(error.on(MANAGEMENT)),
        }
    }

    fn cluster_changed(&self, cluster: &Cluster, now: Timestamp) -> Timestamp {
        let version = &cluster.object.resource_version;
        let mut state = self.state();
        match &state.cluster_version {
            Some((known, since)) if known == version => *since,
            _ => {
                state.cluster_version = Some((version.clone(), now));
                now
            }
        }
    }

    /// The last writer of the Deployment, if it is not as this run has left it.
    async fn writer(&self, snapshot: &Snapshot, names: &Names, run: Option<&Run<Crt>>) -> String {
        const UNKNOWN: &str = "another writer";
        let named = snapshot.named_secret();
        let target = run.filter(|run| was_placed(run)).and_then(target);
        let is_placed = target.is_none_or(|target| names.of(target) == named);
        if is_placed || snapshot.deployment.is_err() {
            return UNKNOWN.to_owned();
        }
        let metadata = agent::deployment_metadata(&self.downstream.server.client).await;
        let writer = metadata.ok().flatten().and_then(|metadata| {
            ownership::last_writer(&metadata, &["spec", "template", "spec", "volumes"], FIELD_MANAGER)
        });
        writer.map_or_else(|| UNKNOWN.to_owned(), |writer| writer.to_string())
    }

    /// The Secrets that the agent's Deployment names or may be pointed at: single ones by name, since listing Secrets needs a wider
    /// permission.
    async fn read_credentials(&self, snapshot: &mut Snapshot, run: Option<&Run<Crt>>) -> Result<Names, Error> {
        let client = &self.downstream.server.client;
        if let Some(name) = snapshot.named_secret() {
            let named = agent::credentials(client, name)
                .await
                .map_err(|error| error.on(DOWNSTREAM))?;
            snapshot.credentials.extend(named);
        }
        let names = snapshot.names(run, &self.server_url(snapshot, run));
        if snapshot.deployment.is_err() {
            return Ok(names);
        }
        let known: BTreeSet<_> = snapshot
            .credentials
            .iter()
            .map(|found| found.object.name.clone())
            .collect();
        let mounted = snapshot.pods.iter().filter_map(|pod| pod.secret.as_deref());
        let of_start = run.filter(|_| self.is_rescue).map(|run| run.record.old_secret.as_str());
        let others: BTreeSet<&str> = names
            .all()
            .into_iter()
            .chain(mounted)
            .chain(of_start.filter(|name| !name.is_empty()))
            .filter(|name| !known.contains(*name))
            .collect();
        let read = try_join_all(others.into_iter().map(|name| agent::credentials(client, name))).await;
        let read = read.map_err(|error| error.on(DOWNSTREAM))?;
        snapshot.credentials.extend(read.into_iter().flatten());
        if self.is_rescue {
            return Ok(snapshot.names(run, &self.server_url(snapshot, run)));
        }
        Ok(names)
    }

    /// The agent's Secrets that this run has created, once they may be deleted.
    async fn created(&self, run: Option<&Run<Crt>>) -> Result<Vec<rancher::Observed>, Error> {
        let Some(run) = run.filter(|run| !run.phase.can_be_undone()) else {
            return Ok(Vec::new());
        };
        let by_run = (RUN, &*run.id.to_string());
        let created = agent::annotated_credentials(&self.downstream.server.client, by_run).await;
        created.map_err(|error| error.on(DOWNSTREAM))
    }

    pub(super) fn server_url(&self, snapshot: &Snapshot, run: Option<&Run<Crt>>) -> String {
        snapshot.server_url(self.connections.settings.server_url.as_deref(), run)
    }

    /// A call through Rancher's tunnel, sent after the pods were read.
    async fn call(&self, snapshot: &Snapshot, run: Option<&Run<Crt>>) -> Option<bool> {
        let proving = run.is_some_and(|run| run.phase >= engine::phase::Phase::Place && !restores_failure(run));
        // Where the agent cannot be looked at, the call is also the sign that it works at the start.
        let proves = match &snapshot.deployment {
            Ok(_) => proving && snapshot.tunnel_is_of_named_secret(),
            Err(Unread::Forbidden(_)) => run.is_none() || proving,
            Err(Unread::Unreachable) => proving && !self.is_rescue,
        };
        let proxied = self.downstream.proxied.as_ref()?;
        let is_hosted = matches!(snapshot.cluster.kind, ClusterKind::Hosted(_));
        if !proves {
            // Of a hosted cluster it is needed later.
            return is_hosted.then_some(false);
        }
        let call = async {
            if is_hosted {
                agent::own_api(&proxied.client).await
            } else {
                agent::version(&proxied.client).await.map(drop)
            }
        };
        let called = tokio::time::timeout(LONGEST_ANSWER, call).await;
        Some(called.is_ok_and(|called| called.is_ok()))
    }

    /// Probes the values that matter now.
    async fn probe(&self, snapshot: &mut Snapshot, seen: &mut Observed, run: Option<&Run<Crt>>) {
        let versions = snapshot.versions();
        let (wanted, times, values, before) = {
            let mut state = self.state();
            state.values.extend(snapshot.values());
            let (wanted, times) = if self.is_rescue {
                (rescue::values_to_probe(seen), PROBES)
            } else {
                values_to_probe(seen, run, &state.owners)
            };
            let unknown = |token: &&Fingerprint| !state.values.contains_key(token);
            let unproven = wanted.iter().filter(unknown).copied().collect();
            state.unproven = unproven;
            let before = state.probed.take().filter(|(of, _)| *of == versions);
            let before = before.map(|(_, results)| results).unwrap_or_default();
            (wanted, times, state.values.clone(), before)
        };
        let probes = wanted
            .iter()
            .filter(|token| !is_still_valid(seen, **token, before.get(token)))
            .filter_map(|token| Some((*token, values.get(token)?)));
        let storage = snapshot.storage;
        let probe = &self.connections.probe;
        let probes = probes.map(async |(token, value)| (token, probe.check_times(storage, value, times).await));
        let mut results = before.clone();
        results.extend(join_all(probes).await);
        results.retain(|token, _| wanted.contains(token));
        let mut state = self.state();
        for (token, result) in &results {
            if let ProbeResult::Accepted { cluster: Some(cluster) } = result {
                state.owners.insert(*token, cluster.clone());
            }
        }
        snapshot.probe_results.clone_from(&results);
        snapshot.add_probe_results(seen, &state.owners);
        state.probed = Some((versions, results));
    }

    /// During a run, a token that was just created has no Secret for a moment. Before a run, the migration is not finished.
    fn mixed_storage(&self, run: Option<&Run<Crt>>, mixed: &MixedTokenStorage) -> Failure {
        if run.is_some() {
            let created = mixed.without_secret.join(", ");
            return Failure::Transient(Error::failed(format!(
                "Rancher has not created the Secret of registration token {created} yet"
            )));
        }
        let status = self.connections.commands.status();
        let error = Error::failed(mixed.to_string()).hint("finish Rancher's migration of registration tokens first");
        Failure::Permanent(error.hint(format!(
            "after a downgrade, delete what the newer Rancher has left: the feature crt-token-ttl-rotation, and the Secrets that \
             `{status}` names"
        )))
    }
}
