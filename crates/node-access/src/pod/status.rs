//! What is read of pods and of their nodes.

use client::request::Metadata;
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct RawPod {
    #[serde(default)]
    pub(super) status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    phase: String,
    reason: Option<String>,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    state: ContainerState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    waiting: Option<Waiting>,
    running: Option<serde::de::IgnoredAny>,
    terminated: Option<Terminated>,
}

#[derive(Deserialize)]
struct Waiting {
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated {
    exit_code: i32,
}

impl PodStatus {
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// `None`: its script did not run to its end.
    pub(super) fn exit_code(&self) -> Option<i32> {
        Some(self.state()?.terminated.as_ref()?.exit_code)
    }

    /// Why it does not run. `None`: it runs, or has run.
    pub(super) fn waiting(&self) -> Option<&str> {
        match self.state() {
            None => Some("no kubelet has accepted it"),
            Some(state) if state.running.is_some() || state.terminated.is_some() => None,
            Some(state) => state
                .waiting
                .as_ref()
                .map(|waiting| waiting.reason.as_deref().unwrap_or("no reason is given")),
        }
    }

    /// Whether it does not start by itself, or only once a registry answers.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(
            self.waiting(),
            Some("ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "CreateContainerConfigError")
        )
    }

    /// Why it ended without an exit code.
    pub(super) fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or(&self.phase)
    }

    fn state(&self) -> Option<&ContainerState> {
        self.container_statuses.first().map(|status| &status.state)
    }
}

#[derive(Deserialize)]
pub(super) struct RawNode {
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    images: Vec<ImageNames>,
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ImageNames {
    names: Vec<String>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl RawNode {
    /// A Node that says nothing about it may be ready.
    pub(super) fn is_ready(&self) -> bool {
        let mut conditions = self.status.conditions.iter();
        conditions.all(|condition| condition.r#type != "Ready" || condition.status == "True")
    }

    /// The names of each image that it has.
    pub(super) fn images(self) -> Vec<Vec<String>> {
        self.status.images.into_iter().map(|image| image.names).collect()
    }
}

/// Of which only the metadata is used.
#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) metadata: Metadata,
}

impl client::request::Item for Named {}
