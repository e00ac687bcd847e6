//! A namespace with an issuer and a consumer that behave as in the model.
//!
//! Every 100 ms the issuer reads its list, and the consumer loads its badge and calls. The fixture counts how often the issuer
//! rejects the badge that the consumer uses.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use client::secret::Fingerprint;
use e2e::until;
use engine::lock::{KIND_LABEL, LeaseRecord};
use engine::rotation::Rotation as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tempfile::TempDir;
use test_cluster::{ControlPlane, FaultProxy, Kubeconfig, TestEnvironment, TokenStorage, Upstream};
use tokio::task::AbortHandle;

use crate::badge::{Badge, Worn};
use crate::runner::EngineRun;

pub(crate) const ISSUER: &str = "issuer";

pub(crate) const CONSUMER: &str = "consumer";

pub(crate) const CALLS: &str = "calls";

pub(crate) const LEASE: &str = "badge";

pub(crate) const MARK: &str = "mark";

pub(crate) const CLOSED: &str = "closed";

/// Long enough for a busy machine. Nothing waits this long unless a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

const TICK: Duration = Duration::from_millis(100);

/// How the consumer behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Consumer {
    Calls,
    /// It keeps the badge that it has loaded, and does not call.
    Silent,
}

pub(crate) struct Fixture {
    pub(crate) namespace: String,
    pub(crate) start: Fingerprint,
    client: Client,
    kubeconfig: PathBuf,
    upstream: Upstream,
    dir: TempDir,
    consumer: Arc<AtomicU8>,
    locked_out: Arc<AtomicUsize>,
    system: AbortHandle,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.system.abort();
    }
}

impl Fixture {
    /// In the shared control plane.
    pub(crate) async fn open() -> Result<Self> {
        Self::open_in(
            TestEnvironment::shared()
                .await?
                .management(TokenStorage::Secret)
                .await?,
        )
        .await
    }

