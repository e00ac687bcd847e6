//! `kubectl bootstrap-token version`: of this program, and, where it answers, of the cluster.

use std::time::Duration;

use kubectl_core::app::{Context, GlobalFlags};
use kubectl_core::error::{Error, ExitCode};
use kubectl_core::output::{self, OutputFlags, OutputFormat};
use serde::Serialize;

use crate::side::Side;

/// A version that needs longer than this is not worth the wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is typed after `kubectl bootstrap-token version`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Version {
    /// Only the version of this program; no server is asked
    #[arg(long)]
    pub client: bool,

    /// Output format: json, yaml
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # This program and the cluster
  kubectl bootstrap-token version

  # Without asking any server
  kubectl bootstrap-token version --client";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes_version: Option<String>,
}

/// Runs it.
pub async fn run(version: Version, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let flags = OutputFlags {
        output: version.output.clone(),
        ..OutputFlags::default()
    };
    let format = flags.format()?;
    let asked = if version.client {
        Ok(None)
    } else {
        ask(global, context).await.map(Some)
    };
    let (kubernetes_version, failed) = match asked {
        Ok(version) => (version, None),
        Err(error) => (None, Some(error)),
    };
    let versions = Versions {
        client_version: concat!("v", env!("CARGO_PKG_VERSION")),
        kubernetes_version,
    };
    if let OutputFormat::Table = format {
        context.ui.out(format!("Client Version: {}", versions.client_version))?;
        if let Some(version) = &versions.kubernetes_version {
            context.ui.out(format!("Kubernetes Version: {version}"))?;
        }
    } else {
        output::print_value(&context.ui, &flags, &versions)?;
    }
    // As with kubectl, what is known is printed before the failure is.
    failed.map_or(Ok(ExitCode::Done), Err)
}

async fn ask(global: &GlobalFlags, context: &Context) -> Result<String, Error> {
    let side = Side::open(global, context)?;
    match tokio::time::timeout(PATIENCE, side.version()).await {
        Ok(version) => version,
        Err(_) => Err(Error::failed(format!(
            "the cluster did not answer within {}s",
            PATIENCE.as_secs()
        ))),
    }
}
