//! Reads both sides.

use std::collections::BTreeSet;

use client::cluster_identity::{self, CaComparison, SYSTEM_NAMESPACE};
use client::error::Error;
use client::ownership;
use client::secret::Fingerprint;
use engine::controller::Failure;
use engine::run::Run;
use futures::future::{join_all, try_join, try_join_all};
use k8s_openapi::jiff::Timestamp;
use rancher::agent::{self, Deployment, Pod, StvAggregation};
use rancher::cluster::{self, Cluster};
use rancher::token_storage::TokenStorage;
use rancher::probe::ProbeResult;
use rancher::settings;
use rancher::token::{self, Tokens};

use super::abstraction::{Names, Snapshot, questions, still_holds};
use super::{CrtController, FIELD_MANAGER, check, preflight};
use crate::report::evidence;
use crate::rotation::Crt;
use crate::rotation::observed::{Address, Downstream as Which, Observed};
use crate::rotation::stages::{target, was_placed};
use crate::sides::{DOWNSTREAM, MANAGEMENT, Path};

/// What is read of the downstream side.
type Below = (Deployment, Vec<Pod>, Option<StvAggregation>);

impl CrtController<'_> {
    /// The management side: the cluster, its tokens, and whether Rancher keeps their values in Secrets.
    async fn above(&self) -> Result<(Cluster, Tokens, bool), Error> {
        let client = &self.sides.management.client;
        let id = &self.sides.cluster.id;
        let feature = async {
            let known = self.state().has_feature;
            match known {
                Some(known) => Ok(known),
                None => match settings::feature(client, settings::TTL_ROTATION).await {
                    Err(error) if error.is_forbidden() => Ok(false),
                    other => other.map(|feature| feature.is_some()),
                },
            }
        };
        let read = futures::try_join!(cluster::get(client, id), token::list(client, id), feature);
        let (cluster, tokens, has_feature) = read.map_err(|error| error.on(MANAGEMENT))?;
        let cluster = cluster.ok_or_else(|| Error::failed(format!("cluster {id} is gone")))?;
        Ok((cluster, tokens, has_feature))
    }

    async fn below(&self) -> Result<Below, Error> {
        let client = &self.downstream.server.client;
        let read = futures::try_join!(
            agent::deployment(client),
            agent::pods(client),
            agent::stv_aggregation(client)
        );
        let (deployment, pods, stv) = read.map_err(|error| error.on(DOWNSTREAM))?;
        let deployment = deployment.ok_or_else(|| {
            Error::failed("the downstream cluster has no Deployment cattle-system/cattle-cluster-agent")
        })?;
        Ok((deployment, pods, stv))
    }

    /// One look: read, abstract, ask Rancher about the values that matter, and before a run the preflight checks.
    pub(super) async fn look(&self, run: Option<&Run<Crt>>) -> Result<Observed, Failure> {
        let ((cluster, tokens, has_feature), (deployment, pods, stv)) = try_join(self.above(), self.below()).await?;
        let era = TokenStorage::of(has_feature, &tokens.tokens).map_err(|mixed| mixed_storage(run, &mixed))?;
        self.state().has_feature = Some(has_feature);
        let now = self.sides.management.clock.now();
        let (downstream, pushes) = futures::join!(self.which_cluster(&cluster), self.pushes(era));
        let cluster_changed = self.cluster_changed(&cluster, now);
        let mut snapshot = Snapshot {
            downstream: downstream?,
            pushes: pushes?,
            move_forced: self.forces(check::ADDRESS),
            writer: String::new(),
            cluster_changed,
            era,
            cluster,
            tokens,
            deployment,
            pods,
            credentials: Vec::new(),
            stv,
            probe_results: [].into(),
            tunnel_works: None,
            now,
            downstream_now: self.downstream.server.clock.now(),
        };
        let names = self.read_credentials(&mut snapshot, run).await?;
        snapshot.tunnel_works = self.fresh_call(&snapshot, run).await;
        snapshot.writer = self.writer(&snapshot, &names, run).await;
        let mut seen = snapshot.observed(&names, run);
        self.ask_rancher(&mut snapshot, &mut seen, run).await;
        if run.is_none() {
            self.preflight(&snapshot, &mut seen).await.map_err(Failure::Permanent)?;
        }
        let mut state = self.state();
        state.names = names;
        state.snapshot = Some(snapshot);
        Ok(seen)
    }

    async fn preflight(&self, snapshot: &Snapshot, seen: &mut Observed) -> Result<(), Error> {
        let sides = self.sides;
        seen.only_agent = self.options.only_agent;
        let mut found = preflight::blockers(sides, snapshot, seen);
        if preflight::not_rotated(&snapshot.cluster).is_none() {
            if !self.state().has_permissions {
                preflight::permissions(sides, self.downstream, snapshot.era).await?;
                self.state().has_permissions = true;
            }
            found.extend(preflight::owned(sides, self.downstream, snapshot).await?);
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

    /// Whether the downstream cluster is the one that the tokens belong to. Through Rancher it is by construction. A context of
    /// the user is compared by the uid of namespace kube-system, or, without a tunnel, by the CA that Rancher has recorded.
    async fn which_cluster(&self, cluster: &Cluster) -> Result<Which, Failure> {
        if self.downstream.path == Path::Derived {
            return Ok(Which::Proven);
        }
        let before = self.state().downstream;
        if let Some(known @ (Which::Proven | Which::Another)) = before {
            return Ok(known);
        }
        let direct = &self.downstream.server.client;
        let here = cluster_identity::uid(direct)
            .await
            .map_err(|error| error.on(DOWNSTREAM))?;
        let proxied = self.downstream.proxied.as_ref();
        let there = match proxied {
            Some(server) => cluster_identity::uid(&server.client).await.ok(),
            None => None,
        };
        let which = match there {
            Some(there) if there == here => Which::Proven,
            Some(_) => Which::Another,
            None => {
                let ca = cluster_identity::root_ca(direct, SYSTEM_NAMESPACE)
                    .await
                    .map_err(|error| error.on(DOWNSTREAM))?;
                let noted = cluster.ca_certificate.as_deref();
                match ca.zip(noted).map(|(ca, noted)| cluster_identity::same_ca(&ca, noted)) {
                    Some(CaComparison::Same) => Which::Proven,
                    _ if self.forces(check::CONTEXT) => Which::Proven,
                    _ => Which::Unproven,
                }
            }
        };
        self.state().downstream = Some(which);
        Ok(which)
    }

    /// Where Rancher's next push would send the agent. In storage `status` this program has it push nothing.
    async fn pushes(&self, era: TokenStorage) -> Result<Option<Address>, Error> {
        if era == TokenStorage::Status {
            return Ok(evidence::pushed_address(&self.sides.settings));
        }
        match settings::read_address(&self.sides.management.client).await {
            Ok(settings) => Ok(evidence::pushed_address(&settings)),
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

    /// Who wrote the Deployment last, where it is not as this run has left it.
    async fn writer(&self, snapshot: &Snapshot, names: &Names, run: Option<&Run<Crt>>) -> String {
        const SOMEONE: &str = "another writer";
        let named = snapshot.deployment.volume_secret.as_deref();
        let target = run.filter(|run| was_placed(run)).and_then(target);
        let is_there = target.is_none_or(|target| names.of(target) == named);
        if is_there {
            return SOMEONE.to_owned();
        }
        let metadata = agent::deployment_metadata(&self.downstream.server.client).await;
        let writer = metadata.ok().flatten().and_then(|metadata| {
            ownership::last_writer(&metadata, &["spec", "template", "spec", "volumes"], FIELD_MANAGER)
        });
        writer.map_or_else(|| SOMEONE.to_owned(), |writer| writer.to_string())
    }

    /// The Secrets that a Deployment of the agent names, or may be pointed at: single ones by name, since listing Secrets is a
    /// larger permission.
    async fn read_credentials(&self, snapshot: &mut Snapshot, run: Option<&Run<Crt>>) -> Result<Names, Error> {
        let client = &self.downstream.server.client;
        if let Some(name) = &snapshot.deployment.volume_secret {
            let named = agent::credentials(client, name)
                .await
                .map_err(|error| error.on(DOWNSTREAM))?;
            snapshot.credentials.extend(named);
        }
        let names = snapshot.names(run, &self.server_url(snapshot));
        let known: BTreeSet<_> = snapshot
            .credentials
            .iter()
            .map(|found| found.object.name.clone())
            .collect();
        let mounted = snapshot.pods.iter().filter_map(|pod| pod.secret.as_deref());
        let others: BTreeSet<&str> = names
            .all()
            .into_iter()
            .chain(mounted)
            .filter(|name| !known.contains(*name))
            .collect();
        let read = try_join_all(others.into_iter().map(|name| agent::credentials(client, name))).await;
        let read = read.map_err(|error| error.on(DOWNSTREAM))?;
        snapshot.credentials.extend(read.into_iter().flatten());
        Ok(names)
    }

    pub(super) fn server_url(&self, snapshot: &Snapshot) -> String {
        snapshot.server_url(self.sides.settings.server_url.as_deref())
    }

    /// A call through Rancher's tunnel, made after the pods were read.
    async fn fresh_call(&self, snapshot: &Snapshot, run: Option<&Run<Crt>>) -> Option<bool> {
        let proving = run.is_some_and(|run| run.phase >= engine::phase::Phase::Place);
        let shows = proving && snapshot.tunnel_is_of_named_secret();
        let proxied = self.downstream.proxied.as_ref().filter(|_| shows)?;
        Some(agent::version(&proxied.client).await.is_ok())
    }

    /// Asks Rancher about the values that matter now.
    async fn ask_rancher(&self, snapshot: &mut Snapshot, seen: &mut Observed, run: Option<&Run<Crt>>) {
        let versions = snapshot.versions();
        let (asked, probes, values, before) = {
            let mut state = self.state();
            state.known.extend(snapshot.values());
            let (asked, probes) = questions(seen, run, &state.belongs);
            let unknown = |token: &&Fingerprint| !state.known.contains_key(token);
            let unproven = asked.iter().filter(unknown).copied().collect();
            state.unproven = unproven;
            let before = state.answered.take().filter(|(of, _)| *of == versions);
            let before = before.map(|(_, answers)| answers).unwrap_or_default();
            (asked, probes, state.known.clone(), before)
        };
        let anew = asked
            .iter()
            .filter(|token| !still_holds(seen, **token, before.get(token)))
            .filter_map(|token| Some((*token, values.get(token)?)));
        let era = snapshot.era;
        let answers =
            join_all(anew.map(async |(token, value)| (token, self.sides.probe.looks(era, value, probes).await)));
        let mut probe_results = before.clone();
        probe_results.extend(answers.await);
        probe_results.retain(|token, _| asked.contains(token));
        let mut state = self.state();
        for (token, result) in &probe_results {
            if let ProbeResult::Accepted { cluster: Some(cluster) } = result {
                state.belongs.insert(*token, cluster.clone());
            }
        }
        snapshot.probe_results.clone_from(&probe_results);
        snapshot.answers(seen, &state.belongs);
        state.answered = Some((versions, probe_results));
    }
}

/// A token that was just created has no Secret for a moment; before a run it is a half-done migration.
fn mixed_storage(run: Option<&Run<Crt>>, mixed: &rancher::token_storage::MixedTokenStorage) -> Failure {
    let error = Error::failed(mixed.to_string());
    if run.is_some() {
        Failure::Transient(error)
    } else {
        Failure::Permanent(error.hint("finish Rancher's migration of registration tokens first"))
    }
}
