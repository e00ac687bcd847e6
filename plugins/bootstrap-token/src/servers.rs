//! The API servers behind one address. Those that the user names are probed one by one.
//!
//! Each API server learns of a token, and of its deletion, by its own watch, and has its own cache of accepted tokens. So the
//! result of one server says nothing about the others, and a load balancer hides which one it was.
//!
//! A token is sent only to servers that the user has named, in the kubeconfig or with `--api-server`. The cluster also publishes
//! addresses of its servers (EndpointSlices of Service `default/kubernetes`). Only their number is used: an attacker who may
//! write EndpointSlices could otherwise redirect tokens.

use std::collections::BTreeSet;
use std::fmt;

use bootstrap::{ProbeResult, Token};
use client::cluster_identity;
use client::connection::Connection;
use client::error::Error;
use client::request::{self, Item, ListOptions, Resource};
use futures::future::try_join_all;
use serde::Deserialize;
use url::Url;

use crate::probe;

/// How many connections to the kubeconfig's address are probed, as there may be a load balancer.
const PROBES: usize = 3;
const SLICE: Resource = Resource::new("EndpointSlice", "discovery.k8s.io/v1", "endpointslices");
/// The Service of all API servers of a cluster
/// (kubernetes/kubernetes `pkg/controlplane/reconcilers/instancecount.go` and `lease.go`, 1.36).
const SERVICE: (&str, &str) = ("default", "kubernetes.io/service-name=kubernetes");

#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerFlags {
    /// Also probe the API server at this address, such as https://10.0.0.1:6443, if the kubeconfig's address is a load balancer. Can be repeated
    #[arg(long = "api-server", value_name = "URL", value_parser = address)]
    pub named: Vec<Url>,
}

fn address(text: &str) -> Result<Url, &'static str> {
    let url: Url = text.parse().map_err(|_| "not a URL")?;
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if url.scheme() == "https" && url.host_str().is_some() && bare {
        Ok(url)
    } else {
        Err("the address of an API server must have the form https://HOST:PORT")
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// The kubeconfig's address.
    main: Connection,
    named: Vec<Connection>,
}

/// The result of one API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerResult {
    pub server: String,
    pub result: ProbeResult,
}

impl fmt::Display for ServerResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, result } = self;
        match result {
            ProbeResult::Accepted { .. } => write!(f, "{server} accepts it"),
            ProbeResult::Rejected => write!(f, "{server} rejects it"),
            ProbeResult::Unknown(reason) => write!(f, "{server}: unknown ({reason})"),
        }
    }
}

/// The result of all servers. It is unknown if they disagree.
pub(crate) fn combined(results: &[ServerResult]) -> ProbeResult {
    let all = |is: fn(&ProbeResult) -> bool| results.iter().all(|one| is(&one.result));
    if let Some(first) = results.first()
        && (all(ProbeResult::is_accepted) || all(|result| *result == ProbeResult::Rejected))
    {
        return first.result.clone();
    }
    let mut reasons: Vec<String> = results.iter().map(ToString::to_string).collect();
    reasons.sort();
    reasons.dedup();
    ProbeResult::Unknown(reasons.join("; "))
}

impl Servers {
    /// The address of a connection, and the named servers. Their certificates must be trusted by the kubeconfig.
    pub(crate) fn new(connection: &Connection, flags: &ServerFlags) -> Self {
        Self {
            main: connection.clone(),
            named: flags.named.iter().map(|url| connection.at(url.clone())).collect(),
        }
    }

    /// Probes all servers at once, over new connections.
    ///
    /// # Errors
    /// The address is plain http. A server that does not answer is not an error but a result.
    pub(crate) async fn probe(&self, token: &Token) -> Result<Vec<ServerResult>, Error> {
        let main = std::iter::repeat_n(&self.main, PROBES);
        let probes = main.chain(&self.named).map(async |connection| {
            let result = probe::once(connection, token).await?;
            let server = address_of(connection);
            Ok(ServerResult { server, result })
        });
        try_join_all(probes).await
    }

