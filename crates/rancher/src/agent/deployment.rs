//! The agent's Deployment: from which Secret its pods read the token, its rollout settings, and the patches of both.

use std::collections::BTreeMap;

use client::request::{self, Merge, Metadata, Resource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{NAME, NAMESPACE};
use crate::error::{Error, Result};
use crate::object::{Observed, Write};
use crate::token::Change;

const DEPLOYMENT: Resource = Resource::new("Deployment", "apps/v1", "deployments");

/// The volume that holds the token.
const VOLUME: &str = "cattle-credentials";
/// The variable with the Secret's name (since Rancher 2.9.9, 2.10.5, 2.11.1): the agent keeps that Secret when it deletes old
/// ones.
const VARIABLE: &str = "CATTLE_CREDENTIAL_NAME";
/// The annotation that `kubectl rollout restart` sets.
pub(super) const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// The annotation in which a client-side apply keeps what it has applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The default of Kubernetes.
const PROGRESS_DEADLINE: i32 = 600;

/// The agent's Deployment, `cattle-cluster-agent`.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Name, uid and version of the object.
    pub object: Observed,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The number of changes of its spec.
    pub generation: i64,
    /// The last change that the Deployment controller has observed.
    pub observed_generation: i64,
    /// The desired number of pods.
    pub replicas: i32,
    /// Its rollouts are paused.
    pub paused: bool,
    /// How old pods are replaced.
    pub strategy: Strategy,
    /// The Secret that the volume `cattle-credentials` names.
    pub volume_secret: Option<String>,
    /// The containers with the variable `CATTLE_CREDENTIAL_NAME`; none before Rancher 2.9.9, 2.10.5, 2.11.1.
    pub variables: Vec<CredentialVariable>,
    /// For how long a new pod must be ready before an old one is removed.
    pub rollout: RolloutSettings,
    /// Pod template annotation `kubectl.kubernetes.io/restartedAt`.
    pub restarted_at: Option<String>,
    /// `CATTLE_SERVER`: where the agent connects to.
    pub server_url: Option<String>,
    /// `CATTLE_CA_CHECKSUM`: the agent rejects a Rancher whose `cacerts` has another checksum. Empty: not checked.
    pub ca_checksum: Option<String>,
    /// `CATTLE_FEATURES` contains `multi-cluster-management-agent=true`. Without it (as in the import manifest) the agent opens
    /// only one of its two tunnels, and Rancher reports `Connected=False` although requests through its proxy succeed (seen on
    /// Rancher 2.15.0).
    pub opens_both_tunnels: bool,
    /// Pods of any template.
    pub status_replicas: i32,
    /// Pods of the current template.
    pub updated_replicas: i32,
    /// Pods that have been ready for `minReadySeconds`.
    pub available_replicas: i32,
    /// Why no pod can be created (`ReplicaFailure`), e.g. a quota.
    pub failure: Option<String>,
}

/// How a Deployment replaces its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strategy {
    /// `RollingUpdate` or `Recreate`.
    pub kind: String,
    /// A number or a percentage.
    pub max_surge: Option<String>,
    /// A number or a percentage.
    pub max_unavailable: Option<String>,
}

impl Strategy {
    /// Whether a new pod starts before an old one is removed, as in Rancher's manifests (`maxSurge: 1`, `maxUnavailable: 0`).
    pub fn keeps_old_pods(&self) -> bool {
        let none = |amount: &Option<String>| matches!(amount.as_deref(), Some("0" | "0%"));
        self.kind == "RollingUpdate" && none(&self.max_unavailable) && !none(&self.max_surge)
    }
}

/// A container's `CATTLE_CREDENTIAL_NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialVariable {
    /// The container.
    pub container: String,
    /// The value of the variable.
    pub secret: String,
}

/// The two rollout settings by which a rollout is held. Both in seconds; the API server rejects a deadline that is not larger
/// than the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSettings {
    /// `spec.minReadySeconds`; 0 if not set.
    pub min_ready_seconds: i32,
    /// `spec.progressDeadlineSeconds`; 600 if not set.
    pub progress_deadline_seconds: i32,
}

impl Default for RolloutSettings {
    /// The defaults of Kubernetes, which Rancher's manifests do not change.
    fn default() -> Self {
        Self {
            min_ready_seconds: 0,
            progress_deadline_seconds: PROGRESS_DEADLINE,
        }
    }
}

/// Where to point the Deployment, in one write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The Secret with the token.
    pub secret: String,
    /// The rollout settings. None leaves both fields as they are.
    pub rollout: Option<RolloutSettings>,
    /// The pod template's `kubectl.kubernetes.io/restartedAt`. Another value creates new pods even for an earlier template;
    /// otherwise Kubernetes keeps the pods of that one.
    pub restarted_at: Change<String>,
    /// `CATTLE_SERVER` and `CATTLE_CA_CHECKSUM`. None leaves both as they are.
    pub address: Option<ServerAddress>,
}

