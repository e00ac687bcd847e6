//! Asks Rancher whether it accepts a registration token, at the public endpoints that agents use.
//!
//! This needs no permission and changes nothing, but each probe leaves a line in Rancher's log. There are three endpoints:
//!
//! | endpoint | accepted | rejected |
//! |---|---|---|
//! | `/v3/connect` with the token as an agent sends it | 400 `unexpected end of JSON input` (the rest of the handshake is missing) | 400 `cluster not found` |
//! | `/v3/connect` as for the second tunnel, `Bearer stv-cluster-<token>` | 400 `Error during upgrade for host [stv-cluster-<cluster id>]` (it is no websocket) | 401 `failed authentication` |
//! | `/cacerts` with the token's hash and a nonce | 200 and `X-Cattle-Hash`, an HMAC keyed with the token | storage `secret`: 200 without the header; storage `status`: **the handler panics** and the connection is cut |
//!
//! (All seen on Rancher 2.15.0 and 2.12.0.) So with storage `status` the third endpoint is only asked about a token that the
//! first two accept. It proves that Rancher itself answers: the header cannot be computed without the token.
//!
//! Behind a load balancer each replica of Rancher has its own index of tokens, and they learn of a change one after the
//! other. So each request uses a connection of its own, and one probe is not enough.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::request::{self, Verb};
use client::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use sha2::{Digest as _, Sha256, Sha512};
use subtle::ConstantTimeEq as _;

use crate::agent::STV_PREFIX;
use crate::cluster_id::ClusterId;
use crate::error::Result;
use crate::token::generate;
use crate::token_storage::TokenStorage;

const TUNNEL_TOKEN: HeaderName = HeaderName::from_static("x-api-tunnel-token");
const NONCE: HeaderName = HeaderName::from_static("x-cattle-nonce");
const HASH: HeaderName = HeaderName::from_static("x-cattle-hash");

/// What Rancher answers to a token.
#[derive(Clone, Debug)]
pub enum ProbeResult {
    /// Every endpoint accepts it.
    Accepted {
        /// The cluster that it belongs to, as the second tunnel's endpoint names it.
        cluster: Option<ClusterId>,
    },
    /// Every endpoint that was asked rejects it.
    Rejected,
    /// Neither is proven.
    Unknown(UnknownReason),
}

impl ProbeResult {
    /// Whether every endpoint accepts it.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }

    /// Whether every endpoint rejects it.
    pub fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected)
    }
}

/// Why the result of a probe is unknown.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum UnknownReason {
    /// There was no response.
    NoAnswer(Arc<kube::Error>),
    /// The response is none that this endpoint of Rancher gives: it comes from a proxy, or from something else.
    Unexpected {
        /// The path of the endpoint.
        path: &'static str,
        /// Its HTTP status.
        code: u16,
    },
    /// One endpoint or replica accepts the token and another rejects it: replicas learn of a change one after the other.
    Disagreement,
    /// The token is accepted, but what answers does not know it: something between here and Rancher.
    NotProven,
    /// The token cannot be sent in a header, so no agent can use it: it contains a line break or the like.
    InvalidHeader,
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(_) => f.write_str("Rancher did not answer"),
            Self::Unexpected { path, code } => write!(f, "unexpected response {code} from {path}"),
            Self::Disagreement => f.write_str("one endpoint or replica accepts it and another rejects it"),
            Self::NotProven => f.write_str("the server that answers for Rancher does not know the token"),
            Self::InvalidHeader => f.write_str("it contains characters that cannot be sent in a header"),
        }
    }
}

/// What answers at a URL.
#[derive(Clone, Debug)]
pub enum ServerIdentity {
    /// Rancher, with its endpoints for agents.
    Rancher,
    /// Another HTTP server.
    Other {
        /// Its HTTP status for a request that Rancher answers with 400 `cluster not found`.
        code: u16,
    },
    /// Nothing.
    NoAnswer(Arc<kube::Error>),
}

/// What one endpoint answers.
enum EndpointResult {
    Accepted(Option<ClusterId>),
    Rejected,
    Unknown(UnknownReason),
}

