//! The record of a run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::observed::{Issued, MarkDetails, Name, TokenRef};

/// The record in the journal: names and fingerprints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The Rancher user whose tokens these are.
    pub user: String,
    /// O, the token that is rotated.
    pub old: TokenRef,
    /// Rancher accepted O at the beginning.
    pub old_worked: bool,
    /// O is to stay valid.
    #[serde(default)]
    pub keep_old: bool,
    /// N, the token that replaces O. `None` until it is about to be backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<TokenRef>,
    /// The last use of N in Rancher when N was about to be written to the cluster Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_before: Option<String>,
    /// Every new token that was about to be written to the cluster Secret: Argo CD may have a copy of it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub placed: BTreeSet<Name>,
    /// Every token that was about to be revoked. A deletion cannot be conditional, so none of them may be used again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub revoked: BTreeSet<Name>,
}

impl Record {
    /// The details that the next write of the cluster Secret leaves there for a process that resumes the run.
    pub(crate) fn details(&self, used_before: Option<String>) -> MarkDetails {
        MarkDetails {
            user: self.user.clone(),
            old: self.old.clone(),
            keep_old: self.keep_old,
            placed: self.placed.clone(),
            used_before,
        }
    }

    /// Whether this is O or a token that this run has issued.
    pub(super) fn is_of_this_run(&self, token: &TokenRef, issued: &BTreeMap<Name, Issued>) -> bool {
        let ours = |name: &Name| issued.contains_key(name) || self.placed.contains(name);
        token.value == self.old.value
            || self.new.as_ref().is_some_and(|new| new.value == token.value)
            || token.name.as_ref().is_some_and(ours)
    }
}
