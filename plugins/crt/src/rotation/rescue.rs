//! The rescue of a cluster whose agent has lost its token: it was revoked, its Secret is missing or wrong, or it is another cluster's.
//!
//! There are two values. T is one that Rancher accepts, and lasts: that of `system`, which Rancher deploys. D is the one that the
//! agent has.
//!
//! **Nothing is lost, whatever happens between two steps**, since a rescue sets no token's value and revokes none: whatever an agent
//! may use that was accepted before is accepted afterwards. An agent with D whose tunnel is still open keeps running until one with T
//! has connected. The rotation that follows replaces every value, also those that were valid again after a backup was restored.
//!
//! **D is made valid again only where nothing else leads to the cluster than its own agent**, since a third party that has it can
//! then connect as this cluster:
//! * only by the command that says so (`--reactivate-old-token`), and never if it is a token of another cluster;
//! * in storage `secret` its end, ten minutes later, is written before the value, so that it ends if this process is killed; in
//!   storage `status` it is a registration token of its own, which `list` and `status` report until it is gone;
//! * T takes its place as soon as the agent is back. When that takes too long, and in a rollback, D is made invalid again, and
//!   nothing else happens.
//!
//! Nothing that a run may do is read from the Lease: T, D and what was made valid again are found anew on the objects in every look.

use client::secret::Fingerprint;
use engine::plan::{Named, Plan};
use engine::rotation::{Action, Blocker, Check, Credentials, Look, Next, Proof, Rotation, Timer};
use engine::run::{Draw, Run};
use rancher::TokenStorage;
use rancher::token::{DEFAULT, SYSTEM};

use super::observed::{Age, DownstreamAccess, DownstreamIdentity, Observed, Reactivated, no_token};
use super::record::Record;
use super::step::Step;
use super::{predict, stages};
use crate::controller::{FIELD_MANAGER, check};
use crate::report;

/// The rescue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rescue;

impl Rescue {
    /// What it does, in words.
    pub const ACTION: Action = Action {
        verb: "rescue",
        noun: "rescue",
        done: "rescued",
    };
}

type Stage<T> = Result<T, Next<Rescue>>;

/// T. `None` in a rollback, which needs none.
#[derive(Clone, Copy, Debug)]
pub struct Target(Option<Fingerprint>);

/// The value that the agent gets, or has already.
pub(crate) fn target(seen: &Observed) -> Option<Fingerprint> {
    let lasts = |token: &Fingerprint| {
        let of_system = seen.system.as_ref().is_some_and(|system| system.token == *token);
        (of_system || seen.others.values().any(|value| value == token)) && !seen.foreign.contains(token)
    };
    let deployed = seen.deployed.filter(lasts);
    let system = seen.system.as_ref().map(|system| system.token);
    deployed.or(system).or_else(|| seen.others.get(DEFAULT).copied())
}

/// D: the value that the agent has, as far as that is known.
pub(crate) fn lost(seen: &Observed) -> Fingerprint {
    let target = target(seen);
    let is_other = |token: &Fingerprint| Some(*token) != target;
    let of_pods = seen.pods.iter().filter_map(|pod| pod.token);
    let of_agent = seen.deployed.into_iter().chain(of_pods);
    let of_rescue = seen.reactivated.keys().copied().chain(seen.reactivates);
    let mut known = of_agent.chain(of_rescue).chain(seen.applied).filter(is_other);
    known.next().or(seen.deployed).unwrap_or_else(no_token)
}

/// A run of the rotation that does the same I/O.
pub(crate) fn as_rotation(run: &Run<Rescue>) -> Run<super::Crt> {
    Run {
        id: run.id.clone(),
        direction: run.direction,
        phase: run.phase,
        record: run.record.clone(),
        timers: run.timers.clone(),
        reapplied: run.reapplied,
    }
}

fn record(seen: &Observed) -> Record {
    let mut record = stages::record(seen, lost(seen), target(seen));
    record.worked = false;
    record
}

/// Whether the agent has a token that Rancher accepts, so that something else keeps it from connecting, if anything does.
fn has_valid_token(seen: &Observed) -> bool {
    let valid = |token: &Fingerprint| {
        target(seen) == Some(*token) && seen.credentials.contains_key(token) && seen.acceptance_of(*token).is_accepted()
    };
    seen.deployed.is_some_and(|token| valid(&token))
}

