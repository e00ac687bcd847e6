//! The five stages of a rotation of a cluster's registration tokens. **Its safety is in this file, and in the abstraction from
//! objects to what is observed here** (`controller/abstraction.rs`).
//!
//! There are two tokens: O, which the agent ran with at the start, and N, the new one. T is the one that the run ends on, X the
//! other: forward T is N, and in a rollback T is O.
//!
//! Why no cluster can be lost, whatever happens between two steps:
//! * *Make*, *place* and *prove* take nothing away: Rancher accepts both X and T, and no pod with an accepted token is removed
//!   before Rancher has accepted one with T.
//! * *Retire* is reached only when, in one and the same look, T is what Rancher deploys, what Rancher accepts, what the
//!   Deployment names, what the agent that connected last used, what Rancher says it has applied, and what every pod mounts, and
//!   when no redeploy that renders X can still be in flight.
//! * Every look is walked from the top, so what another writer has overwritten is reapplied by the same condition. The quiet time
//!   then begins anew. At the third time the run turns back while it can; after *retire* it reapplies until it times out.
//! * What a run may do is read from the objects: the mark on `system`, the values that are held, the labels of temporary tokens.
//!   A user with permission to write only Leases can make a run stop, start again, or roll back while that is possible.
//! * A token of another cluster is never brought into this one: it is not kept valid, not protected and not restored.
//! * A rollback writes `system` and the Deployment even if they have T already: that bumps their resourceVersion, so that a write
//!   which a former holder of the lock decided on before is rejected when it arrives after *retire*.

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::plan::Named;
use engine::rotation::{Blocker, Look, Next, Proof, Rotation, Timer};
use engine::run::Run;
use rancher::TokenStorage;
use rancher::token::SYSTEM;

use super::observed::{Age, DownstreamAccess, DownstreamIdentity, Grace, Kind, Observed, SystemToken, Trigger};
use super::record::Record;
use super::step::Step;
use super::{Crt, planner};
use crate::controller::check;

/// Rancher accepts T, and keeps accepting whatever an agent may still use.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    target: Fingerprint,
    other: Option<Fingerprint>,
}

/// The agent's Deployment names the Secret with T.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    target: Fingerprint,
    other: Option<Fingerprint>,
}

/// The agent works with T, by every sign that exists.
#[derive(Clone, Copy, Debug)]
pub enum Proven {
    /// It works with N. O may be revoked, and the other registration tokens renewed.
    New {
        /// N.
        new: Fingerprint,
        /// O.
        old: Fingerprint,
    },
    /// It works with O. N may be revoked; what was valid before the run stays.
    Old {
        /// O.
        old: Fingerprint,
        /// N; `None` in a rollback of a run that never drew one.
        new: Option<Fingerprint>,
    },
}

/// X is not held any more. What is left to check is that Rancher rejects it.
#[derive(Clone, Copy, Debug)]
pub struct Retired(Proven);

impl Proven {
    fn other(self) -> Option<Fingerprint> {
        match self {
            Self::New { old, .. } => Some(old),
            Self::Old { new, .. } => new,
        }
    }
}

pub(super) type Stage<T> = Result<T, Next<Crt>>;

const BY_HAND: &str = "compare with the status of the cluster, and correct it by hand";
const ROTATE_ANEW: &str = "run `rotate` to finish the rotation; if the rollback has already begun, --force=journal discards it and starts a new \
                           rotation";

/// The token that the run ends on. `None`: it is not drawn yet.
pub(crate) fn target(run: &Run<Crt>) -> Option<Fingerprint> {
    if run.direction.is_rollback() {
        Some(run.record.old)
    } else {
        run.record.new
    }
}

/// The other one. `None` in a rollback of a run that never drew a new token.
pub(crate) fn other(run: &Run<Crt>) -> Option<Fingerprint> {
    if run.direction.is_rollback() {
        run.record.new
    } else {
        Some(run.record.old)
    }
}

