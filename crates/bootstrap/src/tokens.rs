//! Reading and writing the Secrets of tokens.

use std::collections::BTreeMap;

use client::request::{self, Item, ListOptions, Merge, Metadata, Observed, SECRET, Write};
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

/// A walk through all tokens, a page of 500 at a time.
pub struct Listing {
    client: kube::Client,
    labels: Option<String>,
    next: Next,
}

enum Next {
    /// The page that begins there; `None`: the first.
    Page(Option<String>),
    End,
}

impl Listing {
    /// From the first on; those whose labels match, if a selector is given.
    pub fn new(client: &kube::Client, labels: Option<&str>) -> Self {
        Self {
            client: client.clone(),
            labels: labels.map(ToOwned::to_owned),
            next: Next::Page(None),
        }
    }

    /// The next page; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<TokenSecret>>> {
        let Next::Page(from) = std::mem::replace(&mut self.next, Next::End) else {
            return Ok(None);
        };
        let wanted = ListOptions {
            namespace: Some(NAMESPACE),
            labels: self.labels.as_deref(),
            fields: Some(&format!("type={TYPE}")),
            ..ListOptions::default()
        };
        let page = request::list_page::<Listed>(&self.client, SECRET, &wanted, from.as_deref()).await;
        let page = page.map_err(|error| error.about(TOKENS))?;
        self.next = page.next.map_or(Next::End, |next| Next::Page(Some(next)));
        Ok(Some(
            page.items
                .into_iter()
                .map(|listed| TokenSecret::read(listed.into()))
                .collect(),
        ))
    }
}

/// A Secret without what nobody here asks for: `metadata.managedFields` alone is as long as all the rest.
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

/// All tokens at once.
pub async fn list(client: &kube::Client, labels: Option<&str>) -> Result<Vec<TokenSecret>> {
    let mut listing = Listing::new(client, labels);
    let mut all = Vec::new();
    while let Some(page) = listing.next().await? {
        all.extend(page);
    }
    Ok(all)
}

/// Secrets that were meant to be tokens and stand where nobody looks: of the right type in another namespace, or of the
/// right name in `kube-system` and of another type. Only names are fetched, and then these few. Without the right to look
/// everywhere, those of `kube-system` alone.
pub async fn strays(client: &kube::Client, labels: Option<&str>) -> Result<Vec<TokenSecret>> {
    // One after the other: to open a second connection takes longer than either.
    let fields = format!("type={TYPE},metadata.namespace!={NAMESPACE}");
    let elsewhere = match names(client, None, &fields, labels).await {
        Err(error) if error.is_forbidden() => Vec::new(),
        other => other?,
    };
    let here = names(client, Some(NAMESPACE), &format!("type!={TYPE}"), labels).await?;
    let here = here.into_iter().filter(|secret| secret.name.starts_with(SECRET_PREFIX));
    let mut found = Vec::new();
    for Metadata { namespace, name, .. } in here.chain(elsewhere) {
        match request::get::<KubeSecret>(client, SECRET, Some(&namespace), &name).await {
            // Who may list in one namespace need not be let in to another.
            Err(error) if error.is_forbidden() => {}
            other => found.extend(other?.map(TokenSecret::read)),
        }
    }
    Ok(found)
}

/// Namespace and name of the Secrets that match, and nothing that is in them.
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

/// One token, or `None`.
pub async fn get(client: &kube::Client, id: &TokenId) -> Result<Option<TokenSecret>> {
    let found = request::get(client, SECRET, Some(NAMESPACE), &id.secret_name()).await;
    Ok(found
        .map_err(|error| error.about(of(id.as_str())))?
        .map(TokenSecret::read))
}

/// One token that must be there.
pub async fn require(client: &kube::Client, id: &TokenId) -> Result<TokenSecret> {
    get(client, id).await?.ok_or_else(|| Error::NoSuchToken(id.clone()))
}

/// Makes a token by one plain POST. A taken id is an error ([`Error::is_already_exists`]): draw again. It is never sent
/// twice; where no answer came ([`Error::is_unanswered`]), look by [`get`] whether it is there.
pub async fn create(client: &kube::Client, new: &NewToken, write: &Write) -> Result<TokenSecret> {
    let id = &new.token.id;
    let made = request::create(
        client,
        SECRET,
        Some(NAMESPACE),
        &id.secret_name(),
        &new.manifest(),
        write,
    )
    .await;
    Ok(TokenSecret::read(made.map_err(|error| error.about(of(id.as_str())))?))
}

/// Changes a Secret that is still as it was seen; anything else is a conflict. `change` is a merge patch, of which
/// `metadata.uid` and `metadata.resourceVersion` are put in here.
pub async fn patch(client: &kube::Client, seen: &TokenSecret, change: Value, write: &Write) -> Result<TokenSecret> {
    let patched = request::patch(client, SECRET, &observed(seen), Merge::Json, change, write).await;
    Ok(TokenSecret::read(
        patched.map_err(|error| error.about(of(seen.title())))?,
    ))
}

/// Gives a token another end, later or sooner, or none. The cleaner follows at once, in both directions (seen on
/// Kubernetes 1.36.3).
pub async fn extend(
    client: &kube::Client,
    seen: &TokenSecret,
    end: Option<Timestamp>,
    write: &Write,
) -> Result<TokenSecret> {
    use base64::Engine as _;
    let encode = |end| base64::engine::general_purpose::STANDARD.encode(expiration::format(end));
    let change = json!({ "data": { EXPIRATION: end.map(encode) } });
    patch(client, seen, change, write).await
}

/// Makes a token that is still as it was seen what `wanted` says: halves, usages, groups, end and annotations. A usage of
/// Kubernetes, a group or an end that `wanted` has not goes; whatever else is in the Secret stays.
pub async fn mend(client: &kube::Client, seen: &TokenSecret, wanted: &NewToken, write: &Write) -> Result<TokenSecret> {
    patch(client, seen, wanted.changes(), write).await
}

/// Deletes exactly the Secret that was seen, whatever has changed in it. One that is gone already is no error.
pub async fn delete(client: &kube::Client, seen: &TokenSecret, write: &Write) -> Result<()> {
    let deleted = request::delete_any_version(client, SECRET, &observed(seen), write).await;
    Ok(deleted.map_err(|error| error.about(of(seen.title())))?)
}

/// Deletes exactly the Secret that was seen, if nothing in it has changed since; otherwise that is a conflict. One that is
/// gone already is no error.
pub async fn delete_as_seen(client: &kube::Client, seen: &TokenSecret, write: &Write) -> Result<()> {
    let deleted = request::delete(client, SECRET, &observed(seen), write).await;
    Ok(deleted.map_err(|error| error.about(of(seen.title())))?)
}

fn observed(seen: &TokenSecret) -> Observed {
    Observed {
        namespace: seen.namespace.clone(),
        name: seen.name.clone(),
        uid: seen.uid.clone(),
        resource_version: seen.resource_version.clone(),
    }
}
