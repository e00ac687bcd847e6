//! The steps that a rotation is made of.

use std::fmt;

use client::secret::Fingerprint;
use serde::{Deserialize, Serialize};

use super::observed::Id;
use super::record::Place;

/// Which of the two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The one that is rotated.
    Old,
    /// The new one.
    New,
}

/// One step. Each is conditional on the object as it was observed: uid and resourceVersion of a Secret, content and inode of a
/// file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Creates the Secret of the new token by a plain POST. Its value is drawn now.
    Create {
        /// Its id; `None` where one has to be drawn, since there is none yet or it is taken.
        id: Option<Id>,
        /// The token whose usages, groups, description and labels it gets.
        like: Id,
    },
    /// Restores usages, groups and expiry of the new token: it is about to expire, or another writer has changed it.
    Repair {
        /// Its id.
        id: Id,
    },
    /// Deletes the Secret of the new token, from which another writer has removed the value.
    DeleteEmpty {
        /// Its id.
        id: Id,
    },
    /// Changes an annotation of the new token's Secret, so that the signer looks at it again: it makes up for a lost update only
    /// at the next change (kubernetes/kubernetes `pkg/controller/bootstrap/bootstrapsigner.go`).
    TriggerSigner {
        /// Its id.
        id: Id,
    },
    /// Writes a token to the place of the delivery, in the form that is there.
    Deliver {
        /// Which one.
        which: Which,
        /// Its id.
        id: Id,
        /// Its value, as it was read from its Secret.
        value: Fingerprint,
        /// Where to.
        at: String,
    },
    /// Marks a delivery that holds the right token already with the direction of the run. Only its version changes, so that a
    /// late write of a former holder of the lock does not match.
    FenceDelivery {
        /// Where.
        at: String,
    },
    /// Does the same to the Secret of the new token.
    FenceToken {
        /// Its id.
        id: Id,
    },
    /// Journal only: the delivery is on a host that the user gives up. From here on nothing is delivered, and what is there is
    /// not looked at.
    Abandon {
        /// The delivery.
        place: Place,
        /// The token that is revoked in the end, if the delivery may hold it.
        revoked: Option<Id>,
    },
    /// Deletes the Secret of a token.
    Revoke {
        /// Which one.
        which: Which,
        /// Its id.
        id: Id,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { id: None, like } => write!(f, "create a new bootstrap token like {like}"),
            Self::Create { id: Some(id), like } => write!(f, "create bootstrap token {id} like {like}"),
            Self::Repair { id } => write!(f, "repair bootstrap token {id}: usages, groups and expiry"),
            Self::DeleteEmpty { id } => {
                write!(f, "delete the Secret of bootstrap token {id}, which has lost its value")
            }
            Self::TriggerSigner { id } => {
                write!(
                    f,
                    "trigger the signer, so that cluster-info is signed with bootstrap token {id}"
                )
            }
            Self::Deliver { id, at, .. } => write!(f, "deliver bootstrap token {id} to {at}"),
            Self::FenceDelivery { at } => write!(f, "fence {at} against late writes"),
            Self::FenceToken { id } => write!(f, "fence bootstrap token {id} against late writes"),
            Self::Abandon { place, revoked } => {
                write!(f, "abandon {} on {}: ", place.at, place.host())?;
                match revoked {
                    Some(id) => write!(f, "nodes that read {id} there will be rejected"),
                    None => f.write_str("it holds the token that stays valid"),
                }
            }
            Self::Revoke { id, .. } => write!(f, "revoke bootstrap token {id}: delete its Secret"),
        }
    }
}
