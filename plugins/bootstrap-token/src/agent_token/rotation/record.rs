//! What a run records in the Lease and, as the copy that counts, on its backup Secret.

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use serde::{Deserialize, Serialize};

use super::observed::Purpose;

/// The record of a run. A resumed run reads it from the backup Secret, which who may only write Leases cannot change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The server token. Servers accept it as node where no agent token is configured: a run whose old token it is sets the first agent
    /// token, and one whose new token it is removes the last.
    pub server: Fingerprint,
    /// What servers accepted as node at the start. `None`: it was not passed, and cannot be read.
    pub old: Option<Fingerprint>,
    /// `None`: it is not drawn yet.
    #[serde(default)]
    pub new: Option<Fingerprint>,
    /// What the datastore has, unless a PUT has begun since.
    pub saved: Saved,
    /// The servers on which a PUT has begun since.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub saving: BTreeSet<String>,
    /// The agents into whose configuration the run writes. A rollback restores these, and no other.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub agents: BTreeSet<String>,
    /// This process deletes the backup Secret: everything else is done. Another process has to see that.
    #[serde(skip)]
    pub is_ended: bool,
}

/// A `cred/passwd` that the datastore has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// The token of agents in it. `None`: the old one, which is not known.
    pub token: Option<Fingerprint>,
    /// The server that has saved it in a PUT of this run. `None`: there was none.
    pub by: Option<String>,
}

impl Record {
    /// What the run does, whatever command has begun it.
    pub(crate) fn purpose(&self) -> Purpose {
        match (self.old, self.new) {
            (_, Some(new)) if new == self.server => Purpose::Remove,
            (Some(old), _) if old == self.server => Purpose::Set,
            _ => Purpose::Rotate,
        }
    }

    /// The token that a run ends on. `None`: it is not drawn yet, or not known.
    pub(crate) fn target(&self, is_rollback: bool) -> Option<Fingerprint> {
        if is_rollback { self.old } else { self.new }
    }
}
