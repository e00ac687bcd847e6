//! `kubectl argocd-rancher version`: of this program, and, where they answer, of the other ends.

use std::time::Duration;

use kubectl_core::app::{Context, GlobalFlags};
use kubectl_core::error::{Doing as _, Error, ExitCode};
use kubectl_core::output::{self, OutputFlags, OutputFormat};
use rancher::api_token;
use serde::Serialize;

use crate::sides::{ARGOCD, Argo, RANCHER, RancherFlags};

/// A version that needs longer than this is not worth the wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is typed after `kubectl argocd-rancher version`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Version {
    /// Only the version of this program; no server is asked
    #[arg(long)]
    pub client: bool,

    /// The other side.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// Output format: json, yaml
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # This program, Argo CD's cluster, and Rancher
  kubectl argocd-rancher version --rancher-context rancher

  # Without asking any server
  kubectl argocd-rancher version --client";

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
    let mut failed = None;
    if !version.client {
        let asked = tokio::time::timeout(PATIENCE, ask(&version, global, context)).await;
        match asked.unwrap_or_else(|_| Err(Error::failed("the servers did not answer within 10s"))) {
            Ok(server) => versions.server = Some(server),
            Err(error) => failed = Some(error),
        }
    }
    match format {
        OutputFormat::Table => print(context, &versions)?,
        _ => output::print_value(&context.ui, &flags, &versions)?,
    }
    // As with kubectl, what is known is printed before the failure is.
    failed.map_or(Ok(ExitCode::Done), Err)
}

async fn ask(version: &Version, global: &GlobalFlags, context: &Context) -> Result<Server, Error> {
    let argo = Argo::open(global, &context.environment)?;
    let rancher = version.rancher.open(&argo, global, context).await?;
    let kubernetes = async {
        let answer = argo.server.client.apiserver_version().await;
        answer.doing(format!("read the version of {ARGOCD}"))
    };
    let of_rancher = async {
        let Some(rancher) = &rancher else { return Ok(None) };
        let setting = api_token::setting(&rancher.client.0, "server-version").await;
        let setting = setting.map_err(|error| error.on(RANCHER))?;
        Ok(setting.and_then(|setting| setting.effective().map(str::to_owned)))
    };
    let (kubernetes, rancher_version) = futures::try_join!(kubernetes, of_rancher)?;
    Ok(Server {
        kubernetes_version: kubernetes.git_version,
        rancher_version,
    })
}

fn print(context: &Context, versions: &Versions) -> Result<(), Error> {
    context.ui.out(format!("Client Version: {}", versions.client_version))?;
    let Some(server) = &versions.server else { return Ok(()) };
    context
        .ui
        .out(format!("Kubernetes Version: {}", server.kubernetes_version))?;
    match &server.rancher_version {
        Some(version) => context.ui.out(format!("Rancher Version: {version}")),
        None => Ok(()),
    }
}