/// Begins a run, or returns the blockers.
pub(super) fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
    if let Some(blocker) = wrong_downstream(seen.downstream) {
        return Err(vec![blocker]);
    }
    if !seen.blockers.is_empty() {
        return Err(seen.blockers.clone());
    }
    let no_secret = || {
        vec![Blocker::new(
            "the agent's Deployment names no Secret with a token",
            BY_HAND,
        )]
    };
    let old = if seen.is_downstream_readable() {
        seen.deployed.ok_or_else(no_secret)?
    } else {
        unread(seen).map_err(|blocker| vec![blocker])?
    };
    match planner::blocker(seen, old) {
        Some(blocker) => Err(vec![blocker]),
        None => Ok(record(seen, old, rotated_by_rancher(seen, old))),
    }
}

/// The token of an agent that cannot be looked at: the one that Rancher deployed last.
fn unread(seen: &Observed) -> Result<Fingerprint, Blocker> {
    if seen.access == DownstreamAccess::Unreachable {
        return planner::of_lost_agent(seen);
    }
    if seen.storage == TokenStorage::Status && seen.provisioned().is_none() {
        return Err(Blocker::new(
            "no permissions on the downstream cluster, and this Rancher does not deploy a new token by itself",
            "request the permissions that the documentation lists",
        ));
    }
    if !seen.weak_proof_forced {
        return Err(Blocker::new(
            "no permissions on the downstream cluster, so that the agent itself cannot be observed",
            "request the permissions that the documentation lists; with --force=weak-proof Rancher deploys the new token without a held \
             rollout, and what Rancher says of it is trusted",
        )
        .unless_forced(check::WEAK_PROOF.name));
    }
    let system = seen.system.as_ref().map(|system| system.token);
    seen.applied
        .or(system)
        .ok_or_else(|| Blocker::new("there is no registration token \"system\"", BY_HAND))
}

/// The record of a run that starts from here.
pub(crate) fn record(seen: &Observed, old: Fingerprint, new: Option<Fingerprint>) -> Record {
    Record {
        old,
        new,
        system: seen.system.as_ref().map(|system| system.token),
        others: if seen.only_agent {
            // Rancher may deploy F to the agent too.
            let first = seen.first().map(|(first, token)| (first.name.clone(), token));
            first.into_iter().collect()
        } else {
            seen.others.clone()
        },
        restarted_at: None,
        server_address: seen.server_address.clone(),
        worked: if seen.is_downstream_readable() {
            seen.is_connected(old)
        } else {
            seen.tunnel_works == Some(true)
        },
        old_secret: seen.named_secret.clone(),
        rollout: seen.rollout,
    }
}

/// Storage `secret`: Rancher has rotated `system` by itself and not applied it yet. Its new value becomes N.
fn rotated_by_rancher(seen: &Observed, old: Fingerprint) -> Option<Fingerprint> {
    let system = seen.system.as_ref()?;
    (seen.storage == TokenStorage::Secret && system.token != old && system.previous == Some(old))
        .then_some(system.token)
}

/// What must hold at every look and in every direction.
///
/// | if | then |
/// |---|---|
/// | the downstream cluster is not proven to be this cluster | refuse |
/// | rollback: O belongs to another cluster, or no object has its value | refuse |
/// | rollback: O did not work at the start, an agent has connected with N, and nothing is restored yet | refuse |
pub(super) fn guard(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    if let Some(blocker) = wrong_downstream(seen.downstream) {
        return Err(Next::Refuse(vec![blocker]));
    }
    if !run.direction.is_rollback() {
        return Ok(());
    }
    let old = run.record.old;
    if seen.foreign.contains(&old) {
        let reason = format!("the old token {old} belongs to another cluster: restoring it would disconnect the agent");
        return Err(Next::refuse(reason, ROTATE_ANEW));
    }
    if !seen.has_value(old) {
        let reason = format!("no object has the value of the old token {old} any more, so it cannot be restored");
        return Err(Next::refuse(reason, ROTATE_ANEW));
    }
    // Only before anything is restored: a rollback that has begun is finished.
    let works = |new: Fingerprint| seen.connected.is_some_and(|connected| connected.token == new);
    let is_new = |new: Fingerprint| {
        let mark = seen.mark_of(&run.id.to_string());
        let set = seen.system.as_ref().is_some_and(|system| system.token == new);
        set && mark.is_some_and(|mark| !mark.direction.is_rollback())
    };
    if restores_failure(run) && run.record.new.is_some_and(|new| works(new) && is_new(new)) {
        let reason = format!(
            "no agent worked with the old token {old} when the rotation began, and one works with the new token: restoring {old} would \
             disconnect it"
        );
        return Err(Next::refuse(reason, ROTATE_ANEW));
    }
    Ok(())
}

