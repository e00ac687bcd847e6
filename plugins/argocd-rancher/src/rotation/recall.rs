//! What the objects say of a run that is resumed.
//!
//! Whoever may write Leases and nothing else must not be able to have a token made, delivered or revoked. So O, N and what is
//! to become of O come from the run's own marks: the backup Secret, the cluster Secret, and the descriptions of the tokens that
//! it made, which nobody but their owner can write. Of what the Lease claims only that counts which makes the run more careful:
//! a token that the run has made may have been given to Argo CD, or may be about to be deleted.

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use engine::phase::{Goal, Phase};
use engine::protocol::Run;

use super::ArgocdRancher;
use super::view::{Answer, Known, Leg, Name, Notes, View};

/// See the module. `None`: nothing was made, and what the cluster Secret holds is not what this run began with.
pub(super) fn recall(view: &View, claimed: &Run<ArgocdRancher>) -> Option<Notes> {
    let (mark, parked) = (view.target.mark(), view.parked.as_ref());
    let has_made = mark.is_some() || !view.minted.is_empty();
    let held = view.target.held();
    let has_begun = held.is_some() && parked.is_some_and(|parked| parked.old.as_ref() == held);
    if !has_made && !has_begun && claimed.goal == Goal::Forward {
        return None;
    }
    let users = [parked.map(|parked| &parked.user), mark.map(|mark| &mark.user)];
    let user = users.into_iter().flatten().find(|user| !user.is_empty());
    Some(Notes {
        user: user.unwrap_or(&view.user).clone(),
        old: old(view),
        old_worked: view.old_answer != Answer::Refused,
        keep_old: view.keep_old || is_kept(view),
        new: new(view),
        used_before: mark.and_then(|mark| mark.used_before.clone()),
        placed: placed(view, claimed),
        given_up: made_by_run(view, &claimed.notes.given_up),
        kept: mark.is_some_and(|mark| mark.leg == Leg::Stay),
    })
}

/// O: by the mark on the cluster Secret, by those of the tokens that take its place, or by the backup Secret. Where there are
/// none of these, nothing was made, and it is what the cluster Secret holds.
fn old(view: &View) -> Known {
    let held = view.target.held();
    let parked = view.parked.as_ref().and_then(|parked| parked.old.as_ref());
    if let Some(old) = view.target.mark().and_then(|mark| mark.old.as_ref()) {
        return old.clone();
    }
    let replaced = view.minted.values().find_map(|minted| minted.replaces.as_ref());
    if let Some(name) = replaced {
        let known = [held, parked]
            .into_iter()
            .flatten()
            .find(|known| known.name.as_ref() == Some(name));
        return known.cloned().unwrap_or_else(|| Known {
            name: Some(name.clone()),
            value: lost(),
        });
    }
    let known = if view.minted.is_empty() {
        held
    } else {
        parked.or(held.filter(|held| !is_made(view, held)))
    };
    known.cloned().unwrap_or_else(|| Known {
        name: None,
        value: lost(),
    })
}

/// Of a value that nobody knows any more: no value has it.
fn lost() -> Fingerprint {
    Fingerprint::of("")
}

/// O stays valid if any mark says so; without a mark that it may go too.
fn is_kept(view: &View) -> bool {
    let (mark, parked) = (view.target.mark(), view.parked.as_ref());
    let says_keep = mark.is_some_and(|mark| mark.keep_old) || parked.is_some_and(|parked| parked.keep_old);
    let may_go = mark.is_some_and(|mark| !mark.keep_old)
        || parked.is_some_and(|parked| !parked.keep_old)
        || view.minted.values().any(|minted| minted.replaces.is_some());
    says_keep || !may_go
}

/// N: the token of this run that is in the backup Secret, or that the cluster Secret holds.
fn new(view: &View) -> Option<Known> {
    let parked = view.parked.as_ref().and_then(|parked| parked.new.as_ref());
    let ours = [parked, view.target.held()].into_iter().flatten();
    ours.into_iter().find(|known| is_made(view, known)).cloned()
}

fn is_made(view: &View, known: &Known) -> bool {
    let was_placed = |name: &Name| view.target.mark().is_some_and(|mark| mark.placed.contains(name));
    let is = |name: &Name| view.minted.contains_key(name) || was_placed(name);
    known.name.as_ref().is_some_and(is)
}

/// From *place* on any token of the run may have been put into the cluster Secret; and on the way back, whatever the Lease says,
/// a former holder may still be about to do so.
fn placed(view: &View, claimed: &Run<ArgocdRancher>) -> BTreeSet<Name> {
    let mark = view.target.mark();
    if mark.is_none() && claimed.phase < Phase::Place && claimed.goal == Goal::Forward {
        return made_by_run(view, &claimed.notes.placed);
    }
    let marked = mark.iter().flat_map(|mark| &mark.placed);
    view.minted.keys().chain(marked).cloned().collect()
}

fn made_by_run(view: &View, names: &BTreeSet<Name>) -> BTreeSet<Name> {
    let made = |name: &&Name| view.minted.contains_key::<Name>(name);
    names.iter().filter(made).cloned().collect()
}