struct Response {
    code: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Sends requests to Rancher's public endpoints.
#[derive(Clone)]
pub struct Probe {
    client: kube::Client,
}

impl Probe {
    /// `client` must be built for Rancher's own URL and without credentials: a client with credentials would replace the
    /// token by them.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// Whether Rancher answers at this URL, by a request with a random token.
    pub async fn identify(&self) -> Result<ServerIdentity> {
        let random = generate()?;
        Ok(match self.tunnel(&random).await {
            EndpointResult::Rejected | EndpointResult::Accepted(_) => ServerIdentity::Rancher,
            EndpointResult::Unknown(UnknownReason::NoAnswer(why)) => ServerIdentity::NoAnswer(why),
            EndpointResult::Unknown(UnknownReason::Unexpected { code, .. }) => ServerIdentity::Other { code },
            EndpointResult::Unknown(_) => ServerIdentity::Other { code: 0 },
        })
    }

    /// The PEM by which agents trust Rancher. None: Rancher has none, and uses a publicly trusted certificate.
    pub async fn ca_certificates(&self) -> Result<Option<String>> {
        let failed = |source| request::Error::failed(Verb::Get, "CA certificates /cacerts", source);
        let response = self.request("/cacerts", HeaderMap::new()).await.map_err(failed)?;
        if !response.code.is_success() {
            let status = kube::core::Status::failure("unexpected response", "");
            return Err(failed(kube::Error::Api(status.with_code(response.code.as_u16()).boxed())).into());
        }
        let text = String::from_utf8(response.body).map_err(|error| failed(kube::Error::FromUtf8(error)))?;
        Ok(Some(text).filter(|text| !text.trim().is_empty()))
    }

    /// Asks every endpoint once.
    pub async fn check(&self, storage: TokenStorage, token: &Secret) -> ProbeResult {
        if token.is_empty() {
            // Never sent: with storage `status` Rancher may have a blank token in its index for a moment.
            return ProbeResult::Rejected;
        }
        let (tunnel, second) = futures::future::join(self.tunnel(token), self.second_tunnel(token)).await;
        let result = match (tunnel, second) {
            (EndpointResult::Unknown(reason), _) | (_, EndpointResult::Unknown(reason)) => {
                return ProbeResult::Unknown(reason);
            }
            (EndpointResult::Accepted(_), EndpointResult::Accepted(cluster)) => ProbeResult::Accepted { cluster },
            (EndpointResult::Rejected, EndpointResult::Rejected) => ProbeResult::Rejected,
            _ => return ProbeResult::Unknown(UnknownReason::Disagreement),
        };
        if storage == TokenStorage::Status && result.is_rejected() {
            return result;
        }
        match (self.cacerts(token).await, result) {
            (EndpointResult::Accepted(_), result @ ProbeResult::Accepted { .. })
            | (EndpointResult::Rejected, result @ ProbeResult::Rejected) => result,
            (EndpointResult::Unknown(reason), _) => ProbeResult::Unknown(reason),
            _ => ProbeResult::Unknown(UnknownReason::Disagreement),
        }
    }

    /// Checks a token `times` times in a row, each over new connections. Stops at the first result that differs or is unknown.
    pub async fn check_times(&self, storage: TokenStorage, token: &Secret, times: u32) -> ProbeResult {
        let first = self.check(storage, token).await;
        for _ in 1..times {
            if matches!(first, ProbeResult::Unknown(_)) {
                break;
            }
            match (&first, self.check(storage, token).await) {
                (ProbeResult::Accepted { .. }, ProbeResult::Accepted { .. })
                | (ProbeResult::Rejected, ProbeResult::Rejected) => {}
                (_, unknown @ ProbeResult::Unknown(_)) => return unknown,
                _ => return ProbeResult::Unknown(UnknownReason::Disagreement),
            }
        }
        first
    }

    /// The endpoint of the first tunnel.
    async fn tunnel(&self, token: &Secret) -> EndpointResult {
        let headers = sensitive(token.expose()).map(|value| HeaderMap::from_iter([(TUNNEL_TOKEN, value)]));
        self.connect(headers, |response| {
            let text = response.text();
            if response.code != StatusCode::BAD_REQUEST {
                None
            } else if text.contains("unexpected end of JSON input") {
                Some(EndpointResult::Accepted(None))
            } else {
                text.contains("cluster not found").then_some(EndpointResult::Rejected)
            }
        })
        .await
    }

