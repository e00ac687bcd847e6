//! TLS on both sides of the proxy.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Upstream;
use crate::pki::KeyPairPem;

pub(crate) fn acceptor(pair: &KeyPairPem) -> Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?)?;
    // One request at a time on a connection. So "right after write n" is a defined moment.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Opens connections to an upstream.
pub(super) struct Dialer {
    address: String,
    pub(super) host: HeaderValue,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Dialer {
    pub(super) fn new(upstream: &Upstream) -> Result<Self> {
        let uri: Uri = upstream.url.parse()?;
        let authority = uri
            .authority()
            .with_context(|| format!("{} names no server", upstream.url))?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(upstream.ca_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &upstream.identity {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let chain =
                    CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?)?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            address: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443)),
            host: HeaderValue::from_str(authority.as_str())?,
            name: ServerName::try_from(authority.host().to_owned())?,
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    pub(super) async fn dial(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.address)
            .await
            .with_context(|| format!("connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends when the sender is dropped or the server closes the connection.
        tokio::spawn(connection);
        Ok(sender)
    }
}
