//! Clusters as a user of Rancher sees them at `/v3/clusters`: those that the user is a member of. (Only administrators can read
//! the objects behind them.)

use client::request::Verb;
use serde::Deserialize;

use super::norman;
use crate::cluster_id::ClusterId;
use crate::error::{Candidate, Error, Result};
use crate::similar::similar;

/// A cluster as its member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct VisibleCluster {
    /// Its id.
    pub id: ClusterId,
    /// Its display name, which several clusters may have.
    #[serde(default)]
    pub name: String,
    /// As Rancher reports it: `active`, `unavailable`, `pending`, … Displayed, never trusted.
    #[serde(default)]
    pub state: String,
}

/// All clusters of the caller.
pub async fn clusters(client: &kube::Client) -> Result<Vec<VisibleCluster>> {
    let operation = norman::Operation::new(Verb::List, "cluster", None);
    norman::list(client, &operation, "/v3/clusters").await
}

/// A cluster by its id or its display name. An id takes precedence over a display name of the same text.
///
/// Errors: [`Error::AmbiguousCluster`] with all candidates, [`Error::ClusterNotFound`] with similar names.
pub async fn find_cluster(client: &kube::Client, asked: &str) -> Result<VisibleCluster> {
    let clusters = clusters(client).await?;
    if let Some(exact) = clusters.iter().find(|cluster| cluster.id.as_str() == asked) {
        return Ok(exact.clone());
    }
    let named: Vec<&VisibleCluster> = clusters.iter().filter(|cluster| cluster.name == asked).collect();
    match named.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::ClusterNotFound {
            asked: asked.to_owned(),
            similar: similar(asked, clusters.iter().map(|cluster| cluster.name.as_str())),
        }),
        several => Err(Error::AmbiguousCluster {
            asked: asked.to_owned(),
            candidates: several.iter().map(|cluster| candidate(cluster)).collect(),
        }),
    }
}

fn candidate(cluster: &VisibleCluster) -> Candidate {
    Candidate {
        id: cluster.id.clone(),
        display_name: cluster.name.clone(),
    }
}
