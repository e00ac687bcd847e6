//! From bytes to requests: TCP, a proxy, TLS, HTTP.
//!
//! kube's own client leaves Nagle's algorithm on, which makes a request with a body wait for the server's delayed
//! acknowledgement, 40 ms on Linux. So the connections are made here; TLS and headers are kube's still.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use hyper::rt::{Read, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use tower::{BoxError, Service, ServiceBuilder};
use tower_http::decompression::DecompressionLayer;

/// A client that sends each request once, without authentication.
pub(super) fn client(config: &kube::Config) -> Result<kube::Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let Some(proxy) = &config.proxy_url else {
        return over(tcp, config);
    };
    match proxy.scheme_str() {
        Some("socks5") => over(SocksV5::new(proxy.clone(), tcp), config),
        Some("http") => over(tunnel(proxy, tcp), config),
        Some("https") => over(
            tunnel(proxy, config.rustls_https_connector_with_connector(tcp)?),
            config,
        ),
        _ => Err(kube::Error::ProxyProtocolUnsupported {
            proxy_url: Box::new(proxy.clone()),
        }),
    }
}

fn over<C>(connector: C, config: &kube::Config) -> Result<kube::Client, kube::Error>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: std::error::Error + Send + Sync + 'static,
{
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
