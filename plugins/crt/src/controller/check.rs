//! The preflight checks that `--force=CHECK` overrides.

use engine::rotation::Check;

/// Rancher reports the agent as connected, and its Deployment is rolled out.
pub(crate) const AGENT: Check = Check {
    name: "agent",
    help: "rotate although the agent is not connected or not rolled out",
};
/// Rancher has no redeploy of the agent pending.
pub(crate) const REDEPLOY: Check = Check {
    name: "redeploy",
    help: "rotate although Rancher is about to redeploy the agent",
};
/// The agent that connected last used the token of the Secret that the Deployment names.
pub(crate) const LAST_AGENT: Check = Check {
    name: "last-agent",
    help: "rotate although the agent that connected last used another token",
};
/// Storage `secret`: `system` has no previous token other than the agent's.
pub(crate) const THIRD_TOKEN: Check = Check {
    name: "third-token",
    help: "revoke a previous token that the agent does not use",
};
/// The context of the downstream cluster is proven to lead to this cluster.
pub(crate) const CONTEXT: Check = Check {
    name: "context",
    help: "trust --downstream-context where it cannot be verified",
};
/// No GitOps tool or controller owns the agent's Deployment, its Secret or the registration token.
pub(crate) const OWNER: Check = Check {
    name: "owner",
    help: "rotate objects that a GitOps tool or controller owns",
};
/// The agent uses the address and CA of Rancher's settings.
pub(crate) const ADDRESS: Check = Check {
    name: "address",
    help: "also apply a change of Rancher's address or CA that was not pushed yet",
};
/// Every control-plane machine of a provisioned cluster has applied the plan with the new token.
pub(crate) const MACHINE: Check = Check {
    name: "machine",
    help: "revoke the old token although a control-plane machine has not applied the new one",
};
/// The plans of a provisioned cluster, and a hosted cluster's agent through Rancher, can be read.
pub(crate) const WEAK_PROOF: Check = Check {
    name: "weak-proof",
    help: "continue with the proofs that remain where others cannot be had",
};

/// The procedure was measured on clusters of this kind.
pub(crate) const UNMEASURED: Check = Check {
    name: "unmeasured",
    help: "rotate a cluster of RKE1, for which nothing was measured",
};

/// All of them.
pub(crate) const ALL: &[Check] = &[
    AGENT,
    REDEPLOY,
    LAST_AGENT,
    THIRD_TOKEN,
    CONTEXT,
    OWNER,
    ADDRESS,
    MACHINE,
    WEAK_PROOF,
    UNMEASURED,
    Check::LOCK,
    Check::JOURNAL,
];
