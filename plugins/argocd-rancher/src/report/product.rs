//! The rotation of a cluster's token in words: its deadlines, where it starts from, what dies with the old token.

use argocd::ClusterSecret;
use cli::rotation::again::Again;
use cli::rotation::subject::{Ends, LeaseName, Product, Subject};
use engine::phase::{Goal, Phase};
use engine::plan::Plan;
use serde::Serialize;
use serde_json::{Map, json};

use crate::address::RancherAddress as _;
use crate::mark::TOOL;
use crate::rotation::view::{Answer, Known, Notes, View};
use crate::rotation::write::Shown;
use crate::rotation::{ArgocdRancher, Timer};
use crate::sides::ARGOCD;

/// The plugin, as it is typed after `kubectl`.
pub(crate) const PLUGIN: &str = "argocd-rancher";

/// The rotation under way or past of one cluster's token.
pub(crate) type Rotation = cli::rotation::leases::Rotation<ArgocdRancher>;

impl Product for ArgocdRancher {
    const KIND: &'static str = PLUGIN;
    const MANAGER: &'static str = TOOL;
    const TIMERS: &'static [(Timer, &'static str)] = &[(Timer::Proof, "proof"), (Timer::Grace, "grace")];

    fn ends(notes: &Notes) -> Ends {
        Ends {
            old: notes.old.value,
            new: notes.new.as_ref().map(|new| new.value),
        }
    }

    fn start(view: &View, notes: &Notes) -> String {
        let old = shown(&notes.old);
        let lives = match &view.old_answer {
            Answer::Works => "Rancher lets it in",
            Answer::Refused => "Rancher refuses it",
            Answer::Open(_) | Answer::Unasked => "whether Rancher lets it in is not known",
        };
        let watched = if view.watched {
            "Applications are deployed to the cluster"
        } else {
            "Argo CD has no reason to call the cluster, so its use of the new one will not be seen"
        };
        format!("Argo CD has {old}, {lives}; {watched}")
    }

    fn deaths(plan: &Plan<Self>) -> Vec<String> {
        let notes = &plan.notes;
        if plan.goal == Goal::Back || notes.keep_old || !notes.old_worked {
            return Vec::new();
        }
        vec![format!("{}: whatever else calls Rancher with it", shown(&notes.old))]
    }
}

/// A token with its fingerprint, as other tools may show it.
pub(crate) fn shown(known: &Known) -> String {
    match &known.name {
        Some(name) => format!("{} ({})", Shown(Some(name), known.value), known.value),
        None => Shown(None, known.value).to_string(),
    }
}

/// A cluster of Argo CD's, as the verbs speak of it.
pub(crate) fn subject(cluster: &ClusterSecret, again: Again) -> Subject {
    let (name, id) = (&cluster.object.name, cluster.server.rancher().map(|(_, id)| id));
    let mut about = Map::new();
    about.insert("cluster".to_owned(), json!(id));
    about.insert("clusterName".to_owned(), json!(cluster.name));
    about.insert("server".to_owned(), json!(cluster.server.as_str()));
    Subject {
        object: format!("secret/{name}"),
        name: name.clone(),
        called: id.map_or_else(
            || format!("cluster {}", cluster.name),
            |id| format!("cluster {} ({id})", cluster.name),
        ),
        about,
        restored: "Argo CD has the old token as before",
        again,
        lease: lease(cluster),
    }
}

/// The Lease of a cluster's token: beside the cluster Secret, under the same name.
pub(crate) fn lease(cluster: &ClusterSecret) -> LeaseName {
    LeaseName {
        namespace: cluster.object.namespace.clone(),
        name: cluster.object.name.clone(),
        side: ARGOCD,
    }
}

/// Where a rotation stands, as far as a row tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Part {
    /// The farthest phase that was begun; `None` where the journal cannot be read.
    pub phase: Option<Phase>,
    /// Which of the two tokens it shall end on.
    pub goal: Option<Goal>,
}

impl Part {
    /// Of a Lease; `None` where nothing is under way.
    pub(crate) fn of(rotation: &Rotation) -> Option<Self> {
        rotation.under_way().then(|| Self {
            phase: rotation.journal().map(|journal| journal.phase),
            goal: rotation.journal().map(|journal| journal.goal),
        })
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.goal {
            Some(Goal::Back) => "its rotation is being undone",
            _ => "it is being rotated",
        })?;
        self.phase.map_or(Ok(()), |phase| write!(f, " ({phase})"))
    }
}
