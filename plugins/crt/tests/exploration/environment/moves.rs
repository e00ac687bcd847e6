//! What Kubernetes, Rancher, agents, operators and other writers do in the model during a rotation, with sources.

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::rotation::Next;
use kubectl_crt::rotation::observed::{
    Address, Age, AgentConnection, DownstreamAccess, Grace, Observed, Pod, SystemToken,
};
use model::{Environment as _, Help, Move};
use rancher::TokenStorage;

use super::{CrtModel, ENDLESS, HERE, THERE, Variant, World, old};
fn step(name: impl Into<String>, help: Help, to: World) -> Move<CrtModel> {
    Move {
        name: name.into(),
        help,
        to,
    }
}

/// Whether the agent that should connect has done so, and will not connect again before its tunnel breaks.
pub(super) fn has_connected(world: &World) -> bool {
    let seen = &world.seen;
    let mut current = seen
        .pods
        .iter()
        .filter(|pod| is_current(seen, pod) && pod.ready && !pod.leaving);
    let connected = seen.deployed.is_some_and(|named| seen.is_connected(named));
    !connected && current.any(|pod| world.memory.connected_once.contains(&template(pod)))
}

/// The Deployment controller sets `minReadySeconds` of the ReplicaSet of the present template, and of no other one
/// (kubernetes/kubernetes `pkg/controller/deployment/sync.go`, 1.36).
pub(super) fn settle_availability(world: &mut World) {
    let current: Vec<_> = world
        .seen
        .pods
        .iter()
        .filter(|pod| is_current(&world.seen, pod))
        .map(|pod| Pod {
            ready: true,
            ..pod.clone()
        })
        .collect();
    for pod in current {
        // Provisioned: the agent of the start has run for longer than any rollout is held.
        let of_start = pod.token == Some(old()) && pod.restarted_at.is_none() && world.seen.provisioned().is_some();
        if world.seen.held && !of_start {
            world.memory.unavailable.insert(pod);
        } else {
            world.memory.unavailable.remove(&pod);
        }
    }
}

/// The Deployment controller with maxSurge 1 and maxUnavailable 0, one replica (rolling.go, 1.36), and the kubelet.
pub(super) fn roll_out(world: &World, moves: &mut Vec<Move<CrtModel>>) {
    let seen = &world.seen;
    let staying: Vec<_> = seen.pods.iter().filter(|pod| !pod.leaving).collect();
    let available = |pod: &Pod| pod.ready && !world.memory.unavailable.contains(pod);
    let current = staying.iter().find(|pod| is_current(seen, pod));
    if current.is_none() && staying.len() < 2 {
        let mut to = world.clone();
        let pod = Pod {
            token: seen.deployed,
            restarted_at: seen.restarted_at.clone(),
            address: seen.address,
            ready: false,
            leaving: false,
        };
        // Its ReplicaSet keeps the present `minReadySeconds`, also for a pod that starts later.
        if seen.held {
            let started = Pod {
                ready: true,
                ..pod.clone()
            };
            to.memory.unavailable.insert(started);
        }
        to.seen.pods.insert(pod);
        moves.push(step("Kubernetes creates a pod", Help::Helps, to));
    }
    let new_unavailable = usize::from(current.is_some_and(|pod| !available(pod)));
    let available_now = staying.iter().filter(|pod| available(pod)).count();
    for pod in staying.iter().filter(|pod| !is_current(seen, pod)) {
        let spare = staying.len() > 1 + new_unavailable;
        if spare && (!available(pod) || available_now > 1) {
            let mut to = world.clone();
            to.seen.pods.remove(*pod);
            // Also one that had not started yet.
            to.memory.unavailable.retain(|other| template(other) != template(pod));
            // Which template it had makes no difference any more.
            let leaving = Pod {
                leaving: true,
                restarted_at: Some("leaving".to_owned()),
                ..(*pod).clone()
            };
            if to.memory.connected_once.remove(&template(pod)) {
                to.memory.connected_once.insert(template(&leaving));
            }
            // How long it takes to terminate is explored in the model of imported clusters.
            if to.seen.provisioned().is_some() {
                to.memory.connected_once.remove(&template(&leaving));
            } else {
                to.seen.pods.insert(leaving);
            }
            moves.push(step("Kubernetes removes a pod of another template", Help::Helps, to));
        }
    }
    for pod in &seen.pods {
        let mut to = world.clone();
        to.seen.pods.remove(pod);
        if pod.leaving {
            to.memory.connected_once.remove(&template(pod));
            moves.push(step("a pod terminates", Help::Helps, to));
        } else if !pod.ready && pod.token.is_some_and(|token| seen.credentials.contains_key(&token)) {
            let pod = Pod {
                ready: true,
                ..pod.clone()
            };
            to.seen.pods.insert(pod.clone());
            if is_current(seen, &pod) && seen.held {
                to.memory.unavailable.insert(pod);
            }
            moves.push(step("a pod starts", Help::Helps, to));
        }
    }
}

