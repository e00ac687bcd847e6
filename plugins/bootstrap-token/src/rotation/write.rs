//! The single writes that a rotation is made of.

use std::fmt;

use client::secret::Fingerprint;
use engine::plan::Placeholder;
use engine::protocol::Draw as _;
use serde::{Deserialize, Serialize};

use super::view::Id;

/// Which of the two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The one that is rotated.
    Old,
    /// The one that takes its place.
    New,
}

/// One write. Each is conditional on the object as it was observed: uid and resourceVersion of a Secret, content and
/// inode of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// The Secret of the new token is created, by a plain POST; its value is drawn now.
    Create {
        /// Its id; `None` where one is to be drawn, since there is none yet or it is taken.
        id: Option<Id>,
        /// Whose usages, groups, description and labels it gets.
        like: Id,
    },
    /// Usages, groups and time to live of the new token are put right: it is about to expire, or somebody changed it.
    Mend {
        /// Its id.
        id: Id,
    },
    /// The Secret of the new token is deleted, since somebody took its value out of it.
    Clear {
        /// Its id.
        id: Id,
    },
    /// The Secret of the new token gets a mark that says nothing, so that the signer looks at it again: an update that it
    /// loses is made up for only at the next change (kubernetes/kubernetes `pkg/controller/bootstrap/bootstrapsigner.go`).
    Touch {
        /// Its id.
        id: Id,
    },
    /// The target gets this token, in the form that is there.
    Deliver {
        /// Which one.
        which: Which,
        /// Its id.
        id: Id,
        /// Its value, as it was read from its Secret.
        value: Fingerprint,
        /// The target.
        at: String,
    },
    /// The target, which holds the right token already, gets the mark of the leg. It changes nothing but the version of the
    /// object, so that a late write of a former holder of the lock does not fit any more.
    GuardTarget {
        /// The target.
        at: String,
    },
    /// Journal only: the target is on a host that the user has given up. From here on nothing is delivered, and nothing that
    /// is in it is asked about.
    Leave {
        /// The target.
        at: String,
        /// Its host.
        host: String,
        /// The token that goes in the end: whoever reads that one there is refused from then on. `None` where only the one
        /// that stays can be there.
        dies: Option<Id>,
    },
    /// Journal only: the way back is given up.
    Keep {
        /// The new token, which stays.
        id: Id,
        /// The old one, which is gone or about to expire.
        lost: Id,
    },
    /// The Secret of the new token gets the mark of the leg, as with [`Self::GuardTarget`].
    GuardToken {
        /// Its id.
        id: Id,
    },
    /// The Secret of a token is deleted.
    Delete {
        /// Which one.
        which: Which,
        /// Its id.
        id: Id,
    },
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { id: None, like } => write!(f, "create a new bootstrap token like {}", Shown(like)),
            Self::Create { id: Some(id), like } => {
                write!(f, "create bootstrap token {} like {}", Shown(id), Shown(like))
            }
            Self::Mend { id } => write!(
                f,
                "put bootstrap token {} right: usages, groups and time to live",
                Shown(id)
            ),
            Self::Clear { id } => write!(
                f,
                "delete the Secret of bootstrap token {}, which lost its value",
                Shown(id)
            ),
            Self::Touch { id } => write!(
                f,
                "touch bootstrap token {}, so that cluster-info is signed with it",
                Shown(id)
            ),
            Self::Deliver { id, at, .. } => write!(f, "deliver bootstrap token {} to {at}", Shown(id)),
            Self::GuardTarget { at } => write!(f, "mark {at}, so that no late write fits it"),
            Self::Leave { at, host, dies } => {
                write!(f, "leave {at} on {host} behind: whoever reads it there ")?;
                match dies {
                    Some(id) => write!(f, "and finds {} will be refused", Shown(id)),
                    None => f.write_str("finds the token that stays"),
                }
            }
            Self::Keep { id, lost } => write!(
                f,
                "keep bootstrap token {}: {} is gone or about to expire, there is no way back to it",
                Shown(id),
                Shown(lost)
            ),
            Self::GuardToken { id } => write!(f, "mark bootstrap token {}, so that no late write fits it", Shown(id)),
            Self::Delete { id, .. } => write!(f, "revoke bootstrap token {}: delete its Secret", Shown(id)),
        }
    }
}

/// An id, or `<new>` for one that is not drawn yet.
pub struct Shown<'a>(pub &'a Id);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.0 == Placeholder.mark() {
            f.write_str("<new>")
        } else {
            self.0.fmt(f)
        }
    }
}
