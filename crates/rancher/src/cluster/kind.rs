//! Kinds of clusters. The kind decides how the agent can be given another token.

use std::fmt;

use super::ClusterId;

/// How a cluster was added to Rancher.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterKind {
    /// Imported: generic, K3s or RKE2. Only its agent connects it to Rancher.
    Imported,
    /// RKE2 or K3s provisioned by Rancher. Its node plan deploys the agent too.
    Provisioned,
    /// EKS, AKS, GKE or Alibaba: registered or created through the provider's API.
    Hosted(Provider),
    /// Harvester, which keeps the import URL in its own setting.
    Harvester,
    /// The cluster that Rancher runs in. It has no agent.
    Local,
    /// Rancher Kubernetes Engine 1, up to Rancher 2.11. It also has node agents.
    Rke1,
    /// Not connected yet, or an unknown driver.
    Unknown,
}

/// The provider of a hosted cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Amazon.
    Eks,
    /// Microsoft.
    Aks,
    /// Google.
    Gke,
    /// Alibaba Cloud.
    Alibaba,
}

impl ClusterKind {
    /// By id, `spec.internal`, annotation `provisioning.cattle.io/administrated`, `status.driver`, `status.provider`.
    pub(super) fn of(id: &ClusterId, internal: bool, administrated: bool, driver: &str, provider: &str) -> Self {
        if internal || id.as_str() == "local" {
            return Self::Local;
        }
        if provider == "harvester" || driver == "harvester" {
            return Self::Harvester;
        }
        if administrated || id.as_str().starts_with("c-m-") {
            return Self::Provisioned;
        }
        match driver.to_ascii_lowercase().as_str() {
            "imported" | "k3s" | "rke2" => Self::Imported,
            "eks" => Self::Hosted(Provider::Eks),
            "aks" => Self::Hosted(Provider::Aks),
            "gke" => Self::Hosted(Provider::Gke),
            "alibaba" => Self::Hosted(Provider::Alibaba),
            "rancherkubernetesengine" => Self::Rke1,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for ClusterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Imported => "imported",
            Self::Provisioned => "provisioned",
            Self::Hosted(Provider::Eks) => "EKS",
            Self::Hosted(Provider::Aks) => "AKS",
            Self::Hosted(Provider::Gke) => "GKE",
            Self::Hosted(Provider::Alibaba) => "Alibaba",
            Self::Harvester => "harvester",
            Self::Local => "local",
            Self::Rke1 => "RKE1",
            Self::Unknown => "unknown",
        })
    }
}
