//! What can be said of a credential without knowing its value: whether it is accepted, and how long it is valid.

/// What the systems that check a credential answer when they are asked with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Acceptance {
    /// Every one that was asked accepts it.
    Accepted,
    /// Every one that was asked rejects it.
    Rejected,
    /// They disagree, or one has not answered; with the reason, which may be empty.
    Unknown(String),
    /// None was asked: the value is not known, or it does not matter now.
    #[default]
    NotAsked,
}

impl Acceptance {
    /// Whether it is accepted beyond doubt. What is to be used must be.
    pub fn is_accepted(&self) -> bool {
        *self == Self::Accepted
    }

    /// Whether it was asked about and is not rejected. What is to be revoked counts as accepted while that is in doubt.
    pub fn may_be_accepted(&self) -> bool {
        matches!(self, Self::Accepted | Self::Unknown(_))
    }

    /// Why the answer is not known; empty where it is.
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