impl CrtModel {
    /// An agent connects once after its start, writes `stv-aggregation` when Rancher accepts it, and connects again only when its
    /// tunnel breaks (rancher/rancher `cmd/agent/main.go`, `pkg/agent/rancher`).
    pub(super) fn agents(&self, world: &World, moves: &mut Vec<Move<CrtModel>>) {
        for pod in world.seen.pods.iter().filter(|pod| pod.ready) {
            let Some(token) = pod.token.filter(|token| world.seen.acceptance.contains_key(token)) else {
                continue;
            };
            let fails = if token == old() {
                self.old_agents_fail
            } else {
                self.new_agents_fail
            };
            if fails || !self.reaches(pod) {
                continue;
            }
            let address = pod.address;
            let mut to = world.clone();
            to.seen.connected = Some(AgentConnection { token, address });
            if self.variant == Variant::LostAgent {
                to.seen.access = DownstreamAccess::Full;
                to.seen.tunnel_works = Some(true);
            }
            if to.memory.connected_once.insert(template(pod)) {
                moves.push(step("an agent connects", Help::Helps, to));
            } else if to.memory.left.reconnects > 0 && world.seen.connected != to.seen.connected {
                to.memory.left.reconnects -= 1;
                moves.push(step(
                    "an agent's tunnel breaks, and it connects again",
                    Help::Disturbs,
                    to,
                ));
            }
        }
    }
}

/// What Rancher does by itself.
pub(super) fn rancher(world: &World, moves: &mut Vec<Move<CrtModel>>) {
    let seen = &world.seen;
    let held: BTreeSet<_> = seen
        .held_values()
        .into_iter()
        .chain(seen.foreign.iter().copied())
        .collect();
    // Each replica has its own index, so a change takes a moment.
    let accepted: BTreeSet<_> = seen.acceptance.keys().copied().collect();
    for token in held.symmetric_difference(&accepted) {
        let mut to = world.clone();
        let learns = to.seen.acceptance.insert(*token, Acceptance::Accepted).is_none();
        if !learns {
            to.seen.acceptance.remove(token);
        }
        moves.push(step(
            if learns {
                "Rancher learns a token"
            } else {
                "Rancher forgets a token"
            },
            Help::Helps,
            to,
        ));
    }
    let is_reached = seen.access != DownstreamAccess::Unreachable;
    if let Some((token, address)) = world.memory.rendered.filter(|_| is_reached) {
        let mut to = world.clone();
        to.memory.rendered = None;
        land(&mut to, token, address);
        moves.push(step("the redeploy is applied", Help::Helps, to));
    }
    // Nothing is in progress, so that a minute may pass.
    let waiting = world.seen.trigger.is_some_and(|trigger| !trigger.overdue);
    if waiting
        && !world.memory.event
        && !world.memory.planner.is_working()
        && world.memory.rendered.is_none()
        && !world.is_sending()
    {
        let mut to = world.clone();
        to.seen.trigger.iter_mut().for_each(|trigger| trigger.overdue = true);
        moves.push(step("a minute passes after the trigger", Help::Helps, to));
    }
    // Storage `secret`: at any event of the cluster it compares its token with the one applied last.
    if world.memory.event && seen.storage == TokenStorage::Secret && world.memory.rendered.is_none() {
        let mut to = world.clone();
        to.memory.event = false;
        let system = seen.system.as_ref().map(|holder| holder.token);
        if seen.applied != system {
            to.memory.rendered = system.zip(seen.pushes);
        }
        moves.push(step("Rancher reconciles the cluster", Help::Helps, to));
    }
}

