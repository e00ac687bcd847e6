//! Sends a request, and returns the response as bytes, as an object, or as a `Status` without credentials.

use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::core::Status;
use serde::de::DeserializeOwned;

use super::{Error, Result, Verb};
use crate::error::NO_STATUS;
use crate::redact;

/// How much of a response that is not a `Status` is kept, in characters.
const LONGEST_MESSAGE: usize = 1000;

/// A request, if it could be built.
type Built = Result<http::Request<Vec<u8>>, kube::core::request::Error>;

/// A plain GET.
pub(super) fn get(path: &str) -> Built {
    let request = http::Request::get(path).body(Vec::new());
    request.map_err(kube::core::request::Error::BuildRequest)
}

/// Sends a request and parses the response.
pub(super) async fn send<T: DeserializeOwned>(
    client: &kube::Client,
    verb: Verb,
    object: &str,
    request: Built,
) -> Result<T> {
    let bytes = fetch(client, verb, object, request).await?;
    parse(verb, object, &bytes)
}

/// Sends a request and returns the raw response.
pub(super) async fn fetch(client: &kube::Client, verb: Verb, object: &str, request: Built) -> Result<Vec<u8>> {
    let answer = match request {
        Ok(request) => answer(client, request).await,
        Err(error) => Err(kube::Error::BuildRequest(error)),
    };
    answer.map_err(|source| Error::failed(verb, object, source))
}

/// Parses a response.
pub(super) fn parse<T: DeserializeOwned>(verb: Verb, object: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::unreadable(verb, object, &error))
}

/// The body of a successful response, or the `Status` of a failed one. It is synthesized if the response is not a
/// `Status`.
async fn answer(client: &kube::Client, request: http::Request<Vec<u8>>) -> Result<Vec<u8>, kube::Error> {
    let response = client.send(request.map(Body::from)).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if code.is_success() {
        return Ok(body.into());
    }
    let status: Option<Status> = serde_json::from_slice(&body).ok();
    let status = status.filter(|status| status.status.is_some());
    let mut status = status.unwrap_or_else(|| {
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
