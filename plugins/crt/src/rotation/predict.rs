//! The effect of each step, and the state that both clusters reach by themselves.

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::run::{Draw, Run};
use rancher::TokenStorage;
use rancher::token::{DEFAULT, SYSTEM};

use super::Crt;
use super::observed::{
    Address, Age, AgentConnection, DownstreamAccess, GivenMark, Grace, Kind, Observed, Plans, Pod, Reactivated,
    Reconfiguration, SystemToken, Trigger, no_token,
};
use super::record::{Mark, Record};
use super::step::Step;

/// The record that is journaled before the step is sent.
pub(super) fn intend(step: &Step, run: &Run<Crt>, draw: &mut dyn Draw) -> Record {
    let mut record = run.record.clone();
    match step {
        Step::Adopt { token } => record.new = Some(*token),
        Step::SetNew => record.new = Some(draw.credential()),
        Step::PointHeld { .. } => record.restarted_at = Some(draw.mark()),
        _ => {}
    }
    record
}

/// What is observed right after the step.
pub(super) fn predict(seen: &mut Observed, run: &Run<Crt>, step: &Step) {
    match step {
        Step::Adopt { .. } => seen.mark = Some(Mark::of(run)),
        Step::TriggerApply { .. } => {
            let system = seen.system.as_ref();
            seen.trigger = system.map(|system| Trigger {
                token: system.token,
                first: seen.planner_renders(),
                overdue: false,
            });
        }
        Step::CreateTemporary { token } => drop(seen.temporary.insert(*token)),
        Step::DeleteTemporary { token } => {
            seen.temporary.remove(token);
            seen.reactivated.remove(token);
        }
        Step::Recreate | Step::Redeploy => {
            let token = seen.system.as_ref().map_or_else(no_token, |system| system.token);
            let first = seen.planner_renders();
            seen.trigger = Some(Trigger {
                token,
                first,
                overdue: false,
            });
            seen.redeploys |= matches!(step, Step::Redeploy);
        }
        Step::LimitGrace { name } => {
            seen.ending.insert(name.clone());
            set_status_grace(seen, name, Some(Grace::Near));
        }
        Step::Reactivate { token, by } => {
            seen.reactivated.insert(*token, by.clone());
            match by {
                Reactivated::Temporary => drop(seen.temporary.insert(*token)),
                Reactivated::Previous(name) => set_previous(seen, name, Some(*token)),
            }
        }
        Step::PostponeGrace { name } => set_status_grace(seen, name, Some(Grace::Far)),
        Step::ClearGrace { name } => {
            seen.ending.remove(name);
            set_status_grace(seen, name, None);
        }
        Step::SetNew => {
            let system = seen.system.as_ref().map(|system| system.token);
            let previous = system.filter(|_| seen.storage == TokenStorage::Secret);
            set_system(seen, run, run.record.new, previous);
        }
        Step::Restore { token, previous } => set_system(seen, run, Some(*token), *previous),
        Step::SetOther {
            name,
            token,
            before,
            previous,
        } => {
            let (direction, before) = (run.direction, *before);
            seen.others.insert(name.clone(), *token);
            seen.given.insert(name.clone(), GivenMark { direction, before });
            set_previous(seen, name, *previous);
        }
        Step::Protect { name, token } => set_previous(seen, name, Some(*token)),
        Step::DropPrevious { name, token } => {
            seen.reactivated.remove(token);
            set_previous(seen, name, None);
        }
        Step::CreateCredentials { token } => drop(seen.credentials.insert(*token, Age::Young)),
        Step::DeleteCredentials { token } => {
            seen.credentials.remove(token);
            if seen.occupied.remove(token).as_ref() == Some(&seen.named_secret) {
                free_named_secret(seen, *token);
            }
        }
        Step::DeleteLeftover { secret } => drop(seen.leftovers.remove(secret)),
        Step::Hold => seen.held = true,
        Step::PointHeld { token } => {
            seen.deployed = Some(*token);
            seen.held = true;
            restore_address(seen, run);
            seen.restarted_at.clone_from(&run.record.restarted_at);
            seen.deployment_direction = Some(run.direction).filter(|direction| direction.is_rollback());
        }
        Step::PointBack { token } => {
            seen.deployed = Some(*token);
            seen.held = false;
            restore_address(seen, run);
            seen.deployment_direction = Some(Direction::Rollback);
            // The template is that of the pod that still runs, so that Kubernetes keeps this pod.
            let mark = seen.running(*token).next().map(|pod| pod.restarted_at.clone());
            if let Some(mark) = mark {
                seen.restarted_at = mark;
            }
        }
        Step::Fence => seen.deployment_direction = Some(Direction::Rollback),
        Step::Release => seen.held = false,
        Step::Renew { name } => {
            let renewed = Fingerprint::of(name);
            let was_renewed = seen.others.get(name) == Some(&renewed);
            let value = if was_renewed {
                Fingerprint::of(&format!("{name} again"))
            } else {
                renewed
            };
            seen.others.insert(name.clone(), value);
            seen.others_previous.remove(name);
        }
    }
}

/// The Secret that the Deployment names had another content than it should: its name stands for its own value again, also where a pod
/// that has started with the other content mounts it.
fn free_named_secret(seen: &mut Observed, token: Fingerprint) {
    let Some(content) = seen.deployed.replace(token) else {
        return;
    };
    seen.credentials.remove(&content);
    let pods = std::mem::take(&mut seen.pods).into_iter();
    seen.pods = pods
        .map(|pod| Pod {
            token: pod.token.map(|of_pod| if of_pod == content { token } else { of_pod }),
            ..pod
        })
        .collect();
}