    pub(crate) async fn open_in(plane: &ControlPlane) -> Result<Self> {
        let client = plane.client().await?;
        let namespace = plane.namespace("engine").await?;
        let value = format!("the first badge of {namespace}");
        let start = Fingerprint::of(&value);
        let secret = |name: &str, key: &str| -> Result<Secret> {
            Ok(serde_json::from_value(json!({
                "metadata": { "name": name }, "stringData": { key: value },
            }))?)
        };
        let secrets = Api::namespaced(client.clone(), &namespace);
        let params = PostParams::default();
        secrets.create(&params, &secret(ISSUER, &start.to_string())?).await?;
        secrets.create(&params, &secret(CONSUMER, "badge")?).await?;
        let calls: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": CALLS } }))?;
        Api::namespaced(client.clone(), &namespace)
            .create(&params, &calls)
            .await?;
        let (consumer, locked_out) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicUsize::new(0)));
        let system = BadgeSystem {
            secrets,
            calls: Api::namespaced(client.clone(), &namespace),
            consumer: Arc::clone(&consumer),
            locked_out: Arc::clone(&locked_out),
        };
        let fixture = Self {
            namespace,
            start,
            client,
            kubeconfig: plane.kubeconfig().to_owned(),
            upstream: Upstream::admin_of(plane),
            dir: tempfile::tempdir()?,
            consumer,
            locked_out,
            system: tokio::spawn(system.run()).abort_handle(),
        };
        let calls: Api<ConfigMap> = fixture.api();
        until("the consumer's first call", async || {
            Ok(calls
                .get(CALLS)
                .await?
                .data
                .and_then(|data| data.get("called").cloned()))
        })
        .await?;
        Ok(fixture)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn leases(&self) -> Api<Lease> {
        self.api()
    }

    /// A new proxy, and a run that goes through it.
    pub(crate) async fn run(&self) -> Result<(FaultProxy, EngineRun)> {
        let proxy = FaultProxy::start([self.upstream.clone()]).await?;
        let kubeconfig = proxy.redirect(Kubeconfig::read(&self.kubeconfig)?);
        let port = proxy.url().rsplit(':').next().unwrap_or_default().to_owned();
        let run = EngineRun {
            kubeconfig: kubeconfig.write(self.dir.path().join(format!("kubeconfig-{port}")))?,
            report: self.dir.path().join(format!("report-{port}")),
            namespace: self.namespace.clone(),
            rollback: false,
            by_force: false,
            patience: PATIENCE,
            proof: PATIENCE,
            clock_is_off_by: 0,
        };
        Ok((proxy, run))
    }

    pub(crate) fn consumer(&self, consumer: Consumer) {
        self.consumer.store(consumer as u8, Ordering::Relaxed);
    }

    pub(crate) async fn issued(&self) -> Result<BTreeSet<Fingerprint>> {
        Ok(issued(&self.api::<Secret>().get(ISSUER).await?))
    }

    pub(crate) async fn worn(&self) -> Result<Fingerprint> {
        Ok(worn(&self.api::<Secret>().get(CONSUMER).await?)
            .context("no badge")?
            .badge)
    }

    /// An edit with kubectl.
    pub(crate) async fn edit(&self, secret: &str, patch: serde_json::Value) -> Result<()> {
        let secrets: Api<Secret> = self.api();
        secrets
            .patch(secret, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// An admin takes a badge off the issuer's list.
    pub(crate) async fn revoke_by_hand(&self, badge: Fingerprint) -> Result<()> {
        self.edit(ISSUER, json!({ "data": { badge.to_string(): null } })).await
    }

    /// An admin hands a badge to the consumer.
    pub(crate) async fn hand_by_hand(&self, badge: Fingerprint) -> Result<()> {
        let issuer = self.api::<Secret>().get(ISSUER).await?;
        let value = issuer.data.and_then(|data| data.get(&badge.to_string()).cloned());
        let value = value.context("no such badge")?;
        self.edit(CONSUMER, json!({ "data": { "badge": value } })).await
    }

    pub(crate) async fn record(&self) -> Result<Option<LeaseRecord>> {
        Ok(self.leases().get_opt(LEASE).await?.as_ref().map(LeaseRecord::of))
    }

    pub(crate) async fn journal(&self) -> Result<Option<String>> {
        Ok(self.record().await?.and_then(|record| record.journal))
    }

    /// Waits until the journal names this phase.
    pub(crate) async fn reaches(&self, phase: &str) -> Result<()> {
        let text = format!(r#""phase":"{phase}""#);
        until(&format!("phase {phase}"), async || {
            Ok(self
                .journal()
                .await?
                .filter(|journal| journal.contains(&text))
                .map(drop))
        })
        .await
    }

    pub(crate) async fn delete_lease(&self) -> Result<()> {
        self.leases().delete(LEASE, &DeleteParams::default()).await?;
        Ok(())
    }

    /// A Lease as another process has left it.
    pub(crate) async fn plant_lease(&self, lease: serde_json::Value) -> Result<()> {
        let mut lease = lease;
        lease["metadata"]["name"] = LEASE.into();
        self.leases()
            .create(&PostParams::default(), &serde_json::from_value(lease)?)
            .await?;
        Ok(())
    }

    fn had_access_throughout(&self) -> Result<()> {
        let times = self.locked_out.load(Ordering::Relaxed);
        ensure!(times == 0, "the issuer rejected the consumer's badge {times} times");
        Ok(())
    }

    /// The only badge is a new one, and the consumer wears it. The Lease records the run.
    pub(crate) async fn expect_rotated(&self) -> Result<()> {
        let (issued, worn) = (self.issued().await?, self.worn().await?);
        ensure!(
            issued == [worn].into() && worn != self.start,
            "issued {issued:?}, worn {worn}"
        );
        let lease = self.leases().get(LEASE).await?;
        let record = expect_at_rest(&lease)?;
        ensure!(record.last_result.as_deref() == Some("rotated"), "{record:?}");
        self.had_access_throughout()
    }

    /// The original badge is the only one. The Lease records the run, or does not exist.
    pub(crate) async fn expect_restored(&self) -> Result<()> {
        let (issued, worn) = (self.issued().await?, self.worn().await?);
        ensure!(
            issued == [worn].into() && worn == self.start,
            "issued {issued:?}, worn {worn}"
        );
        if let Some(lease) = self.leases().get_opt(LEASE).await? {
            let record = expect_at_rest(&lease)?;
            let result = record.last_result.clone().unwrap_or_default();
            ensure!(result.starts_with("rolled back: "), "{record:?}");
        }
        self.had_access_throughout()
    }
}

/// No process holds it, no rotation is in progress, and it says how the last run ended.
fn expect_at_rest(lease: &Lease) -> Result<LeaseRecord> {
    let record = LeaseRecord::of(lease);
    ensure!(record.holder.is_none() && record.journal.is_none(), "{record:?}");
    ensure!(
        lease.labels().get(KIND_LABEL).map(String::as_str) == Some(Badge::KIND),
        "{lease:?}"
    );
    let ago = Timestamp::now().duration_since(record.last_run.context("no last run")?);
    ensure!(ago.as_secs().abs() < PATIENCE.as_secs() as i64, "last run {ago} ago");
    Ok(record)
}

pub(crate) fn issued(issuer: &Secret) -> BTreeSet<Fingerprint> {
    let names = issuer.data.iter().flatten();
    names.filter_map(|(name, _)| name.parse().ok()).collect()
}

pub(crate) fn worn(consumer: &Secret) -> Option<Worn> {
    let badge = consumer.data.as_ref()?.get("badge")?;
    Some(Worn {
        badge: Fingerprint::of(std::str::from_utf8(&badge.0).ok()?),
        mark: consumer.annotations().get(MARK).cloned(),
    })
}

/// The issuer and the consumer.
struct BadgeSystem {
    secrets: Api<Secret>,
    calls: Api<ConfigMap>,
    consumer: Arc<AtomicU8>,
    locked_out: Arc<AtomicUsize>,
}

impl BadgeSystem {
    async fn run(self) {
        let mut loaded: Option<Worn> = None;
        let mut written = json!(null);
        loop {
            // The API server may be unreachable.
            if let Ok(both) = self.secrets.list(&ListParams::default()).await {
                let find = |name: &str| both.items.iter().find(|secret| secret.name_any() == name);
                let accepted = find(ISSUER).map(issued).unwrap_or_default();
                let is_accepted = |worn: &Worn| accepted.contains(&worn.badge);
                if !loaded.as_ref().is_none_or(is_accepted) {
                    self.locked_out.fetch_add(1, Ordering::Relaxed);
                }
                let mut data = json!({ "accepted": serde_json::to_string(&accepted).unwrap_or_default() });
                if self.consumer.load(Ordering::Relaxed) == Consumer::Calls as u8 {
                    loaded = find(CONSUMER).and_then(worn);
                    if let Some(worn) = loaded.as_ref().filter(|worn| is_accepted(worn)) {
                        data["called"] = serde_json::to_string(worn).unwrap_or_default().into();
                    }
                }
                if data != written {
                    let patch = Patch::Merge(json!({ "data": data }));
                    let done = self.calls.patch(CALLS, &PatchParams::default(), &patch).await;
                    written = if done.is_ok() { data } else { json!(null) };
                }
            }
            tokio::time::sleep(TICK).await;
        }
    }
}
