//! The state of a cluster and its registration tokens, read from the API servers and from the fake Rancher, without code of the
//! plugin.

mod expectations;

pub(crate) use expectations::{Scope, restored, rotated};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context as _, Result};
use e2e::RancherFixture;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use test_cluster::Report;

/// The prefix of the names of the agent's credential Secrets.
const CREDENTIALS: &str = "cattle-credentials-";

/// The annotation of the Lease that holds the journal.
const JOURNAL: &str = "kubectl-rotation.github.io/journal";

/// The observed state of a cluster.
#[derive(Debug)]
pub(crate) struct State {
    /// The registration tokens, temporary ones too: name and fingerprint of the value that Rancher uses.
    pub(crate) tokens: BTreeMap<String, String>,
    /// The temporary registration tokens, by their label.
    pub(crate) temporary: Vec<String>,
    /// Previous values and ends of grace periods in all places: `system/previousToken`, `system/status`.
    pub(crate) graces: BTreeSet<String>,
    /// The name of the Secret with the value of `system`, by Rancher's own formula.
    by_formula: String,
    /// The agent's Deployment.
    pub(crate) deployment: Rollout,
    /// The credential Secrets of the agent: name and fingerprint.
    pub(crate) credentials: BTreeMap<String, String>,
    /// The same Secrets: name and fingerprint of all their data.
    pub(crate) contents: BTreeMap<String, String>,
    /// The fingerprint that the last connected agent has recorded.
    pub(crate) connected: Option<String>,
    /// The agent's pods that have not ended: name and mounted Secret.
    pub(crate) pods: BTreeMap<String, String>,
    /// The Lease.
    pub(crate) lease: Option<Lock>,
    /// The view of Rancher.
    pub(crate) report: Report,
}

/// The relevant fields of the agent's Deployment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// The Secret in the volume.
    pub(crate) secret: String,
    /// The Secret in the variable `CATTLE_CREDENTIAL_NAME`, if it exists.
    pub(crate) variable: Option<String>,
    /// `minReadySeconds` and `progressDeadlineSeconds`.
    pub(crate) settings: (i32, i32),
    /// The whole specification.
    pub(crate) spec: Value,
}

impl fmt::Debug for Rollout {
    /// Omits the whole specification, which is only compared.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            secret,
            variable,
            settings,
            ..
        } = self;
        write!(f, "{secret}, variable {variable:?}, settings {settings:?}")
    }
}

/// The content of the Lease.
#[derive(Clone, Debug)]
pub(crate) struct Lock {
    pub(crate) holder: Option<String>,
    pub(crate) journal: Option<Value>,
    pub(crate) result: Option<String>,
}

impl Lock {
    /// A field of the journal: `phase`, `direction`.
    pub(crate) fn field(&self, key: &str) -> Option<&str> {
        self.journal.as_ref()?[key].as_str()
    }
}

/// The fingerprint of a token, as Rancher and the plugin show it.
pub(crate) fn fingerprint(token: &str) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(token);
    digest.iter().take(5).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

impl State {
    /// Observes both clusters and Rancher.
    pub(crate) async fn of(fixture: &RancherFixture) -> Result<Self> {
        let namespace = fixture.cluster.agent_namespace();
        let (management, downstream) = (fixture.management.client().await?, fixture.downstream.client().await?);
        let secrets = Api::<Secret>::namespaced(downstream.clone(), &namespace)
            .list(&ListParams::default())
            .await?;
        let pods = Api::<Pod>::namespaced(downstream.clone(), &namespace)
            .list(&ListParams::default().labels("app=cattle-cluster-agent"))
            .await?;
        let deployment = Api::<Deployment>::namespaced(downstream, &namespace)
            .get("cattle-cluster-agent")
            .await?;
        let lease = Api::<Lease>::namespaced(management.clone(), &fixture.cluster.id)
            .get_opt("kubectl-crt")
            .await?;
        let tokens = Tokens::read(management, &fixture.cluster.id).await?;
        let mut state = Self {
            tokens: tokens
                .values
                .iter()
                .map(|(name, value)| (name.clone(), fingerprint(value)))
                .collect(),
            by_formula: by_ranchers_formula(fixture, tokens.values.get("system")),
            temporary: tokens.temporary,
            graces: tokens.graces,
            deployment: Rollout::of(&deployment)?,
            credentials: BTreeMap::new(),
            contents: BTreeMap::new(),
            connected: None,
            pods: pods
                .iter()
                .filter(|pod| !has_ended(pod))
                .map(|pod| (pod.metadata.name.clone().unwrap_or_default(), mounted(pod)))
                .collect(),
            lease: lease.as_ref().map(Lock::of),
            report: fixture.rancher.report(&fixture.cluster).await?,
        };
        for secret in &secrets {
            let (name, data) = (
                secret.metadata.name.clone().unwrap_or_default(),
                secret.data.clone().unwrap_or_default(),
            );
            if name.starts_with(CREDENTIALS) {
                let all: Vec<_> = data.keys().map(|key| (key, text(&data, key))).collect();
                state.contents.insert(name.clone(), fingerprint(&format!("{all:?}")));
                state.credentials.insert(name, fingerprint(&text(&data, "token")));
            } else if name == "stv-aggregation" {
                state.connected = Some(fingerprint(&text(&data, "CATTLE_TOKEN")));
            }
        }
        Ok(state)
    }