/// A rollback to a state that did not work: no agent was connected with O at the start. It is restored as it was, and nothing waits
/// for an agent to connect.
pub(crate) fn restores_failure(run: &Run<Crt>) -> bool {
    run.direction.is_rollback() && !run.record.worked
}

/// Another cluster is refused, whatever is forced.
pub(crate) fn wrong_downstream(downstream: DownstreamIdentity) -> Option<Blocker> {
    match downstream {
        DownstreamIdentity::Proven | DownstreamIdentity::Trusted => None,
        DownstreamIdentity::Another => Some(Blocker::new(
            "the downstream context leads to another cluster",
            "pass a context of this cluster with --downstream-context, or leave it out to go through Rancher",
        )),
        DownstreamIdentity::Unproven => Some(
            Blocker::new(
                "cannot verify that the downstream context leads to this cluster: its CA is not the one that Rancher has \
                 recorded, and there is no way through Rancher to compare",
                "use a context of Rancher with --context, so that both ways can be compared",
            )
            .unless_forced("context"),
        ),
    }
}

/// T is the value of `system`, Rancher accepts it, and X stays accepted for as long as an agent may need it.
///
/// | if | then |
/// |---|---|
/// | provisioned, forward: F does not have N, and no agent was pointed at N yet | **hold** the rollout |
/// | provisioned: F does not have T, and has a previous token that is in use and that nothing else keeps valid | trigger Rancher's planner, and wait until all have left it |
/// | forward: `system` has a value that Rancher or an admin has set, and no agent uses N; or N without the mark of this run | adopt it as N |
/// | `system` must change, and Rancher would then forget the value that it has | keep that value valid first: a temporary registration token (storage `status`), or a postponed grace period (storage `secret`) |
/// | storage `secret`: `system` has a previous token in use that is neither of this run | refuse |
/// | `system` does not have T, or not the mark of this direction | set T on `system` (forward: a new value, unless an object has that of N); in storage `secret` the value before becomes the previous token |
/// | an agent uses X, and nothing keeps it valid | keep it valid: a temporary registration token, or the protected previous token |
/// | provisioned, forward: F does not have N | keep its value valid and set N on it; in storage `secret` the value before becomes its previous token |
/// | provisioned, rollback: a token that this run may have given N has it, or not the mark of this direction | set O on it, or the value that it has |
/// | provisioned: a machine or an agent uses the value that F had before, and nothing keeps it valid | keep it valid |
/// | Rancher does not accept T yet | wait |
pub(super) fn make(look: Look<'_, Crt>) -> Stage<Made> {
    let Look { seen, run, .. } = look;
    planner::prepare(look)?;
    let target = target(run).filter(|target| system_is_at(seen, run, *target));
    let Some(target) = target else {
        return Err(set_system(look)?);
    };
    let other = other(run);
    keep_valid(seen, run, other)?;
    planner::give(look)?;
    if seen.acceptance_of(target).is_accepted() {
        Ok(Made { target, other })
    } else {
        Err(look.wait(format!("Rancher to accept {}", Named(&target))))
    }
}

/// Whether `system` has T and the mark of this run, and no late write of a former holder of the lock can change that.
fn system_is_at(seen: &Observed, run: &Run<Crt>, target: Fingerprint) -> bool {
    let mark = seen.mark_of(&run.id.to_string());
    let marked = if run.direction.is_rollback() {
        mark.is_some_and(|mark| mark.direction.is_rollback())
    } else {
        mark.is_some_and(|mark| mark.record.new == Some(target))
    };
    marked && seen.system.as_ref().is_some_and(|system| system.token == target)
}

