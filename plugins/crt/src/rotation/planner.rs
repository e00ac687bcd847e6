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
use super::stages::{Stage, target};
use super::step::Step;
use crate::controller::check;

/// The value that a token had before this run. What cannot be read anywhere cannot be restored.
fn value_before(seen: &Observed, name: &str, value: Fingerprint) -> Fingerprint {
    let before = seen.given.get(name).map(|mark| mark.before);
    before.filter(|before| seen.has_value(*before)).unwrap_or(value)
}

/// *Retire* of a rollback gives each token back what it had. Until then F has O, so that both controllers deploy the same.
fn is_restored(seen: &Observed, run: &Run<Crt>, name: &str, value: Fingerprint) -> bool {
    let retires = run.direction.is_rollback() && !run.phase.can_be_undone();
    retires && seen.given.get(name).is_some_and(|mark| mark.before == value)
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

/// A rescue: the agent is not connected, and the machines bring it back with the new token.
pub(super) fn of_lost_agent(seen: &Observed) -> Result<Fingerprint, Blocker> {
    if !seen.machines().any(|(_, machine)| machine.answers) {
        return Err(Blocker::new(
            "its agent is not connected, and no control-plane machine answers",
            "start rancher-system-agent on a control-plane machine, or pass a context that does not go through Rancher with \
             --downstream-context",
        ));
    }
    let system = seen.system.as_ref().map(|system| system.token);
    let first = seen.first().map(|(_, token)| token);
    seen.applied
        .or(system)
        .or(first)
        .ok_or_else(|| Blocker::new("there is no registration token", "run `rescue` again"))
}

fn unreadable(seen: &Observed) -> Option<Blocker> {
    let blocker = || {
        Blocker::new(
            "no permission to read the plans of its control-plane machines, which may apply the old token again",
            "request that permission; with --force=weak-proof the condition Ready of the provisioning cluster is trusted instead",
        )
        .unless_forced(check::WEAK_PROOF.name)
    };
    (!seen.weak_proof_forced).then(blocker)
}

/// Before anything is written the rollout is held: from the moment at which F has N, the planner may deploy it at any event, before an
/// agent with N has connected.
///
/// A previous value of F that is in use would be lost when F gets another one: Rancher has rotated F by itself, and written no plan
/// since (seen on Rancher 2.15.0). So whatever uses it gets the present value first.
pub(super) fn prepare(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let Some(provisioned) = seen.provisioned() else {
        return Ok(());
    };
    let Some((first, value)) = seen.first() else {
        return match &provisioned.first {
            Some(first) => Err(look.wait(format!("registration token \"{}\" to have a value", first.name))),
            None => hold(look),
        };
    };
    let target = target(run);
    if Some(value) == target || is_restored(seen, run, &first.name, value) {
        return Ok(());
    }
    hold(look)?;
    let previous = seen.others_previous.get(&first.name).copied();
    let lost =
        previous.filter(|previous| Some(*previous) != target && seen.is_in_use(*previous) && !seen.is_held(*previous));
    match lost.filter(|_| !seen.given.contains_key(&first.name)) {
        Some(previous) => Err(trigger(look, &format!("every machine and agent to leave {previous}"))),
        None => Ok(()),
    }
}

/// A pod that has just started counts as unavailable then, and might be removed: not where T runs already.
fn hold(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let begins = !run.direction.is_rollback() && run.phase <= Phase::Place;
    let is_there = target(run).is_some_and(|target| seen.is_placed(target));
    if begins && !seen.held && !is_there && seen.is_downstream_readable() {
        return Err(Next::step(Step::Hold));
    }
    Ok(())
}

/// F has T, and whatever a machine or an agent may still use stays valid.
pub(super) fn give(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let (Some(provisioned), Some(target)) = (seen.provisioned(), target(run)) else {
        return Ok(());
    };
    if run.direction.is_rollback() {
        take_back(look, provisioned, target)?;
    } else if let Some((first, value)) = seen.first().filter(|(_, value)| *value != target) {
        keep_replaced(seen, provisioned, &first.name, value)?;
        return Err(set(seen, &first.name, value, target));
    }
    keep_valid(seen)
}

/// Each token that this run, or a late write of it, may change is written, even if it has its value already.
fn take_back(look: Look<'_, Crt>, provisioned: &Provisioned, target: Fingerprint) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let first = provisioned.first.as_ref().map(|first| first.name.as_str());
    for (name, value) in &seen.others {
        let mark = seen.given.get(name);
        let is_of_run = mark.is_some() || first == Some(name) || run.record.others.contains_key(name);
        if !is_of_run || is_restored(seen, run, name, *value) {
            continue;
        }
        let given = mark.is_some_and(|mark| mark.before != *value)
            || first == Some(name) && mark.is_none() && Some(*value) == run.record.new;
        let token = if given { target } else { *value };
        if *value != token || mark.is_none_or(|mark| !mark.direction.is_rollback()) {
            if *value != token {
                keep_replaced(seen, provisioned, name, *value)?;
            }
            return Err(set(seen, name, *value, token));
        }
    }
    Ok(())
}

/// A rollback: the tokens that have O, or N, get back what they had before.
pub(super) fn restore(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    for (name, mark) in &seen.given {
        let Some(value) = seen.others.get(name).filter(|_| run.direction.is_rollback()) else {
            continue;
        };
        let before = value_before(seen, name, *value);
        if *value != before {
            return Err(Next::step(Step::SetOther {
                name: name.clone(),
                token: before,
                before: mark.before,
                previous: None,
            }));
        }
    }
    Ok(())
}

fn set(seen: &Observed, name: &str, value: Fingerprint, token: Fingerprint) -> Next<Crt> {
    let before = seen.given.get(name).map_or(value, |mark| mark.before);
    let present = seen
        .others_previous
        .get(name)
        .copied()
        .filter(|previous| *previous != token);
    // There is one place. A rollback keeps the value of before there, since `system` keeps N.
    let previous = if value == token || present.is_some() && seen.is_held_beside(name, value) {
        present
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

/// The value that F had before stays valid for as long as anything uses it.
fn keep_valid(seen: &Observed) -> Stage<()> {
    let Some((first, value)) = seen.first() else {
        return Ok(());
    };
    let before = seen.given.get(&first.name).map(|mark| mark.before);
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
        Plans::Read(machines) => machines
            .values()
            .any(|machine| machine.answers && !is_done(machine, run)),
        Plans::Unreadable(_) => !seen.given.is_empty() && !is_settled(seen, run),
    }
}

/// Every control-plane machine that answers has applied the plan with T.
pub(super) fn prove(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let (Some(provisioned), Some(target)) = (seen.provisioned(), target(run)) else {
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
            if !machines.values().all(|machine| is_planned(machine, run)) {
                return Err(trigger(look, &what));
            }
            let mut waited = machines
                .iter()
                .filter(|(_, machine)| machine.answers && !is_done(machine, run));
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

/// Forward a plan has N. A rollback only needs plans without it: O and what F had before stay valid.
fn is_planned(machine: &MachinePlan, run: &Run<Crt>) -> bool {
    if run.direction.is_rollback() {
        machine.planned.is_none() || machine.planned != run.record.new
    } else {
        machine.planned.is_some() && machine.planned == run.record.new
    }
}

/// The machine has such a plan, and the files of it.
fn is_done(machine: &MachinePlan, run: &Run<Crt>) -> bool {
    is_planned(machine, run)
        && if run.direction.is_rollback() {
            machine.applied.is_none() || machine.applied != run.record.new
        } else {
            machine.applied == machine.planned && machine.is_applied
        }
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

/// Whether the quiet time may run: every machine has the file with T. RKE2 and K3s read it up to 15 s later, and a server that has
/// started meanwhile may still be applying the file before.
pub(super) fn is_settled(seen: &Observed, run: &Run<Crt>) -> bool {
    let (Some(provisioned), Some(target)) = (seen.provisioned(), target(run)) else {
        return true;
    };
    let first = seen.first();
    let first_has_it = first.is_none_or(|(first, value)| {
        value == target
            || run.direction.is_rollback() && seen.given.get(&first.name).is_none_or(|mark| mark.before == value)
    });
    first_has_it
        && match &provisioned.plans {
            Plans::Read(machines) => {
                let ignored = |machine: &MachinePlan| provisioned.machine_forced && !machine.answers;
                let mut machines = machines.values();
                machines.all(|machine| is_done(machine, run) || ignored(machine))
            }
            Plans::Unreadable(ready) => is_reconfigured(seen, *ready),
        }
}

/// A machine that does not answer keeps the file with X, and brings it back at the next start of its server. Nothing is revoked before
/// it has applied T or is deleted; what is kept valid is kept as long as possible.
pub(super) fn every_machine(look: Look<'_, Crt>) -> Stage<()> {
    let Look { seen, run, .. } = look;
    let (Some(provisioned), Some(target)) = (seen.provisioned(), target(run)) else {
        return Ok(());
    };
    let silent = seen.machines().filter(|(_, machine)| !is_done(machine, run));
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
    Err(Next::Pause(
        Blocker::new(reason, hint).unless_forced(check::MACHINE.name),
    ))
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
