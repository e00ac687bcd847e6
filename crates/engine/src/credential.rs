//! The properties of a credential that do not reveal its value: whether it is accepted, and how long it is valid.

/// Whether the systems that check a credential accept it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Acceptance {
    /// Every one that was asked accepts it.
    Accepted,
    /// Every one that was asked rejects it.
    Rejected,
    /// They disagree, or one did not answer. The reason may be empty.
    Unknown(String),
    /// None was asked, because the value is unknown or the result is not needed.
    #[default]
    NotAsked,
}

impl Acceptance {
    /// Whether every system accepts it. A credential that is put to use must be accepted.
    pub fn is_accepted(&self) -> bool {
        *self == Self::Accepted
    }

    /// Whether a system accepts it, or may accept it. A credential that is revoked counts as accepted while this is
    /// unknown.
    pub fn may_be_accepted(&self) -> bool {
        matches!(self, Self::Accepted | Self::Unknown(_))
    }

    /// Why the result is unknown; empty if it is known.
    pub fn reason(&self) -> &str {
        match self {
            Self::Unknown(reason) => reason,
            Self::Accepted | Self::Rejected | Self::NotAsked => "",
        }
    }
}

/// How long a credential is valid, by the clock of the server that checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Validity {
    /// It has expired, is disabled, is being deleted, or breaks a rule.
    Invalid,
    /// It expires within the longest time that a write can be in flight.
    Expiring,
    /// It stays valid for longer than that.
    Valid,
}
