//! The names of clusters that shell completion offers, and that a user selects from.

use cli::Failures;
use cli::app::{Candidate, CompletionRequest, Context};
use cli::ui::Ui;
use client::error::Error;
use rancher::cluster::{self, ClusterKind};

use crate::connections::{MANAGEMENT, Management};
use crate::listing::Source;

/// How many clusters a command takes.
fn takes_clusters(command: &str) -> Option<usize> {
    match command {
        "list" | "ls" | "rotate" | "rescue" => Some(usize::MAX),
        "status" | "verify" | "rollback" => Some(1),
        _ => None,
    }
}

/// Clusters by id, or by display name where the word begins like one.
pub(crate) async fn candidates(request: CompletionRequest, context: Context) -> Result<Vec<Candidate>, Error> {
    let limit = request.verbs.first().and_then(|command| takes_clusters(command));
    let wanted = request.flag.is_none() && limit.is_some_and(|limit| request.words.len() < limit);
    if !wanted {
        return Ok(Vec::new());
    }
    let management = Management::open(&request.global, &context.environment)?;
    if request.with_rows {
        return with_rows(&management, &context.ui).await;
    }
    let clusters = cluster::list(&management.server.client, None).await;
    let clusters = clusters.map_err(|error| error.on(MANAGEMENT))?;
    let is_typed = |word: &str| request.words.iter().any(|typed| typed == word);
    let names = clusters
        .into_iter()
        .filter(|cluster| !is_typed(cluster.id.as_str()) && !is_typed(&cluster.display_name));
    let typed = &request.current;
    let candidates = names.flat_map(|cluster| {
        let by_id = Candidate::new(cluster.id.as_str(), cluster.display_name.as_str());
        // An empty word lists each cluster once.
        let matches = !typed.is_empty() && cluster.display_name.starts_with(typed.as_str());
        let by_name = matches.then(|| Candidate::new(cluster.display_name.as_str(), cluster.id.as_str()));
        std::iter::once(by_id).chain(by_name)
    });
    Ok(candidates.collect())
}

/// Every cluster with an agent, with the row of the agent's token.
async fn with_rows(management: &Management, ui: &Ui) -> Result<Vec<Candidate>, Error> {
    let mut unknown = Failures::of(ui, "clusters", 0);
    let mut source = Source::open(management, &[], None, &mut unknown).await?;
    let mut candidates = Vec::new();
    while let Some(groups) = source.next().await? {
        let now = management.server.clock.now();
        candidates.extend(groups.iter().filter_map(|group| {
            let cluster = source.cluster_of(group)?;
            let rows = source.rows(group, &source.inputs(group), now);
            let row = rows.iter().find(|row| row.is_of_agent()).or(rows.first())?;
            let candidate = Candidate::new(group.namespace.as_str(), cluster.display_name.as_str());
            (cluster.kind != ClusterKind::Local).then(|| candidate.with_row(row))
        }));
    }
    Ok(candidates)
}
