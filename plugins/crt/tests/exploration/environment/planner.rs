//! What only a cluster has that Rancher provisioned: the planner, the control-plane machines with their system-agents and files, and
//! RKE2's apply. Everything here was seen on Rancher 2.15.0 and 2.12.0, or is named otherwise.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;
use engine::direction::Direction;
use kubectl_crt::rotation::observed::{
    Age, DownstreamAccess, FirstToken, Kind, MachinePlan, Observed, Plans, Provisioned, Reconfiguration,
};
use kubectl_crt::rotation::step::Step;
use model::{Help, Move};
use rancher::TokenStorage;

use super::{ClusterModel, CrtModel, Variant, World, moves, old};
use crate::mutants::Mutant;

/// The planner and the machines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Planner {
    /// An event of the Cluster: it renders F into every plan.
    pub(crate) event: bool,
    /// The plans, also where they cannot be read.
    pub(crate) machines: BTreeMap<String, MachinePlan>,
    /// The machines whose system-agent is stopped.
    dead: BTreeSet<String>,
    /// The machines whose file has changed, and whose RKE2 has not read it yet.
    unread: BTreeSet<String>,
    /// What one RKE2 has read and not applied yet.
    applying: Option<Fingerprint>,
    /// The Secret that RKE2 owns, since it was in the file that it applied last.
    owned: Option<Fingerprint>,
    /// The condition `Ready` of the provisioning cluster since the last trigger.
    ready: Reconfiguration,
}

impl Planner {
    /// Whether something is still to come of the last event.
    pub(super) fn is_working(&self) -> bool {
        let waits = |(name, machine): (&String, &MachinePlan)| !machine.is_applied && !self.dead.contains(name);
        self.event || self.applying.is_some() || !self.unread.is_empty() || self.machines.iter().any(waits)
    }
}

/// The value that F had before Rancher rotated it.
pub(crate) fn before_native() -> Fingerprint {
    Fingerprint::of("before")
}

/// The value of a token that someone creates during the run.
fn of_new_first() -> Fingerprint {
    Fingerprint::of("first")
}

const NEW_FIRST: &str = "crt-new";

fn first_token(name: &str) -> FirstToken {
    FirstToken {
        name: name.to_owned(),
        protected: true,
        status_grace: None,
    }
}

fn has(value: Fingerprint) -> MachinePlan {
    MachinePlan {
        planned: Some(value),
        applied: Some(value),
        is_applied: true,
        answers: true,
        has_node: true,
    }
}

fn step(name: impl Into<String>, help: Help, mut to: World) -> Move<CrtModel> {
    show(&mut to);
    let name = name.into();
    Move { name, help, to }
}

/// Plans that can be read are observed.
fn show(world: &mut World) {
    let planner = &world.memory.planner;
    if let Kind::Provisioned(provisioned) = &mut world.seen.kind {
        match &mut provisioned.plans {
            Plans::Read(machines) => machines.clone_from(&planner.machines),
            Plans::Unreadable(ready) => *ready = planner.ready,
        }
    }
}

impl CrtModel {
    fn machine_names(&self) -> impl Iterator<Item = String> {
        let machines = match self.cluster {
            ClusterModel::Provisioned { machines, .. } => machines,
            _ => 0,
        };
        (0..machines).map(|at| format!("m{at}"))
    }

    /// What the plans have at the start.
    fn planned_at_start(&self) -> Fingerprint {
        match self.variant {
            Variant::FirstRotated => before_native(),
            Variant::SystemElsewhere | Variant::Shared => old(),
            _ => Fingerprint::of("default"),
        }
    }

    pub(super) fn planner(&self) -> Planner {
        let value = self.planned_at_start();
        Planner {
            event: false,
            machines: self.machine_names().map(|name| (name, has(value))).collect(),
            dead: [].into(),
            unread: [].into(),
            applying: None,
            owned: Some(value),
            ready: Reconfiguration::NotSeen,
        }
    }

    /// What is observed of the kind at the start.
    pub(super) fn provision(&self, seen: &mut Observed) {
        match self.cluster {
            ClusterModel::Imported => {}
            ClusterModel::Unreadable => {
                seen.access = DownstreamAccess::None;
                seen.weak_proof_forced = true;
            }
            ClusterModel::Hosted => seen.kind = Kind::Hosted,
            ClusterModel::Provisioned { readable, .. } => {
                seen.credentials.insert(self.planned_at_start(), Age::Young);
                seen.weak_proof_forced = !readable;
                seen.kind = Kind::Provisioned(Provisioned {
                    first: Some(first_token("default-token")),
                    plans: if readable {
                        Plans::Read(self.planner().machines)
                    } else {
                        Plans::Unreadable(Reconfiguration::NotSeen)
                    },
                    machine_forced: false,
                    aging: [].into(),
                });
            }
        }
    }

    /// What the run can see.
    pub(super) fn view(&self, seen: &Observed) -> Observed {
        let mut view = seen.clone();
        if self.cluster == ClusterModel::Unreadable || seen.access == DownstreamAccess::Unreachable {
            (view.deployed, view.connected, view.restarted_at) = (None, None, None);
            view.pods.clear();
            view.credentials.clear();
        }
        view
    }

