//! Whether the API server of one server is ready, asked with the credentials of the kubeconfig.

use client::connection::Connection;
use client::error::{Error, Kind};
use client::request;

use crate::address::ServerAddress;

/// Whether an API server is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiReadiness {
    /// It is.
    Ready,
    /// It is not, or does not respond, with the reason.
    NotReady(String),
    /// The kubeconfig cannot be used there, with the reason: its CA or its credentials are another system's, as behind Rancher.
    /// [`Supervisor::probe_ready`](crate::Supervisor::probe_ready) needs neither.
    NotUsable(String),
}

/// Asks `/readyz` of the API server at this address. The credentials of the kubeconfig are sent only to a server that its CA has
/// signed.
pub async fn api_ready(kubeconfig: &Connection, address: &ServerAddress) -> ApiReadiness {
    if kubeconfig.is_insecure() || kubeconfig.authority().is_none() {
        return ApiReadiness::NotUsable("the kubeconfig has no CA to verify the server with".to_owned());
    }
    let server = match kubeconfig.at(address.api_url()).connect() {
        Ok(server) => server,
        Err(error) => return ApiReadiness::NotUsable(error.message),
    };
    match request::get_text(&server.client, "readiness", "/readyz").await {
        Ok(_) => ApiReadiness::Ready,
        Err(error) => of_error(&Error::from(error)),
    }
}

fn of_error(error: &Error) -> ApiReadiness {
    let is_refused = matches!(error.kind, Kind::Unauthorized | Kind::Forbidden | Kind::NotFound);
    if is_refused || error.message.starts_with("tls: ") {
        ApiReadiness::NotUsable(error.message.clone())
    } else {
        ApiReadiness::NotReady(error.message.clone())
    }
}
