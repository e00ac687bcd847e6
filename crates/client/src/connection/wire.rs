//! From bytes to requests: TCP, a proxy, TLS, HTTP.
//!
//! kube's own client leaves Nagle's algorithm on, which makes a request with a body wait for the server's delayed
//! acknowledgement, 40 ms on Linux. So the connections are made here; TLS and headers are kube's still.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _};
use tower_http::decompression::DecompressionLayer;

/// A client that sends each request once, without authentication.
pub(super) fn client(config: &kube::Config) -> Result<kube::Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let Some(proxy) = &config.proxy_url else {
        return over(boxed(tcp), config);
    };
    match proxy.scheme_str() {
        Some("socks5") => over(boxed(SocksV5::new(proxy.clone(), tcp)), config),
        Some("http") => over(boxed(tunnel(proxy, boxed(tcp))), config),
        Some("https") => {
            let tls = config.rustls_https_connector_with_connector(boxed(tcp))?;
            over(boxed(tunnel(proxy, boxed(tls))), config)
        }
        _ => Err(kube::Error::ProxyProtocolUnsupported {
            proxy_url: Box::new(proxy.clone()),
        }),
    }
}

/// A way to connect. One type, or the whole HTTP client would be compiled for each.
type Connector = BoxCloneSyncService<Uri, BoxedStream, BoxError>;

fn boxed<C>(connector: C) -> Connector
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Stream + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    let connector = connector.map_response(|stream| BoxedStream(Box::new(stream)));
    BoxCloneSyncService::new(connector.map_err(Into::into))
}

trait Stream: Connection + Read + Write + Send + Unpin {}

impl<S: Connection + Read + Write + Send + Unpin> Stream for S {}

struct BoxedStream(Box<dyn Stream>);

impl Connection for BoxedStream {
    fn connected(&self) -> Connected {
        self.0.connected()
    }
}

impl Read for BoxedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for BoxedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }
}

fn over(connector: Connector, config: &kube::Config) -> Result<kube::Client, kube::Error> {
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(DecompressionLayer::new().gzip(!config.disable_compression))
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

/// Connects through an HTTP proxy, with the user and the password of its URL.
fn tunnel<C>(proxy: &Uri, connector: C) -> Tunnel<C> {
    let tunnel = Tunnel::new(proxy.clone(), connector);
    let login = proxy
        .authority()
        .and_then(|authority| authority.as_str().rsplit_once('@'));
    let Some((login, _)) = login else {
        return tunnel;
    };
    let login = percent_encoding::percent_decode_str(login).collect::<Vec<u8>>();
    match HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(login))) {
        Ok(mut value) => {
            value.set_sensitive(true);
            tunnel.with_auth(value)
        }
        Err(_) => tunnel,
    }
}