    /// The first named server that belongs to another cluster, by the uid of namespace `kube-system`. Servers whose uid cannot be
    /// read are not reported, and are probed.
    pub(crate) async fn of_another_cluster(&self, client: &kube::Client) -> Result<Option<String>, Error> {
        if self.named.is_empty() {
            return Ok(None);
        }
        let here = match cluster_identity::uid(client).await {
            Ok(here) => here,
            Err(error) => {
                tracing::debug!(%error, "whether the named API servers belong to this cluster is unknown");
                return Ok(None);
            }
        };
        for connection in &self.named {
            let there = cluster_identity::uid(&connection.connect()?.client).await;
            if there.is_ok_and(|there| there != here) {
                return Ok(Some(address_of(connection)));
            }
        }
        Ok(None)
    }

    /// Whether there may be API servers that [`Self::probe`] does not reach, by what the cluster publishes. Also `true` if that
    /// cannot be read.
    pub(crate) async fn may_be_more(&self, client: &kube::Client) -> bool {
        let options = ListOptions {
            namespace: Some(SERVICE.0),
            labels: Some(SERVICE.1),
            ..ListOptions::default()
        };
        match request::list_all(client, SLICE, &options).await {
            Ok(slices) => published(&slices) > self.named.len().max(1),
            Err(error) => {
                tracing::debug!(%error, "the number of API servers is unknown");
                true
            }
        }
    }
}

/// The address of a server, without a trailing slash.
pub(crate) fn address_of(connection: &Connection) -> String {
    connection.server().as_str().trim_end_matches('/').to_owned()
}

/// The addresses alone: the whole type of Kubernetes is large.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawEndpointSlice {
    endpoints: Vec<RawEndpoint>,
}

impl Item for RawEndpointSlice {}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawEndpoint {
    addresses: Vec<String>,
}

/// The number of distinct addresses.
fn published(slices: &[RawEndpointSlice]) -> usize {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let addresses: BTreeSet<&String> = endpoints.flat_map(|endpoint| &endpoint.addresses).collect();
    addresses.len()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("https://10.0.0.1:6443", true)]
    #[case("https://[fd00::1]:6443/", true)]
    #[case("http://10.0.0.1:6443", false)]
    #[case("https://me:secret@10.0.0.1:6443", false)]
    #[case("10.0.0.1:6443", false)]
    #[case("", false)]
    fn an_address_is_an_https_url_without_credentials(#[case] text: &str, #[case] is_one: bool) {
        assert_eq!(address(text).is_ok(), is_one);
    }

    #[test]
    fn the_combined_result_is_unknown_if_servers_disagree() {
        let of = |server: &str, result| ServerResult {
            server: server.to_owned(),
            result,
        };
        let accepted = || ProbeResult::Accepted {
            user: None,
            groups: Vec::new(),
        };
        let (yes, no) = (of("https://a", accepted()), of("https://b", ProbeResult::Rejected));
        let unknown = of("https://c", ProbeResult::Unknown("no route".to_owned()));
        assert_eq!(combined(&[yes.clone(), yes.clone()]), accepted());
        assert_eq!(combined(&[no.clone(), no.clone()]), ProbeResult::Rejected);
        let reason = |results: &[ServerResult]| match combined(results) {
            ProbeResult::Unknown(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            reason(&[no.clone(), yes.clone(), no.clone()]),
            "https://a accepts it; https://b rejects it"
        );
        assert_eq!(
            reason(&[yes, unknown]),
            "https://a accepts it; https://c: unknown (no route)"
        );
    }

    #[test]
    fn an_address_published_twice_is_one_server() {
        let slice = |addresses: &[&str]| {
            let endpoints: Vec<_> = addresses
                .iter()
                .map(|address| json!({ "addresses": [address] }))
                .collect();
            let slice = json!({ "metadata": {}, "addressType": "IPv4", "endpoints": endpoints, "ports": [] });
            serde_json::from_value::<RawEndpointSlice>(slice).unwrap()
        };
        assert_eq!(published(&[]), 0);
        assert_eq!(published(&[slice(&["10.0.0.1", "10.0.0.2"]), slice(&["10.0.0.1"])]), 2);
    }
}
