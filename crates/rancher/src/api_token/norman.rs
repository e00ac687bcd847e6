//! Requests to Rancher's own API, `/v3`, which is no Kubernetes API: lists are collections with `data`, and an error is
//! `{"type": "error", "status": "401", "message": "…"}`, with `status` as text or as a number.

use client::error::NO_STATUS;
use client::redact;
use client::request::{self, Verb};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use kube::core::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// The longest is a list of all of a user's tokens or clusters.
const LONGEST_ANSWER: usize = 64 << 20;
/// How much of an answer that is nothing of Rancher's is worth keeping, in characters.
const LONGEST_MESSAGE: usize = 300;

/// What was asked, as an error says it.
pub(super) struct Asked {
    verb: Verb,
    object: String,
}

impl Asked {
    pub(super) fn new(verb: Verb, kind: &str, name: Option<&str>) -> Self {
        let object = name.map_or_else(|| format!("{kind}s"), |name| format!("{kind} {name}"));
        Self { verb, object }
    }

    /// The error for a success that does not have what it must have.
    pub(super) fn senseless(&self) -> Error {
        request::Error::senseless(self.verb, &self.object).into()
    }

    fn unreadable(&self, at: &serde_json::Error) -> Error {
        request::Error::unreadable(self.verb, &self.object, at).into()
    }

    fn failed(&self, source: kube::Error) -> Error {
        request::Error::failed(self.verb, &self.object, source).into()
    }
}

/// An answer, whatever it says.
pub(super) struct Answer {
    pub(super) code: u16,
    /// Where a redirect leads.
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// One request and what came back.
pub(super) async fn ask(
    client: &kube::Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> std::result::Result<Answer, kube::Error> {
    let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(bytes))
        .map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))?;
    let (head, body) = client.send(request).await?.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await;
    Ok(Answer {
        code: head.status.as_u16(),
        location: head
            .headers
            .get(header::LOCATION)
            .and_then(|to| Some(to.to_str().ok()?.to_owned())),
        body: body.map_err(kube::Error::Service)?.to_bytes().into(),
    })
}

/// A request that is to succeed; its answer parsed. An empty one (204) counts as `null`.
pub(super) async fn send<T: DeserializeOwned>(
    client: &kube::Client,
    asked: &Asked,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<T> {
    let answer = ask(client, method, path, body)
        .await
        .map_err(|error| asked.failed(error))?;
    if !answer.is_success() {
        return Err(asked.failed(kube::Error::Api(refusal(&answer).boxed())));
    }
    let text: &[u8] = if answer.body.is_empty() { b"null" } else { &answer.body };
    serde_json::from_slice(text).map_err(|error| asked.unreadable(&error))
}

/// All of a collection: -1 is Rancher's way to say "no pages".
pub(super) async fn list<T: DeserializeOwned>(client: &kube::Client, asked: &Asked, path: &str) -> Result<Vec<T>> {
    #[derive(Deserialize)]
    struct Collection<T> {
        data: Option<Vec<T>>,
    }
    let joint = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{joint}limit=-1");
    let collection: Collection<T> = send(client, asked, Method::GET, &path, None).await?;
    Ok(collection.data.unwrap_or_default())
}

/// "Not found" is an answer too.
pub(super) fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What Rancher says of its refusal, as a Kubernetes status.
fn refusal(answer: &Answer) -> Status {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let (message, reason) = if body["type"] == "error" {
        let text = |key: &str| body[key].as_str().unwrap_or_default();
        let reason = Some(text("code")).filter(|code| !code.is_empty());
        (text("message").to_owned(), reason.unwrap_or("Rancher").to_owned())
    } else {
        (beginning(&answer.body), NO_STATUS.to_owned())
    };
    Status::failure(&redact::text(&message), &reason).with_code(answer.code)
}

/// The beginning of a text that nobody expected, without credentials.
pub(super) fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().take(LONGEST_MESSAGE).collect();
    redact::text(&text)
}
