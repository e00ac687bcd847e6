//! The half of the rotation that touches the world: [`ClusterActor`] reads the cluster Secret, what is parked and our tokens in
//! Rancher, calls with the tokens themselves as Argo CD would, and carries out single writes.
//!
//! It decides nothing. What it reads becomes a [`View`] of names and fingerprints; what is decided on comes back as a [`Write`],
//! which it sends with the versions of the Secrets that it read last.

mod act;
mod ask;
mod check;
pub mod fleet;
mod snapshot;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argocd::connection::{self, Connection};
use argocd::{ClusterSecret, cluster_secret};
pub use check::Check;
use client::clock::ServerClock;
use client::error::Error;
use client::secret::{Fingerprint, Secret};
use engine::lock::Fence;
use engine::phase::Goal;
use engine::protocol::{Actor, Draw, Run, Trouble};
use k8s_openapi::jiff::Timestamp;
use rancher::api_token::{ApiToken, Lifetime, TokenName};
use tokio::time::Instant;

use crate::parked::{self, Place};
use crate::proof::Proofs;
use crate::rotation::view::{Answer, Consumer, View};
use crate::rotation::write::Write;
use crate::rotation::{ArgocdRancher, Timer};
use crate::sides::{Argo, of_argocd};
use fleet::Fleet;
use snapshot::Snapshot;

/// While the grace time runs nothing is taken away, and what Rancher says may be this old. Argo CD's Secret is read each time.
const FRESH: Duration = Duration::from_secs(10);
/// Argo CD's metrics are read no more often: those of many clusters are long.
const SCRAPE: Duration = Duration::from_secs(2);
/// Rancher notes the last use of a token to the second: an earlier call of ours could be taken for one of Argo CD's.
const QUIET: Duration = Duration::from_millis(1500);

/// What a token leaves behind that was refused at a bad moment, where `resource.respectRBAC` is set (seen on Argo CD 3.5.1).
pub(crate) const BLIND: &str = "Argo CD calls itself connected, but watches nothing there; \
    `kubectl annotate --overwrite` the Secret with argocd.argoproj.io/refresh=<the present time, RFC 3339> makes it look again";

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a new token shall live; Rancher may grant less.
    pub ttl: Lifetime,
    /// How long the cluster Secret is watched before the old token goes.
    pub grace: Duration,
    /// How long the new token may take to be proven.
    pub timeout: Duration,
    /// The old token stays alive.
    pub keep_old: bool,
    /// The new token is not for one cluster alone.
    pub unscoped: bool,
    /// The checks that do not count.
    pub forced: BTreeSet<Check>,
}

/// The actor for one cluster of Argo CD's.
#[derive(Debug)]
pub struct ClusterActor<'a> {
    fleet: &'a Fleet,
    /// The cluster Secret when the command began.
    cluster: &'a ClusterSecret,
    options: &'a Options,
    parked: Place,
    state: Mutex<State>,
}

/// What one look leaves for the next write, and for the next look.
#[derive(Debug)]
struct State {
    snapshot: Option<Snapshot>,
    /// Every value that this process has read or was told.
    known: BTreeMap<Fingerprint, Secret>,
    /// What this process has minted. Nobody else knows these values until they are parked.
    minted: BTreeMap<TokenName, Secret>,
    /// The last token that was minted here, as Rancher granted it.
    granted: Option<ApiToken>,
    /// What Rancher says is not older than this.
    rancher_since: Instant,
    /// When the new token was called with last.
    called: Instant,
    /// What a call with a token has shown while it was let in.
    answered: BTreeMap<Fingerprint, (Instant, Answer)>,
    /// What the last look before a run found of the old token.
    surveyed: Option<Surveyed>,
    /// The value that should be refused by now and could not be asked about.
    unproven: Option<Fingerprint>,
    may: bool,
    /// What Argo CD said last, and when it was asked.
    consumer: Option<(Instant, Consumer)>,
    /// Something was written since the last look.
    touched: bool,
}

/// What calls with the token that is to be rotated have shown.
#[derive(Debug)]
struct Surveyed {
    value: Fingerprint,
    at: Instant,
    proofs: Proofs,
}

impl<'a> ClusterActor<'a> {
    /// For the cluster of this Secret.
    pub fn new(fleet: &'a Fleet, cluster: &'a ClusterSecret, options: &'a Options) -> Self {
        let now = Instant::now();
        let object = &cluster.object;
        Self {
            parked: Place::of(&fleet.argo.server.client, &object.namespace, &object.name),
            state: Mutex::new(State {
                snapshot: None,
                known: BTreeMap::new(),
                minted: BTreeMap::new(),
                granted: None,
                rancher_since: now,
                called: now,
                answered: BTreeMap::new(),
                surveyed: None,
                unproven: None,
                may: false,
                consumer: None,
                touched: false,
            }),
            fleet,
            cluster,
            options,
        }
    }

    /// The value that should be refused by now and could not be asked about: what was parked is lost.
    pub fn unproven(&self) -> Option<Fingerprint> {
        self.state().unproven
    }

