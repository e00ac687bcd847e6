//! The permissions that Argo CD needs in a cluster: to list and watch every kind that the cluster serves. If one is missing, its
//! cache fails as a whole ("failed to load initial state of resource …: forbidden"). To sync, it has to change objects too. Without
//! that it reports `Successful`, and each sync fails (seen on Argo CD 3.5.1).
//!
//! Argo CD excludes Events, Leases and metrics (`coreExcludedResources` in `util/settings/filtered_resource.go`, Argo CD 3.5.1).
//! What an installation excludes besides is not considered.

use client::access::{self, Right};
use client::connection::Server;
use client::error::{Doing as _, Error};
use kube::discovery::{Discovery, Scope, verbs};
use serde::Serialize;

/// The verbs that Argo CD needs for each kind to show it.
const WATCH_VERBS: &[&str] = &[verbs::LIST, verbs::WATCH];
/// The verbs that a sync needs: it applies, creates and prunes.
const SYNC_VERBS: &[&str] = &[verbs::CREATE, verbs::PATCH, verbs::DELETE];

/// The part of a cluster that Argo CD watches.
#[derive(Clone, Copy, Debug)]
pub struct WatchScope<'a> {
    /// The namespaces; empty: all.
    pub namespaces: &'a [String],
    /// With `namespaces`: cluster-scoped objects too.
    pub cluster_resources: bool,
}

/// The permissions to list and watch that the user of `server` lacks. For a role that allows everything, two requests are enough.
/// Otherwise each kind is checked.
pub async fn missing(server: &Server, scope: WatchScope<'_>) -> Result<Vec<Right>, Error> {
    let everything = over(scope, WATCH_VERBS, "*", "*", true);
    if access::missing(server, &everything).await?.is_empty() {
        return Ok(Vec::new());
    }
    access::missing(server, &of_each_kind(server, scope, WATCH_VERBS).await?).await
}

/// What a sync may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncAccess {
    /// Every kind.
    Everything,
    /// Some kinds.
    Some,
    /// Nothing: Argo CD can only watch.
    Nothing,
}

/// What the user of `server` may change. For a role that allows everything, three requests are enough. Otherwise it is checked for
/// each kind whether it can be created.
pub async fn sync_access(server: &Server, scope: WatchScope<'_>) -> Result<SyncAccess, Error> {
    let everything = over(scope, SYNC_VERBS, "*", "*", true);
    if access::missing(server, &everything).await?.is_empty() {
        return Ok(SyncAccess::Everything);
    }
    let create = of_each_kind(server, scope, &[verbs::CREATE]).await?;
    let missing = access::missing(server, &create).await?;
    Ok(if missing.len() < create.len() {
        SyncAccess::Some
    } else {
        SyncAccess::Nothing
    })
}

/// These permissions for each kind that Argo CD watches and that has these verbs.
async fn of_each_kind(server: &Server, scope: WatchScope<'_>, verbs: &[&str]) -> Result<Vec<Right>, Error> {
    let discovery = Discovery::new(server.client.clone()).run().await;
    let discovery = discovery.doing("discover what the cluster serves")?;
    let mut kinds = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let mut needed = WATCH_VERBS.iter().chain(verbs);
            let is_served = needed.all(|verb| capabilities.supports_operation(verb));
            if is_served && !is_excluded(&resource.group, &resource.kind) {
                kinds.push((resource.group, resource.plural, capabilities.scope == Scope::Namespaced));
            }
        }
    }
    // Groups have no order.
    kinds.sort();
    let rights = kinds
        .iter()
        .flat_map(|(group, resource, namespaced)| over(scope, verbs, group, resource, *namespaced));
    Ok(rights.collect())
}

fn is_excluded(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        ("events.k8s.io" | "metrics.k8s.io", _) | ("", "Event") | ("coordination.k8s.io", "Lease")
    )
}

/// The permissions for one kind, in each namespace of the scope.
fn over(scope: WatchScope<'_>, verbs: &[&str], group: &str, resource: &str, namespaced: bool) -> Vec<Right> {
    let rights = || verbs.iter().map(|verb| Right::new(verb, group, resource));
    if scope.namespaces.is_empty() || !namespaced && scope.cluster_resources {
        return rights().collect();
    }
    if !namespaced {
        return Vec::new();
    }
    let inside = |namespace: &String| rights().map(|right| right.in_namespace(namespace)).collect::<Vec<_>>();
    scope.namespaces.iter().flat_map(inside).collect()
}
