//! A fake API server, over TLS or plain http. It sends scripted responses and records the requests.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use url::Url;

use super::{Connection, ConnectionOptions, Environment};

/// A recorded request.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) certified: bool,
}

impl ReceivedRequest {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }
}

/// A scripted response.
pub(crate) enum Reply {
    /// Status, headers, body.
    Answer(u16, &'static [(&'static str, &'static str)], String),
    /// A body that is compressed with gzip.
    Gzip(Vec<u8>),
    /// A status, and a body without end.
    Endless(u16),
    /// Closes the connection in place of an answer.
    Close,
    /// Closes it in the middle of the body.
    Cut,
    /// Sends the headers and then nothing.
    Stall,
    /// Sends nothing.
    Hang,
}

pub(crate) fn ok(body: &str) -> Reply {
    Reply::Answer(200, &[], body.into())
}

pub(crate) fn status(code: u16) -> Reply {
    let reason = http::StatusCode::from_u16(code)
        .unwrap()
        .canonical_reason()
        .unwrap()
        .replace(' ', "");
    let body =
        serde_json::json!({ "kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code });
    Reply::Answer(code, &[], body.to_string())
}

type Script = dyn Fn(&ReceivedRequest, usize) -> Reply + Send + Sync;

/// The server. It stops with the runtime of the test.
pub(crate) struct Fake {
    pub(crate) url: Url,
    pub(crate) ca: String,
    issuer: Issuer<'static, KeyPair>,
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl Fake {
    /// `script` returns the reply to a request. Its second argument is the number of earlier requests.
    pub(crate) async fn tls(script: impl Fn(&ReceivedRequest, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(true, Arc::new(script)).await
    }

    pub(crate) async fn plain(script: impl Fn(&ReceivedRequest, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(false, Arc::new(script)).await
    }

    async fn start(tls: bool, script: Arc<Script>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (issuer, ca, acceptor) = certificates();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", listener.local_addr().unwrap().port())
            .parse()
            .unwrap();
        let received: Arc<Mutex<Vec<ReceivedRequest>>> = Arc::default();
        let kept = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, kept, acceptor) = (Arc::clone(&script), Arc::clone(&kept), tls.then(|| acceptor.clone()));
                tokio::spawn(connection(stream, acceptor, script, kept));
            }
        });
        Self {
            url,
            ca,
            issuer,
            received,
        }
    }

    pub(crate) fn received(&self) -> Vec<ReceivedRequest> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn methods(&self) -> Vec<String> {
        self.received().into_iter().map(|received| received.method).collect()
    }

    /// A connection of a kubeconfig whose user is `user` (YAML in braces), with more flags.
    pub(crate) fn connection(
        &self,
        user: &str,
        environment: &Environment,
        adjust: impl FnOnce(&mut ConnectionOptions),
    ) -> Connection {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        std::fs::write(directory.path().join("ca.crt"), &self.ca).unwrap();
        let server = self.url.as_str();
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{server}', certificate-authority: ca.crt}}}}]\n\
             users: [{{name: u, user: {user}}}]\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut flags = ConnectionOptions {
            kubeconfig: Some(file),
            ..ConnectionOptions::default()
        };
        adjust(&mut flags);
        flags.load(environment).unwrap()
    }

    /// With a token and no more.
    pub(crate) fn simple(&self) -> Connection {
        self.connection("{token: plain}", &Environment::silent(), |_| {})
    }

    /// A client certificate and its key that this server believes.
    pub(crate) fn client_certificate(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["client".into()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn certificates() -> (Issuer<'static, KeyPair>, String, TlsAcceptor) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".into()])
        .unwrap()
        .signed_by(&server_key, &issuer)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![server.der().clone()],
            server_key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    (issuer, certificate.pem(), TlsAcceptor::from(Arc::new(config)))
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    script: Arc<Script>,
    kept: Arc<Mutex<Vec<ReceivedRequest>>>,
) {
    let Some(acceptor) = acceptor else {
        return serve(stream, false, script, kept).await;
    };
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let certified = stream.get_ref().1.peer_certificates().is_some();
    serve(stream, certified, script, kept).await;
}

async fn serve<S>(stream: S, certified: bool, script: Arc<Script>, kept: Arc<Mutex<Vec<ReceivedRequest>>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (script, kept) = (Arc::clone(&script), Arc::clone(&kept));
        async move {
            let (parts, body) = request.into_parts();
            let _ = body.collect().await;
            let path = parts.uri.to_string();
            let received = ReceivedRequest {
                method: parts.method.to_string(),
                path,
                headers: parts.headers,
                certified,
            };
            let before = {
                let mut kept = kept.lock().unwrap();
                kept.push(received.clone());
                kept.len() - 1
            };
            answer(script(&received, before)).await
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(reply: Reply) -> Result<Response<BoxBody<Bytes, std::io::Error>>, std::io::Error> {
    let half = || Ok(Frame::data(Bytes::from_static(b"{\"half\":")));
    match reply {
        Reply::Answer(code, headers, body) => {
            let mut response = Response::new(Full::from(body).map_err(|never| match never {}).boxed());
            *response.status_mut() = code.try_into().unwrap();
            for (name, value) in headers {
                response.headers_mut().append(*name, value.parse().unwrap());
            }
            Ok(response)
        }
        Reply::Gzip(body) => {
            let body = Full::from(body).map_err(|never| match never {}).boxed();
            Ok(Response::builder()
                .header("content-encoding", "gzip")
                .body(body)
                .unwrap())
        }
        Reply::Endless(code) => {
            let frames = futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![b' '; 1 << 16]))));
            let body = BodyExt::boxed(StreamBody::new(frames));
            Ok(Response::builder().status(code).body(body).unwrap())
        }
        Reply::Close => Err(std::io::Error::other("closed by the test")),
        Reply::Cut => {
            let frames = futures::stream::iter([half(), Err(std::io::Error::other("cut by the test"))]);
            Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))))
        }
        Reply::Stall => {
            let frames = futures::StreamExt::chain(futures::stream::iter([half()]), futures::stream::pending());
            Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))))
        }
        Reply::Hang => std::future::pending().await,
    }
}
