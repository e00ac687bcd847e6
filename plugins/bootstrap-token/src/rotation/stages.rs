//! The stages of the rotation. **All of its safety is in this file and in the abstraction of what is read.**
//!
//! T is the token that the run ends on, X the other one: forward T is N and X is O, in a rollback T is O and X is N. A run that
//! rolls forward ends on N and revokes nothing.

#![expect(
    clippy::result_large_err,
    reason = "a stage returns once per look, and the step that it returns is sent at once"
)]

use engine::credential::Validity;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Proof, Timer};
use engine::run::Run;

use super::observed::{Content, Delivery, Id, Observed, SecretState, TokenState};
use super::record::{Place, Record, TokenRef};
use super::step::{Step, Which};
use super::{BootstrapToken, blockers};

type Look<'look> = engine::rotation::Look<'look, BootstrapToken>;
type Next = engine::rotation::Next<BootstrapToken>;

/// How *make* is passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// N exists, is valid and accepted. It may be delivered.
    New(TokenRef),
    /// O still exists, is valid and accepted. It may be delivered.
    Old(TokenRef),
    /// A rollback, and O has expired or is gone, but N does not exist either and the delivery does not name it. Nothing may be
    /// delivered and nothing may be revoked.
    Nothing,
}

/// How *place* is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The delivery holds T. X may be revoked once T is proven.
    Delivered,
    /// The rotation delivers nothing. X may be revoked once T is proven.
    NoDelivery,
    /// The delivery is gone or holds neither O nor N: it does not name what is revoked. X may be revoked.
    NotOurs,
    /// There is no token to deliver. Nothing may be revoked.
    Nothing,
}

/// How *prove* is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// N works where it is read, and every node that has read O has had the whole overlap. O may be revoked.
    New,
    /// O works where it is read, and every node that has read N has had the whole overlap. N may be revoked.
    Old,
    /// The run rolls forward: N may be the only valid token. Nothing may be revoked.
    RolledForward,
    /// There is no token to prove. Nothing may be revoked.
    Nothing,
}

/// How *retire* is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// O's Secret is gone, or holds another token. O must be rejected.
    Old,
    /// N's Secret is gone, or never existed. N must be rejected.
    New,
    /// Nothing was revoked, or the Secret with N's id is not of this run. Nothing has to be checked.
    Nothing,
}

/// Everything that speaks against a rotation, else what it starts from.
pub(super) fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
    let id = &seen.id;
    let one = |blocker| Err(vec![blocker]);
    if let Some(blocker) = wrong_cluster_or_login(seen, Some(id)) {
        return one(blocker);
    }
    if !seen.blockers.is_empty() {
        return Err(seen.blockers.clone());
    }
    let Some(secret) = &seen.old.secret else {
        return one(blockers::not_found(id));
    };
    let Some(value) = secret.value else {
        return one(blockers::no_value(id));
    };
    if secret.validity == Validity::Invalid {
        return one(blockers::not_valid(
            id,
            &["it has expired, or breaks a rule".to_owned()],
        ));
    }
    if !seen.old.acceptance.is_accepted() {
        return one(blockers::not_accepted(id));
    }
    if let Some(place) = &seen.place {
        match &seen.delivery {
            Delivery::Holds { content, .. } if content.value == value => {}
            Delivery::Holds { content, .. } => {
                return one(blockers::delivery_differs(&place.at, id, content.id.as_ref()));
            }
            Delivery::None | Delivery::Missing => return one(blockers::delivery_missing(&place.at)),
            Delivery::OtherHost => return one(blockers::delivery_elsewhere(place)),
        }
    }
    let id = id.clone();
    Ok(Record {
        old: TokenRef { id, value },
        new: None,
        place: seen.place.clone(),
        abandoned: None,
        delivered: false,
        last_delivered: None,
    })
}

