//! The rights that Argo CD needs at the other end: it lists and watches every kind that the cluster serves. A role with
//! fewer makes its cache fail as a whole ("failed to load initial state of resource …: forbidden").
//!
//! Kinds that it never looks at are those of `coreExcludedResources` in `util/settings/filtered_resource.go` (Argo CD
//! 3.5.1): Events, Leases and metrics. What an installation excludes on top of that is not known here.

use client::access::{self, Right};
use client::connection::Server;
use client::error::{Doing as _, Error};
use kube::discovery::{Discovery, Scope, verbs};

/// What Argo CD does with each kind.
const VERBS: [&str; 2] = [verbs::LIST, verbs::WATCH];

/// Which part of a cluster Argo CD is told to look at.
#[derive(Clone, Copy, Debug)]
pub struct Extent<'a> {
    /// The only namespaces; empty: all.
    pub namespaces: &'a [String],
    /// Cluster-scoped objects too, where namespaces are named.
    pub cluster_resources: bool,
}

/// Which of these rights the identity of `server` lacks there. Two questions answer it for a role that allows everything;
/// otherwise each kind is asked about.
pub async fn missing(server: &Server, extent: Extent<'_>) -> Result<Vec<Right>, Error> {
    let everything = over(extent, "*", "*", true);
    if access::missing(server, &everything).await?.is_empty() {
        return Ok(Vec::new());
    }
    let discovery = Discovery::new(server.client.clone()).run().await;
    let discovery = discovery.doing("discover what the cluster serves")?;
    let mut kinds = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let looks = VERBS.iter().all(|verb| capabilities.supports_operation(verb));
            if looks && !is_excluded(&resource.group, &resource.kind) {
                kinds.push((resource.group, resource.plural, capabilities.scope == Scope::Namespaced));
            }
        }
    }
    // Groups come in no order.
    kinds.sort();
    let rights: Vec<Right> = kinds
        .iter()
        .flat_map(|(group, resource, namespaced)| over(extent, group, resource, *namespaced))
        .collect();
    access::missing(server, &rights).await
}

fn is_excluded(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        ("events.k8s.io" | "metrics.k8s.io", _) | ("", "Event") | ("coordination.k8s.io", "Lease")
    )
}

/// The rights on one kind, in each namespace that counts.
fn over(extent: Extent<'_>, group: &str, resource: &str, namespaced: bool) -> Vec<Right> {
    let rights = VERBS.map(|verb| Right::new(verb, group, resource));
    if extent.namespaces.is_empty() {
        return rights.to_vec();
    }
    if !namespaced {
        return if extent.cluster_resources {
            rights.to_vec()
        } else {
            Vec::new()
        };
    }
    let inside = |namespace: &String| rights.clone().map(|right| right.in_namespace(namespace));
    extent.namespaces.iter().flat_map(inside).collect()
}
