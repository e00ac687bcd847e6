//! The reads of one observation: both Secrets, the tokens of the user in Rancher, Argo CD's metrics, and the probes of the tokens.

use argocd::{ClusterConfig, ClusterSecret, cluster_secret, connection};
use client::error::Error;
use client::secret::{Fingerprint, Secret};
use engine::controller::Failure;
use engine::credential::Acceptance;
use engine::rotation::Timer;
use engine::run::Run;
use futures::future::try_join_all;
use tokio::time::Instant;

use super::abstraction::{self, CONNECTIONS, Inputs, Probe, Snapshot, WrittenDetails};
use super::{ClusterController, SCRAPE, Surveyed, check};
use crate::connections::of_argocd;
use crate::rotation::ArgocdRancher;
use crate::rotation::observed::{ClusterSync, Observed};
use crate::token_check::{Timeouts, TokenCheck};

impl ClusterController<'_> {
    pub(super) async fn look(&self, run: Option<&Run<ArgocdRancher>>) -> Result<Observed, Failure> {
        let snapshot = self.read(run).await?;
        let mut seen = self.abstracted(&snapshot, run);
        if seen.watched {
            seen.sync = self.sync(&snapshot).await;
        }
        seen.old_needed_by = self.old_needed_by(&snapshot, run).await?;
        if seen.same_rancher {
            self.probe(&mut seen, &snapshot, run).await?;
        }
        seen.own_calls_recorded = abstraction::is_recorded(self.state().called.elapsed());
        if run.is_none() {
            let blockers = self.blockers(&seen, &snapshot).await;
            seen.blockers = blockers.map_err(Failure::Permanent)?;
        }
        self.state().snapshot = Some(snapshot);
        Ok(seen)
    }

    fn abstracted(&self, snapshot: &Snapshot, run: Option<&Run<ArgocdRancher>>) -> Observed {
        let mut state = self.state();
        let read = snapshot.values().map(|value| (value.fingerprint(), value));
        state.known.extend(read);
        let object = &self.cluster.object;
        let cluster = snapshot.cluster.as_ref();
        let inputs = Inputs {
            snapshot,
            run,
            now: self.argo().server.clock.now(),
            user: &self.fleet.user.id,
            subject: &format!("{}/{}", object.namespace, object.name),
            argocd: self.fleet.identity.as_deref(),
            issued_here: &state.issued,
            same_rancher: cluster.is_none_or(|cluster| self.fleet.rancher.serves(cluster)),
            watched: !self.forces(check::USE) && self.fleet.is_watched(self.cluster).unwrap_or(true),
            use_forced: self.forces(check::USE),
            keep_old: self.options.keep_old,
            discard: self.forces(check::JOURNAL),
        };
        inputs.observed()
    }

    async fn read(&self, run: Option<&Run<ArgocdRancher>>) -> Result<Snapshot, Error> {
        let in_quiet_time = run.is_some_and(|run| run.running(Timer::Quiet));
        let (since, is_backup_fresh) = self.still_fresh(in_quiet_time);
        let object = &self.cluster.object;
        let cluster = async {
            let found = cluster_secret::get(&self.argo().server.client, &object.namespace, &object.name).await;
            found.map_err(of_argocd)
        };
        let backup = async {
            if is_backup_fresh {
                let state = self.state();
                return Ok(state.snapshot.as_ref().and_then(|snapshot| snapshot.backup.clone()));
            }
            self.backup.read().await.map_err(of_argocd)
        };
        let (cluster, backup, tokens) = futures::try_join!(cluster, backup, self.fleet.tokens(since))?;
        Ok(Snapshot {
            cluster,
            backup,
            tokens,
        })
    }

    /// How old the data from Rancher may be, and whether the last backup that was read is as new. In the quiet time only the cluster
    /// Secret is read, unless something was written. After it everything is read again.
    fn still_fresh(&self, in_quiet_time: bool) -> (Instant, bool) {
        let mut state = self.state();
        let is_fresh = in_quiet_time && abstraction::is_fresh(state.rancher_since.elapsed());
        let is_backup_fresh = is_fresh && !state.has_written && state.snapshot.is_some();
        if !is_fresh {
            state.rancher_since = Instant::now();
        }
        state.has_written = false;
        (state.rancher_since, is_backup_fresh)
    }

    async fn sync(&self, snapshot: &Snapshot) -> ClusterSync {
        if let Some((at, sync)) = &self.state().sync
            && at.elapsed() < SCRAPE
        {
            return sync.clone();
        }
        let now = self.argo().server.clock.now();
        let written = snapshot.cluster.as_ref().and_then(WrittenDetails::read);
        let placed_at = written.and_then(|written| written.placed_at);
        let sync = abstraction::cluster_sync(self.metrics(snapshot).await, placed_at, now);
        self.state().sync = Some((Instant::now(), sync.clone()));
        sync
    }

    async fn metrics(&self, snapshot: &Snapshot) -> Result<connection::Connection, String> {
        let argo = self.argo();
        let all = connection::read(&argo.server.client, &argo.namespace).await;
        let all = all.map_err(|error| format!("its metrics cannot be read: {}", of_argocd(error).message))?;
        let all = all.ok_or("there is no Service for its metrics")?;
        let cluster = snapshot.cluster.as_ref();
        let found = cluster.and_then(|cluster| all.get(&cluster.server));
        Ok(*found.ok_or("its metrics do not contain the cluster")?)
    }

    /// What else needs O. Checked at each observation, because another Secret may hold it since the rotation began.
    async fn old_needed_by(
        &self,
        snapshot: &Snapshot,
        run: Option<&Run<ArgocdRancher>>,
    ) -> Result<Option<String>, Error> {
        let held = snapshot.cluster.as_ref().and_then(ClusterSecret::token);
        let held = held.as_ref().map(abstraction::token_ref);
        let Some(name) = run
            .map_or(held, |run| Some(run.record.old.clone()))
            .and_then(|old| old.name)
        else {
            return Ok(None);
        };
        let Some(token) = snapshot.token(&name) else {
            return Ok(None);
        };
        if self.fleet.rancher.logs_in_with(token) {
            return Ok(Some("this command logs in to Rancher with it".to_owned()));
        }
        if !abstraction::asks_who_shares(run) {
            return Ok(None);
        }
        let clusters = self.argo().clusters().await?;
        let names = abstraction::sharing(&clusters, &self.cluster.object.name, &name);
        Ok((!names.is_empty()).then(|| format!("it is in other Secrets too: {}", names.join(", "))))
    }

    /// Probes the tokens whose acceptance matters now. Without a cluster Secret, the CA is that of the Secret when the command began.
    async fn probe(
        &self,
        seen: &mut Observed,
        snapshot: &Snapshot,
        run: Option<&Run<ArgocdRancher>>,
    ) -> Result<(), Error> {
        let cluster = snapshot.cluster.as_ref();
        let Some(run) = run else {
            if let Some(cluster) = cluster {
                seen.old_accepted = self.survey_old(cluster).await?;
            }
            return Ok(());
        };
        let cluster = cluster.unwrap_or(self.cluster);
        let is_first = self.state().snapshot.is_none();
        if let Some(probe) = abstraction::probe_of_old(seen, run, is_first) {
            seen.old_accepted = self.probe_token(cluster, probe).await?;
        }
        let is_known = self.value(run.record.old.value).is_some();
        self.state().unproven = abstraction::unproven(run, is_known);
        if let Some(probe) = abstraction::probe_of_new(seen, run) {
            seen.new_accepted = self.probe_token(cluster, probe).await?;
        }
        Ok(())
    }

    /// Before a rotation: makes all calls with the token as Argo CD does. The first one determines whether Rancher accepts it.
    async fn survey_old(&self, cluster: &ClusterSecret) -> Result<Acceptance, Error> {
        let (Ok(config), Some(token)) = (&cluster.config, cluster.token()) else {
            return Ok(Acceptance::NotAsked);
        };
        // The preflight says what is wrong.
        if !config.flaws().is_empty() {
            return Ok(Acceptance::NotAsked);
        }
        let value = token.fingerprint();
        let is_known = |surveyed: &Surveyed| surveyed.value == value && abstraction::is_fresh(surveyed.at.elapsed());
        if !self.state().surveyed.as_ref().is_some_and(is_known) {
            let check = token_check(cluster, config, &token);
            let results = check.run(self.argo(), Some(&self.fleet.rancher)).await?;
            let at = Instant::now();
            self.state().surveyed = Some(Surveyed { value, at, results });
        }
        let state = self.state();
        let result = state.surveyed.as_ref().map(|surveyed| &surveyed.results.rancher);
        Ok(result.map(abstraction::acceptance).unwrap_or_default())
    }

    /// A lost value cannot be probed.
    async fn probe_token(&self, cluster: &ClusterSecret, probe: Probe) -> Result<Acceptance, Error> {
        let (Probe::Once(value) | Probe::Everywhere(value) | Probe::Fully(value)) = probe;
        let (Ok(config), Some(token)) = (&cluster.config, self.value(value)) else {
            return Ok(Acceptance::NotAsked);
        };
        let check = token_check(cluster, config, &token);
        let (argo, rancher) = (self.argo(), Some(&self.fleet.rancher));
        match probe {
            Probe::Once(_) => Ok(abstraction::acceptance(&check.at_rancher(argo, rancher).await?)),
            Probe::Everywhere(_) => {
                let calls = (0..CONNECTIONS).map(|_| check.at_rancher_anew(argo, rancher));
                Ok(abstraction::acceptance_everywhere(&try_join_all(calls).await?))
            }
            Probe::Fully(_) => self.probe_fully(cluster, config, &token).await,
        }
    }

    async fn probe_fully(
        &self,
        cluster: &ClusterSecret,
        config: &ClusterConfig,
        token: &Secret,
    ) -> Result<Acceptance, Error> {
        let value = token.fingerprint();
        let accepted = self.state().accepted.get(&value).copied();
        if accepted.is_some_and(|at| abstraction::is_fresh(at.elapsed())) {
            return Ok(Acceptance::Accepted);
        }
        let config = config.clone().with_bearer(token);
        let check = token_check(cluster, &config, token);
        let results = check.run(self.argo(), Some(&self.fleet.rancher)).await?;
        let acceptance = abstraction::full_acceptance(&results, &self.options.forced);
        let now = Instant::now();
        let mut state = self.state();
        state.called = now;
        // The last use is read again before it counts, because this call is recorded as one.
        state.rancher_since = now;
        if acceptance.is_accepted() {
            state.accepted.insert(value, now);
        }
        Ok(acceptance)
    }

    /// The value with this fingerprint, if this process has read or issued it.
    fn value(&self, fingerprint: Fingerprint) -> Option<Secret> {
        self.state().known.get(&fingerprint).cloned()
    }
}

fn token_check<'a>(cluster: &'a ClusterSecret, config: &'a ClusterConfig, token: &'a Secret) -> TokenCheck<'a> {
    TokenCheck {
        timeouts: Timeouts::SHORT,
        ..TokenCheck::of(cluster, config, token)
    }
}