    /// The last token that was minted here, as Rancher granted it.
    pub fn granted(&self) -> Option<ApiToken> {
        self.state().granted.clone()
    }

    /// The cluster Secret as it was seen last, and the way back was cut off, so that the new token stays.
    pub fn seen(&self) -> Option<(ClusterSecret, bool)> {
        let state = self.state();
        let snapshot = state.snapshot.as_ref()?;
        Some((snapshot.cluster.clone()?, snapshot.kept))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn argo(&self) -> &'a Argo {
        &self.fleet.argo
    }

    async fn look(&self, run: Option<&Run<ArgocdRancher>>) -> Result<View, Trouble> {
        let snapshot = self.read(run).await?;
        self.remember(&snapshot);
        let now = self.argo().server.clock.now();
        let mut view = snapshot.view(run, now, &self.state().minted);
        view.same_rancher = snapshot
            .cluster
            .as_ref()
            .is_none_or(|cluster| self.fleet.is_of_this_rancher(cluster));
        view.watched = self.is_watched();
        view.keep_old = self.options.keep_old;
        if view.watched {
            view.consumer = self.consumer(&snapshot).await;
        }
        view.old_needed_by = self.old_needed_by(&snapshot, run).await?;
        if view.same_rancher {
            self.ask(&mut view, &snapshot, run).await?;
        }
        view.quiet = self.state().called.elapsed() >= QUIET;
        if run.is_none() {
            self.survey(&mut view, &snapshot).await.map_err(Trouble::Fatal)?;
        }
        self.state().snapshot = Some(snapshot);
        Ok(view)
    }

    /// What Argo CD says of the cluster, by its own metrics.
    async fn consumer(&self, snapshot: &Snapshot) -> Consumer {
        if let Some((at, consumer)) = &self.state().consumer
            && at.elapsed() < SCRAPE
        {
            return consumer.clone();
        }
        let consumer = self.scrape(snapshot).await;
        self.state().consumer = Some((Instant::now(), consumer.clone()));
        consumer
    }

    /// Whether it has read the cluster anew since the token was put into the Secret is told by the age of its cache, without
    /// comparing two clocks.
    async fn scrape(&self, snapshot: &Snapshot) -> Consumer {
        let now = self.argo().server.clock.now();
        let all = match connection::read(&self.argo().server.client, &self.argo().namespace).await {
            Err(error) => {
                return Consumer::Unknown(format!("its metrics cannot be read: {}", of_argocd(error).message));
            }
            Ok(None) => return Consumer::Unknown("there is no Service of its metrics".to_owned()),
            Ok(Some(all)) => all,
        };
        let since = snapshot.left().and_then(|left| left.placed_at);
        let found = snapshot.cluster.as_ref().and_then(|cluster| all.get(&cluster.server));
        found.map_or_else(
            || Consumer::Unknown("its metrics do not name the cluster".to_owned()),
            |found| of_connection(*found, since, now),
        )
    }

    /// Who else needs the old token. Asked at each look: it may have been put elsewhere since the rotation began.
    async fn old_needed_by(
        &self,
        snapshot: &Snapshot,
        run: Option<&Run<ArgocdRancher>>,
    ) -> Result<Option<String>, Error> {
        let held = snapshot.cluster.as_ref().and_then(ClusterSecret::token);
        let held = held.as_ref().map(snapshot::known);
        let Some(old) = run.map(|run| run.notes.old.clone()).or(held) else {
            return Ok(None);
        };
        let name = old.name.as_ref().map_or("", |name| name.0.as_str());
        let token = snapshot.token(name);
        if token.is_some_and(|token| self.fleet.rancher.logs_in_with(token)) {
            return Ok(Some(
                "it is the token that this command itself logs in to Rancher with".to_owned(),
            ));
        }
        let about_to_go = run.is_some_and(|run| run.passed(Timer::Grace) && run.goal == Goal::Forward);
        if token.is_none() || !about_to_go {
            return Ok(None);
        }
        let clusters = self.argo().clusters().await?;
        let object = &self.cluster.object;
        let sharing = clusters.iter().filter(|other| other.object.name != object.name);
        let sharing = sharing.filter(|other| {
            other
                .token()
                .is_some_and(|value| snapshot::known(&value).name == old.name)
        });
        let names: Vec<&str> = sharing.map(|other| other.object.name.as_str()).collect();
        Ok((!names.is_empty()).then(|| format!("it is in other Secrets too: {}", names.join(", "))))
    }

    fn is_watched(&self) -> bool {
        !self.options.forced.contains(&Check::Use) && self.fleet.is_watched(self.cluster)
    }

