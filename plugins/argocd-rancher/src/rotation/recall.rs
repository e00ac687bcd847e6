//! The record of a resumed run, from the objects.
//!
//! A client that can only write Leases must not be able to cause a token to be issued, placed or revoked. So O, N and whether O stays
//! valid come from the run's own marks: on the backup Secret, on the cluster Secret, and in the descriptions of the tokens that it
//! issued, which only their owner can write. The claims of the Lease count only if they make the run more careful: a token of the run
//! may have been written to the cluster Secret, or may be about to be revoked.
//!
//! No one can resume the run of a Rancher user who was deleted. On request such a run is discarded: a new one begins with whatever token
//! the cluster Secret holds, and with all checks.

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::run::Run;

use super::ArgocdRancher;
use super::observed::{Name, Observed, RunMark, TokenRef};
use super::record::Record;

/// The record. `None`: nothing was issued, and the backup Secret does not hold the token of the cluster Secret. Or another user began the
/// run, and it is to be discarded.
pub(super) fn recall(seen: &Observed, claimed: &Run<ArgocdRancher>) -> Option<Record> {
    let (details, backup) = (seen.secret.details(), seen.backup.as_ref());
    let has_issued = seen.secret.mark().is_some() || !seen.issued.is_empty();
    let held = seen.secret.held();
    let has_begun = held.is_some() && backup.is_some_and(|backup| backup.old.as_ref() == held);
    // A rollback without anything to restore has ended.
    if !has_issued && !has_begun && claimed.direction == Direction::Forward {
        return None;
    }
    let users = [backup.map(|backup| &backup.user), details.map(|details| &details.user)];
    let user = users.into_iter().flatten().find(|user| !user.is_empty());
    let user = user.unwrap_or(&seen.user);
    if seen.discard && *user != seen.user {
        return None;
    }
    Some(Record {
        user: user.clone(),
        old: old(seen),
        old_worked: seen.old_accepted != Acceptance::Rejected,
        keep_old: seen.keep_old || is_kept(seen),
        new: new(seen),
        used_before: details.and_then(|details| details.used_before.clone()),
        placed: placed(seen, claimed),
        revoked: issued_by_run(seen, &claimed.record.revoked),
    })
}

/// A run rolls forward only if its mark on the cluster Secret says so. Otherwise it turns again, if O still cannot be restored.
pub(super) fn direction(seen: &Observed, claimed: Direction) -> Direction {
    let marked = seen.secret.mark().map(|mark| mark.direction);
    match claimed {
        Direction::RollForward if marked != Some(Direction::RollForward) => Direction::Rollback,
        _ => claimed,
    }
}

/// O: by the mark on the cluster Secret, by the marks of the tokens that replace it, or by the backup Secret. Without any of these
/// nothing was issued, and O is the token in the cluster Secret.
fn old(seen: &Observed) -> TokenRef {
    let held = seen.secret.held();
    let backup = seen.backup.as_ref().and_then(|backup| backup.old.as_ref());
    if let Some(details) = seen.secret.details() {
        return details.old.clone();
    }
    let replaced = seen.issued.values().find_map(|issued| issued.replaces.as_ref());
    let token = if let Some(name) = replaced {
        let mut known = [held, backup].into_iter().flatten();
        known.find(|token| token.name.as_ref() == Some(name))
    } else if seen.issued.is_empty() {
        held
    } else {
        backup.or(held.filter(|held| !is_issued(seen, held)))
    };
    token.cloned().unwrap_or_else(|| TokenRef {
        name: replaced.cloned(),
        // The value is lost: no value has this fingerprint.
        value: Fingerprint::of(""),
    })
}

/// O stays valid if any mark says so or cannot be read, or if no mark says that it may be revoked.
fn is_kept(seen: &Observed) -> bool {
    let on_secret = |mark: &RunMark| mark.details.as_ref().is_none_or(|details| details.keep_old);
    let marks = [
        seen.secret.mark().map(on_secret),
        seen.backup.as_ref().map(|backup| backup.keep_old),
    ];
    let may_be_revoked = marks.contains(&Some(false)) || seen.issued.values().any(|issued| issued.replaces.is_some());
    marks.contains(&Some(true)) || !may_be_revoked
}

/// N: the token of this run that is in the backup Secret, or that the cluster Secret holds.
fn new(seen: &Observed) -> Option<TokenRef> {
    let backup = seen.backup.as_ref().and_then(|backup| backup.new.as_ref());
    let mut known = [backup, seen.secret.held()].into_iter().flatten();
    known.find(|token| is_issued(seen, token)).cloned()
}

fn is_issued(seen: &Observed, token: &TokenRef) -> bool {
    let details = seen.secret.details();
    let was_placed = |name: &Name| details.is_some_and(|details| details.placed.contains(name));
    let is = |name: &Name| seen.issued.contains_key(name) || was_placed(name);
    token.name.as_ref().is_some_and(is)
}

/// From *place* on, any token of the run may have been written to the cluster Secret. In a rollback this is true regardless of the
/// Lease, because a former holder of the lock may still be about to write one.
fn placed(seen: &Observed, claimed: &Run<ArgocdRancher>) -> BTreeSet<Name> {
    if seen.secret.mark().is_none() && claimed.phase < Phase::Place && claimed.direction == Direction::Forward {
        return issued_by_run(seen, &claimed.record.placed);
    }
    let marked = seen.secret.details().into_iter().flat_map(|details| &details.placed);
    seen.issued.keys().chain(marked).cloned().collect()
}

fn issued_by_run(seen: &Observed, names: &BTreeSet<Name>) -> BTreeSet<Name> {
    let issued = |name: &&Name| seen.issued.contains_key::<Name>(name);
    names.iter().filter(issued).cloned().collect()
}
