//! The five stages. Each returns its justification, or the one step that has to come first. The engine walks them from the top
//! at every look; [`super`] says why that loses no cluster.
//!
//! T is the token that the run ends on: N, or O in a rollback.

#![expect(
    clippy::result_large_err,
    reason = "a stage returns once per look, and the step that it returns is sent at once"
)]

use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Next, Proof, Rotation as _, Timer};

use super::ArgocdRancher;
use super::observed::{ClusterSync, Issued, Name, SecretState, TokenRef};
use super::record::Record;
use super::step::{Step, Which};

type Look<'look> = engine::rotation::Look<'look, ArgocdRancher>;
type Stage<T> = Result<T, Next<ArgocdRancher>>;

/// Every way in which *make* is passed.
#[derive(Debug)]
pub enum Made {
    /// T is valid, its value is backed up, and Rancher and the cluster accept it, or it is in use already. It may be written to
    /// the cluster Secret.
    Token(Which, TokenRef),
    /// The cluster Secret is missing or holds a token of someone else. Nothing may be written to it.
    NotOurs,
    /// A rollback, O cannot be restored, and no new token was ever written to the cluster Secret or could be. Nothing is written
    /// to it. Every new token may be revoked.
    NothingToKeep,
}

/// Every way in which *place* is passed.
#[derive(Debug)]
pub enum Placed {
    /// The cluster Secret holds T, and no write of an earlier direction fits it any more.
    Token(Which, TokenRef),
    /// As in [`Made::NotOurs`].
    NotOurs,
    /// As in [`Made::NothingToKeep`].
    NothingToKeep,
}

/// Every way in which *prove* is passed.
#[derive(Debug)]
pub enum Proven {
    /// Argo CD works with this N, and has no copy of another token left. O may be revoked, and every new token but this one.
    New(TokenRef),
    /// The same, where rollback was no longer possible. Every new token but this one may be revoked. O stays as it is.
    RolledForward(TokenRef),
    /// The cluster Secret holds O, and Argo CD has no copy of a new token left. Every new token may be revoked.
    Old,
    /// The cluster Secret holds nothing of this run, and Argo CD has no copy of a token of it left. Every new token may be
    /// revoked, but for a valid N where the run goes forward. O stays as it is.
    NotOurs(Option<TokenRef>),
    /// As in [`Made::NothingToKeep`]: every new token may be revoked.
    NothingToKeep,
}

/// Every way in which *retire* is passed.
#[derive(Debug)]
pub enum Retired {
    /// O is revoked: it has to be rejected.
    Old,
    /// Every new token is revoked: N has to be rejected.
    New,
    /// Only new tokens that were never in use for long are revoked: nothing has to be checked.
    Leftovers,
}

/// What must hold in every direction.
///
/// | if | then |
/// |---|---|
/// | another Rancher user began the run | refuse: only the owner of a token can delete it |
/// | the cluster Secret does not point to the given Rancher | refuse |
/// | the rotation goes forward, can be rolled back or still has to revoke O, and the cluster Secret is missing or holds a token of someone else | refuse |
pub(super) fn guard(look: Look<'_>) -> Stage<()> {
    let (seen, record) = (look.seen, look.record());
    if seen.user != record.user {
        let (user, me) = (&record.user, &seen.user);
        return Err(Next::refuse(
            format!("the rotation was begun by user {user} of Rancher, and this command runs as {me}"),
            format!(
                "only the owner of a token can delete it: log in to Rancher as user {user}; if that user does not exist any more, \
                 rotate with --force=journal, which begins a new rotation"
            ),
        ));
    }
    if !seen.same_rancher {
        return Err(Next::refuse(
            "the cluster Secret does not point to the given Rancher",
            "give the Rancher of the cluster Secret with --rancher-context or --rancher-url",
        ));
    }
    let can_be_undone = look.run.phase.can_be_undone();
    let old_is_to_go = seen.old.is_some() && !record.keep_old;
    if holds_ours(look) || look.direction() != Direction::Forward || !can_be_undone && !old_is_to_go {
        return Ok(());
    }
    let reason = match &seen.secret {
        SecretState::Missing => "the cluster Secret is missing",
        SecretState::Holds { .. } => "another writer has put a different token into the cluster Secret",
    };
    let hint = if can_be_undone {
        "a rollback leaves the Secret as it is and revokes the new token".to_owned()
    } else {
        let old = &record.old;
        format!("make sure that nothing else needs {old} and delete it in Rancher; then run the same command again")
    };
    Err(Next::refuse(reason, hint))
}

