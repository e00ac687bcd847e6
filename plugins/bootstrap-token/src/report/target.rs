//! The target of a rotation, and the role of a token in a rotation in progress.

use bootstrap::{TokenId, secret};
use cli::rotation::leases::{LeasedRotation, LeasedRotations};
use cli::rotation::{Commands, LeaseName, Target};
use engine::direction::Direction;
use engine::journal::Journal;
use engine::phase::Phase;
use engine::rotation::Action;
use serde::Serialize;
use serde_json::{Map, json};

use crate::rotation::BootstrapToken;
use crate::rotation::record::Record;

/// The cluster in messages.
pub(crate) const CLUSTER: &str = "the cluster";

/// The rotation of one token, by its Lease.
pub(crate) type Rotation = LeasedRotation<BootstrapToken>;

pub(crate) fn target(id: &TokenId, commands: Commands) -> Target {
    let mut details = Map::new();
    details.insert("tokenId".to_owned(), json!(id));
    Target {
        object: format!("secret/{}", id.secret_name()),
        name: id.to_string(),
        display: format!("bootstrap token {id}"),
        details,
        action: Action::ROTATE,
        restored: "the old token is valid as before",
        commands,
        lease: lease(id),
    }
}

/// The Lease of a token, with the namespace and the name of its Secret.
pub(crate) fn lease(id: &TokenId) -> LeaseName {
    LeaseName {
        namespace: secret::NAMESPACE.to_owned(),
        name: id.secret_name(),
        side: CLUSTER,
    }
}

/// The role of a token in a rotation in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RotationRole {
    /// The id of the rotated token.
    of: String,
    is_new: bool,
    /// The farthest phase that was begun. `None`: the journal cannot be read.
    phase: Option<Phase>,
    direction: Option<Direction>,
}

impl RotationRole {
    /// The role of this token, if it has one.
    pub(crate) fn of(rotations: &LeasedRotations<BootstrapToken>, id: &TokenId) -> Option<Self> {
        let own = rotations.of(secret::NAMESPACE, &id.secret_name());
        if let Some(own) = own.filter(|own| own.in_progress()) {
            let run = own.journal().map(Journal::run);
            return Some(Self {
                of: id.to_string(),
                is_new: false,
                phase: run.map(|run| run.phase),
                direction: run.map(|run| run.direction),
            });
        }
        let mut runs = rotations.all().filter_map(|rotation| Some(rotation.journal()?.run()));
        let is_new = |record: &Record| record.new.as_ref().is_some_and(|new| new.id.0 == id.as_str());
        let run = runs.find(|run| is_new(&run.record))?;
        Some(Self {
            of: run.record.old.id.to_string(),
            is_new: true,
            phase: Some(run.phase),
            direction: Some(run.direction),
        })
    }
}

impl std::fmt::Display for RotationRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rolls_back = self.direction.is_some_and(Direction::is_rollback);
        match (self.is_new, rolls_back) {
            (false, true) => f.write_str("rotation being rolled back")?,
            (false, false) => f.write_str("being rotated")?,
            (true, true) => write!(f, "replacement for {}, being rolled back", self.of)?,
            (true, false) => write!(f, "replacement for {}", self.of)?,
        }
        self.phase.map_or(Ok(()), |phase| write!(f, " ({phase})"))
    }
}
