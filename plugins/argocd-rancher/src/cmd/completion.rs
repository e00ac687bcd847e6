//! `kubectl argocd-rancher completion`: how a shell learns to complete this plugin; and the names that only the server
//! knows.

use kubectl_core::app::{self, Candidate, CompletionRequest, Context};
use kubectl_core::error::{Error, ExitCode};

use crate::cli::ArgocdRancher;
use crate::sides::Argo;

/// What is typed after `kubectl argocd-rancher completion`.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Completion {}

const EXAMPLES: &str = "\
Examples:
  # kubectl 1.26 and later complete a plugin by a program of this name on the PATH
  kubectl argocd-rancher completion > ~/.local/bin/kubectl_complete-argocd_rancher
  chmod +x ~/.local/bin/kubectl_complete-argocd_rancher

kubectl's own completion must be set up in the shell: see `kubectl completion --help`.";

/// Runs it.
pub fn run(_: Completion, context: &Context) -> Result<ExitCode, Error> {
    context.ui.write_out(&app::shim::<ArgocdRancher>()?)?;
    Ok(ExitCode::Done)
}

/// For verbs whose words are clusters that Argo CD has: their ids, with the names that Argo CD calls them. (What `add`
/// takes is known to Rancher, whose flags are not among those that completion is given.)
pub async fn candidates(request: CompletionRequest, context: Context) -> Vec<Candidate> {
    let verb = request.verbs.first().map(String::as_str);
    let takes_one = matches!(verb, Some("rollback" | "status")) && request.words.is_empty();
    let takes = takes_one || matches!(verb, Some("verify" | "remove" | "rotate"));
    if !takes || request.flag.is_some() {
        return Vec::new();
    }
    let Ok(argo) = Argo::open(&request.global, &context.environment) else {
        return Vec::new();
    };
    let clusters = argo.clusters().await.unwrap_or_default();
    let known = |word: &str| request.words.iter().any(|typed| typed == word);
    clusters
        .into_iter()
        .filter_map(|cluster| {
            let (_, id) = cluster.server.rancher()?;
            (!known(id.as_str()) && !known(&cluster.name)).then(|| Candidate::new(id.as_str(), cluster.name.as_str()))
        })
        .collect()
}