/// T exists, its value is in two places, and it is accepted.
///
/// | if | then |
/// |---|---|
/// | the cluster Secret is missing or holds a token of someone else | passed: nothing is written to it |
/// | the cluster Secret holds O, which may have to be restored, and the backup Secret does not | back up O |
/// | T is N: there is a valid new token of known value, and it is not backed up | back it up; from here on it is N |
/// | T is N: there is none, but one whose value was lost before it was ever placed | revoke that one |
/// | T is N: there is none | issue one, for this cluster only |
/// | T is O, and O is not valid or its value is lost; no new token was placed or can be | passed: nothing is left to keep |
/// | T is O, and O is not valid or its value is lost; a new token was placed or can be | roll forward: turn to N |
/// | T is not in use yet, and Rancher or the cluster does not accept it | wait; roll back after `--timeout` |
pub(super) fn make(look: Look<'_>) -> Stage<Made> {
    if !holds_ours(look) {
        return Ok(Made::NotOurs);
    }
    back_up_old(look)?;
    let (which, token) = match look.direction() {
        Direction::Forward | Direction::RollForward => (Which::New, new_token(look)?),
        Direction::Rollback if can_be_restored(look) => (Which::Old, &look.record().old),
        Direction::Rollback if look.record().placed.is_empty() && usable_new(look).is_none() => {
            return Ok(Made::NothingToKeep);
        }
        Direction::Rollback => {
            return Err(Next::Turn {
                to: Direction::RollForward,
                reason: format!("{} is not valid any more, or its value is lost", look.record().old),
            });
        }
    };
    if !look.seen.secret.holds(token.value) {
        accepted(look, which, token)?;
    }
    Ok(Made::Token(which, token.clone()))
}

/// The cluster Secret holds T.
///
/// | if | then |
/// |---|---|
/// | *make* was passed without a token to write | passed |
/// | the cluster Secret holds T, but may still fit a late write of the direction before | fence it |
/// | T is N, Argo CD watches the cluster, and Rancher may not have recorded the last call of this command with N | wait |
/// | the cluster Secret holds another token of this run | write T to it: one patch of `data.config`, on the condition that the Secret is unchanged. The grace time starts over. If another writer has overwritten T for the third time, roll back |
pub(super) fn place(look: Look<'_>, made: &Proof<'_, Made>) -> Stage<Placed> {
    let (seen, record) = (look.seen, look.record());
    let (which, token) = match &**made {
        Made::Token(which, token) => (*which, token),
        Made::NotOurs => return Ok(Placed::NotOurs),
        Made::NothingToKeep => return Ok(Placed::NothingToKeep),
    };
    let marked = seen.secret.mark().map_or(Direction::Forward, |mark| mark.direction);
    if seen.secret.holds(token.value) {
        return if marked >= look.direction() || record.placed.is_empty() {
            Ok(Placed::Token(which, token.clone()))
        } else {
            Err(Next::step(Step::Fence))
        };
    }
    if which == Which::New && seen.watched && !seen.own_calls_recorded {
        return Err(look.wait(format!("Rancher to record the calls of this command with {token}")));
    }
    let step = Next::step(Step::Place {
        which,
        token: token.clone(),
        used: last_use(look),
    });
    let step = step.starting(Timer::Proof).stopping(Timer::Quiet);
    let was_there = match which {
        Which::Old => marked == Direction::Rollback,
        Which::New => token.name.as_ref().is_some_and(|name| record.placed.contains(name)),
    };
    Err(match seen.secret.other_writer() {
        Some(writer) if was_there => look.reapply(step, writer),
        _ => step,
    })
}

