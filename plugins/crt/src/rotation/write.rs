//! The single writes that a rotation is made of.

use std::fmt;

use client::secret::Fingerprint;
use engine::plan::Placeholder;

/// One write. Each is conditional on the object as it was observed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// The record of the run is written onto `system`, whose value was put there by Rancher or an admin and is taken as the
    /// new one.
    Adopt {
        /// That value.
        token: Fingerprint,
    },
    /// A registration token of the run is created that holds this value, so that it stays accepted.
    Bridge {
        /// The value.
        token: Fingerprint,
    },
    /// Era S: the end of grace in the status of `system` is moved far away.
    PostponeGrace,
    /// `system` gets the new value, which is drawn now; era S: with the value before as the previous one.
    Mint,
    /// `system` gets the old value back; era S: with the value before as the previous one.
    Restore {
        /// The old value.
        token: Fingerprint,
    },
    /// Era S: the previous token of `system` is written again, or protected again, with a grace of seven days.
    Protect {
        /// The previous token.
        token: Fingerprint,
    },
    /// The downstream Secret with this value is created, under the name that Rancher itself would choose.
    CreateCredentials {
        /// The value.
        token: Fingerprint,
    },
    /// The downstream Secret with this value is deleted.
    DeleteCredentials {
        /// The value.
        token: Fingerprint,
    },
    /// The agent's Deployment is pointed at the Secret with this value, and its roll-out is held: the new pod comes up
    /// beside the old one, and neither is removed.
    PointHeld {
        /// The value.
        token: Fingerprint,
    },
    /// The Deployment is pointed back at the Secret with this value, whose pod never went away.
    PointBack {
        /// The value.
        token: Fingerprint,
    },
    /// The Deployment, which names the old value already, is marked as going back. It changes nothing but the version of
    /// the object, so that a late write of a former holder of the lock does not fit any more.
    Guard,
    /// The Deployment's own roll-out settings are put back: the pods of other values go.
    Release,
    /// Era S: an annotation on the Cluster makes Rancher look at it, and apply the token of `system`.
    Touch,
    /// A bridge is deleted.
    Unbridge {
        /// What it holds.
        token: Fingerprint,
    },
    /// Era S: the previous token and its grace are removed from the Secret of `system`.
    DropPrevious {
        /// What is removed.
        token: Fingerprint,
    },
    /// Era S: the end of grace is removed from the status of `system`.
    ClearGrace,
    /// Another registration token of the cluster gets a new value.
    Renew {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopt { token } => write!(
                f,
                "adopt {} as the new token: registration token system holds it already",
                Shown(token)
            ),
            Self::Bridge { token } => write!(
                f,
                "bridge: keep {} accepted by a registration token of this run",
                Shown(token)
            ),
            Self::PostponeGrace => f.write_str("postpone the end of grace in the status of registration token system"),
            Self::Mint => f.write_str("mint: registration token system gets a new value"),
            Self::Restore { token } => write!(f, "restore {} in registration token system", Shown(token)),
            Self::Protect { token } => write!(
                f,
                "protect {} as the previous token of system for seven days",
                Shown(token)
            ),
            Self::CreateCredentials { token } => write!(f, "create the agent's Secret with {}", Shown(token)),
            Self::DeleteCredentials { token } => write!(f, "delete the agent's Secret with {}", Shown(token)),
            Self::PointHeld { token } => write!(f, "point the agent at {}, roll-out held", Shown(token)),
            Self::PointBack { token } => write!(f, "point the agent back at {}", Shown(token)),
            Self::Guard => f.write_str("mark the agent's Deployment as going back"),
            Self::Release => f.write_str("release the roll-out"),
            Self::Touch => f.write_str("touch the cluster, so that Rancher applies the token of system itself"),
            Self::Unbridge { token } => write!(f, "revoke {}: delete its bridge", Shown(token)),
            Self::DropPrevious { token } => {
                write!(f, "revoke {}: drop it as the previous token of system", Shown(token))
            }
            Self::ClearGrace => f.write_str("clear the end of grace in the status of registration token system"),
            Self::Renew { name } => write!(f, "renew registration token {name}"),
        }
    }
}

/// A fingerprint, or `<new>` for a value that is not drawn yet.
pub struct Shown<'a>(pub &'a Fingerprint);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0 == Placeholder::fingerprint() {
            f.write_str("<new>")
        } else {
            self.0.fmt(f)
        }
    }
}
