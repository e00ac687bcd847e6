//! An HTTP client for one request at a time: to another server, to the real API server, to the control interface.

use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Opens connections to one server.
pub(crate) struct Client {
    address: String,
    pub(crate) host: HeaderValue,
    tls: Option<(ServerName<'static>, TlsConnector)>,
}

impl Client {
    /// A client of this URL that trusts these CAs. With `http://` there is no TLS.
    pub(crate) fn new(url: &str, ca_pem: &str) -> Result<Self> {
        let roots = CertificateDer::pem_slice_iter(ca_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        Self::with_roots(url, roots)
    }

    pub(crate) fn with_roots(url: &str, certificates: Vec<CertificateDer<'static>>) -> Result<Self> {
        let uri: Uri = url.parse()?;
        let authority = uri.authority().with_context(|| format!("{url} names no server"))?;
        let tls = if uri.scheme_str() == Some("http") {
            None
        } else {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate)?;
            }
            let config = rustls::ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from(authority.host().to_owned())?;
            Some((name, TlsConnector::from(Arc::new(config))))
        };
        Ok(Self {
            address: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443)),
            host: HeaderValue::from_str(authority.as_str())?,
            tls,
        })
    }

    /// A new connection.
    pub(crate) async fn dial<B>(&self) -> Result<SendRequest<B>>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TcpStream::connect(&self.address)
            .await
            .with_context(|| format!("connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let sender = match &self.tls {
            None => {
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
            Some((name, connector)) => {
                let stream = connector.connect(name.clone(), stream).await?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        Ok(sender)
    }

    /// Sends a request, and returns the status and the whole body.
    pub(crate) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<(u16, Bytes)> {
        request.headers_mut().insert(header::HOST, self.host.clone());
        let mut sender = self.dial().await?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    pub(crate) async fn get(&self, path: &str, login: Option<(&str, &str)>, agent: &str) -> Result<(u16, Bytes)> {
        let mut request = Request::get(path).header(header::USER_AGENT, agent);
        if let Some((user, password)) = login {
            request = request.header(header::AUTHORIZATION, basic(user, password));
        }
        self.send(request.body(Full::default())?).await
    }
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
