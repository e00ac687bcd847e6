//! Whether Rancher is about to render the agent's manifest anew, which would race with anybody else's change of it.

use std::fmt;

use client::secret::Fingerprint;

use super::Cluster;

/// What Rancher would render now, as far as it can be known from outside the Cluster object.
#[derive(Clone, Debug, Default)]
pub struct Rendered<'a> {
    /// The setting `agent-image`; None: images are not compared unless the cluster names its own.
    pub agent_image: Option<&'a str>,
    /// Era S: the tokens that explain the Cluster's hash annotation, which are the current one of `system` and, in a
    /// grace time, the previous one. Empty (era P, or unknown): hashes are not compared.
    pub tokens: &'a [Fingerprint],
}

/// One reason for Rancher to deploy the agent at the next event of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Redeploy {
    /// The condition `AgentDeployed` is not True.
    NotDeployed,
    /// The annotation `io.cattle.agent.force.deploy` is `"true"`.
    Forced,
    /// The image that was applied is not the one that is wanted.
    Image {
        /// `status.agentImage`.
        applied: String,
        /// By the cluster's spec or the setting.
        wanted: String,
    },
    /// The token that was applied is neither the current nor the previous one of `system` (era S).
    Token {
        /// The hash annotation; None: nothing was ever applied with a hash.
        applied: Option<Fingerprint>,
        /// What Rancher would apply.
        wanted: Fingerprint,
    },
}

impl fmt::Display for Redeploy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDeployed => {
                f.write_str("Rancher has not finished deploying the agent (AgentDeployed is not True)")
            }
            Self::Forced => f.write_str("a forced deployment of the agent is pending (io.cattle.agent.force.deploy)"),
            Self::Image { applied, wanted } => write!(f, "the agent's image is to change from {applied} to {wanted}"),
            Self::Token {
                applied: Some(applied),
                wanted,
            } => {
                write!(
                    f,
                    "Rancher has applied the token {applied} and is yet to apply {wanted}"
                )
            }
            Self::Token { applied: None, wanted } => write!(f, "Rancher is yet to apply the token {wanted}"),
        }
    }
}

impl Cluster {
    /// Why Rancher would deploy the agent at the next event of this cluster; empty if nothing seen here would make it.
    ///
    /// Rancher has more reasons (features, taints, environment, registry) that cannot be compared from outside. An image
    /// is taken for the wanted one if it only has a registry in front: Rancher puts the cluster's or the system's there.
    pub fn redeploy_pending(&self, rendered: &Rendered<'_>) -> Vec<Redeploy> {
        let mut reasons = Vec::new();
        if !self.is("AgentDeployed") {
            reasons.push(Redeploy::NotDeployed);
        }
        if self.force_deploy {
            reasons.push(Redeploy::Forced);
        }
        let wanted = self
            .desired_agent_image
            .as_deref()
            .or(rendered.agent_image)
            .filter(|image| !image.is_empty());
        if let (Some(applied), Some(wanted)) = (&self.agent_image, wanted)
            && !same_image(applied, wanted)
        {
            reasons.push(Redeploy::Image {
                applied: applied.clone(),
                wanted: wanted.to_owned(),
            });
        }
        if let Some(&wanted) = rendered.tokens.first()
            && !self
                .applied_token
                .is_some_and(|applied| rendered.tokens.contains(&applied))
        {
            reasons.push(Redeploy::Token {
                applied: self.applied_token,
                wanted,
            });
        }
        reasons
    }
}

fn same_image(applied: &str, wanted: &str) -> bool {
    applied == wanted
        || applied
            .strip_suffix(wanted)
            .is_some_and(|registry| registry.ends_with('/'))
}