/// The step that gives `system` the token of this run, or the one that has to come before it.
fn set_system(look: Look<'_, Crt>) -> Stage<Next<Crt>> {
    let Look { seen, run, .. } = look;
    let (record, forward) = (&run.record, !run.direction.is_rollback());
    if let Some(system) = &seen.system {
        let token = system.token;
        let replaces = record.new.is_some_and(|new| seen.is_in_use(new));
        let by_another = Some(token) == record.new || Some(token) != record.system && !replaces;
        if forward && by_another && token != record.old && !seen.foreign.contains(&token) {
            return Err(Next::step(Step::Adopt { token }).stopping(Timer::Quiet));
        }
        if Some(token) != target(run) {
            keep_replaced(seen, run, system)?;
        }
    }
    // An agent may have N already.
    let drawn = record.new.filter(|new| forward && seen.has_value(*new));
    let step = match drawn.or((!forward).then_some(record.old)) {
        Some(token) => Step::Restore {
            token,
            previous: previous_beside(seen, run, token),
        },
        None => Step::SetNew,
    };
    let next = Next::step(step).stopping(Timer::Quiet);
    let starts_proof = forward && !run.timers.contains_key(&Timer::Proof);
    let next = if starts_proof {
        next.starting(Timer::Proof)
    } else {
        next
    };
    Ok(if forward && record.new.is_some() {
        look.reapply(next, "another writer of registration token \"system\"")
    } else {
        next
    })
}

/// Storage `secret`: what `system` keeps as its previous token when it gets this value. There is one place: of the value that it has
/// now and the present previous one, it belongs to the one whose agents stay.
fn previous_beside(seen: &Observed, run: &Run<Crt>, token: Fingerprint) -> Option<Fingerprint> {
    let system = seen.system.as_ref().filter(|_| seen.storage == TokenStorage::Secret)?;
    if system.token == token {
        return system.previous;
    }
    let claim = |value: Fingerprint| {
        let stays = seen.deployed == Some(value) && !seen.held;
        seen.is_in_use(value)
            .then(|| (stays, seen.runs(value), value == run.record.old))
    };
    let mut present = system.previous.into_iter().filter(|previous| *previous != token);
    let present = present.find(|previous| claim(*previous) > claim(system.token));
    present.or(Some(system.token))
}

/// The value that `system` has now must stay valid when another one replaces it.
fn keep_replaced(seen: &Observed, run: &Run<Crt>, system: &SystemToken) -> Stage<()> {
    let token = system.token;
    match seen.storage {
        TokenStorage::Status if seen.is_held_beside_system(token) => Ok(()),
        TokenStorage::Status => Err(Next::step(Step::CreateTemporary { token })),
        TokenStorage::Secret if seen.status_grace == Some(Grace::Near) => Err(Next::step(Step::PostponeGrace {
            name: SYSTEM.to_owned(),
        })),
        // There is one place for a previous token. Only the values of this run may be overwritten.
        TokenStorage::Secret => {
            let record = &run.record;
            let ours = [Some(record.old), record.new, record.system, Some(token)];
            match system.previous {
                Some(previous) if !ours.contains(&Some(previous)) && seen.is_in_use(previous) => Err(Next::refuse(
                    format!(
                        "registration token \"system\" has a previous token {previous} that does not belong to this rotation"
                    ),
                    BY_HAND,
                )),
                _ => Ok(()),
            }
        }
    }
}

/// X stays accepted for as long as an agent may need it, whatever has dropped it.
fn keep_valid(seen: &Observed, run: &Run<Crt>, other: Option<Fingerprint>) -> Stage<()> {
    // Where no agent connects with O, the last connection may stay that of N for ever.
    let needs = |token: Fingerprint| {
        if !seen.is_downstream_readable() {
            // Once it was proven, by what can be seen, nothing is in use any more.
            run.phase.can_be_undone() || seen.is_planned(token)
        } else if restores_failure(run) {
            seen.is_placed(token) || seen.is_planned(token)
        } else {
            seen.is_in_use(token)
        }
    };
    let Some(token) = other.filter(|other| needs(*other) && !seen.foreign.contains(other)) else {
        return Ok(());
    };
    let is_kept = seen.is_held_beside_system(token) || planner::keeps(seen, token);
    let Some(system) = seen.system.as_ref().filter(|_| !is_kept) else {
        return Ok(());
    };
    Err(Next::step(match seen.storage {
        TokenStorage::Status => Step::CreateTemporary { token },
        TokenStorage::Secret if seen.status_grace == Some(Grace::Near) && system.previous.is_some() => {
            Step::PostponeGrace {
                name: SYSTEM.to_owned(),
            }
        }
        TokenStorage::Secret if system.previous == Some(token) && system.protected => return Ok(()),
        TokenStorage::Secret => Step::Protect {
            name: SYSTEM.to_owned(),
            token,
        },
    }))
}

