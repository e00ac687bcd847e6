//! The observed state on which the next step depends: names, fingerprints and states. It contains no secret and no time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use client::secret::Fingerprint;
use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::rotation::Blocker;
use serde::{Deserialize, Serialize};

/// The observed state of one rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    /// The failed preflight checks. Only [`survey`](super::ArgocdRancher) reads them.
    pub blockers: Vec<Blocker>,
    /// The Rancher user of this command. Only the owner of a token can list or delete it.
    pub user: String,
    /// Whether the cluster Secret points to the Rancher of this command.
    pub same_rancher: bool,
    /// The cluster Secret of Argo CD.
    pub secret: SecretState,
    /// The backup Secret. `None`: there is none, or it belongs to another run.
    pub backup: Option<Backup>,
    /// The validity of O in Rancher. `None`: it is not among the tokens of this user.
    pub old: Option<Validity>,
    /// Whether Rancher accepts O.
    pub old_accepted: Acceptance,
    /// What else needs O, so that it must not be revoked.
    pub old_needed_by: Option<String>,
    /// Every token in Rancher with the mark of this run.
    pub issued: BTreeMap<Name, Issued>,
    /// Whether Rancher and the cluster accept N for all calls as Argo CD makes them.
    pub new_accepted: Acceptance,
    /// Whether Argo CD watches this cluster, so that its use of N is waited for. Also `true` if that is unknown.
    pub watched: bool,
    /// The user requested not to wait for Argo CD's use of N.
    pub use_forced: bool,
    /// The state of the cluster in Argo CD's metrics.
    pub sync: ClusterSync,
    /// Rancher has recorded every call of this command with N. A later use is one by Argo CD.
    pub own_calls_recorded: bool,
    /// The user requested that O stays valid.
    pub keep_old: bool,
    /// The user requested to discard the run of another Rancher user.
    pub discard: bool,
}

/// The name of a token in Rancher, `token-abcde`, or a placeholder in a plan. It is not a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(pub String);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only a placeholder begins like this.
        f.pad(if self.0.starts_with('<') { "<new>" } else { &self.0 })
    }
}

/// A token by its name and the fingerprint of its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenRef {
    /// Its name. `None`: it is not a token of Rancher's v3 API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The fingerprint of the whole value.
    pub value: Fingerprint,
}

impl TokenRef {
    /// The name with the fingerprint.
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
    /// It exists.
    Holds {
        /// The token in it. `None`: Argo CD does not authenticate with a token.
        held: Option<TokenRef>,
        /// The mark of this run. `None`: there is none.
        mark: Option<RunMark>,
        /// The last writer of `config`.
        writer: ConfigWriter,
    },
}

/// The mark of a run on the cluster Secret, from the same write as a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunMark {
    /// The direction of the run.
    pub direction: Direction,
    /// The details for a process that resumes the run. `None`: they cannot be read.
    pub details: Option<MarkDetails>,
}

/// A part of the record, where only clients that can write the cluster Secret can change it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarkDetails {
    /// The Rancher user who began the run.
    pub user: String,
    /// O.
    pub old: TokenRef,
    /// O is to stay valid.
    pub keep_old: bool,
    /// Every new token that was written to the cluster Secret.
    pub placed: BTreeSet<Name>,
    /// The last use of N in Rancher before N was written to the cluster Secret.
    pub used_before: Option<String>,
}

impl MarkDetails {
    /// Whether this is the name of a token of the run.
    pub(crate) fn names(&self, name: &str) -> bool {
        let is = |token: &Name| token.0 == name;
        self.old.name.as_ref().is_some_and(is) || self.placed.iter().any(is)
    }
}

/// The writer of the config of the cluster Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConfigWriter {
    /// This program, or an unrecorded one.
    #[default]
    Ours,
    /// Argo CD, from a stale copy. It stops once it has read the present state.
    ArgoCd,
    /// Another writer, as in messages.
    Other(String),
}

/// The state of a cluster in the metrics of Argo CD's application controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClusterSync {
    /// It is unknown, for this reason.
    Unknown(String),
    /// Its last sync of the cluster failed.
    Failed,
    /// Connected, but it has not read the whole cluster since N was written to the Secret.
    #[default]
    Before,
    /// Connected, and it has read the whole cluster since then.
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
    /// Its validity.
    pub validity: Validity,
    /// Its value, if it is known: from the backup Secret, from the cluster Secret, or because this process has issued it.
    pub value: Option<Fingerprint>,
    /// The token that it replaces. `None`: that token is to stay valid.
    pub replaces: Option<Name>,
    /// Its last use in Rancher; only a change counts. `None`: never, or Rancher does not record it (before 2.9).
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

    /// The mark of this run.
    pub fn mark(&self) -> Option<&RunMark> {
        match self {
            Self::Holds { mark, .. } => mark.as_ref(),
            Self::Missing => None,
        }
    }

    /// The details of the mark, if they can be read.
    pub(super) fn details(&self) -> Option<&MarkDetails> {
        self.mark()?.details.as_ref()
    }

    /// The last writer, if it is neither this program nor Argo CD.
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
