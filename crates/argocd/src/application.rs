//! Applications, and which cluster they are deployed to.

use client::request::{self, Item, ListOptions, Metadata, Resource, Result};
use serde::Deserialize;

use crate::cluster_secret::ClusterSecret;
use crate::server::ServerUrl;

const APPLICATION: Resource = Resource::new("Application", "argoproj.io/v1alpha1", "applications");

/// An Application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The URL of the cluster that it is deployed to. `None`: it names the cluster instead.
    pub server: Option<ServerUrl>,
    /// The name of the cluster that it is deployed to.
    pub cluster: Option<String>,
}

impl Application {
    /// Whether it is deployed to this cluster. Without a URL and a name it is deployed nowhere.
    pub fn points_at(&self, cluster: &ClusterSecret) -> bool {
        match (&self.server, &self.cluster) {
            (Some(server), _) => *server == cluster.server,
            (None, Some(name)) => *name == cluster.name,
            (None, None) => false,
        }
    }
}

/// The Applications of one namespace, or of all. Empty if the API server does not serve the kind.
///
/// Argo CD can be configured to read Applications in other namespaces too.
pub async fn list(client: &kube::Client, namespace: Option<&str>) -> Result<Vec<Application>> {
    let wanted = ListOptions {
        namespace,
        ..ListOptions::default()
    };
    match request::list_all::<RawApplication>(client, APPLICATION, &wanted).await {
        Ok(found) => Ok(found.into_iter().map(Into::into).collect()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The Applications that the caller can list: of all namespaces, or else of Argo CD's own.
pub async fn visible(client: &kube::Client, argocd_namespace: &str) -> Result<Vec<Application>> {
    match list(client, None).await {
        Err(error) if error.is_forbidden() => list(client, Some(argocd_namespace)).await,
        other => other,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawApplication {
    metadata: Metadata,
    spec: RawSpec,
}

impl Item for RawApplication {}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSpec {
    destination: RawDestination,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawDestination {
    server: Option<String>,
    name: Option<String>,
}

impl From<RawApplication> for Application {
    fn from(raw: RawApplication) -> Self {
        let RawDestination { server, name } = raw.spec.destination;
        let filled = |text: &String| !text.is_empty();
        Self {
            namespace: raw.metadata.namespace,
            name: raw.metadata.name,
            server: server.filter(filled).map(|server| ServerUrl::new(&server)),
            cluster: name.filter(filled),
        }
    }
}
