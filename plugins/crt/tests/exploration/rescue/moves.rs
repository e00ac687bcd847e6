//! What Kubernetes, the agent and Rancher do.

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use kubectl_crt::rotation::observed::{Age, DownstreamAccess, Observed, Pod, SystemToken};
use kubectl_crt::rotation::step::Step;
use model::{Help, Move};
use rancher::TokenStorage;

use crate::environment::HERE;

use super::environment::{RescueModel, World, is_current, lost, template};

/// What the agent in this pod has read when it started.
pub(super) fn token_of(world: &World, pod: &Pod) -> Option<Fingerprint> {
    world.memory.processes.get(&template(pod)).copied().or(pod.token)
}

/// Whether a restart gives the agent in this pod another token.
pub(super) fn rereads(world: &World, pod: &Pod) -> bool {
    let exists = |token: &Fingerprint| world.seen.credentials.contains_key(token);
    world.memory.processes.contains_key(&template(pod)) && pod.token.as_ref().is_some_and(exists)
}

/// The mutant's view: the Secret of each name has the content that it should have.
pub(super) fn by_name(seen: &mut Observed) {
    for (token, name) in std::mem::take(&mut seen.occupied) {
        seen.credentials.insert(token, Age::Young);
        if name == seen.named_secret {
            seen.deployed = Some(token);
        }
    }
}

pub(super) fn step(name: impl Into<String>, help: Help, to: World) -> Move<RescueModel> {
    Move {
        name: name.into(),
        help,
        to,
    }
}

/// Where only the agent leads to the cluster, it is out of reach without a tunnel.
pub(super) fn close(world: &mut World, pod: &Pod, direct: bool) {
    world.memory.tunnels.remove(&template(pod));
    if !world.memory.tunnels.is_empty() {
        return;
    }
    world.seen.tunnel_works = Some(false);
    if !direct {
        world.seen.access = DownstreamAccess::Unreachable;
    }
}

/// The Deployment controller and the kubelet, one replica with maxSurge 1 and maxUnavailable 0.
pub(super) fn roll_out(world: &World, direct: bool, moves: &mut Vec<Move<RescueModel>>) {
    let seen = &world.seen;
    let current = seen.pods.iter().find(|pod| is_current(seen, pod));
    if current.is_none() {
        let mut to = world.clone();
        // A pod of the template before the last one makes room.
        while to.seen.pods.len() > 1 {
            let idle = to
                .seen
                .pods
                .iter()
                .find(|pod| !world.memory.tunnels.contains(&template(pod)))
                .cloned();
            let Some(idle) = idle.or_else(|| to.seen.pods.last().cloned()) else {
                break;
            };
            close(&mut to, &idle, direct);
            to.memory.processes.remove(&template(&idle));
            to.seen.pods.remove(&idle);
        }
        to.seen.pods.insert(Pod {
            token: seen.deployed,
            restarted_at: seen.restarted_at.clone(),
            address: *HERE,
            ready: false,
            leaving: false,
        });
        moves.push(step("Kubernetes creates a pod", Help::Helps, to));
    }
    for pod in &seen.pods {
        let mut to = world.clone();
        let is_ready = current.is_some_and(|current| current.ready);
        if !is_current(seen, pod) && !seen.held && is_ready {
            to.seen.pods.remove(pod);
            to.memory.processes.remove(&template(pod));
            close(&mut to, pod, direct);
            moves.push(step("Kubernetes removes a pod of another template", Help::Helps, to));
        } else if !pod.ready && pod.token.is_some_and(|token| seen.credentials.contains_key(&token)) {
            to.seen.pods.remove(pod);
            to.seen.pods.insert(Pod {
                ready: true,
                ..pod.clone()
            });
            moves.push(step("a pod starts", Help::Helps, to));
        }
    }
}

