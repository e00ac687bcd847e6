//! Whether one server is ready.

use std::time::Duration;

use client::connection::Connection;
use client::secret::Secret;
use supervisor::ready::{self, ApiReadiness};
use supervisor::{ServerAddress, Supervisor};
use tokio::time::timeout;

/// How long the answer about its readiness may take.
const READY: Duration = Duration::from_secs(3);

/// By `/readyz` of its own API server. Where the kubeconfig cannot be used there, by whether it accepts nodes, or else by that of the
/// supervisor, as a node.
pub(crate) async fn readiness(
    connection: &Connection,
    supervisor: &Supervisor,
    api: Option<&ServerAddress>,
    password: &Secret,
    accepts_nodes: bool,
) -> Result<(), String> {
    let reason = match api {
        None => "it runs no API server".to_owned(),
        Some(address) => {
            // A server that is starting would be asked again and again.
            let asked = timeout(READY, ready::api_ready(connection, address)).await;
            match asked {
                Err(_) => return Err(format!("no response within {}s", READY.as_secs())),
                Ok(ApiReadiness::Ready) => return Ok(()),
                Ok(ApiReadiness::NotReady(reason)) => return Err(reason),
                Ok(ApiReadiness::NotUsable(reason)) => reason,
            }
        }
    };
    // Only a server that is ready accepts nodes.
    if accepts_nodes {
        return Ok(());
    }
    match supervisor.probe_ready(password).await {
        Ok(true) => Ok(()),
        Ok(false) => Err("the server is starting".to_owned()),
        Err(error) => Err(format!("{error}; {reason}")),
    }
}