/// Nothing is written for another cluster, with the login that would be revoked, or while the delivery is out of reach.
///
/// | if | then |
/// |---|---|
/// | an API server or the delivery belongs to another cluster | refuse |
/// | the command logs in with X | refuse |
/// | `--deliver` names another place than the one that the run delivers to | refuse |
/// | the delivery is a file on another host | refuse; with `--force=target` abandon it, and let the overlap start again |
/// | a rollback finds neither O in the delivery nor anything that shows what was delivered there | refuse |
pub(super) fn guard(look: Look<'_>) -> Result<(), Next> {
    let (seen, record) = (look.seen, look.record());
    if let Some(blocker) = wrong_cluster_or_login(seen, to_revoke(look)) {
        return Err(Next::Refuse(vec![blocker]));
    }
    if seen.place.is_some() && seen.place != record.place {
        return Err(another_place(seen, record));
    }
    let Some(place) = &record.place else { return Ok(()) };
    if seen.delivery == Delivery::OtherHost {
        return Err(out_of_reach(look, place));
    }
    if look.direction().is_rollback() && record.delivered && record.new.is_none() {
        return known_delivery(seen, record, place);
    }
    Ok(())
}

/// `to_revoke`: the id of the token that would be revoked.
fn wrong_cluster_or_login(seen: &Observed, to_revoke: Option<&Id>) -> Option<Blocker> {
    let own = || to_revoke.filter(|id| seen.login.as_ref() == Some(id));
    seen.another_cluster.clone().or_else(|| own().map(blockers::own_login))
}

fn another_place(seen: &Observed, record: &Record) -> Next {
    let words = |place: &Option<Place>| {
        place
            .as_ref()
            .map_or("nothing".to_owned(), |place| format!("to {place}"))
    };
    let (delivers, asked) = (words(&record.place), words(&seen.place));
    Next::refuse(
        format!("the rotation in progress delivers {delivers}, not {asked}"),
        "run the same command without --deliver",
    )
}

fn out_of_reach(look: Look<'_>, place: &Place) -> Next {
    let record = look.record();
    if !look.seen.lost {
        let mut blocker = blockers::delivery_elsewhere(place);
        blocker.hint += "; if that host is lost for good, add --force=target: the file stays as it is, and nodes that read it may \
                         find a revoked token";
        return Next::Refuse(vec![blocker]);
    }
    let revoked = if look.direction().is_rollback() {
        new_id(look).filter(|_| record.delivered)
    } else {
        Some(&record.old.id)
    };
    let abandon = Step::Abandon {
        place: place.clone(),
        revoked: revoked.cloned(),
    };
    // Nodes that have read it up to now get the whole overlap.
    Next::step(abandon).stopping(Timer::Quiet)
}

/// A rollback that another process began: the new token is gone, and its origin with it.
fn known_delivery(seen: &Observed, record: &Record, place: &Place) -> Result<(), Next> {
    let what = match &seen.delivery {
        Delivery::Holds { content, .. } if content.value != record.old.value => "holds another token",
        Delivery::Missing => "is gone",
        _ => return Ok(()),
    };
    Err(Next::refuse(
        format!(
            "{} {what}, and nothing shows what the rotation has delivered there",
            place.at
        ),
        "write a valid token there and run the same command again, or end the rollback with --force=journal",
    ))
}

/// T exists, is valid for longer than a write can be in flight, and is accepted.
///
/// | if | then |
/// |---|---|
/// | a rollback, O is gone or expires within five minutes, and N exists or is named by the delivery | turn: roll forward |
/// | a rollback, O is gone or expires within five minutes, and there is no N | pass: nothing may be revoked |
/// | a rollback, and the API server does not accept O | wait |
/// | N has no Secret | create it |
/// | the Secret with N's id is not of this run | create N with another id |
/// | N's Secret has lost its value | delete it |
/// | the run rolls forward, and N's Secret does not carry its mark | fence it |
/// | N expires within five minutes | repair it |
/// | N has expired or breaks a rule | repair it; at the third time turn back |
/// | the API server does not accept N | wait |
/// | the delivery does not name N, and cluster-info is signed with O and not with N | wait, and trigger the signer from time to time |
pub(super) fn make(look: Look<'_>) -> Result<Made, Next> {
    if look.direction().is_rollback() {
        return make_old(look);
    }
    let new = make_new(look)?;
    // A delivery that names N already is better off with a token that is not signed yet than with one that is gone.
    if !delivery_names_new(look) {
        signed(look)?;
    }
    Ok(Made::New(new))
}

fn make_old(look: Look<'_>) -> Result<Made, Next> {
    let old = &look.record().old;
    if !is_restorable(look) {
        return if own_new(look).is_some() || delivery_names_new(look) {
            Err(Next::Turn {
                to: Direction::RollForward,
                reason: format!("bootstrap token {} is gone or expires within five minutes", old.id),
            })
        } else {
            Ok(Made::Nothing)
        };
    }
    accepted(look, &old.id, &look.seen.old)?;
    Ok(Made::Old(old.clone()))
}

