//! `kubectl argocd-rancher version`: the versions of this program, of the cluster of Argo CD, and of Rancher.

use cli::ExitCode;
use cli::app::version::{self, VersionFlags, Versions};
use cli::app::{Context, GlobalFlags};
use client::error::{Doing as _, Error};
use rancher::api_token;
use serde::Serialize;

use crate::connections::{ARGOCD, Argo, RANCHER, RancherFlags};

/// The flags of `kubectl argocd-rancher version`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Version {
    /// The common ones.
    #[command(flatten)]
    pub flags: VersionFlags,

    /// How to reach Rancher.
    #[command(flatten)]
    pub rancher: RancherFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Print the versions of this program, of Argo CD's cluster, and of Rancher
  kubectl argocd-rancher version --rancher-context rancher

  # Print the version of this program only
  kubectl argocd-rancher version --client";

#[derive(Serialize)]
struct ServerVersions {
    server: ServerVersion,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerVersion {
    kubernetes_version: String,
    rancher_version: Option<String>,
}

impl Versions for ServerVersions {
    fn lines(&self) -> Vec<String> {
        let kubernetes = format!("Kubernetes Version: {}", self.server.kubernetes_version);
        let rancher = self.server.rancher_version.as_ref();
        let rancher = rancher.map(|version| format!("Rancher Version: {version}"));
        std::iter::once(kubernetes).chain(rancher).collect()
    }
}

pub(crate) async fn run(version: Version, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let Version { flags, rancher } = version;
    version::run(
        &flags,
        context,
        "the servers",
        server_versions(&rancher, global, context),
    )
    .await
}

async fn server_versions(
    flags: &RancherFlags,
    global: &GlobalFlags,
    context: &Context,
) -> Result<ServerVersions, Error> {
    let argo = Argo::open(global, &context.environment)?;
    let rancher = flags.open(&argo, global, context).await?;
    let kubernetes = async {
        let version = argo.server.client.apiserver_version().await;
        version.doing(format!("read the version of {ARGOCD}"))
    };
    let of_rancher = async {
        let Some(rancher) = &rancher else { return Ok(None) };
        let setting = api_token::setting(&rancher.client, "server-version").await;
        let setting = setting.map_err(|error| error.on(RANCHER))?;
        Ok(setting.and_then(|setting| setting.effective().map(str::to_owned)))
    };
    let (kubernetes, rancher_version) = futures::try_join!(kubernetes, of_rancher)?;
    let server = ServerVersion {
        kubernetes_version: kubernetes.git_version,
        rancher_version,
    };
    Ok(ServerVersions { server })
}
