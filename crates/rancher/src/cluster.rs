//! Clusters in Rancher: `clusters.management.cattle.io`, and how they are found by name.

mod find;
mod kind;
mod redeploy;

use std::collections::BTreeMap;

use client::request::{self, Item, ListOptions, Merge, Metadata, Resource};
use client::secret::Fingerprint;
use serde::Deserialize;
use serde_json::json;

use crate::error::Result;
use crate::object::{self, Observed, Write};

pub use crate::cluster_id::ClusterId;
pub use find::find;
pub use kind::{ClusterKind, Provider};
pub use redeploy::{Redeploy, Rendered};

const CLUSTER: Resource = object::management("Cluster", "clusters");

/// The value `"true"` makes Rancher render and apply the agent's manifest. Rancher sets it to `"false"` afterwards (seen on
/// Rancher 2.12.0 and 2.15.0: after 1.3 to 1.9 s).
pub const FORCE_DEPLOY: &str = "io.cattle.agent.force.deploy";
/// Storage `secret`: fingerprint of the token that Rancher applied last on the downstream cluster.
const TOKEN_HASH: &str = "io.cattle.agent.registration-token-hash";
/// On clusters that Rancher provisions.
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

/// A cluster, as far as its registration is concerned.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Name, uid and version of the object.
    pub object: Observed,
    /// Its id: the name of the object.
    pub id: ClusterId,
    /// Its display name.
    pub display_name: String,
    /// What kind of cluster it is. [`ClusterKind::Provisioned`] may be an imported one: only its
    /// [provisioning cluster](crate::provisioned) tells.
    pub kind: ClusterKind,
    /// The namespace of its provisioning cluster, if it has one.
    pub workspace: Option<String>,
    /// Annotations. Empty where clusters are listed.
    pub annotations: BTreeMap<String, String>,
    /// `status.caCert`: base64 of the CA of the cluster's API server, which may be stale. None where clusters are listed.
    pub ca_certificate: Option<String>,
    /// It is being deleted.
    pub deleting: bool,
    /// The status of `status.conditions`, by type.
    pub conditions: BTreeMap<String, ConditionStatus>,
    /// Storage `secret`: fingerprint of the token that Rancher applied last on the downstream cluster. It proves that the
    /// manifest was applied, not that an agent has connected.
    pub applied_token: Option<Fingerprint>,
    /// A redeploy of the agent was requested, and Rancher has not done it yet.
    pub force_deploy: bool,
    /// The agent image that the cluster's own spec asks for (`agentImageOverride`, else `desiredAgentImage` unless it is
    /// `fixed`). None: the one of the setting `agent-image`.
    pub desired_agent_image: Option<String>,
    /// The agent image that Rancher applied last.
    pub agent_image: Option<String>,
}

impl Cluster {
    /// Whether a condition is True.
    pub fn is(&self, kind: &str) -> bool {
        self.conditions.get(kind) == Some(&ConditionStatus::True)
    }

    /// Rancher's condition `Connected`, polled every 15 s. None: no agent has ever connected. It is displayed, never trusted: it
    /// may not change during a successful rollout, and may be False while requests through the tunnel succeed (seen on Rancher
    /// 2.15.0 and 2.12.0).
    pub fn connected(&self) -> Option<ConditionStatus> {
        self.conditions.get("Connected").copied()
    }

    /// Rancher still waits for the cluster's first start, and deploys `cattle-cluster-agent-bootstrap` instead of the agent.
    /// `PreBootstrapped` is Unknown, not False, on a cluster without that phase (seen on Rancher 2.15.0).
    pub fn pre_bootstrap(&self) -> bool {
        self.conditions.get("PreBootstrapped") == Some(&ConditionStatus::False)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawCluster {
    metadata: Metadata,
    spec: Option<RawSpec>,
    status: Option<RawStatus>,
}

impl Item for RawCluster {
    fn unreadable(metadata: Metadata) -> Option<Self> {
        Some(Self {
            metadata,
            ..Self::default()
        })
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    display_name: Option<String>,
    fleet_workspace_name: Option<String>,
    internal: Option<bool>,
    desired_agent_image: Option<String>,
    agent_image_override: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    driver: Option<String>,
    provider: Option<String>,
    agent_image: Option<String>,
    ca_cert: Option<String>,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl From<&str> for ConditionStatus {
    fn from(text: &str) -> Self {
        match text {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

impl RawCluster {
    /// None for an object whose name is not an id, which no API server stores.
    fn read(self) -> Option<Cluster> {
        let Self { metadata, spec, status } = self;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let id: ClusterId = metadata.name.parse().ok()?;
        let conditions = status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .map(|raw| (raw.kind, raw.status.as_str().into()))
            .collect();
        let applied_token = metadata.annotation(TOKEN_HASH).and_then(|text| text.parse().ok());
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
            deleting: metadata.deletion_timestamp.is_some(),
            conditions,
            applied_token,
            force_deploy: metadata.annotation(FORCE_DEPLOY) == Some("true"),
            desired_agent_image: filled(spec.agent_image_override)
                .or_else(|| filled(spec.desired_agent_image).filter(|image| image != "fixed")),
            agent_image: filled(status.agent_image),
            annotations: metadata.annotations.unwrap_or_default(),
            ca_certificate: filled(status.ca_cert),
        })
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A cluster by its id. None if it does not exist.
pub async fn get(client: &kube::Client, id: &ClusterId) -> Result<Option<Cluster>> {
    let raw: Option<RawCluster> = request::get(client, CLUSTER, None, id.as_str()).await?;
    Ok(raw.and_then(RawCluster::read))
}

/// All clusters that match a label selector (None: all), `local` included, in pages of 500.
pub async fn list(client: &kube::Client, labels: Option<&str>) -> Result<Vec<Cluster>> {
    let mut clusters = Vec::new();
    let mut from = None;
    loop {
        let options = ListOptions {
            labels,
            ..ListOptions::default()
        };
        let page = request::list_page::<RawCluster>(client, CLUSTER, &options, from.as_ref()).await?;
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

/// Sets annotations of the caller's, so that Rancher reconciles the cluster. With storage `secret` Rancher then pushes a changed
/// `system` token, in 1.5 to 2.4 s (seen on Rancher 2.15.0); with storage `status` it pushes nothing (seen on 2.12.0). In both it
/// recreates a missing `default-token`.
///
/// A value must differ from the last one; otherwise nothing is written and nothing happens.
pub async fn trigger_reconcile(
    client: &kube::Client,
    cluster: &Observed,
    annotations: &[(&str, &str)],
    write: &Write,
) -> Result<Cluster> {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    let change = json!({ "metadata": { "annotations": annotations } });
    let raw: RawCluster = request::patch(client, CLUSTER, cluster, Merge::Json, change, write).await?;
    raw.read().ok_or_else(|| object::nameless(CLUSTER))
}
