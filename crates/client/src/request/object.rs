//! The common parts of Kubernetes objects: resource, metadata, and the options of a write.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

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

/// A field with an invalid value. The value may be a malformed credential and is not kept.
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

/// The identity and the version of an observed object: the precondition of every write.
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
    /// The field manager (`metadata.managedFields[].manager`), at most 128 characters.
    pub field_manager: String,
    /// A server-side dry run: check, but do not persist.
    pub dry_run: bool,
    /// Annotations that a write adds to the object. Others are kept.
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

    /// Sets whether it is a server-side dry run.
    #[must_use]
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// Adds an annotation.
    #[must_use]
    pub fn marked(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }
}

/// The part of `metadata` that is used. It is read only, never written back.
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
    /// The generation of its `spec`; 0 if the server does not set it.
    pub generation: i64,
    /// When it was created (RFC 3339).
    pub creation_timestamp: Option<String>,
    /// Since when it is being deleted.
    pub deletion_timestamp: Option<String>,
    /// Its labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its annotations.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Its owners.
    pub owner_references: Option<Vec<OwnerReference>>,
}

/// An owner of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Tells it from a later object of the same name.
    pub uid: String,
    /// Whether it is the managing controller.
    pub controller: Option<bool>,
}

impl Metadata {
    /// The owner of the object, by its labels, annotations and owner references. `managedFields` are not read, so an
    /// Argo CD that tracks by its default label only is not recognized.
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

    /// What is usable of an object that does not parse. It is not parsed into a `serde_json::Value`, which can take a
    /// hundred times the memory.
    pub(super) fn salvage(object: &str) -> Self {
        #[derive(Deserialize)]
        struct Malformed<'a> {
            #[serde(borrow)]
            metadata: &'a RawValue,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Names<'a> {
            #[serde(borrow)]
            name: Option<&'a RawValue>,
            #[serde(borrow)]
            namespace: Option<&'a RawValue>,
            #[serde(borrow)]
            uid: Option<&'a RawValue>,
            #[serde(borrow)]
            resource_version: Option<&'a RawValue>,
        }
        let metadata = serde_json::from_str::<Malformed<'_>>(object).map_or("null", |object| object.metadata.get());
        serde_json::from_str(metadata).unwrap_or_else(|_| {
            let names: Names<'_> = serde_json::from_str(metadata).unwrap_or_default();
            let text = |value: Option<&RawValue>| {
                let text = value.and_then(|value| serde_json::from_str(value.get()).ok());
                text.unwrap_or_default()
            };
            Self {
                name: text(names.name),
                namespace: text(names.namespace),
                uid: text(names.uid),
                resource_version: text(names.resource_version),
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