/// The agent's Deployment names the Secret with T.
///
/// | if | then |
/// |---|---|
/// | the downstream cluster cannot be read | pass: Rancher deploys T |
/// | the Secret that should have T has another content | refuse |
/// | the Secret with T does not exist | create it |
/// | the Deployment is not pointed at T, and the Secret is old enough for an agent to clean it up | delete it |
/// | the Deployment does not name T, another writer has replaced its template, or a push of another token is to come (provisioned, rollback: a machine that answers has N) and the rollout is not held | point it at T, **held** |
/// | rollback: the agent is still connected with O, or was not at the start either, and nothing is about to be pushed | point the Deployment back at O |
/// | rollback: the Deployment names O without the mark of this direction | fence it |
pub(super) fn place(look: Look<'_, Crt>, made: &Proof<'_, Made>) -> Stage<Placed> {
    let Look { seen, run, .. } = look;
    let Made { target, other } = **made;
    if !seen.is_downstream_readable() {
        return Ok(Placed { target, other });
    }
    let rollback = run.direction.is_rollback();
    let fenced = seen.deployment_direction == Some(Direction::Rollback);
    // Where the target was in place before, another writer was there. Not where a machine has brought its plan.
    let is_planned = seen.deployed.is_some_and(|deployed| seen.is_planned(deployed));
    let reapply = |next: Next<Crt>| {
        if !is_planned && (fenced || was_placed(run)) {
            look.reapply(next, &seen.writer)
        } else {
            next
        }
    };
    let named = seen.deployed == Some(target);
    if let Some(secret) = seen.occupied.get(&target) {
        return Err(Next::refuse(
            format!(
                "Secret cattle-system/{secret} of the downstream cluster should have {target}, and has another content"
            ),
            "restore its content, or delete it if no agent uses it; then run the same command again",
        ));
    }
    match seen.credentials.get(&target) {
        None => return Err(reapply(Next::step(Step::CreateCredentials { token: target }))),
        // An agent with another token may clean it up at any moment.
        Some(Age::Old) if !named => return Err(Next::step(Step::DeleteCredentials { token: target })),
        Some(_) => {}
    }
    let may_deploy_other = may_apply_another(seen, target) || planner::may_deploy_other(seen, run);
    let exposed = may_deploy_other && !seen.held;
    if named && !exposed && !was_replaced(seen, run) {
        return if rollback && !fenced {
            Err(Next::step(Step::Fence))
        } else {
            Ok(Placed { target, other })
        };
    }
    // The new agent never connected, so the old one still runs as before. Not where Rancher is about to push something: that
    // must meet a held rollout.
    let applied = seen.storage == TokenStorage::Status || seen.applied == Some(target);
    let as_before = restores_failure(run) || applied && seen.is_connected(target);
    if rollback && as_before && !may_deploy_other && seen.runs(target) {
        return Err(Next::step(Step::PointBack { token: target }));
    }
    // The quiet time begins anew: the writer that pointed it elsewhere may come back.
    let point = Next::step(Step::PointHeld { token: target })
        .starting(Timer::Retry)
        .stopping(Timer::Quiet);
    Err(reapply(point))
}

/// The Deployment was seen to name the new token. Where it does not any more, another writer was there.
pub(crate) fn was_placed(run: &Run<Crt>) -> bool {
    !run.direction.is_rollback() && run.phase > Phase::Place
}

/// The template is not the one that this process has written or found: another writer was there between two looks, and Rancher
/// or another operator has corrected the token since. The quiet time counts from the last write of this run.
fn was_replaced(seen: &Observed, run: &Run<Crt>) -> bool {
    let mark = &run.record.restarted_at;
    was_placed(run) && mark.is_some() && seen.restarted_at != *mark
}

/// Rancher was triggered for another token, has not recorded that it applied it, and has not had the time: it may apply it at any
/// moment, with the address that its settings have by then, which is not proven.
fn may_apply_another(seen: &Observed, target: Fingerprint) -> bool {
    let triggered = seen
        .trigger
        .filter(|trigger| trigger.token != target && !trigger.overdue);
    seen.storage == TokenStorage::Secret && triggered.is_some_and(|trigger| seen.applied != Some(trigger.token))
}

