//! Whether Rancher is about to redeploy the agent, which would race with another change of it.

use std::fmt;

use client::secret::Fingerprint;

use super::Cluster;

/// What Rancher would render now, as far as the Cluster object does not tell.
#[derive(Clone, Debug, Default)]
pub struct Rendered<'a> {
    /// The setting `agent-image`; None: images are not compared unless the cluster names its own.
    pub agent_image: Option<&'a str>,
    /// Storage `secret`: the tokens that explain the Cluster's hash annotation, which are the current one of `system` and,
    /// during a grace period, the previous one. Empty (storage `status`, or unknown): hashes are not compared.
    pub tokens: &'a [Fingerprint],
}

/// One reason for Rancher to redeploy the agent when it reconciles the cluster next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Redeploy {
    /// The condition `AgentDeployed` is not True.
    NotDeployed,
    /// The annotation `io.cattle.agent.force.deploy` is `"true"`.
    Forced,
    /// Another image was applied than the desired one.
    Image {
        /// `status.agentImage`.
        applied: String,
        /// By the cluster's spec or by the setting.
        wanted: String,
    },
    /// Storage `secret`: the token that was applied is neither the current nor the previous one of `system`.
    Token {
        /// The hash annotation. None: Rancher has not set it yet.
        applied: Option<Fingerprint>,
        /// What Rancher would apply.
        wanted: Fingerprint,
    },
}

impl fmt::Display for Redeploy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDeployed => {
                f.write_str("Rancher has not finished deploying the agent (condition AgentDeployed is not True)")
            }
            Self::Forced => f.write_str("a forced redeploy of the agent is pending (io.cattle.agent.force.deploy)"),
            Self::Image { applied, wanted } => {
                write!(
                    f,
                    "Rancher is about to change the agent's image from {applied} to {wanted}"
                )
            }
            Self::Token {
                applied: Some(applied),
                wanted,
            } => {
                write!(f, "Rancher is about to apply token {wanted} instead of {applied}")
            }
            Self::Token { applied: None, wanted } => write!(f, "Rancher is about to apply token {wanted}"),
        }
    }
}

impl Cluster {
    /// Why Rancher would redeploy the agent when it reconciles this cluster next; empty where no reason is known.
    ///
    /// Rancher has more reasons (features, taints, environment, registry), which cannot be compared from outside. An image that
    /// only has a registry as a prefix is the desired one: Rancher adds that of the cluster or of the system.
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
