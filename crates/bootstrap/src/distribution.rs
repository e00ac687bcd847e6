//! The Kubernetes distribution of a cluster, as far as it changes how nodes join.
//!
//! Agents of K3s and RKE2 join at the supervisor with any token that authenticates. There is no `cluster-info`, no certificate signing
//! request and no binding (k3s-io/k3s `pkg/server/handlers/router.go`; seen on K3s 1.33.3).

use client::secret::Secret;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::cluster_info;
use crate::token::Token;
use crate::validation::{Group, KUBEADM_GROUP};

/// What an agent's token begins with if it contains the hash of the certificate authority (k3s-io/k3s `pkg/clientaccess/token.go`).
const WITH_HASH: &str = "K10";
/// The length of the hash, in hexadecimal digits.
const HASH_LENGTH: usize = 64;

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
    /// By the version of the API server: `v1.33.3+k3s1`.
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

    /// Whether agents join at a supervisor.
    pub fn has_supervisor(self) -> bool {
        self != Self::Kubernetes
    }

    /// The group that the distribution's own command gives a new token.
    pub fn group(self) -> Group {
        let name = match self {
            Self::Kubernetes => KUBEADM_GROUP,
            Self::K3s => "system:bootstrappers:k3s:default-node-token",
            Self::Rke2 => "system:bootstrappers:rke2:default-node-token",
        };
        name.parse().expect("a valid group")
    }
}

/// The form of a token with which an agent of K3s or RKE2 verifies the server: `K10<hash>::<id>.<secret>`. The hash is the SHA-256 of
/// the bytes that the supervisor serves at `/cacerts`. `None`: there is not exactly one certificate. A chain is hashed by its root,
/// which only the server knows.
pub fn with_authority(token: &Token, pem: &str) -> Option<Secret> {
    let certificates = cluster_info::certificates(pem).ok()?;
    let hash = (certificates.len() == 1).then(|| hex(&Sha256::digest(pem)))?;
    Some(Secret::new(format!("{WITH_HASH}{hash}::{}", token.text().expose())))
}

/// The token in this form, or the text itself.
pub(crate) fn without_hash(text: &str) -> &str {
    let hash_and_token = text.strip_prefix(WITH_HASH).and_then(|rest| rest.split_once("::"));
    match hash_and_token {
        Some((hash, token)) if hash.len() == HASH_LENGTH && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => token,
        _ => text,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// Reads the certificate authority of the supervisor. `None`: this address is not that of a supervisor, as on port 6443 of RKE2.
pub async fn authority(client: &kube::Client) -> Option<String> {
    let request = http::Request::get("/cacerts").body(Vec::new()).ok()?;
    let pem = client.request_text(request).await.ok()?;
    cluster_info::certificates(&pem).is_ok().then_some(pem)
}

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
        assert!(expected.group().as_str().starts_with("system:bootstrappers:"));
    }

    #[test]
    fn the_hash_is_that_of_the_bytes_and_can_be_removed() {
        // `printf … | sha256sum`; the content is not read.
        let one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let token = Token::parse(&Secret::new("abcdef.ghijklmnopqrstuv")).unwrap();
        let text = with_authority(&token, one).unwrap();
        let expected = "K107cc358aa45100f42d57b76e9b235253bfc6fc830b3e45858d2bc473657aae3f7::abcdef.ghijklmnopqrstuv";
        assert_eq!(text.expose(), expected);
        assert_eq!(Token::parse_joined(&text).unwrap(), token);
        assert_eq!(Token::parse_joined(&token.text()).unwrap(), token);
        assert!(Token::parse_joined(&Secret::new("K10abc::abcdef.ghijklmnopqrstuv")).is_err());
        assert!(Token::parse(&text).is_err(), "the authenticator takes no hash");
        assert!(with_authority(&token, &one.repeat(2)).is_none());
    }
}
