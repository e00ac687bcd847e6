//! `kubectl argocd-rancher completion`: prints the completion script, and completes the names of clusters.

use cli::ExitCode;
use cli::app::{self, Candidate, CompletionRequest, Context};
use client::error::Error;
use rancher::api_token::{self, VisibleCluster};

use crate::address::RancherAddress as _;
use crate::cli::ArgocdRancher;
use crate::connections::{Argo, RancherFlags};

/// The flags of `kubectl argocd-rancher completion`.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completion {}

const EXAMPLES: &str = "\
Examples:
  # Install the script on the PATH, where kubectl 1.26 and later finds it
  kubectl argocd-rancher completion > ~/.local/bin/kubectl_complete-argocd_rancher
  chmod +x ~/.local/bin/kubectl_complete-argocd_rancher

It needs kubectl's own completion in the shell: see `kubectl completion --help`.";

pub(crate) fn run(_: Completion, context: &Context) -> Result<ExitCode, Error> {
    context.ui.write_out(&app::shim::<ArgocdRancher>()?)?;
    Ok(ExitCode::Done)
}

/// The ids of Argo CD's clusters, with their names. For `add`: of the clusters in Rancher that Argo CD does not have.
pub(crate) async fn candidates(request: CompletionRequest, context: Context) -> Vec<Candidate> {
    let verb = request.verbs.first().map(String::as_str);
    let takes_one = matches!(verb, Some("rollback" | "status")) && request.words.is_empty();
    let takes = takes_one || matches!(verb, Some("add" | "verify" | "remove" | "rotate"));
    if !takes || request.flag.is_some() {
        return Vec::new();
    }
    let Ok(argo) = Argo::open(&request.global, &context.environment) else {
        return Vec::new();
    };
    let clusters = argo.clusters().await.unwrap_or_default();
    let there = clusters.iter().filter_map(|cluster| {
        let (_, id) = cluster.server.rancher()?;
        Some(Candidate::new(id.as_str(), cluster.name.as_str()))
    });
    let mut candidates: Vec<Candidate> = there.collect();
    if verb == Some("add") {
        let mut others = of_rancher(&request, &argo, &context).await;
        others.retain(|cluster| candidates.iter().all(|there| there.value != cluster.value));
        candidates = others;
    }
    let is_typed = |word: &str| request.words.iter().any(|typed| typed == word);
    candidates.retain(|cluster| !is_typed(&cluster.value) && !is_typed(&cluster.help));
    candidates
}

/// The clusters of Rancher, by the flags typed so far. A token on standard input is not available yet.
async fn of_rancher(request: &CompletionRequest, argo: &Argo, context: &Context) -> Vec<Candidate> {
    let flags: RancherFlags = request.flags();
    if flags.rancher_token_stdin {
        return Vec::new();
    }
    let Ok(Some(rancher)) = flags.open(argo, &request.global, context).await else {
        return Vec::new();
    };
    let clusters = api_token::clusters(&rancher.client).await.unwrap_or_default();
    let named = |cluster: VisibleCluster| Candidate::new(cluster.id.as_str(), cluster.name);
    clusters.into_iter().map(named).collect()
}
