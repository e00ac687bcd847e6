//! Applications, and which cluster they are deployed to.

use std::collections::BTreeMap;

use client::request::{self, Item, ListOptions, Metadata, Resource, Result};
use serde::Deserialize;

use crate::cluster_secret::ClusterSecret;
use crate::server::ServerUrl;

const APPLICATION: Resource = Resource::new("Application", "argoproj.io/v1alpha1", "applications");
const CONFIG_MAP: Resource = Resource::new("ConfigMap", "v1", "configmaps");
/// The settings of Argo CD's components, and the one with the other namespaces whose Applications it reads, separated by commas
/// (argoproj/argo-cd `docs/operator-manual/app-any-namespace.md`).
pub const SETTINGS: &str = "argocd-cmd-params-cm";
const NAMESPACES: &str = "application.namespaces";

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

/// The Applications that the caller can list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visible {
    /// Those of all namespaces, or else those of Argo CD's own.
    pub applications: Vec<Application>,
    /// Argo CD may have others, in other namespaces.
    pub incomplete: bool,
}

impl Visible {
    /// Whether any is deployed to this cluster. `None`: only others could be.
    pub fn any_points_at(&self, cluster: &ClusterSecret) -> Option<bool> {
        let any = self
            .applications
            .iter()
            .any(|application| application.points_at(cluster));
        (any || !self.incomplete).then_some(any)
    }
}

/// The Applications that the caller can list: of all namespaces, or else of Argo CD's own. These are all if Argo CD reads no other
/// namespace.
pub async fn visible(client: &kube::Client, argocd_namespace: &str) -> Result<Visible> {
    match list(client, None).await {
        Err(error) if error.is_forbidden() => Ok(Visible {
            applications: list(client, Some(argocd_namespace)).await?,
            incomplete: may_read_other_namespaces(client, argocd_namespace).await?,
        }),
        all => all.map(|applications| Visible {
            applications,
            incomplete: false,
        }),
    }
}

/// Whether Argo CD reads Applications in other namespaces than its own. Also `true` if that must not be read.
async fn may_read_other_namespaces(client: &kube::Client, argocd_namespace: &str) -> Result<bool> {
    #[derive(Deserialize)]
    struct Settings {
        #[serde(default)]
        data: BTreeMap<String, String>,
    }
    let read = request::get::<Settings>(client, CONFIG_MAP, Some(argocd_namespace), SETTINGS).await;
    match read {
        Err(error) if error.is_forbidden() => Ok(true),
        read => Ok(read?
            .and_then(|settings| settings.data.get(NAMESPACES).cloned())
            .is_some_and(|namespaces| !namespaces.trim().is_empty())),
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