fn make_new(look: Look<'_>) -> Result<TokenRef, Next> {
    let seen = &look.seen.new;
    let (Some(id), Some(_)) = (new_id(look), &seen.secret) else {
        return Err(create(look, new_id(look)));
    };
    let Some(secret) = own_new(look) else {
        return Err(create(look, None));
    };
    let id = id.clone();
    let Some(value) = secret.value else {
        return Err(Next::step(Step::DeleteEmpty { id }));
    };
    if look.direction() == Direction::RollForward && secret.mark != Some(Direction::RollForward) {
        return Err(Next::step(Step::FenceToken { id }));
    }
    match secret.validity {
        Validity::Valid => {}
        // It was never rejected, so the overlap is not restarted: it may be longer than the time to live.
        Validity::Expiring => return Err(Next::step(Step::Repair { id })),
        Validity::Invalid => return Err(reapply(look, renewed(Step::Repair { id }), seen.writer.as_deref())),
    }
    accepted(look, &id, seen)?;
    Ok(TokenRef { id, value })
}

fn create(look: Look<'_>, id: Option<&Id>) -> Next {
    renewed(Step::Create {
        id: id.cloned(),
        like: look.record().old.id.clone(),
    })
}

/// A step after which N must be proven anew.
fn renewed(step: Step) -> Next {
    Next::step(step).starting(Timer::Proof).stopping(Timer::Quiet)
}

fn accepted(look: Look<'_>, id: &Id, token: &TokenState) -> Result<(), Next> {
    if token.acceptance.is_accepted() {
        Ok(())
    } else {
        Err(look.wait(format!("the API server to accept {id}")))
    }
}

/// Only a signature shows that the signer works, so O's is the measure. Where the run cannot turn back any more, a signer that
/// is off must not keep N from where it is needed.
fn signed(look: Look<'_>) -> Result<(), Next> {
    let (seen, old) = (look.seen, &look.record().old);
    let signer_works = seen.old.signed && seen.old.works(old.value);
    let undoable = look.direction() == Direction::Forward && look.run.phase.can_be_undone();
    let Some(id) = new_id(look).filter(|_| undoable && signer_works && !seen.new.signed) else {
        return Ok(());
    };
    Err(match look.wait(format!("cluster-info to be signed with {id}")) {
        Next::Wait(_) if look.run.passed(Timer::Retry) => {
            Next::step(Step::TriggerSigner { id: id.clone() }).starting(Timer::Retry)
        }
        next => next.starting(Timer::Retry),
    })
}

/// The delivery holds T, or what it holds is not ours to replace.
///
/// | if | then |
/// |---|---|
/// | there is no T, or nothing is delivered | pass |
/// | the delivery holds T, but a late write of an earlier direction could match it | fence it |
/// | the delivery holds T | pass |
/// | the delivery holds X or a former value of N | deliver T, and let the overlap start again |
/// | another writer has written X there since T was delivered | deliver T again; at the third time turn back |
/// | the delivery holds neither or is gone, forward, while everything can be undone or O exists | refuse |
/// | the delivery holds neither or is gone | pass: it does not name what is revoked |
pub(super) fn place(look: Look<'_>, made: &Proof<'_, Made>) -> Result<Placed, Next> {
    let (token, which) = match &**made {
        Made::Nothing => return Ok(Placed::Nothing),
        Made::New(token) => (token, Which::New),
        Made::Old(token) => (token, Which::Old),
    };
    let Some(place) = &look.record().place else {
        return Ok(Placed::NoDelivery);
    };
    match &look.seen.delivery {
        Delivery::None => Ok(Placed::NoDelivery),
        Delivery::Holds { content, mark, .. } if content.value == token.value => {
            if place.host.is_some() || *mark >= fenced_from(look) {
                Ok(Placed::Delivered)
            } else {
                Err(Next::step(Step::FenceDelivery { at: place.at.clone() }))
            }
        }
        Delivery::Holds { content, writer, .. } if is_ours(look, content) => {
            Err(deliver(look, token, which, place, content, writer.as_deref()))
        }
        Delivery::Holds { .. } | Delivery::Missing | Delivery::OtherHost => not_ours(look, token, place),
    }
}

