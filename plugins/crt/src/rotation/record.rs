//! What a run records: on `system` for itself, and in the journal for readers of the Lease.

use std::collections::BTreeMap;

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::run::Run;
pub use rancher::agent::{RolloutSettings, ServerAddress};
use serde::{Deserialize, Serialize};

use super::Crt;

/// What a run records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The token that the agent ran with when the rotation began.
    pub old: Fingerprint,
    /// The new token of the agent. `None` until it is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Fingerprint>,
    /// The value of `system` when the rotation began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Fingerprint>,
    /// The other registration tokens that are rotated, with their values at the start.
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
    pub server_address: ServerAddress,
    /// Name of the downstream Secret that the Deployment named at the start.
    pub old_secret: String,
    /// The Deployment's own rollout settings, to be restored.
    pub rollout: RolloutSettings,
}

/// The mark of a run on `system`, written in the same request as its value. What a resumed run may do is read from there, never
/// from the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The run.
    pub run: String,
    /// The direction in which it was written.
    pub direction: Direction,
    /// What the run records.
    #[serde(flatten)]
    pub record: Record,
}

impl Mark {
    /// The mark of a run as it is now. What changes later is observed on the objects themselves.
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

/// The mark of a run on another registration token, written in the same request as its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OtherMark {
    /// The run.
    pub(crate) run: String,
    /// The direction in which it was written.
    pub(crate) direction: Direction,
    /// The value that the token had before the run.
    pub(crate) before: Fingerprint,
}
