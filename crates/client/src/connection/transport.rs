//! The transport of requests: deadline, credential, limited retries, and the headers `Date` and `Warning`. No other module
//! repeats a request.
//!
//! The client of [`wire`] does proxies, TLS, impersonation and decompression. Around it, from the outside in: the deadline of
//! `--request-timeout`; the credential, renewed once after a 401; retries; and the single attempt, which logs itself and
//! reads the `Date` and `Warning` headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use base64::Engine as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, DATE, RETRY_AFTER, USER_AGENT, WARNING};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use k8s_openapi::jiff::fmt::rfc2822;
use kube::client::Body;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::body::{self, Guarded};
use super::identity::{Certificate, Credential};
use super::{Connection, Server, log, proxy, wire};
use crate::clock::ServerClock;
use crate::error::{self, Error};
use crate::redact;

/// The maximum number of attempts of a request.
const TRIES: usize = 5;
/// No attempt starts later than this after the first one.
const BUDGET: Duration = Duration::from_secs(5);

/// How long a connection may be silent. An API server ends every request except a watch after a minute
/// (`--request-timeout` of kube-apiserver), so a connection that is silent for longer is broken.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) fn connect(connection: &Connection) -> Result<Server, Error> {
    let clock = ServerClock::default();
    let transport = Arc::new(Transport::new(connection.clone(), clock.clone())?);
    let service = tower::service_fn(move |request| {
        let transport = Arc::clone(&transport);
        async move { transport.send(request).await }
    });
    Ok(Server {
        client: kube::Client::new(service, connection.namespace.clone()),
        clock,
        url: connection.server.clone(),
        namespace: connection.namespace.clone(),
    })
}

struct Transport {
    connection: Connection,
    config: kube::Config,
    agent: HeaderValue,
    clock: ServerClock,
    /// The client for the current client certificate. A plugin may return another one.
    current: Mutex<Option<(Option<Arc<Certificate>>, kube::Client)>>,
}