/// The mark that a delivery must carry so that no write matches it that was decided on in an earlier direction.
fn fenced_from(look: Look<'_>) -> Option<Direction> {
    match look.direction() {
        Direction::Forward => None,
        Direction::Rollback if !look.record().delivered => None,
        direction => Some(direction),
    }
}

fn deliver(
    look: Look<'_>,
    token: &TokenRef,
    which: Which,
    place: &Place,
    content: &Content,
    writer: Option<&str>,
) -> Next {
    let TokenRef { id, value } = token.clone();
    let at = place.at.clone();
    let deliver = Next::step(Step::Deliver { which, id, value, at }).stopping(Timer::Quiet);
    let record = look.record();
    // Nothing is revoked before T is delivered.
    let revokes = look.direction() != Direction::RollForward && !look.run.phase.can_be_undone();
    let was_delivered = revokes || record.last_delivered == Some(which);
    let names_other = content.value == record.old.value || which == Which::Old;
    if was_delivered && names_other {
        reapply(look, deliver, writer)
    } else {
        deliver
    }
}

fn not_ours(look: Look<'_>, new: &TokenRef, place: &Place) -> Result<Placed, Next> {
    let (seen, old) = (look.seen, &look.record().old);
    let undoable = look.run.phase.can_be_undone();
    if look.direction() != Direction::Forward || !(undoable || seen.old.holds(old.value)) {
        return Ok(Placed::NotOurs);
    }
    let (at, old, new) = (&place.at, &old.id, &new.id);
    let reason = match &seen.delivery {
        Delivery::Holds { .. } => format!("another writer has changed {at}: it holds neither {old} nor {new}"),
        _ => format!("{at} is gone"),
    };
    let otherwise = if undoable {
        "`rollback`, which leaves it as it is".to_owned()
    } else {
        format!("revoke {old}, and run the same command again")
    };
    let valid = if is_restorable(look) { old } else { new };
    let hint = format!("write {valid} there and run the same command again; or {otherwise}");
    Err(Next::refuse(reason, hint))
}

/// T works where it is read, and every node that has read X has had the whole overlap.
///
/// | if | then |
/// |---|---|
/// | there is no T | pass: nothing may be revoked |
/// | the API server does not accept what is read back from the delivery | wait |
/// | forward, and cluster-info is signed with O and not with N | wait, and trigger the signer from time to time |
/// | the run rolls forward | pass: nothing may be revoked |
/// | X exists and a node may have read it, and the overlap has not passed since T was delivered | wait |
pub(super) fn prove(look: Look<'_>, placed: &Proof<'_, Placed>) -> Result<Proven, Next> {
    match **placed {
        Placed::Nothing => return Ok(Proven::Nothing),
        Placed::Delivered => {
            if let Delivery::Holds { acceptance, .. } = &look.seen.delivery
                && !acceptance.is_accepted()
            {
                return Err(look.wait("the API server to accept what was delivered"));
            }
        }
        Placed::NoDelivery | Placed::NotOurs => {}
    }
    signed(look)?;
    if !look.is_quiet() {
        let read = to_revoke(look).map_or_else(String::new, Id::to_string);
        return Err(Next::wait(format!("nodes that have read {read} to join (--overlap)")).starting(Timer::Quiet));
    }
    Ok(match look.direction() {
        Direction::Forward => Proven::New,
        Direction::Rollback => Proven::Old,
        Direction::RollForward => Proven::RolledForward,
    })
}

/// X is revoked. The only stage that takes anything away.
///
/// | if | then |
/// |---|---|
/// | nothing may be revoked | pass |
/// | forward, and O has its Secret | delete it |
/// | another writer has created O again | delete it again, and let the overlap start again |
/// | a rollback, and N has its Secret | delete it |
pub(super) fn retire(look: Look<'_>, proven: &Proof<'_, Proven>) -> Result<Retired, Next> {
    let (old, record) = (&look.seen.old, look.record());
    match **proven {
        Proven::New if old.holds(record.old.value) => {
            let revoke = revoke(Which::Old, &record.old.id);
            Err(if old.returned {
                reapply(look, revoke.stopping(Timer::Quiet), old.writer.as_deref())
            } else {
                revoke
            })
        }
        Proven::New => Ok(Retired::Old),
        Proven::Old => match new_id(look).filter(|_| own_new(look).is_some()) {
            Some(id) => Err(revoke(Which::New, id)),
            None => Ok(nothing_left_of_new(look)),
        },
        Proven::Nothing => Ok(nothing_left_of_new(look)),
        Proven::RolledForward => Ok(Retired::Nothing),
    }
}

