//! One request on a connection of its own: no proxy, no redirect, no retry, bounded in time and bytes.
//!
//! The caller learns whether nothing was sent or the outcome is unknown. A change of the token needs that, since a second one can harm
//! the cluster. The client of the Kubernetes API retries, so it is not used here.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::console::Console;
use client::error::{Error as UserError, Kind, network};
use client::redact::Sent;
use client::secret::Secret;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, DATE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822;
use rustls::ClientConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use socket2::{SockRef, Socket};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use crate::address::ServerAddress;
use crate::error::{Error, Result};
use crate::token::TokenUser;

/// How long the system tries to deliver what a peer does not acknowledge. A change of the token must not arrive later than that.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// The longest response, in bytes.
const LIMIT: usize = 256 << 10;
/// The longest message of a server that is repeated, in characters.
const LONGEST_MESSAGE: usize = 300;

/// How requests are sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// The limit for opening a connection, with TLS.
    pub connect_timeout: Duration,
    /// The limit for the response to a read.
    pub timeout: Duration,
    /// The limit for the response to a change of the token, which takes up to 2.5 s on a loaded server, or to a snapshot.
    pub write_timeout: Duration,
    /// The name of the program for the log of the server ([`client::connection::user_agent`]).
    pub user_agent: String,
    /// Receives the request log.
    pub console: Arc<dyn Console>,
}

impl Options {
    /// The default limits.
    pub fn new(user_agent: impl Into<String>, console: Arc<dyn Console>) -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            user_agent: user_agent.into(),
            console,
        }
    }
}

/// Who sends the request.
#[derive(Clone, Copy)]
pub(crate) enum Login<'a> {
    Anonymous,
    /// With a password.
    User(TokenUser, &'a Secret),
    /// With a bootstrap token.
    Bearer(&'a Secret),
}

impl Login<'_> {
    fn header(self) -> Option<HeaderValue> {
        let text = match self {
            Self::Anonymous => return None,
            Self::User(user, password) => {
                let pair = Zeroizing::new(format!("{}:{}", user.name(), password.expose()));
                Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
            }
            Self::Bearer(token) => Zeroizing::new(format!("Bearer {}", token.expose())),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// A request.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) login: Login<'a>,
    pub(crate) body: Option<Zeroizing<Vec<u8>>>,
    /// What else is secret in it.
    pub(crate) secrets: Vec<&'a Secret>,
    pub(crate) timeout: Duration,
    /// Asked when the connection is open and the server verified, directly before the first byte. `None`: always.
    pub(crate) may_send: Option<Box<dyn FnOnce() -> bool + Send + 'a>>,
}

impl<'a> Call<'a> {
    /// A read.
    pub(crate) fn get(path: String, login: Login<'a>, options: &Options) -> Self {
        Self {
            method: Method::GET,
            path,
            login,
            body: None,
            secrets: Vec::new(),
            timeout: options.timeout,
            may_send: None,
        }
    }

    /// Method and path.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) code: u16,
    /// The time of the server, in seconds.
    pub(crate) date: Option<Timestamp>,
    pub(crate) sent: Timestamp,
    pub(crate) received: Timestamp,
    body: Bytes,
    /// What the server says in an error, redacted.
    pub(crate) message: Option<String>,
    server: ServerAddress,
    request: String,
}

impl Response {
    pub(crate) fn error(self) -> Error {
        Error::Status {
            server: self.server,
            request: self.request,
            code: self.code,
            message: self.message,
        }
    }

    pub(crate) fn malformed(self) -> Error {
        Error::Malformed {
            server: self.server,
            request: self.request,
        }
    }

    /// The body of a success.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T> {
        if self.code != StatusCode::OK.as_u16() {
            return Err(self.error());
        }
        serde_json::from_slice(&self.body).map_err(|_| self.malformed())
    }

    /// The body of a success.
    pub(crate) fn text(self) -> Result<String> {
        if self.code != StatusCode::OK.as_u16() {
            return Err(self.error());
        }
        String::from_utf8(self.body.to_vec()).map_err(|_| self.malformed())
    }
}

/// Sends a request once.
pub(crate) async fn send(
    server: &ServerAddress,
    tls: &Arc<ClientConfig>,
    options: &Options,
    call: Call<'_>,
) -> Result<Response> {
    let (began, name) = (Instant::now(), call.name());
    let response = exchange(server, tls, options, call).await;
    if options.console.verbosity() >= 6 {
        let took = began.elapsed().as_millis();
        options.console.log(&match &response {
            Ok(response) => format!("{name} at {server}: {} in {took} milliseconds", response.code),
            Err(error) => format!("{name} failed in {took} milliseconds: {error}"),
        });
    }
    response
}

async fn exchange(
    server: &ServerAddress,
    tls: &Arc<ClientConfig>,
    options: &Options,
    call: Call<'_>,
) -> Result<Response> {
    let failed = |sent| {
        move |source| Error::NoResponse {
            server: server.clone(),
            sent,
            source: Box::new(source),
        }
    };
    let connect = connect(server, Arc::clone(tls));
    let (stream, mut reset) = within(options.connect_timeout, connect).await.map_err(failed(false))?;
    let headers = headers(server, options, call.login).map_err(failed(false))?;
    let (request, limit) = (call.name(), call.timeout);
    if call.may_send.is_some_and(|may_send| !may_send()) {
        return Err(Error::NotAllowed {
            server: server.clone(),
            request,
        });
    }
    let hidden = Sent::with(&headers);
    let mut tasks = JoinSet::new();
    let sent = Timestamp::now();
    let response = within(
        limit,
        round_trip(stream, &mut tasks, headers, call.method, &call.path, call.body),
    )
    .await;
    let received = Timestamp::now();
    if response.is_ok() {
        reset.0 = None;
    } else {
        drop(reset);
        tasks.shutdown().await;
    }
    let (code, headers, body) = response.map_err(failed(true))?;
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let mut secrets = call.secrets;
    if let Login::User(_, secret) | Login::Bearer(secret) = call.login {
        secrets.push(secret);
    }
    Ok(Response {
        code: code.as_u16(),
        date: date.and_then(|date| Some(rfc2822::parse(date).ok()?.timestamp())),
        sent,
        received,
        message: message(hidden, &secrets, &body).filter(|_| !code.is_success()),
        body,
        server: server.clone(),
        request,
    })
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, UserError>>) -> Result<T, UserError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let limit = client::duration::format(limit);
        Err(UserError::new(Kind::Unreachable, format!("no response within {limit}")))
    })
}

