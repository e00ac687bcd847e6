//! The address and the certificate authority that a node uses to join.
//!
//! The cluster publishes them in `kube-public/cluster-info`, if kubeadm created it. The kubeconfig in use may lead through a
//! proxy, a tunnel or 127.0.0.1. If the two differ, the user has to choose: a wrong address cannot be reached by nodes, and a
//! wrong authority makes them reject the API server.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bootstrap::Token;
use bootstrap::cluster_info::{self, ClusterInfo};
use cli::output;
use cli::ui::Ui;
use client::connection::Connection;
use client::error::Error;
use serde_json::json;
use url::Url;

use crate::cluster::ClusterConnection;
use crate::servers::address_of;

/// How a node reaches the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub server: String,
    /// The certificate authority, as PEM. `None`: the system's roots.
    pub authority: Option<String>,
}

impl Endpoint {
    /// The bootstrap kubeconfig as YAML. It contains the token.
    pub(crate) fn kubeconfig(&self, token: &Token) -> Result<String, Error> {
        let mut cluster = json!({ "server": self.server });
        if let Some(authority) = &self.authority {
            cluster["certificate-authority-data"] = json!(STANDARD.encode(authority));
        }
        // The kubelet uses the same names.
        let context = json!({ "cluster": "default-cluster", "user": "default-auth" });
        output::to_yaml(&json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "default-cluster", "cluster": cluster }],
            "users": [{ "name": "default-auth", "user": { "token": token.text().expose() } }],
            "contexts": [{ "name": "default-context", "context": context }],
            "current-context": "default-context",
        }))
    }
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointSource {
    /// ConfigMap kube-public/cluster-info
    ClusterInfo,
    /// The kubeconfig in use
    Kubeconfig,
}

#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct EndpointFlags {
    /// Where to read the address and the certificate authority from; by default the sources must agree
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub endpoint_from: Option<EndpointSource>,
}

pub(crate) async fn find(cluster: &ClusterConnection, flags: EndpointFlags, ui: &Ui) -> Result<Endpoint, Error> {
    let info = match cluster_info::read(cluster.client()).await {
        Err(error) if error.is_forbidden() && flags.endpoint_from != Some(EndpointSource::ClusterInfo) => {
            ui.warn("no permission to read ConfigMap kube-public/cluster-info: the kubeconfig in use is not compared with it");
            None
        }
        other => other?,
    };
    let endpoint = choose(info, &of_connection(&cluster.connection), flags.endpoint_from)?;
    let server = &endpoint.server;
    refuse_proxy(server)?;
    if is_local(server) {
        ui.warn(format!(
            "{server} is a loopback address: nodes on other machines cannot reach it"
        ));
    }
    if endpoint.authority.is_none() && cluster.connection.is_insecure() {
        return Err(Error::failed(
            "the kubeconfig in use does not verify the server's certificate, so it has no certificate authority for nodes",
        )
        .hint("use a kubeconfig with a certificate authority"));
    }
    Ok(endpoint)
}

fn of_connection(connection: &Connection) -> Endpoint {
    Endpoint {
        server: address_of(connection),
        authority: connection.authority().map(str::to_owned),
    }
}

fn choose(info: Option<ClusterInfo>, ours: &Endpoint, source: Option<EndpointSource>) -> Result<Endpoint, Error> {
    let published = info.map(|info| Endpoint {
        server: info.server,
        authority: info.authority,
    });
    match (published, source) {
        (_, Some(EndpointSource::Kubeconfig)) | (None, None) => Ok(ours.clone()),
        (Some(published), Some(EndpointSource::ClusterInfo)) => Ok(published),
        (None, Some(EndpointSource::ClusterInfo)) => Err(Error::failed("ConfigMap kube-public/cluster-info not found")
            .hint("to use the kubeconfig in use, pass --endpoint-from kubeconfig")),
        (Some(published), None) => {
            let differences = differences(&published, ours);
            if differences.is_empty() {
                return Ok(published);
            }
            let differences = differences.join(", and ");
            Err(Error::failed(format!(
                "kube-public/cluster-info and the kubeconfig in use differ: {differences}"
            ))
            .hint("to use what the cluster publishes for nodes, pass --endpoint-from cluster-info")
            .hint("to use the kubeconfig in use, pass --endpoint-from kubeconfig"))
        }
    }
}