/// The token that keeps D as its previous one: `system`, or one that has no previous one in use.
fn slot(seen: &Observed) -> Option<String> {
    let of_system = seen.system.iter().map(|system| (SYSTEM, system.previous));
    let of_others = seen
        .others
        .keys()
        .map(|name| (name.as_str(), seen.others_previous.get(name).copied()));
    let mut free = of_system
        .chain(of_others)
        .filter(|(name, previous)| previous.is_none() && !is_orphan(name));
    free.next().map(|(name, _)| name.to_owned())
}

/// A token Secret whose token was deleted: nothing ends a grace period there.
fn is_orphan(name: &str) -> bool {
    name.starts_with("crt-token-")
}

/// Begins a run, or returns the blockers.
///
/// | if | then |
/// |---|---|
/// | the downstream cluster is not proven to be this cluster, also by `--force=context` where its agent has a token of another one | refuse |
/// | it can be read, and the agent has a token that Rancher accepts | refuse: the token is not what is wrong |
/// | no permission to read it | refuse |
/// | its agent is not connected and nothing else leads to it: the old token may not be made valid again, is accepted already, or belongs to another cluster | refuse |
fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
    if let Some(blocker) = wrong_downstream(seen) {
        return Err(vec![blocker]);
    }
    if !seen.blockers.is_empty() {
        return Err(seen.blockers.clone());
    }
    let blocker = match seen.access {
        DownstreamAccess::Full => has_valid_token(seen).then(valid),
        DownstreamAccess::None => Some(Blocker::new(
            "no permissions on the downstream cluster",
            "request the permissions that the documentation lists",
        )),
        DownstreamAccess::Unreachable if is_deployed_by_machines(seen) => None,
        DownstreamAccess::Unreachable => unreachable(seen),
    };
    match blocker {
        Some(blocker) => Err(vec![blocker]),
        None => Ok(record(seen)),
    }
}

/// Also where the context is only trusted, and its agent has the token of another cluster: it may be that cluster's.
fn wrong_downstream(seen: &Observed) -> Option<Blocker> {
    let is_foreign = || seen.deployed.is_some_and(|token| seen.foreign.contains(&token));
    let of_another = seen.downstream == DownstreamIdentity::Trusted && is_foreign();
    let blocker = || {
        Blocker::new(
            "the agent of the downstream context has a token of another cluster, and the context is not proven to lead to this one",
            "use a context of Rancher with --context, so that both ways can be compared",
        )
    };
    stages::wrong_downstream(seen.downstream).or_else(|| of_another.then(blocker))
}

fn valid() -> Blocker {
    Blocker::new(
        "its agent has a token that Rancher accepts, so that nothing is to be rescued",
        "see the status of the cluster for what keeps its agent from connecting",
    )
}

/// Rancher's planner deploys a token that did not exist before through the machines that answer.
fn is_deployed_by_machines(seen: &Observed) -> bool {
    let answers = || seen.machines().any(|(_, machine)| machine.answers);
    seen.system.is_none() && answers()
}

fn unreachable(seen: &Observed) -> Option<Blocker> {
    let Some(token) = seen.reactivates else {
        return Some(Blocker::new(
            "its agent is not connected, and nothing else leads to it",
            "pass a context that does not go through Rancher with --downstream-context, or make the agent's old token valid again for \
             the rescue with --reactivate-old-token",
        ));
    };
    if seen.foreign.contains(&token) {
        return Some(foreign(token));
    }
    if seen.acceptance_of(token).is_accepted() && !seen.reactivated.contains_key(&token) {
        return Some(Blocker::new(
            format!("Rancher accepts {token} already, and its agent does not connect with it"),
            "pass the token that the agent has, or a context that does not go through Rancher with --downstream-context",
        ));
    }
    if seen.storage == TokenStorage::Secret && slot(seen).is_none() && seen.system.is_some() {
        return Some(Blocker::new(
            "every registration token of it still accepts a previous value",
            "wait until a grace period ends, or pass a context that does not go through Rancher with --downstream-context",
        ));
    }
    None
}

fn foreign(token: Fingerprint) -> Blocker {
    Blocker::new(
        format!("{token} is a token of another cluster, which is never made valid for this one"),
        "pass the token that the agent of this cluster has",
    )
}

