//! The single changes that a registration token or its Secret can undergo.

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

/// What becomes of one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays as it is, there or not.
    #[default]
    Keep,
    /// It gets this value.
    Set(T),
    /// It goes.
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

/// A registration token to be made.
#[derive(Clone, Debug, Default)]
pub struct NewToken {
    /// Its name, unique in the cluster's namespace. Provisioned clusters take the *first by name*.
    pub name: String,
    /// Its value from the first moment on; None lets Rancher choose one. Both eras honour it at creation, and era S
    /// moves it into the Secret (seen on Rancher 2.12.0 and 2.15.0).
    pub value: Option<Secret>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Makes a registration token, value and all, in one write. An object of that name is a conflict
/// ([`Error::is_already_exists`](crate::Error::is_already_exists)): look whether it is one's own.
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

/// Era P: gives a token another value. The new one authenticates, and the old one does not any more, in under a second
/// (seen on Rancher 2.12.0). In era S this would be ignored and left standing in clear.
pub async fn set_plain_value(
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

/// Era S: the copies in a token's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusChange {
    /// `status.expiresAt`.
    pub expires_at: Change<Timestamp>,
    /// `status.gracePeriodExpiresAt`.
    pub grace_ends_at: Change<Timestamp>,
    /// `status.token`: only ever to be removed here, where it is a leftover.
    pub remove_leftover: bool,
}

/// Era S: changes the copies in a token's status. It is also an event of the token, which its Secret's changes are not.
///
/// What comes back does not have the Secret.
pub async fn change_status(
    client: &kube::Client,
    token: &Observed,
    change: &StatusChange,
    write: &Write,
) -> Result<RegistrationToken> {
    let mut status = Map::new();
    change.expires_at.put(&mut status, "expiresAt", |time| rfc3339(*time));
    change
        .grace_ends_at
        .put(&mut status, "gracePeriodExpiresAt", |time| rfc3339(*time));
    if change.remove_leftover {
        status.insert("token".to_owned(), Value::Null);
    }
    let change = json!({ "status": status });
    let raw: RawToken = request::patch(client, TOKEN, token, Merge::Json, change, write).await?;
    Ok(raw.read())
}

/// Era S: what becomes of the keys of a token's Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretChange {
    /// `token`: another value, or the same.
    pub current: Option<Secret>,
    /// `previousToken`.
    pub previous: Change<Secret>,
    /// `expiresAt`.
    pub expires_at: Change<Timestamp>,
    /// `gracePeriodExpiresAt`.
    pub grace_ends_at: Change<Timestamp>,
}

/// Era S: changes keys of a token's Secret, all in one write, and leaves its other keys alone. Both values authenticate
/// 0.3 s later; Rancher deploys nothing before the next event of the cluster (seen on Rancher 2.15.0).
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

/// Removes a registration token. Its value is refused within 0.4 s (era P, seen on Rancher 2.12.0) or once its finalizer
/// has run and its Secret is collected, some 0.6 s (era S, 2.15.0). Tunnels that are open stay open.
pub async fn delete(client: &kube::Client, token: &Observed, write: &Write) -> Result<()> {
    Ok(request::delete(client, TOKEN, token, write).await?)
}

/// Removes the Secret of a token: for orphans, whose values authenticate for as long as they are there.
pub async fn delete_secret(client: &kube::Client, secret: &Observed, write: &Write) -> Result<()> {
    Ok(request::delete(client, SECRET, secret, write).await?)
}