pub(super) fn rancher(world: &World, moves: &mut Vec<Move<RescueModel>>) {
    let seen = &world.seen;
    let held: BTreeSet<_> = seen.held_values().into_iter().collect();
    let accepted: BTreeSet<_> = seen.acceptance.keys().copied().collect();
    for token in held.symmetric_difference(&accepted) {
        let mut to = world.clone();
        let learns = to.seen.acceptance.insert(*token, Acceptance::Accepted).is_none();
        if !learns {
            to.seen.acceptance.remove(token);
        }
        let name = if learns {
            "Rancher learns a token"
        } else {
            "Rancher forgets a token"
        };
        moves.push(step(name, Help::Helps, to));
    }
    let is_working = world.memory.event || world.memory.rendered.is_some();
    if seen.trigger.is_some_and(|trigger| !trigger.overdue) && !is_working && !world.is_sending() {
        let mut to = world.clone();
        to.seen.trigger.iter_mut().for_each(|trigger| trigger.overdue = true);
        moves.push(step("a minute passes after the trigger", Help::Helps, to));
    }
    if world.memory.event && world.memory.rendered.is_none() {
        let mut to = world.clone();
        to.memory.event = false;
        reconcile(&mut to);
        moves.push(step("Rancher reconciles the cluster", Help::Helps, to));
    }
    if let Some(token) = world.memory.rendered.filter(|_| !world.memory.tunnels.is_empty()) {
        let mut to = world.clone();
        to.memory.rendered = None;
        to.seen.credentials.entry(token).or_insert(Age::Young);
        if to.seen.occupied.remove(&token).is_some() {
            freed(&mut to, token);
        }
        to.seen.deployed = Some(token);
        to.seen.redeploys = false;
        if seen.storage == TokenStorage::Secret {
            to.seen.applied = Some(token);
        }
        moves.push(step("the redeploy is applied", Help::Helps, to));
    }
    // It does not pass while a write that depends on it is in progress: that takes much less than the time that is left.
    let depends = matches!(world.sending(), Some(Step::Reactivate { .. }));
    if let Some(name) = seen.ending.first().filter(|_| world.memory.ends > 0 && !depends) {
        let mut to = world.clone();
        to.memory.ends -= 1;
        to.seen.ending.remove(name);
        end(&mut to.seen, name);
        moves.push(step("Rancher ends the grace period", Help::Disturbs, to));
    }
}

/// Any event brings a missing `default-token` back; a redeploy, a missing `system`. It is pushed through the tunnel.
fn reconcile(world: &mut World) {
    let seen = &mut world.seen;
    seen.others
        .entry("default-token".to_owned())
        .or_insert_with(|| Fingerprint::of("another default"));
    let is_open = !world.memory.tunnels.is_empty();
    if seen.redeploys && is_open && seen.system.is_none() {
        seen.system = Some(SystemToken {
            token: Fingerprint::of("another system"),
            previous: None,
            protected: true,
        });
    }
    let system = seen.system.as_ref().map(|system| system.token);
    let is_changed = seen.storage == TokenStorage::Secret && seen.applied != system;
    if is_open && (seen.redeploys || is_changed) {
        world.memory.rendered = system;
    }
}

fn end(seen: &mut Observed, name: &str) {
    let Some(previous) = previous(seen, name) else { return };
    seen.reactivated.remove(&previous);
    if let Some(system) = seen.system.as_mut().filter(|_| name == "system") {
        system.previous = None;
    } else {
        seen.others_previous.remove(name);
    }
}

fn previous(seen: &Observed, name: &str) -> Option<Fingerprint> {
    if name == "system" {
        seen.system.as_ref()?.previous
    } else {
        seen.others_previous.get(name).copied()
    }
}

/// The Secret that was overwritten is gone, or has its own value again. Its pods keep running with what they have read.
pub(super) fn freed(world: &mut World, token: Fingerprint) {
    if !std::mem::take(&mut world.memory.overwritten) {
        return;
    }
    world.seen.credentials.remove(&lost());
    for pod in std::mem::take(&mut world.seen.pods) {
        let of_pod = |token| (Some(token), pod.restarted_at.clone());
        let process = world.memory.processes.remove(&of_pod(lost())).unwrap_or_else(lost);
        if process != token && pod.ready {
            world.memory.processes.insert(of_pod(token), process);
        }
        if world.memory.tunnels.remove(&of_pod(lost())) {
            world.memory.tunnels.insert(of_pod(token));
        }
        let token = Some(token);
        world.seen.pods.insert(Pod { token, ..pod });
    }
}
