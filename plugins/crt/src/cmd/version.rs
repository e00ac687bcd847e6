//! `kubectl crt version`: of this program, and, where it answers, of the other end.

use std::time::Duration;

use kubectl_core::app::{Context, GlobalFlags};
use kubectl_core::error::{Doing as _, Error, ExitCode};
use kubectl_core::output::{self, OutputFlags, OutputFormat};
use rancher::era::{self, Era};
use serde::Serialize;

use crate::sides::{MANAGEMENT, Management};

/// A version that needs longer than this is not worth the wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is typed after `kubectl crt version`.
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
  # This program, the management cluster, Rancher, and how that keeps its tokens
  kubectl crt version

  # Without asking any server
  kubectl crt version --client";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Server>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    kubernetes_version: String,
    rancher_version: Option<String>,
    era: Option<Era>,
}

/// Runs it.
pub async fn run(version: Version, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let flags = OutputFlags {
        output: version.output.clone(),
        ..OutputFlags::default()
    };
    let format = flags.format()?;
    let mut versions = Versions {
        client_version: concat!("v", env!("CARGO_PKG_VERSION")),
        server: None,
    };
    let asked = if version.client {
        Ok(None)
    } else {
        ask(global, context).await.map(Some)
    };
    let failed = match asked {
        Ok(server) => {
            versions.server = server;
            None
        }
        Err(error) => Some(error),
    };
    match format {
        OutputFormat::Table => print(context, &versions)?,
        _ => output::print_value(&context.ui, &flags, &versions)?,
    }
    // As with kubectl, what is known is printed before the failure is.
    failed.map_or(Ok(ExitCode::Done), Err)
}

async fn ask(global: &GlobalFlags, context: &Context) -> Result<Server, Error> {
    let management = Management::open(global, &context.environment)?;
    let client = &management.server.client;
    let all = async {
        let kubernetes = async {
            let answer = client.apiserver_version().await;
            answer.doing(format!("read the version of {MANAGEMENT}"))
        };
        let (kubernetes, settings, era) = futures::join!(kubernetes, management.settings(), era::detect(client));
        Ok(Server {
            kubernetes_version: kubernetes?.git_version,
            rancher_version: settings.ok().and_then(|settings| settings.server_version),
            era: era.ok(),
        })
    };
    match tokio::time::timeout(PATIENCE, all).await {
        Ok(server) => server,
        Err(_) => Err(Error::failed(format!(
            "{MANAGEMENT} did not answer within {}s",
            PATIENCE.as_secs()
        ))),
    }
}

fn print(context: &Context, versions: &Versions) -> Result<(), Error> {
    context.ui.out(format!("Client Version: {}", versions.client_version))?;
    let Some(server) = &versions.server else { return Ok(()) };
    context
        .ui
        .out(format!("Kubernetes Version: {}", server.kubernetes_version))?;
    let rancher = server.rancher_version.as_deref().unwrap_or("<none>");
    let era = server
        .era
        .map_or_else(String::new, |era| format!(" (registration tokens: {era})"));
    context.ui.out(format!("Rancher Version: {rancher}{era}"))
}
