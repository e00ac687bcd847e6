//! Which server a URL leads to.
//!
//! Rancher serves every cluster's API under `/k8s/clusters/<id>` of its own URL, and that of the management cluster both
//! under `/k8s/clusters/local` and at its root. So the other URLs follow from one.

use url::Url;

use crate::cluster_id::ClusterId;

/// Which server the URL of a kubeconfig leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// `…/k8s/clusters/<id>`: through Rancher to one cluster, `local` being the management cluster.
    Proxy {
        /// Rancher's own URL.
        base: RancherUrl,
        /// The cluster that the URL leads to.
        cluster: ClusterId,
    },
    /// Anything else: Rancher's root, or an API server. [`Probe::identify`](crate::probe::Probe::identify) tells which.
    Root(RancherUrl),
}

/// The URL of a Rancher: scheme, host and, behind some load balancers, a path prefix. No query, no user, no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RancherUrl(Url);

const PROXY: [&str; 2] = ["k8s", "clusters"];

impl Reach {
    /// Reads a server URL.
    pub fn of(server: &Url) -> Self {
        let segments: Vec<&str> = server
            .path_segments()
            .into_iter()
            .flatten()
            .filter(|segment| !segment.is_empty())
            .collect();
        if let [prefix @ .., first, second, id] = segments.as_slice()
            && [*first, *second] == PROXY
            && let Ok(cluster) = id.parse()
        {
            return Self::Proxy {
                base: RancherUrl::with_path(server, prefix),
                cluster,
            };
        }
        Self::Root(RancherUrl::with_path(server, &segments))
    }

    /// Rancher's own URL, if the URL leads to Rancher.
    pub fn base(&self) -> &RancherUrl {
        match self {
            Self::Proxy { base, .. } | Self::Root(base) => base,
        }
    }

    /// The cluster that the URL leads to through Rancher. None: `local`, or not through Rancher's proxy.
    pub fn downstream(&self) -> Option<&ClusterId> {
        match self {
            Self::Proxy { cluster, .. } if cluster.as_str() != "local" => Some(cluster),
            _ => None,
        }
    }
}

impl RancherUrl {
    /// From the setting `server-url`.
    pub fn new(url: &Url) -> Self {
        let segments: Vec<&str> = url
            .path_segments()
            .into_iter()
            .flatten()
            .filter(|segment| !segment.is_empty())
            .collect();
        Self::with_path(url, &segments)
    }

    fn with_path(url: &Url, segments: &[&str]) -> Self {
        let mut url = url.clone();
        // A URL that is printed must not contain a password. Both calls fail only where there can be none.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        url.set_path(&segments.join("/"));
        Self(url)
    }

    /// The URL itself.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Where a cluster's API is served through its agent's tunnel.
    pub fn cluster(&self, id: &ClusterId) -> Url {
        let mut url = self.0.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/{}/{}/{id}", PROXY[0], PROXY[1]));
        url
    }

    /// Where the management cluster's API is served: `/k8s/clusters/local`.
    pub fn management(&self) -> Url {
        let mut url = self.0.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/{}/{}/local", PROXY[0], PROXY[1]));
        url
    }
}

impl std::fmt::Display for RancherUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}
