//! The agent's Deployment: which Secret its pods read the token from, how its roll-out goes, and the two patches that
//! change either.

use std::collections::BTreeMap;

use client::request::{self, Merge, Metadata, Resource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{NAME, NAMESPACE};
use crate::error::{Error, Result};
use crate::object::{Observed, Write};
use crate::token::Change;

const DEPLOYMENT: Resource = Resource::new("Deployment", "apps/v1", "deployments");

/// The volume that holds the token.
const VOLUME: &str = "cattle-credentials";
/// The variable that repeats the Secret's name (since Rancher 2.9.9, 2.10.5, 2.11.1): the agent spares that one when it
/// removes old ones.
const VARIABLE: &str = "CATTLE_CREDENTIAL_NAME";
/// What `kubectl rollout restart` sets.
pub(super) const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// What Kubernetes fills in where a Deployment says nothing.
const PROGRESS_DEADLINE: i32 = 600;

/// The agent's Deployment, `cattle-cluster-agent`.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Name, uid and version of the object.
    pub object: Observed,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Counts the changes of its spec.
    pub generation: i64,
    /// The last change that Kubernetes' controller has seen.
    pub observed_generation: i64,
    /// How many pods it is to have.
    pub replicas: i32,
    /// Its roll-outs are suspended.
    pub paused: bool,
    /// How old pods are replaced.
    pub strategy: Strategy,
    /// The Secret that the volume `cattle-credentials` names.
    pub volume_secret: Option<String>,
    /// The containers that have the variable `CATTLE_CREDENTIAL_NAME`; none before Rancher 2.9.9, 2.10.5, 2.11.1.
    pub variables: Vec<CredentialVariable>,
    /// The two fields that decide how long a new pod must be up before an old one goes.
    pub hold: Hold,
    /// Pod template annotation `kubectl.kubernetes.io/restartedAt`.
    pub restarted_at: Option<String>,
    /// The image of the first container.
    pub image: Option<String>,
    /// `CATTLE_SERVER`: where the agent connects to.
    pub server_url: Option<String>,
    /// `CATTLE_CA_CHECKSUM`: the agent refuses a Rancher whose `cacerts` has another; empty is none.
    pub ca_checksum: Option<String>,
    /// The feature `multi-cluster-management-agent=true` is in `CATTLE_FEATURES`. Without it (the import manifest has
    /// none) the agent opens only one of its two tunnels, and Rancher says `Connected=False` although proxied calls are
    /// answered (seen on Rancher 2.15.0).
    pub opens_both_tunnels: bool,
    /// Pods, of any template.
    pub status_replicas: i32,
    /// Pods of the present template.
    pub updated_replicas: i32,
    /// Pods that are ready.
    pub ready_replicas: i32,
    /// Pods that have been ready for `minReadySeconds`.
    pub available_replicas: i32,
    /// Why no pod can be made (`ReplicaFailure`), e.g. a quota.
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
    /// Whether a new pod is started before any old one is removed, which is what Rancher's manifests say (`maxSurge: 1`,
    /// `maxUnavailable: 0`).
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
    /// What the variable says.
    pub secret: String,
}

/// What keeps old pods beside new ones. Both in seconds, and the deadline must be the larger of the two or the API
/// server refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// `spec.minReadySeconds`; 0 if it is not set.
    pub min_ready_seconds: i32,
    /// `spec.progressDeadlineSeconds`; 600 if it is not set.
    pub progress_deadline_seconds: i32,
}

impl Default for Hold {
    /// What Kubernetes assumes where nothing is said, and what Rancher's manifests leave at that.
    fn default() -> Self {
        Self {
            min_ready_seconds: 0,
            progress_deadline_seconds: PROGRESS_DEADLINE,
        }
    }
}

/// Where the Deployment is to be pointed, all in one write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The Secret to read the token from.
    pub secret: String,
    /// Hold the roll-out that this begins. None leaves both fields as they are.
    pub hold: Option<Hold>,
    /// Another value for the pod template's `kubectl.kubernetes.io/restartedAt`, so that there are new pods even if an
    /// old template is wanted again (Kubernetes would else keep the old ones, whose tunnels never broke).
    pub restarted_at: Change<String>,
    /// Where the agent is sent back to: `CATTLE_SERVER` and `CATTLE_CA_CHECKSUM`. None leaves both as they are.
    pub address: Option<Address>,
}

