//! What there is on both sides, as far as the next step depends on it: names and fingerprints, no secret, no time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use client::secret::Fingerprint;
pub use engine::leg::Leg;
use engine::protocol::Obstacle;
use serde::{Deserialize, Serialize};

/// Both sides of one rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// What speaks against beginning a rotation. Once one is under way it is not asked any more.
    pub obstacles: Vec<Obstacle>,
    /// The user of Rancher who looks. Only the owner of a token can list or delete it.
    pub user: String,
    /// The cluster Secret leads through the Rancher that this command was given.
    pub same_rancher: bool,
    /// The cluster Secret of Argo CD.
    pub target: Target,
    /// What the Secret of this rotation holds. `None`: there is none, or it is that of another run.
    pub parked: Option<Parked>,
    /// O as Rancher lists it to its owner. `None`: it is not among the caller's tokens.
    pub old: Option<Life>,
    /// What Rancher says when it is called with O.
    pub old_answer: Answer,
    /// Who else needs O, in words, so that it must not be revoked.
    pub old_needed_by: Option<String>,
    /// Every token that carries the mark of this run, as Rancher lists it.
    pub minted: BTreeMap<Name, Minted>,
    /// What Rancher and the cluster say when they are called with N.
    pub new_answer: Answer,
    /// Whether Argo CD calls this cluster at all, so that it will be seen to use N.
    pub watched: bool,
    /// What Argo CD itself says of the cluster.
    pub consumer: Consumer,
    /// We have not called with N for so long that whatever Rancher notes as its last use by now was somebody else's.
    pub quiet: bool,
    /// O is to stay alive.
    pub keep_old: bool,
}

/// The name of a token of Rancher, which may be shown: `token-abcde`; or, in a plan, a placeholder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(pub String);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The cluster Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// There is none, or it cannot be read as one.
    Missing,
    /// It is there.
    Holds {
        /// The token in it. `None`: Argo CD would not log in with a token.
        held: Option<Known>,
        /// What this run has left on it. `None`: it has not written it, or was overruled.
        mark: Option<Mark>,
        /// Who has written `config` last, if not this program.
        writer: Writer,
    },
}

/// What a run writes on the cluster Secret together with a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The leg that it was on.
    pub leg: Leg,
    /// The user of Rancher who began the run. Empty: the mark cannot be read.
    pub user: String,
    /// O. `None`: the mark cannot be read.
    pub old: Option<Known>,
    /// O is to stay valid.
    pub keep_old: bool,
    /// Every new token that was put there.
    pub placed: BTreeSet<Name>,
    /// The last use of N, as Rancher noted it before it was put there.
    pub used_before: Option<String>,
}

/// Who wrote the config of the cluster Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Writer {
    /// We, or it is not recorded.
    #[default]
    Ours,
    /// Argo CD, from a copy that it had read before. It stops once it has read the present state.
    ArgoCd,
    /// Another writer, in words.
    Other(String),
}

/// What Argo CD itself says of a cluster, in the metrics of its application controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consumer {
    /// Nothing, and why.
    Unknown(String),
    /// Its last sync of the cluster failed.
    Failed,
    /// It is connected, with what it read before N was put into the Secret.
    #[default]
    Before,
    /// It has read the whole cluster since then.
    Since,
}

/// A token by its name and the fingerprint of its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Known {
    /// Its name. `None`: it is no token of Rancher's v3 API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Of the whole value.
    pub value: Fingerprint,
}

/// The values that are kept for the time of the rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Parked {
    /// The user of Rancher who began. Empty: not recorded.
    pub user: String,
    /// O is to stay valid.
    pub keep_old: bool,
    /// O.
    pub old: Option<Known>,
    /// N.
    pub new: Option<Known>,
}

/// A token as Rancher lists it to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    /// It has expired or is switched off.
    Dead,
    /// It lives, but not for longer than five minutes.
    Ending,
    /// It lives, and will for as long as any write may be under way.
    Sound,
}

/// A token that this run has made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Minted {
    /// How it stands.
    pub life: Life,
    /// Its value, where anybody knows it: it is parked, or in the cluster Secret, or this process has made it.
    pub value: Option<Fingerprint>,
    /// The token that it was made to take the place of. `None`: that one is to stay valid.
    pub replaces: Option<Name>,
    /// When it was used last, as Rancher writes it: a mark of which only counts whether it has changed. `None`: never, or
    /// Rancher does not keep it (before 2.9).
    pub used: Option<String>,
}

/// What calls with a token have shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Answer {
    /// It was let in, everywhere where Argo CD goes with it.
    Works,
    /// It was refused as a token.
    Refused,
    /// Neither is shown, and why.
    Open(String),
    /// It was not asked: its value is not known, or a call with it would hide what is to be seen.
    #[default]
    Unasked,
}

/// What the journal keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    /// The user of Rancher whose tokens these are.
    pub user: String,
    /// The token that is rotated.
    pub old: Known,
    /// Rancher let it in at the start.
    pub old_worked: bool,
    /// It is to stay alive.
    #[serde(default)]
    pub keep_old: bool,
    /// The one that takes its place. `None` until its value was to be parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Known>,
    /// The last use of N, as Rancher noted it, when N was to be put into the cluster Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_before: Option<String>,
    /// Every new token that was to be put into the cluster Secret: Argo CD may have a copy with it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub placed: BTreeSet<Name>,
    /// Every token that was to be deleted: a deletion cannot be conditional, so none of them may be relied on again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub given_up: BTreeSet<Name>,
    /// The way back was cut off while it was walked: the old token has died, and the new one stays.
    #[serde(default)]
    pub kept: bool,
}

impl Target {
    /// The token in it.
    pub fn held(&self) -> Option<&Known> {
        match self {
            Self::Holds { held, .. } => held.as_ref(),
            Self::Missing => None,
        }
    }

    /// What this run has left on it.
    pub fn mark(&self) -> Option<&Mark> {
        match self {
            Self::Holds { mark, .. } => mark.as_ref(),
            Self::Missing => None,
        }
    }

    /// The leg in which this run wrote it; [`Leg::Forward`] if it did not.
    pub fn leg(&self) -> Leg {
        self.mark().map_or(Leg::Forward, |mark| mark.leg)
    }

    /// The other writer of what it holds.
    pub fn other_writer(&self) -> Option<&str> {
        match self {
            Self::Holds {
                writer: Writer::Other(name),
                ..
            } => Some(name),
            _ => None,
        }
    }

    /// Whether it holds this value.
    pub fn holds(&self, value: Fingerprint) -> bool {
        self.held().is_some_and(|held| held.value == value)
    }
}

impl Notes {
    /// Whether this is O or a token that this run has made.
    pub fn is_of_this_run(&self, known: &Known, minted: &BTreeMap<Name, Minted>) -> bool {
        let ours = |name: &Name| minted.contains_key(name) || self.placed.contains(name);
        known.value == self.old.value
            || self.new.as_ref().is_some_and(|new| new.value == known.value)
            || known.name.as_ref().is_some_and(ours)
    }
}
