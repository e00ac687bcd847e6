//! The part of the stages that only a cluster has that Rancher provisioned: F, the first registration token by name, and the plans of
//! the control-plane machines, through which Rancher's planner deploys it.
//!
//! RKE2 and K3s apply the file of a machine's last plan at every start of the server. So a value is in use until no machine has it.

use client::secret::Fingerprint;
use engine::phase::Phase;
use engine::plan::Named;
use engine::rotation::{Blocker, Look, Next, Timer};
use engine::run::Run;
use rancher::TokenStorage;
use rancher::token::SYSTEM;

use super::Crt;
use super::observed::{Grace, MachinePlan, Observed, Plans, Provisioned, Reconfiguration};
use super::stages::{Stage, other, target};
use super::step::Step;

/// What the planner deploys at the end: N; in a rollback the value that F had before.
fn planned_target(seen: &Observed, run: &Run<Crt>) -> Option<Fingerprint> {
    let Some((first, value)) = seen.first().filter(|_| run.direction.is_rollback()) else {
        return target(run);
    };
    Some(value_before(seen, &first.name, value))
}

/// The value that a rollback restores. What cannot be read anywhere is left.
fn value_before(seen: &Observed, name: &str, value: Fingerprint) -> Fingerprint {
    let before = seen.given.get(name).map(|mark| mark.before);
    before.filter(|before| seen.has_value(*before)).unwrap_or(value)
}

/// Why no run begins.
pub(super) fn blocker(seen: &Observed, old: Fingerprint) -> Option<Blocker> {
    let provisioned = seen.provisioned()?;
    if let Some((first, _)) = seen.first()
        && seen.others_previous.get(&first.name) == Some(&old)
        && !seen.is_held(old)
    {
        return Some(Blocker::new(
            format!(
                "Rancher has rotated registration token \"{}\" by itself, and the agent still uses its previous value {old}",
                first.name
            ),
            "change the cluster, for example an annotation of it, so that Rancher deploys the present value; then run the command again",
        ));
    }
    match &provisioned.plans {
        Plans::Read(machines) if machines.is_empty() => Some(Blocker::new(
            "no control-plane machine of it has a plan",
            "wait until Rancher shows its machines as running",
        )),
        Plans::Read(_) => None,
        Plans::Unreadable(_) => unreadable(seen),
    }
}

fn unreadable(seen: &Observed) -> Option<Blocker> {
    let blocker = || {
        Blocker::new(
            "no permission to read the plans of its control-plane machines, which may apply the old token again",
            "request that permission; with --force=weak-proof the condition Ready of the provisioning cluster is trusted instead",
        )
        .unless_forced("weak-proof")
    };
    (!seen.weak_proof_forced).then(blocker)
}

/// A previous value of F that is in use would be lost when F gets another one: Rancher has rotated F by itself, and written no plan
/// since (seen on Rancher 2.15.0). First whatever uses it gets the present value.
pub(super) fn leave_previous(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let Some(provisioned) = seen.provisioned() else {
        return Ok(());
    };
    let Some((first, value)) = seen.first() else {
        return match &provisioned.first {
            Some(first) => Err(look.wait(format!("registration token \"{}\" to have a value", first.name))),
            None => Ok(()),
        };
    };
    let previous = seen.others_previous.get(&first.name).copied();
    let lost = previous.filter(|previous| seen.is_in_use(*previous) && !seen.is_held(*previous));
    let is_overwritten = planned_target(seen, run) != Some(value);
    let is_restored = |previous: Fingerprint| planned_target(seen, run) == Some(previous);
    match lost.filter(|previous| is_overwritten && !is_restored(*previous)) {
        Some(previous) => Err(trigger(look, &format!("every machine and agent to leave {previous}"))),
        None => Ok(()),
    }
}

/// F has T, and whatever a machine or an agent may still use stays valid. In a rollback each token has the value that it had before.
pub(super) fn give(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let Some(provisioned) = seen.provisioned() else {
        return Ok(());
    };
    if run.direction.is_rollback() {
        restore(look, provisioned)?;
    } else if let Some(((first, value), target)) = seen.first().zip(target(run))
        && value != target
    {
        keep_replaced(seen, provisioned, &first.name, value)?;
        // From now on the planner may deploy N at any event, before N is proven.
        if !seen.held && run.phase <= Phase::Place && seen.is_downstream_readable() {
            return Err(Next::step(Step::Hold));
        }
        return Err(set(seen, &first.name, value, target));
    }
    keep_valid(seen, run)
}

/// Each token that this run, or a late write of it, may change is written, even if it has its value already.
fn restore(look: Look<'_, Crt>, provisioned: &Provisioned) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let is_first = |name: &String| provisioned.first.as_ref().is_some_and(|first| first.name == *name);
    for (name, value) in &seen.others {
        let mark = seen.given.get(name);
        if mark.is_none() && !is_first(name) && !run.record.others.contains_key(name) {
            continue;
        }
        let before = value_before(seen, name, *value);
        if *value != before || mark.is_none_or(|mark| !mark.direction.is_rollback()) {
            if *value != before {
                keep_replaced(seen, provisioned, name, *value)?;
            }
            return Err(set(seen, name, *value, before));
        }
    }
    Ok(())
}

