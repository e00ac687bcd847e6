//! The steps of a rotation.

use std::fmt;

use super::observed::{Name, TokenRef};

/// Which of the two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// O, the token that is rotated.
    Old,
    /// A token that was issued to replace it.
    New,
}

/// One step. Writes of Secrets are conditional on the observed version. Requests to Rancher cannot be conditional: Rancher chooses the
/// name of a new token, and a name is never reused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Write a token to the backup Secret. A new token becomes N.
    BackUp {
        /// Which one.
        which: Which,
        /// The token.
        token: TokenRef,
    },
    /// Issue a new token for the cluster, with the mark of the run.
    Issue {
        /// The token that it replaces. `None`: that token is to stay valid.
        replaces: Option<Name>,
    },
    /// Replace the token in the cluster Secret.
    Place {
        /// Which one.
        which: Which,
        /// The token.
        token: TokenRef,
        /// The last use of N, as Rancher records it now.
        used: Option<String>,
    },
    /// Write the mark of the direction to a cluster Secret that already holds the right token. The new version of the object makes the
    /// API server reject a late write by a former holder of the lock.
    Fence,
    /// Delete a token in Rancher.
    Revoke {
        /// Which one.
        which: Which,
        /// Its name.
        name: Name,
    },
    /// Delete the backup Secret.
    DeleteBackup,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackUp {
                which: Which::Old,
                token,
            } => write!(f, "back up {token}, which is in use"),
            Self::BackUp { token, .. } => write!(f, "back up {token}"),
            Self::Issue { .. } => f.write_str("issue a new token for this cluster only"),
            Self::Place { token, .. } => write!(f, "write {token} to the cluster Secret"),
            Self::Fence => f.write_str("fence the cluster Secret, so that late writes are rejected"),
            Self::Revoke { name, .. } => write!(f, "revoke {name}: delete it in Rancher"),
            Self::DeleteBackup => f.write_str("delete the backup Secret"),
        }
    }
}
