//! `kubectl argocd-rancher version`: of this program, and, where they answer, of the other ends.

use cli::ExitCode;
use cli::app::version::{self, VersionFlags, Versions};
use cli::app::{Context, GlobalFlags};
use client::error::{Doing as _, Error};
use rancher::api_token;
use serde::Serialize;

use crate::sides::{ARGOCD, Argo, RANCHER, RancherFlags};

/// What is typed after `kubectl argocd-rancher version`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Version {
    /// Of whom, and in which form.
    #[command(flatten)]
    pub flags: VersionFlags,

    /// The other side.
    #[command(flatten)]
    pub rancher: RancherFlags,
}

const EXAMPLES: &str = "\
Examples:
  # This program, Argo CD's cluster, and Rancher
  kubectl argocd-rancher version --rancher-context rancher

  # Without asking any server
  kubectl argocd-rancher version --client";

#[derive(Serialize)]
struct Told {
    server: Server,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    kubernetes_version: String,
    rancher_version: Option<String>,
}

impl Versions for Told {
    fn lines(&self) -> Vec<String> {
        let kubernetes = format!("Kubernetes Version: {}", self.server.kubernetes_version);
        let rancher = self.server.rancher_version.as_ref();
        let rancher = rancher.map(|version| format!("Rancher Version: {version}"));
        std::iter::once(kubernetes).chain(rancher).collect()
    }
}

/// Runs it.
pub(crate) async fn run(version: Version, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let Version { flags, rancher } = version;
    version::run(&flags, context, "the servers", ask(&rancher, global, context)).await
}

async fn ask(flags: &RancherFlags, global: &GlobalFlags, context: &Context) -> Result<Told, Error> {
    let argo = Argo::open(global, &context.environment)?;
    let rancher = flags.open(&argo, global, context).await?;
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
    let server = Server {
        kubernetes_version: kubernetes.git_version,
        rancher_version,
    };
    Ok(Told { server })
}
