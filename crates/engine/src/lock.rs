//! One Lease per target: it is the lock, and it keeps the journal.
//!
//! While this process holds the lock, one task, the renewer, is the only writer of the Lease. It renews the lock every
//! 10 s and writes the journal by compare-and-swap. The lock expires 30 s after the last renewal. Another process
//! acquires it
//! * at once, if the holder is a process on the same host that is known to have exited;
//! * at once, with `--force=lock`;
//! * otherwise after it has observed the Lease unchanged for 30 s. The times in the Lease are never compared with the
//!   local clock.
//!
//! Every write checks the [`Fence`] right before it is sent. The fence closes 20 s after the last renewal. The time
//! during which the machine was suspended counts, so a process that was paused finds its fence closed.
//!
//! An outage of the API server is not a lost lock: no other process can acquire it meanwhile. The fence closes, the renewer
//! keeps trying, and the fence opens again with the first renewal that is accepted. A renewal is conditional on the
//! resourceVersion of this process's last write, so it is rejected if another process has taken over.

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

use crate::identity::HolderIdentity;

/// How long the lock is valid after a renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(30);
/// How often the lock is renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// How long after a renewal a write may still be sent. The remaining third of the lease duration is for writes in
/// flight.
const RENEW_DEADLINE: Duration = Duration::from_secs(20);
/// How often a Lease that another process holds is read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The label of every Lease of a rotation. Its value is the kind ("crt").
pub const KIND_LABEL: &str = "kubectl-rotation.github.io/kind";
const JOURNAL: &str = "kubectl-rotation.github.io/journal";
const LAST_RUN: &str = "kubectl-rotation.github.io/last-run";
const LAST_RESULT: &str = "kubectl-rotation.github.io/last-result";

/// The lock of one target, and the clock that its times are written by.
#[derive(Clone)]
pub struct Lock {
    api: Api<Lease>,
    name: String,
    kind: &'static str,
    manager: &'static str,
    clock: ServerClock,
}

/// The contents of a Lease.
#[derive(Clone, Debug, Default)]
pub struct LeaseRecord {
    /// The kind of the rotation that acquired the lock last.
    pub kind: Option<String>,
    /// The holder of the lock; `None` if it is free.
    pub holder: Option<String>,
    /// When the holder last renewed the lock.
    pub renewed: Option<Timestamp>,
    /// The text of the journal; `None` if no rotation is in progress.
    pub journal: Option<String>,
    /// When the last rotation ended.
    pub last_run: Option<Timestamp>,
    /// The result of the last rotation, in words.
    pub last_result: Option<String>,
}

impl LeaseRecord {
    /// Reads a Lease. Annotations that cannot be parsed count as absent.
    pub fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let annotation = |key: &str| {
            lease
                .metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(key))
                .cloned()
        };
        let labels = lease.metadata.labels.as_ref();
        Self {
            kind: labels.and_then(|labels| labels.get(KIND_LABEL)).cloned(),
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            renewed: spec.renew_time.map(|MicroTime(at)| at),
            journal: annotation(JOURNAL),
            last_run: annotation(LAST_RUN).and_then(|at| at.parse().ok()),
            last_result: annotation(LAST_RESULT),
        }
    }

    /// The holder and the time since its last renewal: "process 4711 on laptop, renewed 4s ago".
    pub fn describe_holder(&self, now: Timestamp) -> Option<String> {
        let holder = self.holder.as_deref()?;
        let process = holder
            .parse::<HolderIdentity>()
            .map_or_else(|_| holder.to_owned(), |identity| identity.describe());
        let ago = self.renewed.map(|at| now.duration_since(at).as_secs().max(0));
        Some(ago.map_or_else(|| process.clone(), |ago| format!("{process}, renewed {ago}s ago")))
    }

    /// Whether this process is the holder: a request of it was not answered, or it acquired the lock through another API server.
    pub fn is_of_this_process(&self) -> bool {
        self.holder.as_deref() == Some(HolderIdentity::of_this_process().to_string().as_str())
    }

    /// Whether the holder is known to have exited without releasing the lock.
    pub fn holder_has_exited(&self) -> bool {
        self.holder
            .as_deref()
            .and_then(|holder| holder.parse::<HolderIdentity>().ok())
            .is_some_and(|holder| holder.has_exited())
    }
}

/// Why the lock could not be acquired.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// Another process holds the lock. The text describes it.
    #[error("held by {0}")]
    Held(String),
    /// A request to the API server failed.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// What a release of the lock does to the journal.
