//! Requests and answers, in the one place where the text of an answer exists.
//!
//! `kube::Client` has request functions of its own. They are not used because they log the whole answer when it cannot
//! be parsed, and serde's message repeats the value that did not fit: either would put a token on the terminal.

use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::core::Status;
use kube::core::params::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kubectl_core::redact;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, ObjectName, Result, Verb};
use crate::object::{Metadata, Observed, Write};

/// How many objects one answer of a list holds, as with kubectl.
pub(crate) const PAGE: u32 = 500;

/// How much of an answer that is no `Status` is worth keeping, in characters.
const LONGEST_MESSAGE: usize = 300;

/// The reason that kube gives to an answer that is no `Status`, by which it is known that the message is a raw body.
const NO_STATUS: &str = "Failed to parse error data";

/// A kind of object and where it is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resource {
    pub(crate) kind: &'static str,
    pub(crate) api_version: &'static str,
    /// `/api/v1` or `/apis/<group>/<version>`.
    pub(crate) root: &'static str,
    pub(crate) plural: &'static str,
}

pub(crate) const SECRET: Resource = Resource {
    kind: "Secret",
    api_version: "v1",
    root: "/api/v1",
    plural: "secrets",
};

impl Resource {
    /// The full group always: `fleet.cattle.io` has a `clusterregistrationtokens` of its own.
    pub(crate) const fn management(kind: &'static str, plural: &'static str) -> Self {
        Self {
            kind,
            api_version: "management.cattle.io/v3",
            root: "/apis/management.cattle.io/v3",
            plural,
        }
    }

    fn request(&self, namespace: Option<&str>) -> kube::core::Request {
        kube::core::Request::new(match namespace {
            Some(namespace) => format!("{}/namespaces/{namespace}/{}", self.root, self.plural),
            None => format!("{}/{}", self.root, self.plural),
        })
    }

    fn named(&self, namespace: Option<&str>, name: Option<&str>) -> ObjectName {
        ObjectName {
            kind: self.kind,
            namespace: namespace.map(ToOwned::to_owned),
            name: name.map(ToOwned::to_owned),
        }
    }
}

/// An object as it is parsed in a list.
pub(crate) trait Item: DeserializeOwned {
    /// What is left of one with a field of the wrong type. (The schemas of some Rancher releases let such pass.)
    fn unreadable(metadata: Metadata) -> Self;
}

/// Some objects of a list, and where the next ones begin.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// What to send for the next page; None at the end.
    pub(crate) next: Option<String>,
}

#[derive(Deserialize)]
struct RawList<T> {
    #[serde(default)]
    metadata: RawListMeta,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct RawListMeta {
    #[serde(default, rename = "continue")]
    next: String,
}

/// Which objects of a list are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) namespace: Option<&'a str>,
    pub(crate) labels: Option<&'a str>,
    pub(crate) fields: Option<&'a str>,
}

/// One object, or None if there is none of that name or the server does not know its kind.
pub(crate) async fn get<T: DeserializeOwned>(
    client: &kube::Client,
    resource: Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<T>> {
    let object = resource.named(namespace, Some(name));
    let request = resource.request(namespace).get(name, &GetParams::default());
    match send(client, Verb::Get, object, request).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// One page of at most [`PAGE`] objects.
///
/// A page asked for too late (410) is followed by the one that the server offers in its place, as kubectl does: the
/// rest of the list then shows a later state.
pub(crate) async fn list_page<T: Item>(
    client: &kube::Client,
    resource: Resource,
    wanted: &Wanted<'_>,
    from: Option<&str>,
) -> Result<Page<T>> {
    match try_list_page(client, resource, wanted, from).await {
        Err(error) if from.is_some() && error.code() == Some(410) => match offered_instead(&error) {
            Some(instead) => try_list_page(client, resource, wanted, Some(&instead)).await,
            None => Err(error),
        },
        other => other,
    }
}

async fn try_list_page<T: Item>(
    client: &kube::Client,
    resource: Resource,
    wanted: &Wanted<'_>,
    from: Option<&str>,
) -> Result<Page<T>> {
    let params = ListParams {
        label_selector: wanted.labels.map(ToOwned::to_owned),
        field_selector: wanted.fields.map(ToOwned::to_owned),
        limit: Some(PAGE),
        continue_token: from.map(ToOwned::to_owned),
        ..ListParams::default()
    };
    let object = resource.named(wanted.namespace, None);
    let request = resource.request(wanted.namespace).list(&params);
    let bytes = fetch(client, Verb::List, &object, request).await?;
    let list = parse::<RawList<T>>(Verb::List, &object, &bytes).or_else(|error| one_by_one(&bytes).ok_or(error))?;
    let next = Some(list.metadata.next).filter(|next| !next.is_empty());
    Ok(Page {
        items: list.items.unwrap_or_default(),
        next,
    })
}

/// A list in which something is of the wrong type: all the other objects, and of that one what makes sense.
fn one_by_one<T: Item>(bytes: &[u8]) -> Option<RawList<T>> {
    let list: RawList<Value> = serde_json::from_slice(bytes).ok()?;
    let read = |item: Value| T::deserialize(&item).unwrap_or_else(|_| T::unreadable(Metadata::salvage(&item)));
    Some(RawList {
        metadata: list.metadata,
        items: list.items.map(|items| items.into_iter().map(read).collect()),
    })
}

fn offered_instead(error: &Error) -> Option<String> {
    let Error::Request { source, .. } = error else {
        return None;
    };
    let kube::Error::Api(status) = source.as_ref() else {
        return None;
    };
    status
        .metadata
        .as_ref()?
        .continue_
        .clone()
        .filter(|next| !next.is_empty())
}

/// All objects of a list that is known to be short.
pub(crate) async fn list_all<T: Item>(
    client: &kube::Client,
    resource: Resource,
    wanted: &Wanted<'_>,
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let mut from = None;
    loop {
        let page = list_page(client, resource, wanted, from.as_deref()).await?;
        all.extend(page.items);
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(all),
        }
    }
}

/// A new object under a name that the caller has chosen. Never sent twice: a lost answer is found by looking again.
pub(crate) async fn create<T: DeserializeOwned>(
    client: &kube::Client,
    resource: Resource,
    namespace: &str,
    name: &str,
    body: &Value,
    write: &Write,
) -> Result<T> {
    let object = resource.named(Some(namespace), Some(name));
    let params = PostParams {
        dry_run: write.dry_run,
        field_manager: Some(write.field_manager.clone()),
    };
    let request = resource
        .request(Some(namespace))
        .create(&params, body.to_string().into_bytes());
    send(client, Verb::Create, object, request).await
}

/// How a patch is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// RFC 7386: the only one that custom resources know.
    Json,
    /// By the keys of built-in types: a container's environment by the variable's name.
    Strategic,
}

