//! `kubectl bootstrap-token completion`: how a shell learns to complete this plugin; and the ids, which only the server
//! knows.

use bootstrap::{secret, tokens};
use cli::ExitCode;
use cli::app::{self, Candidate, CompletionRequest, Context};
use cli::rotation::leases::LeasedRotations;
use client::error::Error;

use crate::cli::BootstrapToken as Plugin;
use crate::report::product::{CLUSTER, Part};
use crate::report::row::Row;
use crate::rotation::BootstrapToken;
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
    context.ui.write_out(&app::shim::<Plugin>()?)?;
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
pub(crate) async fn candidates(request: CompletionRequest, context: Context) -> Result<Vec<Candidate>, Error> {
    let limit = request.verbs.first().map_or(0, |verb| takes_ids(verb));
    if request.flag.is_some() || request.words.len() >= limit {
        return Ok(Vec::new());
    }
    let side = Side::open(&request.global, &context)?;
    let rotations = if request.with_rows {
        Some(LeasedRotations::<BootstrapToken>::read(&side.server, Some(secret::NAMESPACE), CLUSTER).await?)
    } else {
        None
    };
    let tokens = tokens::list(side.client(), None).await?.into_iter();
    let tokens = tokens.filter_map(|secret| Some((secret.id.clone()?, secret)));
    let tokens = tokens.filter(|(id, _)| request.words.iter().all(|word| word != id.as_str()));
    let candidates = tokens.map(|(id, secret)| {
        let candidate = Candidate::new(id.as_str(), secret.description.as_str());
        match &rotations {
            None => candidate,
            Some(rotations) => {
                let part = Part::of(rotations, &id);
                candidate.with_row(&Row::new(secret, side.server.clock.now()).with_rotation(part))
            }
        }
    });
    Ok(candidates.collect())
}
