//! The observed state that the next step depends on: ids, fingerprints and states.

use std::fmt;

use client::secret::Fingerprint;
use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::plan::Placeholder;
use engine::rotation::Blocker;
use engine::run::Draw as _;
use serde::{Deserialize, Serialize};

use super::record::{Origin, Place};
use super::step::Which;

/// The observed state of one rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    /// The failed preflight checks. A run in progress has none.
    pub blockers: Vec<Blocker>,
    /// The id of the rotated token.
    pub id: Id,
    pub old: TokenState,
    /// The token with the journaled id of the new one. Empty while there is none.
    pub new: TokenState,
    pub delivery: Delivery,
    /// The place that `delivery` was read from: that of `--deliver`, else that of the run.
    pub place: Option<Place>,
    /// A file on another host is lost for good (`--force=target`).
    pub lost: bool,
    /// The id of the token that the command logs in with.
    pub login: Option<Id>,
    /// A server or the delivery belongs to another cluster.
    pub another_cluster: Option<Blocker>,
}

/// The id of a bootstrap token; in a plan also a placeholder, displayed as `<new>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub String);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Placeholder.mark() {
            f.pad("<new>")
        } else {
            f.pad(&self.0)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct TokenState {
    pub secret: Option<SecretState>,
    /// Whether the API servers accept its value: the one in the Secret, else (O) the journaled one or (N) the last one in the Secret,
    /// if this process remembers it or the delivery holds it.
    pub acceptance: Acceptance,
    /// Whether cluster-info has a valid signature with this token.
    pub signed: bool,
    /// Its Secret was gone and exists again: another writer has created it.
    pub returned: bool,
    /// The other writer that wrote its Secret last, if it is known.
    pub writer: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretState {
    /// The whole token, `id.secret`. `None`: the Secret holds no valid value.
    pub value: Option<Fingerprint>,
    /// By the rules of the authenticator.
    pub validity: Validity,
    /// The direction in the mark of this run. Marks that name another run or another rotated token are ignored.
    pub mark: Option<Direction>,
    pub origin: Option<Origin>,
}

/// The state of the delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Nothing is delivered.
    None,
    /// A file on another host than this one.
    OtherHost,
    /// The Secret, its key or the file does not exist.
    Missing,
    Holds {
        content: Content,
        /// The direction in the mark of this run. A file has no mark: its lock, which ends with the process, prevents late writes.
        mark: Option<Direction>,
        /// Whether the API servers accept the token in it.
        acceptance: Acceptance,
        /// The other writer that wrote it last, if it is known. Unknown for a file.
        writer: Option<String>,
    },
}

/// The content of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// The id of the token in it. `None`: it holds no bootstrap token.
    pub id: Option<Id>,
    /// The fingerprint of the token, or of everything if there is no token.
    pub value: Fingerprint,
}

impl Observed {
    pub fn token(&self, which: Which) -> &TokenState {
        match which {
            Which::Old => &self.old,
            Which::New => &self.new,
        }
    }

    pub fn token_mut(&mut self, which: Which) -> &mut TokenState {
        match which {
            Which::Old => &mut self.old,
            Which::New => &mut self.new,
        }
    }
}

impl TokenState {
    pub fn value(&self) -> Option<Fingerprint> {
        self.secret.as_ref()?.value
    }

    pub fn holds(&self, value: Fingerprint) -> bool {
        self.value() == Some(value)
    }

    /// Whether its Secret holds this value, and stays valid for longer than a write can be in flight.
    pub fn is_valid(&self, value: Fingerprint) -> bool {
        self.holds(value) && self.has(Validity::Valid)
    }

    /// Whether its Secret holds this value, and is valid or about to expire.
    pub fn works(&self, value: Fingerprint) -> bool {
        self.holds(value) && !self.has(Validity::Invalid)
    }

    fn has(&self, validity: Validity) -> bool {
        self.secret.as_ref().is_some_and(|secret| secret.validity == validity)
    }
}
