//! The single steps of a rotation.

use std::fmt;

use client::secret::Fingerprint;
use engine::plan::Named;

use super::observed::Reactivated;

/// One step. Each is conditional on the object as it was observed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Mark `system`, whose value was set by Rancher or an admin and becomes the new token.
    Adopt {
        /// That value.
        token: Fingerprint,
    },
    /// Create a temporary registration token with this value, so that it stays accepted.
    CreateTemporary {
        /// The value.
        token: Fingerprint,
    },
    /// Storage `secret`: postpone the end of the grace period in the status of `system` or F.
    PostponeGrace {
        /// The token's name.
        name: String,
    },
    /// Set a new value on `system`, which is drawn now; in storage `secret` the value before becomes the previous token.
    SetNew,
    /// Set a value that exists on `system` again: the old one, or the new one that someone else has replaced.
    Restore {
        /// The value.
        token: Fingerprint,
        /// Storage `secret`: its previous token afterwards, the one that it has or the value before.
        previous: Option<Fingerprint>,
    },
    /// Set a value on F, which Rancher's planner deploys; a rollback: restore the value of another token than `system`. The mark of
    /// the run is set with it.
    SetOther {
        /// The token's name.
        name: String,
        /// The value.
        token: Fingerprint,
        /// The value that it had before this run, for the mark.
        before: Fingerprint,
        /// Storage `secret`: its previous token afterwards.
        previous: Option<Fingerprint>,
    },
    /// Storage `secret`: keep this previous token of `system` or F valid for seven days.
    Protect {
        /// The token's name.
        name: String,
        /// The previous token.
        token: Fingerprint,
    },
    /// Create the downstream Secret with this value, under the name that Rancher itself would choose.
    CreateCredentials {
        /// The value.
        token: Fingerprint,
    },
    /// Delete the downstream Secret with this value.
    DeleteCredentials {
        /// The value.
        token: Fingerprint,
    },
    /// Delete a downstream Secret that this run has created and that nothing uses.
    DeleteLeftover {
        /// Its name.
        secret: String,
    },
    /// Hold the rollout of the agent's Deployment as it is: what Rancher's planner applies starts beside the running agent.
    Hold,
    /// Point the agent's Deployment at the Secret with this value and hold the rollout: the new pod starts beside the old one,
    /// and neither is removed.
    PointHeld {
        /// The value.
        token: Fingerprint,
    },
    /// Point the Deployment back at the Secret with this value, whose pod still runs.
    PointBack {
        /// The value.
        token: Fingerprint,
    },
    /// Mark the Deployment, which names the old value already, with the direction. It only bumps the resourceVersion, so that a
    /// late write of a former holder of the lock is rejected.
    Fence,
    /// Restore the Deployment's own rollout settings: pods with other values are removed.
    Release,
    /// Annotate the Cluster, so that Rancher reconciles it: with storage `secret` its deploy controller applies the token of `system`,
    /// and its planner, if it has one, writes F into the plans of the control-plane machines.
    TriggerApply {
        /// It has a planner.
        plans: bool,
    },
    /// Annotate the Cluster of a cluster without tokens, so that Rancher creates its `default-token` again.
    Recreate,
    /// Have Rancher redeploy the agent: it creates `system` again, and applies it.
    Redeploy,
    /// Storage `secret`: end the grace period in the status of a token in ten minutes, before a value depends on it.
    LimitGrace {
        /// The token's name.
        name: String,
    },
    /// Make a revoked value valid again, for a rescue.
    Reactivate {
        /// The value.
        token: Fingerprint,
        /// How.
        by: Reactivated,
    },
    /// Delete a temporary registration token.
    DeleteTemporary {
        /// Its value.
        token: Fingerprint,
    },
    /// Storage `secret`: remove the previous value and its grace period from the Secret of a registration token.
    DropPrevious {
        /// The token's name.
        name: String,
        /// What is removed.
        token: Fingerprint,
    },
    /// Storage `secret`: remove the end of the grace period from the status of `system` or F.
    ClearGrace {
        /// The token's name.
        name: String,
    },
    /// Set a new value on another registration token of the cluster.
    Renew {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopt { token } => write!(
                f,
                "adopt {} as the new token: registration token \"system\" already has it",
                Named(token)
            ),
            Self::CreateTemporary { token } => write!(
                f,
                "create a temporary registration token that keeps {} valid",
                Named(token)
            ),
            Self::PostponeGrace { name } => {
                write!(
                    f,
                    "postpone the end of the grace period in the status of registration token \"{name}\""
                )
            }
            Self::SetNew => f.write_str("set a new value on registration token \"system\""),
            Self::Restore { token, .. } => write!(f, "restore {} on registration token \"system\"", Named(token)),
            Self::SetOther { name, token, .. } => write!(f, "set {} on registration token \"{name}\"", Named(token)),
            Self::Protect { name, token } => write!(
                f,
                "keep {} valid as the previous token of \"{name}\" for seven days",
                Named(token)
            ),
            Self::CreateCredentials { token } => write!(f, "create the agent's Secret with {}", Named(token)),
            Self::DeleteCredentials { token } => write!(f, "delete the agent's Secret with {}", Named(token)),
            Self::DeleteLeftover { secret } => write!(f, "delete the agent's Secret {secret}, which nothing uses"),
            Self::Hold => f.write_str("hold the rollout of the agent"),
            Self::PointHeld { token } => write!(f, "point the agent at {}, rollout held", Named(token)),
            Self::PointBack { token } => write!(f, "point the agent back at {}", Named(token)),
            Self::Fence => f.write_str("fence the agent's Deployment (bump its resourceVersion)"),
            Self::Release => f.write_str("release the rollout"),
            Self::TriggerApply { plans: false } => {
                f.write_str("annotate the cluster, so that Rancher applies the token of \"system\"")
            }
            Self::TriggerApply { plans: true } => {
                f.write_str("annotate the cluster, so that Rancher applies its tokens and writes the machines' plans")
            }
            Self::Recreate => {
                f.write_str("annotate the cluster, so that Rancher creates registration token \"default-token\" again")
            }
            Self::Redeploy => f.write_str("have Rancher redeploy the agent with a new registration token \"system\""),
            Self::LimitGrace { name } => write!(
                f,
                "end the grace period in the status of registration token \"{name}\" in ten minutes"
            ),
            Self::Reactivate {
                token,
                by: Reactivated::Temporary,
            } => write!(
                f,
                "make {} valid again: create a temporary registration token",
                Named(token)
            ),
            Self::Reactivate {
                token,
                by: Reactivated::Previous(name),
            } => write!(
                f,
                "make {} valid again for ten minutes, as the previous token of \"{name}\"",
                Named(token)
            ),
            Self::DeleteTemporary { token } => {
                write!(f, "revoke {}: delete its temporary registration token", Named(token))
            }
            Self::DropPrevious { name, token } => {
                write!(
                    f,
                    "revoke {}: drop it as the previous token of \"{name}\"",
                    Named(token)
                )
            }
            Self::ClearGrace { name } => {
                write!(
                    f,
                    "clear the end of the grace period in the status of registration token \"{name}\""
                )
            }
            Self::Renew { name } => write!(f, "set a new value on registration token \"{name}\""),
        }
    }
}
