//! Predicts the observed state after a step, and after the waits.

use client::secret::Fingerprint;
use engine::credential::{Acceptance, Validity};
use engine::run::Run;

use super::ArgocdRancher;
use super::observed::{Backup, ClusterSync, ConfigWriter, Issued, Name, Observed, RunMark, SecretState, TokenRef};
use super::record::Record;
use super::step::{Step, Which};

/// See [`engine::rotation::Rotation::intend`]. Rancher chooses the name of a new token. It is journaled before the token is used. A
/// token that is not in the journal is found by its mark.
pub(super) fn intend(step: &Step, run: &Run<ArgocdRancher>) -> Record {
    let mut record = run.record.clone();
    match step {
        Step::BackUp {
            which: Which::New,
            token,
        } => record.new = Some(token.clone()),
        Step::Place {
            which: Which::New,
            token,
            used,
        } => {
            record.placed.extend(token.name.clone());
            record.used_before.clone_from(used);
        }
        Step::Revoke { name, .. } => {
            record.revoked.insert(name.clone());
        }
        Step::BackUp { .. } | Step::Issue { .. } | Step::Place { .. } | Step::Fence | Step::DeleteBackup => {}
    }
    record
}

/// See [`engine::rotation::Rotation::predict`].
pub(super) fn predict(seen: &mut Observed, run: &Run<ArgocdRancher>, step: &Step) {
    match step {
        Step::BackUp { which, token } => {
            let backup = backup(seen, &run.record);
            let slot = match which {
                Which::Old => &mut backup.old,
                Which::New => &mut backup.new,
            };
            *slot = Some(token.clone());
        }
        Step::Issue { replaces } => issue(seen, &run.record, replaces.clone()),
        Step::Place { token, used, .. } => {
            seen.secret = SecretState::Holds {
                held: Some(token.clone()),
                mark: Some(mark(run, used.clone())),
                writer: ConfigWriter::Ours,
            };
            if seen.sync == ClusterSync::Since {
                seen.sync = ClusterSync::Before;
            }
        }
        Step::Fence => {
            let used_before = seen.secret.details().and_then(|details| details.used_before.clone());
            if let SecretState::Holds { mark: there, .. } = &mut seen.secret {
                *there = Some(mark(run, used_before));
            }
        }
        Step::Revoke { which: Which::Old, .. } => seen.old = None,
        Step::Revoke { name, .. } => {
            seen.issued.remove(name);
        }
        Step::DeleteBackup => seen.backup = None,
    }
}

/// The backup Secret, created if there is none.
fn backup<'a>(seen: &'a mut Observed, record: &Record) -> &'a mut Backup {
    let backup = seen.backup.get_or_insert_default();
    backup.user.clone_from(&record.user);
    backup.keep_old = record.keep_old;
    backup
}

fn mark(run: &Run<ArgocdRancher>, used_before: Option<String>) -> RunMark {
    RunMark {
        direction: run.direction,
        details: Some(run.record.details(used_before)),
    }
}

fn issue(seen: &mut Observed, record: &Record, replaces: Option<Name>) {
    let is_taken = |name: &Name| {
        let is = |token: Option<&TokenRef>| token.is_some_and(|token| token.name.as_ref() == Some(name));
        let journaled = record.revoked.contains(name) || record.placed.contains(name) || is(record.new.as_ref());
        journaled || seen.issued.contains_key(name) || is(seen.secret.held())
    };
    let mut names = (1..).map(|count| Name(format!("<new {count}>")));
    let Some(name) = names.find(|name| !is_taken(name)) else {
        return;
    };
    let issued = Issued {
        validity: Validity::Valid,
        value: Some(Fingerprint::of(&name.0)),
        replaces,
        used: None,
    };
    seen.issued.insert(name, issued);
    seen.new_accepted = Acceptance::NotAsked;
}

/// See [`engine::rotation::Rotation::settle`].
pub(super) fn settle(seen: &mut Observed, run: &Run<ArgocdRancher>) {
    let record = &run.record;
    seen.own_calls_recorded = true;
    let new = record.new.as_ref();
    if let Some((name, value)) = new.and_then(|new| Some((new.name.as_ref()?, new.value))) {
        let in_use = seen.secret.holds(value);
        let issued = seen.issued.get_mut(name);
        seen.new_accepted = acceptance(issued.as_ref().map(|issued| issued.validity));
        if let Some(issued) = issued {
            issued.used = Some(if in_use { "by Argo CD" } else { "by us" }.to_owned());
        }
        if in_use {
            seen.sync = ClusterSync::Since;
        }
    }
    if seen.old_accepted != Acceptance::NotAsked && !record.keep_old {
        seen.old_accepted = acceptance(seen.old);
    }
}

fn acceptance(validity: Option<Validity>) -> Acceptance {
    match validity {
        Some(Validity::Valid | Validity::Expiring) => Acceptance::Accepted,
        Some(Validity::Invalid) | None => Acceptance::Rejected,
    }
}
