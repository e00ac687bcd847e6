//! The fixed grammar of a rotation: six phases and two directions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a rotation stands. The order of the variants is the order of the phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Both sides are read, and what is unsafe is refused. Nothing is written but the Lease.
    Survey,
    /// The new credential comes to exist beside the old one, which stays valid.
    Make,
    /// The consumer is pointed at the new credential.
    Place,
    /// A real call with the new credential, by the real consumer, succeeds.
    Prove,
    /// The old credential is revoked. From here there is only forward.
    Retire,
    /// A real call with the old credential is refused.
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

    /// Whether a rotation that has come this far may still be undone.
    pub fn may_be_undone(self) -> bool {
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

/// Which of the two credentials a rotation shall end on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// The new one: the old one is retired.
    Forward,
    /// The old one: the start is restored. Exists only until *retire*.
    Back,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Forward => "forward",
            Self::Back => "back",
        })
    }
}
