//! `kubectl bootstrap-token completion`: how a shell learns to complete this plugin; and the ids, which only the server
//! knows.

use bootstrap::tokens;
use cli::ExitCode;
use cli::app::{self, Candidate, CompletionRequest, Context};
use client::error::Error;

use crate::cli::BootstrapToken;
use crate::side::Side;

/// What is typed after `kubectl bootstrap-token completion`.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completion {}

const EXAMPLES: &str = "\
Examples:
  # kubectl 1.26 and later complete a plugin by a program of this name on the PATH
  kubectl bootstrap-token completion > ~/.local/bin/kubectl_complete-bootstrap_token
  chmod +x ~/.local/bin/kubectl_complete-bootstrap_token

kubectl's own completion must be set up in the shell: see `kubectl completion --help`.";

/// Runs it.
pub(crate) fn run(_: Completion, context: &Context) -> Result<ExitCode, Error> {
    context.ui.write_out(&app::shim::<BootstrapToken>()?)?;
    Ok(ExitCode::Done)
}

/// Verbs whose words are ids, with how many they take.
fn takes_ids(verb: &str) -> usize {
    match verb {
        "revoke" => usize::MAX,
        "extend" | "kubeconfig" | "rollback" | "rotate" | "status" | "verify" => 1,
        _ => 0,
    }
}

/// Tokens by id, with their descriptions.
pub(crate) async fn candidates(request: CompletionRequest, context: Context) -> Vec<Candidate> {
    let limit = request.verbs.first().map_or(0, |verb| takes_ids(verb));
    if request.flag.is_some() || request.words.len() >= limit {
        return Vec::new();
    }
    let Ok(side) = Side::open(&request.global, &context) else {
        return Vec::new();
    };
    let tokens = tokens::list(side.client(), None).await.unwrap_or_default();
    let tokens = tokens
        .into_iter()
        .filter_map(|secret| Some((secret.id?, secret.description)));
    tokens
        .filter(|(id, _)| request.words.iter().all(|word| word != id.as_str()))
        .map(|(id, description)| Candidate::new(id.as_str(), description))
        .collect()
}
