//! What a run records in the Lease and, as the copy that counts, on its backup Secret.

use client::secret::Fingerprint;
use serde::{Deserialize, Serialize};

/// The record of a run. A resumed run reads it from the backup Secret, which who may only write Leases cannot change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The token at the start.
    pub old: Fingerprint,
    /// The new one and, after a disturbed round, its successors. The last one is in use at the end. None is dropped before *confirm*.
    #[serde(default)]
    pub new: Vec<Fingerprint>,
    /// The user has passed the new token: no other one may take its place.
    #[serde(default)]
    pub is_given: bool,
    /// This process deletes the backup Secret: everything else is done. Another process has to see that.
    #[serde(skip)]
    pub is_ended: bool,
    /// The last round that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<RoundRecord>,
}

/// A round: the same token on every server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoundRecord {
    /// The token that every server had before.
    pub before: Fingerprint,
    pub value: Fingerprint,
    /// The order of the servers. It is the same in each round of a run.
    pub order: Vec<String>,
    /// The order of the files before it is not certain: it has to give every server others, and cannot be undone by leaving it.
    #[serde(default)]
    pub mends: bool,
    /// Every server has the token, and the last one has the newest files.
    pub is_complete: bool,
}

impl RoundRecord {
    /// Every server has what it had before.
    pub(crate) fn undone(&self) -> Self {
        Self {
            value: self.before,
            is_complete: true,
            ..self.clone()
        }
    }
}

impl Record {
    pub(crate) fn knows(&self, value: Fingerprint) -> bool {
        self.old == value || self.new.contains(&value)
    }

    /// With this as the last round.
    #[must_use]
    pub(crate) fn with(&self, round: RoundRecord) -> Self {
        Self {
            round: Some(round),
            ..self.clone()
        }
    }
}