/// Where an agent is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// `CATTLE_SERVER`: Rancher's URL. The tunnel uses the one in the agent's Secret; this one is checked at its start.
    pub server: String,
    /// `CATTLE_CA_CHECKSUM`; empty behind a public certificate.
    pub ca_checksum: String,
}

impl Deployment {
    /// The variables say the same as the volume. If not, the agent would remove the Secret that it lives on.
    pub fn agrees_with_itself(&self) -> bool {
        self.variables
            .iter()
            .all(|variable| Some(&variable.secret) == self.volume_secret.as_ref())
    }

    /// The roll-out is over: Kubernetes has seen the last change, all pods are of the present template, and available.
    pub fn settled(&self) -> bool {
        self.observed_generation == self.generation
            && [self.status_replicas, self.updated_replicas, self.available_replicas]
                .iter()
                .all(|n| *n == self.replicas)
    }

    fn strange(&self, what: &'static str) -> Error {
        Error::StrangeAgent {
            namespace: self.object.namespace.clone(),
            name: self.object.name.clone(),
            what,
        }
    }
}

/// The agent's Deployment; None if there is none.
pub async fn deployment(client: &kube::Client) -> Result<Option<Deployment>> {
    let raw: Option<RawDeployment> = request::get(client, DEPLOYMENT, Some(NAMESPACE), NAME).await?;
    Ok(raw.map(RawDeployment::read))
}

/// All metadata of the agent's Deployment; None if there is none.
pub async fn deployment_metadata(client: &kube::Client) -> Result<Option<ObjectMeta>> {
    Ok(request::get_metadata(client, DEPLOYMENT, Some(NAMESPACE), NAME).await?)
}

/// Points the Deployment at a Secret: volume, and the variable in each container that has it; optionally held and with a
/// fresh restart. One strategic merge patch, by the names of volume, containers and variables; all else stays.
///
/// Errors: [`Error::StrangeAgent`] if the Deployment has no volume `cattle-credentials`.
pub async fn place(
    client: &kube::Client,
    deployment: &Deployment,
    placement: &Placement,
    write: &Write,
) -> Result<Deployment> {
    if deployment.volume_secret.is_none() {
        return Err(deployment.strange("has no volume cattle-credentials that names a Secret"));
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
    let mut spec = placement.hold.map_or_else(Map::new, hold_fields);
    spec.insert("template".to_owned(), template);
    change(client, deployment, spec, write).await
}

/// Sets the two hold fields and nothing else: with the originals it lets a held roll-out complete, within half a second
/// (Kubernetes 1.36.3).
pub async fn release(
    client: &kube::Client,
    deployment: &Deployment,
    originals: Hold,
    write: &Write,
) -> Result<Deployment> {
    change(client, deployment, hold_fields(originals), write).await
}

/// Changes nothing but the annotations that `write` carries, and with them the version of the object.
pub async fn mark(client: &kube::Client, deployment: &Deployment, write: &Write) -> Result<Deployment> {
    change(client, deployment, Map::new(), write).await
}

fn hold_fields(hold: Hold) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("minReadySeconds".to_owned(), json!(hold.min_ready_seconds));
    fields.insert(
        "progressDeadlineSeconds".to_owned(),
        json!(hold.progress_deadline_seconds),
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

/// Kubernetes' IntOrString.
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
    image: Option<String>,
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
    ready_replicas: i32,
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
        let usual = Hold::default();
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
            hold: Hold {
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
            image: pod.containers.first().and_then(|container| container.image.clone()),
            server_url: pod.variable("CATTLE_SERVER"),
            ca_checksum: pod.variable("CATTLE_CA_CHECKSUM"),
            opens_both_tunnels: pod.variable("CATTLE_FEATURES").is_some_and(|features| {
                features
                    .split(',')
                    .any(|feature| feature.trim() == "multi-cluster-management-agent=true")
            }),
            status_replicas: status.replicas,
            updated_replicas: status.updated_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            failure: failure.map(|condition| condition.message),
        }
    }
}
