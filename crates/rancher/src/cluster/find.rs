//! From what a user types to one cluster, or to a question.

use std::collections::HashSet;

use client::request::{self, Resource};
use serde::Deserialize;

use super::{Cluster, ClusterId, get, list};
use crate::error::{Candidate, Error, Result};

const PROVISIONING: Resource = Resource::new(
    "Cluster.provisioning.cattle.io",
    "provisioning.cattle.io/v1",
    "clusters",
);

/// How many near misses are worth a user's time.
const NEAR_NAMES: usize = 3;

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawProvisioning {
    status: RawProvisioningStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawProvisioningStatus {
    cluster_name: Option<String>,
}

/// The cluster that `asked` means: an id, a display name, or `namespace/name` of a `clusters.provisioning.cattle.io`
/// object (a server without that kind has no such object).
///
/// An id wins over a display name of the same text. Errors: [`Error::AmbiguousCluster`] with all candidates,
/// [`Error::NoSuchCluster`] with names that are nearly it.
pub async fn find(client: &kube::Client, asked: &str) -> Result<Cluster> {
    if let Some((namespace, name)) = asked.split_once('/') {
        if let Some(cluster) = by_provisioning_name(client, namespace, name).await? {
            return Ok(cluster);
        }
    } else if let Ok(id) = asked.parse::<ClusterId>()
        && let Some(cluster) = get(client, &id).await?
    {
        return Ok(cluster);
    }
    pick(asked, list(client, None).await?)
}

async fn by_provisioning_name(client: &kube::Client, namespace: &str, name: &str) -> Result<Option<Cluster>> {
    if namespace.parse::<ClusterId>().is_err() || !may_be_an_object_name(name) {
        return Ok(None);
    }
    let found: Option<RawProvisioning> = request::get(client, PROVISIONING, Some(namespace), name).await?;
    match found.and_then(|found| found.status.cluster_name?.parse().ok()) {
        Some(id) => get(client, &id).await,
        None => Ok(None),
    }
}

/// What may stand in a path as one segment.
fn may_be_an_object_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.'))
}

fn pick(asked: &str, clusters: Vec<Cluster>) -> Result<Cluster> {
    let (mut called_so, others): (Vec<_>, Vec<_>) =
        clusters.into_iter().partition(|cluster| cluster.display_name == asked);
    match called_so.len() {
        1 => Ok(called_so.remove(0)),
        0 => Err(Error::NoSuchCluster {
            asked: asked.to_owned(),
            near: near_names(asked, &others),
        }),
        _ => Err(Error::AmbiguousCluster {
            asked: asked.to_owned(),
            candidates: called_so
                .into_iter()
                .map(|cluster| Candidate {
                    id: cluster.id,
                    display_name: cluster.display_name,
                })
                .collect(),
        }),
    }
}

/// Ids and display names that differ from `asked` by no more than a third of its letters, or contain it.
fn near_names(asked: &str, clusters: &[Cluster]) -> Vec<String> {
    let asked = asked.to_lowercase();
    let limit = (asked.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = clusters
        .iter()
        .flat_map(|cluster| [cluster.display_name.as_str(), cluster.id.as_str()])
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = edit_distance(&asked, &lower);
            let contained = asked.chars().count() >= 3 && lower.contains(&asked);
            (distance <= limit || contained).then_some((distance, name))
        })
        .collect();
    near.sort_unstable();
    let mut seen = HashSet::new();
    near.into_iter()
        .map(|(_, name)| name)
        .filter(|name| seen.insert(*name))
        .take(NEAR_NAMES)
        .map(str::to_owned)
        .collect()
}

/// How many letters must be put in, taken out or replaced (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