/// A change of one object as it was observed. `change` gets the precondition added to its `metadata`.
pub(crate) async fn patch<T: DeserializeOwned>(
    client: &kube::Client,
    resource: Resource,
    observed: &Observed,
    merge: Merge,
    mut change: Value,
    write: &Write,
) -> Result<T> {
    let namespace = Some(observed.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let object = resource.named(namespace, Some(&observed.name));
    let metadata = &mut change["metadata"];
    match metadata {
        Value::Object(fields) => fields.extend(observed.precondition(write)),
        other => *other = Value::Object(observed.precondition(write)),
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
    let request = resource.request(namespace).patch(&observed.name, &params, &change);
    send(client, Verb::Patch, object, request).await
}

/// Removes exactly the object that was observed. One that is gone already is no error.
pub(crate) async fn delete(
    client: &kube::Client,
    resource: Resource,
    observed: &Observed,
    write: &Write,
) -> Result<()> {
    let namespace = Some(observed.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let object = resource.named(namespace, Some(&observed.name));
    let params = DeleteParams {
        dry_run: write.dry_run,
        preconditions: Some(Preconditions {
            uid: Some(observed.uid.clone()),
            resource_version: Some(observed.resource_version.clone()),
        }),
        ..DeleteParams::default()
    };
    let request = resource.request(namespace).delete(&observed.name, &params);
    match send::<serde::de::IgnoredAny>(client, Verb::Delete, object, request).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// A path of the API that is no object.
pub(crate) async fn get_path<T: DeserializeOwned>(client: &kube::Client, path: &str, what: &'static str) -> Result<T> {
    let object = ObjectName {
        kind: what,
        namespace: None,
        name: Some(path.to_owned()),
    };
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(kube::core::request::Error::BuildRequest);
    send(client, Verb::Get, object, request).await
}

async fn send<T: DeserializeOwned>(
    client: &kube::Client,
    verb: Verb,
    object: ObjectName,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<T> {
    let bytes = fetch(client, verb, &object, request).await?;
    parse(verb, &object, &bytes)
}

async fn fetch(
    client: &kube::Client,
    verb: Verb,
    object: &ObjectName,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<Vec<u8>> {
    let answer = match request {
        Ok(request) => answer(client, request).await,
        Err(error) => Err(kube::Error::BuildRequest(error)),
    };
    answer.map_err(|source| Error::Request {
        verb,
        object: Box::new(object.clone()),
        source: Box::new(source),
    })
}

fn parse<T: DeserializeOwned>(verb: Verb, object: &ObjectName, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::Unreadable {
        verb,
        object: Box::new(object.clone()),
        line: error.line(),
        column: error.column(),
    })
}

/// The body of a success; anything else is the API server's `Status`, made up if the answer was none.
async fn answer(client: &kube::Client, request: http::Request<Vec<u8>>) -> Result<Vec<u8>, kube::Error> {
    let response = client.send(request.map(Body::from)).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if code.is_success() {
        return Ok(body.into());
    }
    let mut status = read_status(&body).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body);
        let beginning: String = text.trim().chars().take(LONGEST_MESSAGE).collect();
        Status::failure(&beginning, NO_STATUS)
    });
    status.code = code.as_u16();
    status.message = redact::text(&status.message);
    for cause in status.details.iter_mut().flat_map(|details| &mut details.causes) {
        cause.message = redact::text(&cause.message);
    }
    Err(kube::Error::Api(status.boxed()))
}

/// What the API server says, or what Rancher's proxy says in a form of its own (seen on Rancher 2.15.0 and 2.12.0):
/// `{"Code":{"Code":"Forbidden","Status":403},"Message":"clusters.management.cattle.io \"c-…\" is forbidden: …"}`.
fn read_status(body: &[u8]) -> Option<Status> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refusal {
        code: RefusalCode,
        message: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct RefusalCode {
        code: String,
    }
    let status: Option<Status> = serde_json::from_slice(body).ok();
    status.filter(|status| status.status.is_some()).or_else(|| {
        let refusal: Refusal = serde_json::from_slice(body).ok()?;
        Some(Status::failure(&refusal.message, &refusal.code.code))
    })
}

/// The error for a success whose object has no usable name: no API server sends one.
pub(crate) fn nameless(resource: Resource) -> Error {
    Error::Unreadable {
        verb: Verb::Patch,
        object: Box::new(resource.named(None, None)),
        line: 0,
        column: 0,
    }
}
