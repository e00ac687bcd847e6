//! The rotation of bootstrap tokens in words: its deadlines, where it starts from, what dies with the old token.

use bootstrap::{TokenId, secret};
use cli::rotation::again::Again;
use cli::rotation::leases::Rotations;
use cli::rotation::subject::{Ends, LeaseName, Product, Subject};
use engine::phase::{Goal, Phase};
use engine::plan::{Plan, Planned};
use serde::Serialize;
use serde_json::{Map, json};

use crate::rotation::view::{Notes, View};
use crate::rotation::write::Write;
use crate::rotation::{BootstrapToken, Timer};
use crate::side::MANAGER;

/// The one side that there is, in words.
pub(crate) const CLUSTER: &str = "the cluster";
/// The plugin, as it is typed after `kubectl`.
pub(crate) const PLUGIN: &str = "bootstrap-token";

/// The rotation under way or past of one token.
pub(crate) type Rotation = cli::rotation::leases::Rotation<BootstrapToken>;

impl Product for BootstrapToken {
    const KIND: &'static str = PLUGIN;
    const MANAGER: &'static str = MANAGER;
    const TIMERS: &'static [(Timer, &'static str)] = &[
        (Timer::Proof, "proof"),
        (Timer::Overlap, "overlap"),
        (Timer::Touch, "touch"),
    ];

    fn ends(notes: &Notes) -> Ends {
        Ends {
            old: notes.old.value,
            new: notes.new.as_ref().map(|new| new.value),
        }
    }

    fn start(view: &View, notes: &Notes) -> String {
        let (id, value) = (&notes.old.id, notes.old.value);
        let signed = if view.old.signed {
            ", and cluster-info is signed with it"
        } else {
            ""
        };
        let held = notes.place.as_ref().map(|place| format!("; {} holds it", place.at));
        format!(
            "the API server accepts bootstrap token {id} ({value}){signed}{}",
            held.unwrap_or_default()
        )
    }

    fn deaths(plan: &Plan<Self>) -> Vec<String> {
        let notes = &plan.notes;
        if plan.goal == Goal::Back {
            return Vec::new();
        }
        let (id, value) = (&notes.old.id, notes.old.value);
        let leaves = |step: &Planned<Write>| {
            matches!(
                step,
                Planned::Write {
                    write: Write::Leave { .. },
                    ..
                }
            )
        };
        let left = plan.steps.iter().any(leaves);
        let but = match (&notes.place, &notes.left) {
            (Some(place), _) if left => format!(", and {place}, if it does"),
            (Some(place), _) => format!(" but {}", place.at),
            (None, Some(left)) => format!(", and {left}, if it does"),
            (None, None) => String::new(),
        };
        vec![format!(
            "{id} ({value}): kubeadm join commands, bootstrap kubeconfigs and machine images that hold it{but}; nodes that \
             have joined go on"
        )]
    }
}

/// A token, as the verbs speak of it.
pub(crate) fn subject(id: &TokenId, again: Again) -> Subject {
    let mut about = Map::new();
    about.insert("tokenId".to_owned(), json!(id));
    Subject {
        object: format!("secret/{}", id.secret_name()),
        name: id.to_string(),
        called: format!("bootstrap token {id}"),
        about,
        restored: "it works as before",
        again,
        lease: lease(id),
    }
}

/// The Lease of a token: beside its Secret, under the same name.
pub(crate) fn lease(id: &TokenId) -> LeaseName {
    LeaseName {
        namespace: secret::NAMESPACE.to_owned(),
        name: id.secret_name(),
        side: CLUSTER,
    }
}

/// What a rotation under way has to do with a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Part {
    /// The id of the token that is rotated.
    pub of: String,
    /// Whether this is the one that takes its place.
    pub is_new: bool,
    /// The farthest phase that was begun; `None` where the journal cannot be read.
    pub phase: Option<Phase>,
    /// Which of the two it shall end on.
    pub goal: Option<Goal>,
}

impl Part {
    /// Of a token, if it has one.
    pub(crate) fn of(rotations: &Rotations<BootstrapToken>, id: &TokenId) -> Option<Self> {
        let own = rotations.of(secret::NAMESPACE, &id.secret_name());
        let as_old = own.filter(|own| own.under_way()).map(|own| Self {
            of: id.to_string(),
            is_new: false,
            phase: own.journal().map(|journal| journal.phase),
            goal: own.journal().map(|journal| journal.goal),
        });
        as_old.or_else(|| {
            let mut journals = rotations.all().filter_map(Rotation::journal);
            let new = |notes: &Notes| notes.new.as_ref().is_some_and(|new| new.id.0 == id.as_str());
            let journal = journals.find(|journal| new(&journal.notes))?;
            Some(Self {
                of: journal.notes.old.id.to_string(),
                is_new: true,
                phase: Some(journal.phase),
                goal: Some(journal.goal),
            })
        })
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.is_new, self.goal) {
            (false, Some(Goal::Back)) => f.write_str("its rotation is being undone")?,
            (false, _) => f.write_str("being rotated")?,
            (true, Some(Goal::Back)) => write!(f, "made for {}, being taken back", self.of)?,
            (true, _) => write!(f, "takes the place of {}", self.of)?,
        }
        self.phase.map_or(Ok(()), |phase| write!(f, " ({phase})"))
    }
}
