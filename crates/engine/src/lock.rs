//! The Lease that is lock and journal at once.
//!
//! One task, the keeper, is the only writer of the Lease while we hold it: it renews every 10 s and writes the journal
//! by compare-and-swap. A lock lasts 30 s. It is taken over
//! * at once, when its holder is a process of this host that is known to be gone;
//! * else only after *we* have watched it unchanged for 30 s. Its times are never compared with our clock;
//! * or by force.
//!
//! A holder that was paused and wakes up finds its [`Fence`] closed: the fence counts time that includes a suspended
//! machine, and every write asks it right before it is sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::clock::ServerClock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::identity::Identity;

/// How long a lock lasts without being renewed.
pub const DURATION: Duration = Duration::from_secs(30);
/// How often it is renewed.
pub const RENEWAL: Duration = Duration::from_secs(10);
/// After this long without a renewal nothing is written any more: it leaves a third of the lock for a write under way.
const SAFE: Duration = Duration::from_secs(20);
/// How often a lock of somebody else is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The label that every Lease of a rotation carries; its value is the kind ("crt").
pub const KIND_LABEL: &str = "kubectl-rotation.github.io/kind";
const JOURNAL: &str = "kubectl-rotation.github.io/journal";
const LAST_RUN: &str = "kubectl-rotation.github.io/last-run";
const LAST_RESULT: &str = "kubectl-rotation.github.io/last-result";

/// Where the lock of one subject is, and by whose clock.
#[derive(Clone)]
pub struct Lock {
    api: Api<Lease>,
    name: String,
    kind: &'static str,
    manager: &'static str,
    clock: ServerClock,
}

/// What a Lease says, read without holding it.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Who holds the lock, if anybody.
    pub holder: Option<String>,
    /// When the holder renewed it last.
    pub renewed: Option<Timestamp>,
    /// The text of the journal, where a rotation is under way.
    pub journal: Option<String>,
    /// When the last rotation ended.
    pub last_run: Option<Timestamp>,
    /// How it ended, in words.
    pub last_result: Option<String>,
}

impl Record {
    /// Reads what a Lease says. Annotations that are not ours to understand count as absent.
    pub fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let note = |key: &str| {
            lease
                .metadata
                .annotations
                .as_ref()
                .and_then(|notes| notes.get(key))
                .cloned()
        };
        Self {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            renewed: spec.renew_time.map(|MicroTime(at)| at),
            journal: note(JOURNAL),
            last_run: note(LAST_RUN).and_then(|at| at.parse().ok()),
            last_result: note(LAST_RESULT),
        }
    }

    /// The holder, for people, with how long ago it renewed: "process 4711 on laptop, renewed 4s ago".
    pub fn describe_holder(&self, now: Timestamp) -> Option<String> {
        let holder = self.holder.as_deref()?;
        let place = holder
            .parse::<Identity>()
            .map_or_else(|_| holder.to_owned(), |identity| identity.place());
        let ago = self.renewed.map(|at| now.duration_since(at).as_secs().max(0));
        Some(ago.map_or_else(|| place.clone(), |ago| format!("{place}, renewed {ago}s ago")))
    }

    /// Whether the holder is known to have ended without releasing the lock.
    pub fn holder_is_gone(&self) -> bool {
        self.holder
            .as_deref()
            .and_then(|holder| holder.parse::<Identity>().ok())
            .is_some_and(|id| id.is_known_to_be_gone())
    }
}

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// A living holder. The text names it.
    #[error("held by {0}")]
    Held(String),
    /// The API server refused or did not answer.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// How a run ends, for the Lease.
#[derive(Clone, Debug)]
pub enum End {
    /// The journal stays: somebody goes on later.
    Pending,
    /// Nothing was begun, so that there is no journal.
    Nothing,
    /// The journal goes, and this stays as the record of the last run.
    Finished(String),
}

impl Lock {
    /// The lock of one subject. `clock` must be the one that the client of `api` feeds.
    pub fn new(
        api: Api<Lease>,
        name: impl Into<String>,
        kind: &'static str,
        manager: &'static str,
        clock: ServerClock,
    ) -> Self {
        Self {
            api,
            name: name.into(),
            kind,
            manager,
            clock,
        }
    }

    /// Looks at the Lease without touching it.
    pub async fn read(&self) -> Result<Record, kube::Error> {
        Ok(self
            .api
            .get_opt(&self.name)
            .await?
            .as_ref()
            .map(Record::of)
            .unwrap_or_default())
    }

