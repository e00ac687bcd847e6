//! The agent's pods: which Secret each mounts, and whether it stays.

use client::request::{self, Item, ListOptions, Metadata, Resource};
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
    /// The Secret with its token. The agent reads the token once, when it starts.
    pub secret: Option<String>,
    /// The condition `Ready`. The agent has no readiness probe, so this says that it runs, not that it has connected.
    pub ready: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// It has terminated or was evicted (`Failed`, `Succeeded`), and has no tunnel open.
    pub finished: bool,
    /// `kubectl.kubernetes.io/restartedAt` in the template that it was created from.
    pub restarted_at: Option<String>,
    /// `CATTLE_SERVER` in its template.
    pub server_url: Option<String>,
    /// `CATTLE_CA_CHECKSUM` in its template.
    pub ca_checksum: Option<String>,
    /// Why a container is not running, e.g. `ImagePullBackOff`.
    pub waiting: Option<String>,
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
#[serde(default)]
struct RawContainerStatus {
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
    /// Counts as a pod that mounts no Secret and is not ready.
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
            waiting: status
                .container_statuses
                .into_iter()
                .flatten()
                .find_map(|container| container.state?.waiting?.reason),
            name: metadata.name,
        }
    }
}

/// All pods with the label `app=cattle-cluster-agent`, terminating ones included.
pub async fn pods(client: &kube::Client) -> Result<Vec<Pod>> {
    let label = format!("app={NAME}");
    let options = ListOptions {
        namespace: Some(NAMESPACE),
        labels: Some(&label),
        ..ListOptions::default()
    };
    let raw = request::list_all::<RawPod>(client, POD, &options).await?;
    Ok(raw.into_iter().map(RawPod::read).collect())
}