    /// The fingerprint of `system`.
    pub(crate) fn system(&self) -> &str {
        self.tokens.get("system").map_or("", String::as_str)
    }

    /// The fingerprint in the Secret that the agent's Deployment names.
    pub(crate) fn named(&self) -> &str {
        self.credentials.get(&self.deployment.secret).map_or("", String::as_str)
    }

    /// The phase in the journal, if there is one.
    pub(crate) fn phase(&self) -> Option<&str> {
        self.lease.as_ref()?.field("phase")
    }

    /// The fingerprint of the new token, if the journal has one.
    pub(crate) fn new_token(&self) -> Option<&str> {
        self.lease.as_ref()?.journal.as_ref()?["record"]["new"].as_str()
    }
}

/// `systemtemplate/import.go` since Rancher 2.11.1: ten digits of SHA-256 over URL, token and cluster, joined by dots.
fn by_ranchers_formula(fixture: &RancherFixture, token: Option<&String>) -> String {
    let (url, token) = (fixture.rancher.url(), token.map_or("", String::as_str));
    format!(
        "{CREDENTIALS}{}",
        fingerprint(&format!("{url}.{token}.{}", fixture.cluster.id))
    )
}

/// The registration tokens of a cluster, with either token storage.
#[derive(Default)]
struct Tokens {
    values: BTreeMap<String, String>,
    temporary: Vec<String>,
    graces: BTreeSet<String>,
}

impl Tokens {
    async fn read(client: kube::Client, cluster: &str) -> Result<Self> {
        let kind = GroupVersionKind::gvk("management.cattle.io", "v3", "ClusterRegistrationToken");
        let objects = Api::<DynamicObject>::namespaced_with(client.clone(), cluster, &ApiResource::from_gvk(&kind))
            .list(&ListParams::default())
            .await?;
        let secrets = Api::<Secret>::namespaced(client, cluster)
            .list(&ListParams::default())
            .await?;
        let mut all = Self::default();
        for object in &objects {
            let name = object.metadata.name.clone().unwrap_or_default();
            let labels = object.metadata.labels.clone().unwrap_or_default();
            if labels.contains_key("kubectl-rotation.github.io/temporary") {
                all.temporary.push(name.clone());
            }
            let status = &object.data["status"];
            if !status["gracePeriodExpiresAt"].is_null() {
                all.graces.insert(format!("{name}/status"));
            }
            if let Some(token) = status["token"].as_str().filter(|token| !token.is_empty()) {
                all.values.insert(name, token.to_owned());
            }
        }
        for secret in &secrets {
            let name = secret.metadata.name.clone().unwrap_or_default();
            let Some(token) = name.strip_prefix("crt-token-") else {
                continue;
            };
            let data = secret.data.clone().unwrap_or_default();
            for key in ["previousToken", "gracePeriodExpiresAt"] {
                if data.contains_key(key) {
                    all.graces.insert(format!("{token}/{key}"));
                }
            }
            all.values.insert(token.to_owned(), text(&data, "token"));
        }
        Ok(all)
    }
}

impl Rollout {
    fn of(deployment: &Deployment) -> Result<Self> {
        let spec = deployment.spec.as_ref().context("a Deployment without spec")?;
        let pod = spec.template.spec.as_ref().context("a template without spec")?;
        let variables = pod
            .containers
            .iter()
            .flat_map(|container| container.env.iter().flatten());
        let variable = variables
            .filter(|variable| variable.name == "CATTLE_CREDENTIAL_NAME")
            .find_map(|variable| variable.value.clone());
        Ok(Self {
            secret: secret_of(pod),
            variable,
            settings: (
                spec.min_ready_seconds.unwrap_or(0),
                spec.progress_deadline_seconds.unwrap_or(600),
            ),
            spec: serde_json::to_value(spec)?,
        })
    }
}

impl Lock {
    fn of(lease: &Lease) -> Self {
        let annotations = lease.metadata.annotations.clone().unwrap_or_default();
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            journal: annotations
                .get(JOURNAL)
                .and_then(|text| serde_json::from_str(text).ok()),
            result: annotations.get("kubectl-rotation.github.io/last-result").cloned(),
        }
    }
}

/// Kubernetes keeps the object of a pod for a moment after its containers have ended.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn mounted(pod: &Pod) -> String {
    pod.spec.as_ref().map(secret_of).unwrap_or_default()
}

fn secret_of(pod: &k8s_openapi::api::core::v1::PodSpec) -> String {
    let volumes = pod.volumes.iter().flatten();
    volumes
        .filter(|volume| volume.name == "cattle-credentials")
        .find_map(|volume| volume.secret.as_ref()?.secret_name.clone())
        .unwrap_or_default()
}

fn text(data: &BTreeMap<String, ByteString>, key: &str) -> String {
    data.get(key)
        .map(|value| String::from_utf8_lossy(&value.0).into_owned())
        .unwrap_or_default()
}
