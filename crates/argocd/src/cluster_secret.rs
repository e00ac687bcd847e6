//! The Secret that tells Argo CD of a cluster, read as Argo CD reads it and written as Argo CD writes it.
//!
//! (`SecretToCluster` and `clusterToSecret` in `util/db/cluster.go` of Argo CD 3.5.1; what is written was compared with
//! `argocd admin cluster generate-spec`.)
//!
//! State of ours can only stand in annotations and labels: any write of Argo CD's own builds `data` anew from the fields
//! that it knows. It also writes `config` from a copy that may be old, without a conflict: what was written must be read
//! again.

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

use crate::config::{BadConfig, ClusterConfig, ConfigFlaw};
use crate::server::ServerUrl;

/// The label that makes a Secret one of a cluster.
pub(crate) const TYPE_LABEL: &str = "argocd.argoproj.io/secret-type";
/// Its value.
pub const TYPE: &str = "cluster";
/// The annotation by which Argo CD knows that it may delete the Secret: without it `argocd cluster rm` only takes the
/// label off, and leaves Secret and token.
pub const MANAGED_BY: &str = "managed-by";
/// Its value.
pub const ARGOCD: &str = "argocd.argoproj.io";

/// A cluster as Argo CD knows it.
#[derive(Clone, Debug)]
pub struct ClusterSecret {
    /// Which Secret.
    pub object: Observed,
    /// Its labels, Argo CD's own among them.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// It cannot be changed, only replaced.
    pub immutable: bool,
    /// What the cluster is called; the address if it has no name, as Argo CD shows it.
    pub name: String,
    /// Its address, which is its identity.
    pub server: ServerUrl,
    /// How Argo CD logs in.
    pub config: Result<ClusterConfig, BadConfig>,
    /// The only namespaces that Argo CD looks at; empty: all.
    pub namespaces: Vec<String>,
    /// Cluster-scoped objects too, where namespaces are named.
    pub cluster_resources: bool,
    /// The project that the cluster belongs to.
    pub project: Option<String>,
    /// The controller that serves it; `None`: Argo CD chooses.
    pub shard: Option<i64>,
    /// What makes no sense in it.
    pub problems: Vec<Problem>,
    /// All of its metadata, with who wrote it.
    pub metadata: ObjectMeta,
}

/// A cluster to be told of.
#[derive(Clone, Debug)]
pub struct NewClusterSecret {
    /// The Secret's name; [`secret_name`](crate::secret_name) gives Argo CD's own.
    pub secret: String,
    /// What the cluster shall be called.
    pub name: String,
    /// Its address.
    pub server: ServerUrl,
    /// How Argo CD logs in.
    pub config: ClusterConfig,
    /// Labels besides Argo CD's, which people select clusters by.
    pub labels: BTreeMap<String, String>,
    /// The only namespaces to look at; empty: all.
    pub namespaces: Vec<String>,
    /// Cluster-scoped objects too, where namespaces are named.
    pub cluster_resources: bool,
    /// The project that it shall belong to.
    pub project: Option<String>,
    /// The controller that shall serve it.
    pub shard: Option<i64>,
}

impl NewClusterSecret {
    /// A cluster with everything in it, of no project.
    pub fn new(secret: String, name: String, server: ServerUrl, config: ClusterConfig) -> Self {
        Self {
            secret,
            name,
            server,
            config,
            labels: BTreeMap::new(),
            namespaces: Vec::new(),
            cluster_resources: false,
            project: None,
            shard: None,
        }
    }

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
        if let Some(shard) = self.shard {
            data.insert("shard", encoded(&shard.to_string()));
        }
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
            "metadata": {"name": self.secret, "namespace": namespace, "labels": labels, "annotations": annotations},
        })
    }
}

impl ClusterSecret {
    /// The bearer token that Argo CD logs in with, if it does so with one.
    pub fn token(&self) -> Option<Secret> {
        self.config.as_ref().ok()?.bearer_token()
    }