/// The downstream cluster is proven to be this cluster.
///
/// | if | then |
/// |---|---|
/// | the downstream cluster is not proven to be this cluster, also by `--force=context` where its agent has a token of another one | refuse |
fn guard(look: Look<'_, Rescue>) -> Stage<()> {
    match wrong_downstream(look.seen) {
        Some(blocker) => Err(Next::Refuse(vec![blocker])),
        None => Ok(()),
    }
}

/// T is accepted by Rancher; where only the agent itself leads to the cluster, D is too.
///
/// | if | then |
/// |---|---|
/// | rollback | pass |
/// | there is no registration token | have Rancher create `default-token`, and wait |
/// | Rancher does not accept T yet | wait |
/// | the agent is not connected, nothing else leads to it, and D is not accepted | make it valid again: storage `secret`: its end first |
fn make(look: Look<'_, Rescue>) -> Stage<Target> {
    let seen = look.seen;
    if look.direction().is_rollback() {
        return Ok(Target(None));
    }
    let Some(target) = target(seen) else {
        return Err(triggered(
            look,
            no_token(),
            Step::Recreate,
            "Rancher to create a registration token",
        ));
    };
    if !seen.acceptance_of(target).is_accepted() {
        return Err(look.wait(format!("Rancher to accept {}", Named(&target))));
    }
    let unreachable = seen.access == DownstreamAccess::Unreachable;
    if unreachable && !is_awaited_from_machines(seen) {
        reactivate(look)?;
    }
    Ok(Target(Some(target)))
}

/// All tokens were deleted, and the planner deploys the new one.
fn is_awaited_from_machines(seen: &Observed) -> bool {
    seen.reactivates.is_none() && is_deployed_by_machines(seen)
}

fn reactivate(look: Look<'_, Rescue>) -> Stage<()> {
    let seen = look.seen;
    if !seen.reactivated.is_empty() {
        return Ok(());
    }
    let Some(token) = seen.reactivates else {
        return Err(Next::Refuse(unreachable(seen).into_iter().collect()));
    };
    if seen.foreign.contains(&token) {
        return Err(Next::Refuse(vec![foreign(token)]));
    }
    if seen.is_held(token) {
        return Ok(());
    }
    let by = match seen.storage {
        TokenStorage::Status => Reactivated::Temporary,
        TokenStorage::Secret => match slot(seen) {
            Some(name) if !seen.ending.contains(&name) => return Err(Next::step(Step::LimitGrace { name })),
            Some(name) => Reactivated::Previous(name),
            None => return Err(look.wait("the grace period of a registration token to end")),
        },
    };
    Err(Next::step(Step::Reactivate { token, by }).starting(Timer::Proof))
}

/// Something that Rancher is to do: asked once, and again when it had the time.
fn triggered(look: Look<'_, Rescue>, of: Fingerprint, step: Step, what: &str) -> Next<Rescue> {
    match look.seen.trigger {
        Some(trigger) if trigger.token == of && !trigger.overdue => look.wait(what),
        _ => Next::step(step).triggering(),
    }
}

/// The agent's Deployment names the Secret with T.
///
/// | if | then |
/// |---|---|
/// | rollback | pass |
/// | the agent is not connected, and nothing else leads to it | wait |
/// | the Secret that should have T has another content, or is old enough for an agent to clean it up and not in use | delete it |
/// | the Secret with T does not exist | create it |
/// | the Deployment does not name T | point it at T, **held**: an agent whose tunnel is still open keeps running |
fn place(look: Look<'_, Rescue>, made: &Proof<'_, Target>) -> Stage<Target> {
    let seen = look.seen;
    let Some(target) = made.0 else {
        return Ok(**made);
    };
    match seen.access {
        DownstreamAccess::Full => {}
        DownstreamAccess::Unreachable => return Err(look.wait("the agent to connect")),
        DownstreamAccess::None => return Err(look.wait("permissions on the downstream cluster")),
    }
    let named = seen.deployed == Some(target);
    let is_stale = !named && seen.credentials.get(&target) == Some(&Age::Old);
    if is_stale || seen.occupied.contains_key(&target) {
        return Err(Next::step(Step::DeleteCredentials { token: target }));
    }
    if !seen.credentials.contains_key(&target) {
        return Err(Next::step(Step::CreateCredentials { token: target }));
    }
    if named {
        return Ok(**made);
    }
    let point = Next::step(Step::PointHeld { token: target }).starting(Timer::Retry);
    Err(look.reapply(point, &seen.writer))
}