    /// The same endpoint, as for the second tunnel.
    async fn second_tunnel(&self, token: &Secret) -> EndpointResult {
        let bearer = Secret::new(format!("Bearer {STV_PREFIX}{}", token.expose()));
        let headers = sensitive(bearer.expose()).map(|value| HeaderMap::from_iter([(AUTHORIZATION, value)]));
        self.connect(headers, |response| {
            let text = response.text();
            let host = text
                .split_once("Error during upgrade for host [")
                .and_then(|(_, rest)| rest.split_once(']'));
            if let Some((host, _)) = host {
                let cluster = host.strip_prefix(STV_PREFIX).and_then(|id| id.parse().ok());
                return Some(EndpointResult::Accepted(cluster));
            }
            let rejected = response.code == StatusCode::UNAUTHORIZED && text.contains("failed authentication");
            rejected.then_some(EndpointResult::Rejected)
        })
        .await
    }

    async fn connect(
        &self,
        headers: Option<HeaderMap>,
        read: impl Fn(&Response) -> Option<EndpointResult>,
    ) -> EndpointResult {
        let Some(headers) = headers else {
            return EndpointResult::Unknown(UnknownReason::InvalidHeader);
        };
        match self.request("/v3/connect", headers).await {
            Ok(response) => read(&response).unwrap_or_else(|| response.unexpected("/v3/connect")),
            Err(error) => EndpointResult::Unknown(UnknownReason::NoAnswer(Arc::new(error))),
        }
    }

    async fn cacerts(&self, token: &Secret) -> EndpointResult {
        let nonce = match generate() {
            Ok(nonce) => nonce.expose().to_owned(),
            Err(_) => return EndpointResult::Unknown(UnknownReason::NotProven),
        };
        let hash = STANDARD.encode(Sha256::digest(token.expose().as_bytes()));
        let (Some(bearer), Some(nonce_value)) = (sensitive(&format!("Bearer {hash}")), sensitive(&nonce)) else {
            return EndpointResult::Unknown(UnknownReason::InvalidHeader);
        };
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer), (NONCE, nonce_value)]);
        let response = match self.request("/cacerts", headers).await {
            Ok(response) => response,
            Err(error) => return EndpointResult::Unknown(UnknownReason::NoAnswer(Arc::new(error))),
        };
        if !response.code.is_success() {
            return response.unexpected("/cacerts");
        }
        match response.headers.get(HASH) {
            None => EndpointResult::Rejected,
            Some(hash) if bool::from(proof(token, &nonce, &response.body).as_bytes().ct_eq(hash.as_bytes())) => {
                EndpointResult::Accepted(None)
            }
            Some(_) => EndpointResult::Unknown(UnknownReason::NotProven),
        }
    }

    async fn request(&self, path: &'static str, mut headers: HeaderMap) -> Result<Response, kube::Error> {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let mut request = http::Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static(path);
        *request.headers_mut() = headers;
        let (head, body) = self.client.send(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response {
            code: head.status,
            headers: head.headers,
            body: body.into(),
        })
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

impl Response {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    fn unexpected(&self, path: &'static str) -> EndpointResult {
        EndpointResult::Unknown(UnknownReason::Unexpected {
            path,
            code: self.code.as_u16(),
        })
    }
}

/// The value of a header that no transport log shows.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What Rancher answers to a nonce if it knows the token (`pkg/cacerts/handler.go` of Rancher 2.15.0).
fn proof(token: &Secret, nonce: &str, ca: &[u8]) -> String {
    let mut mac = Hmac::<Sha512>::new_from_slice(token.expose().as_bytes()).expect("HMAC takes a key of any length");
    for part in [nonce.as_bytes(), &[0], ca, &[0]] {
        mac.update(part);
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Whether two PEM bundles are the same except for white space at their ends.
pub fn same_certificates(one: Option<&str>, other: Option<&str>) -> bool {
    let bare = |pem: Option<&str>| pem.map(str::trim).filter(|pem| !pem.is_empty()).map(str::to_owned);
    bare(one) == bare(other)
}
