//! A token in a key of a Secret, changed by compare-and-swap.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::ownership::{self, Owner, Writer};
use client::secret::Secret;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::InvalidDeliveryTarget;
use crate::side::MANAGER;

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretKey {
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
    /// The key.
    pub key: String,
}

/// A revision of it.
#[derive(Clone, Debug)]
pub struct Revision {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    /// What is in the key; bytes that are not text are replaced.
    pub content: Secret,
    /// The Secret's annotations.
    pub annotations: BTreeMap<String, String>,
    /// It says `immutable: true`.
    pub immutable: bool,
    /// What manages it, by the marks on it.
    pub owner: Option<Owner>,
    /// The manager besides us that wrote the key last.
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
    fn api(&self, client: &kube::Client) -> Api<KubeSecret> {
        Api::namespaced(client.clone(), &self.namespace)
    }

    /// Reads it. `None`: the Secret or the key is not there, or will not be for long.
    pub async fn read(&self, client: &kube::Client) -> kube::Result<Option<Revision>> {
        let found = self.api(client).get_opt(&self.name).await?;
        let found = found.filter(|secret| secret.metadata.deletion_timestamp.is_none());
        Ok(found.and_then(|secret| {
            let bytes = secret.data.as_ref()?.get(&self.key)?;
            Some(Revision {
                owner: ownership::owner(&secret.metadata),
                writer: ownership::last_writer(&secret.metadata, &["data", &self.key], MANAGER),
                content: Secret::new(String::from_utf8_lossy(&bytes.0)),
                uid: secret.metadata.uid.unwrap_or_default(),
                resource_version: secret.metadata.resource_version.unwrap_or_default(),
                annotations: secret.metadata.annotations.unwrap_or_default(),
                immutable: secret.immutable.unwrap_or(false),
            })
        }))
    }

    /// Annotates a Secret that still has this version, and gives the key another content, if there is one. Everything else in
    /// the Secret stays.
    pub async fn write(
        &self,
        client: &kube::Client,
        version: &Revision,
        content: Option<&Secret>,
        annotation: (&str, &str),
        dry_run: bool,
    ) -> kube::Result<()> {
        let mut change = json!({ "metadata": {
            "uid": version.uid,
            "resourceVersion": version.resource_version,
            "annotations": { annotation.0: annotation.1 },
        } });
        if let Some(content) = content {
            change["data"] = json!({ &self.key: STANDARD.encode(content.expose()) });
        }
        let params = PatchParams {
            dry_run,
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patched = self.api(client).patch(&self.name, &params, &Patch::Merge(change)).await;
        patched.map(drop)
    }
}