/// Where an agent connects to, as its Deployment says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerAddress {
    /// `CATTLE_SERVER`: Rancher's URL. The tunnel uses the one in the agent's Secret; this one is checked at the agent's start.
    pub server: String,
    /// `CATTLE_CA_CHECKSUM`; empty with a publicly trusted certificate.
    pub ca_checksum: String,
}

impl Deployment {
    /// The variables name the Secret of the volume. Otherwise the agent would delete the Secret that it uses.
    pub fn is_consistent(&self) -> bool {
        self.variables
            .iter()
            .all(|variable| Some(&variable.secret) == self.volume_secret.as_ref())
    }

    /// The rollout is complete: Kubernetes has observed the last change, and all pods are of the current template and available.
    pub fn is_rolled_out(&self) -> bool {
        self.observed_generation == self.generation
            && [self.status_replicas, self.updated_replicas, self.available_replicas]
                .iter()
                .all(|n| *n == self.replicas)
    }

    /// A client-side apply has set rollout settings: `kubectl apply` of what `kubectl get -o yaml` had printed. Rancher's next apply
    /// removes them, since its manifest has none. While a rollout is held, the default deadline is then smaller than
    /// `minReadySeconds`, and the API server rejects Rancher's apply (422).
    pub fn rollout_settings_were_applied(&self) -> bool {
        #[derive(Deserialize)]
        struct Applied {
            spec: Spec,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            min_ready_seconds: Option<IgnoredAny>,
            progress_deadline_seconds: Option<IgnoredAny>,
        }
        let last = self.annotations.get(LAST_APPLIED);
        let last: Option<Applied> = last.and_then(|text| serde_json::from_str(text).ok());
        last.is_some_and(|Applied { spec }| {
            spec.min_ready_seconds.is_some() || spec.progress_deadline_seconds.is_some()
        })
    }

    fn unsupported(&self, what: &'static str) -> Error {
        Error::UnsupportedAgent {
            namespace: self.object.namespace.clone(),
            name: self.object.name.clone(),
            what,
        }
    }
}

/// The agent's Deployment. None if it does not exist.
pub async fn deployment(client: &kube::Client) -> Result<Option<Deployment>> {
    let raw: Option<RawDeployment> = request::get(client, DEPLOYMENT, Some(NAMESPACE), NAME).await?;
    Ok(raw.map(RawDeployment::read))
}

/// All metadata of the agent's Deployment. None if it does not exist.
pub async fn deployment_metadata(client: &kube::Client) -> Result<Option<ObjectMeta>> {
    Ok(request::get_metadata(client, DEPLOYMENT, Some(NAMESPACE), NAME).await?)
}

/// Points the Deployment at a Secret: its volume, and the variable in each container that has it. One strategic merge patch, by
/// the names of volume, containers and variables; everything else stays.
///
/// Errors: [`Error::UnsupportedAgent`] if the Deployment has no volume `cattle-credentials`.
pub async fn place(
    client: &kube::Client,
    deployment: &Deployment,
    placement: &Placement,
    write: &Write,
) -> Result<Deployment> {
    if deployment.volume_secret.is_none() {
        return Err(deployment.unsupported("has no volume cattle-credentials that names a Secret"));
    }
    let mut pod = Map::new();
    pod.insert(
        "volumes".to_owned(),
        json!([{ "name": VOLUME, "secret": { "secretName": placement.secret } }]),
    );
    let address = placement.address.iter().flat_map(|address| {
        [
            ("CATTLE_SERVER", &address.server),
            ("CATTLE_CA_CHECKSUM", &address.ca_checksum),
        ]
        .map(|(name, value)| json!({ "name": name, "value": value }))
    });
    let address: Vec<Value> = address.collect();
    let containers: Vec<Value> = deployment
        .variables
        .iter()
        .map(|variable| {
            let mut env = vec![json!({ "name": VARIABLE, "value": placement.secret })];
            env.extend(address.iter().cloned());
            json!({ "name": variable.container, "env": env })
        })
        .collect();
    if !containers.is_empty() {
        pod.insert("containers".to_owned(), Value::Array(containers));
    }
    let mut template = json!({ "spec": pod });
    let mut annotations = Map::new();
    placement
        .restarted_at
        .put(&mut annotations, RESTARTED_AT, String::clone);
    if !annotations.is_empty() {
        template["metadata"] = json!({ "annotations": annotations });
    }
    let mut spec = placement.rollout.map_or_else(Map::new, rollout_fields);
    spec.insert("template".to_owned(), template);
    change(client, deployment, spec, write).await
}

/// Sets the two rollout settings and nothing else. With the original ones a held rollout completes within half a second
/// (Kubernetes 1.36.3).
pub async fn release(
    client: &kube::Client,
    deployment: &Deployment,
    originals: RolloutSettings,
    write: &Write,
) -> Result<Deployment> {
    change(client, deployment, rollout_fields(originals), write).await
}

