//! The HTTPS listener of a server and its routes: `pkg/server/handlers/router.go`. The supervisor and the API server
//! share a port on K3s. Every path that is not the supervisor's goes to the real API server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, DATE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822::DateTimePrinter;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::auth::{Login, login};
use crate::datastore::Datastore;
use crate::encryption;
use crate::faults::Faults;
use crate::node::Node;
use crate::put::{Put, put};
use crate::serve::{Phase, Server, die};
use crate::{snapshots, upstream};

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The connection is closed without a response.
#[derive(Debug)]
pub(crate) struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the handler panicked")
    }
}

impl std::error::Error for Hangup {}

pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A complete response, before it is rendered for the client.
pub(crate) enum Reply {
    Text(u16, String),
    Json(u16, Value),
    /// A `Status` object.
    Status(u16, String),
}

impl Reply {
    fn status(code: u16, message: &str) -> Self {
        Self::Status(code, message.to_owned())
    }

    /// Errors are printed over several lines for curl, wget and browsers, as everywhere in Kubernetes.
    fn respond(self, headers: &HeaderMap) -> Response<Body> {
        let (code, content, text) = match self {
            Self::Text(code, text) => (code, "text/plain", text),
            Self::Json(code, value) => (code, "application/json", format!("{value}\n")),
            Self::Status(code, message) => {
                let reason = match code {
                    400 => "BadRequest",
                    401 => "Unauthorized",
                    403 => "Forbidden",
                    404 => "NotFound",
                    405 => "MethodNotAllowed",
                    503 => "ServiceUnavailable",
                    _ => "InternalError",
                };
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": message, "reason": reason, "code": code,
                });
                let agent = headers
                    .get(USER_AGENT)
                    .and_then(|agent| agent.to_str().ok())
                    .unwrap_or_default();
                let pretty = ["curl", "Wget", "Mozilla/5.0"]
                    .iter()
                    .any(|name| agent.starts_with(name));
                let text = if pretty {
                    serde_json::to_string_pretty(&status).unwrap_or_default()
                } else {
                    status.to_string()
                };
                (code, "application/json", format!("{text}\n"))
            }
        };
        let mut response = Response::new(body(text));
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content));
        response
    }
}

/// TLS with the certificate of a server.
pub(crate) fn tls(node: &Node) -> Result<TlsAcceptor> {
    let dir = node.run_dir();
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(dir.join("serving.crt")).and_then(Iterator::collect)?;
    let key = PrivateKeyDer::from_pem_file(dir.join("serving.key"))?;
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// Serves on one port, until the process exits.
pub(crate) async fn serve(server: Arc<Server>, port: u16) -> Result<()> {
    let tls = tls(&server.node)?;
    let address = (server.node.server.address, port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address:?}"))?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (server, tls) = (Arc::clone(&server), tls.clone());
            tokio::spawn(async move {
                // Small responses must not wait for each other.
                let _ = stream.set_nodelay(true);
                connected(&server).await;
                let Ok(stream) = tls.accept(stream).await else { return };
                let replied = Arc::clone(&server);
                let service = service_fn(move |request| logged(Arc::clone(&server), request));
                // An error is the end of the connection by the client.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if replied.exits_after_reply() {
                    die();
                }
            });
        }
    });
    Ok(())
}

/// Waits while the network of the node is cut.
async fn connected(server: &Server) {
    while server.node.faults().cut {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn logged(server: Arc<Server>, request: Request<Incoming>) -> Result<Response<Body>, Hangup> {
    connected(&server).await;
    let start = Instant::now();
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let headers = request.headers().clone();
    let (result, user) = route(&server, request).await;
    server.requests.object(json!({
        "node": server.node.server.name, "method": method, "path": path, "user": user,
        "status": result.as_ref().map_or(0, |response| response.status().as_u16()),
        "ms": start.elapsed().as_millis() as u64,
        "userAgent": headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()),
    }));
    connected(&server).await;
    let mut response = result?;
    if server.exits_after_reply() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if server.node.faults().ahead != 0.0
        && let Ok(now) = Timestamp::try_from(server.node.now())
        && let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&now)
        && let Ok(date) = HeaderValue::from_str(&date)
    {
        response.headers_mut().insert(DATE, date);
    }
    Ok(response)
}

/// The API server cannot read without it.
fn has_quorum(server: &Server) -> bool {
    server.node.is_sqlite() || Datastore::of(&server.node).has_quorum(&server.node.all())
}

type Routed = (Result<Response<Body>, Hangup>, Option<String>);

