//! The permissions that Argo CD needs in a cluster: to list and watch every kind that the cluster serves. If one is missing, its
//! cache fails as a whole ("failed to load initial state of resource …: forbidden").
//!
//! Argo CD excludes Events, Leases and metrics (`coreExcludedResources` in `util/settings/filtered_resource.go`, Argo CD 3.5.1).
//! What an installation excludes besides is not considered.

use client::access::{self, Right};
use client::connection::Server;
use client::error::{Doing as _, Error};
use kube::discovery::{Discovery, Scope, verbs};

/// The verbs that Argo CD needs for each kind.
const VERBS: [&str; 2] = [verbs::LIST, verbs::WATCH];

/// The part of a cluster that Argo CD watches.
#[derive(Clone, Copy, Debug)]
pub struct WatchScope<'a> {
    /// The namespaces; empty: all.
    pub namespaces: &'a [String],
    /// With `namespaces`: cluster-scoped objects too.
    pub cluster_resources: bool,
}

/// The permissions that the user of `server` lacks. For a role that allows everything, two requests are enough. Otherwise each kind
/// is checked.
pub async fn missing(server: &Server, scope: WatchScope<'_>) -> Result<Vec<Right>, Error> {
    let everything = over(scope, "*", "*", true);
    if access::missing(server, &everything).await?.is_empty() {
        return Ok(Vec::new());
    }
    let discovery = Discovery::new(server.client.clone()).run().await;
    let discovery = discovery.doing("discover what the cluster serves")?;
    let mut kinds = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let is_watchable = VERBS.iter().all(|verb| capabilities.supports_operation(verb));
            if is_watchable && !is_excluded(&resource.group, &resource.kind) {
                kinds.push((resource.group, resource.plural, capabilities.scope == Scope::Namespaced));
            }
        }
    }
    // Groups have no order.
    kinds.sort();
    let rights: Vec<Right> = kinds
        .iter()
        .flat_map(|(group, resource, namespaced)| over(scope, group, resource, *namespaced))
        .collect();
    access::missing(server, &rights).await
}

fn is_excluded(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        ("events.k8s.io" | "metrics.k8s.io", _) | ("", "Event") | ("coordination.k8s.io", "Lease")
    )
}

/// The permissions for one kind, in each namespace of the scope.
fn over(scope: WatchScope<'_>, group: &str, resource: &str, namespaced: bool) -> Vec<Right> {
    let rights = VERBS.map(|verb| Right::new(verb, group, resource));
    if scope.namespaces.is_empty() {
        return rights.to_vec();
    }
    if !namespaced {
        return if scope.cluster_resources {
            rights.to_vec()
        } else {
            Vec::new()
        };
    }
    let inside = |namespace: &String| rights.clone().map(|right| right.in_namespace(namespace));
    scope.namespaces.iter().flat_map(inside).collect()
}