/// A connection on which no response came, or that is dropped, is reset: the system must not deliver later what it still holds.
struct ResetOnDrop(Option<Socket>);

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        // An error means that it is closed already.
        let _ = self.0.as_ref().map(|socket| socket.set_linger(Some(Duration::ZERO)));
    }
}

/// The server is verified when this returns.
async fn connect(
    server: &ServerAddress,
    tls: Arc<ClientConfig>,
) -> Result<(TlsStream<TcpStream>, ResetOnDrop), UserError> {
    let tcp = TcpStream::connect(server.socket())
        .await
        .map_err(|error| network(&error))?;
    let reset = ResetOnDrop(Some(configure(&tcp).map_err(|error| network(&error))?));
    let name = server.host.server_name();
    let stream = TlsConnector::from(tls).connect(name, tcp).await;
    Ok((stream.map_err(|error| network(&error))?, reset))
}

fn configure(tcp: &TcpStream) -> std::io::Result<Socket> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    // Elsewhere, the limit for the response alone bounds it.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    #[cfg(not(target_os = "linux"))]
    let _ = UNACKNOWLEDGED;
    socket.try_clone()
}

fn headers(server: &ServerAddress, options: &Options, login: Login<'_>) -> Result<HeaderMap, UserError> {
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| UserError::failed("the request contains an invalid header"))
    };
    let mut headers = HeaderMap::new();
    headers.insert(HOST, value(&server.to_string())?);
    // The server adds an address by which a client calls it to its certificate, except for a browser (`cacheHandler` in
    // rancher/dynamiclistener `listener.go`). A probe must not do that.
    headers.insert(
        USER_AGENT,
        value(&format!("Mozilla/5.0 (compatible; {})", options.user_agent))?,
    );
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    match login {
        Login::Anonymous => {}
        login => {
            let header = login.header();
            headers.insert(
                AUTHORIZATION,
                header.ok_or_else(|| UserError::failed("the token cannot be sent in a header"))?,
            );
        }
    }
    Ok(headers)
}

async fn round_trip(
    stream: TlsStream<TcpStream>,
    tasks: &mut JoinSet<()>,
    headers: HeaderMap,
    method: Method,
    path: &str,
    body: Option<Zeroizing<Vec<u8>>>,
) -> Result<(StatusCode, HeaderMap, Bytes), UserError> {
    // Without vectored writes, the head and the body are one write.
    let handshake = http1::Builder::new().writev(false).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| network(&error))?;
    tasks.spawn(async move {
        // The error is also that of the request.
        let _ = connection.await;
    });
    let mut request = Request::new(Full::new(body.map(Bytes::from_owner).unwrap_or_default()));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| UserError::failed("the path is not valid"))?;
    *request.headers_mut() = headers;
    let response = sender.send_request(request).await.map_err(|error| network(&error))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LIMIT).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            UserError::failed(format!("the response is longer than {} KiB", LIMIT >> 10))
        } else {
            network(error.as_ref())
        }
    })?;
    Ok((head.status, head.headers, body.to_bytes()))
}

/// The message of a `Status`. Any other text is not repeated.
fn message(hidden: Sent, secrets: &[&Secret], body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let status: Status = serde_json::from_slice(body).ok()?;
    let message = hidden.message(secrets, &status.message)?;
    Some(message.chars().take(LONGEST_MESSAGE).collect())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_system_gives_up_delivery_and_does_not_wait_to_send() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = configure(&tcp).unwrap();
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
        assert!(socket.tcp_nodelay().unwrap());
    }
}