#[derive(Clone, Debug)]
pub enum Release {
    /// Keeps the journal, so that the rotation can be resumed.
    KeepJournal,
    /// Removes the journal. A Lease that has recorded no run is deleted.
    RemoveJournal,
    /// Removes the journal and records this result of the run.
    Finish(String),
}

impl Lock {
    /// The lock of one target. `clock` must be the clock of the client that `api` uses.
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

    /// Reads the Lease without acquiring the lock.
    pub async fn read(&self) -> Result<LeaseRecord, kube::Error> {
        Ok(self
            .api
            .get_opt(&self.name)
            .await?
            .as_ref()
            .map(LeaseRecord::of)
            .unwrap_or_default())
    }

    /// Deletes the Lease of a target that is gone for good, and returns whether it did. A Lease that a process holds or that has a
    /// journal stays, and so does one of another kind.
    pub async fn delete_unused(&self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            return Ok(false);
        };
        let record = LeaseRecord::of(&lease);
        let is_held = record.holder.is_some() && !record.holder_has_exited();
        let labels = lease.metadata.labels.as_ref();
        let is_ours = labels.and_then(|labels| labels.get(KIND_LABEL)).map(String::as_str) == Some(self.kind);
        if is_held || record.journal.is_some() || !is_ours {
            return Ok(false);
        }
        match self.delete(&lease).await {
            Ok(()) => Ok(true),
            // Another process has acquired the lock, or deleted the Lease.
            Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes the Lease, unless it has changed.
    async fn delete(&self, lease: &Lease) -> Result<(), kube::Error> {
        let preconditions = Preconditions {
            uid: lease.metadata.uid.clone(),
            resource_version: lease.metadata.resource_version.clone(),
        };
        let params = DeleteParams::default().preconditions(preconditions);
        self.api.delete(&self.name, &params).await.map(drop)
    }

    /// Acquires the lock, and returns the contents of the Lease at that time.
    ///
    /// `on_wait` is called once with the holder, if the Lease has to be observed before the lock can be acquired.
    ///
    /// # Errors
    /// [`AcquireError::Held`] if the holder renews the lock while the Lease is observed.
    pub async fn acquire(
        &self,
        by_force: bool,
        on_wait: impl FnOnce(&str),
    ) -> Result<(LockGuard, LeaseRecord), AcquireError> {
        let mut on_wait = Some(on_wait);
        let mut first_observed: Option<(LeaseRecord, u64)> = None;
        let mut unanswered = None;
        loop {
            let Some(lease) = self.api.get_opt(&self.name).await? else {
                let sent = uptime_ms();
                match self.create().await {
                    Ok(lease) => return Ok(self.acquired(lease, sent)),
                    Err(error) if is_conflict(&error) => continue,
                    // The Lease may have been created all the same. The next read shows it.
                    Err(error) if !matches!(error, kube::Error::Api(_)) && unanswered.is_none() => {
                        tracing::debug!(%error, "the creation of the Lease was not answered");
                        unanswered = Some(sent);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            let record = LeaseRecord::of(&lease);
            if let Some(sent) = unanswered
                && record.is_of_this_process()
            {
                return Ok(self.acquired(lease, sent));
            }
            let free = record.holder.is_none() || record.holder_has_exited() || by_force;
            let expired = match &first_observed {
                Some((first, _)) if first.holder != record.holder || first.renewed != record.renewed => {
                    return Err(AcquireError::Held(self.describe_active_holder(first, &record)));
                }
                Some((_, since)) => uptime_ms().saturating_sub(*since) >= LEASE_DURATION.as_millis() as u64,
                None => false,
            };
            if free || expired {
                let sent = uptime_ms();
                match self.take_over(&lease).await {
                    Ok(lease) => return Ok(self.acquired(lease, sent)),
                    // Another process has acquired the lock, or deleted the Lease after a run without changes.
                    Err(error) if is_conflict(&error) || is_not_found(&error) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            if first_observed.is_none() {
                if let Some(on_wait) = on_wait.take() {
                    on_wait(&record.describe_holder(self.clock.now()).unwrap_or_default());
                }
                first_observed = Some((record, uptime_ms()));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The holder that has changed the Lease while it was observed. One that has released the lock counts too: its run
    /// may have changed what the user saw before starting this one.
    fn describe_active_holder(&self, first: &LeaseRecord, last: &LeaseRecord) -> String {
        let now = self.clock.now();
        last.describe_holder(now).unwrap_or_else(|| {
            let released = first.describe_holder(now).unwrap_or_default();
            format!("{released}, and released since")
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
                holder_identity: Some(HolderIdentity::of_this_process().to_string()),
                lease_duration_seconds: Some(LEASE_DURATION.as_secs() as i32),
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

    async fn take_over(&self, lease: &Lease) -> Result<Lease, kube::Error> {
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
                "holderIdentity": HolderIdentity::of_this_process().to_string(),
                "leaseDurationSeconds": LEASE_DURATION.as_secs(),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions.saturating_add(1),
            },
        });
        self.api
            .patch(&self.name, &PatchParams::apply(self.manager), &Patch::Merge(patch))
            .await
    }

    /// Starts the renewer. The lock is valid from `sent`, the uptime at which the request was sent: the process may be
    /// paused before it receives the response.
    fn acquired(&self, lease: Lease, sent: u64) -> (LockGuard, LeaseRecord) {
        let record = LeaseRecord::of(&lease);
        let fence = Fence {
            renewed: Arc::new(Mutex::new(Ok(sent))),
        };
        let (commands, received) = mpsc::channel(4);
        let renewer = Renewer {
            lock: self.clone(),
            lease,
            fence: fence.clone(),
        };
        tokio::spawn(renewer.run(received));
        (LockGuard { commands, fence }, record)
    }
}

/// Whether a write may still be sent under the lock.
#[derive(Clone, Debug)]
pub struct Fence {
    /// Milliseconds of uptime at the last renewal, or how the lock was lost.
    renewed: Arc<Mutex<Result<u64, LockLost>>>,
}

impl Fence {
    /// Whether the lock was renewed recently enough for another write.
    pub fn is_open(&self) -> bool {
        self.renewed()
            .is_ok_and(|at| uptime_ms().saturating_sub(at) < RENEW_DEADLINE.as_millis() as u64)
    }

    fn renewed(&self) -> Result<u64, LockLost> {
        self.renewed.lock().map_or(Err(LockLost::NotRenewed), |guard| *guard)
    }

    /// Returns when it is closed.
    pub(crate) async fn closed(&self) {
        while self.is_open() {
            tokio::time::sleep(self.remaining()).await;
        }
    }

    /// The time until it closes, unless the lock is renewed.
    fn remaining(&self) -> Duration {
        let age = self
            .renewed()
            .map(|at| Duration::from_millis(uptime_ms().saturating_sub(at)));
        age.map_or(Duration::ZERO, |age| RENEW_DEADLINE.saturating_sub(age))
    }

    fn set(&self, renewed: Result<u64, LockLost>) {
        if let Ok(mut guard) = self.renewed.lock() {
            *guard = renewed;
        }
    }
}

/// The lock, held by this process until it is released or lost.
pub struct LockGuard {
    commands: mpsc::Sender<Command>,
    fence: Fence,
}

/// How the lock was lost. No write was sent afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockLost {
    /// The Lease names another holder.
    #[error("the lock was lost: another run has taken it over")]
    TakenOver,
    /// The Lease, and with it the journal, was deleted.
    #[error("the lock was lost: the Lease, which also holds the journal, was deleted while the rotation was running")]
    Deleted,
    /// The lock could not be renewed in time.
    #[error("the lock was lost: the Lease could not be renewed in time, and another run may have taken it over")]
    NotRenewed,
}

type Commands = mpsc::Receiver<Command>;

/// A write to the Lease that the renewer carries out.
enum Command {
    Save(String, oneshot::Sender<Result<(), LockLost>>),
    Release(Release, oneshot::Sender<Result<(), LockLost>>),
}

impl LockGuard {
    /// The fence of this lock.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// How the lock was lost, if it was.
    pub fn lost(&self) -> Option<LockLost> {
        self.commands.is_closed().then(|| self.loss())
    }

    fn loss(&self) -> LockLost {
        self.fence.renewed().err().unwrap_or(LockLost::NotRenewed)
    }

    /// Writes the journal by compare-and-swap, and renews the lock. It waits while the API server does not answer.
    pub async fn save(&self, journal: String) -> Result<(), LockLost> {
        self.send(|reply| Command::Save(journal, reply)).await
    }

    /// Releases the lock, unless the API server does not answer.
    pub async fn release(self, release: Release) -> Result<(), LockLost> {
        let limit = self.fence.remaining().max(RENEW_INTERVAL);
        tokio::time::timeout(limit, self.send(|reply| Command::Release(release, reply)))
            .await
            .unwrap_or(Err(LockLost::NotRenewed))
    }

    async fn send(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), LockLost>>) -> Command,
    ) -> Result<(), LockLost> {
        let (reply, result) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| self.loss())?;
        result.await.map_err(|_| self.loss())?
    }
}

/// The only writer of the Lease while this process holds the lock.
struct Renewer {
    lock: Lock,
    lease: Lease,
    fence: Fence,
}

impl Renewer {
    async fn run(mut self, mut commands: Commands) {
        let mut renewal = tokio::time::interval(RENEW_INTERVAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renewal.tick().await;
        loop {
            let written = tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::Save(journal, reply)) => {
                        let metadata = json!({ "annotations": { JOURNAL: journal } });
                        let written = self.write(&metadata, true, &commands).await;
                        let _ = reply.send(written);
                        written
                    }
                    Some(Command::Release(release, reply)) => {
                        let released = self.release(release, &commands).await;
                        self.fence.set(Err(released.err().unwrap_or(LockLost::NotRenewed)));
                        let _ = reply.send(released);
                        return;
                    }
                },
                _ = renewal.tick() => self.write(&json!({}), true, &commands).await,
            };
            if let Err(lost) = written {
                self.fence.set(Err(lost));
                return;
            }
        }
    }

    /// Writes these metadata by compare-and-swap, and renews or releases the lock. It retries until the API server
    /// answers, another process has taken over, or no one waits for it any more.
    async fn write(&mut self, metadata: &serde_json::Value, hold: bool, commands: &Commands) -> Result<(), LockLost> {
        let mut pause = Duration::from_millis(100);
        loop {
            let (sent, change) = (uptime_ms(), self.change(metadata, hold));
            // The connection may hang.
            let written = tokio::time::timeout(RENEW_INTERVAL, self.try_write(&change, hold)).await;
            if written.unwrap_or(Ok(false))? {
                self.fence.set(Ok(sent));
                return Ok(());
            }
            if commands.is_closed() {
                return Err(LockLost::NotRenewed);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Whether the Lease contains the change. If not, this process still holds the lock as far as is known.
    async fn try_write(&mut self, change: &serde_json::Value, hold: bool) -> Result<bool, LockLost> {
        match self.patch(change).await {
            Ok(lease) => {
                self.lease = lease;
                Ok(true)
            }
            Err(error) if is_not_found(&error) => Err(LockLost::Deleted),
            // The lock was taken over, another writer changed the Lease, or the response to an earlier attempt was lost.
            Err(error) => {
                tracing::debug!(%error, "the Lease could not be written");
                self.was_written(change, hold).await
            }
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

    async fn patch(&self, change: &serde_json::Value) -> Result<Lease, kube::Error> {
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

    /// Reads the Lease, and returns whether it contains the change. This process must still hold the lock, unless the
    /// change was its release.
    async fn was_written(&mut self, change: &serde_json::Value, hold: bool) -> Result<bool, LockLost> {
        let lease = match self.lock.api.get_opt(&self.lock.name).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Err(LockLost::Deleted),
            Err(_) => return Ok(false),
        };
        if lease.metadata.uid != self.lease.metadata.uid {
            return Err(LockLost::Deleted);
        }
        self.lease = lease;
        let written = contains(&self.lease, change);
        let held = LeaseRecord::of(&self.lease).is_of_this_process();
        if held || written && !hold {
            Ok(written)
        } else {
            Err(LockLost::TakenOver)
        }
    }

    async fn release(&mut self, release: Release, commands: &Commands) -> Result<(), LockLost> {
        let annotations = match release {
            Release::KeepJournal => json!({}),
            Release::RemoveJournal => json!({ JOURNAL: null }),
            Release::Finish(result) => {
                json!({ JOURNAL: null, LAST_RUN: self.lock.clock.now(), LAST_RESULT: result })
            }
        };
        self.write(&json!({ "annotations": annotations }), false, commands)
            .await?;
        let record = LeaseRecord::of(&self.lease);
        if record.journal.is_none()
            && record.last_run.is_none()
            && let Err(error) = self.lock.delete(&self.lease).await
        {
            tracing::debug!(%error, "the unused Lease could not be deleted");
        }
        Ok(())
    }
}

/// Whether the Lease contains the change: what it sets is set, and what it removes is absent.
fn contains(lease: &Lease, change: &serde_json::Value) -> bool {
    fn matches(actual: &serde_json::Value, expected: &serde_json::Value) -> bool {
        match expected {
            serde_json::Value::Object(expected) => expected
                .iter()
                .all(|(key, expected)| matches(&actual[key.as_str()], expected)),
            expected => actual == expected,
        }
    }
    serde_json::to_value(lease).is_ok_and(|lease| matches(&lease, change))
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Milliseconds since boot, including the time during which the machine was suspended.
fn uptime_ms() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