fn revoke(which: Which, id: &Id) -> Next {
    let id = id.clone();
    Next::step(Step::Revoke { which, id })
}

fn nothing_left_of_new(look: Look<'_>) -> Retired {
    if look.seen.new.secret.is_none() {
        Retired::New
    } else {
        Retired::Nothing
    }
}

/// X is rejected, by the API servers' own answer.
///
/// | if | then |
/// |---|---|
/// | another writer has written O back since it was revoked, and the overlap has not passed without a disturbance | wait |
/// | an API server accepts X, or one may remember it (12 seconds from when its Secret was seen to be gone) | wait |
pub(super) fn confirm(look: Look<'_>, retired: &Proof<'_, Retired>) -> Result<(), Next> {
    let (seen, run) = (look.seen, look.run);
    let (id, token) = match **retired {
        Retired::Nothing => return Ok(()),
        Retired::Old => (Some(&run.record.old.id), &seen.old),
        Retired::New => (new_id(look), &seen.new),
    };
    // Only a whole overlap without a disturbance shows that the other writer has stopped.
    if run.reapplied > 0 && !run.phase.can_be_undone() && !run.passed(Timer::Quiet) {
        return Err(Next::wait("no other writer to write the old state back (--overlap)").starting(Timer::Quiet));
    }
    let may_be_remembered = is_revoked(seen, run) && !run.passed(Timer::Cache);
    if token.acceptance.may_be_accepted() || may_be_remembered {
        let id = id.map_or_else(|| "the new token".to_owned(), Id::to_string);
        return Err(look.wait(format!("the API server to reject {id}")));
    }
    Ok(())
}

/// Whether a Secret that X had is gone, so that a server may remember X.
pub(super) fn is_revoked(seen: &Observed, run: &Run<BootstrapToken>) -> bool {
    match run.direction {
        Direction::Forward => !seen.old.holds(run.record.old.value),
        Direction::Rollback => seen.new.secret.is_none() && run.phase >= Phase::Retire,
        Direction::RollForward => false,
    }
}

/// Whether O is there for a rollback.
pub(super) fn is_restorable(look: Look<'_>) -> bool {
    look.seen.old.is_valid(look.record().old.value)
}

/// Whether X exists and a node may have read it. Nodes cannot have read a new token whose delivery was never intended.
pub(super) fn takes_away(look: Look<'_>) -> bool {
    to_revoke(look).is_some() && (!look.direction().is_rollback() || look.record().delivered)
}

/// The id of X, while X exists.
fn to_revoke(look: Look<'_>) -> Option<&Id> {
    let old = &look.record().old;
    match look.direction() {
        Direction::Forward => Some(&old.id).filter(|_| look.seen.old.holds(old.value)),
        Direction::Rollback => new_id(look).filter(|_| own_new(look).is_some()),
        Direction::RollForward => None,
    }
}

fn new_id(look: Look<'_>) -> Option<&Id> {
    look.record().new.as_ref().map(|new| &new.id)
}

/// The Secret with N's id, if this run created it: by its mark, or by the value that this process has drawn for it.
fn own_new(look: Look<'_>) -> Option<&SecretState> {
    let drawn = look.record().new.as_ref().map(|new| new.value);
    let secret = look.seen.new.secret.as_ref()?;
    (secret.mark.is_some() || secret.value.is_some() && secret.value == drawn).then_some(secret)
}

/// O, N, or a former value of N: ours to replace.
fn is_ours(look: Look<'_>, content: &Content) -> bool {
    content.value == look.record().old.value || is_new(look, content)
}

/// Also where N's Secret is gone. Where the Secret is not of this run, its token is not ours, whatever its id.
fn is_new(look: Look<'_>, content: &Content) -> bool {
    let not_foreign = look.seen.new.secret.is_none() || own_new(look).is_some();
    content.id.is_some() && content.id.as_ref() == new_id(look) && not_foreign
}

fn delivery_names_new(look: Look<'_>) -> bool {
    matches!(&look.seen.delivery, Delivery::Holds { content, .. } if is_new(look, content))
}

/// The same step, which reapplies what another writer has overwritten.
fn reapply(look: Look<'_>, step: Next, writer: Option<&str>) -> Next {
    look.reapply(step, writer.unwrap_or("another process"))
}