/// Argo CD works with what the cluster Secret holds, and has nothing else left. In the grace time Argo CD reads T, so that it has
/// no copy of the other token that it could write back, and what it began with that one ends.
///
/// | if | then |
/// |---|---|
/// | *make* was passed since nothing is left to keep | passed |
/// | the grace time has passed, and Rancher or the cluster does not accept T any more | wait |
/// | a rollback, and no new token was ever placed; or nothing is left to revoke, and only *confirm* is left | passed |
/// | T is N, an Application is deployed to the cluster, and Argo CD's sync of it fails | roll back; wait, where that is not possible |
/// | the same, and Argo CD has not read the whole cluster with N, or Rancher has not recorded a use of N | wait; roll back after `--timeout` |
/// | less than `--grace` has passed since T was written to the cluster Secret | wait |
pub(super) fn prove(look: Look<'_>, placed: &Proof<'_, Placed>) -> Stage<Proven> {
    let in_use = match &**placed {
        Placed::Token(which, token) => Some((*which, token)),
        Placed::NotOurs => None,
        Placed::NothingToKeep => return Ok(Proven::NothingToKeep),
    };
    if let Some((which, token)) = in_use
        && look.run.passed(Timer::Quiet)
    {
        accepted(look, which, token)?;
    }
    let never_placed = look.direction().is_rollback() && look.record().placed.is_empty();
    if !never_placed && takes_away(look) {
        if let Some((Which::New, token)) = in_use
            && look.seen.watched
        {
            used_by_argocd(look, token)?;
        }
        if !look.is_quiet() {
            let what = "Argo CD to drop every stale copy that it could write back (--grace)";
            return Err(Next::wait(what).starting(Timer::Quiet));
        }
    }
    Ok(match (in_use, look.direction()) {
        (Some((Which::Old, _)), _) => Proven::Old,
        (Some((Which::New, token)), Direction::Forward) => Proven::New(token.clone()),
        (Some((Which::New, token)), _) => Proven::RolledForward(token.clone()),
        (None, Direction::Rollback) => Proven::NotOurs(None),
        (None, _) => Proven::NotOurs(good_new(look).cloned()),
    })
}

/// The other token is revoked. The only stage that takes anything away from Argo CD.
///
/// | if | then |
/// |---|---|
/// | N is proven, O is to go and is valid, and something else needs it | refuse |
/// | N is proven, and O is to go and is valid | revoke O |
/// | a new token is valid that the run does not end on | revoke it |
pub(super) fn retire(look: Look<'_>, proven: &Proof<'_, Proven>) -> Stage<Retired> {
    match &**proven {
        Proven::New(stays) => {
            revoke_old(look)?;
            revoke_others(look, stays)?;
        }
        Proven::RolledForward(stays) | Proven::NotOurs(Some(stays)) => revoke_others(look, stays)?,
        Proven::Old | Proven::NotOurs(None) | Proven::NothingToKeep => revoke_new(look, |_| true)?,
    }
    Ok(match look.direction() {
        Direction::Forward if !look.record().keep_old => Retired::Old,
        Direction::Rollback => Retired::New,
        Direction::Forward | Direction::RollForward => Retired::Leftovers,
    })
}

/// The other token is rejected, and nothing is left over.
///
/// | if | then |
/// |---|---|
/// | Rancher accepts the revoked token, or a call with it has no clear result | wait |
/// | there is a backup Secret | delete it |
pub(super) fn confirm(look: Look<'_>, retired: &Proof<'_, Retired>) -> Stage<()> {
    let (seen, record) = (look.seen, look.record());
    let revoked = match **retired {
        Retired::Old => Some((&record.old, &seen.old_accepted)),
        Retired::New => record.new.as_ref().map(|new| (new, &seen.new_accepted)),
        Retired::Leftovers => None,
    };
    if let Some((token, accepted)) = revoked
        && accepted.may_be_accepted()
    {
        return Err(look.wait(format!("Rancher to reject {token}")));
    }
    if seen.backup.is_some() {
        return Err(Next::step(Step::DeleteBackup));
    }
    Ok(())
}

