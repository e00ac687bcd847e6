//! The steps of a rotation.

use std::fmt;

use client::secret::Fingerprint;
use serde::{Deserialize, Serialize};

use super::observed::Id;
use super::record::Place;

/// One of the two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    Old,
    New,
}

/// One step. Each is conditional on the object as it was observed: uid and resourceVersion of a Secret, content and inode of a
/// file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Creates the Secret of the new token by a POST. Its value is drawn now.
    Create {
        /// `None`: an id has to be drawn, since there is none or it is taken.
        id: Option<Id>,
        /// The token whose usages, groups, description and labels it gets.
        like: Id,
    },
    /// Restores usages, groups and expiry of the new token: it is about to expire, or another writer has changed it.
    Repair {
        id: Id,
    },
    /// Deletes the Secret of the new token, from which another writer has removed the value.
    DeleteEmpty {
        id: Id,
    },
    /// Changes an annotation of the new token's Secret to trigger the signer, which does not retry a lost update
    /// (kubernetes/kubernetes `pkg/controller/bootstrap/bootstrapsigner.go`).
    TriggerSigner {
        id: Id,
    },
    /// Replaces the token in the delivery, which keeps its form.
    Deliver {
        which: Which,
        id: Id,
        /// The value in its Secret.
        value: Fingerprint,
        at: String,
    },
    /// Marks a delivery that already holds the token with the direction of the run. Only its version changes, so that a late write of
    /// a former holder of the lock does not match.
    FenceDelivery {
        at: String,
    },
    /// Marks the Secret of the new token in the same way.
    FenceToken {
        id: Id,
    },
    /// Journal only: the delivery is on a host that is lost for good. From here on nothing is delivered, and the delivery is not read.
    Abandon {
        place: Place,
        /// The token that is going to be revoked, if the delivery may hold it.
        revoked: Option<Id>,
    },
    Revoke {
        which: Which,
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