/// Rancher's apply: its Secret, and the Deployment's volume and environment; what others added to the template and to
/// the rollout settings survives (seen on Rancher 2.15.0 and 2.12.0).
fn land(world: &mut World, token: Fingerprint, address: Address) {
    world.seen.credentials.entry(token).or_insert(Age::Young);
    world.seen.deployed = Some(token);
    world.seen.address = address;
    if std::mem::take(&mut world.memory.conflict) {
        // The update at its end conflicts with the trigger: nothing is recorded, and it starts again.
        world.memory.event = true;
    } else if world.seen.storage == TokenStorage::Secret {
        world.seen.applied = Some(token);
    }
    settle_availability(world);
}

pub(super) fn disturbances(world: &World, moves: &mut Vec<Move<CrtModel>>) {
    let left = world.memory.left;
    let system = world.seen.system.as_ref().map(|holder| holder.token);
    if left.redeploys > 0 && world.memory.rendered.is_none() && system.is_some() {
        let mut to = world.clone();
        to.memory.left.redeploys -= 1;
        to.memory.rendered = system.zip(world.seen.pushes);
        moves.push(step("Rancher renders a redeploy", Help::Disturbs, to));
    }
    if left.hours > 0 {
        let mut to = world.clone();
        to.memory.left.hours -= 1;
        to.memory.unavailable.clear();
        to.seen.credentials.values_mut().for_each(|age| *age = Age::Old);
        moves.push(step("an hour passes", Help::Disturbs, to));
    }
    if left.hours < 1 {
        for pod in world.seen.pods.iter().filter(|pod| pod.ready) {
            let mut to = world.clone();
            to.seen
                .credentials
                .retain(|token, age| *age == Age::Young || Some(*token) == pod.token);
            if to.seen.credentials != world.seen.credentials {
                moves.push(step("an agent deletes foreign Secrets", Help::Disturbs, to));
            }
        }
    }
    if left.upgrades > 0 && world.seen.storage == TokenStorage::Status {
        let mut to = world.clone();
        to.memory.left.upgrades -= 1;
        to.seen.storage = TokenStorage::Secret;
        to.memory.rendered = system.zip(world.seen.pushes);
        moves.push(step("Rancher is upgraded to storage `secret`", Help::Disturbs, to));
    }
    if left.rotations > 0 && world.seen.storage == TokenStorage::Secret {
        let mut to = world.clone();
        to.memory.left.rotations -= 1;
        for (name, held) in &mut to.seen.others {
            let rotated = Fingerprint::of(&format!("{name} rotated by Rancher"));
            to.seen
                .others_previous
                .insert(name.clone(), std::mem::replace(held, rotated));
        }
        moves.push(step("Rancher rotates the other tokens", Help::Disturbs, to));
    }
    withdrawals(world, moves);
    reapplies(world, moves);
    let forward = world.run.as_ref().is_none_or(|run| run.direction == Direction::Forward);
    if left.settings > 0 && forward {
        let mut to = world.clone();
        to.memory.left.settings -= 1;
        to.seen.pushes = Some(*THERE);
        moves.push(step("Rancher's server-url is changed", Help::Disturbs, to));
    } else if world.seen.pushes == Some(*THERE) && !forward {
        let mut to = world.clone();
        to.seen.pushes = Some(*HERE);
        moves.push(step("server-url is restored", Help::Helps, to));
    }
    // Early builds of storage `secret` decide by the status alone (seen on Rancher 2.15.0).
    let previous = world.seen.system.as_ref().and_then(|holder| holder.previous);
    if world.seen.status_grace == Some(Grace::Near) && previous.is_some() {
        let mut to = world.clone();
        if let Some(holder) = &mut to.seen.system {
            holder.previous = None;
        }
        to.seen.status_grace = None;
        moves.push(step("Rancher ends the grace period by the status", Help::Disturbs, to));
    }
}

