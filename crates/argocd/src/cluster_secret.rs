//! Cluster Secrets, read and written as Argo CD does.
//!
//! (`SecretToCluster` and `clusterToSecret` in `util/db/cluster.go` of Argo CD 3.5.1. The result was compared with
//! `argocd admin cluster generate-spec`.)
//!
//! Our own state goes into annotations and labels, because Argo CD drops unknown keys of `data` when it writes the Secret. It may
//! also write `config` from a stale copy, without a conflict. So a written Secret must be read again.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::ownership::{self, Owner, Writer};
use client::request::{self, Item, ListOptions, Merge, Metadata, Observed, Problem, Result, SECRET, Write};
use client::secret::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{ClusterConfig, ConfigFlaw, InvalidConfig};
use crate::server::ServerUrl;

/// The label of cluster Secrets.
const TYPE_LABEL: &str = "argocd.argoproj.io/secret-type";
/// Its value.
const TYPE: &str = "cluster";
/// The label of a Secret that Argo CD has to forget, and that is about to be deleted.
const REMOVING_LABEL: &str = "kubectl-rotation.github.io/removing";
/// The annotation that allows Argo CD to delete the Secret. Without it, `argocd cluster rm` only removes the label.
const MANAGED_BY: &str = "managed-by";
/// Its value.
const ARGOCD: &str = "argocd.argoproj.io";

/// A cluster Secret.
#[derive(Clone, Debug)]
pub struct ClusterSecret {
    /// The Secret, as it was read.
    pub object: Observed,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// Its data cannot be changed.
    pub immutable: bool,
    /// The cluster's name. Like Argo CD: the URL if it has no name.
    pub name: String,
    /// The cluster's URL, which identifies it.
    pub server: ServerUrl,
    /// How Argo CD authenticates.
    pub config: Result<ClusterConfig, InvalidConfig>,
    /// The namespaces that Argo CD watches; empty: all.
    pub namespaces: Vec<String>,
    /// With `namespaces`: Argo CD watches cluster-scoped objects too.
    pub cluster_resources: bool,
    /// The cluster's project.
    pub project: Option<String>,
    /// Invalid fields.
    pub problems: Vec<Problem>,
    /// All of its metadata.
    pub metadata: ObjectMeta,
}

/// A cluster Secret to create.
#[derive(Clone, Debug)]
pub struct NewClusterSecret {
    /// The Secret's name; [`secret_name`](crate::secret_name) gives Argo CD's own.
    pub secret: String,
    /// The cluster's name.
    pub name: String,
    /// The cluster's URL.
    pub server: ServerUrl,
    /// How Argo CD authenticates.
    pub config: ClusterConfig,
    /// Labels besides Argo CD's own.
    pub labels: BTreeMap<String, String>,
    /// The namespaces to watch; empty: all.
    pub namespaces: Vec<String>,
    /// With `namespaces`: watch cluster-scoped objects too.
    pub cluster_resources: bool,
    /// The cluster's project.
    pub project: Option<String>,
}

impl NewClusterSecret {
    fn manifest(&self, namespace: &str, write: &Write) -> Value {
        let mut labels = self.labels.clone();
        labels.insert(TYPE_LABEL.to_owned(), TYPE.to_owned());
        let mut annotations = write.annotations.clone();
        annotations.insert(MANAGED_BY.to_owned(), ARGOCD.to_owned());
        let mut data = BTreeMap::from([
            ("config", encoded(self.config.text().expose())),
            ("name", encoded(&self.name)),
            ("server", encoded(self.server.as_str())),
        ]);
        if !self.namespaces.is_empty() {
            data.insert("namespaces", encoded(&self.namespaces.join(",")));
        }
        if self.cluster_resources {
            data.insert("clusterResources", encoded("true"));
        }
        if let Some(project) = &self.project {
            data.insert("project", encoded(project));
        }
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
            "metadata": {"name": self.secret, "namespace": namespace, "labels": labels, "annotations": annotations},
        })
    }
}

impl ClusterSecret {
    /// A Secret that does not exist any more, with what is still known about it.
    pub fn placeholder(object: Observed, server: ServerUrl, config: ClusterConfig) -> Self {
        Self {
            name: object.name.clone(),
            object,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            created: None,
            deleting: true,
            immutable: false,
            server,
            config: Ok(config),
            namespaces: Vec::new(),
            cluster_resources: false,
            project: None,
            problems: Vec::new(),
            metadata: ObjectMeta::default(),
        }
    }

    /// The bearer token, if Argo CD authenticates with one.
    pub fn token(&self) -> Option<Secret> {
        self.config.as_ref().ok()?.bearer_token()
    }

    /// Why Argo CD cannot use the Secret.
    pub fn flaws(&self) -> Vec<String> {
        self.flaws_if(|_| true)
    }

    /// Why Argo CD could not use the Secret, even with a valid token in it.
    pub fn flaws_besides_token(&self) -> Vec<String> {
        self.flaws_if(|flaw| !flaw.is_of_token())
    }

    fn flaws_if(&self, counts: fn(ConfigFlaw) -> bool) -> Vec<String> {
        let mut flaws: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        match &self.config {
            Err(invalid) => flaws.push(invalid.to_string()),
            Ok(config) => {
                let of_config = config.flaws().into_iter().filter(|flaw| counts(*flaw));
                flaws.extend(of_config.map(|flaw| format!("config {flaw}")));
            }
        }
        flaws
    }

    /// What manages the Secret, and would revert a change.
    pub fn owner(&self) -> Option<Owner> {
        ownership::owner(&self.metadata)
    }

    /// The last writer of the config.
    pub fn config_writer(&self) -> Option<Writer> {
        ownership::last_writer(&self.metadata, &["data", "config"], "")
    }
}