    /// Takes the lock, and reads what stands in it then.
    ///
    /// `watching` is told, once, when a holder that may be alive has to be watched.
    ///
    /// # Errors
    /// [`NotTaken::Held`] when the holder was seen to be alive.
    pub async fn take(&self, by_force: bool, watching: impl FnOnce(&str)) -> Result<(Held, Record), NotTaken> {
        let mut watching = Some(watching);
        let mut watched: Option<(Record, u64)> = None;
        let mut unanswered = None;
        loop {
            let Some(lease) = self.api.get_opt(&self.name).await? else {
                let sent = uptime_ms();
                match self.create().await {
                    Ok(lease) => return Ok(self.keep(lease, sent)),
                    Err(error) if is_conflict(&error) => continue,
                    // Whether it was carried out is not known, only the next look tells.
                    Err(error) if !matches!(error, kube::Error::Api(_)) && unanswered.is_none() => {
                        tracing::debug!(%error, "the creation of the Lease was not answered");
                        unanswered = Some(sent);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            let record = Record::of(&lease);
            if let Some(sent) = unanswered
                && record.holder == Some(Identity::of_this_process().to_string())
            {
                return Ok(self.keep(lease, sent));
            }
            let free = record.holder.is_none() || record.holder_is_gone() || by_force;
            let unchanged_for_long = match &watched {
                Some((first, _)) if first.holder != record.holder || first.renewed != record.renewed => {
                    return Err(NotTaken::Held(self.describe_living(first, &record)));
                }
                Some((_, since)) => uptime_ms().saturating_sub(*since) >= DURATION.as_millis() as u64,
                None => false,
            };
            if free || unchanged_for_long {
                let sent = uptime_ms();
                match self.seize(&lease).await {
                    Ok(lease) => return Ok(self.keep(lease, sent)),
                    // Taken by somebody else, or gone: a run that did nothing removes its Lease.
                    Err(error) if is_conflict(&error) || is_not_found(&error) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            if watched.is_none() {
                if let Some(tell) = watching.take() {
                    tell(&record.describe_holder(self.clock.now()).unwrap_or_default());
                }
                watched = Some((record, uptime_ms()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The holder that was seen to be alive. One that ended while it was watched counts: what it did is not what our
    /// user had looked at before asking for a run.
    fn describe_living(&self, first: &Record, now: &Record) -> String {
        let at = self.clock.now();
        now.describe_holder(at).unwrap_or_else(|| {
            let before = first.describe_holder(at).unwrap_or_default();
            format!("{before}, and released since")
        })
    }

    async fn create(&self) -> Result<Lease, kube::Error> {
        let now = MicroTime(self.clock.now());
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some([(KIND_LABEL.to_owned(), self.kind.to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(Identity::of_this_process().to_string()),
                lease_duration_seconds: Some(DURATION.as_secs() as i32),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams {
            field_manager: Some(self.manager.to_owned()),
            ..PostParams::default()
        };
        self.api.create(&params, &lease).await
    }

    async fn seize(&self, lease: &Lease) -> Result<Lease, kube::Error> {
        let now = MicroTime(self.clock.now());
        let transitions = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or_default();
        let patch = json!({
            "metadata": {
                "resourceVersion": lease.metadata.resource_version,
                "uid": lease.metadata.uid,
                "labels": { KIND_LABEL: self.kind },
            },
            "spec": {
                "holderIdentity": Identity::of_this_process().to_string(),
                "leaseDurationSeconds": DURATION.as_secs(),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions.saturating_add(1),
            },
        });
        self.api
            .patch(&self.name, &PatchParams::apply(self.manager), &Patch::Merge(patch))
            .await
    }

    /// `sent` is the uptime at which the lock was asked for: a process may be paused before it sees the answer.
    fn keep(&self, lease: Lease, sent: u64) -> (Held, Record) {
        let record = Record::of(&lease);
        let fence = Fence {
            renewed: Arc::new(Mutex::new(Ok(sent))),
        };
        let (orders, inbox) = mpsc::channel(4);
        let keeper = Keeper {
            lock: self.clone(),
            lease,
            fence: fence.clone(),
        };
        tokio::spawn(keeper.run(inbox));
        (Held { orders, fence }, record)
    }
}

/// Says whether a write may still be sent under the lock.
#[derive(Clone, Debug)]
pub struct Fence {
    /// Milliseconds of uptime at the last renewal, or how the lock was lost.
    renewed: Arc<Mutex<Result<u64, Lost>>>,
}

impl Fence {
    /// Whether the lock is surely ours right now.
    pub fn is_open(&self) -> bool {
        self.renewed()
            .is_ok_and(|at| uptime_ms().saturating_sub(at) < SAFE.as_millis() as u64)
    }

    fn renewed(&self) -> Result<u64, Lost> {
        self.renewed.lock().map_or(Err(Lost::NotRenewed), |guard| *guard)
    }

    /// How long it stays open if nothing renews it.
    fn left(&self) -> Duration {
        let age = self
            .renewed()
            .map(|at| Duration::from_millis(uptime_ms().saturating_sub(at)));
        age.map_or(Duration::ZERO, |age| SAFE.saturating_sub(age))
    }

    /// A fence that never closes, for tests of single writes.
    pub fn always_open() -> Self {
        Self {
            renewed: Arc::new(Mutex::new(Ok(u64::MAX))),
        }
    }

    fn set(&self, renewed: Result<u64, Lost>) {
        if let Ok(mut guard) = self.renewed.lock() {
            *guard = renewed;
        }
    }
}

/// A lock that is ours, until it is released or lost.
pub struct Held {
    orders: mpsc::Sender<Order>,
    fence: Fence,
}

/// How a lock was lost. Nothing was written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The Lease names another holder.
    #[error("the lock was lost: another run has taken it over")]
    TakenOver,
    /// The Lease is gone, and the journal with it.
    #[error("the lock was lost: the Lease, which also holds the journal, was deleted while the rotation was running")]
    Deleted,
    /// It could not be renewed in time, so that another run may have taken it.
    #[error("the lock was lost: the Lease could not be renewed in time, and another run may have taken it over")]
    NotRenewed,
}

enum Order {
    Save(String, oneshot::Sender<Result<(), Lost>>),
    Release(End, oneshot::Sender<Result<(), Lost>>),
}

impl Held {
    /// The fence of this lock.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// How the lock was lost, if it was. Nothing gets it back.
    pub fn lost(&self) -> Option<Lost> {
        self.orders.is_closed().then(|| self.how_lost())
    }

    fn how_lost(&self) -> Lost {
        self.fence.renewed().err().unwrap_or(Lost::NotRenewed)
    }

    /// Writes the journal, by compare-and-swap. It renews the lock too.
    pub async fn save(&self, journal: String) -> Result<(), Lost> {
        self.order(|reply| Order::Save(journal, reply)).await
    }

    /// Gives the lock back.
    pub async fn release(self, end: End) -> Result<(), Lost> {
        self.order(|reply| Order::Release(end, reply)).await
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<Result<(), Lost>>) -> Order) -> Result<(), Lost> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| self.how_lost())?;
        answer.await.map_err(|_| self.how_lost())?
    }
}

/// The one writer of a Lease that we hold.
struct Keeper {
    lock: Lock,
    lease: Lease,
    fence: Fence,
}

impl Keeper {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        let mut renewal = tokio::time::interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renewal.tick().await;
        loop {
            let kept = tokio::select! {
                order = inbox.recv() => match order {
                    None => return,
                    Some(Order::Save(journal, reply)) => {
                        let kept = self.write(&json!({ "annotations": { JOURNAL: journal } }), true).await;
                        let _ = reply.send(kept);
                        kept
                    }
                    Some(Order::Release(end, reply)) => {
                        let released = self.release(end).await;
                        self.fence.set(Err(released.err().unwrap_or(Lost::NotRenewed)));
                        let _ = reply.send(released);
                        return;
                    }
                },
                _ = renewal.tick() => self.write(&json!({}), true).await,
            };
            if let Err(lost) = kept {
                self.fence.set(Err(lost));
                return;
            }
        }
    }

    /// Writes these metadata and renews (or gives up) the lock, by compare-and-swap. Tries again until the lock cannot
    /// be ours any more; a connection that has gone silent does not make it last longer.
    async fn write(&mut self, metadata: &serde_json::Value, hold: bool) -> Result<(), Lost> {
        // After a pause the fence is closed, and one try says whether anybody has taken the lock.
        let patience = self.fence.left().max(RENEWAL);
        tokio::time::timeout(patience, self.write_until_kept(metadata, hold))
            .await
            .unwrap_or(Err(Lost::NotRenewed))
    }

    async fn write_until_kept(&mut self, metadata: &serde_json::Value, hold: bool) -> Result<(), Lost> {
        let mut pause = Duration::from_millis(100);
        loop {
            let (sent, change) = (uptime_ms(), self.change(metadata, hold));
            let kept = match self.try_write(&change).await {
                Ok(lease) => {
                    self.lease = lease;
                    true
                }
                Err(error) if is_not_found(&error) => return Err(Lost::Deleted),
                // Either somebody took the lock, or somebody touched a label, or an answer to our own write was lost.
                Err(error) => {
                    tracing::debug!(%error, "the Lease could not be written");
                    self.is_there(&change, hold).await?
                }
            };
            if kept {
                self.fence.set(Ok(sent));
                return Ok(());
            }
            if !self.fence.is_open() {
                return Err(Lost::NotRenewed);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn change(&self, metadata: &serde_json::Value, hold: bool) -> serde_json::Value {
        let spec = if hold {
            json!({ "renewTime": MicroTime(self.lock.clock.now()) })
        } else {
            json!({ "holderIdentity": null, "acquireTime": null, "renewTime": null, "leaseDurationSeconds": null })
        };
        json!({ "metadata": metadata, "spec": spec })
    }

    async fn try_write(&self, change: &serde_json::Value) -> Result<Lease, kube::Error> {
        let mut change = change.clone();
        change["metadata"]["resourceVersion"] = json!(self.lease.metadata.resource_version);
        change["metadata"]["uid"] = json!(self.lease.metadata.uid);
        self.lock
            .api
            .patch(
                &self.lock.name,
                &PatchParams::apply(self.lock.manager),
                &Patch::Merge(change),
            )
            .await
    }

    /// Looks again. Whether this change is there already; the lock must be ours still, unless the change was to give it up.
    async fn is_there(&mut self, change: &serde_json::Value, hold: bool) -> Result<bool, Lost> {
        let lease = match self.lock.api.get_opt(&self.lock.name).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Err(Lost::Deleted),
            Err(_) => return Ok(false),
        };
        if lease.metadata.uid != self.lease.metadata.uid {
            return Err(Lost::Deleted);
        }
        self.lease = lease;
        let ours = Identity::of_this_process().to_string();
        let is_there = has(&self.lease, change);
        let is_ours = Record::of(&self.lease).holder.as_deref() == Some(ours.as_str());
        if is_ours || is_there && !hold {
            Ok(is_there)
        } else {
            Err(Lost::TakenOver)
        }
    }

    async fn release(&mut self, end: End) -> Result<(), Lost> {
        let notes = match end {
            End::Pending => json!({}),
            End::Nothing => json!({ JOURNAL: null }),
            End::Finished(result) => {
                json!({ JOURNAL: null, LAST_RUN: self.lock.clock.now(), LAST_RESULT: result })
            }
        };
        self.write(&json!({ "annotations": notes }), false).await?;
        let record = Record::of(&self.lease);
        if record.journal.is_none() && record.last_run.is_none() {
            // Nothing ever happened under this lock: leave no trace of it.
            let unchanged = Preconditions {
                uid: self.lease.metadata.uid.clone(),
                resource_version: self.lease.metadata.resource_version.clone(),
            };
            let params = DeleteParams::default().preconditions(unchanged);
            if let Err(error) = self.lock.api.delete(&self.lock.name, &params).await {
                tracing::debug!(%error, "an unused Lease stays");
            }
        }
        Ok(())
    }
}

/// Whether a change is in the Lease: what it sets is there, and what it takes away is not. Its `renewTime` is that of one try.
fn has(lease: &Lease, change: &serde_json::Value) -> bool {
    fn agrees(now: &serde_json::Value, wanted: &serde_json::Value) -> bool {
        match wanted {
            serde_json::Value::Object(wanted) => wanted.iter().all(|(key, wanted)| agrees(&now[key.as_str()], wanted)),
            wanted => now == wanted,
        }
    }
    serde_json::to_value(lease).is_ok_and(|now| agrees(&now, change))
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Milliseconds since boot, those of a suspended machine included: a laptop that slept must not believe its lock.
fn uptime_ms() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
