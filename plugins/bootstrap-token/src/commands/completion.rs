//! `kubectl bootstrap-token completion`: prints the completion script, and completes the ids of tokens.

use bootstrap::tokens;
use cli::ExitCode;
use cli::app::{self, Candidate, CompletionRequest, Context};
use client::error::Error;

use crate::cli::BootstrapToken;
use crate::cluster::ClusterConnection;

#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completion {}

const EXAMPLES: &str = "\
Examples:
  # Install the script on the PATH, where kubectl 1.26 and later finds it
  kubectl bootstrap-token completion > ~/.local/bin/kubectl_complete-bootstrap_token
  chmod +x ~/.local/bin/kubectl_complete-bootstrap_token

It needs kubectl's own completion in the shell: see `kubectl completion --help`.";

pub(crate) fn run(_: Completion, context: &Context) -> Result<ExitCode, Error> {
    context.ui.write_out(&app::shim::<BootstrapToken>()?)?;
    Ok(ExitCode::Done)
}

/// How many ids a command takes.
fn takes_ids(command: &str) -> usize {
    match command {
        "revoke" => usize::MAX,
        "extend" | "kubeconfig" | "rollback" | "rotate" | "status" | "verify" => 1,
        _ => 0,
    }
}

/// Ids with their descriptions.
pub(crate) async fn candidates(request: CompletionRequest, context: Context) -> Vec<Candidate> {
    let limit = request.verbs.first().map_or(0, |command| takes_ids(command));
    if request.flag.is_some() || request.words.len() >= limit {
        return Vec::new();
    }
    let Ok(cluster) = ClusterConnection::open(&request.global, &context) else {
        return Vec::new();
    };
    let tokens = tokens::list(cluster.client(), None).await.unwrap_or_default();
    let is_typed = |id: &str| request.words.iter().any(|word| word == id);
    let candidate = |(id, description): (bootstrap::TokenId, String)| Candidate::new(id.as_str(), description);
    let tokens = tokens
        .into_iter()
        .filter_map(|secret| Some((secret.id?, secret.description)));
    tokens.filter(|(id, _)| !is_typed(id.as_str())).map(candidate).collect()
}
