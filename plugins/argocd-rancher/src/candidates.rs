//! The names of clusters that shell completion offers, and that a user selects from.

use argocd::ClusterSecret;
use cli::app::{Candidate, CompletionRequest, Context};
use client::error::Error;
use rancher::api_token::{self, VisibleCluster};

use crate::address::RancherAddress as _;
use crate::connections::{Argo, RANCHER, Rancher, RancherFlags};
use crate::inventory::Inventory;

/// The ids of Argo CD's clusters, with their names. For `add`: of the clusters in Rancher that Argo CD does not have.
pub(crate) async fn candidates(request: CompletionRequest, context: Context) -> Result<Vec<Candidate>, Error> {
    let verb = request.verbs.first().map(String::as_str);
    let takes_one = matches!(verb, Some("rollback" | "status")) && request.words.is_empty();
    let takes = takes_one || matches!(verb, Some("add" | "verify" | "remove" | "rotate"));
    if !takes || request.flag.is_some() {
        return Ok(Vec::new());
    }
    let argo = Argo::open(&request.global, &context.environment)?;
    let mut found = match verb {
        Some("add") => not_added(&request, &argo, &context).await?,
        _ if request.with_rows => with_rows(&request, &argo, &context).await?,
        _ => argo.clusters().await?.iter().filter_map(candidate).collect(),
    };
    let typed = |word: &str| request.words.iter().any(|typed| typed == word);
    found.retain(|cluster| !typed(&cluster.value) && !typed(&cluster.help));
    Ok(found)
}

fn candidate(cluster: &ClusterSecret) -> Option<Candidate> {
    let (_, id) = cluster.server.rancher()?;
    Some(Candidate::new(id.as_str(), cluster.name.as_str()))
}

/// With the rows of `list`.
async fn with_rows(request: &CompletionRequest, argo: &Argo, context: &Context) -> Result<Vec<Candidate>, Error> {
    let rancher = rancher(request, argo, context).await?;
    let inventory = Inventory::read(argo, rancher.as_ref(), context).await?;
    let now = argo.server.clock.now();
    let rows = inventory.clusters.iter().filter_map(|cluster| {
        let row = inventory.row(cluster, None, now)?;
        Some(candidate(cluster)?.with_row(&row))
    });
    Ok(rows.collect())
}

/// What Rancher knows and Argo CD does not.
async fn not_added(request: &CompletionRequest, argo: &Argo, context: &Context) -> Result<Vec<Candidate>, Error> {
    let Some(rancher) = rancher(request, argo, context).await? else {
        return Ok(Vec::new());
    };
    let added: Vec<Candidate> = argo.clusters().await?.iter().filter_map(candidate).collect();
    let clusters = api_token::clusters(&rancher.client).await;
    let clusters = clusters.map_err(|error| error.on(RANCHER))?.into_iter();
    let named = |cluster: VisibleCluster| Candidate::new(cluster.id.as_str(), cluster.name);
    let is_new = |cluster: &Candidate| added.iter().all(|known| known.value != cluster.value);
    Ok(clusters.map(named).filter(is_new).collect())
}

/// Rancher, where it is reached by what was typed so far. What comes on standard input is not there yet.
async fn rancher(request: &CompletionRequest, argo: &Argo, context: &Context) -> Result<Option<Rancher>, Error> {
    let flags: RancherFlags = request.flags();
    if flags.rancher_token_stdin {
        return Ok(None);
    }
    flags.open(argo, &request.global, context).await
}
