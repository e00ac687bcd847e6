//! Where a joining node shall find the API server, and whom it shall believe.
//!
//! The cluster says so itself in `kube-public/cluster-info`, if kubeadm has made it. The kubeconfig in use says how *we* get
//! there, which may be through a proxy, a tunnel or 127.0.0.1. Where the two differ, a guess would give a node an address
//! that it cannot reach or an authority that signs nothing, so the user is asked.

use bootstrap::cluster_info::{self, ClusterInfo};
use cli::ui::Ui;
use client::connection::Connection;
use client::error::Error;
use url::Url;

use crate::side::Side;

/// Where a node finds the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its address.
    pub server: String,
    /// The certificate authority, PEM; `None`: the system's roots.
    pub authority: Option<String>,
}

/// Whose word counts.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// What the cluster publishes in kube-public/cluster-info
    ClusterInfo,
    /// What the kubeconfig in use says
    Kubeconfig,
}

/// The flag about it.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct EndpointFlags {
    /// Take address and certificate authority from here; by default both must agree
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub endpoint_from: Option<Source>,
}

/// Finds it.
pub(crate) async fn find(side: &Side, flags: EndpointFlags, ui: &Ui) -> Result<Endpoint, Error> {
    let info = match cluster_info::read(side.client()).await {
        Err(error) if error.is_forbidden() && flags.endpoint_from != Some(Source::ClusterInfo) => {
            ui.warn(
                "no right to read ConfigMap kube-public/cluster-info: the kubeconfig in use is not checked against it",
            );
            None
        }
        other => other?,
    };
    let endpoint = choose(info, &of_connection(&side.connection), flags.endpoint_from)?;
    refuse_proxy(&endpoint)?;
    if is_local(&endpoint.server) {
        ui.warn(format!(
            "{} leads to the machine that uses it: a node elsewhere finds nothing there",
            endpoint.server
        ));
    }
    if endpoint.authority.is_none() && side.connection.is_insecure() {
        return Err(Error::failed(
            "the kubeconfig in use does not check the server's certificate, so there is no authority to give to a node",
        )
        .hint("use a kubeconfig with a certificate authority"));
    }
    Ok(endpoint)
}

fn of_connection(connection: &Connection) -> Endpoint {
    Endpoint {
        server: connection.server().as_str().trim_end_matches('/').to_owned(),
        authority: connection.authority().map(str::to_owned),
    }
}

fn choose(info: Option<ClusterInfo>, ours: &Endpoint, source: Option<Source>) -> Result<Endpoint, Error> {
    let published = info.map(|info| Endpoint {
        server: info.server,
        authority: info.authority,
    });
    match (published, source) {
        (_, Some(Source::Kubeconfig)) | (None, None) => Ok(ours.clone()),
        (Some(published), Some(Source::ClusterInfo)) => Ok(published),
        (None, Some(Source::ClusterInfo)) => Err(Error::failed("there is no ConfigMap kube-public/cluster-info")
            .hint("--endpoint-from kubeconfig takes what the kubeconfig in use says")),
        (Some(published), None) => {
            let what = differences(&published, ours);
            if what.is_empty() {
                Ok(published)
            } else {
                Err(mismatch(&what))
            }
        }
    }
}

fn differences(published: &Endpoint, ours: &Endpoint) -> Vec<String> {
    let mut what = Vec::new();
    if !same_address(&published.server, &ours.server) {
        what.push(format!(
            "the address is {} there and {} here",
            published.server, ours.server
        ));
    }
    if !same_authority(published.authority.as_deref(), ours.authority.as_deref()) {
        what.push("the certificate authorities are not the same".to_owned());
    }
    what
}

fn mismatch(what: &[String]) -> Error {
    let what = what.join(", and ");
    Error::failed(format!(
        "kube-public/cluster-info and the kubeconfig in use do not agree: {what}"
    ))
    .hint("--endpoint-from cluster-info takes what the cluster publishes for its nodes")
    .hint("--endpoint-from kubeconfig takes what the kubeconfig in use says")
}

fn same_address(one: &str, other: &str) -> bool {
    let parts = |text: &str| {
        let url: Url = text.parse().ok()?;
        let path = url.path().trim_end_matches('/').to_owned();
        Some((
            url.scheme().to_owned(),
            url.host_str()?.to_owned(),
            url.port_or_known_default(),
            path,
        ))
    };
    parts(one).is_some_and(|one| Some(one) == parts(other))
}

/// The same certificates, whatever the order and the white space.
fn same_authority(one: Option<&str>, other: Option<&str>) -> bool {
    let set = |pem: &str| {
        let mut certificates = cluster_info::certificates(pem).ok()?;
        certificates.sort();
        certificates.dedup();
        Some(certificates)
    };
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => set(one).is_some_and(|one| Some(one) == set(other)),
        _ => false,
    }
}

fn is_local(server: &str) -> bool {
    let host = server
        .parse::<Url>()
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]")
}

/// Rancher's proxy has users of its own, and knows no bootstrap token.
fn refuse_proxy(endpoint: &Endpoint) -> Result<(), Error> {
    if !endpoint.server.contains("/k8s/clusters/") {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{} is Rancher's proxy, which accepts no bootstrap token",
        endpoint.server
    ))
    .hint("use a kubeconfig that leads to the API server itself"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn at(server: &str) -> Endpoint {
        Endpoint {
            server: server.to_owned(),
            authority: None,
        }
    }

    fn info(server: &str) -> ClusterInfo {
        ClusterInfo {
            server: server.to_owned(),
            authority: None,
            kubeconfig: String::new(),
            signatures: BTreeMap::new(),
        }
    }

    #[test]
    fn the_same_address_may_be_written_in_two_ways() {
        let agreed = choose(Some(info("https://api.example:443/")), &at("https://api.example"), None).unwrap();
        assert_eq!(agreed.server, "https://api.example:443/");
    }

    #[test]
    fn a_mismatch_is_an_error_until_the_user_says_whose_word_counts() {
        let ours = at("https://127.0.0.1:6443");
        let error = choose(Some(info("https://10.0.0.1:6443")), &ours, None).unwrap_err();
        assert_eq!(
            error.message,
            "kube-public/cluster-info and the kubeconfig in use do not agree: \
             the address is https://10.0.0.1:6443 there and https://127.0.0.1:6443 here"
        );
        let chosen = |source| {
            choose(Some(info("https://10.0.0.1:6443")), &ours, Some(source))
                .unwrap()
                .server
        };
        assert_eq!(chosen(Source::ClusterInfo), "https://10.0.0.1:6443");
        assert_eq!(chosen(Source::Kubeconfig), "https://127.0.0.1:6443");
    }

    #[test]
    fn without_cluster_info_the_kubeconfig_counts_and_a_proxy_is_refused() {
        let ours = at("https://rancher.example/k8s/clusters/c-abcde");
        assert!(choose(None, &ours, Some(Source::ClusterInfo)).is_err());
        let chosen = choose(None, &ours, None).unwrap();
        assert!(refuse_proxy(&chosen).is_err());
        assert!(is_local("https://127.0.0.1:6443") && !is_local("https://10.0.0.1:6443"));
    }
}
