//! Reads and writes the Secrets of tokens.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::request::{self, Continue, Item, ListOptions, Merge, Metadata, Observed, SECRET, Write};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::expiration;
use crate::secret::{EXPIRATION, NAMESPACE, NewToken, TYPE, TokenSecret};
use crate::token::{SECRET_PREFIX, TokenId};

const TOKENS: &str = "bootstrap tokens (Secrets in namespace kube-system)";

fn of(title: &str) -> String {
    format!("bootstrap token {title}")
}

/// A page of up to 500 tokens, whose labels match a selector if there is one, and where the next page starts. `from`: where this page
/// starts.
pub async fn page(
    client: &kube::Client,
    labels: Option<&str>,
    from: Option<&Continue>,
) -> Result<(Vec<TokenSecret>, Option<Continue>)> {
    let wanted = ListOptions {
        namespace: Some(NAMESPACE),
        labels,
        fields: Some(&format!("type={TYPE}")),
        ..ListOptions::default()
    };
    let page = request::list_page::<Listed>(client, SECRET, &wanted, from).await;
    let page = page.map_err(|error| error.about(TOKENS))?;
    let tokens = page.items.into_iter().map(|listed| TokenSecret::read(listed.into()));
    Ok((tokens.collect(), page.next))
}

/// A Secret without `metadata.managedFields`, which is as large as the rest.
#[derive(Clone, Deserialize)]
struct Listed {
    metadata: ListedMeta,
    data: Option<BTreeMap<String, ByteString>>,
    #[serde(rename = "type")]
    type_: Option<String>,
    immutable: Option<bool>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
}

impl Item for Listed {}

impl From<Listed> for KubeSecret {
    fn from(listed: Listed) -> Self {
        let metadata = listed.metadata;
        Self {
            metadata: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                labels: metadata.labels,
                annotations: metadata.annotations,
                owner_references: metadata.owner_references,
                creation_timestamp: metadata.creation_timestamp,
                deletion_timestamp: metadata.deletion_timestamp,
                ..ObjectMeta::default()
            },
            data: listed.data,
            type_: listed.type_,
            immutable: listed.immutable,
            ..Self::default()
        }
    }
}

/// All tokens, or those whose labels match a selector.
pub async fn list(client: &kube::Client, labels: Option<&str>) -> Result<Vec<TokenSecret>> {
    let (mut all, mut next) = page(client, labels, None).await?;
    while let Some(from) = next {
        let (tokens, rest) = page(client, labels, Some(&from)).await?;
        all.extend(tokens);
        next = rest;
    }
    Ok(all)
}

/// Secrets that Kubernetes ignores: of the type of tokens in another namespace, or named like a token in `kube-system` and of
/// another type.
pub async fn misplaced(client: &kube::Client, labels: Option<&str>) -> Result<Misplaced> {
    // In sequence: opening a second connection takes longer than a request.
    let fields = format!("type={TYPE},metadata.namespace!={NAMESPACE}");
    let elsewhere = match names(client, None, &fields, labels).await {
        Err(error) if error.is_forbidden() => None,
        other => Some(other?),
    };
    let elsewhere_unknown = elsewhere.is_none();
    let here = names(client, Some(NAMESPACE), &format!("type!={TYPE}"), labels).await?;
    let here = here.into_iter().filter(|secret| secret.name.starts_with(SECRET_PREFIX));
    let mut found = Vec::new();
    for Metadata { namespace, name, .. } in here.chain(elsewhere.into_iter().flatten()) {
        match request::get::<KubeSecret>(client, SECRET, Some(&namespace), &name).await {
            // Permission to list does not include permission to get.
            Err(error) if error.is_forbidden() => {}
            other => found.extend(other?.map(TokenSecret::read)),
        }
    }
    Ok(Misplaced {
        secrets: found,
        elsewhere_unknown,
    })
}

/// The Secrets that [`misplaced`] finds.
#[derive(Debug)]
pub struct Misplaced {
    /// The Secrets.
    pub secrets: Vec<TokenSecret>,
    /// There is no permission to list Secrets in all namespaces, so only those in `kube-system` are there.
    pub elsewhere_unknown: bool,
}