/// The agent works with T, by every sign that exists, and no redeploy that renders X can be in flight.
///
/// | if | then |
/// |---|---|
/// | rollback: O did not work at the start | only what removes N below: no proof of O |
/// | `stv-aggregation` does not say T and the address of the present template: no agent of it was accepted yet, or one with X reconnected later | wait; then restart the agent, held |
/// | storage `secret`: Rancher has not applied T itself | trigger it and wait, unless it would push another address |
/// | provisioned: a control-plane machine has no plan with F's T, or one that answers has not applied it | trigger it and wait, without turning back for a machine |
/// | provisioned, and the plans cannot be read | wait until the provisioning cluster has left Ready after the trigger, and is Ready again; without `--force=weak-proof` refuse |
/// | storage `secret`: Rancher may still apply the other token | wait |
/// | the rollout is held | release it once a pod of the present template runs with T |
/// | a pod without T exists, or none runs with T | wait |
/// | a fresh call through the tunnel fails; hosted, or the downstream cluster cannot be read: it cannot be tried | wait |
/// | provisioned: *retire* has something to revoke, and a control-plane machine has not applied its plan with T | stop for now (exit code 4) |
/// | *retire* has something to revoke, and the quiet time (`--settle`; provisioned: at least 20 s) has not passed since T was seen on `system` (provisioned: and in every applied plan) | wait |
pub(super) fn prove(look: Look<'_, Crt>, placed: &Proof<'_, Placed>) -> Stage<Proven> {
    let seen = look.seen;
    let Placed { target, other } = **placed;
    let readable = seen.is_downstream_readable();
    let unproven = restores_failure(look.run);
    if !unproven && readable && !seen.is_connected(target) {
        return Err(reconnect(look, target));
    }
    if !unproven && seen.storage == TokenStorage::Secret && seen.applied != Some(target) {
        return Err(trigger(look, target));
    }
    planner::prove(look)?;
    if may_apply_another(seen, target) {
        return Err(look.wait("Rancher to finish applying the other token"));
    }
    let pod = || format!("a pod of the agent with {}", Named(&target));
    if readable && seen.held {
        return Err(if unproven || seen.runs_as_deployed(target) {
            Next::step(Step::Release)
        } else {
            look.wait(pod())
        });
    }
    if readable && seen.pods.iter().any(|pod| pod.token != Some(target)) {
        return Err(look.wait("the agent's other pods to terminate"));
    }
    if !unproven && readable && !seen.runs(target) {
        return Err(look.wait(pod()));
    }
    if !unproven && !tunnel_works(seen) {
        return Err(look.wait("a call through the agent's tunnel"));
    }
    if takes_away(look) {
        planner::every_machine(look)?;
    }
    if !look.is_quiet() {
        return Err(Next::wait("redeploys that Rancher may have begun before (--settle)"));
    }
    Ok(match other {
        Some(old) if !look.direction().is_rollback() => Proven::New { new: target, old },
        other => Proven::Old {
            old: target,
            new: other,
        },
    })
}

/// Where other proofs exist, a tunnel that cannot be tried is none.
fn tunnel_works(seen: &Observed) -> bool {
    let is_needed = !seen.is_downstream_readable() || seen.kind == Kind::Hosted && !seen.weak_proof_forced;
    seen.tunnel_works.unwrap_or(!is_needed)
}

/// Whether *retire* would revoke a value.
pub(super) fn takes_away(look: Look<'_, Crt>) -> bool {
    let Look { seen, run, .. } = look;
    let previous = seen.system.as_ref().and_then(|system| system.previous);
    let of_others = revoked_previous(seen, run).map(|(_, token)| *token);
    let mut values = seen.temporary.iter().copied().chain(previous).chain(of_others);
    values.any(|token| Some(token) != target(run))
}

