//! Clusters as Rancher keeps them: `clusters.management.cattle.io`, and how a user's name for one finds it.

mod find;
mod kind;
mod redeploy;

use std::collections::BTreeMap;

use client::request::{self, Item, Merge, Metadata, Resource, Wanted};
use client::secret::Fingerprint;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::error::Result;
use crate::object::{self, Observed, Problem, WRONG_TYPE, Write, time};

pub use crate::cluster_id::ClusterId;
pub use find::find;
pub use kind::{ClusterKind, Provider};
pub use redeploy::{Redeploy, Rendered};

const CLUSTER: Resource = object::management("Cluster", "clusters");

/// Set to `"true"`, it makes Rancher render and apply the agent's manifest at once; Rancher sets it to `"false"` when
/// that is done (seen on Rancher 2.12.0 and 2.15.0: after 1.3 to 1.9 s).
const FORCE_DEPLOY: &str = "io.cattle.agent.force.deploy";
/// Fingerprint of the token that Rancher has last applied downstream. Era S only.
const TOKEN_HASH: &str = "io.cattle.agent.registration-token-hash";
/// On clusters that Rancher provisions itself.
const ADMINISTRATED: &str = "provisioning.cattle.io/administrated";

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// `"True"`.
    True,
    /// `"False"`.
    False,
    /// `"Unknown"`, or anything else.
    Unknown,
}

/// One entry of `status.conditions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What it says.
    pub status: ConditionStatus,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence. May be the output of `kubectl apply` (`AgentDeployed`).
    pub message: String,
    /// When status or message last changed. Rancher does not keep `lastTransitionTime`, and does not move this one when
    /// it repeats itself, so it proves nothing (seen on Rancher 2.15.0 and 2.12.0).
    pub updated: Option<Timestamp>,
}

/// A cluster, as far as its registration matters.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Name, uid and version of the object.
    pub object: Observed,
    /// Its id: the name of the object.
    pub id: ClusterId,
    /// What the user calls it.
    pub display_name: String,
    /// The Fleet workspace, which is the namespace of its `clusters.provisioning.cattle.io` object.
    pub workspace: Option<String>,
    /// What sort of cluster it is.
    pub kind: ClusterKind,
    /// `spec.internal`: the cluster that Rancher runs in.
    pub internal: bool,
    /// `status.driver`, e.g. `imported`; empty before the first connection.
    pub driver: String,
    /// `status.provider`, e.g. `k3s`; empty where Rancher has not recognised one.
    pub provider: String,
    /// Labels, for selectors and display.
    pub labels: BTreeMap<String, String>,
    /// Annotations. Empty where clusters are listed.
    pub annotations: BTreeMap<String, String>,
    /// `status.caCert`: base64 of the PEM that the cluster's API server was last known by, which may be stale. None where
    /// clusters are listed.
    pub ca_certificate: Option<String>,
    /// When it was registered.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// `status.conditions` by type.
    pub conditions: BTreeMap<String, Condition>,
    /// Fingerprint of the token that Rancher has last applied downstream (era S): proof that the manifest was applied,
    /// not that an agent has connected with it.
    pub applied_token: Option<Fingerprint>,
    /// Rancher has been told to render and apply the agent anew, and has not yet done it.
    pub force_deploy: bool,
    /// The agent image that the cluster's own spec asks for (`agentImageOverride`, else `desiredAgentImage` unless it is
    /// `fixed`). None: the one of the setting `agent-image`.
    pub desired_agent_image: Option<String>,
    /// The agent image that Rancher has last applied.
    pub agent_image: Option<String>,
    /// How many nodes Rancher has seen; it deploys no agent to a cluster without nodes.
    pub nodes: i64,
    /// Fields that make no sense.
    pub problems: Vec<Problem>,
}

