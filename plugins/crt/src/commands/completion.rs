//! `kubectl crt completion`: how a shell learns to complete this plugin; and the names that only the server knows.

use cli::ExitCode;
use cli::app::{self, Candidate, CompletionRequest, Context};
use client::error::Error;
use rancher::cluster;

use crate::cli::Crt;
use crate::sides::Management;

/// What is typed after `kubectl crt completion`.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completion {}

const EXAMPLES: &str = "\
Examples:
  # kubectl 1.26 and later complete a plugin by a program of this name on the PATH
  kubectl crt completion > ~/.local/bin/kubectl_complete-crt
  chmod +x ~/.local/bin/kubectl_complete-crt

kubectl's own completion must be set up in the shell: see `kubectl completion --help`.";

/// Runs it.
pub(crate) fn run(_: Completion, context: &Context) -> Result<ExitCode, Error> {
    context.ui.write_out(&app::shim::<Crt>()?)?;
    Ok(ExitCode::Done)
}

/// Verbs whose words are clusters, with how many they take.
fn takes_clusters(verb: &str) -> Option<usize> {
    match verb {
        "list" | "ls" | "rotate" => Some(usize::MAX),
        "status" | "verify" | "rollback" => Some(1),
        _ => None,
    }
}

/// Clusters by id, or by display name where that is how the word begins.
pub(crate) async fn candidates(request: CompletionRequest, context: Context) -> Vec<Candidate> {
    let limit = request.verbs.first().and_then(|verb| takes_clusters(verb));
    let wanted = request.flag.is_none() && limit.is_some_and(|limit| request.words.len() < limit);
    if !wanted {
        return Vec::new();
    }
    let Ok(management) = Management::open(&request.global, &context.environment) else {
        return Vec::new();
    };
    let clusters = cluster::list(&management.server.client, None).await.unwrap_or_default();
    let known = |word: &str| request.words.iter().any(|typed| typed == word);
    let names = clusters
        .into_iter()
        .filter(|cluster| !known(cluster.id.as_str()) && !known(&cluster.display_name));
    let typed = &request.current;
    names
        .flat_map(|cluster| {
            let by_id = Candidate::new(cluster.id.as_str(), cluster.display_name.as_str());
            // An empty word lists each cluster once.
            let called_so = !typed.is_empty() && cluster.display_name.starts_with(typed.as_str());
            let by_name = called_so.then(|| Candidate::new(cluster.display_name.as_str(), cluster.id.as_str()));
            std::iter::once(by_id).chain(by_name)
        })
        .collect()
}
