//! The address of a cluster, which is its identity to Argo CD, and the Secret's name that follows from it.

use std::fmt;
use std::net::Ipv6Addr;

use serde::Serialize;
use url::Url;

/// The address of a cluster as Argo CD compares it: to the letter, but for slashes at the end, which it drops
/// (`SecretToCluster` in `util/db/cluster.go` of Argo CD 3.5.1). Case and port count: `https://x` and `https://x:443` are
/// two clusters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// From the text in a Secret.
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches('/').to_owned())
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Argo CD could not call it: it takes the text as it stands, line breaks and spaces included (seen on Argo CD
    /// 3.5.1), while others trim it.
    pub(crate) fn has_blanks(&self) -> bool {
        self.0.chars().any(|c| c.is_whitespace() || c.is_control())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both lead to the same place, however it is spelled: case of the host, a port that goes without saying.
    pub fn same_place(&self, other: &Self) -> bool {
        let plain = |url: &Self| url.0.parse::<Url>().ok();
        self == other || plain(self).is_some_and(|url| plain(other).as_ref() == Some(&url))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A text that Argo CD could not name a Secret by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address of a cluster must be a URL with a host, as in https://rancher.example.com/k8s/clusters/c-abcde")]
pub struct NoHost;

/// The name that Argo CD gives the Secret of a cluster: `cluster-<host>-<FNV-1a of the whole text>`.
/// (`URIToSecretName` in `util/db/secrets.go` of Argo CD 3.5.1.)
///
/// The sum is over the text as it was given, so that one with a slash at its end has another name.
///
/// ```
/// let name = argocd::secret_name("https://rancher.example.com/k8s/clusters/c-m-abc12345");
/// assert_eq!(name.unwrap(), "cluster-rancher.example.com-4044853469");
/// ```
pub fn secret_name(uri: &str) -> Result<String, NoHost> {
    let (_, rest) = uri.split_once("://").ok_or(NoHost)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(bracketed) => {
            let address = bracketed.split(']').next().unwrap_or_default();
            let address: Ipv6Addr = address.parse().map_err(|_| NoHost)?;
            address.to_string().replace(':', "-")
        }
        None => host.split(':').next().unwrap_or_default().to_lowercase(),
    };
    if host.is_empty() {
        return Err(NoHost);
    }
    Ok(format!("cluster-{host}-{}", fnv1a(uri.as_bytes())))
}

/// The 32-bit hash of Fowler, Noll and Vo, variant 1a.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
