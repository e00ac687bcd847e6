//! What all objects of Rancher have in common.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::request::{self, Item, Metadata, Resource, Verb};
pub use client::request::{Observed, Problem, Write};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// An object with a field of the wrong type, of which only the metadata is known.
pub(crate) const WRONG_TYPE: Problem = Problem {
    field: "the object",
    what: "has a field of the wrong type",
};

/// A kind of Rancher's API.
pub(crate) const fn management(kind: &'static str, plural: &'static str) -> Resource {
    // Always the full group: `fleet.cattle.io` has its own `clusterregistrationtokens`.
    Resource::new(kind, "management.cattle.io/v3", plural)
}

/// A Secret. Of its `data` only the keys of `D` are read: others may be large.
#[derive(Debug, Deserialize)]
pub(crate) struct RawSecret<D> {
    #[serde(default)]
    pub(crate) metadata: Metadata,
    pub(crate) data: Option<D>,
    #[serde(skip)]
    pub(crate) broken: bool,
}

impl<D: DeserializeOwned> Item for RawSecret<D> {
    fn unreadable(metadata: Metadata) -> Option<Self> {
        Some(Self {
            metadata,
            data: None,
            broken: true,
        })
    }
}

/// The error for a response without a valid name, which no API server sends.
pub(crate) fn nameless(resource: Resource) -> Error {
    request::Error::senseless(Verb::Patch, resource.named(None, None)).into()
}

/// A time as Rancher writes it. One that is not RFC 3339 goes to `problems`.
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

/// One value of a Secret's `data` as text. None if it is missing, empty or, which goes to `problems`, not text.
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
