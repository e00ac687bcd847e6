//! The addresses by which Argo CD reaches clusters through Rancher.

use argocd::ServerUrl;
use rancher::ClusterId;
use rancher::reach::{RancherUrl, Reach};
use url::Url;

/// An address of a cluster that may lead through Rancher.
pub(crate) trait RancherAddress: Sized {
    /// Where a cluster is served by Rancher.
    fn through_rancher(rancher: &RancherUrl, cluster: &ClusterId) -> Self;

    /// The Rancher and the cluster that it leads to; `None`: it does not lead through Rancher's proxy.
    fn rancher(&self) -> Option<(RancherUrl, ClusterId)>;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_its_cluster_and_its_rancher() {
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
