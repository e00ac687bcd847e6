//! The agent on the downstream side: its Deployment, its pods, the Secret with its token, and what it leaves behind when
//! it has connected.
//!
//! All of it is in the namespace `cattle-system` of the downstream cluster; the client given here leads there.

mod credentials;
mod deployment;
mod pods;
mod stv;

use crate::error::Result;

pub use credentials::{
    Credentials, CredentialsContent, create_credentials, credentials, credentials_metadata, delete_credentials,
    list_credentials,
};
pub use deployment::{
    Address, CredentialVariable, Deployment, Hold, Placement, Strategy, deployment, deployment_metadata, mark, place,
    release,
};
pub use pods::{Pod, pods};
pub(crate) use stv::STV_PREFIX;
pub use stv::{StvAggregation, stv_aggregation};

/// The namespace of the agent.
pub const NAMESPACE: &str = "cattle-system";
/// The agent's Deployment, and the value of the label `app` on its pods.
pub const NAME: &str = "cattle-cluster-agent";

/// Asks the downstream API server for its version: the shortest call that must go all the way, and so the proof that a
/// path leads there. Answers e.g. `v1.36.3`.
///
/// Through Rancher, with the agent gone, the answer is a 500 "cluster agent disconnected" after some 30 s (seen on
/// Rancher 2.15.0 and 2.12.0), so give the client a shorter patience than that.
pub async fn version(client: &kube::Client) -> Result<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        git_version: String,
    }
    let version: Version = client::request::get_path(client, "version", "/version").await?;
    Ok(version.git_version)
}
