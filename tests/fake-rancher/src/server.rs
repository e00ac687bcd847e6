//! The HTTPS server: one port for everything, and a log entry for each request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::token::fingerprint;
use crate::world::World;
use crate::{api_token, control, joining, norman, probes, proxy};

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

fn answer(status: StatusCode, content: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Ok(content) = content.parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, content);
    }
    response
}

pub(crate) fn text(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    answer(
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        "text/plain; charset=utf-8",
        body,
    )
}

pub(crate) fn json_answer(status: u16, body: &Value) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer(status, "application/json", body.to_string())
}

/// The bearer value of a request.
pub(crate) fn bearer<B>(request: &Request<B>) -> Option<&str> {
    request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

/// A listening socket with its certificate.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener {
    /// Binds the port. Nothing is served yet, but the address is known.
    pub(crate) async fn bind(config: &Config) -> Result<Self> {
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&config.certificate)
            .and_then(Iterator::collect)
            .with_context(|| format!("read {}", config.certificate.display()))?;
        let key =
            PrivateKeyDer::from_pem_file(&config.key).with_context(|| format!("read {}", config.key.display()))?;
        let mut tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .context("use the server's certificate")?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tcp = TcpListener::bind(&config.listen)
            .await
            .with_context(|| format!("listen on {}", config.listen))?;
        Ok(Self {
            tcp,
            tls: TlsAcceptor::from(Arc::new(tls)),
        })
    }

    pub(crate) fn url(&self) -> Result<String> {
        Ok(format!("https://{}", self.tcp.local_addr()?))
    }

    /// Serves forever.
    pub(crate) async fn serve(self, world: Arc<World>) {
        loop {
            match self.tcp.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(connection(stream, self.tls.clone(), world.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, world: Arc<World>) {
    // Small responses must not wait for each other.
    let _ = stream.set_nodelay(true);
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(move |request| logged(world.clone(), request));
    if let Err(error) = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "connection ended");
    }
}

async fn logged(world: Arc<World>, request: Request<Incoming>) -> Result<Response<Body>, Hangup> {
    let start = Instant::now();
    let method = request.method().to_string();
    let path = masked(
        request
            .uri()
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str),
    );
    let agent = header_text(&request, "user-agent");
    let used = credential(&request);
    let user = bearer(&request)
        .and_then(|token| api_token::owner(&world, token))
        .map(|user| user.name);
    let token = bearer(&request).and_then(api_token::name_of).map(str::to_owned);
    let result = route(&world, request).await;
    world.log.line(
        "request",
        json!({
            "method": method, "path": path, "status": result.as_ref().map_or(0, |response| response.status().as_u16()),
            "ms": start.elapsed().as_millis(), "user": user, "token": token, "fingerprint": used, "userAgent": agent,
        }),
    );
    result
}

fn header_text<B>(request: &Request<B>, name: &str) -> Option<String> {
    Some(request.headers().get(name)?.to_str().ok()?.to_owned())
}

/// The fingerprint of the registration token that a probe carries.
fn credential<B>(request: &Request<B>) -> Option<String> {
    let tunnel = header_text(request, "x-api-tunnel-token");
    let steve = bearer(request)
        .and_then(|token| token.strip_prefix("stv-cluster-"))
        .map(str::to_owned);
    let import = request
        .uri()
        .path()
        .strip_prefix("/v3/import/")
        .and_then(|file| file.split_once('_'));
    tunnel
        .or(steve)
        .or(import.map(|(token, _)| token.to_owned()))
        .map(|token| fingerprint(&token))
}

/// The path without a token.
fn masked(path: &str) -> String {
    match path.strip_prefix("/v3/import/").and_then(|file| file.split_once('_')) {
        Some((token, rest)) => format!("/v3/import/<{}>_{rest}", fingerprint(token)),
        None if path.starts_with("/v3/import/") => "/v3/import/<masked>".to_owned(),
        None => path.to_owned(),
    }
}

async fn route(world: &Arc<World>, request: Request<Incoming>) -> Result<Response<Body>, Hangup> {
    let path = request.uri().path().to_owned();
    if path.starts_with("/control/") {
        return Ok(control::handle(world, request).await);
    }
    if path == "/v3/connect" || path == "/v3/connect/register" {
        return Ok(probes::connect(world, &request));
    }
    if path == "/v3/connect/agent" {
        return Ok(joining::connect(world, &request).await);
    }
    if path == "/cacerts" || path == "/v3/settings/cacerts" {
        return probes::cacerts(world, &request);
    }
    if let Some(file) = path.strip_prefix("/v3/import/") {
        return Ok(probes::import(world, file));
    }
    if path == "/ping" {
        return Ok(text(200, "pong"));
    }
    if path == "/v3" || path.starts_with("/v3/") {
        return Ok(norman::handle(world, request).await);
    }
    Ok(proxy::handle(world, request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_import_shows_no_token() {
        assert_eq!(
            masked("/v3/import/secret_c-a.yaml"),
            format!("/v3/import/<{}>_c-a.yaml", fingerprint("secret"))
        );
        assert!(!masked("/v3/import/secret.yaml").contains("secret"));
    }
}