/// The agent works with T.
///
/// | if | then |
/// |---|---|
/// | `stv-aggregation` does not say T and the address of the present template | wait; then restart the agent, held |
/// | there is no `system` | have Rancher redeploy the agent, which creates it |
/// | Rancher is about to redeploy the agent, or, storage `secret`, has not applied `system` | trigger it, and wait |
/// | the rollout is held | release it once a pod of the present template runs with T (rollback: point the Deployment back at the Secret of the pod that still runs, unless one with T has connected) |
/// | a pod without T exists, or none runs with T | wait |
/// | a fresh call through the tunnel fails | wait; then restart the agent, held: it may have started with the content that its Secret had before |
fn prove(look: Look<'_, Rescue>, placed: &Proof<'_, Target>) -> Stage<Target> {
    let seen = look.seen;
    let Some(target) = placed.0 else {
        return if seen.is_downstream_readable() && seen.held {
            Err(Next::step(back(seen)))
        } else {
            Ok(**placed)
        };
    };
    if !seen.is_connected(target) {
        return Err(stages::reconnect(look, target));
    }
    settled(look)?;
    if seen.held {
        return Err(if seen.runs_as_deployed(target) {
            Next::step(Step::Release)
        } else {
            look.wait(format!("a pod of the agent with {}", Named(&target)))
        });
    }
    if seen.pods.iter().any(|pod| pod.token != Some(target)) {
        return Err(look.wait("the agent's other pods to terminate"));
    }
    if !seen.runs(target) {
        return Err(look.wait(format!("a pod of the agent with {}", Named(&target))));
    }
    if seen.tunnel_works == Some(false) {
        return Err(tunnel(look, target));
    }
    Ok(**placed)
}

/// `stv-aggregation` may be older than the loss, and an agent keeps the token that it has read when it started.
fn tunnel(look: Look<'_, Rescue>, target: Fingerprint) -> Next<Rescue> {
    let run = look.run;
    if run.running(Timer::Retry) || !run.timers.contains_key(&Timer::Retry) {
        return look.wait("a call through the agent's tunnel").starting(Timer::Retry);
    }
    Next::step(Step::PointHeld { token: target }).starting(Timer::Retry)
}

/// The agent of before runs again, unless one with T is there already.
fn back(seen: &Observed) -> Step {
    let is_back = |token: &Fingerprint| seen.is_connected(*token) && seen.runs_as_deployed(*token);
    let mut other = seen
        .pods
        .iter()
        .filter(|pod| pod.ready && !pod.leaving && pod.token != seen.deployed);
    match other.find_map(|pod| pod.token) {
        Some(token) if !seen.deployed.is_some_and(|token| is_back(&token)) => Step::PointBack { token },
        _ => Step::Release,
    }
}

/// Rancher has nothing to deploy any more, so that the rotation that follows does not meet it.
fn settled(look: Look<'_, Rescue>) -> Stage<()> {
    let seen = look.seen;
    let Some(system) = &seen.system else {
        let what = "Rancher to redeploy the agent";
        return Err(match seen.trigger {
            Some(trigger) if seen.redeploys && !trigger.overdue => look.wait(what),
            _ => Next::step(Step::Redeploy).triggering(),
        });
    };
    if seen.redeploys {
        return Err(look.wait("Rancher to redeploy the agent"));
    }
    if seen.storage == TokenStorage::Secret && seen.applied != Some(system.token) {
        let plans = seen.provisioned().is_some();
        let what = "Rancher to apply the token of \"system\"";
        return Err(triggered(look, system.token, Step::TriggerApply { plans }, what));
    }
    Ok(())
}

