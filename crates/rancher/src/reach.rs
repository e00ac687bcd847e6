//! What a connection's URL says about where it leads.
//!
//! Rancher serves every cluster's API under `/k8s/clusters/<id>` of its own URL, and the management cluster's both under
//! `/k8s/clusters/local` and at its root. So one URL gives all the others.

use url::Url;

use crate::cluster_id::ClusterId;

/// Where a kubeconfig's server URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// `…/k8s/clusters/<id>`: through Rancher to one cluster, `local` being the management cluster.
    Proxy {
        /// Rancher's own URL.
        base: RancherUrl,
        /// The cluster that the URL leads to.
        cluster: ClusterId,
    },
    /// Anything else: Rancher's own root, or an API server without Rancher in front. The URL does not tell which;
    /// [`Probe::identify`](crate::probe::Probe::identify) does.
    Root(RancherUrl),
}

/// The URL of a Rancher: scheme, host and, behind some load balancers, a path prefix. No query, no user, no slash at
/// its end.
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

    /// Rancher's own URL, if it is Rancher that is reached.
    pub fn base(&self) -> &RancherUrl {
        match self {
            Self::Proxy { base, .. } | Self::Root(base) => base,
        }
    }

    /// The cluster that a context leads to through Rancher. None: `local`, or not through Rancher's proxy.
    pub fn downstream(&self) -> Option<&ClusterId> {
        match self {
            Self::Proxy { cluster, .. } if cluster.as_str() != "local" => Some(cluster),
            _ => None,
        }
    }
}

impl RancherUrl {
    /// Rancher's URL as the setting `server-url` has it.
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
        // A URL that is shown must not carry a password; both calls fail only where there can be none.
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
