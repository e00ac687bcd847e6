//! The agent on the downstream cluster: its Deployment, its pods, the Secret with its token, and the Secret that it writes when
//! it has connected.
//!
//! All of them are in namespace `cattle-system` of the downstream cluster. All functions take a client of that cluster.

mod credentials;
mod deployment;
mod pods;
mod stv;

use crate::error::Result;

pub use credentials::{
    Credentials, CredentialsContent, annotated_credentials, create_credentials, credentials, credentials_metadata,
    delete_credentials,
};
pub use deployment::{
    CredentialVariable, Deployment, Placement, RolloutSettings, ServerAddress, Strategy, deployment,
    deployment_metadata, fence, place, release,
};
pub use pods::{Pod, pods};
pub(crate) use stv::STV_PREFIX;
pub use stv::{StvAggregation, stv_aggregation};

/// The namespace of the agent.
pub const NAMESPACE: &str = "cattle-system";
/// The agent's Deployment, and the value of the label `app` on its pods.
pub const NAME: &str = "cattle-cluster-agent";

/// Asks the API that the agent itself serves, through its tunnel. Rancher answers other calls to a hosted cluster without an agent (seen on
/// Rancher 2.15.0), but not this one (rancher/rancher `pkg/api/steve/proxy`).
pub async fn own_api(client: &kube::Client) -> Result<()> {
    client::request::get_text(client, "the agent's API", "/v1").await?;
    Ok(())
}

/// The version of the downstream API server, e.g. `v1.36.3`: the shortest request that has to go all the way.
///
/// Through Rancher, without an agent, the response is a 500 "cluster agent disconnected" after some 30 s (seen on Rancher
/// 2.15.0 and 2.12.0), so use a shorter timeout.
pub async fn version(client: &kube::Client) -> Result<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        git_version: String,
    }
    let version: Version = client::request::get_path(client, "version", "/version").await?;
    Ok(version.git_version)
}
