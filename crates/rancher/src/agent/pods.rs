//! The agent's pods: which Secret each has mounted, and whether it is there to stay.

use client::request::{self, Item, Metadata, Resource, Wanted};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::deployment::{RESTARTED_AT, RawPodSpec};
use super::{NAME, NAMESPACE};
use crate::error::Result;

const POD: Resource = Resource::new("Pod", "v1", "pods");

/// One pod of the agent.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Tells it from a later one.
    pub uid: String,
    /// The Secret that it has mounted its token from. It reads the token once, when it starts.
    pub secret: Option<String>,
    /// The condition `Ready`. The agent has no probe, so this says that it runs, not that it has connected.
    pub ready: bool,
    /// It has been told to end.
    pub terminating: bool,
    /// It has ended by itself or was evicted (`Failed`, `Succeeded`): it holds no tunnel and is only an object.
    pub finished: bool,
    /// The mark of the last restart (`kubectl.kubernetes.io/restartedAt`) in the template that it was made from.
    pub restarted_at: Option<String>,
    /// `CATTLE_SERVER` in its template.
    pub server_url: Option<String>,
    /// `CATTLE_CA_CHECKSUM` in its template.
    pub ca_checksum: Option<String>,
    /// The ReplicaSet that made it.
    pub replica_set: Option<String>,
    /// The label `pod-template-hash`, one per template.
    pub template_hash: Option<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Why a container is not running, e.g. `ImagePullBackOff`.
    pub waiting: Option<String>,
    /// How often its containers were restarted.
    pub restarts: i32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPod {
    metadata: Metadata,
    spec: RawPodSpec,
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    phase: String,
    conditions: Option<Vec<RawCondition>>,
    container_statuses: Option<Vec<RawContainerStatus>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawContainerStatus {
    restart_count: i32,
    state: Option<RawState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawState {
    waiting: Option<RawWaiting>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawWaiting {
    reason: Option<String>,
}

impl Item for RawPod {
    /// Counts as one that has mounted nothing and is not ready.
    fn unreadable(metadata: Metadata) -> Option<Self> {
        Some(Self {
            metadata,
            ..Self::default()
        })
    }
}

impl RawPod {
    fn read(self) -> Pod {
        let Self { metadata, spec, status } = self;
        let containers = status.container_statuses.unwrap_or_default();
        let owner = metadata
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.kind == "ReplicaSet");
        Pod {
            secret: spec.secret().map(str::to_owned),
            server_url: spec.variable("CATTLE_SERVER"),
            ca_checksum: spec.variable("CATTLE_CA_CHECKSUM"),
            ready: status
                .conditions
                .iter()
                .flatten()
                .any(|c| c.kind == "Ready" && c.status == "True"),
            terminating: metadata.deletion_timestamp.is_some(),
            finished: matches!(status.phase.as_str(), "Failed" | "Succeeded"),
            restarted_at: metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(RESTARTED_AT))
                .cloned(),
            replica_set: owner.map(|owner| owner.name.clone()),
            template_hash: metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get("pod-template-hash"))
                .cloned(),
            created: metadata.created(),
            restarts: containers.iter().map(|container| container.restart_count).sum(),
            waiting: containers
                .into_iter()
                .find_map(|container| container.state?.waiting?.reason),
            name: metadata.name,
            uid: metadata.uid,
        }
    }
}

/// All pods with the label `app=cattle-cluster-agent`, those that are ending included.
pub async fn pods(client: &kube::Client) -> Result<Vec<Pod>> {
    let label = format!("app={NAME}");
    let wanted = Wanted {
        namespace: Some(NAMESPACE),
        labels: Some(&label),
        ..Wanted::default()
    };
    let raw = request::list_all::<RawPod>(client, POD, &wanted).await?;
    Ok(raw.into_iter().map(RawPod::read).collect())
}
