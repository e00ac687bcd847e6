//! The single steps that a rotation is made of.

use std::fmt;

use super::observed::{Name, TokenRef};

/// Which of the two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// O, the one that is rotated.
    Old,
    /// One that was issued to replace it.
    New,
}

/// One step. Those on Secrets are conditional on the Secret as it was observed. Those in Rancher cannot be conditional: a token
/// is issued under a name that Rancher draws, and deleted under a name that is never used again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Keep a token in the backup Secret. From here on a new one is N.
    BackUp {
        /// Which one.
        which: Which,
        /// The token.
        token: TokenRef,
    },
    /// Rancher issues a new token for the cluster, with the mark of the run.
    Issue {
        /// The token that it replaces. `None`: that one is to stay valid.
        replaces: Option<Name>,
    },
    /// Write this token to the cluster Secret, in the place of the one that it holds.
    Place {
        /// Which one.
        which: Which,
        /// The token.
        token: TokenRef,
        /// The last use of N, as Rancher records it now.
        used: Option<String>,
    },
    /// Write the mark of the direction to a cluster Secret that holds the right token already. It changes the version of the
    /// object, so that a late write of a former holder of the lock is rejected.
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
