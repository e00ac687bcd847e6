//! Rancher's proxy to the API server of a cluster.

use http::uri::{InvalidUri, PathAndQuery};
use http::{Request, Uri};
use kube::client::Body;

use crate::cluster_id::ClusterId;

/// Turns a client of Rancher into a client of a cluster that shares its connections: a thousand clusters need no more
/// connections than one.
pub fn through(client: &kube::Client, cluster: &ClusterId) -> kube::Client {
    let (client, prefix) = (client.clone(), format!("/k8s/clusters/{cluster}"));
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (client, uri) = (client.clone(), prefixed(&prefix, request.uri()));
        async move {
            *request.uri_mut() = uri.map_err(|error| kube::Error::HttpError(error.into()))?;
            client.send(request).await
        }
    });
    kube::Client::new(service, "default")
}

fn prefixed(prefix: &str, uri: &Uri) -> Result<Uri, InvalidUri> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    format!("{prefix}{path}").parse()
}