    /// Nothing of what began before can still arrive after the quiet time. RKE2 reads a file within 15 s.
    pub(super) fn is_at_rest(&self, world: &World) -> bool {
        let planner = &world.memory.planner;
        let seen = &world.seen;
        let rolled_out = || seen.pods.len() == 1 && seen.pods.iter().all(|pod| pod.token == seen.deployed);
        planner.applying.is_none()
            && planner.unread.is_empty()
            && (self.cluster != ClusterModel::Unreadable || rolled_out())
    }

    /// The file is written and applied in one move where there would be too many states.
    fn is_at_once(&self) -> bool {
        let (late, rollbacks) = self.others;
        let crowded = late > 0
            || self.budget.upgrades > 0
            || self.storage == TokenStorage::Secret
            || self.planner().machines.len() > 1;
        rollbacks > 0 && crowded || self.budget.firsts > 0
    }

    pub(super) fn machines(&self, world: &World, moves: &mut Vec<Move<Self>>) {
        if world.seen.provisioned().is_none() {
            return;
        }
        render(world, moves);
        system_agents(world, self.is_at_once(), moves);
        rke2(world, self.budget.starts > 0, moves);
        disturbances(world, moves);
    }

    /// What a mutant's step brings about that the real one would not.
    pub(super) fn mispredict(&self, seen: &mut Observed, step: &Step) {
        match (self.mutant, step) {
            (Some(Mutant::SortsFirst), Step::CreateTemporary { token }) => {
                seen.temporary.remove(token);
                seen.others.insert("aaa-temporary".to_owned(), *token);
                if let Kind::Provisioned(provisioned) = &mut seen.kind {
                    provisioned.first = Some(first_token("aaa-temporary"));
                }
            }
            (Some(Mutant::DeletesFirst), Step::SetOther { name, .. }) => {
                seen.others.remove(name);
                seen.others_previous.remove(name);
                if let Kind::Provisioned(provisioned) = &mut seen.kind {
                    provisioned.first = None;
                }
            }
            _ => {}
        }
    }

    /// F ends on the value that it should have, and the Secret that the Deployment names exists.
    pub(super) fn ended_as_planned(&self, world: &World, direction: Direction) -> bool {
        let seen = &world.seen;
        if seen.provisioned().is_none() {
            return true;
        }
        let has_secret = seen.deployed.is_some_and(|token| seen.credentials.contains_key(&token));
        let first = if direction == Direction::Forward {
            first_value(seen) == seen.system.as_ref().map(|system| system.token)
        } else {
            let of_default = |seen: &Observed| seen.others.get("default-token").copied();
            of_default(seen) == of_default(&self.observed())
        };
        has_secret && first
    }
}

/// One change of the Cluster starts both controllers.
pub(super) fn triggered(world: &mut World) {
    if world.seen.provisioned().is_some() {
        world.memory.planner.event = true;
        world.memory.planner.ready = Reconfiguration::NotSeen;
        show(world);
    }
}

/// RKE2 applies the file that it has at every start, so that its value is the agent's at any moment.
pub(super) fn is_lost_by_a_machine(world: &World) -> Option<String> {
    let seen = &world.seen;
    let held = seen.held_values();
    let planner = &world.memory.planner;
    let of_machines = planner.machines.iter().flat_map(|(name, machine)| {
        let values = machine.applied.into_iter().chain(machine.planned);
        values.map(move |value| (name.as_str(), value))
    });
    let mut values = of_machines.chain(planner.applying.map(|value| ("RKE2", value)));
    let (name, value) = values.find(|(_, value)| !held.contains(value))?;
    Some(format!(
        "{value}, which {name} may bring to the agent at any moment, was revoked: {seen:#?} {planner:#?}"
    ))
}

fn first_value(seen: &Observed) -> Option<Fingerprint> {
    let system = seen.system.as_ref().map(|system| system.token);
    seen.first().map(|(_, token)| token).or(system)
}

/// The planner writes all plans in one reconcile, also when one system-agent is stopped. A token is rendered empty while the controller
/// has not filled in its Secret: only this run's own tokens matter here.
fn render(world: &World, moves: &mut Vec<Move<CrtModel>>) {
    if !world.memory.planner.event {
        return;
    }
    let empty = world
        .seen
        .first()
        .is_some_and(|(first, _)| first.name == "aaa-temporary");
    let value = if empty {
        Some(Fingerprint::of(""))
    } else {
        first_value(&world.seen)
    };
    let mut to = world.clone();
    let planner = &mut to.memory.planner;
    planner.event = false;
    for machine in planner.machines.values_mut() {
        if machine.planned != value {
            planner.ready = Reconfiguration::InProgress;
        }
        machine.planned = value;
        machine.is_applied = machine.applied == value;
        machine.answers |= machine.is_applied;
    }
    moves.push(step("the planner writes the plans", Help::Helps, to));
}

