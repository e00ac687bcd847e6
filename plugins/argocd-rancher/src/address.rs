//! The URLs of clusters that are reached through Rancher.

use argocd::ServerUrl;
use client::error::Error;
use rancher::ClusterId;
use rancher::reach::{RancherUrl, Reach};
use url::Url;

/// The URL of a cluster, which may lead through Rancher.
pub(crate) trait RancherAddress: Sized {
    /// The URL of a cluster through Rancher.
    fn through_rancher(rancher: &RancherUrl, cluster: &ClusterId) -> Self;

    /// The Rancher and the cluster that it leads to. `None`: it does not lead through Rancher's proxy.
    fn rancher(&self) -> Option<(RancherUrl, ClusterId)>;

    /// The same, where a URL that does not lead through Rancher is an error.
    fn require_rancher(&self) -> Result<(RancherUrl, ClusterId), Error>;
}

impl RancherAddress for ServerUrl {
    fn through_rancher(rancher: &RancherUrl, cluster: &ClusterId) -> Self {
        Self::new(rancher.cluster(cluster).as_str())
    }

    fn rancher(&self) -> Option<(RancherUrl, ClusterId)> {
        match Reach::of(&self.as_str().parse::<Url>().ok()?) {
            Reach::Proxy { base, cluster } => Some((base, cluster)),
            Reach::Root(_) => None,
        }
    }

    fn require_rancher(&self) -> Result<(RancherUrl, ClusterId), Error> {
        self.rancher()
            .ok_or_else(|| Error::failed(format!("{self} does not lead through Rancher")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_contains_the_cluster_and_the_url_of_rancher() {
        let (rancher, cluster) = ServerUrl::new("https://r.example.com/prefix/k8s/clusters/c-m-abc12345/")
            .rancher()
            .expect("it leads through Rancher");
        assert_eq!(rancher.to_string(), "https://r.example.com/prefix");
        assert_eq!(cluster.as_str(), "c-m-abc12345");
        assert_eq!(
            ServerUrl::through_rancher(&rancher, &cluster).as_str(),
            "https://r.example.com/prefix/k8s/clusters/c-m-abc12345"
        );
        for other in [
            "https://kubernetes.default.svc",
            "https://10.0.0.1:6443",
            "nonsense",
            "",
        ] {
            assert_eq!(ServerUrl::new(other).rancher(), None, "{other}");
        }
    }
}