async fn route(server: &Arc<Server>, request: Request<Incoming>) -> Routed {
    let headers = request.headers().clone();
    let path = request.uri().path().to_owned();
    if server.phase() <= Phase::Unavailable {
        return (Ok(Reply::status(503, "apiserver not ready").respond(&headers)), None);
    }
    let own = path.strip_prefix(&format!("/v1-{}/", server.node.program()));
    let answer = match (own, path.as_str()) {
        (_, "/cacerts") => Reply::Text(200, server.ca_pem.clone()),
        (_, "/ping") => Reply::Text(200, "pong".into()),
        (Some(route), _) => return supervisor(server, route, request).await,
        (None, "/db/snapshot") => return supervisor(server, "/db/snapshot", request).await,
        _ if server.phase() < Phase::Api => Reply::status(503, "apiserver not ready"),
        _ if !has_quorum(server) => Reply::status(500, "[-]etcd failed: reason withheld"),
        // That of the real API server is another process.
        (None, "/metrics") => Reply::Text(200, format!("process_start_time_seconds {}\n", server.started_at())),
        _ if server.upstream.is_some() => return upstream::forward(server, request).await,
        (None, "/readyz" | "/livez" | "/healthz") => Reply::Text(200, "ok".into()),
        _ => Reply::status(404, "page not found"),
    };
    (Ok(answer.respond(&headers)), None)
}

/// The routes that need a login.
async fn supervisor(server: &Arc<Server>, route: &str, request: Request<Incoming>) -> Routed {
    let (parts, incoming) = request.into_parts();
    let is_put = parts.method == Method::PUT && route == "token";
    let (kill, delay) = if is_put {
        Faults::take(&server.node)
    } else {
        (None, None)
    };
    let Ok(collected) = incoming.collect().await else {
        return (Err(Hangup), None);
    };
    let bytes = collected.to_bytes();
    let handler = {
        let (server, route, headers) = (Arc::clone(server), route.to_owned(), parts.headers.clone());
        async move {
            if let Some(delay) = delay {
                tokio::time::sleep(Duration::from_secs_f64(delay)).await;
            }
            let (login, user) = login(&server, &headers).await;
            let needed = match route.as_str() {
                "readyz" | "config" => Login::Agent,
                _ => Login::Server,
            };
            let answer = match login {
                Login::Wrong => Ok(Reply::status(401, "not authorized")),
                login if login != needed => Ok(Reply::status(403, "forbidden")),
                _ if is_put => token(&server, &bytes, kill),
                _ => handle(&server, &parts.method, &route, &bytes).await,
            };
            (answer.map(|answer| answer.respond(&headers)), user)
        }
    };
    // The handler ends its work even if the client has gone.
    tokio::spawn(handler).await.unwrap_or((Err(Hangup), None))
}

async fn handle(server: &Server, method: &Method, route: &str, bytes: &[u8]) -> Result<Reply, Hangup> {
    let store = Datastore::of(&server.node);
    Ok(match (route, server.phase()) {
        ("token", _) => Reply::status(405, "method not allowed"),
        ("readyz" | "config", phase) if phase < Phase::Ready => Reply::status(503, "apiserver not ready"),
        ("readyz", _) => Reply::Text(200, "ok".into()),
        ("config", _) => Reply::Json(200, json!({"ClusterDomain": "cluster.local"})),
        ("encrypt/status", phase) if phase < Phase::Ready => failed(server, "encryption", "not ready"),
        ("encrypt/status", _) => Reply::Json(200, encryption::status(&server.node, &server.files, &store.read())),
        ("server-bootstrap", _) if server.node.is_sqlite() => Reply::status(400, "etcd disabled"),
        ("server-bootstrap", phase) => {
            server.journal.line("info", "Serving HTTP bootstrap");
            let token = server.token().clone();
            let contents = store.read();
            let opened = crate::token::normalize(&token)
                .ok()
                .and_then(|password| contents.open(password));
            match opened.filter(|_| phase >= Phase::Etcd) {
                Some(bundle) => Reply::Json(200, json!(bundle)),
                None => failed(server, "bootstrap", crate::datastore::DIFFERENT_TOKEN),
            }
        }
        ("/db/snapshot", _) if *method != Method::POST => Reply::status(405, "method not allowed"),
        ("/db/snapshot", phase) => match snapshots::handle(server, bytes, phase).await {
            Ok(answer) => answer,
            Err(error) => failed(server, "etcd-snapshot", &format!("{error:#}")),
        },
        _ => Reply::status(404, "page not found"),
    })
}

fn token(server: &Server, bytes: &[u8], kill: Option<crate::faults::Step>) -> Result<Reply, Hangup> {
    match put(server, bytes, kill) {
        Put::Done { kill } => {
            if kill {
                server.exit_after_reply();
            }
            Ok(Reply::Text(200, String::new()))
        }
        Put::Malformed(error) => Ok(Reply::Status(400, error)),
        Put::Panic => {
            server
                .journal
                .line("error", "http: panic serving: runtime error: invalid memory address");
            Err(Hangup)
        }
        Put::Failed(error) => Ok(failed(server, "token", &format!("{error:#}"))),
    }
}

/// 500 with a number; the reason stands only in the log.
fn failed(server: &Server, what: &str, reason: &str) -> Reply {
    let id = rand::random::<u16>();
    server
        .journal
        .line("error", &format!("{what} error ID {id:05}: {reason}"));
    Reply::Status(500, format!("{what} error ID {id:05}"))
}
