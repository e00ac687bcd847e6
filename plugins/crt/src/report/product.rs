//! The rotation of registration tokens in words: its deadlines, where it starts from, what dies with the old values.

use cli::rotation::again::Again;
use cli::rotation::subject::{Ends, LeaseName, Product, Subject};
use client::secret::Fingerprint;
use engine::phase::Goal;
use engine::plan::Plan;
use serde_json::{Map, Value, json};

use super::row::ClusterName;
use crate::controller::FIELD_MANAGER;
use crate::rotation::view::{Notes, View};
use crate::rotation::{Crt, Timer};
use crate::sides::MANAGEMENT;
use rancher::cluster::{Cluster, ClusterId};

/// The name of the Lease of a cluster, in the cluster's own namespace on the management side.
pub(crate) const LEASE: &str = "kubectl-crt";

/// The rotation under way or past of one cluster.
pub(crate) type Rotation = cli::rotation::leases::Rotation<Crt>;

impl Product for Crt {
    const KIND: &'static str = "crt";
    const MANAGER: &'static str = FIELD_MANAGER;
    const TIMERS: &'static [(Timer, &'static str)] = &[
        (Timer::Proof, "proof"),
        (Timer::Settle, "settle"),
        (Timer::Reconnect, "reconnect"),
    ];

    fn ends(notes: &Notes) -> Ends {
        Ends {
            old: notes.old,
            new: notes.new,
        }
    }

    fn start(view: &View, notes: &Notes) -> String {
        let system = match notes.system {
            Some(system) if system == notes.old => "which registration token system holds".to_owned(),
            Some(system) => format!("while registration token system holds {system}"),
            None => "and there is no registration token system yet".to_owned(),
        };
        format!(
            "the agent runs with {} from Secret {}, {system} (era {})",
            notes.old, notes.old_secret, view.era
        )
    }

    /// The token is also the secret of every command and URL that Rancher has ever shown for it.
    fn deaths(plan: &Plan<Self>) -> Vec<String> {
        let notes = &plan.notes;
        if plan.goal == Goal::Back {
            return Vec::new();
        }
        let with = |value: &Fingerprint, of: &str| {
            format!(
                "{value} ({of}): import URLs, registration and node join commands, and Terraform state that hold it"
            )
        };
        let agents = notes
            .others
            .iter()
            .filter(|(_, value)| **value == notes.old)
            .map(|(name, _)| name.as_str());
        let mut of = vec!["the agent's"];
        of.extend(agents);
        let mut deaths = vec![with(&notes.old, &of.join(", "))];
        if let Some(system) = notes.system.filter(|system| *system != notes.old) {
            deaths.push(with(&system, "system"));
        }
        let others = notes.others.iter().filter(|(_, value)| **value != notes.old);
        deaths.extend(others.map(|(name, value)| with(value, name)));
        deaths
    }
}

/// A cluster, as the verbs speak of it.
pub(crate) fn subject(cluster: &Cluster, again: Again) -> Subject {
    let about = json!({ "cluster": ClusterName::of(cluster) });
    let about = match about {
        Value::Object(about) => about,
        _ => Map::new(),
    };
    Subject {
        object: format!("cluster.management.cattle.io/{}", cluster.id),
        name: cluster.id.to_string(),
        called: called(cluster),
        about,
        restored: "its agent runs with the old token as before",
        again,
        lease: lease(&cluster.id),
    }
}

/// The Lease of a cluster.
pub(crate) fn lease(cluster: &ClusterId) -> LeaseName {
    LeaseName {
        namespace: cluster.to_string(),
        name: LEASE.to_owned(),
        side: MANAGEMENT,
    }
}

/// A cluster in a sentence: `cluster oslo (c-x7k2p)`.
pub(crate) fn called(cluster: &Cluster) -> String {
    if cluster.display_name.is_empty() || cluster.display_name == cluster.id.as_str() {
        format!("cluster {}", cluster.id)
    } else {
        format!("cluster {} ({})", cluster.display_name, cluster.id)
    }
}

/// Whether the rotation under way is to change this registration token. One whose journal cannot be read may change any.
pub(crate) fn changes(rotation: &Rotation, token: &str) -> bool {
    match &rotation.journal {
        None => false,
        Some(Err(_)) => true,
        Some(Ok(journal)) => token == rancher::token::SYSTEM || journal.notes.others.contains_key(token),
    }
}
