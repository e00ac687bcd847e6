//! The single writes that a rotation is made of.

use std::fmt;

use client::secret::Fingerprint;

use super::view::Name;

/// Which of the two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// The one that is rotated.
    Old,
    /// One that was made to take its place.
    New,
}

/// One write. Those to Secrets are conditional on the Secret as it was observed; those to Rancher cannot be conditional: a
/// token is made under a name that Rancher draws, and deleted under a name that is never used again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// The value of O is kept in the Secret of the rotation.
    ParkOld {
        /// Its name, if it has one.
        name: Option<Name>,
        /// Its value.
        value: Fingerprint,
    },
    /// Rancher makes a new token for the cluster, with the mark of the run.
    Mint {
        /// The token that it takes the place of. `None`: that one is to stay valid.
        replaces: Option<Name>,
    },
    /// The value of a new token is kept in the Secret of the rotation; from here on it is N.
    ParkNew {
        /// Its name.
        name: Name,
        /// Its value.
        value: Fingerprint,
    },
    /// The cluster Secret gets this token in the place of the one that it holds.
    Place {
        /// Which one.
        which: Which,
        /// Its name, if it has one.
        name: Option<Name>,
        /// Its value.
        value: Fingerprint,
        /// Its last use, as Rancher notes it now.
        used: Option<String>,
    },
    /// The cluster Secret, which holds the right token already, gets the mark of the leg. It changes nothing but the version
    /// of the object, so that a late write of a former holder of the lock does not fit any more.
    Guard,
    /// Journal only: the way back is given up.
    Keep,
    /// A token is deleted in Rancher.
    Revoke {
        /// Which one.
        which: Which,
        /// Its name.
        name: Name,
    },
    /// The Secret of the rotation is deleted.
    Unpark,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ParkOld { name, value } => write!(f, "park {}, which is in use", Shown(name.as_ref(), *value)),
            Self::Mint { .. } => f.write_str("mint a new token for this cluster alone"),
            Self::ParkNew { name, value } => write!(f, "park {}", Shown(Some(name), *value)),
            Self::Place { name, value, .. } => {
                write!(f, "put {} into the cluster Secret", Shown(name.as_ref(), *value))
            }
            Self::Guard => f.write_str("mark the cluster Secret, so that no late write fits it"),
            Self::Keep => f.write_str("keep the new token: the old one is dead, there is no way back to it"),
            Self::Revoke { name, .. } => write!(f, "revoke {}: delete it in Rancher", Named(name)),
            Self::Unpark => f.write_str("delete what was parked"),
        }
    }
}

/// A token in a sentence: its name, or the fingerprint of one that has none.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub Option<&'a Name>, pub Fingerprint);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => Named(name).fmt(f),
            None => write!(f, "the token {}", self.1),
        }
    }
}

/// A token by its name, or `<new>` for one that is not made yet.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a>(pub &'a Name);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No name in Rancher begins so.
        if self.0.0.starts_with('<') {
            f.write_str("<new>")
        } else {
            self.0.fmt(f)
        }
    }
}
