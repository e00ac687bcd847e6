//! The texts about the rotation of a cluster's token: its start, what else it invalidates, and its target.

use argocd::ClusterSecret;
use cli::rotation::{Commands, LeaseName, Target};
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::plan::Plan;
use engine::rotation::Action;
use serde::Serialize;
use serde_json::{Map, json};

use crate::address::RancherAddress as _;
use crate::connections::ARGOCD;
use crate::rotation::ArgocdRancher;
use crate::rotation::observed::Observed;
use crate::rotation::record::Record;

/// The rotation in the Lease of a cluster's token.
pub(crate) type LeasedRotation = cli::rotation::leases::LeasedRotation<ArgocdRancher>;

/// The start of a rotation that has not begun.
pub(crate) fn start(seen: &Observed, record: &Record) -> String {
    let old = record.old.with_fingerprint();
    let accepted = match &seen.old_accepted {
        Acceptance::Accepted => "Rancher accepts it",
        Acceptance::Rejected => "Rancher rejects it",
        Acceptance::Unknown(_) | Acceptance::NotAsked => "it is unknown whether Rancher accepts it",
    };
    let watched = if seen.watched {
        "Applications are deployed to the cluster"
    } else if seen.use_forced {
        "Argo CD's use of the new token will not be observed (--force=use)"
    } else {
        "Argo CD has no reason to call the cluster, so its use of the new token will not be observed"
    };
    format!("Argo CD has {old}, {accepted}; {watched}")
}

/// What else the rotation invalidates.
pub(crate) fn also_invalidated(plan: &Plan<ArgocdRancher>) -> Vec<String> {
    let Record {
        old,
        keep_old,
        old_worked,
        ..
    } = &plan.record;
    let revokes = !plan.direction.is_rollback() && !keep_old && *old_worked;
    let line = || format!("{}: other clients that use this token", old.with_fingerprint());
    revokes.then(line).into_iter().collect()
}

/// A cluster, in messages.
pub(crate) fn display(cluster: &ClusterSecret) -> String {
    let name = &cluster.name;
    match cluster.server.rancher() {
        Some((_, id)) => format!("cluster {name} ({id})"),
        None => format!("cluster {name}"),
    }
}

/// A cluster, as the target of a rotation.
pub(crate) fn target(cluster: &ClusterSecret, commands: Commands) -> Target {
    let (name, id) = (&cluster.object.name, cluster.server.rancher().map(|(_, id)| id));
    let mut details = Map::new();
    details.insert("cluster".to_owned(), json!(id));
    details.insert("clusterName".to_owned(), json!(cluster.name));
    details.insert("server".to_owned(), json!(cluster.server));
    Target {
        object: format!("secret/{name}"),
        name: name.clone(),
        display: display(cluster),
        details,
        action: Action::ROTATE,
        restored: "Argo CD has the old token as before",
        commands,
        lease: lease(&cluster.object.namespace, name),
    }
}

/// The Lease of a cluster's token: beside the cluster Secret, under the same name.
pub(crate) fn lease(namespace: &str, secret: &str) -> LeaseName {
    LeaseName {
        namespace: namespace.to_owned(),
        name: secret.to_owned(),
        side: ARGOCD,
    }
}

/// A rotation in progress, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Part {
    /// The phase that it has reached. `None`: the journal cannot be read.
    pub phase: Option<Phase>,
    pub direction: Option<Direction>,
}

impl Part {
    /// By a Lease. `None`: no rotation is in progress.
    pub(crate) fn of(rotation: &LeasedRotation) -> Option<Self> {
        let run = rotation.journal().map(engine::journal::Journal::run);
        rotation.in_progress().then(|| Self {
            phase: run.map(|run| run.phase),
            direction: run.map(|run| run.direction),
        })
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.direction {
            Some(Direction::Rollback) => "its rotation is being rolled back",
            _ => "it is being rotated",
        })?;
        self.phase.map_or(Ok(()), |phase| write!(f, " ({phase})"))
    }
}
