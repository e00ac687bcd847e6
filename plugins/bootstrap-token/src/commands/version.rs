//! `kubectl bootstrap-token version`: of this program, and, where it answers, of the cluster.

use cli::ExitCode;
use cli::app::version::{self, VersionFlags, Versions};
use cli::app::{Context, GlobalFlags};
use client::error::Error;
use serde::Serialize;

use crate::side::Side;

/// What is typed after `kubectl bootstrap-token version`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Version {
    /// Of whom, and in which form.
    #[command(flatten)]
    pub flags: VersionFlags,
}

const EXAMPLES: &str = "\
Examples:
  # This program and the cluster
  kubectl bootstrap-token version

  # Without asking any server
  kubectl bootstrap-token version --client";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    kubernetes_version: String,
}

impl Versions for Told {
    fn lines(&self) -> Vec<String> {
        vec![format!("Kubernetes Version: {}", self.kubernetes_version)]
    }
}

/// Runs it.
pub(crate) async fn run(version: Version, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ask = async {
        let side = Side::open(global, context)?;
        let kubernetes_version = side.version().await?;
        Ok(Told { kubernetes_version })
    };
    version::run(&version.flags, context, "the cluster", ask).await
}
