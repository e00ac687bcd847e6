//! The Kubernetes distribution of a cluster, and what K3s and RKE2 call their parts.
//!
//! Agents of K3s and RKE2 join at the supervisor with any token that authenticates. There is no `cluster-info`, no certificate signing
//! request and no binding (k3s-io/k3s `pkg/server/handlers/router.go`; seen on K3s 1.33.3).

use serde::Serialize;

/// A Kubernetes distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Nodes join by `kubeadm join` or by the TLS bootstrapping of the kubelet.
    Kubernetes,
    /// K3s.
    K3s,
    /// RKE2.
    Rke2,
}

impl Distribution {
    /// By the version of the API server or of a kubelet: `v1.33.3+k3s1`.
    pub fn of_version(version: &str) -> Self {
        let build = version.split_once('+').map_or("", |(_, build)| build);
        if build.starts_with("k3s") {
            Self::K3s
        } else if build.starts_with("rke2") {
            Self::Rke2
        } else {
            Self::Kubernetes
        }
    }

    /// The supervisor that agents join at.
    pub fn supervisor(self) -> Option<SupervisorKind> {
        match self {
            Self::Kubernetes => None,
            Self::K3s => Some(SupervisorKind::K3s),
            Self::Rke2 => Some(SupervisorKind::Rke2),
        }
    }
}

/// Whose supervisor it is. It determines ports, paths and the names of annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SupervisorKind {
    /// K3s.
    K3s,
    /// RKE2.
    Rke2,
}

impl SupervisorKind {
    /// The name of the program, which is part of paths and annotations: `k3s`, `rke2`.
    pub fn program(self) -> &'static str {
        match self {
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        }
    }

    /// The name of the service on servers, as its installer calls it.
    pub fn server_unit(self) -> &'static str {
        match self {
            Self::K3s => "k3s",
            Self::Rke2 => "rke2-server",
        }
    }

    /// The name of the service on agents.
    pub fn agent_unit(self) -> &'static str {
        match self {
            Self::K3s => "k3s-agent",
            Self::Rke2 => "rke2-agent",
        }
    }

    /// The default port of the supervisor. K3s serves it on the port of the API server.
    pub fn port(self) -> u16 {
        match self {
            Self::K3s => API_PORT,
            Self::Rke2 => 9345,
        }
    }

    /// A path of the supervisor's own API: `/v1-k3s/token`.
    pub(crate) fn path(self, name: &str) -> String {
        format!("/v1-{}/{name}", self.program())
    }

    /// Whether this version can change its token: `PUT /v1-k3s/token` came with v1.25.15, v1.26.10, v1.27.7 and v1.28.3; on RKE2 with
    /// the `rke2r2` of these. `None`: not a version.
    pub fn can_change_token(self, version: &str) -> Option<bool> {
        let (numbers, build) = version.strip_prefix('v')?.split_once('+')?;
        let mut numbers = numbers.split(['.', '-']).map(str::parse::<u32>);
        let (major, minor, patch) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let first = match (major, minor) {
            (1, ..=24) => return Some(false),
            (1, 25) => 15,
            (1, 26) => 10,
            (1, 27) => 7,
            (1, 28) => 3,
            _ => return Some(true),
        };
        let is_first_release = self == Self::Rke2 && build.starts_with("rke2r1");
        Some(patch > first || patch == first && !is_first_release)
    }
}

/// The default port of the API server.
pub(crate) const API_PORT: u16 = 6443;

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("v1.36.3", Distribution::Kubernetes)]
    #[case("v1.33.3+k3s1", Distribution::K3s)]
    #[case("v1.33.3+rke2r1", Distribution::Rke2)]
    #[case("v1.36.3-gke.1+k3", Distribution::Kubernetes)]
    fn the_version_names_the_distribution(#[case] version: &str, #[case] expected: Distribution) {
        assert_eq!(Distribution::of_version(version), expected);
    }

    #[rstest]
    #[case("v1.24.17+k3s1", Some(false))]
    #[case("v1.25.14+k3s1", Some(false))]
    #[case("v1.25.15+k3s1", Some(true))]
    #[case("v1.27.7+rke2r1", Some(false))]
    #[case("v1.27.7+rke2r2", Some(true))]
    #[case("v1.28.2+k3s1", Some(false))]
    #[case("v1.28.10+rke2r1", Some(true))]
    #[case("v1.29.0-rc1+k3s1", Some(true))]
    #[case("v1.36.3+k3s1", Some(true))]
    #[case("v2.0.0+k3s1", Some(true))]
    #[case("v1.36.3", None)]
    #[case("1.36.3+k3s1", None)]
    #[case("v1.x.3+k3s1", None)]
    #[case("", None)]
    fn the_version_tells_whether_the_token_can_be_changed(#[case] version: &str, #[case] expected: Option<bool>) {
        let kind = Distribution::of_version(version).supervisor();
        assert_eq!(kind.unwrap_or(SupervisorKind::K3s).can_change_token(version), expected);
    }
}
