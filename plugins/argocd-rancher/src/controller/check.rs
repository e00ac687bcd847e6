//! The preflight checks that `--force=CHECK` overrides.

use engine::rotation::Check;

/// The new token reaches the cluster: its agent is connected.
pub(crate) const OFFLINE: Check = Check {
    name: "offline",
    help: "check the new token at Rancher only, where the agent is offline",
};
/// The new token can list and watch everything that Argo CD watches.
pub(crate) const RIGHTS: Check = Check {
    name: "rights",
    help: "rotate although the owner of the new token lacks permissions",
};
/// Argo CD's use of the new token can be observed.
pub(crate) const USE: Check = Check {
    name: "use",
    help: "do not wait until Argo CD has used the new token",
};
/// Nothing else manages the cluster Secret.
pub(crate) const OWNER: Check = Check {
    name: "owner",
    help: "rotate the token of a Secret that a GitOps tool or controller owns",
};

/// The journal can be resumed by this user.
pub(crate) const JOURNAL: Check = Check {
    name: "journal",
    help: "discard a journal that cannot be read or resumed, or that belongs to another Rancher user",
};

pub(crate) const ALL: &[Check] = &[OFFLINE, RIGHTS, USE, OWNER, Check::LOCK, JOURNAL];