/// A new pod is created only when the one that should connect had its time: each change of the template costs a rollout.
pub(super) fn reconnect<R>(look: Look<'_, R>, target: Fingerprint) -> Next<R>
where
    R: Rotation<Observed = Observed, Step = Step>,
{
    let run = look.run;
    let not_started = !run.timers.contains_key(&Timer::Retry);
    if run.running(Timer::Retry) || not_started && look.seen.held {
        let what = format!("the agent to connect with {}", Named(&target));
        return look.wait(what).starting(Timer::Retry);
    }
    Next::step(Step::PointHeld { token: target }).starting(Timer::Retry)
}

/// Rancher reconciles a cluster only when it changes (seen on Rancher 2.15.0). What it pushes then is everything that its
/// settings say.
fn trigger(look: Look<'_, Crt>, target: Fingerprint) -> Next<Crt> {
    let seen = look.seen;
    let moves = seen.pushes.is_some_and(|pushes| pushes != seen.address) && !seen.move_forced;
    if moves && !seen.held {
        return Next::step(Step::PointHeld { token: target }).starting(Timer::Retry);
    }
    if moves {
        return look.wait(
            "Rancher's settings server-url and cacerts to match the agent's: they were changed, and Rancher would push them too",
        );
    }
    match seen.trigger {
        Some(Trigger {
            token, overdue: false, ..
        }) if token == target => look.wait(format!("Rancher to apply {} itself", Named(&target))),
        _ => Next::step(Step::TriggerApply {
            plans: seen.provisioned().is_some(),
        })
        .triggering(),
    }
}

/// Rancher has rotated another registration token by itself during the run, and keeps a value that this run revokes as its previous
/// one, for three hours by default.
fn revoked_previous<'seen>(seen: &'seen Observed, run: &Run<Crt>) -> Option<(&'seen String, &'seen Fingerprint)> {
    let record = &run.record;
    let is_revoked = |value: &Fingerprint| {
        let of_start = *value == record.old || record.others.values().any(|before| before == value);
        of_start && Some(*value) != target(run)
    };
    let mut previous = seen.others_previous.iter().filter(|_| !run.direction.is_rollback());
    let of_start = previous.find(|(name, value)| record.others.contains_key(*name) && is_revoked(value));
    of_start.or_else(|| planner::previous_of_given(seen, run).next())
}

/// X is held by no object any more.
///
/// | if | then |
/// |---|---|
/// | rollback: the agent's Secret with N exists, and no machine has N | delete it: its name follows from N, which no object has afterwards |
/// | rollback: a token that this run has given a value does not have the one of before | restore it |
/// | a temporary registration token exists | delete it |
/// | storage `secret`: `system` has a previous token (rollback: N) | drop it |
/// | storage `secret`: the status of `system`, or of F if this run has given it a value, has an end of the grace period | clear it |
/// | forward: another registration token still has the value of the start | set a new value on it |
/// | another registration token has O or a value of the start as its previous one, or the value before this run gave it T (rollback: N) | drop it |
pub(super) fn retire(look: Look<'_, Crt>, proven: &Proof<'_, Proven>) -> Stage<Retired> {
    let Look { seen, run, .. } = look;
    if let Proven::Old { new: Some(token), .. } = **proven
        && seen.credentials.contains_key(&token)
        && !seen.is_planned(token)
    {
        return Err(Next::step(Step::DeleteCredentials { token }));
    }
    planner::restore(look)?;
    if let Some(token) = seen.temporary.first() {
        return Err(Next::step(Step::DeleteTemporary { token: *token }));
    }
    let ours = |previous: &Fingerprint| match **proven {
        Proven::New { .. } => true,
        // What was there before the run stays.
        Proven::Old { new, .. } => Some(*previous) == new,
    };
    if let Some(token) = seen.system.as_ref().and_then(|system| system.previous).filter(ours) {
        let name = SYSTEM.to_owned();
        return Err(Next::step(Step::DropPrevious { name, token }));
    }
    if let Some(name) = status_grace(seen) {
        return Err(Next::step(Step::ClearGrace { name }));
    }
    if let Proven::New { new, .. } = **proven {
        let unchanged =
            |(name, value): &(&String, &Fingerprint)| **value != new && seen.others.get(*name) == Some(*value);
        if let Some((name, _)) = run.record.others.iter().find(unchanged) {
            return Err(Next::step(Step::Renew { name: name.clone() }));
        }
    }
    if let Some((name, token)) = revoked_previous(seen, run) {
        let (name, token) = (name.clone(), *token);
        return Err(Next::step(Step::DropPrevious { name, token }));
    }
    Ok(Retired(**proven))
}