/// See [`engine::rotation::Rotation::is_restorable`].
pub(super) fn is_restorable(look: Look<'_>) -> bool {
    look.record().old_worked && can_be_restored(look)
}

/// See [`engine::rotation::Rotation::takes_away`]: not where an earlier process has done everything but the last check.
pub(super) fn takes_away(look: Look<'_>) -> bool {
    let (seen, record) = (look.seen, look.record());
    let stays = good_new(look).filter(|_| !look.direction().is_rollback());
    let stays = stays.and_then(|new| new.name.as_ref());
    let revokes_old = look.direction() == Direction::Forward && !record.keep_old && seen.old.is_some();
    look.run.phase < Phase::Confirm
        || seen.backup.is_some()
        || revokes_old
        || seen.issued.keys().any(|name| Some(name) != stays)
}

/// Whether the cluster Secret holds O or a token that this run has issued.
fn holds_ours(look: Look<'_>) -> bool {
    let held = look.seen.secret.held();
    held.is_some_and(|held| look.record().is_of_this_run(held, &look.seen.issued))
}

/// N, if it is valid for long enough, was never about to be revoked, and its value is known.
fn good_new(look: Look<'_>) -> Option<&TokenRef> {
    let new = look.record().new.as_ref()?;
    let (name, issued) = look.seen.issued.get_key_value(new.name.as_ref()?)?;
    (is_usable(look, name, issued) && issued.value == Some(new.value)).then_some(new)
}

/// A new token that could become N.
fn usable_new(look: Look<'_>) -> Option<TokenRef> {
    let usable = |(name, issued): (&Name, &Issued)| {
        let (name, value) = (
            Some(name.clone()).filter(|name| is_usable(look, name, issued))?,
            issued.value?,
        );
        Some(TokenRef {
            name: Some(name),
            value,
        })
    };
    look.seen.issued.iter().find_map(usable)
}

fn is_usable(look: Look<'_>, name: &Name, issued: &Issued) -> bool {
    issued.validity == Validity::Valid && !look.record().revoked.contains(name)
}

fn is_backed_up(look: Look<'_>, which: Which, token: &TokenRef) -> bool {
    let backup = look.seen.backup.as_ref();
    let there = backup.and_then(|backup| match which {
        Which::Old => backup.old.as_ref(),
        Which::New => backup.new.as_ref(),
    });
    there.is_some_and(|there| there.value == token.value)
}

/// Where O is gone, or no new token was ever to replace it, it need not be kept.
fn back_up_old(look: Look<'_>) -> Stage<()> {
    let (seen, record, phase) = (look.seen, look.record(), look.run.phase);
    let may_be_needed = match look.direction() {
        Direction::Forward => phase.can_be_undone() || seen.old.is_some(),
        Direction::Rollback => !record.placed.is_empty() && phase < Phase::Confirm,
        Direction::RollForward => false,
    };
    if may_be_needed && seen.secret.holds(record.old.value) && !is_backed_up(look, Which::Old, &record.old) {
        return Err(back_up(Which::Old, record.old.clone()));
    }
    Ok(())
}

fn new_token(look: Look<'_>) -> Stage<&TokenRef> {
    let (seen, record) = (look.seen, look.record());
    if let Some(new) = good_new(look) {
        // At the end the backup Secret is gone, and the cluster Secret has the value. The phase alone does not say that: it comes from
        // the Lease, and O may still be valid.
        let is_at_end = !takes_away(look) && seen.secret.holds(new.value);
        return if is_at_end || is_backed_up(look, Which::New, new) {
            Ok(new)
        } else {
            Err(back_up(Which::New, new.clone()))
        };
    }
    if let Some(new) = usable_new(look) {
        return Err(back_up(Which::New, new));
    }
    // The process that issued it was killed before it could back it up. One that was placed may be in use.
    let is_lost = |(name, issued): &(&Name, &Issued)| issued.value.is_none() && !record.placed.contains(*name);
    if let Some((name, _)) = seen.issued.iter().find(is_lost) {
        return Err(revoke(Which::New, name));
    }
    let replaces = record.old.name.clone().filter(|_| !record.keep_old);
    let issue = Next::step(Step::Issue { replaces });
    Err(issue.starting(Timer::Proof).stopping(Timer::Quiet))
}

