//! What is observed on all sides, as far as the next step depends on it: ids, fingerprints and states.

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

/// All sides of one rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    /// The failed preflight checks. A run in progress has none.
    pub blockers: Vec<Blocker>,
    /// The id of the token that is rotated.
    pub id: Id,
    /// The token that is rotated.
    pub old: TokenState,
    /// The token with the id that is journaled for the new one. Empty while there is none.
    pub new: TokenState,
    /// What is at the place of the delivery.
    pub delivery: Delivery,
    /// The place that `delivery` was read from: what `--deliver` names, else where the run delivers to.
    pub place: Option<Place>,
    /// The user says that a file on another host is lost for good (`--force=target`).
    pub lost: bool,
    /// The id of the token that the command itself logs in with, if it is one.
    pub login: Option<Id>,
    /// An address or the delivery belongs to another cluster.
    pub another_cluster: Option<Blocker>,
}

/// The public half of a bootstrap token, six characters; or, in a plan, a placeholder, which reads `<new>`.
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

/// One token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct TokenState {
    /// Its Secret, if there is one.
    pub secret: Option<SecretState>,
    /// What the API servers answer when they are asked with its value: that of the Secret, else (O) the journaled one or (N)
    /// the last one that the Secret held, if this process still knows it or the delivery still holds it.
    pub acceptance: Acceptance,
    /// Whether cluster-info carries a valid signature with this token.
    pub signed: bool,
    /// Its Secret was seen to be gone and is there again: another writer has created it.
    pub returned: bool,
    /// The other writer that wrote its Secret last, in words, if that is known.
    pub writer: Option<String>,
}

/// A Secret `bootstrap-token-<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretState {
    /// Fingerprint of the whole token, `id.secret`. `None` where the Secret holds no such value.
    pub value: Option<Fingerprint>,
    /// Whether the authenticator can accept it, and for how long.
    pub validity: Validity,
    /// The direction in which this run wrote it, by its mark. The mark names the run and the token that the run replaces; one
    /// that names others is none.
    pub mark: Option<Direction>,
    /// The rotation that created it.
    pub origin: Option<Origin>,
}

/// What is at the place of the delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Nothing is delivered.
    None,
    /// A file on another host than this one.
    OtherHost,
    /// The Secret, its key or the file does not exist.
    Missing,
    /// It exists.
    Holds {
        /// What is in it.
        content: Content,
        /// The direction in which this run wrote it, by its mark. A file has none: its lock, which ends with the process that
        /// holds it, keeps late writes away.
        mark: Option<Direction>,
        /// What the API servers answer when they are asked with what was read from it.
        acceptance: Acceptance,
        /// The other writer that wrote it last, in words, if that is known. Of a file it is not.
        writer: Option<String>,
    },
}

/// What a delivery holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// The id of the token in it, bare or in a kubeconfig. `None` where it holds no bootstrap token.
    pub id: Option<Id>,
    /// Fingerprint of the token, or of everything where there is none.
    pub value: Fingerprint,
}

impl Observed {
    /// One of the two tokens.
    pub fn token(&self, which: Which) -> &TokenState {
        match which {
            Which::Old => &self.old,
            Which::New => &self.new,
        }
    }

    /// One of the two tokens, to change it.
    pub fn token_mut(&mut self, which: Which) -> &mut TokenState {
        match which {
            Which::Old => &mut self.old,
            Which::New => &mut self.new,
        }
    }
}

impl TokenState {
    /// The value in its Secret.
    pub fn value(&self) -> Option<Fingerprint> {
        self.secret.as_ref()?.value
    }

    /// Whether its Secret holds this value.
    pub fn holds(&self, value: Fingerprint) -> bool {
        self.value() == Some(value)
    }

    /// Whether its Secret holds this value, and stays valid for longer than a write can be in flight.
    pub fn is_valid(&self, value: Fingerprint) -> bool {
        self.holds(value) && self.has(Validity::Valid)
    }

    /// Whether its Secret holds this value, and is valid now.
    pub fn works(&self, value: Fingerprint) -> bool {
        self.holds(value) && !self.has(Validity::Invalid)
    }

    fn has(&self, validity: Validity) -> bool {
        self.secret.as_ref().is_some_and(|secret| secret.validity == validity)
    }
}
