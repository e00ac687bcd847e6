//! The six phases of a rotation.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a rotation has come. The order of the variants is the order of the phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Read both sides and refuse what is unsafe. The only write is the Lease.
    Survey,
    /// Create the new credential. The old one stays valid.
    Make,
    /// Switch the consumer to the new credential.
    Place,
    /// Verify it: a real call by the real consumer succeeds.
    Prove,
    /// Revoke the old credential. This cannot be undone.
    Retire,
    /// Check that a real call with the old credential is rejected.
    Confirm,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Survey,
        Self::Make,
        Self::Place,
        Self::Prove,
        Self::Retire,
        Self::Confirm,
    ];

    /// Whether a rotation that has come this far can still be rolled back.
    pub fn can_be_undone(self) -> bool {
        self < Self::Retire
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Survey => "survey",
            Self::Make => "make",
            Self::Place => "place",
            Self::Prove => "prove",
            Self::Retire => "retire",
            Self::Confirm => "confirm",
        })
    }
}