fn differences(published: &Endpoint, ours: &Endpoint) -> Vec<String> {
    let mut differences = Vec::new();
    if !same_address(&published.server, &ours.server) {
        differences.push(format!(
            "the address is {} in cluster-info and {} in the kubeconfig",
            published.server, ours.server
        ));
    }
    if !same_authority(published.authority.as_deref(), ours.authority.as_deref()) {
        differences.push("the certificate authorities are different".to_owned());
    }
    differences
}

fn same_address(one: &str, other: &str) -> bool {
    let parts = |text: &str| {
        let url: Url = text.parse().ok()?;
        let (scheme, host) = (url.scheme().to_owned(), url.host_str()?.to_owned());
        let path = url.path().trim_end_matches('/').to_owned();
        Some((scheme, host, url.port_or_known_default(), path))
    };
    parts(one).is_some_and(|one| Some(one) == parts(other))
}

/// Whether both contain the same certificates, in any order.
pub(crate) fn same_authority(one: Option<&str>, other: Option<&str>) -> bool {
    let set = |pem: &str| {
        let certificates = client::connection::certificates(pem).ok()?;
        Some(certificates.into_iter().collect::<BTreeSet<_>>())
    };
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => set(one).is_some_and(|one| Some(one) == set(other)),
        _ => false,
    }
}

fn is_local(server: &str) -> bool {
    let url = server.parse::<Url>().ok();
    let host = url.as_ref().and_then(Url::host_str);
    host.is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]")
}

/// Rancher's proxy authenticates only its own users.
fn refuse_proxy(server: &str) -> Result<(), Error> {
    if !server.contains("/k8s/clusters/") {
        return Ok(());
    }
    Err(
        Error::failed(format!("{server} is Rancher's proxy, which accepts no bootstrap token"))
            .hint("use a kubeconfig that leads directly to the API server"),
    )
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
    fn addresses_are_compared_after_normalization() {
        let endpoint = choose(Some(info("https://api.example:443/")), &at("https://api.example"), None).unwrap();
        assert_eq!(endpoint.server, "https://api.example:443/");
    }

    #[test]
    fn a_difference_is_an_error_unless_the_user_chooses_a_source() {
        let ours = at("https://127.0.0.1:6443");
        let error = choose(Some(info("https://10.0.0.1:6443")), &ours, None).unwrap_err();
        assert_eq!(
            error.message,
            "kube-public/cluster-info and the kubeconfig in use differ: \
             the address is https://10.0.0.1:6443 in cluster-info and https://127.0.0.1:6443 in the kubeconfig"
        );
        let chosen = |source| {
            choose(Some(info("https://10.0.0.1:6443")), &ours, Some(source))
                .unwrap()
                .server
        };
        assert_eq!(chosen(EndpointSource::ClusterInfo), "https://10.0.0.1:6443");
        assert_eq!(chosen(EndpointSource::Kubeconfig), "https://127.0.0.1:6443");
    }

    #[test]
    fn without_cluster_info_the_kubeconfig_is_used_but_not_a_proxy() {
        let ours = at("https://rancher.example/k8s/clusters/c-abcde");
        assert!(choose(None, &ours, Some(EndpointSource::ClusterInfo)).is_err());
        let chosen = choose(None, &ours, None).unwrap();
        assert!(refuse_proxy(&chosen.server).is_err());
        assert!(is_local("https://127.0.0.1:6443") && !is_local("https://10.0.0.1:6443"));
    }
}