/// Nothing that a rescue has made valid again is valid any more.
///
/// | if | then |
/// |---|---|
/// | a temporary registration token with D exists | delete it |
/// | storage `secret`: a token has D as its previous one | drop it |
///
/// The end of the grace period stays in the token's status, where Rancher removes it: a write of a former holder of the lock that
/// arrives late finds it there.
fn retire(look: Look<'_, Rescue>, proven: &Proof<'_, Target>) -> Stage<Target> {
    let seen = look.seen;
    if let Some((token, by)) = seen.reactivated.first_key_value() {
        let token = *token;
        return Err(Next::step(match by {
            Reactivated::Temporary => Step::DeleteTemporary { token },
            Reactivated::Previous(name) => Step::DropPrevious {
                name: name.clone(),
                token,
            },
        }));
    }
    Ok(**proven)
}

/// Rancher rejects D, and nothing of it is left.
///
/// | if | then |
/// |---|---|
/// | Rancher accepts D, or the answer is unknown, and no token has it that was not made for a rescue | wait |
/// | forward: the agent's Secret with D exists, and neither the Deployment nor a pod uses it | delete it |
fn confirm(look: Look<'_, Rescue>, retired: &Proof<'_, Target>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let lost = run.record.old;
    let was_revoked = Some(lost) != target(seen) && !seen.is_held(lost) && !seen.foreign.contains(&lost);
    if was_revoked && lost != no_token() && seen.acceptance_of(lost).may_be_accepted() {
        return Err(look.wait(format!("Rancher to reject {lost}")));
    }
    let is_used = seen.is_placed(lost) || retired.0.is_none_or(|target| target == lost);
    if seen.credentials.contains_key(&lost) && !is_used {
        return Err(Next::step(Step::DeleteCredentials { token: lost }));
    }
    Ok(())
}

impl Rotation for Rescue {
    const KIND: &'static str = "rescue";
    const KINDS: &'static [&'static str] = super::Crt::KINDS;
    const FIELD_MANAGER: &'static str = FIELD_MANAGER;
    const QUIET_FLAG: &'static str = super::Crt::QUIET_FLAG;
    const CHECKS: &'static [Check] = check::ALL;

    type Observed = Observed;
    type Record = Record;
    type Step = Step;
    type Made = Target;
    type Placed = Target;
    type Proven = Target;
    type Retired = Target;

    fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
        survey(seen)
    }

    fn guard(look: Look<'_, Self>) -> Stage<()> {
        guard(look)
    }

    fn make(look: Look<'_, Self>) -> Stage<Target> {
        make(look)
    }

    fn place<'look>(look: Look<'look, Self>, made: &Proof<'look, Target>) -> Stage<Target> {
        place(look, made)
    }

    fn prove<'look>(look: Look<'look, Self>, placed: &Proof<'look, Target>) -> Stage<Target> {
        prove(look, placed)
    }

    fn retire<'look>(look: Look<'look, Self>, proven: &Proof<'look, Target>) -> Stage<Target> {
        retire(look, proven)
    }

    fn confirm<'look>(look: Look<'look, Self>, retired: &Proof<'look, Target>) -> Stage<()> {
        confirm(look, retired)
    }

    /// What was made valid again is made invalid when the agent does not come back in time.
    fn is_restorable(look: Look<'_, Self>) -> bool {
        !look.seen.reactivated.is_empty()
    }

    fn takes_away(look: Look<'_, Self>) -> bool {
        !look.seen.reactivated.is_empty()
    }

    fn recall(seen: &Observed, claimed: &Run<Self>) -> Option<Record> {
        let restarted_at = claimed.record.restarted_at.clone();
        Some(Record {
            restarted_at: restarted_at.filter(|mark| seen.restarted_at.as_ref() == Some(mark)),
            ..record(seen)
        })
    }

    fn intend(step: &Step, run: &Run<Self>, draw: &mut dyn Draw) -> Record {
        predict::intend(step, &as_rotation(run), draw)
    }

    fn predict(seen: &mut Observed, run: &Run<Self>, step: &Step) {
        predict::predict(seen, &as_rotation(run), step);
    }

    fn settle(seen: &mut Observed, _: &Run<Self>) {
        predict::settle_rescue(seen);
    }

    fn action(_: &Record) -> Action {
        Self::ACTION
    }

    fn credentials(record: &Record) -> Credentials {
        Credentials {
            old: record.old,
            new: record.new,
        }
    }

    fn start(seen: &Observed, record: &Record) -> String {
        report::rotation::start_of_rescue(seen, record)
    }

    fn also_invalidated(_: &Plan<Self>) -> Vec<String> {
        Vec::new()
    }
}
