//! Rancher's proxy: the way through it to a cluster's API server.

use http::uri::{InvalidUri, PathAndQuery};
use http::{Request, Uri};
use kube::client::Body;

use crate::cluster_id::ClusterId;

/// A client of Rancher as one of a cluster, over the same connections: a fleet needs no more of them than one cluster.
pub fn through(client: &kube::Client, cluster: &ClusterId) -> kube::Client {
    let (client, prefix) = (client.clone(), format!("/k8s/clusters/{cluster}"));
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (client, below) = (client.clone(), below(&prefix, request.uri()));
        async move {
            *request.uri_mut() = below.map_err(|error| kube::Error::HttpError(error.into()))?;
            client.send(request).await
        }
    });
    kube::Client::new(service, "default")
}

fn below(prefix: &str, uri: &Uri) -> Result<Uri, InvalidUri> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    format!("{prefix}{path}").parse()
}
