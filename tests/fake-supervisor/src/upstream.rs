//! The API server behind each server's own port: requests go to the real API server of the test cluster with the
//! credentials that they carry. A client certificate ends here, so clients use a bearer token.

use anyhow::Result;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::CertificateDer;

use crate::client::Client;
use crate::http_server::{Body, Hangup};
use crate::node::Node;
use crate::serve::Server;

/// Connections to the real API server, and a client of its admin. `None` without a kubeconfig.
pub(crate) async fn connect(node: &Node) -> Result<Option<(Client, kube::Client)>> {
    let Some(path) = &node.config.kubeconfig else {
        return Ok(None);
    };
    let config =
        kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?;
    let roots = config.root_cert.clone().unwrap_or_default();
    let roots = roots.into_iter().map(CertificateDer::from).collect();
    let client = Client::with_roots(&config.cluster_url.to_string(), roots)?;
    Ok(Some((client, kube::Client::try_from(config)?)))
}

/// Passes a request on, and the answer back as it comes.
pub(crate) async fn forward(
    server: &Server,
    request: Request<Incoming>,
) -> (Result<Response<Body>, Hangup>, Option<String>) {
    (send(server, request).await.map_err(|_| Hangup), None)
}

async fn send(server: &Server, mut request: Request<Incoming>) -> Result<Response<Body>> {
    let upstream = server
        .upstream
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("no API server"))?;
    let headers = request.headers_mut();
    headers.insert(HOST, upstream.host.clone());
    headers.remove(CONNECTION);
    let mut sender = upstream.dial().await?;
    let mut response = sender.send_request(request).await?;
    response.headers_mut().remove(CONNECTION);
    response.headers_mut().remove(TRANSFER_ENCODING);
    Ok(response.map(|body| {
        body.map_err(move |error| {
            // The connection lasts as long as the body.
            let _ = &sender;
            std::io::Error::other(error)
        })
        .boxed_unsync()
    }))
}
