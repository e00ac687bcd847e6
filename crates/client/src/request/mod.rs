//! Requests for objects that may contain credentials.
//!
//! The request functions of `kube::Client` are not used. They log the whole response if it cannot be parsed, and
//! serde's message contains the invalid value. Either could print a token.
//!
//! - Only the fields that are used are typed. A write is a patch of those, so other fields survive.
//! - A write carries the uid and the resourceVersion of the object as it was [`Observed`]. It is rejected with a
//!   conflict ([`Error::is_conflict`]) if the object has changed since.
//! - An [`Error`] says what was tried on which object, and keeps the original response of the server.

mod error;
mod list;
mod object;
mod wire;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::params::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

pub use self::error::{Error, Result, Verb};
pub use self::list::{Continue, Item, ListOptions, Page, at_most, list_all, list_page};
pub use self::object::{Metadata, Observed, OwnerReference, Problem, Resource, SECRET, Write};
use self::wire::{fetch, send};

/// One object, or `None` if it does not exist or the server does not serve its kind.
pub async fn get<T: DeserializeOwned>(
    client: &kube::Client,
    resource: Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<T>> {
    if_found(require(client, resource, namespace, name).await)
}

/// One object that must exist. Otherwise the error is [`Error::is_not_found`].
pub async fn require<T: DeserializeOwned>(
    client: &kube::Client,
    resource: Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<T> {
    let object = resource.named(namespace, Some(name));
    let request = resource.request(namespace).get(name, &GetParams::default());
    send(client, Verb::Get, &object, request).await
}

/// The whole metadata of one object, or `None` as with [`get`].
pub async fn get_metadata(
    client: &kube::Client,
    resource: Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<ObjectMeta>> {
    #[derive(Deserialize)]
    struct Partial {
        metadata: ObjectMeta,
    }
    let object = resource.named(namespace, Some(name));
    let request = resource.request(namespace).get_metadata(name, &GetParams::default());
    let partial: Option<Partial> = if_found(send(client, Verb::Get, &object, request).await)?;
    Ok(partial.map(|partial| partial.metadata))
}

fn if_found<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates an object. If the name is taken, the error is [`Error::is_already_exists`]. It is never sent twice: after a
/// lost response ([`Error::is_unanswered`]) the caller has to read the object.
pub async fn create<T: DeserializeOwned>(
    client: &kube::Client,
    resource: Resource,
    namespace: Option<&str>,
    name: &str,
    body: &Value,
    write: &Write,
) -> Result<T> {
    let object = resource.named(namespace, Some(name));
    let params = PostParams {
        dry_run: write.dry_run,
        field_manager: Some(write.field_manager.clone()),
    };
    let body = body.to_string().into_bytes();
    let request = resource.request(namespace).create(&params, body);
    send(client, Verb::Create, &object, request).await
}

/// How a patch is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// RFC 7386, the only one for custom resources.
    Json,
    /// Strategic merge by the keys of built-in types, such as the names of environment variables.
    Strategic,
}

/// Patches the observed object. The precondition and the annotations of `write` are added to the `metadata` of
/// `change`.
pub async fn patch<T: DeserializeOwned>(
    client: &kube::Client,
    resource: Resource,
    observed: &Observed,
    merge: Merge,
    mut change: Value,
    write: &Write,
) -> Result<T> {
    change["metadata"]["uid"] = json!(observed.uid);
    change["metadata"]["resourceVersion"] = json!(observed.resource_version);
    for (key, value) in &write.annotations {
        change["metadata"]["annotations"][key] = json!(value);
    }
    let params = PatchParams {
        dry_run: write.dry_run,
        field_manager: Some(write.field_manager.clone()),
        ..PatchParams::default()
    };
    let change = match merge {
        Merge::Json => Patch::Merge(change),
        Merge::Strategic => Patch::Strategic(change),
    };
    let namespace = observed.namespace();
    let object = resource.named(namespace, Some(&observed.name));
    let request = resource.request(namespace).patch(&observed.name, &params, &change);
    send(client, Verb::Patch, &object, request).await
}

/// Deletes the object if it has not changed since it was observed. A missing object is not an error.
pub async fn delete(client: &kube::Client, resource: Resource, observed: &Observed, write: &Write) -> Result<()> {
    let exactly = Preconditions {
        uid: Some(observed.uid.clone()),
        resource_version: Some(observed.resource_version.clone()),
    };
    remove(client, resource, observed, exactly, write).await
}

/// Deletes the observed object even if it has changed since. A missing object is not an error.
pub async fn delete_any_version(
    client: &kube::Client,
    resource: Resource,
    observed: &Observed,
    write: &Write,
) -> Result<()> {
    let the_same = Preconditions {
        uid: Some(observed.uid.clone()),
        resource_version: None,
    };
    remove(client, resource, observed, the_same, write).await
}

async fn remove(
    client: &kube::Client,
    resource: Resource,
    observed: &Observed,
    preconditions: Preconditions,
    write: &Write,
) -> Result<()> {
    let namespace = observed.namespace();
    let object = resource.named(namespace, Some(&observed.name));
    let params = DeleteParams {
        dry_run: write.dry_run,
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    let request = resource.request(namespace).delete(&observed.name, &params);
    match send::<IgnoredAny>(client, Verb::Delete, &object, request).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// GETs a path of the API that is not an object. `what` is its name in an error.
pub async fn get_path<T: DeserializeOwned>(client: &kube::Client, what: &str, path: &str) -> Result<T> {
    send(client, Verb::Get, &format!("{what} {path}"), wire::get(path)).await
}

/// The same for a response that is text.
pub async fn get_text(client: &kube::Client, what: &str, path: &str) -> Result<String> {
    let object = format!("{what} {path}");
    let bytes = fetch(client, Verb::Get, &object, wire::get(path)).await?;
    String::from_utf8(bytes).map_err(|_| Error::senseless(Verb::Get, object))
}

#[cfg(test)]
mod tests;
