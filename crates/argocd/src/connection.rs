//! The connection state of clusters, from the metrics of Argo CD's application controller.
//!
//! The metrics are read through the API server's proxy for Services. (The list of `argocd cluster list` is in redis, and only
//! argocd-server returns it.)
//!
//! They do not prove that a token is valid: a controller with filled caches reports a connection as successful for hours after the
//! token was revoked, and it does not connect to a cluster without Applications (seen on Argo CD 3.5.1).

use std::collections::BTreeMap;

use client::request::{self, Item, ListOptions, Metadata, Resource, Result};
use serde::{Deserialize, Serialize};

use crate::server::ServerUrl;

const SERVICE: Resource = Resource::new("Service", "v1", "services");
/// The same in the manifests and in the chart.
const METRICS_LABEL: &str = "app.kubernetes.io/name=argocd-metrics";

/// The connection state of one cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// `argocd_cluster_connection_status`: the last sync of the cluster's state succeeded.
    pub connected: Option<bool>,
    /// `argocd_cluster_api_resources`: how many kinds it watches. It can be 0 although connected: with `resource.respectRBAC`, if the
    /// token was revoked at a bad moment.
    pub kinds: Option<u64>,
    /// `argocd_cluster_cache_age_seconds`: how long ago it read the whole cluster, in whole seconds.
    #[serde(skip)]
    pub age: Option<u64>,
}

/// The connection state of all clusters. `None`: the namespace has no Service for the metrics.
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

/// Parses the metrics about clusters from Prometheus' text format.
pub fn parse(metrics: &str) -> BTreeMap<ServerUrl, Connection> {
    let mut all: BTreeMap<ServerUrl, Connection> = BTreeMap::new();
    for (name, server, value) in metrics.lines().filter_map(sample) {
        let connection = || all.entry(server).or_default();
        match name {
            "connection_status" => connection().connected = Some(value > 0.0),
            "api_resources" => connection().kinds = Some(value.max(0.0) as u64),
            // -1: never.
            "cache_age_seconds" => connection().age = (value >= 0.0).then_some(value as u64),
            _ => {}
        }
    }
    all
}

/// Of a metric about a cluster: the rest of its name, its label `server`, and its value.
fn sample(line: &str) -> Option<(&str, ServerUrl, f64)> {
    let (name, rest) = line.strip_prefix("argocd_cluster_")?.split_once('{')?;
    let (labels, value) = rest.rsplit_once('}')?;
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some((name, ServerUrl::new(&label(labels, "server")?), value))
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
