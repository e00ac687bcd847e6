//! What every Kubernetes object has, where it is served, and what every write needs.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::ownership::{self, Owner};

/// A kind of object and where it is served.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    /// As in a manifest, e.g. `Secret`.
    pub kind: &'static str,
    /// As in a manifest: `v1`, or `<group>/<version>`.
    pub api_version: &'static str,
    /// As in a URL, e.g. `secrets`.
    pub plural: &'static str,
}

/// Secrets.
pub const SECRET: Resource = Resource::new("Secret", "v1", "secrets");

impl Resource {
    /// A kind by its names.
    pub const fn new(kind: &'static str, api_version: &'static str, plural: &'static str) -> Self {
        Self {
            kind,
            api_version,
            plural,
        }
    }

    pub(super) fn request(&self, namespace: Option<&str>) -> kube::core::Request {
        let (api, plural) = (self.api_version, self.plural);
        let root = if api.contains('/') { "/apis" } else { "/api" };
        kube::core::Request::new(match namespace {
            Some(namespace) => format!("{root}/{api}/namespaces/{namespace}/{plural}"),
            None => format!("{root}/{api}/{plural}"),
        })
    }

    /// An object, or without a name all of them, as in a sentence.
    pub fn named(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let kind = self.kind;
        match (namespace, name) {
            (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
            (None, Some(name)) => format!("{kind} {name}"),
            (Some(namespace), None) => format!("{kind}s in namespace {namespace}"),
            (None, None) => format!("{kind}s"),
        }
    }
}

/// A field that holds something it cannot hold. The value itself is not kept: it may be a mangled credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// E.g. `data.token`, `status.expiresAt`.
    pub field: &'static str,
    /// E.g. `is not base64`.
    pub what: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.what)
    }
}

/// Which object was looked at, in which version: the precondition of every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Empty for a cluster-scoped object.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Tells it from a later object of the same name.
    pub uid: String,
    /// Tells this version of it from a later one.
    pub resource_version: String,
}

impl Observed {
    pub(super) fn namespace(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }
}

/// How to send a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Who writes, as the API server records it (`metadata.managedFields[].manager`). At most 128 characters.
    pub field_manager: String,
    /// Let the server check everything and store nothing.
    pub dry_run: bool,
    /// Annotations that a change of an object puts on it beside what it is for. Others stay.
    pub annotations: BTreeMap<String, String>,
}

impl Write {
    /// A write that is not a dry run.
    pub fn by(field_manager: impl Into<String>) -> Self {
        Self {
            field_manager: field_manager.into(),
            dry_run: false,
            annotations: BTreeMap::new(),
        }
    }

    /// The same as a dry run on the server, or not.
    #[must_use]
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// The same, leaving an annotation on what it changes.
    #[must_use]
    pub fn marked(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }
}

/// The part of `metadata` that is used. The server's own has more; this is read, never written back.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Empty for a cluster-scoped object.
    pub namespace: String,
    /// Tells it from a later object of the same name.
    pub uid: String,
    /// Tells this version of it from a later one.
    pub resource_version: String,
    /// Which version of its `spec` this is; 0 where the server does not count.
    pub generation: i64,
    /// When it was made, as the server says it (RFC 3339).
    pub creation_timestamp: Option<String>,
    /// Since when it is being deleted.
    pub deletion_timestamp: Option<String>,
    /// Its labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its annotations.
    pub annotations: Option<BTreeMap<String, String>>,
    /// What it goes with.
    pub owner_references: Option<Vec<OwnerReference>>,
}

/// An object that another one goes with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Tells it from a later object of the same name.
    pub uid: String,
    /// Whether it writes the object.
    pub controller: Option<bool>,
}

impl Metadata {
    /// What else writes the object, by its labels, annotations and owner references. `managedFields` are not among what is
    /// read here, so an Argo CD that marks by its default label only is not seen.
    pub fn owner(&self) -> Option<Owner> {
        let references = self
            .owner_references
            .iter()
            .flatten()
            .map(|reference| meta::OwnerReference {
                kind: reference.kind.clone(),
                name: reference.name.clone(),
                uid: reference.uid.clone(),
                controller: reference.controller,
                ..Default::default()
            });
        ownership::owner(&ObjectMeta {
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            owner_references: Some(references.collect()),
            ..ObjectMeta::default()
        })
    }

    /// What is usable of an object that does not parse.
    pub(super) fn salvage(object: &Value) -> Self {
        let metadata = &object["metadata"];
        Self::deserialize(metadata).unwrap_or_else(|_| {
            let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
            Self {
                name: text("name"),
                namespace: text("namespace"),
                uid: text("uid"),
                resource_version: text("resourceVersion"),
                ..Self::default()
            }
        })
    }

    /// The object in this version.
    pub fn observed(&self) -> Observed {
        Observed {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
        }
    }

    /// When it was made.
    pub fn created(&self) -> Option<Timestamp> {
        self.creation_timestamp.as_deref()?.parse().ok()
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// For an object that is read with all its metadata, to find its [`owner`](crate::ownership::owner).
impl From<ObjectMeta> for Metadata {
    fn from(whole: ObjectMeta) -> Self {
        let references = whole.owner_references.map(|references| {
            let references = references.into_iter().map(|reference| OwnerReference {
                kind: reference.kind,
                name: reference.name,
                uid: reference.uid,
                controller: reference.controller,
            });
            references.collect()
        });
        Self {
            name: whole.name.unwrap_or_default(),
            namespace: whole.namespace.unwrap_or_default(),
            uid: whole.uid.unwrap_or_default(),
            resource_version: whole.resource_version.unwrap_or_default(),
            generation: whole.generation.unwrap_or_default(),
            creation_timestamp: whole.creation_timestamp.map(|time| time.0.to_string()),
            deletion_timestamp: whole.deletion_timestamp.map(|time| time.0.to_string()),
            labels: whole.labels,
            annotations: whole.annotations,
            owner_references: references,
        }
    }
}
