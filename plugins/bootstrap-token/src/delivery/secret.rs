//! A delivery to a key of a Secret. Writes are conditional on the version that was read.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::error::Error;
use client::ownership::{self, Owner, Writer};
use client::request::{self, Merge, Metadata, Observed, SECRET};
use client::secret::Secret;
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::InvalidDeliveryTarget;
use crate::cluster::{self, MANAGER};

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_field_names, reason = "this is what a Secret calls it")]
pub(crate) struct SecretKey {
    pub namespace: String,
    pub name: String,
    pub key: String,
}

/// One version of the Secret.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub(crate) object: Observed,
    /// The value of the key.
    pub content: Secret,
    pub annotations: BTreeMap<String, String>,
    pub immutable: bool,
    pub owner: Option<Owner>,
    /// The other manager that wrote the key last.
    pub writer: Option<Writer>,
}

impl FromStr for SecretKey {
    type Err = InvalidDeliveryTarget;

    fn from_str(text: &str) -> Result<Self, InvalidDeliveryTarget> {
        let parts: Vec<&str> = text.split('/').collect();
        let [namespace, name, key] = parts.as_slice() else {
            return Err(InvalidDeliveryTarget);
        };
        if [namespace, name, key].iter().any(|part| part.is_empty()) {
            return Err(InvalidDeliveryTarget);
        }
        let [namespace, name, key] = [namespace, name, key].map(|part| (*part).to_owned());
        Ok(Self { namespace, name, key })
    }
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.name, self.key)
    }
}

impl SecretKey {
    /// Reads the key. `None`: the Secret or the key does not exist, or the Secret is being deleted.
    pub(crate) async fn read(&self, client: &kube::Client) -> Result<Option<Revision>, Error> {
        #[derive(Deserialize)]
        struct RawSecret {
            metadata: ObjectMeta,
            data: Option<BTreeMap<String, ByteString>>,
            immutable: Option<bool>,
        }
        let found: Option<RawSecret> = request::get(client, SECRET, Some(&self.namespace), &self.name).await?;
        let found = found.filter(|secret| secret.metadata.deletion_timestamp.is_none());
        let Some(secret) = found else { return Ok(None) };
        let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(&self.key)) else {
            return Ok(None);
        };
        let content = std::str::from_utf8(&bytes.0)
            .map_err(|_| Error::failed(format!("secret:{self} contains bytes that are not UTF-8")))?;
        Ok(Some(Revision {
            owner: ownership::owner(&secret.metadata),
            writer: ownership::last_writer(&secret.metadata, &["data", &self.key], MANAGER),
            content: Secret::new(content),
            object: Metadata::from(secret.metadata.clone()).observed(),
            annotations: secret.metadata.annotations.unwrap_or_default(),
            immutable: secret.immutable.unwrap_or(false),
        }))
    }

    /// Annotates this version of the Secret, and replaces the value of the key if there is a new one.
    pub(crate) async fn write(
        &self,
        client: &kube::Client,
        version: &Revision,
        content: Option<&Secret>,
        annotation: (&str, &str),
        dry_run: bool,
    ) -> request::Result<()> {
        let mut change = json!({});
        if let Some(content) = content {
            change["data"] = json!({ &self.key: STANDARD.encode(content.expose()) });
        }
        let write = cluster::write(dry_run).marked(annotation.0, annotation.1);
        request::patch::<IgnoredAny>(client, SECRET, &version.object, Merge::Json, change, &write).await?;
        Ok(())
    }
}