/// All cluster Secrets of the Argo CD in this namespace, by name.
pub async fn list(client: &kube::Client, namespace: &str) -> Result<Vec<ClusterSecret>> {
    list_by(client, namespace, &format!("{TYPE_LABEL}={TYPE}")).await
}

/// The Secrets that [`detach`] has taken away from Argo CD and that still exist.
pub async fn list_detached(client: &kube::Client, namespace: &str) -> Result<Vec<ClusterSecret>> {
    list_by(client, namespace, REMOVING_LABEL).await
}

async fn list_by(client: &kube::Client, namespace: &str, selector: &str) -> Result<Vec<ClusterSecret>> {
    let wanted = ListOptions {
        namespace: Some(namespace),
        labels: Some(selector),
        ..ListOptions::default()
    };
    let found: Vec<RawSecret> = request::list_all(client, SECRET, &wanted).await?;
    Ok(found.into_iter().map(RawSecret::read).collect())
}

/// One of them by name. `None`: it does not exist, or it is not a cluster Secret.
pub async fn get(client: &kube::Client, namespace: &str, name: &str) -> Result<Option<ClusterSecret>> {
    let found: Option<RawSecret> = request::get(client, SECRET, Some(namespace), name).await?;
    let found = found.map(RawSecret::read);
    Ok(found.filter(|secret| secret.labels.get(TYPE_LABEL).is_some_and(|kind| kind == TYPE)))
}

/// Creates a cluster Secret. If the name is taken: [`Error::is_already_exists`](crate::Error::is_already_exists).
pub async fn create(
    client: &kube::Client,
    namespace: &str,
    new: &NewClusterSecret,
    write: &Write,
) -> Result<ClusterSecret> {
    let manifest = new.manifest(namespace, write);
    let raw: RawSecret = request::create(client, SECRET, Some(namespace), &new.secret, &manifest, write).await?;
    Ok(raw.read())
}

/// Changes `config` and nothing else, if the Secret has not changed since it was observed.
pub async fn patch_config(
    client: &kube::Client,
    observed: &Observed,
    config: &ClusterConfig,
    write: &Write,
) -> Result<ClusterSecret> {
    let change = json!({"data": {"config": encoded(config.text().expose())}});
    let raw: RawSecret = request::patch(client, SECRET, observed, Merge::Json, change, write).await?;
    Ok(raw.read())
}

/// Takes a cluster Secret away from Argo CD, which forgets the cluster as if the Secret were deleted, if the Secret has not changed
/// since it was observed. The Secret stays, so that an interrupted removal can be resumed.
pub async fn detach(client: &kube::Client, observed: &Observed, write: &Write) -> Result<ClusterSecret> {
    let change = json!({"metadata": {"labels": {TYPE_LABEL: null, REMOVING_LABEL: "true"}}});
    let raw: RawSecret = request::patch(client, SECRET, observed, Merge::Json, change, write).await?;
    Ok(raw.read())
}

/// Deletes a cluster Secret, if it has not changed since it was observed.
pub async fn delete(client: &kube::Client, observed: &Observed, write: &Write) -> Result<()> {
    request::delete(client, SECRET, observed, write).await
}

fn encoded(text: &str) -> String {
    STANDARD.encode(text)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSecret {
    metadata: ObjectMeta,
    data: Option<BTreeMap<String, Option<String>>>,
    immutable: Option<bool>,
}

impl Item for RawSecret {}

/// The values of a Secret's `data` as text, and the invalid ones.
struct Texts {
    data: BTreeMap<String, Option<String>>,
    problems: Vec<Problem>,
}

impl Texts {
    /// The text of a key; empty if it is missing. `field` is the name of the key in a problem.
    fn take(&mut self, field: &'static str) -> String {
        let key = field.trim_start_matches("data.");
        let encoded = self.data.remove(key).flatten().unwrap_or_default();
        let bytes = STANDARD.decode(encoded).ok();
        bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_else(|| {
                self.invalid(field, "is not text");
                String::new()
            })
    }

    fn invalid(&mut self, field: &'static str, what: &'static str) {
        self.problems.push(Problem { field, what });
    }
}

impl RawSecret {
    fn read(self) -> ClusterSecret {
        let mut texts = Texts {
            data: self.data.unwrap_or_default(),
            problems: Vec::new(),
        };
        let server = ServerUrl::new(&texts.take("data.server"));
        if server.is_empty() {
            texts.invalid("data.server", "is empty");
        }
        if server.has_blanks() {
            texts.invalid(
                "data.server",
                "has a space or a line break, so that Argo CD cannot call it",
            );
        }
        let name = texts.take("data.name");
        let namespaces = texts.take("data.namespaces");
        let project = texts.take("data.project");
        let shard = texts.take("data.shard");
        let metadata = Metadata::from(self.metadata.clone());
        if !shard.is_empty() && shard.parse::<i64>().is_err() {
            texts.invalid("data.shard", "is not a number");
        }
        ClusterSecret {
            object: metadata.observed(),
            name: if name.is_empty() { server.to_string() } else { name },
            server,
            config: ClusterConfig::parse(&Secret::new(texts.take("data.config"))),
            namespaces: items(&namespaces),
            cluster_resources: texts.take("data.clusterResources") == "true",
            project: Some(project).filter(|project| !project.is_empty()),
            deleting: metadata.deletion_timestamp.is_some(),
            immutable: self.immutable.unwrap_or_default(),
            created: metadata.created(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            problems: texts.problems,
            metadata: self.metadata,
        }
    }
}

/// A list as Argo CD reads it: separated by commas, without white space and empty items.
fn items(list: &str) -> Vec<String> {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}
