//! What a run knows: on `system` for itself, and in the journal for whoever reads the Lease.

use std::collections::BTreeMap;

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::run::Run;
pub use rancher::agent::Address as Home;
use serde::{Deserialize, Serialize};

use super::Crt;

/// What a run knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The token that the agent ran with when the rotation began.
    pub old: Fingerprint,
    /// The new token of the agent. `None` until it is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Fingerprint>,
    /// What `system` held when the rotation began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Fingerprint>,
    /// The other registration tokens that get a new value, with the one that they had.
    #[serde(default)]
    pub others: BTreeMap<String, Fingerprint>,
    /// The restart mark that was drawn last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<String>,
    /// At the start the agent was connected with the old token.
    #[serde(default)]
    pub worked: bool,
    /// Where the Deployment's pod template sent the agent at the start.
    #[serde(default)]
    pub home: Home,
    /// Name of the downstream Secret that the Deployment named at the start.
    pub old_secret: String,
    /// The Deployment's own rollout settings, to be restored.
    pub rollout: Rollout,
}

/// The mark of a run on `system`, written in the same request as its value: what a run may do is read from there, never from
/// the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The run.
    pub run: String,
    /// The direction in which it was written.
    pub direction: Direction,
    /// What the run knows.
    #[serde(flatten)]
    pub record: Record,
}

impl Mark {
    /// The mark of a run as it is now. What changes later is observed at the objects themselves.
    pub fn of(run: &Run<Crt>) -> Self {
        Self {
            run: run.id.to_string(),
            direction: run.direction,
            record: Record {
                restarted_at: None,
                ..run.record.clone()
            },
        }
    }
}

/// The two rollout settings by which a rollout is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// `spec.progressDeadlineSeconds`.
    pub progress_deadline_seconds: i32,
}

impl Default for Rollout {
    /// The defaults of Kubernetes, with which Rancher's agent comes.
    fn default() -> Self {
        Self {
            min_ready_seconds: 0,
            progress_deadline_seconds: 600,
        }
    }
}
