//! Applications, as far as it matters which cluster they are deployed to.

use client::request::{self, Item, ListOptions, Metadata, Resource, Result};
use serde::Deserialize;

use crate::cluster_secret::ClusterSecret;
use crate::server::ServerUrl;

const APPLICATION: Resource = Resource::new("Application", "argoproj.io/v1alpha1", "applications");

/// An Application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Where it is kept.
    pub namespace: String,
    /// What it is called.
    pub name: String,
    /// The address that it is deployed to; `None` where it names the cluster instead.
    pub server: Option<ServerUrl>,
    /// The name of the cluster that it is deployed to.
    pub cluster: Option<String>,
    /// Its project.
    pub project: String,
    /// `Synced`, `OutOfSync`, `Unknown`; empty before the first look.
    pub sync: String,
    /// `Healthy`, `Degraded`, …; empty before the first look.
    pub health: String,
}

impl Application {
    /// Whether it is deployed to this cluster. One that gives neither address nor name is deployed nowhere.
    pub fn points_at(&self, cluster: &ClusterSecret) -> bool {
        match (&self.server, &self.cluster) {
            (Some(server), _) => *server == cluster.server,
            (None, Some(name)) => *name == cluster.name,
            (None, None) => false,
        }
    }
}

/// All Applications of a namespace, or of all; none where the kind is not served.
///
/// Argo CD may be told to look for them in other namespaces than its own, so all are worth asking for, where that is
/// allowed.
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

/// All Applications that the caller may see: those of all namespaces, or where that is not allowed those beside Argo CD,
/// which are the most.
pub async fn visible(client: &kube::Client, beside_argocd: &str) -> Result<Vec<Application>> {
    match list(client, None).await {
        Err(error) if error.is_forbidden() => list(client, Some(beside_argocd)).await,
        other => other,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawApplication {
    metadata: Metadata,
    spec: RawSpec,
    status: RawStatus,
}

impl Item for RawApplication {}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSpec {
    destination: RawDestination,
    project: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawDestination {
    server: Option<String>,
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    sync: RawWord,
    health: RawWord,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawWord {
    status: Option<String>,
}

impl From<RawApplication> for Application {
    fn from(raw: RawApplication) -> Self {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            namespace: raw.metadata.namespace,
            name: raw.metadata.name,
            server: given(raw.spec.destination.server).map(|server| ServerUrl::new(&server)),
            cluster: given(raw.spec.destination.name),
            project: raw.spec.project,
            sync: raw.status.sync.status.unwrap_or_default(),
            health: raw.status.health.status.unwrap_or_default(),
        }
    }
}