impl Transport {
    fn new(connection: Connection, clock: ServerClock) -> Result<Self, Error> {
        let config = config(&connection)?;
        let agent = HeaderValue::from_str(&connection.environment.user_agent)
            .map_err(|_| Error::failed("the name of this program cannot be sent as User-Agent"))?;
        let current = Mutex::new(None);
        Ok(Self {
            connection,
            config,
            agent,
            clock,
            current,
        })
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Guarded>, Error> {
        request
            .headers_mut()
            .entry(USER_AGENT)
            .or_insert_with(|| self.agent.clone());
        let streamed = body::is_streamed(&request);
        let deadline = self.connection.request_timeout.and_then(|timeout| {
            // A timeout beyond the range of the clock is none.
            Some((Instant::now().checked_add(timeout)?, timeout))
        });
        let sent = self.authenticated(request);
        let response = match deadline {
            None => sent.await?,
            Some((at, timeout)) => tokio::time::timeout_at(at, sent)
                .await
                .map_err(|_| error::request_timed_out(timeout))??,
        };
        Ok(response.map(|body| Guarded::new(body, streamed, deadline)))
    }

    /// Sends with a credential, and once more with a new one after a 401. A create is never sent twice.
    async fn authenticated(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let identity = &self.connection.identity;
        let credential = identity.credential().await?;
        let again = if may_repeat(&request) { copy(&request) } else { None };
        let response = self.retried(&credential, request).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !identity.refused(&credential).await {
            return Ok(response);
        }
        match again {
            Some(request) => self.retried(&identity.credential().await?, request).await,
            None => Ok(response),
        }
    }

    async fn retried(&self, credential: &Credential, mut request: Request<Body>) -> Result<Response<Body>, Error> {
        let began = Instant::now();
        let is_read = is_read(&request);
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_factor(2.0)
            .with_jitter()
            .with_max_times(TRIES - 1)
            .build();
        loop {
            let again = if may_repeat(&request) { copy(&request) } else { None };
            let outcome = self.attempt(credential, request).await;
            if !worth_another_try(is_read, &outcome) {
                return outcome;
            }
            if !is_read {
                UNANSWERED_WRITES.fetch_add(1, Ordering::Relaxed);
            }
            let (Some(delay), Some(next)) = (delays.next(), again) else {
                return outcome;
            };
            let delay = asked_pause(&outcome).unwrap_or(delay);
            // Not a sum: `Retry-After` may be any number.
            if delay > BUDGET.saturating_sub(began.elapsed()) {
                return outcome;
            }
            tokio::time::sleep(delay).await;
            request = next;
        }
    }

    /// One request on the wire.
    async fn attempt(&self, credential: &Credential, mut request: Request<Body>) -> Result<Response<Body>, Error> {
        let client = self.client(credential.certificate.as_ref()).await?;
        if let Some(authorization) = &credential.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let sent = redact::Sent::with(request.headers());
        let (streamed, limit) = (body::is_streamed(&request), body::limit(&request));
        let log = log::Attempt::begin(&self.connection, &request);
        let response = async {
            let mut response = client.send(request).await.map_err(|error| self.explained(error))?;
            sent.hide_in_headers(response.headers_mut());
            if streamed && response.status().is_success() {
                return Ok(response);
            }
            let (parts, mut bytes) = body::collected(response, limit).await?.into_parts();
            if !parts.status.is_success() {
                bytes = with_code(parts.status, sent.hide_in(bytes));
            }
            Ok(Response::from_parts(parts, Body::from(bytes)))
        };
        let response = tokio::time::timeout(PATIENCE, response).await;
        let response = response.unwrap_or_else(|_| Err(error::no_answer(PATIENCE)));
        log.end(&response);
        if let Ok(response) = &response {
            self.listen(response);
        }
        response
    }

    /// Reads the time and the warnings of a response.
    fn listen(&self, response: &Response<Body>) {
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        if let Some(at) = date.and_then(|date| rfc2822::parse(date).ok()) {
            self.clock.observe(at.timestamp());
        }
        for warning in response.headers().get_all(WARNING) {
            for text in warning.to_str().map(warnings).unwrap_or_default() {
                self.connection.environment.console.warn(&redact::text(&text));
            }
        }
    }

    async fn client(&self, certificate: Option<&Arc<Certificate>>) -> Result<kube::Client, Error> {
        let mut current = self.current.lock().await;
        if let Some((of, client)) = current.as_ref()
            && of.as_ref() == certificate
        {
            return Ok(client.clone());
        }
        let mut config = self.config.clone();
        if let Some(certificate) = certificate {
            let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
            config.auth_info.client_certificate_data = Some(encode(&certificate.chain));
            config.auth_info.client_key_data = Some(encode(certificate.key.expose()).into());
        }
        let client = wire::client(&config)?;
        *current = Some((certificate.cloned(), client.clone()));
        Ok(client)
    }

    fn explained(&self, error: kube::Error) -> Error {
        let error = error::from_network(error, &self.connection.server);
        if self.connection.is_default {
            return error
                .hint("no kubeconfig was found: set KUBECONFIG, pass --kubeconfig, or put one at ~/.kube/config");
        }
        error
    }
}

/// kube's configuration without retries and authentication, which this module does itself.
fn config(connection: &Connection) -> Result<kube::Config, Error> {
    let uri: http::Uri = connection
        .server
        .as_str()
        .parse()
        .map_err(|_| Error::failed("the address of the API server cannot be used"))?;
    let mut config = kube::Config::new(uri);
    config.default_retry = false;
    config.default_namespace.clone_from(&connection.namespace);
    config.accept_invalid_certs = connection.trust.insecure;
    config.tls_server_name.clone_from(&connection.trust.server_name);
    config.root_cert = connection.trust.authority.as_deref().map(certificates).transpose()?;
    config.root_cert_file.clone_from(&connection.trust.authority_file);
    config.disable_compression = connection.disable_compression;
    config.proxy_url = proxy::choose(
        connection.proxy_url.as_deref(),
        &connection.server,
        &connection.environment,
    )?;
    if connection.server.scheme() == "https" {
        let impersonate = &connection.impersonate;
        config.auth_info.impersonate.clone_from(&impersonate.user);
        config.auth_info.impersonate_uid.clone_from(&impersonate.uid);
        config.auth_info.impersonate_groups = Some(impersonate.groups.clone()).filter(|groups| !groups.is_empty());
        config.auth_info.impersonate_user_extra = Some(impersonate.extra.iter().cloned().collect())
            .filter(|extra: &std::collections::HashMap<_, _>| !extra.is_empty());
    }
    Ok(config)
}

/// The certificates of a PEM bundle, DER; at least one.
pub fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, Error> {
    let refused = || Error::failed("the certificate authority is not a PEM bundle of certificates");
    let parsed: Result<Vec<Vec<u8>>, Error> = x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes())
        .filter(|block| block.as_ref().map_or(true, |block| block.label == "CERTIFICATE"))
        .map(|block| block.map(|block| block.contents).map_err(|_| refused()))
        .collect();
    parsed.and_then(|parsed| if parsed.is_empty() { Err(refused()) } else { Ok(parsed) })
}

