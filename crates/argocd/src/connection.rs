//! What Argo CD itself says of its connections.
//!
//! Its own list (`argocd cluster list`) is kept in redis and told by argocd-server only. What can be read with the rights
//! of a kubeconfig are the metrics of the application controller, through the API server's proxy for Services.
//!
//! It is shown, never trusted: once its caches are filled, a controller calls a connection good for hours after the token
//! has died, and it does not look at all at a cluster without Applications (seen on Argo CD 3.5.1).

use std::collections::BTreeMap;

use client::request::{self, Item, ListOptions, Metadata, Resource, Result};
use serde::Deserialize;

use crate::server::ServerUrl;

const SERVICE: Resource = Resource::new("Service", "v1", "services");
/// Of the manifests and of the chart alike.
const METRICS_LABEL: &str = "app.kubernetes.io/name=argocd-metrics";

/// A connection as the application controller counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// `argocd_cluster_connection_status`: the last full look at the cluster went well.
    pub connected: Option<bool>,
    /// `argocd_cluster_api_resources`: how many kinds it watches there. None watched although connected is what a token
    /// leaves behind that died at a bad moment, with `resource.respectRBAC` set.
    pub kinds: Option<u64>,
    /// `argocd_cluster_cache_age_seconds`: how long ago it has read the whole cluster, in whole seconds.
    pub age: Option<u64>,
}

/// All connections that a controller tells of; `None`: there is no Service for its metrics in this namespace.
pub async fn read(client: &kube::Client, namespace: &str) -> Result<Option<BTreeMap<ServerUrl, Connection>>> {
    let wanted = ListOptions {
        namespace: Some(namespace),
        labels: Some(METRICS_LABEL),
        ..ListOptions::default()
    };
    let services: Vec<RawService> = request::list_all(client, SERVICE, &wanted).await?;
    let port = |service: &RawService| service.spec.ports.first().map(|port| port.port);
    let Some((service, port)) = services.iter().find_map(|service| Some((service, port(service)?))) else {
        return Ok(None);
    };
    let name = &service.metadata.name;
    let path = format!("/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy/metrics");
    let text = request::get_text(client, "metrics", &path).await?;
    Ok(Some(parse(&text)))
}

/// Reads Prometheus' text format, as far as it is about clusters.
pub fn parse(metrics: &str) -> BTreeMap<ServerUrl, Connection> {
    let mut all: BTreeMap<ServerUrl, Connection> = BTreeMap::new();
    for line in metrics.lines() {
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        if !matches!(
            name,
            "argocd_cluster_connection_status" | "argocd_cluster_api_resources" | "argocd_cluster_cache_age_seconds"
        ) {
            continue;
        }
        let Some((labels, value)) = rest.rsplit_once('}') else {
            continue;
        };
        let value = value
            .split_whitespace()
            .next()
            .and_then(|value| value.parse::<f64>().ok());
        let (Some(server), Some(value)) = (label(labels, "server"), value) else {
            continue;
        };
        let connection = all.entry(ServerUrl::new(&server)).or_default();
        if name.ends_with("status") {
            connection.connected = Some(value > 0.0);
        } else if name.ends_with("resources") {
            connection.kinds = Some(value.max(0.0) as u64);
        } else {
            // -1: never.
            connection.age = (value >= 0.0).then_some(value as u64);
        }
    }
    all
}

/// The value of `name="…"`, unescaped.
fn label(labels: &str, name: &str) -> Option<String> {
    let mut rest = labels;
    loop {
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (_, '\\') => value.push(chars.next()?.1),
                (at, '"') => break at,
                (_, c) => value.push(c),
            }
        };
        if key.trim_start_matches([',', ' ']) == name {
            return Some(value);
        }
        rest = &after[end + 1..];
    }
}

#[derive(Deserialize)]
struct RawService {
    metadata: Metadata,
    #[serde(default)]
    spec: RawSpec,
}

impl Item for RawService {}

#[derive(Default, Deserialize)]
struct RawSpec {
    #[serde(default)]
    ports: Vec<RawPort>,
}

#[derive(Deserialize)]
struct RawPort {
    port: u16,
}