/// Storage `secret`: the token whose status has an end of the grace period that this run has to clear.
fn status_grace(seen: &Observed) -> Option<String> {
    let of_system = seen.status_grace.map(|_| SYSTEM.to_owned());
    let given = seen.first().filter(|(first, _)| seen.given.contains_key(&first.name));
    let of_first = given.and_then(|(first, _)| first.status_grace.map(|_| first.name.clone()));
    of_system.or(of_first).filter(|_| seen.storage == TokenStorage::Secret)
}

/// Rancher rejects X, and nothing of it is left.
///
/// | if | then |
/// |---|---|
/// | Rancher accepts X or the old value of a renewed token, or the answer is unknown, and no token that is not rotated has it | wait |
/// | the agent's Secret with X exists, or one that this run has created and that nothing uses | delete it |
pub(super) fn confirm(look: Look<'_, Crt>, retired: &Proof<'_, Retired>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let Retired(proven) = **retired;
    let given = seen.given.values().map(|mark| &mark.before);
    let renewed = run.record.others.values().chain(given);
    let renewed = renewed.filter(|token| matches!(proven, Proven::New { new, .. } if new != **token));
    let other = proven.other();
    let is_kept = |token: Fingerprint| {
        let mut previous = seen.others_previous.iter();
        let of_others = previous.any(|(name, value)| *value == token && !run.record.others.contains_key(name));
        seen.is_held(token) || of_others
    };
    let mut revoked = other
        .iter()
        .chain(renewed)
        .filter(|token| !is_kept(**token) && !seen.foreign.contains(token));
    if let Some(token) = revoked.find(|token| seen.acceptance_of(**token).may_be_accepted()) {
        return Err(look.wait(format!("Rancher to reject {token}")));
    }
    if let Some(token) = other.filter(|other| seen.credentials.contains_key(other) && !seen.is_planned(*other)) {
        return Err(Next::step(Step::DeleteCredentials { token }));
    }
    match seen.leftovers.first().cloned() {
        Some(secret) => Err(Next::step(Step::DeleteLeftover { secret })),
        None => Ok(()),
    }
}

/// Whether the state at the start worked and can be restored.
pub(super) fn is_restorable(look: Look<'_, Crt>) -> bool {
    let old = look.record().old;
    look.record().worked && !look.seen.foreign.contains(&old) && look.seen.has_value(old)
}

/// The quiet time runs from the first moment at which T was *seen* on `system`: a write that was only intended may still be in
/// flight, and a redeploy may begin just before it arrives.
pub(super) fn timers(seen: &Observed, run: &Run<Crt>) -> Vec<Timer> {
    let is_set = target(run).is_some_and(|target| system_is_at(seen, run, target));
    let quiet = is_set && is_settled(seen, run);
    quiet.then_some(Timer::Quiet).into_iter().collect()
}

/// A machine that answers again, or another F, begins the quiet time anew.
pub(super) fn stale_timers(seen: &Observed, run: &Run<Crt>) -> Vec<Timer> {
    let stale = (!is_settled(seen, run)).then_some(Timer::Quiet);
    stale.into_iter().collect()
}

/// Where the rollout cannot be observed, the quiet time must include it.
fn is_settled(seen: &Observed, run: &Run<Crt>) -> bool {
    let is_pushed = || seen.storage == TokenStorage::Status || seen.applied == target(run);
    planner::is_settled(seen, run) && (seen.is_downstream_readable() || is_pushed())
}

/// What the objects say of a run that is resumed.
pub(super) fn recall(seen: &Observed, claimed: &Run<Crt>) -> Option<Record> {
    if let Some(mark) = seen.mark_of(&claimed.id.to_string()) {
        let placed = seen.deployed == mark.record.new;
        return Some(Record {
            restarted_at: seen.restarted_at.clone().filter(|_| placed),
            ..mark.record.clone()
        });
    }
    // Before `system` was written there can only be a temporary token, and a write of a former holder in flight.
    let old = seen.deployed.filter(|_| claimed.direction.is_rollback())?;
    Some(record(seen, old, None))
}