fn set(seen: &Observed, name: &str, value: Fingerprint, token: Fingerprint) -> Next<Crt> {
    let before = seen.given.get(name).map_or(value, |mark| mark.before);
    let previous = if value == token {
        seen.others_previous.get(name).copied()
    } else {
        Some(value)
    };
    let name = name.to_owned();
    Next::step(Step::SetOther {
        name,
        token,
        before,
        previous: previous.filter(|_| seen.storage == TokenStorage::Secret),
    })
    .stopping(Timer::Quiet)
}

/// The value that a token has now must stay valid when another one replaces it.
fn keep_replaced(seen: &Observed, provisioned: &Provisioned, name: &str, value: Fingerprint) -> Stage<()> {
    if seen.foreign.contains(&value) {
        return Ok(());
    }
    let name = name.to_owned();
    let mut first = provisioned.first.iter().filter(|first| first.name == name);
    match seen.storage {
        TokenStorage::Status if seen.is_held_beside(&name, value) => Ok(()),
        TokenStorage::Status => Err(Next::step(Step::CreateTemporary { token: value })),
        TokenStorage::Secret if first.any(|first| first.status_grace == Some(Grace::Near)) => {
            Err(Next::step(Step::PostponeGrace { name }))
        }
        TokenStorage::Secret => Ok(()),
    }
}

/// The value that F had before, or N in a rollback, stays valid for as long as anything uses it.
fn keep_valid(seen: &Observed, run: &Run<Crt>) -> Stage<()> {
    let Some((first, value)) = seen.first() else {
        return Ok(());
    };
    let before = if run.direction.is_rollback() {
        other(run)
    } else {
        seen.given.get(&first.name).map(|mark| mark.before)
    };
    let needed = before.filter(|before| *before != value && seen.is_in_use(*before) && !seen.foreign.contains(before));
    let Some(token) = needed.filter(|token| seen.has_value(*token) && !seen.is_held(*token)) else {
        return Ok(());
    };
    let name = first.name.clone();
    let kept = seen.others_previous.get(&name) == Some(&token);
    Err(Next::step(match seen.storage {
        TokenStorage::Status => Step::CreateTemporary { token },
        TokenStorage::Secret if kept && first.status_grace == Some(Grace::Near) => Step::PostponeGrace { name },
        TokenStorage::Secret if kept && first.protected => return Ok(()),
        TokenStorage::Secret => Step::Protect { name, token },
    }))
}

/// Whether F keeps this value valid as its previous one.
pub(super) fn keeps(seen: &Observed, token: Fingerprint) -> bool {
    let mut first = seen.first().into_iter();
    first.any(|(first, _)| {
        first.protected
            && first.status_grace != Some(Grace::Near)
            && seen.others_previous.get(&first.name) == Some(&token)
    })
}

/// A machine may bring X to the agent soon, by itself, while T is not proven on every machine: only to a held rollout.
pub(super) fn may_deploy_other(seen: &Observed, run: &Run<Crt>) -> bool {
    let Some(provisioned) = seen.provisioned().filter(|_| run.direction.is_rollback()) else {
        return false;
    };
    match &provisioned.plans {
        Plans::Read(machines) => {
            let has_other = |machine: &MachinePlan| {
                let has = |value: Option<Fingerprint>| {
                    value.is_some() && value == other(run) && value != planned_target(seen, run)
                };
                has(machine.planned) || has(machine.applied)
            };
            machines.values().any(|machine| machine.answers && has_other(machine))
        }
        Plans::Unreadable(_) => !seen.given.is_empty() && !is_settled(seen, run),
    }
}

/// Every control-plane machine that answers has applied the plan with T.
pub(super) fn prove(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let (Some(provisioned), Some(target)) = (seen.provisioned(), planned_target(seen, run)) else {
        return Ok(());
    };
    let what = format!(
        "Rancher to write the plans of the control-plane machines with {}",
        Named(&target)
    );
    match &provisioned.plans {
        Plans::Read(machines) => {
            if machines.is_empty() {
                return Err(look.wait("a plan of a control-plane machine"));
            }
            if machines.values().any(|machine| machine.planned != Some(target)) {
                return Err(trigger(look, &what));
            }
            let mut waited = machines
                .iter()
                .filter(|(_, machine)| machine.answers && !has_applied(machine, target));
            match waited.next() {
                // It answers, or is found not to: the run never turns back for it.
                Some((name, _)) => Err(Next::wait(format!(
                    "machine {name} to apply its plan with {}",
                    Named(&target)
                ))),
                None => Ok(()),
            }
        }
        Plans::Unreadable(ready) => {
            if let Some(blocker) = unreadable(seen) {
                return Err(Next::Refuse(vec![blocker]));
            }
            match ready {
                _ if !is_triggered(seen) => Err(trigger(look, &what)),
                Reconfiguration::InProgress => Err(Next::wait("the provisioning cluster to be Ready again")),
                _ if is_reconfigured(seen, *ready) => Ok(()),
                _ => Err(look.wait("the provisioning cluster to leave Ready")),
            }
        }
    }
}

