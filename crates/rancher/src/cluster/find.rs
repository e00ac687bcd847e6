//! Finds a cluster by what the user types.

use super::{Cluster, ClusterId, get, list};
use crate::error::{Candidate, Error, Result};
use crate::provisioned;
use crate::similar::similar;

/// A cluster by its id, its display name, or `namespace/name` of its `clusters.provisioning.cattle.io` object (a server may not
/// serve that kind).
///
/// An id takes precedence over a display name of the same text. Where the caller may not read a cluster of that id, the text may
/// still be a display name. Errors: [`Error::AmbiguousCluster`] with all candidates, [`Error::ClusterNotFound`] with similar
/// names.
pub async fn find(client: &kube::Client, asked: &str) -> Result<Cluster> {
    let mut unreadable = None;
    if let Some((namespace, name)) = asked.split_once('/') {
        if let Some(cluster) = by_provisioning_name(client, namespace, name).await? {
            return Ok(cluster);
        }
    } else if let Ok(id) = asked.parse::<ClusterId>() {
        match get(client, &id).await {
            Ok(Some(cluster)) => return Ok(cluster),
            Ok(None) => {}
            Err(error) if error.is_forbidden() => unreadable = Some((id, error)),
            Err(error) => return Err(error),
        }
    }
    match (list(client, None).await, unreadable) {
        (Ok(clusters), _) => pick(asked, clusters),
        // What Rancher generates is no display name.
        (Err(_), Some((id, error))) if id.is_generated() => Err(error),
        (Err(error), _) => Err(error),
    }
}

async fn by_provisioning_name(client: &kube::Client, namespace: &str, name: &str) -> Result<Option<Cluster>> {
    if namespace.parse::<ClusterId>().is_err() || !may_be_an_object_name(name) {
        return Ok(None);
    }
    match provisioned::get(client, namespace, name).await? {
        Some(found) => get(client, &found.cluster).await,
        None => Ok(None),
    }
}

/// Whether it can be one segment of a path.
fn may_be_an_object_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.'))
}

fn pick(asked: &str, clusters: Vec<Cluster>) -> Result<Cluster> {
    let (mut matches, others): (Vec<_>, Vec<_>) =
        clusters.into_iter().partition(|cluster| cluster.display_name == asked);
    match matches.len() {
        1 => Ok(matches.remove(0)),
        0 => Err(Error::ClusterNotFound {
            asked: asked.to_owned(),
            similar: similar(asked, names_of(&others)),
        }),
        _ => Err(Error::AmbiguousCluster {
            asked: asked.to_owned(),
            candidates: matches
                .into_iter()
                .map(|cluster| Candidate {
                    id: cluster.id,
                    display_name: cluster.display_name,
                })
                .collect(),
        }),
    }
}

fn names_of(clusters: &[Cluster]) -> impl Iterator<Item = &str> {
    clusters
        .iter()
        .flat_map(|cluster| [cluster.display_name.as_str(), cluster.id.as_str()])
}
