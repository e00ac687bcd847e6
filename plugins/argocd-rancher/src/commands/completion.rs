//! `kubectl argocd-rancher completion`: how a shell learns to complete this plugin; and the names that only the server
//! knows.

use cli::ExitCode;
use cli::app::{self, Candidate, CompletionRequest, Context};
use client::error::Error;
use rancher::api_token::{self, VisibleCluster};

use crate::address::RancherAddress as _;
use crate::cli::ArgocdRancher;
use crate::sides::{Argo, RancherFlags};

/// What is typed after `kubectl argocd-rancher completion`.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completion {}

const EXAMPLES: &str = "\
Examples:
  # kubectl 1.26 and later complete a plugin by a program of this name on the PATH
  kubectl argocd-rancher completion > ~/.local/bin/kubectl_complete-argocd_rancher
  chmod +x ~/.local/bin/kubectl_complete-argocd_rancher

kubectl's own completion must be set up in the shell: see `kubectl completion --help`.";

/// Runs it.
pub(crate) fn run(_: Completion, context: &Context) -> Result<ExitCode, Error> {
    context.ui.write_out(&app::shim::<ArgocdRancher>()?)?;
    Ok(ExitCode::Done)
}

/// Clusters that Argo CD has: their ids, with the names that Argo CD calls them; for `add` those of Rancher that it has not.
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
    let mut found: Vec<Candidate> = if verb == Some("add") {
        let there: Vec<Candidate> = there.collect();
        let mut found = of_rancher(&request, &argo, &context).await;
        found.retain(|cluster| there.iter().all(|known| known.value != cluster.value));
        found
    } else {
        there.collect()
    };
    let typed = |word: &str| request.words.iter().any(|typed| typed == word);
    found.retain(|cluster| !typed(&cluster.value) && !typed(&cluster.help));
    found
}

/// What Rancher knows, where it is reached by what was typed so far. What would come on standard input is not there yet.
async fn of_rancher(request: &CompletionRequest, argo: &Argo, context: &Context) -> Vec<Candidate> {
    let flags: RancherFlags = request.flags();
    if flags.rancher_token_stdin {
        return Vec::new();
    }
    let Ok(Some(rancher)) = flags.open(argo, &request.global, context).await else {
        return Vec::new();
    };
    let clusters = api_token::clusters(&rancher.client.0).await.unwrap_or_default();
    let named = |cluster: VisibleCluster| Candidate::new(cluster.id.as_str(), cluster.name);
    clusters.into_iter().map(named).collect()
}