/// An admin deletes a temporary registration token or another one, Rancher ends a grace period early, or `system` gets another value.
fn withdrawals(world: &World, moves: &mut Vec<Move<CrtModel>>) {
    if world.run.is_none() || world.is_sending() {
        return;
    }
    let mut withdraw = |name: &str, to: World| {
        let withdrawn = world
            .seen
            .held_values()
            .into_iter()
            .filter(|token| !to.seen.is_held(*token));
        let mut to = to.clone();
        to.memory.withdrawn.extend(withdrawn);
        moves.push(step(name, Help::Disturbs, to));
    };
    if world.memory.left.withdrawals > 0 {
        let mut to = world.clone();
        to.memory.left.withdrawals -= 1;
        for token in &world.seen.temporary {
            let mut to = to.clone();
            to.seen.temporary.remove(token);
            withdraw("an admin deletes the temporary token", to);
        }
        for name in world.seen.others.keys() {
            let mut to = to.clone();
            to.seen.others.remove(name);
            withdraw("an admin deletes another token", to);
        }
        if let Some(holder) = &mut to.seen.system {
            holder.previous = None;
        }
        withdraw("the grace period ends", to);
    }
    if world.memory.left.admins > 0
        && let Some(system) = &world.seen.system
    {
        let mut replace = |name: &str, token: Fingerprint, previous: Option<Fingerprint>| {
            let mut to = world.clone();
            to.memory.left.admins -= 1;
            to.seen.system = Some(SystemToken {
                token,
                previous,
                ..system.clone()
            });
            withdraw(name, to);
        };
        let another = Fingerprint::of("another");
        replace("an admin gives `system` the agent's value", old(), system.previous);
        replace("an admin gives `system` a new value", another, system.previous);
        if world.seen.storage == TokenStorage::Secret {
            replace("Rancher rotates `system`", another, Some(system.token));
        }
    }
}

/// GitOps, or a static manifest: the Deployment and its Secret are again as at the start.
fn reapplies(world: &World, moves: &mut Vec<Move<CrtModel>>) {
    let seen = &world.seen;
    let as_saved = seen.deployed == Some(old()) && seen.restarted_at.is_none() && !seen.held && seen.address == *HERE;
    let left = world.memory.left.reapplies;
    if left > 0 {
        let mut to = world.clone();
        to.memory.left.reapplies = 0;
        moves.push(step("the other writer stops", Help::Helps, to));
    }
    let at_rest = || seen.pods.iter().all(|pod| pod.ready && !pod.leaving);
    // With storage `secret` there are too many states if it continues during a rollback, which restores the same state.
    let content = || {
        seen.storage == TokenStorage::Secret
            && world
                .run
                .as_ref()
                .is_some_and(|run| run.direction == Direction::Rollback)
    };
    if left == 0 || as_saved || left == ENDLESS && (!at_rest() || content()) {
        return;
    }
    let mut to = world.clone();
    if left != ENDLESS {
        to.memory.left.reapplies -= 1;
    }
    to.memory.reapplied = true;
    to.seen.credentials.entry(old()).or_insert(Age::Young);
    to.seen.deployed = Some(old());
    to.seen.restarted_at = None;
    to.seen.held = false;
    to.seen.address = *HERE;
    to.seen.deployment_direction = None;
    settle_availability(&mut to);
    moves.push(step("another writer restores the old state", Help::Disturbs, to));
}

impl CrtModel {
    /// Where no agent worked at the start, nothing rolls back by itself, but an operator does. A rollback that is refused from the
    /// start is not begun: the rotation is resumed.
    pub(super) fn operator(&self, world: &World) -> Option<Move<Self>> {
        let run = world
            .run
            .as_ref()
            .filter(|_| self.did_not_work() && !world.is_sending())?;
        let mut to = world.clone();
        let now = to.run.as_mut()?;
        if matches!(self.decide(&world.seen, run).next, Next::Refuse(_)) {
            now.direction = Direction::Forward;
            return Some(step("the rollback is not begun", Help::Helps, to));
        }
        if !self.new_agents_fail || !run.may_turn(Direction::Rollback) {
            return None;
        }
        now.turn(Direction::Rollback);
        Some(step("the operator gives up", Help::Helps, to))
    }
}

fn is_current(seen: &Observed, pod: &Pod) -> bool {
    pod.token == seen.deployed && pod.restarted_at == seen.restarted_at && pod.address == seen.address
}

fn template(pod: &Pod) -> (Option<Fingerprint>, Option<String>, Address) {
    (pod.token, pod.restarted_at.clone(), pod.address)
}