/// The metadata of the Secrets that match.
async fn names(
    client: &kube::Client,
    namespace: Option<&str>,
    fields: &str,
    labels: Option<&str>,
) -> Result<Vec<Metadata>> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Metadata,
    }
    impl Item for Named {}
    let wanted = ListOptions {
        namespace,
        labels,
        fields: Some(fields),
        only_metadata: true,
    };
    let found = request::list_all::<Named>(client, SECRET, &wanted).await;
    let found = found.map_err(|error| error.about("the names of Secrets"))?;
    Ok(found.into_iter().map(|secret| secret.metadata).collect())
}

/// One token. `None`: it does not exist.
pub async fn get(client: &kube::Client, id: &TokenId) -> Result<Option<TokenSecret>> {
    let found = request::get(client, SECRET, Some(NAMESPACE), &id.secret_name()).await;
    Ok(found
        .map_err(|error| error.about(of(id.as_str())))?
        .map(TokenSecret::read))
}

/// One token, which must exist.
pub async fn require(client: &kube::Client, id: &TokenId) -> Result<TokenSecret> {
    get(client, id).await?.ok_or_else(|| Error::NotFound(id.clone()))
}

/// Creates a token by one POST, which is not retried. If the id is taken ([`Error::is_already_exists`]), draw another one. If there
/// is no response ([`Error::is_unanswered`]), [`get`] the token.
pub async fn create(client: &kube::Client, new: &NewToken, write: &Write) -> Result<TokenSecret> {
    let id = &new.token.id;
    let (name, manifest) = (id.secret_name(), new.manifest());
    let created = request::create(client, SECRET, Some(NAMESPACE), &name, &manifest, write).await;
    Ok(TokenSecret::read(
        created.map_err(|error| error.about(of(id.as_str())))?,
    ))
}

/// Applies a merge patch to this version of a Secret. Another version is a conflict.
pub async fn patch(client: &kube::Client, current: &TokenSecret, change: Value, write: &Write) -> Result<TokenSecret> {
    let patched = request::patch(client, SECRET, &observed(current), Merge::Json, change, write).await;
    Ok(TokenSecret::read(
        patched.map_err(|error| error.about(of(current.title())))?,
    ))
}

/// Sets or removes the expiry of a token. The token cleaner follows it immediately (Kubernetes 1.36.3).
pub async fn set_expiration(
    client: &kube::Client,
    current: &TokenSecret,
    expiration: Option<Timestamp>,
    write: &Write,
) -> Result<TokenSecret> {
    let encoded = expiration.map(|time| STANDARD.encode(expiration::format(time)));
    patch(client, current, json!({ "data": { EXPIRATION: encoded } }), write).await
}

/// Sets value, usages, groups, expiry and annotations of this version of a token. Other keys of the Secret stay.
pub async fn repair(
    client: &kube::Client,
    current: &TokenSecret,
    new: &NewToken,
    write: &Write,
) -> Result<TokenSecret> {
    patch(client, current, new.changes(), write).await
}

/// Deletes the Secret with this uid, in any version. A Secret that does not exist is not an error.
pub async fn delete(client: &kube::Client, current: &TokenSecret, write: &Write) -> Result<()> {
    let deleted = request::delete_any_version(client, SECRET, &observed(current), write).await;
    Ok(deleted.map_err(|error| error.about(of(current.title())))?)
}

/// Deletes this version of a Secret. Another version is a conflict. A Secret that does not exist is not an error.
pub async fn delete_version(client: &kube::Client, current: &TokenSecret, write: &Write) -> Result<()> {
    let deleted = request::delete(client, SECRET, &observed(current), write).await;
    Ok(deleted.map_err(|error| error.about(of(current.title())))?)
}

fn observed(secret: &TokenSecret) -> Observed {
    Observed {
        namespace: secret.namespace.clone(),
        name: secret.name.clone(),
        uid: secret.uid.clone(),
        resource_version: secret.resource_version.clone(),
    }
}
