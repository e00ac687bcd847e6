//! The URL of a cluster, which identifies it to Argo CD, and the name of its Secret.

use std::fmt;
use std::net::Ipv6Addr;

use client::redact;
use serde::{Serialize, Serializer};
use url::Url;

/// The URL of a cluster. Argo CD compares it as text, without slashes at its end (`SecretToCluster` in `util/db/cluster.go` of
/// Argo CD 3.5.1). So `https://x` and `https://x:443` are two clusters. It is printed without user name and password.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// Whether it contains white space. Argo CD does not trim it, and cannot call it (seen on Argo CD 3.5.1).
    pub(crate) fn has_blanks(&self) -> bool {
        self.0.chars().any(|c| c.is_whitespace() || c.is_control())
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both are the same URL in any spelling, such as the case of the host, a default port, or a double slash.
    pub fn same_place(&self, other: &Self) -> bool {
        self == other || self.place() == other.place()
    }

    /// Its common spelling: the same for every URL of the same place.
    pub(crate) fn place(&self) -> String {
        self.plain().map_or_else(|| self.0.clone(), String::from)
    }

    /// Whether both lead to the same API server. Argo CD takes URLs with different queries (`?__uid=…`) as different clusters, but
    /// does not send the query (`NewRESTClient` in client-go).
    pub fn same_endpoint(&self, other: &Self) -> bool {
        let endpoint = |url: &Self| {
            let mut url = url.plain()?;
            url.set_query(None);
            Some(url)
        };
        self.same_place(other) || endpoint(self).is_some_and(|url| endpoint(other).as_ref() == Some(&url))
    }

    /// Without the empty segments of its path.
    fn plain(&self) -> Option<Url> {
        let mut url: Url = self.0.parse().ok()?;
        let segments = url.path_segments()?.filter(|segment| !segment.is_empty());
        let path = segments.collect::<Vec<_>>().join("/");
        url.set_path(&path);
        Some(url)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&redact::without_user_info(&self.0))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ServerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A URL from which Argo CD cannot derive the name of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address of a cluster must be a URL with a host, such as https://rancher.example.com/k8s/clusters/c-abcde")]
pub struct NoHost;

/// The name that Argo CD gives the Secret of a cluster: `cluster-<host>-<FNV-1a of the whole text>` (`URIToSecretName` in
/// `util/db/secrets.go` of Argo CD 3.5.1). A slash at the end of the text changes the name.
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

/// The 32-bit FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
