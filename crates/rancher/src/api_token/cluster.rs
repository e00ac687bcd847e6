//! Clusters as a user of Rancher sees them at `/v3/clusters`: those that the user is a member of, and no more rights than
//! that are needed. (The objects behind them are for administrators.)

use client::request::Verb;
use serde::Deserialize;

use super::norman;
use crate::cluster_id::ClusterId;
use crate::error::{Candidate, Error, Result};

/// How many near misses are worth a user's time.
const NEAR_NAMES: usize = 3;

/// A cluster as its member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SeenCluster {
    /// Its id.
    pub id: ClusterId,
    /// What it is called; several may be called the same.
    #[serde(default)]
    pub name: String,
    /// In Rancher's words: `active`, `unavailable`, `pending`, … Shown, never trusted.
    #[serde(default)]
    pub state: String,
}

/// All clusters that the caller sees.
pub async fn clusters(client: &kube::Client) -> Result<Vec<SeenCluster>> {
    let asked = norman::Asked::new(Verb::List, "cluster", None);
    norman::list(client, &asked, "/v3/clusters").await
}

/// The cluster that `asked` means: an id, or a display name. An id wins over a display name of the same text.
///
/// Errors: [`Error::AmbiguousCluster`] with all candidates, [`Error::NoSuchCluster`] with names that contain `asked`.
pub async fn find_cluster(client: &kube::Client, asked: &str) -> Result<SeenCluster> {
    let clusters = clusters(client).await?;
    if let Some(exact) = clusters.iter().find(|cluster| cluster.id.as_str() == asked) {
        return Ok(exact.clone());
    }
    let called: Vec<&SeenCluster> = clusters.iter().filter(|cluster| cluster.name == asked).collect();
    match called.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::NoSuchCluster {
            asked: asked.to_owned(),
            near: near(asked, &clusters),
        }),
        several => Err(Error::AmbiguousCluster {
            asked: asked.to_owned(),
            candidates: several.iter().map(|cluster| candidate(cluster)).collect(),
        }),
    }
}

fn candidate(cluster: &SeenCluster) -> Candidate {
    Candidate {
        id: cluster.id.clone(),
        display_name: cluster.name.clone(),
    }
}

fn near(asked: &str, clusters: &[SeenCluster]) -> Vec<String> {
    let asked = asked.to_lowercase();
    let names = clusters.iter().map(|cluster| cluster.name.as_str());
    let is_near = |name: &&str| {
        let name = name.to_lowercase();
        !asked.is_empty() && !name.is_empty() && (name.contains(&asked) || asked.contains(&name))
    };
    names.filter(is_near).take(NEAR_NAMES).map(str::to_owned).collect()
}
