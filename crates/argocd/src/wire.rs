//! Requests and answers: the one place where the text of an answer exists. kube's own request functions log the whole
//! answer when it cannot be parsed, and these answers hold tokens.

use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::core::Status;
use kube::core::params::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kubectl_core::redact;
use rancher::{Error, ObjectName, Observed, Result, Verb, Write};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

/// How many objects one answer of a list holds, as with kubectl.
const PAGE: u32 = 500;

/// A kind of object and where it is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resource {
    pub(crate) kind: &'static str,
    /// `/api/v1` or `/apis/<group>/<version>`.
    pub(crate) root: &'static str,
    pub(crate) plural: &'static str,
}

pub(crate) const SECRET: Resource = Resource {
    kind: "Secret",
    root: "/api/v1",
    plural: "secrets",
};

impl Resource {
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

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// All objects that the selector matches, in the namespace or, without one, in all.
pub(crate) async fn list<T: DeserializeOwned>(
    client: &kube::Client,
    resource: Resource,
    namespace: Option<&str>,
    labels: Option<&str>,
) -> Result<Vec<T>> {
    let object = resource.named(namespace, None);
    let mut all: Vec<T> = Vec::new();
    let mut from: Option<String> = None;
    loop {
        let params = ListParams {
            label_selector: labels.map(ToOwned::to_owned),
            limit: Some(PAGE),
            continue_token: from.clone(),
            ..ListParams::default()
        };
        let request = resource.request(namespace).list(&params);
        let page: Page<T> = match send(client, Verb::List, &object, request).await {
            // A page that was asked for too late: what came before is old too.
            Err(error) if from.is_some() && error.code() == Some(410) => {
                all.clear();
                from = None;
                continue;
            }
            other => other?,
        };
        all.extend(page.items.unwrap_or_default());
        from = page.metadata.next.filter(|next| !next.is_empty());
        if from.is_none() {
            return Ok(all);
        }
    }
}

/// One object; `None` if there is none of that name.
pub(crate) async fn get<T: DeserializeOwned>(
    client: &kube::Client,
    resource: Resource,
    namespace: &str,
    name: &str,
) -> Result<Option<T>> {
    let object = resource.named(Some(namespace), Some(name));
    let request = resource.request(Some(namespace)).get(name, &GetParams::default());
    match send(client, Verb::Get, &object, request).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A new object. Never sent twice: a lost answer is found by looking again.
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
    let body = body.to_string().into_bytes();
    let request = resource.request(Some(namespace)).create(&params, body);
    send(client, Verb::Create, &object, request).await
}

/// A merge of one object as it was observed: refused with 409 if it is another, or has changed.
pub(crate) async fn patch<T: DeserializeOwned>(
    client: &kube::Client,
    resource: Resource,
    observed: &Observed,
    mut change: Value,
    write: &Write,
) -> Result<T> {
    let object = resource.named(Some(&observed.namespace), Some(&observed.name));
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
    let request = resource.request(Some(&observed.namespace));
    let request = request.patch(&observed.name, &params, &Patch::Merge(change));
    send(client, Verb::Patch, &object, request).await
}

/// Removes exactly the object that was observed. One that is gone already is no error.
pub(crate) async fn delete(
    client: &kube::Client,
    resource: Resource,
    observed: &Observed,
    write: &Write,
) -> Result<()> {
    let object = resource.named(Some(&observed.namespace), Some(&observed.name));
    let params = DeleteParams {
        dry_run: write.dry_run,
        preconditions: Some(Preconditions {
            uid: Some(observed.uid.clone()),
            resource_version: Some(observed.resource_version.clone()),
        }),
        ..DeleteParams::default()
    };
    let request = resource.request(Some(&observed.namespace));
    let request = request.delete(&observed.name, &params);
    match send::<IgnoredAny>(client, Verb::Delete, &object, request).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The text at a path that is no object.
pub(crate) async fn text(client: &kube::Client, what: &'static str, path: &str) -> Result<String> {
    let object = ObjectName {
        kind: what,
        namespace: None,
        name: Some(path.to_owned()),
    };
    let request = Request::get(path)
        .body(Vec::new())
        .map_err(kube::core::request::Error::BuildRequest);
    let bytes = fetch(client, Verb::Get, &object, request).await?;
    String::from_utf8(bytes).map_err(|_| unreadable(Verb::Get, &object, 0, 0))
}

async fn send<T: DeserializeOwned>(
    client: &kube::Client,
    verb: Verb,
    object: &ObjectName,
    request: Result<Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<T> {
    let bytes = fetch(client, verb, object, request).await?;
    serde_json::from_slice(&bytes).map_err(|error| unreadable(verb, object, error.line(), error.column()))
}

async fn fetch(
    client: &kube::Client,
    verb: Verb,
    object: &ObjectName,
    request: Result<Request<Vec<u8>>, kube::core::request::Error>,
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

/// The body of a success; anything else as the API server's `Status`, without what looks like a credential.
async fn answer(client: &kube::Client, request: Request<Vec<u8>>) -> Result<Vec<u8>, kube::Error> {
    let response = client.send(request.map(Body::from)).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if code.is_success() {
        return Ok(body.into());
    }
    let status: Option<Status> = serde_json::from_slice(&body).ok();
    // Whatever else was answered is not repeated: core says the code.
    let status = status.filter(|status| status.status.is_some());
    let mut status = status.unwrap_or_else(|| Status::failure("", "Failed to parse error data"));
    status.code = code.as_u16();
    status.message = redact::text(&status.message);
    for cause in status.details.iter_mut().flat_map(|details| &mut details.causes) {
        cause.message = redact::text(&cause.message);
    }
    Err(kube::Error::Api(status.boxed()))
}

fn unreadable(verb: Verb, object: &ObjectName, line: usize, column: usize) -> Error {
    Error::Unreadable {
        verb,
        object: Box::new(object.clone()),
        line,
        column,
    }
}