/// Sets the previous value of a token, or drops it, in storage `secret`; with a far grace period.
fn set_previous(seen: &mut Observed, name: &str, previous: Option<Fingerprint>) {
    if let Kind::Provisioned(provisioned) = &mut seen.kind {
        provisioned.aging.remove(name);
        let first = provisioned.first.iter_mut().filter(|first| first.name == name);
        first.for_each(|first| first.protected = true);
    }
    if name == SYSTEM {
        if let Some(system) = &mut seen.system {
            system.previous = previous;
            system.protected |= previous.is_some();
        }
    } else if let Some(previous) = previous {
        seen.others_previous.insert(name.to_owned(), previous);
    } else {
        seen.others_previous.remove(name);
    }
}

fn set_status_grace(seen: &mut Observed, name: &str, grace: Option<Grace>) {
    match &mut seen.kind {
        Kind::Provisioned(provisioned) if name != SYSTEM => {
            let first = provisioned.first.iter_mut().filter(|first| first.name == name);
            first.for_each(|first| first.status_grace = grace);
        }
        _ => seen.status_grace = grace,
    }
}

/// A rollback restores the address of the start.
fn restore_address(seen: &mut Observed, run: &Run<Crt>) {
    if run.direction.is_rollback() {
        let original = &run.record.server_address;
        seen.address = Address::of(Some(&original.server), Some(&original.ca_checksum));
        seen.server_address = original.clone();
    }
}

fn set_system(seen: &mut Observed, run: &Run<Crt>, token: Option<Fingerprint>, previous: Option<Fingerprint>) {
    let Some(token) = token else { return };
    seen.system = Some(SystemToken {
        token,
        previous,
        protected: true,
    });
    seen.mark = Some(Mark::of(run));
}

/// What is observed once everything has settled without interference.
pub(super) fn settle(seen: &mut Observed) {
    let held = seen.held_values().into_iter();
    seen.acceptance = held.map(|token| (token, Acceptance::Accepted)).collect();
    let current = Pod {
        token: seen.deployed,
        restarted_at: seen.restarted_at.clone(),
        address: seen.address,
        ready: true,
        leaving: false,
    };
    let is_new = !seen.pods.contains(&current) && seen.is_downstream_readable();
    if !seen.held {
        seen.pods.clear();
    }
    if seen.is_downstream_readable() {
        seen.pods.insert(current);
    }
    if is_new {
        let address = seen.address;
        seen.connected = seen.deployed.map(|token| AgentConnection { token, address });
    }
    // Rancher reconciles a cluster only when it changes: by itself it applies nothing (seen on Rancher 2.15.0).
    if let Some(trigger) = seen.trigger.filter(|_| seen.storage == TokenStorage::Secret) {
        seen.applied = Some(trigger.token);
    }
    // A rescue: the agent that the machines bring back opens it.
    let is_awaited = seen.access == DownstreamAccess::Unreachable && seen.trigger.is_some();
    seen.tunnel_works = seen.tunnel_works.or(is_awaited.then_some(true)).map(|_| true);
    settle_plans(seen);
}

/// An agent whose value is accepted again comes back by itself; what Rancher was asked for, it does.
pub(super) fn settle_rescue(seen: &mut Observed) {
    let of_plan = seen.first().map(|(_, token)| token).filter(|_| seen.trigger.is_some());
    let token = seen.reactivated.keys().next().copied().or(of_plan);
    if seen.access == DownstreamAccess::Unreachable && token.is_some() {
        seen.access = DownstreamAccess::Full;
        seen.deployed = token;
        seen.credentials.extend(token.map(|token| (token, Age::Old)));
    }
    if seen.trigger.is_some() && seen.system.is_none() && seen.others.is_empty() {
        seen.others.insert(DEFAULT.to_owned(), Fingerprint::of(DEFAULT));
    }
    if std::mem::take(&mut seen.redeploys) && seen.system.is_none() {
        let token = Fingerprint::of(SYSTEM);
        seen.system = Some(SystemToken {
            token,
            previous: None,
            protected: true,
        });
        seen.credentials.insert(token, Age::Young);
        seen.deployed = Some(token);
        seen.trigger = seen.trigger.map(|trigger| Trigger { token, ..trigger });
    }
    settle(seen);
}

/// The planner renders F when the Cluster changes, and the machines that answer apply their plans (seen on Rancher 2.15.0). What RKE2
/// and K3s apply then is what the Deployment has already.
fn settle_plans(seen: &mut Observed) {
    let rendered = seen.first().map(|(_, token)| token);
    let rendered = rendered.or(seen.system.as_ref().map(|system| system.token));
    let Some(trigger) = seen.trigger else { return };
    let is_rendered = trigger.first == seen.planner_renders();
    let Kind::Provisioned(provisioned) = &mut seen.kind else {
        return;
    };
    match &mut provisioned.plans {
        Plans::Unreadable(ready) if is_rendered => *ready = Reconfiguration::Finished,
        Plans::Unreadable(_) => {}
        Plans::Read(machines) => {
            for machine in machines.values_mut() {
                machine.planned = rendered;
                machine.is_applied = machine.answers;
                machine.applied = rendered.filter(|_| machine.answers).or(machine.applied);
            }
        }
    }
}
