//! Reading and writing the Secrets of tokens.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;
use kube::api::{Api, DeleteParams, ListParams, ObjectList, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result, Verb};
use crate::expiration;
use crate::secret::{EXPIRATION, NAMESPACE, NewToken, TYPE, TokenSecret};
use crate::token::{SECRET_PREFIX, TokenId};

/// How many Secrets one answer holds, as with kubectl.
const PAGE: u32 = 500;
const TOKENS: &str = "bootstrap tokens (Secrets in namespace kube-system)";

/// How a write is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Who writes, as the API server records it (`metadata.managedFields[].manager`).
    pub field_manager: String,
    /// Let the server check everything and store nothing.
    pub dry_run: bool,
}

impl Write {
    /// A write in earnest.
    pub fn by(field_manager: impl Into<String>) -> Self {
        Self {
            field_manager: field_manager.into(),
            dry_run: false,
        }
    }

    /// The same as a dry run on the server, or not.
    #[must_use]
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }
}

fn api(client: &kube::Client) -> Api<KubeSecret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn of(id: &TokenId) -> String {
    format!("bootstrap token {id}")
}

/// A walk through all tokens, a page of 500 at a time.
pub struct Listing {
    client: kube::Client,
    params: Option<ListParams>,
}

impl Listing {
    /// From the first on; those whose labels match, if a selector is given.
    pub fn new(client: &kube::Client, labels: Option<&str>) -> Self {
        let params = ListParams {
            field_selector: Some(format!("type={TYPE}")),
            label_selector: labels.map(ToOwned::to_owned),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        Self {
            client: client.clone(),
            params: Some(params),
        }
    }

    /// The next page; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<TokenSecret>>> {
        let Some(params) = self.params.take() else {
            return Ok(None);
        };
        let page = page(&self.client, &params).await;
        let page = page.map_err(Error::request(Verb::List, TOKENS))?;
        self.params = page
            .metadata
            .continue_
            .filter(|next| !next.is_empty())
            .map(|next| params.continue_token(&next));
        let secrets = page.items.into_iter().map(|listed| TokenSecret::read(listed.into()));
        Ok(Some(secrets.collect()))
    }
}

async fn page(client: &kube::Client, params: &ListParams) -> kube::Result<ObjectList<Listed>> {
    let path = KubeSecret::url_path(&(), Some(NAMESPACE));
    let request = kube::core::Request::new(path).list(params);
    let request = request.map_err(kube::Error::BuildRequest)?;
    client.request(request).await
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
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
}

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
    let elsewhere = match names(Api::all(client.clone()), fields, labels).await {
        Err(error) if error.is_forbidden() => Vec::new(),
        other => other?,
    };
    let here = names(api(client), format!("type!={TYPE}"), labels).await?;
    let here = here.into_iter().filter(|(_, name)| name.starts_with(SECRET_PREFIX));
    let mut found = Vec::new();
    for (namespace, name) in here.chain(elsewhere) {
        let api = Api::<KubeSecret>::namespaced(client.clone(), &namespace);
        let object = format!("Secret {namespace}/{name}");
        match api.get_opt(&name).await.map_err(Error::request(Verb::Get, object)) {
            // Who may list in one namespace need not be let in to another.
            Err(error) if error.is_forbidden() => {}
            other => found.extend(other?.map(TokenSecret::read)),
        }
    }
    Ok(found)
}

/// Namespace and name of the Secrets that match.
async fn names(api: Api<KubeSecret>, fields: String, labels: Option<&str>) -> Result<Vec<(String, String)>> {
    let mut params = ListParams::default().fields(&fields).limit(PAGE);
    params.label_selector = labels.map(ToOwned::to_owned);
    let mut all = Vec::new();
    loop {
        let page = api.list_metadata(&params).await;
        let page = page.map_err(Error::request(Verb::List, "the names of Secrets"))?;
        let name = |object: PartialObjectMeta<KubeSecret>| Some((object.metadata.namespace?, object.metadata.name?));
        all.extend(page.items.into_iter().filter_map(name));
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(all),
        }
    }
}

/// One token, or `None`.
pub async fn get(client: &kube::Client, id: &TokenId) -> Result<Option<TokenSecret>> {
    let found = api(client).get_opt(&id.secret_name()).await;
    Ok(found.map_err(Error::request(Verb::Get, of(id)))?.map(TokenSecret::read))
}

/// One token that must be there.
pub async fn require(client: &kube::Client, id: &TokenId) -> Result<TokenSecret> {
    get(client, id).await?.ok_or_else(|| Error::NoSuchToken(id.clone()))
}

/// Makes a token by one plain POST. A taken id is an error ([`Error::is_already_exists`]): draw again. It is never sent
/// twice; where no answer came ([`Error::is_unanswered`]), look by [`get`] whether it is there.
pub async fn create(client: &kube::Client, new: &NewToken, write: &Write) -> Result<TokenSecret> {
    let params = PostParams {
        dry_run: write.dry_run,
        field_manager: Some(write.field_manager.clone()),
    };
    let failed = || Error::request(Verb::Create, of(&new.token.id));
    let manifest = serde_json::from_value(new.manifest())
        .map_err(kube::Error::SerdeError)
        .map_err(failed())?;
    let made = api(client).create(&params, &manifest).await.map_err(failed())?;
    Ok(TokenSecret::read(made))
}

/// Changes a Secret that is still as it was seen; anything else is a conflict. `change` is a merge patch, of which
/// `metadata.uid` and `metadata.resourceVersion` are put in here.
pub async fn patch(client: &kube::Client, seen: &TokenSecret, mut change: Value, write: &Write) -> Result<TokenSecret> {
    change["metadata"]["uid"] = json!(seen.uid);
    change["metadata"]["resourceVersion"] = json!(seen.resource_version);
    let params = PatchParams {
        dry_run: write.dry_run,
        field_manager: Some(write.field_manager.clone()),
        ..PatchParams::default()
    };
    let api = Api::<KubeSecret>::namespaced(client.clone(), &seen.namespace);
    let patched = api.patch(&seen.name, &params, &Patch::Merge(change)).await;
    let patched = patched.map_err(Error::request(Verb::Patch, format!("bootstrap token {}", seen.title())))?;
    Ok(TokenSecret::read(patched))
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
    delete_if(client, seen, None, write).await
}

/// Deletes exactly the Secret that was seen, if nothing in it has changed since; otherwise that is a conflict. One that is
/// gone already is no error.
pub async fn delete_as_seen(client: &kube::Client, seen: &TokenSecret, write: &Write) -> Result<()> {
    delete_if(client, seen, Some(seen.resource_version.clone()), write).await
}

async fn delete_if(
    client: &kube::Client,
    seen: &TokenSecret,
    resource_version: Option<String>,
    write: &Write,
) -> Result<()> {
    let params = DeleteParams {
        dry_run: write.dry_run,
        preconditions: Some(Preconditions {
            uid: Some(seen.uid.clone()),
            resource_version,
        }),
        ..DeleteParams::default()
    };
    let api = Api::<KubeSecret>::namespaced(client.clone(), &seen.namespace);
    let deleted = api.delete(&seen.name, &params).await;
    match deleted.map_err(Error::request(
        Verb::Delete,
        format!("bootstrap token {}", seen.title()),
    )) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