static UNANSWERED_WRITES: AtomicUsize = AtomicUsize::new(0);

/// How many writes of this process got no answer so far. They may have been carried out all the same, so the answer to a
/// repetition says nothing about them.
pub fn unanswered_writes() -> usize {
    UNANSWERED_WRITES.load(Ordering::Relaxed)
}

/// Whether the request changes nothing. A review (`selfsubjectaccessreviews`) is created, but only the response has it.
fn is_read<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let is_of_reviews = |group: &str| {
        path.strip_prefix("/apis/").is_some_and(|rest| rest.starts_with(group)) && path.ends_with("reviews")
    };
    match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => true,
        Method::POST => is_of_reviews("authorization.k8s.io/") || is_of_reviews("authentication.k8s.io/"),
        _ => false,
    }
}

/// Whether a retry is safe. Any other POST without a response may have been carried out.
fn may_repeat<B>(request: &Request<B>) -> bool {
    is_read(request) || matches!(*request.method(), Method::PUT | Method::PATCH | Method::DELETE)
}

fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let body = request.body().try_clone()?;
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Whether a retry may succeed: the server is busy, or the network error is transient. A 500 may be either, such as while
/// etcd elects a leader; a write that it has ended is left to the caller.
fn worth_another_try(is_read: bool, outcome: &Result<Response<Body>, Error>) -> bool {
    match outcome {
        Ok(response) => match response.status().as_u16() {
            429 | 502 | 503 | 504 => true,
            code => code == 500 && is_read,
        },
        Err(error) => error.is_repeatable(),
    }
}

/// The pause in `Retry-After`.
fn asked_pause(outcome: &Result<Response<Body>, Error>) -> Option<Duration> {
    let header = outcome.as_ref().ok()?.headers().get(RETRY_AFTER)?;
    header.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Adds the `code` of the response to a body that is a JSON object without one. kube parses any JSON object as a
/// `Status`, and would lose the code. The rest of the body is unchanged.
fn with_code(code: StatusCode, bytes: Bytes) -> Bytes {
    match serde_json::from_slice(&bytes) {
        Ok(serde_json::Value::Object(mut body)) if !body.contains_key("code") => {
            body.insert("code".into(), code.as_u16().into());
            Bytes::from(serde_json::Value::Object(body).to_string())
        }
        _ => bytes,
    }
}

/// The texts of a `Warning` header: `299 - "text"`, several of them after commas. (RFC 7234 §5.5.)
fn warnings(header: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = header;
    while let Some(start) = rest.find('"') {
        let code = rest[..start].trim_start_matches([',', ' ']);
        let mut text = String::new();
        let mut chars = rest[start + 1..].char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                '"' => {
                    end = start + 1 + at + 1;
                    break;
                }
                c => text.push(c),
            }
        }
        if code.starts_with("299 ") {
            texts.push(text);
        }
        rest = &rest[end..];
    }
    texts
}

#[cfg(test)]
mod tests;