    async fn read(&self, run: Option<&Run<ArgocdRancher>>) -> Result<Snapshot, Error> {
        let in_grace = run.is_some_and(|run| run.running(Timer::Grace));
        let (since, is_parked_fresh) = self.still_fresh(in_grace);
        let object = &self.cluster.object;
        let cluster = async {
            let found = cluster_secret::get(&self.argo().server.client, &object.namespace, &object.name).await;
            found.map_err(of_argocd)
        };
        let parked = async {
            if is_parked_fresh {
                let state = self.state();
                return Ok(state.snapshot.as_ref().and_then(|snapshot| snapshot.parked.clone()));
            }
            self.parked.read().await.map_err(of_argocd)
        };
        let (cluster, parked, tokens) = futures::try_join!(cluster, parked, self.fleet.tokens(since))?;
        Ok(Snapshot {
            cluster,
            parked,
            tokens,
            subject: format!("{}/{}", object.namespace, object.name),
            identity: self.fleet.identity.clone(),
            user: self.fleet.user.id.clone(),
            kept: run.is_some_and(|run| run.notes.kept),
        })
    }

    /// How old what Rancher says may be, and whether what was read of the parked values is as new. While the grace time runs
    /// only the cluster Secret is of interest, unless something was written; once it is over everything is read anew.
    fn still_fresh(&self, in_grace: bool) -> (Instant, bool) {
        let mut state = self.state();
        let now = Instant::now();
        let is_fresh = in_grace && now.duration_since(state.rancher_since) < FRESH;
        let is_parked_fresh = is_fresh && !state.touched && state.snapshot.is_some();
        if !is_fresh {
            state.rancher_since = now;
        }
        state.touched = false;
        (state.rancher_since, is_parked_fresh)
    }

    fn remember(&self, snapshot: &Snapshot) {
        let mut state = self.state();
        for value in snapshot.values() {
            state.known.insert(value.fingerprint(), value);
        }
    }

    /// A value that this process knows.
    fn value(&self, fingerprint: Fingerprint) -> Option<Secret> {
        self.state().known.get(&fingerprint).cloned()
    }

    async fn check_rights(&self, parked: Option<&parked::Seen>) -> Result<(), Error> {
        if self.state().may {
            return Ok(());
        }
        survey::rights(self.argo(), self.cluster, self.parked.name(), parked.is_some()).await?;
        self.state().may = true;
        Ok(())
    }
}

impl Actor for ClusterActor<'_> {
    type Protocol = ArgocdRancher;

    async fn observe(&self, run: Option<&Run<ArgocdRancher>>) -> Result<View, Trouble> {
        self.look(run).await
    }

    fn draw(&self) -> Box<dyn Draw + '_> {
        Box::new(OfRancher)
    }

    async fn act(&self, write: &Write, run: &Run<ArgocdRancher>, fence: &Fence) -> Result<(), Trouble> {
        let done = self.write(write, run, fence).await;
        // Whatever came of it, Rancher is asked anew.
        let mut state = self.state();
        state.rancher_since = Instant::now();
        state.answered.clear();
        state.consumer = None;
        state.touched = true;
        drop(state);
        done
    }

    fn lasts(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Proof => self.options.timeout,
            Timer::Grace => self.options.grace,
        }
    }

    fn clock(&self) -> ServerClock {
        self.argo().server.clock.clone()
    }
}

/// Argo CD rounds the age of its cache down to seconds, so that it is older than it says by up to one.
fn of_connection(found: Connection, since: Option<Timestamp>, now: Timestamp) -> Consumer {
    let elapsed = since.map(|since| now.duration_since(since).as_secs());
    let is_anew = found
        .age
        .zip(elapsed)
        .is_some_and(|(age, elapsed)| i64::try_from(age).is_ok_and(|age| age < elapsed));
    match found.connected {
        None => Consumer::Unknown("its metrics do not tell how the cluster is connected".to_owned()),
        Some(false) => Consumer::Failed,
        Some(true) if found.kinds == Some(0) => Consumer::Unknown(BLIND.to_owned()),
        Some(true) if is_anew => Consumer::Since,
        Some(true) => Consumer::Before,
    }
}

/// Rancher draws names and values: nothing is drawn here, and no protocol of ours asks for it.
struct OfRancher;

impl Draw for OfRancher {
    fn credential(&mut self) -> Fingerprint {
        Fingerprint::of("")
    }

    fn mark(&mut self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_was_read_anew_if_its_cache_is_younger_than_the_token_in_the_secret() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let with = |age, connected| Connection {
            connected,
            kinds: Some(56),
            age,
        };
        let seen = |age, since| of_connection(with(age, Some(true)), since, at(100));
        assert_eq!(seen(Some(3), Some(at(96))), Consumer::Since);
        assert_eq!(
            seen(Some(4), Some(at(96))),
            Consumer::Before,
            "it may be older by nearly a second"
        );
        assert_eq!(seen(None, Some(at(96))), Consumer::Before);
        assert_eq!(seen(Some(0), None), Consumer::Before);
        assert_eq!(
            of_connection(with(Some(3), Some(false)), None, at(100)),
            Consumer::Failed
        );
        let blind = Connection {
            kinds: Some(0),
            ..with(Some(3), Some(true))
        };
        assert!(matches!(
            of_connection(blind, Some(at(96)), at(100)),
            Consumer::Unknown(_)
        ));
    }
}