impl Cluster {
    /// A condition by its type, e.g. `Connected`.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.get(kind)
    }

    /// Whether a condition is there and True.
    pub fn is(&self, kind: &str) -> bool {
        self.condition(kind)
            .is_some_and(|condition| condition.status == ConditionStatus::True)
    }

    /// Rancher's own view of the tunnel, polled every 15 s. None: no agent has ever connected. It is to be shown, not to
    /// be trusted: it need not move in a good roll-out, and may say False while proxied calls are answered (seen on
    /// Rancher 2.15.0 and 2.12.0).
    pub fn connected(&self) -> Option<ConditionStatus> {
        self.condition("Connected").map(|condition| condition.status)
    }

    /// Rancher still waits for the cluster's own first start, and deploys `cattle-cluster-agent-bootstrap` instead of the
    /// agent. `PreBootstrapped` is Unknown, not False, on a cluster that knows no such phase (seen on Rancher 2.15.0).
    pub fn pre_bootstrap(&self) -> bool {
        self.condition("PreBootstrapped")
            .is_some_and(|condition| condition.status == ConditionStatus::False)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawCluster {
    metadata: Metadata,
    spec: Option<RawSpec>,
    status: Option<RawStatus>,
    #[serde(skip)]
    broken: bool,
}

impl Item for RawCluster {
    fn unreadable(metadata: Metadata) -> Option<Self> {
        Some(Self {
            metadata,
            broken: true,
            ..Self::default()
        })
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    display_name: Option<String>,
    internal: Option<bool>,
    desired_agent_image: Option<String>,
    agent_image_override: Option<String>,
    fleet_workspace_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    driver: Option<String>,
    provider: Option<String>,
    agent_image: Option<String>,
    node_count: Option<i64>,
    ca_cert: Option<String>,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_update_time: Option<String>,
}

impl RawCondition {
    fn read(self, problems: &mut Vec<Problem>) -> (String, Condition) {
        let status = match self.status.as_str() {
            "True" => ConditionStatus::True,
            "False" => ConditionStatus::False,
            _ => ConditionStatus::Unknown,
        };
        let updated = time(
            self.last_update_time.as_deref(),
            "status.conditions[].lastUpdateTime",
            problems,
        );
        (
            self.kind,
            Condition {
                status,
                reason: self.reason,
                message: self.message,
                updated,
            },
        )
    }
}

impl RawCluster {
    /// None for an object whose name is no id: the API server would not have stored it.
    fn read(self) -> Option<Cluster> {
        let Self {
            metadata,
            spec,
            status,
            broken,
        } = self;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let id: ClusterId = metadata.name.parse().ok()?;
        let mut problems = Vec::from_iter(broken.then_some(WRONG_TYPE));
        let conditions = status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .map(|raw| raw.read(&mut problems))
            .collect();
        let applied_token = metadata
            .annotation(TOKEN_HASH)
            .filter(|text| !text.is_empty())
            .and_then(|text| {
                let parsed = text.parse().ok();
                if parsed.is_none() {
                    problems.push(Problem {
                        field: "annotation io.cattle.agent.registration-token-hash",
                        what: "is not a fingerprint",
                    });
                }
                parsed
            });
        let internal = spec.internal.unwrap_or_default();
        let driver = status.driver.unwrap_or_default();
        let provider = status.provider.unwrap_or_default();
        let administrated = metadata.annotation(ADMINISTRATED) == Some("true");
        Some(Cluster {
            object: metadata.observed(),
            kind: ClusterKind::of(&id, internal, administrated, &driver, &provider),
            id,
            display_name: spec.display_name.unwrap_or_default(),
            workspace: filled(spec.fleet_workspace_name),
            internal,
            driver,
            provider,
            created: metadata.created(),
            deleting: metadata.deletion_timestamp.is_some(),
            conditions,
            applied_token,
            force_deploy: metadata.annotation(FORCE_DEPLOY) == Some("true"),
            desired_agent_image: filled(spec.agent_image_override)
                .or_else(|| filled(spec.desired_agent_image).filter(|image| image != "fixed")),
            agent_image: filled(status.agent_image),
            nodes: status.node_count.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            ca_certificate: filled(status.ca_cert),
            problems,
        })
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A cluster by its id. None if there is none.
pub async fn get(client: &kube::Client, id: &ClusterId) -> Result<Option<Cluster>> {
    let raw: Option<RawCluster> = request::get(client, CLUSTER, None, id.as_str()).await?;
    Ok(raw.and_then(RawCluster::read))
}

/// All clusters that a label selector matches (None: all), `local` included, in pages of 500. Each is some 2 KiB here,
/// whatever its status says.
pub async fn list(client: &kube::Client, labels: Option<&str>) -> Result<Vec<Cluster>> {
    let mut clusters = Vec::new();
    let mut from = None;
    loop {
        let wanted = Wanted {
            labels,
            ..Wanted::default()
        };
        let page = request::list_page::<RawCluster>(client, CLUSTER, &wanted, from.as_deref()).await?;
        clusters.extend(
            page.items
                .into_iter()
                .filter_map(RawCluster::read)
                .map(|cluster| Cluster {
                    annotations: BTreeMap::new(),
                    ca_certificate: None,
                    ..cluster
                }),
        );
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(clusters),
        }
    }
}

/// Sets an annotation of the caller's, which is an event of the cluster: Rancher looks again at everything that hangs on
/// it. In era S it is what makes Rancher push a changed `system` token, in 1.5 to 2.4 s (seen on Rancher 2.15.0); in era
/// P it pushes nothing (seen on 2.12.0). In both it brings back a missing `default-token`.
///
/// The value must differ from the last one, or nothing is written and nothing happens.
pub async fn touch(
    client: &kube::Client,
    cluster: &Observed,
    annotation: (&str, &str),
    write: &Write,
) -> Result<Cluster> {
    annotate(client, cluster, annotation, write).await
}

/// Tells Rancher to render the agent's manifest anew and apply it with the token of `system`, which is made first if it
/// is missing. Everything in the manifest is applied, not only the token.
pub async fn force_deploy(client: &kube::Client, cluster: &Observed, write: &Write) -> Result<Cluster> {
    annotate(client, cluster, (FORCE_DEPLOY, "true"), write).await
}

async fn annotate(
    client: &kube::Client,
    cluster: &Observed,
    (key, value): (&str, &str),
    write: &Write,
) -> Result<Cluster> {
    let change = json!({ "metadata": { "annotations": { key: value } } });
    let raw: RawCluster = request::patch(client, CLUSTER, cluster, Merge::Json, change, write).await?;
    raw.read().ok_or_else(|| object::nameless(CLUSTER))
}
