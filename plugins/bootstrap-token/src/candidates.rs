//! The ids of tokens that shell completion offers, and that a user selects from.

use bootstrap::{secret, tokens};
use cli::app::{Candidate, CompletionRequest, Context};
use cli::rotation::leases::LeasedRotations;
use client::error::Error;

use crate::cluster::ClusterConnection;
use crate::report::row::TokenRow;
use crate::report::target::{CLUSTER, RotationRole};
use crate::rotation::BootstrapToken;

/// How many ids a command takes.
fn takes_ids(command: &str) -> usize {
    match command {
        "revoke" => usize::MAX,
        "extend" | "kubeconfig" | "rollback" | "rotate" | "status" | "verify" => 1,
        _ => 0,
    }
}

/// Ids with their descriptions.
pub(crate) async fn candidates(request: CompletionRequest, context: Context) -> Result<Vec<Candidate>, Error> {
    let limit = request.verbs.first().map_or(0, |command| takes_ids(command));
    if request.flag.is_some() || request.words.len() >= limit {
        return Ok(Vec::new());
    }
    let cluster = ClusterConnection::open(&request.global, &context)?;
    let rotations = if request.with_rows {
        Some(LeasedRotations::<BootstrapToken>::read(&cluster.server, Some(secret::NAMESPACE), CLUSTER).await?)
    } else {
        None
    };
    let is_typed = |id: &str| request.words.iter().any(|word| word == id);
    let tokens = tokens::list(cluster.client(), None).await?.into_iter();
    let tokens = tokens.filter_map(|secret| Some((secret.id.clone()?, secret)));
    let candidates = tokens.filter(|(id, _)| !is_typed(id.as_str())).map(|(id, secret)| {
        let candidate = Candidate::new(id.as_str(), secret.description.as_str());
        match &rotations {
            None => candidate,
            Some(rotations) => {
                let role = RotationRole::of(rotations, &id);
                candidate.with_row(&TokenRow::new(secret, cluster.server.clock.now()).with_rotation(role))
            }
        }
    });
    Ok(candidates.collect())
}
