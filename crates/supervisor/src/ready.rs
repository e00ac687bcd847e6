//! Whether the API server of one server is ready, asked with the credentials of the kubeconfig.

use client::connection::Connection;
use client::error::{Error, Kind};
use client::request;

use crate::address::ServerAddress;

/// What the message of an error begins with that is about certificates.
const TLS: &str = "tls: ";

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

/// When the process of an API server has started, in seconds since 1970: on K3s, that of the server. `None`: the kubeconfig cannot be
/// used there, or does not allow it.
///
/// # Errors
/// If it does not respond.
pub async fn process_start(kubeconfig: &Connection, address: &ServerAddress) -> Result<Option<i64>, Error> {
    if kubeconfig.is_insecure() || kubeconfig.authority().is_none() {
        return Ok(None);
    }
    let server = kubeconfig.at(address.api_url()).connect()?;
    match request::get_text(&server.client, "metrics", "/metrics").await {
        Ok(text) => Ok(start_of(&text)),
        Err(error) => match Error::from(error) {
            error if error.kind.is_transient() && !error.message.starts_with(TLS) => Err(error),
            _ => Ok(None),
        },
    }
}

/// `process_start_time_seconds 1.78e+09`
fn start_of(metrics: &str) -> Option<i64> {
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_start_time_seconds "))?;
    let seconds: f64 = value.trim().parse().ok()?;
    (seconds > 0.0).then_some(seconds as i64)
}

fn of_error(error: &Error) -> ApiReadiness {
    let is_refused = matches!(error.kind, Kind::Unauthorized | Kind::Forbidden | Kind::NotFound);
    if is_refused || error.message.starts_with(TLS) {
        ApiReadiness::NotUsable(error.message.clone())
    } else {
        ApiReadiness::NotReady(error.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_among_its_metrics() {
        let metrics = "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.78584321763e+09\nz 1\n";
        assert_eq!(start_of(metrics), Some(1_785_843_217));
        assert_eq!(start_of("process_start_time_seconds 0\n"), None);
        assert_eq!(start_of(""), None);
    }
}
