//! What every Kubernetes object has, and what every write needs.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// Which object was looked at, in which version: the precondition of every write.
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
    /// The `metadata` of a patch that the server refuses with 409 if the object is another or has changed.
    pub(crate) fn precondition(&self, write: &Write) -> serde_json::Map<String, Value> {
        let mut metadata = serde_json::Map::new();
        if !write.annotations.is_empty() {
            metadata.insert("annotations".to_owned(), json!(write.annotations));
        }
        metadata.insert("uid".to_owned(), json!(self.uid));
        metadata.insert("resourceVersion".to_owned(), json!(self.resource_version));
        metadata
    }
}

/// How a write is to be sent.
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
    /// A write in earnest.
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

/// An object with a field of the wrong type, of which only the metadata is known.
pub(crate) const WRONG_TYPE: Problem = Problem {
    field: "the object",
    what: "has a field of the wrong type",
};

/// The part of `metadata` that is used. The server's own has more; this is read, never written back.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) generation: i64,
    pub(crate) creation_timestamp: Option<String>,
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    pub(crate) owner_references: Option<Vec<Owner>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Metadata {
    /// What is usable of an object that does not parse.
    pub(crate) fn salvage(object: &Value) -> Self {
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

    pub(crate) fn observed(&self) -> Observed {
        Observed {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
        }
    }

    pub(crate) fn created(&self) -> Option<Timestamp> {
        self.creation_timestamp.as_deref()?.parse().ok()
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// A time as Rancher writes it; what is there but is no RFC 3339 goes to `problems`.
pub(crate) fn time(text: Option<&str>, field: &'static str, problems: &mut Vec<Problem>) -> Option<Timestamp> {
    let text = text.filter(|text| !text.is_empty())?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        problems.push(Problem {
            field,
            what: "is not an RFC 3339 time",
        });
    }
    parsed
}

/// A time as Rancher's Go code formats it (`time.RFC3339`): whole seconds, UTC.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// One value of a Secret's `data` as text; None if it is missing or empty, or (then it is a problem) no text.
pub(crate) fn decoded(encoded: Option<&str>, field: &'static str, problems: &mut Vec<Problem>) -> Option<String> {
    let encoded = encoded.filter(|encoded| !encoded.is_empty())?;
    let Ok(bytes) = STANDARD.decode(encoded) else {
        problems.push(Problem {
            field,
            what: "is not base64",
        });
        return None;
    };
    let Ok(text) = String::from_utf8(bytes) else {
        problems.push(Problem {
            field,
            what: "is not text",
        });
        return None;
    };
    Some(text).filter(|text| !text.is_empty())
}