/// Rancher's list says what is deleted before the last of its servers rejects it.
fn can_be_restored(look: Look<'_>) -> bool {
    let (seen, old) = (look.seen, &look.record().old);
    let is_known = seen.secret.holds(old.value) || is_backed_up(look, Which::Old, old);
    let is_valid = match seen.old {
        Some(validity) => validity == Validity::Valid,
        // A token of someone else, which is to stay: only its owner can see it.
        None => look.record().keep_old,
    };
    is_known && is_valid && seen.old_accepted != Acceptance::Rejected
}

/// Rancher and the cluster accept T. It is not called with while Argo CD's use of it is waited for.
fn accepted(look: Look<'_>, which: Which, token: &TokenRef) -> Stage<()> {
    let acceptance = match which {
        Which::Old => &look.seen.old_accepted,
        Which::New => &look.seen.new_accepted,
    };
    if acceptance.is_accepted() {
        return Ok(());
    }
    Err(look.wait_since(format!("Rancher to accept {token}"), acceptance.reason()))
}

fn last_use(look: Look<'_>) -> Option<String> {
    let name = good_new(look)?.name.as_ref()?;
    look.seen.issued.get(name)?.used.clone()
}

/// Argo CD itself says that it has read the whole cluster since N was written to the Secret, and Rancher that N was used. Each
/// alone may have another cause: anyone's call moves the last use, and a sync that began with O may end after that.
fn used_by_argocd(look: Look<'_>, new: &TokenRef) -> Stage<()> {
    let before = &look.record().used_before;
    let is_used = before.is_none() || last_use(look) != *before;
    let has_failed = look.seen.sync == ClusterSync::Failed;
    if has_failed && look.can_turn_back() {
        return Err(Next::Turn {
            to: Direction::Rollback,
            reason: format!("Argo CD's sync of the cluster fails with {new}"),
        });
    }
    let is_proven = is_used && look.seen.sync == ClusterSync::Since;
    let was_proven = ArgocdRancher::is_proven(look.run);
    if is_proven || was_proven && !(has_failed && look.seen.old.is_some()) {
        return Ok(());
    }
    let why = match &look.seen.sync {
        ClusterSync::Unknown(why) => why,
        ClusterSync::Failed => "its last sync of the cluster failed",
        ClusterSync::Before | ClusterSync::Since => "",
    };
    Err(look.wait_since(format!("Argo CD to use {new}"), why))
}

fn revoke_old(look: Look<'_>) -> Stage<()> {
    let Record { old, keep_old, .. } = look.record();
    let is_to_go = !keep_old && look.seen.old.is_some();
    let Some(name) = old.name.as_ref().filter(|_| is_to_go) else {
        return Ok(());
    };
    if let Some(by) = &look.seen.old_needed_by {
        return Err(Next::refuse(
            format!("{name} must not be revoked: {by}"),
            "run the command again with --keep-old to leave it valid, or undo the rotation with rollback",
        ));
    }
    Err(revoke(Which::Old, name))
}

fn revoke_others(look: Look<'_>, stays: &TokenRef) -> Stage<()> {
    revoke_new(look, |name| stays.name.as_ref().is_some_and(|stays| stays != name))
}

fn revoke_new(look: Look<'_>, may_go: impl Fn(&Name) -> bool) -> Stage<()> {
    let leftover = look.seen.issued.keys().find(|name| may_go(name));
    leftover.map_or(Ok(()), |name| Err(revoke(Which::New, name)))
}

fn back_up(which: Which, token: TokenRef) -> Next<ArgocdRancher> {
    Next::step(Step::BackUp { which, token })
}

fn revoke(which: Which, name: &Name) -> Next<ArgocdRancher> {
    let name = name.clone();
    Next::step(Step::Revoke { which, name })
}