fn system_agents(world: &World, at_once: bool, moves: &mut Vec<Move<CrtModel>>) {
    let planner = &world.memory.planner;
    for (name, machine) in &planner.machines {
        let dead = planner.dead.contains(name);
        if !machine.is_applied && !dead {
            let mut to = world.clone();
            let planner = &mut to.memory.planner;
            planner.machines.insert(
                name.clone(),
                MachinePlan {
                    applied: machine.planned,
                    is_applied: true,
                    answers: true,
                    ..machine.clone()
                },
            );
            if !at_once {
                planner.unread.insert(name.clone());
            }
            if planner.machines.values().all(|machine| machine.is_applied)
                && planner.ready == Reconfiguration::InProgress
            {
                planner.ready = Reconfiguration::Finished;
            }
            if let Some(token) = machine.planned.filter(|_| at_once) {
                apply(&mut to, token);
            }
            moves.push(step(format!("{name} writes its file"), Help::Helps, to));
        }
        if !machine.is_applied && dead && machine.answers {
            let mut to = world.clone();
            if let Some(machine) = to.memory.planner.machines.get_mut(name) {
                machine.answers = false;
            }
            moves.push(step(format!("{name} is found not to answer"), Help::Helps, to));
        }
        if dead && !machine.answers {
            let mut to = world.clone();
            to.memory.planner.dead.remove(name);
            moves.push(step(format!("the system-agent of {name} is started"), Help::Helps, to));
            // The node is gone, or it is reset before.
            if planner.machines.len() > 1 && planner.applying.is_none() {
                let mut to = world.clone();
                to.memory.planner.dead.remove(name);
                to.memory.planner.unread.remove(name);
                to.memory.planner.machines.remove(name);
                moves.push(step(format!("{name} is deleted in Rancher"), Help::Helps, to));
            }
        }
    }
}

fn apply(world: &mut World, token: Fingerprint) {
    world.seen.credentials.entry(token).or_insert(Age::Young);
    world.seen.deployed = Some(token);
    let before = world.memory.planner.owned.replace(token);
    if let Some(before) = before.filter(|before| *before != token) {
        world.seen.credentials.remove(&before);
    }
    moves::settle_availability(world);
}

/// RKE2 applies a file up to 15 s after it has changed ([S] K3s' deploy controller), and owns what is in it: the Secret of the file
/// before is deleted at once, also if this one was made by another writer.
fn rke2(world: &World, split: bool, moves: &mut Vec<Move<CrtModel>>) {
    let planner = &world.memory.planner;
    if let Some(token) = planner.applying {
        let mut to = world.clone();
        to.memory.planner.applying = None;
        apply(&mut to, token);
        moves.push(step("RKE2 applies a file", Help::Helps, to));
        return;
    }
    for name in &planner.unread {
        let mut to = world.clone();
        to.memory.planner.unread.remove(name);
        let read = planner.machines.get(name).and_then(|machine| machine.applied);
        // Only a start of another server makes a difference between the two.
        if split {
            to.memory.planner.applying = read;
            moves.push(step(format!("RKE2 on {name} reads its file"), Help::Helps, to));
        } else if let Some(token) = read {
            apply(&mut to, token);
            moves.push(step(format!("RKE2 on {name} applies its file"), Help::Helps, to));
        }
    }
}

fn disturbances(world: &World, moves: &mut Vec<Move<CrtModel>>) {
    let left = world.memory.left;
    let planner = &world.memory.planner;
    if world.run.is_none() && world.ended.is_none() {
        return;
    }
    if left.events > 0 && !planner.event {
        let mut to = world.clone();
        to.memory.left.events -= 1;
        to.memory.planner.event = true;
        moves.push(step("an event of Rancher's own starts the planner", Help::Disturbs, to));
    }
    for (name, machine) in &planner.machines {
        // Also where no system-agent runs. With two machines only there, so that the number of states stays small.
        let may_start = planner.machines.len() == 1 || planner.dead.contains(name);
        if left.starts > 0 && may_start && planner.applying.is_none() {
            let mut to = world.clone();
            to.memory.left.starts -= 1;
            to.memory.planner.unread.remove(name);
            to.memory.planner.applying = machine.applied;
            moves.push(step(format!("the server on {name} starts"), Help::Disturbs, to));
        }
        if left.deaths > 0 && !planner.dead.contains(name) {
            let mut to = world.clone();
            to.memory.left.deaths -= 1;
            to.memory.planner.dead.insert(name.clone());
            moves.push(step(format!("the system-agent of {name} stops"), Help::Disturbs, to));
        }
    }
    if left.firsts > 0 && world.ended.is_none() {
        let mut to = world.clone();
        to.memory.left.firsts -= 1;
        to.seen.others.insert(NEW_FIRST.to_owned(), of_new_first());
        if let Kind::Provisioned(provisioned) = &mut to.seen.kind {
            provisioned.first = Some(first_token(NEW_FIRST));
        }
        to.memory.planner.event = true;
        moves.push(step("someone creates a token that sorts first", Help::Disturbs, to));
    }
}

/// Storage `secret` alone has previous values.
pub(crate) fn storages(variant: Variant) -> &'static [TokenStorage] {
    match variant {
        Variant::FirstRotated => &[TokenStorage::Secret],
        _ => &[TokenStorage::Status, TokenStorage::Secret],
    }
}
