//! Requests to Rancher's own API, `/v3`, which is not a Kubernetes API. Lists are collections with `data`. An error is
//! `{"type": "error", "status": "401", "message": "…"}`, with `status` as text or as a number.

use client::error::NO_STATUS;
use client::redact;
use client::request::{Error as RequestError, Verb, at_most};
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::core::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// The most objects of a collection, such as the tokens of one user.
const MOST: usize = 20_000;
/// How many characters of an unexpected response are kept.
const LONGEST_MESSAGE: usize = 300;

/// What was requested, for error messages.
pub(super) struct Operation {
    verb: Verb,
    object: String,
}

impl Operation {
    pub(super) fn new(verb: Verb, kind: &str, name: Option<&str>) -> Self {
        let object = name.map_or_else(|| format!("{kind}s"), |name| format!("{kind} {name}"));
        Self { verb, object }
    }

    /// The error for a successful response without a required field.
    pub(super) fn invalid(&self) -> Error {
        RequestError::senseless(self.verb, &self.object).into()
    }

    fn unreadable(&self, at: &serde_json::Error) -> Error {
        RequestError::unreadable(self.verb, &self.object, at).into()
    }

    fn failed(&self, source: kube::Error) -> Error {
        RequestError::failed(self.verb, &self.object, source).into()
    }
}

/// A response, successful or not.
pub(super) struct Response {
    pub(super) code: u16,
    /// The target of a redirect.
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Response {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// Sends one request.
pub(super) async fn request(
    client: &kube::Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> std::result::Result<Response, kube::Error> {
    let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(bytes))
        .map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))?;
    let (head, body) = client.send(request).await?.into_parts();
    let body = body.collect().await?;
    Ok(Response {
        code: head.status.as_u16(),
        location: head
            .headers
            .get(header::LOCATION)
            .and_then(|to| Some(to.to_str().ok()?.to_owned())),
        body: body.to_bytes().into(),
    })
}

/// Sends a request that should succeed, and parses the response. An empty one (204) counts as `null`.
pub(super) async fn send<T: DeserializeOwned>(
    client: &kube::Client,
    operation: &Operation,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<T> {
    let response = request(client, method, path, body)
        .await
        .map_err(|error| operation.failed(error))?;
    if !response.is_success() {
        return Err(operation.failed(kube::Error::Api(status_of(&response).boxed())));
    }
    let text: &[u8] = if response.body.is_empty() {
        b"null"
    } else {
        &response.body
    };
    serde_json::from_slice(text).map_err(|error| operation.unreadable(&error))
}

/// A whole collection: the limit -1 means "no pages".
pub(super) async fn list<T: DeserializeOwned>(
    client: &kube::Client,
    operation: &Operation,
    path: &str,
) -> Result<Vec<T>> {
    #[derive(Deserialize)]
    #[serde(bound(deserialize = "T: Deserialize<'de>"))]
    struct Collection<T> {
        #[serde(default, deserialize_with = "at_most::<MOST, _, _>")]
        data: Vec<T>,
    }
    let joint = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{joint}limit=-1");
    let collection: Collection<T> = send(client, operation, Method::GET, &path, None).await?;
    Ok(collection.data)
}

/// `None` for "not found".
pub(super) fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// An error response as a Kubernetes status.
fn status_of(response: &Response) -> Status {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let (message, reason) = if body["type"] == "error" {
        let text = |key: &str| body[key].as_str().unwrap_or_default();
        let reason = Some(text("code")).filter(|code| !code.is_empty());
        (text("message").to_owned(), reason.unwrap_or("Rancher").to_owned())
    } else {
        (beginning(&response.body), NO_STATUS.to_owned())
    };
    Status::failure(&redact::text(&message), &reason).with_code(response.code)
}

/// The beginning of an unexpected response, without credentials.
pub(super) fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().take(LONGEST_MESSAGE).collect();
    redact::text(&text)
}
