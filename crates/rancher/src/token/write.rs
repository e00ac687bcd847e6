//! The single writes of a registration token or its Secret.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::request::{self, Merge, SECRET};
use client::secret::Secret;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{RawSecret, RawToken, RegistrationToken, TOKEN, TokenSecret, not_blank};
use crate::cluster_id::ClusterId;
use crate::error::Result;
use crate::object::{self, Observed, Write, rfc3339};

/// The change of one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// Leave it as it is.
    #[default]
    Keep,
    /// Set this value.
    Set(T),
    /// Remove it.
    Remove,
}

impl<T> Change<T> {
    pub(crate) fn put(&self, fields: &mut Map<String, Value>, key: &str, text: impl Fn(&T) -> String) {
        let value = match self {
            Self::Keep => return,
            Self::Set(value) => json!(text(value)),
            Self::Remove => Value::Null,
        };
        fields.insert(key.to_owned(), value);
    }
}

/// A registration token to be created.
#[derive(Clone, Debug, Default)]
pub struct NewToken {
    /// Its name, unique in the cluster's namespace. Provisioned clusters take the *first by name*.
    pub name: String,
    /// Its value from the start. None lets Rancher choose one. Rancher honours it at creation with both kinds of storage; with
    /// storage `secret` it moves the value into the Secret (seen on Rancher 2.12.0 and 2.15.0).
    pub value: Option<Secret>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Creates a registration token with its value in one write. If one of that name exists, it is a conflict
/// ([`Error::is_already_exists`](crate::Error::is_already_exists)): read it.
pub async fn create(
    client: &kube::Client,
    cluster: &ClusterId,
    new: &NewToken,
    write: &Write,
) -> Result<RegistrationToken> {
    let mut body = json!({
        "apiVersion": TOKEN.api_version,
        "kind": TOKEN.kind,
        "metadata": { "name": new.name, "namespace": cluster.as_str() },
        "spec": { "clusterName": cluster.as_str() },
    });
    for (field, entries) in [("labels", &new.labels), ("annotations", &new.annotations)] {
        if !entries.is_empty() {
            body["metadata"][field] = json!(entries);
        }
    }
    if let Some(value) = &new.value {
        not_blank(value)?;
        body["status"] = json!({ "token": value.expose() });
    }
    let raw: RawToken = request::create(client, TOKEN, Some(cluster.as_str()), &new.name, &body, write).await?;
    Ok(raw.read())
}

/// Storage `status`: sets another value. Rancher accepts it and rejects the old one in under a second (seen on Rancher 2.12.0).
/// With storage `secret` Rancher would ignore the value, and it would stay in the status in plain text.
pub async fn set_status_value(
    client: &kube::Client,
    token: &Observed,
    value: &Secret,
    write: &Write,
) -> Result<RegistrationToken> {
    not_blank(value)?;
    let change = json!({ "status": { "token": value.expose() } });
    let raw: RawToken = request::patch(client, TOKEN, token, Merge::Json, change, write).await?;
    Ok(raw.read())
}

/// Storage `secret`: changes the end of the grace period in a token's status.
pub async fn change_status_grace(
    client: &kube::Client,
    token: &Observed,
    grace_ends_at: &Change<Timestamp>,
    write: &Write,
) -> Result<RegistrationToken> {
    let mut status = Map::new();
    grace_ends_at.put(&mut status, "gracePeriodExpiresAt", |time| rfc3339(*time));
    let change = json!({ "status": status });
    let raw: RawToken = request::patch(client, TOKEN, token, Merge::Json, change, write).await?;
    Ok(raw.read())
}

/// Storage `secret`: the changes of a token's Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretChange {
    /// `token`. None leaves it as it is.
    pub current: Option<Secret>,
    /// `previousToken`.
    pub previous: Change<Secret>,
    /// `expiresAt`.
    pub expires_at: Change<Timestamp>,
    /// `gracePeriodExpiresAt`.
    pub grace_ends_at: Change<Timestamp>,
}

/// Storage `secret`: changes keys of a token's Secret in one write, and leaves the others alone. Rancher accepts both values 0.3 s
/// later. It deploys nothing before it reconciles the cluster (seen on Rancher 2.15.0).
pub async fn change_secret(
    client: &kube::Client,
    secret: &Observed,
    change: &SecretChange,
    write: &Write,
) -> Result<TokenSecret> {
    let mut data = Map::new();
    if let Some(current) = &change.current {
        not_blank(current)?;
        data.insert("token".to_owned(), json!(STANDARD.encode(current.expose())));
    }
    if let Change::Set(previous) = &change.previous {
        not_blank(previous)?;
    }
    change.previous.put(&mut data, "previousToken", |previous| {
        STANDARD.encode(previous.expose())
    });
    change
        .expires_at
        .put(&mut data, "expiresAt", |time| STANDARD.encode(rfc3339(*time)));
    change.grace_ends_at.put(&mut data, "gracePeriodExpiresAt", |time| {
        STANDARD.encode(rfc3339(*time))
    });
    let change = json!({ "data": data });
    let raw: RawSecret = request::patch(client, SECRET, secret, Merge::Json, change, write).await?;
    raw.read().ok_or_else(|| object::nameless(SECRET))
}

/// Deletes a registration token. Rancher rejects its value within 0.4 s (storage `status`, seen on Rancher 2.12.0), or once the
/// finalizer has run and the Secret is garbage-collected, some 0.6 s (storage `secret`, 2.15.0). Open tunnels stay open.
pub async fn delete(client: &kube::Client, token: &Observed, write: &Write) -> Result<()> {
    Ok(request::delete(client, TOKEN, token, write).await?)
}