/// Changes only the annotations of `write`, and with them the version of the object.
pub async fn fence(client: &kube::Client, deployment: &Deployment, write: &Write) -> Result<Deployment> {
    change(client, deployment, Map::new(), write).await
}

fn rollout_fields(rollout: RolloutSettings) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("minReadySeconds".to_owned(), json!(rollout.min_ready_seconds));
    fields.insert(
        "progressDeadlineSeconds".to_owned(),
        json!(rollout.progress_deadline_seconds),
    );
    fields
}

async fn change(
    client: &kube::Client,
    deployment: &Deployment,
    spec: Map<String, Value>,
    write: &Write,
) -> Result<Deployment> {
    let change = json!({ "spec": spec });
    let raw: RawDeployment =
        request::patch(client, DEPLOYMENT, &deployment.object, Merge::Strategic, change, write).await?;
    Ok(raw.read())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawDeployment {
    metadata: Metadata,
    spec: RawSpec,
    status: RawStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    replicas: Option<i32>,
    paused: bool,
    min_ready_seconds: Option<i32>,
    progress_deadline_seconds: Option<i32>,
    strategy: RawStrategy,
    template: RawTemplate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStrategy {
    #[serde(rename = "type")]
    kind: String,
    rolling_update: Option<RawRollingUpdate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRollingUpdate {
    max_surge: Option<Amount>,
    max_unavailable: Option<Amount>,
}

/// Kubernetes' `IntOrString`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Amount {
    Number(i64),
    Text(String),
}

impl Amount {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawTemplate {
    metadata: RawTemplateMetadata,
    spec: RawPodSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawTemplateMetadata {
    annotations: Option<BTreeMap<String, String>>,
}

/// What pods and pod templates have in common.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawPodSpec {
    volumes: Option<Vec<RawVolume>>,
    containers: Vec<RawContainer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawVolume {
    name: String,
    secret: Option<RawSecretVolume>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSecretVolume {
    secret_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawContainer {
    name: String,
    env: Option<Vec<RawVariable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawVariable {
    name: String,
    value: Option<String>,
}

impl RawPodSpec {
    /// The Secret that the volume `cattle-credentials` names.
    pub(super) fn secret(&self) -> Option<&str> {
        let volume = self.volumes.iter().flatten().find(|volume| volume.name == VOLUME)?;
        volume.secret.as_ref()?.secret_name.as_deref()
    }

    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let all = self
            .containers
            .iter()
            .flat_map(|container| container.env.iter().flatten());
        all.filter(|variable| variable.name == name)
            .find_map(|variable| variable.value.clone())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    observed_generation: i64,
    replicas: i32,
    updated_replicas: i32,
    available_replicas: i32,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    message: String,
}

impl RawDeployment {
    fn read(self) -> Deployment {
        let Self { metadata, spec, status } = self;
        let pod = &spec.template.spec;
        let variables = pod.containers.iter().filter_map(|container| {
            let variable = container
                .env
                .iter()
                .flatten()
                .find(|variable| variable.name == VARIABLE)?;
            let secret = variable.value.clone().unwrap_or_default();
            Some(CredentialVariable {
                container: container.name.clone(),
                secret,
            })
        });
        let rolling = spec.strategy.rolling_update.unwrap_or_default();
        let usual = RolloutSettings::default();
        let failure = status
            .conditions
            .into_iter()
            .flatten()
            .find(|c| c.kind == "ReplicaFailure" && c.status == "True");
        Deployment {
            object: metadata.observed(),
            annotations: metadata.annotations.clone().unwrap_or_default(),
            generation: metadata.generation,
            observed_generation: status.observed_generation,
            replicas: spec.replicas.unwrap_or(1),
            paused: spec.paused,
            strategy: Strategy {
                kind: spec.strategy.kind,
                max_surge: rolling.max_surge.map(Amount::text),
                max_unavailable: rolling.max_unavailable.map(Amount::text),
            },
            volume_secret: pod.secret().map(str::to_owned),
            variables: variables.collect(),
            rollout: RolloutSettings {
                min_ready_seconds: spec.min_ready_seconds.unwrap_or(usual.min_ready_seconds),
                progress_deadline_seconds: spec
                    .progress_deadline_seconds
                    .unwrap_or(usual.progress_deadline_seconds),
            },
            restarted_at: spec
                .template
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(RESTARTED_AT))
                .cloned(),
            server_url: pod.variable("CATTLE_SERVER"),
            ca_checksum: pod.variable("CATTLE_CA_CHECKSUM"),
            opens_both_tunnels: pod.variable("CATTLE_FEATURES").is_some_and(|features| {
                features
                    .split(',')
                    .any(|feature| feature.trim() == "multi-cluster-management-agent=true")
            }),
            status_replicas: status.replicas,
            updated_replicas: status.updated_replicas,
            available_replicas: status.available_replicas,
            failure: failure.map(|condition| condition.message),
        }
    }
}