    /// Why Argo CD could not work with it, whatever token it held.
    pub fn flaws(&self) -> Vec<String> {
        let mut flaws: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        match &self.config {
            Err(bad) => flaws.push(bad.to_string()),
            Ok(config) => {
                let all = config.flaws();
                let other = all.iter().filter(|flaw| **flaw != ConfigFlaw::NoCredential);
                flaws.extend(other.map(|flaw| format!("config {flaw}")));
            }
        }
        flaws
    }

    /// What would put an old state of the Secret back.
    pub fn owner(&self) -> Option<Owner> {
        ownership::owner(&self.metadata)
    }

    /// Who has written the config last, other than `except`.
    pub fn config_writer(&self, except: &str) -> Option<Writer> {
        ownership::last_writer(&self.metadata, &["data", "config"], except)
    }
}

/// All clusters that an Argo CD in this namespace knows, by name of their Secrets.
pub async fn list(client: &kube::Client, namespace: &str) -> Result<Vec<ClusterSecret>> {
    let selector = format!("{TYPE_LABEL}={TYPE}");
    let wanted = ListOptions {
        namespace: Some(namespace),
        labels: Some(&selector),
        ..ListOptions::default()
    };
    let found: Vec<RawSecret> = request::list_all(client, SECRET, &wanted).await?;
    Ok(found.into_iter().map(RawSecret::read).collect())
}

/// One of them by its Secret; `None` if there is no such Secret, or it is none of a cluster.
pub async fn get(client: &kube::Client, namespace: &str, name: &str) -> Result<Option<ClusterSecret>> {
    let found: Option<RawSecret> = request::get(client, SECRET, Some(namespace), name).await?;
    let found = found.map(RawSecret::read);
    Ok(found.filter(|secret| secret.labels.get(TYPE_LABEL).is_some_and(|kind| kind == TYPE)))
}

/// Tells Argo CD of a cluster. A Secret of that name is an error ([`Error::is_already_exists`](crate::Error::is_already_exists)).
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

/// Changes how Argo CD logs in, and nothing else, if the Secret is still as it was observed.
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

/// Makes Argo CD forget a cluster, if the Secret is still as it was observed.
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

/// The keys of a Secret's `data` as text, and what of it made no sense.
struct Texts {
    data: BTreeMap<String, Option<String>>,
    problems: Vec<Problem>,
}

impl Texts {
    /// The text under a key; empty if there is none. `field` is what a problem is called by.
    fn take(&mut self, field: &'static str) -> String {
        let key = field.trim_start_matches("data.");
        let encoded = self.data.remove(key).flatten().unwrap_or_default();
        let bytes = STANDARD.decode(encoded).ok();
        bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_else(|| {
                self.odd(field, "is not text");
                String::new()
            })
    }

    fn odd(&mut self, field: &'static str, what: &'static str) {
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
            texts.odd("data.server", "is empty");
        }
        if server.has_blanks() {
            texts.odd(
                "data.server",
                "has a space or a line break, with which Argo CD cannot call it",
            );
        }
        let name = texts.take("data.name");
        let namespaces = texts.take("data.namespaces");
        let project = texts.take("data.project");
        let shard = texts.take("data.shard");
        let metadata = Metadata::from(self.metadata.clone());
        let number: Option<i64> = shard.parse().ok();
        if number.is_none() && !shard.is_empty() {
            texts.odd("data.shard", "is not a number");
        }
        ClusterSecret {
            object: metadata.observed(),
            name: if name.is_empty() { server.to_string() } else { name },
            server,
            config: ClusterConfig::parse(&Secret::new(texts.take("data.config"))),
            namespaces: items(&namespaces),
            cluster_resources: texts.take("data.clusterResources") == "true",
            project: Some(project).filter(|project| !project.is_empty()),
            shard: number,
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

/// A list as Argo CD reads it: between commas, without white space and without what is empty.
fn items(list: &str) -> Vec<String> {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}
