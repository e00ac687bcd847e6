//! `kubectl bootstrap-token version`: the versions of this program and of the cluster.

use cli::ExitCode;
use cli::app::version::{self, VersionFlags, Versions};
use cli::app::{Context, GlobalFlags};
use client::error::Error;
use serde::Serialize;

use crate::cluster::ClusterConnection;
use crate::report::target::CLUSTER;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Version {
    #[command(flatten)]
    pub flags: VersionFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Print the versions of this program and of the cluster
  kubectl bootstrap-token version

  # Print the version of this program only
  kubectl bootstrap-token version --client";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterVersion {
    kubernetes_version: String,
}

impl Versions for ClusterVersion {
    fn lines(&self) -> Vec<String> {
        vec![format!("Kubernetes Version: {}", self.kubernetes_version)]
    }
}

pub(crate) async fn run(version: Version, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let cluster_version = async {
        let cluster = ClusterConnection::open(global, context)?;
        let kubernetes_version = cluster.version().await?;
        Ok(ClusterVersion { kubernetes_version })
    };
    version::run(&version.flags, context, CLUSTER, cluster_version).await
}
