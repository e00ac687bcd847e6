//! What is there on both sides, as far as the next step depends on it: names, fingerprints and states; no secret, no time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use client::secret::Fingerprint;
use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::rotation::Blocker;
use serde::{Deserialize, Serialize};

/// Both sides of one rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    /// What speaks against beginning a rotation. Only [`survey`](super::ArgocdRancher) looks at it.
    pub blockers: Vec<Blocker>,
    /// The Rancher user of this command. Only the owner of a token can list or delete it.
    pub user: String,
    /// Whether the cluster Secret points to the Rancher of this command.
    pub same_rancher: bool,
    /// The cluster Secret of Argo CD.
    pub secret: SecretState,
    /// What the backup Secret holds. `None`: there is none, or it is that of another run.
    pub backup: Option<Backup>,
    /// O as Rancher lists it to its owner. `None`: it is not among the tokens of this user.
    pub old: Option<Validity>,
    /// Whether Rancher accepts O.
    pub old_accepted: Acceptance,
    /// What else needs O, in words, so that it must not be revoked.
    pub old_needed_by: Option<String>,
    /// Every token that carries the mark of this run, as Rancher lists it.
    pub issued: BTreeMap<Name, Issued>,
    /// Whether Rancher and the cluster accept N, for everything that Argo CD does with it.
    pub new_accepted: Acceptance,
    /// Whether Argo CD calls this cluster at all, so that its use of N can be observed.
    pub watched: bool,
    /// What Argo CD itself reports about the cluster.
    pub sync: ClusterSync,
    /// Every call of this command with N is so long ago that Rancher has recorded it as a use. A later use is Argo CD's.
    pub own_calls_recorded: bool,
    /// The user wants O to stay valid.
    pub keep_old: bool,
}

/// The name of a token of Rancher, `token-abcde`; or, in a plan, a placeholder. It is no secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(pub String);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No name in Rancher begins so.
        f.pad(if self.0.starts_with('<') { "<new>" } else { &self.0 })
    }
}

/// A token by its name and the fingerprint of its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenRef {
    /// Its name. `None`: it is no token of Rancher's v3 API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Of the whole value.
    pub value: Fingerprint,
}

impl TokenRef {
    /// With the fingerprint, as other tools may show it.
    pub(crate) fn with_fingerprint(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.value),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => name.fmt(f),
            None => write!(f, "the token {}", self.value),
        }
    }
}

/// The cluster Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretState {
    /// There is none, it is being deleted, or it is not a cluster Secret.
    Missing,
    /// It is there.
    Holds {
        /// The token in it. `None`: Argo CD does not log in with a token.
        held: Option<TokenRef>,
        /// What this run has left on it. `None`: nothing.
        mark: Option<RunMark>,
        /// Who has written `config` last.
        writer: ConfigWriter,
    },
}

/// What a run leaves on the cluster Secret, in the same write as a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunMark {
    /// The direction of the run.
    pub direction: Direction,
    /// What a process needs to know that resumes the run. `None`: it cannot be read.
    pub details: Option<MarkDetails>,
}

/// The same facts as in the record, where only those who may write the cluster Secret can change them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarkDetails {
    /// The Rancher user who began the run.
    pub user: String,
    /// O.
    pub old: TokenRef,
    /// O is to stay valid.
    pub keep_old: bool,
    /// Every new token that was written there.
    pub placed: BTreeSet<Name>,
    /// The last use of N, as Rancher had recorded it before N was written there.
    pub used_before: Option<String>,
}

/// Who wrote the config of the cluster Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConfigWriter {
    /// This program, or it is not recorded.
    #[default]
    Ours,
    /// Argo CD, from a copy that it had read before. It stops once it has read the present state.
    ArgoCd,
    /// Another writer, in words.
    Other(String),
}

/// What Argo CD itself reports about a cluster, in the metrics of its application controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClusterSync {
    /// Nothing, and why.
    Unknown(String),
    /// Its last sync of the cluster failed.
    Failed,
    /// It is connected, by what it read before N was written to the Secret.
    #[default]
    Before,
    /// It has read the whole cluster since then.
    Since,
}

/// What the backup Secret holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Backup {
    /// The Rancher user who began the run. Empty: not recorded.
    pub user: String,
    /// O is to stay valid.
    pub keep_old: bool,
    /// O.
    pub old: Option<TokenRef>,
    /// N.
    pub new: Option<TokenRef>,
}

/// A token that this run has issued.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Issued {
    /// How long it is valid.
    pub validity: Validity,
    /// Its value, where it is known: from the backup Secret, from the cluster Secret, or because this process has issued it.
    pub value: Option<Fingerprint>,
    /// The token that it was issued to replace. `None`: that one is to stay valid.
    pub replaces: Option<Name>,
    /// Its last use, as Rancher writes it; only whether it has changed counts. `None`: never, or Rancher does not record it
    /// (before 2.9).
    pub used: Option<String>,
}

impl SecretState {
    /// The token in it.
    pub fn held(&self) -> Option<&TokenRef> {
        match self {
            Self::Holds { held, .. } => held.as_ref(),
            Self::Missing => None,
        }
    }

    /// What this run has left on it.
    pub fn mark(&self) -> Option<&RunMark> {
        match self {
            Self::Holds { mark, .. } => mark.as_ref(),
            Self::Missing => None,
        }
    }

    /// The details of that, where they can be read.
    pub(super) fn details(&self) -> Option<&MarkDetails> {
        self.mark()?.details.as_ref()
    }

    /// The other writer of what it holds.
    pub(crate) fn other_writer(&self) -> Option<&str> {
        match self {
            Self::Holds {
                writer: ConfigWriter::Other(name),
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
