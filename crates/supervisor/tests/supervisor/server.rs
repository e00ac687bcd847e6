//! A supervisor's TLS server that answers as a test says, and records what arrives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use client::console::{Console, Silent};
use client::secret::Secret;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use supervisor::{CaHash, Options, Pin, ServerAddress, Supervisor, SupervisorKind};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::io::InspectReader;

/// The password that every test sends as the current one.
pub(crate) const OLD: &str = "old-password-of-the-server";
/// The new token.
pub(crate) const NEW: &str = "new-token-0123456789abcdef";

pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text)
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// What the server does.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Status, headers, body.
    Response(u16, Vec<(&'static str, String)>, String),
    /// The connection is cut.
    Cut,
    /// No answer comes.
    Stall,
}

/// A response without headers.
pub(crate) fn reply(code: u16, body: impl Into<String>) -> Reply {
    Reply::Response(code, Vec::new(), body.into())
}

type Script = dyn Fn(&Recorded) -> Reply + Send + Sync;

/// A CA, and the TLS of a server that it has signed.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) ca: String,
    acceptor: TlsAcceptor,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = authority.self_signed(&key).unwrap();
        let issuer = Issuer::new(authority, key);
        let server_key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let server: CertificateDer<'static> = params.signed_by(&server_key, &issuer).unwrap().into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // With TLS 1.2 a handshake has no application data, so that the records of a request can be counted.
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS12]);
        let config = builder
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![server], server_key.serialize_der().try_into().unwrap());
        Self {
            ca: ca.pem(),
            acceptor: TlsAcceptor::from(Arc::new(config.unwrap())),
        }
    }
}

struct State {
    identity: Mutex<Identity>,
    script: Box<Script>,
    recorded: Mutex<Vec<Recorded>>,
    /// The bytes of each connection.
    raw: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    /// Why the last connection has ended.
    end: watch::Sender<Option<std::io::ErrorKind>>,
}

/// The server. It ends when this is dropped.
pub(crate) struct FakeServer {
    pub(crate) address: ServerAddress,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

impl FakeServer {
    /// Serves its CA, and answers everything else as `script` says.
    pub(crate) async fn start(script: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            identity: Mutex::new(Identity::new()),
            script: Box::new(script),
            recorded: Mutex::default(),
            raw: Mutex::default(),
            end: watch::Sender::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        let address = format!("s1=127.0.0.1:{port}")
            .parse::<supervisor::AddressOverride>()
            .unwrap();
        Self {
            address: address.address(SupervisorKind::K3s),
            state,
            _tasks: tasks,
        }
    }

    pub(crate) fn ca(&self) -> String {
        self.state.identity.lock().unwrap().ca.clone()
    }

    /// From now on, another server answers at this address.
    pub(crate) fn replace(&self, identity: Identity) {
        *self.state.identity.lock().unwrap() = identity;
    }

    /// The requests, except those for the CA.
    pub(crate) fn recorded(&self) -> Vec<Recorded> {
        let all = self.all();
        all.into_iter()
            .filter(|request| request.target != "GET /cacerts")
            .collect()
    }

    pub(crate) fn all(&self) -> Vec<Recorded> {
        self.state.recorded.lock().unwrap().clone()
    }

    /// Waits until a connection has failed, and returns how.
    pub(crate) async fn end(&self) -> Option<std::io::ErrorKind> {
        let mut end = self.state.end.subscribe();
        *end.wait_for(Option::is_some).await.unwrap()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.raw.lock().unwrap().len()
    }

    /// How many records of application data the last connection has received.
    pub(crate) fn records(&self) -> usize {
        let raw = self.state.raw.lock().unwrap().last().unwrap().lock().unwrap().clone();
        let (mut at, mut count) = (0, 0);
        while at + 5 <= raw.len() {
            count += usize::from(raw[at] == 23);
            at += 5 + usize::from(u16::from_be_bytes([raw[at + 3], raw[at + 4]]));
        }
        count
    }

    pub(crate) async fn connect(&self) -> Supervisor {
        self.connect_with(SupervisorKind::K3s, options(Arc::new(Silent))).await
    }

    pub(crate) async fn connect_with(&self, kind: SupervisorKind, options: Options) -> Supervisor {
        let pin = Pin::Hash(CaHash::of(&self.ca()).unwrap());
        Supervisor::connect(kind, self.address.clone(), &pin, options)
            .await
            .unwrap()
    }
}

pub(crate) fn options(console: Arc<dyn Console>) -> Options {
    Options::new("kubectl-test/v0.0.0", console)
}

/// With a short limit for a change of the token.
pub(crate) fn impatient() -> Options {
    Options {
        write_timeout: Duration::from_millis(300),
        ..options(Arc::new(Silent))
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let raw: Arc<Mutex<Vec<u8>>> = Arc::default();
    state.raw.lock().unwrap().push(Arc::clone(&raw));
    let stream = InspectReader::new(stream, move |bytes: &[u8]| raw.lock().unwrap().extend_from_slice(bytes));
    let acceptor = state.identity.lock().unwrap().acceptor.clone();
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(|request| respond(request, Arc::clone(&state)));
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
        let kind = source.map_or(std::io::ErrorKind::Other, std::io::Error::kind);
        state.end.send_replace(Some(kind));
    }
}

async fn respond(request: Request<Incoming>, state: Arc<State>) -> std::io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let recorded = Recorded {
        target: format!("{} {}", head.method, head.uri),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    state.recorded.lock().unwrap().push(recorded.clone());
    let reply = if recorded.target == "GET /cacerts" {
        reply(200, state.identity.lock().unwrap().ca.clone())
    } else {
        (state.script)(&recorded)
    };
    match reply {
        Reply::Response(code, headers, body) => {
            let mut response = Response::builder().status(code);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Full::new(body.into())).unwrap())
        }
        Reply::Cut => Err(std::io::ErrorKind::ConnectionReset.into()),
        Reply::Stall => std::future::pending().await,
    }
}