fn has_applied(machine: &MachinePlan, target: Fingerprint) -> bool {
    machine.planned == Some(target) && machine.applied == Some(target) && machine.is_applied
}

/// Every machine has applied the plan that came of the last trigger, by the condition `Ready`. It does not leave True where an event of
/// Rancher's own had brought the same plan before; a plan is written within a second (seen on Rancher 2.15.0).
fn is_reconfigured(seen: &Observed, ready: Reconfiguration) -> bool {
    let overdue = seen.trigger.is_some_and(|trigger| trigger.overdue);
    is_triggered(seen) && (ready == Reconfiguration::Finished || ready == Reconfiguration::NotSeen && overdue)
}

/// The last trigger came when F had the value that it has now.
fn is_triggered(seen: &Observed) -> bool {
    let system = seen.system.as_ref().map(|system| system.token);
    seen.trigger
        .is_some_and(|trigger| trigger.first == seen.planner_renders() && Some(trigger.token) == system)
}

/// The planner renders F only when the Cluster, the provisioning cluster, a plan or a machine changes (seen on Rancher 2.15.0).
fn trigger(look: Look<'_, Crt>, what: &str) -> Next<Crt> {
    let overdue = look.seen.trigger.is_none_or(|trigger| trigger.overdue);
    if is_triggered(look.seen) && !overdue {
        return look.wait(what);
    }
    Next::step(Step::TriggerApply { plans: true }).triggering()
}

/// Whether the quiet time may run: every machine that answers has the file with T. RKE2 and K3s read it up to 15 s later.
pub(super) fn is_settled(seen: &Observed, run: &Run<Crt>) -> bool {
    let (Some(provisioned), Some(target)) = (seen.provisioned(), planned_target(seen, run)) else {
        return true;
    };
    let first_has_it = seen.first().is_none_or(|(_, value)| value == target);
    first_has_it
        && match &provisioned.plans {
            Plans::Read(machines) => {
                let mut answering = machines.values().filter(|machine| machine.answers);
                answering.all(|machine| has_applied(machine, target))
            }
            Plans::Unreadable(ready) => is_reconfigured(seen, *ready),
        }
}

/// A machine that does not answer keeps the file with X, and brings it back at the next start of its server. Nothing is revoked before
/// it has applied T or is deleted; what is kept valid is kept as long as possible.
pub(super) fn every_machine(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let (Some(provisioned), Some(target)) = (seen.provisioned(), planned_target(seen, run)) else {
        return Ok(());
    };
    let silent = seen.machines().filter(|(_, machine)| !has_applied(machine, target));
    let silent: Vec<&str> = silent.map(|(name, _)| name.as_str()).collect();
    if silent.is_empty() || provisioned.machine_forced {
        return Ok(());
    }
    if let Some(name) = provisioned.aging.first() {
        let previous = if name == SYSTEM {
            seen.system.as_ref().and_then(|system| system.previous)
        } else {
            seen.others_previous.get(name).copied()
        };
        if let Some(token) = previous {
            let name = name.clone();
            return Err(Next::step(Step::Protect { name, token }));
        }
    }
    let (machines, has) = match silent.as_slice() {
        [one] => (format!("control-plane machine {one}"), "has"),
        several => (format!("control-plane machines {}", several.join(", ")), "have"),
    };
    let reason = format!(
        "{machines} {has} not applied the plan with {}, and would go back to another value at the next start of the server; nothing is \
         revoked until then",
        Named(&target)
    );
    let hint = "start its system-agent, or delete the Machine in Rancher if the node is gone, and run the command again; with \
                --force=machine the agent loses its connection when that server starts, until its system-agent has applied the plan";
    Err(Next::Pause(Blocker::new(reason, hint).unless_forced("machine")))
}

/// The other registration tokens that this run has given a value, and what each keeps as its previous one that is to be revoked.
pub(super) fn previous_of_given<'seen>(
    seen: &'seen Observed,
    run: &Run<Crt>,
) -> impl Iterator<Item = (&'seen String, &'seen Fingerprint)> {
    let (rollback, new, target) = (run.direction.is_rollback(), run.record.new, target(run));
    seen.given.iter().filter_map(move |(name, mark)| {
        let (name, previous) = seen.others_previous.get_key_value(name)?;
        let ours = if rollback {
            Some(*previous) == new
        } else {
            *previous == mark.before
        };
        (ours && Some(*previous) != target).then_some((name, previous))
    })
}
