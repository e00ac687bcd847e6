//! The model of a rescue: a cluster whose agent has lost its token, Rancher, Kubernetes, and two operators.
//!
//! `world.seen` is what is really there. Where only the agent itself leads to the cluster, the tool sees it while a tunnel is open.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::plan::plan;
use engine::rotation::{Blocker, Decision, Next, Rotation as _, Timer, decide};
use engine::run::RunId;
use kubectl_crt::rotation::observed::{
    Age, AgentConnection, DownstreamAccess, DownstreamIdentity, Observed, Pod, Reactivated, SystemToken, Trigger,
};
use kubectl_crt::rotation::record::Record;
use kubectl_crt::rotation::rescue::Rescue;
use kubectl_crt::rotation::step::Step;
use model::{Environment, Help, Move, explore};
use rancher::TokenStorage;

use crate::QUIET;
use crate::environment::{CrtModel, HERE, Variant};

type World = model::World<RescueModel>;
type Run = engine::run::Run<Rescue>;

const LIMIT: usize = 600_000;

/// How the agent has lost its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// It was revoked, and the agent was restarted.
    Revoked,
    /// It was revoked, and its tunnel is still open.
    TunnelOpen,
    /// Its Secret was deleted.
    NoSecret,
    /// It has a token of another cluster.
    Foreign,
    /// All registration tokens of the cluster were deleted.
    NoTokens,
    /// Another value was written into its Secret, and the agent was restarted.
    Overwritten,
    /// Another value was written into its Secret, and the agent still runs with the one that it has read before.
    OverwrittenOpen,
    /// It was revoked. The name of the Secret that the agent is to get has another content.
    NameTaken,
}

impl Loss {
    fn is_open(self) -> bool {
        matches!(self, Self::TunnelOpen | Self::OverwrittenOpen)
    }

    fn is_overwritten(self) -> bool {
        matches!(self, Self::Overwritten | Self::OverwrittenOpen)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// The value is made valid again before its end is set.
    NoEnd,
    /// It stays valid after the agent is back.
    NotRetired,
    /// It is made invalid before an agent with the new token has connected.
    NoProof,
    /// The rollout is not held.
    NotHeld,
    /// It is made valid again without permission.
    WithoutFlag,
    /// A token of another cluster is made valid for this one.
    AnyCluster,
    /// A Secret counts by its name, whatever its content.
    ByName,
    /// A name that is taken is not made free.
    NotFreed,
}

struct RescueModel {
    loss: Loss,
    storage: TokenStorage,
    /// A context leads to the cluster without its agent.
    direct: bool,
    /// The old token may be made valid again.
    reactivates: bool,
    /// It is one of another cluster, or Rancher accepts it as such.
    foreign: bool,
    /// How often a tunnel breaks, and how often Rancher ends a grace period.
    breaks: u8,
    ends: u8,
    others: (u8, u8),
    mutant: Option<Mutant>,
}

type Template = (Option<Fingerprint>, Option<String>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Memory {
    /// The pods whose tunnel is open.
    tunnels: BTreeSet<Template>,
    /// The tokens of the pods that run with another one than their Secret has now.
    processes: BTreeMap<Template, Fingerprint>,
    /// The Secret that the Deployment names has another content than it should.
    overwritten: bool,
    /// A redeploy that Rancher has begun.
    rendered: Option<Fingerprint>,
    /// The Cluster has changed, and Rancher will reconcile it.
    event: bool,
    breaks: u8,
    ends: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Condition {
    Cluster(Option<Trigger>),
    Token(Option<SystemToken>, Option<Fingerprint>, Option<Fingerprint>),
    Status(bool),
    Temporary(bool),
    Credentials(Option<Age>, bool),
    Deployment(Option<Fingerprint>, Option<String>, bool, Option<Direction>),
}

fn lost() -> Fingerprint {
    Fingerprint::of("lost")
}

fn template(pod: &Pod) -> Template {
    (pod.token, pod.restarted_at.clone())
}

fn is_current(seen: &Observed, pod: &Pod) -> bool {
    template(pod) == (seen.deployed, seen.restarted_at.clone())
}

impl RescueModel {
    fn new(loss: Loss, storage: TokenStorage, direct: bool) -> Self {
        Self {
            loss,
            storage,
            direct,
            reactivates: !direct,
            foreign: loss == Loss::Foreign,
            breaks: 0,
            ends: 0,
            others: (0, 0),
            mutant: None,
        }
    }

    fn observed(&self) -> Observed {
        let has_secret = self.loss != Loss::NoSecret;
        let token = has_secret.then(lost);
        let is_open = self.loss.is_open();
        let mut seen = CrtModel::new(self.storage, Variant::Ordinary, QUIET).observed();
        seen.deployed = token;
        seen.credentials = token.map(|token| (token, Age::Old)).into_iter().collect();
        seen.pods = [Pod {
            token,
            restarted_at: None,
            address: *HERE,
            ready: has_secret,
            leaving: false,
        }]
        .into();
        let system = seen.system.as_ref().map(|system| system.token);
        // The record of the agent that connected last stays when its tunnel is gone.
        let connected = system.filter(|_| self.loss.is_overwritten());
        let connected = connected.or(is_open.then(lost));
        seen.connected = connected.map(|token| AgentConnection { token, address: *HERE });
        "cattle-credentials-of-agent".clone_into(&mut seen.named_secret);
        let name = match self.loss {
            Loss::NameTaken => Some("cattle-credentials-taken".to_owned()),
            loss => loss.is_overwritten().then(|| seen.named_secret.clone()),
        };
        seen.occupied = system.zip(name).into_iter().collect();
        seen.tunnel_works = Some(is_open);
        if !self.direct && !is_open {
            seen.access = DownstreamAccess::Unreachable;
        }
        seen.reactivates = self.reactivates.then(lost);
        seen.foreign = self.foreign.then(lost).into_iter().collect();
        if self.loss == Loss::NoTokens {
            seen.system = None;
            seen.others.clear();
        }
        let accepted = seen.held_values().into_iter();
        seen.acceptance = accepted.map(|token| (token, Acceptance::Accepted)).collect();
        seen
    }

    /// What the tool sees, or its mutant.
    fn view(&self, seen: &Observed) -> Observed {
        let mut seen = seen.clone();
        match self.mutant {
            Some(Mutant::WithoutFlag) => seen.reactivates = Some(lost()),
            Some(Mutant::AnyCluster) => seen.foreign.clear(),
            Some(Mutant::NoProof) => {
                let address = *HERE;
                seen.connected = seen.deployed.map(|token| AgentConnection { token, address });
            }
            Some(Mutant::ByName) => by_name(&mut seen),
            Some(Mutant::NotFreed) => seen.occupied.clear(),
            _ => {}
        }
        if seen.access == DownstreamAccess::Full {
            return seen;
        }
        seen.deployed = None;
        seen.credentials.clear();
        seen.occupied.clear();
        seen.pods.clear();
        seen.connected = None;
        seen.held = false;
        seen.restarted_at = None;
        seen.tunnel_works = None;
        seen
    }

    fn agents(&self, world: &World, moves: &mut Vec<Move<Self>>) {
        let seen = &world.seen;
        for pod in &seen.pods {
            let is_open = world.memory.tunnels.contains(&template(pod));
            let mut to = world.clone();
            if is_open && world.memory.breaks > 0 {
                to.memory.breaks -= 1;
                close(&mut to, pod, self.direct);
                moves.push(step("a tunnel breaks", Help::Disturbs, to));
                continue;
            }
            if !is_open && rereads(world, pod) {
                to.memory.processes.remove(&template(pod));
                moves.push(step(
                    "a container restarts, and reads its Secret",
                    Help::Disturbs,
                    to.clone(),
                ));
                to = world.clone();
            }
            let Some(token) = token_of(world, pod).filter(|token| pod.ready && seen.acceptance.contains_key(token))
            else {
                continue;
            };
            if !is_open && !seen.foreign.contains(&token) {
                to.seen.connected = Some(AgentConnection { token, address: *HERE });
                to.seen.tunnel_works = Some(true);
                to.memory.tunnels.insert(template(pod));
                to.seen.access = DownstreamAccess::Full;
                to.memory.event = true;
                moves.push(step("an agent connects", Help::Helps, to));
            }
        }
    }

    fn is_unsafe(&self, world: &World) -> Option<String> {
        let seen = &world.seen;
        let start = self.observed();
        if let Some(lost) = start.held_values().iter().find(|value| !seen.is_held(**value)) {
            return Some(format!("{lost} was accepted before, and is not any more: {seen:#?}"));
        }
        let is_valid = seen.is_held(lost());
        if is_valid && (!self.reactivates || self.foreign) {
            return Some(format!("the lost value is valid without permission: {seen:#?}"));
        }
        let ends = seen.reactivated.get(&lost()).is_some_and(|by| match by {
            Reactivated::Temporary => seen.temporary.contains(&lost()),
            Reactivated::Previous(name) => seen.ending.contains(name),
        });
        if is_valid && !ends {
            return Some(format!("the lost value is valid without an end: {seen:#?}"));
        }
        if self.loss.is_open() && self.breaks == 0 && world.memory.tunnels.is_empty() {
            return Some(format!("the last tunnel was closed: {seen:#?}"));
        }
        let late = self.others.0 > 0;
        match world.ended? {
            _ if is_valid && !late => Some(format!("the lost value is still valid: {seen:#?}")),
            Direction::Forward if self.breaks == 0 => {
                let works = seen
                    .deployed
                    .is_some_and(|token| seen.is_connected(token) && seen.runs(token));
                // The pod that has proven the token may be replaced by one that connects with the same.
                let has_token = |pod: &Pod| pod.ready && token_of(world, pod) == seen.deployed;
                let works = works && seen.pods.iter().any(has_token);
                let system = seen.system.as_ref().map(|system| system.token);
                let lasts = seen
                    .deployed
                    .is_some_and(|token| Some(token) == system || seen.others.values().any(|value| *value == token));
                let in_flight = world.memory.rendered.is_some_and(|rendered| Some(rendered) != system);
                // What a former holder sends after the end may hold the rollout again. Its pods run on, and `rotate` names it.
                let is_held = seen.held && !late;
                (!works || !lasts || is_held || system.is_none() || in_flight)
                    .then(|| format!("the agent is not back: {seen:#?}"))
            }
            _ => None,
        }
    }
}

/// What the agent in this pod has read when it started.
fn token_of(world: &World, pod: &Pod) -> Option<Fingerprint> {
    world.memory.processes.get(&template(pod)).copied().or(pod.token)
}

/// Whether a restart gives the agent in this pod another token.
fn rereads(world: &World, pod: &Pod) -> bool {
    let exists = |token: &Fingerprint| world.seen.credentials.contains_key(token);
    world.memory.processes.contains_key(&template(pod)) && pod.token.as_ref().is_some_and(exists)
}

/// The mutant's view: the Secret of each name has the content that it should have.
fn by_name(seen: &mut Observed) {
    for (token, name) in std::mem::take(&mut seen.occupied) {
        seen.credentials.insert(token, Age::Young);
        if name == seen.named_secret {
            seen.deployed = Some(token);
        }
    }
}

fn step(name: impl Into<String>, help: Help, to: World) -> Move<RescueModel> {
    Move {
        name: name.into(),
        help,
        to,
    }
}

/// Where only the agent leads to the cluster, it is out of reach without a tunnel.
fn close(world: &mut World, pod: &Pod, direct: bool) {
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
fn roll_out(world: &World, direct: bool, moves: &mut Vec<Move<RescueModel>>) {
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

fn rancher(world: &World, moves: &mut Vec<Move<RescueModel>>) {
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
fn freed(world: &mut World, token: Fingerprint) {
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

impl Environment for RescueModel {
    type Rotation = Rescue;
    type Memory = Memory;
    type Condition = Condition;

    fn starts(&self) -> Vec<World> {
        let tunnels: BTreeSet<Template> = self.loss.is_open().then(|| (Some(lost()), None)).into_iter().collect();
        let seen = self.observed();
        let system = seen.system.as_ref().map(|system| system.token);
        let of_process = system.filter(|_| self.loss == Loss::OverwrittenOpen);
        let memory = Memory {
            processes: tunnels.iter().cloned().zip(of_process).collect(),
            tunnels,
            overwritten: self.loss.is_overwritten(),
            rendered: None,
            event: false,
            breaks: self.breaks,
            ends: self.ends,
        };
        vec![World::new(seen, memory).with(self.others.0, self.others.1)]
    }

    fn moves(&self, world: &World) -> Vec<Move<Self>> {
        let mut moves = Vec::new();
        roll_out(world, self.direct, &mut moves);
        self.agents(world, &mut moves);
        rancher(world, &mut moves);
        moves
    }

    fn timer(&self, world: &World, timer: Timer) -> Option<Help> {
        let seen = &world.seen;
        let current = seen.pods.iter().find(|pod| is_current(seen, pod) && pod.ready);
        let has_connected = current.is_some_and(|pod| world.memory.tunnels.contains(&template(pod)));
        let is_connected = seen.deployed.is_some_and(|token| seen.is_connected(token));
        match timer {
            Timer::Proof => Some(Help::Disturbs),
            // An agent that is connected is not restarted, and one that connects at once is not waited for so long.
            Timer::Retry => {
                let is_stale = current.is_some_and(|pod| world.memory.processes.contains_key(&template(pod)));
                let is_proven = is_connected && seen.tunnel_works != Some(false);
                ((has_connected || is_stale) && !is_proven && !world.is_sending()).then_some(Help::Helps)
            }
            Timer::Quiet | Timer::Cache | Timer::InFlight => None,
        }
    }

    fn in_use(&self, seen: &Observed, former: Option<&Record>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        let pods = seen.pods.iter().filter_map(|pod| pod.restarted_at.clone());
        let marks = pods
            .chain(seen.restarted_at.clone())
            .chain(former.and_then(|record| record.restarted_at.clone()));
        (BTreeSet::new(), marks.collect())
    }

    fn condition(&self, seen: &Observed, step: &Step) -> Option<Condition> {
        let token = |name: &str| {
            Condition::Token(
                seen.system.clone(),
                seen.others.get(name).copied(),
                seen.others_previous.get(name).copied(),
            )
        };
        Some(match step {
            Step::TriggerApply { .. } | Step::Recreate | Step::Redeploy => Condition::Cluster(seen.trigger),
            Step::LimitGrace { name } => Condition::Status(seen.ending.contains(name)),
            Step::Reactivate {
                by: Reactivated::Previous(name),
                ..
            }
            | Step::DropPrevious { name, .. } => token(name),
            Step::DeleteTemporary { token } => Condition::Temporary(seen.temporary.contains(token)),
            Step::DeleteCredentials { token } => {
                Condition::Credentials(seen.credentials.get(token).copied(), seen.occupied.contains_key(token))
            }
            Step::PointHeld { .. } | Step::PointBack { .. } | Step::Release => Condition::Deployment(
                seen.deployed,
                seen.restarted_at.clone(),
                seen.held,
                seen.deployment_direction,
            ),
            // The fence of the lock excludes that it arrives late.
            Step::CreateCredentials { .. } | Step::Reactivate { .. } => return None,
            other => unreachable!("a rescue does not {other}"),
        })
    }

    fn applied(&self, world: &mut World, step: &Step) {
        match step {
            Step::TriggerApply { .. } | Step::Recreate | Step::Redeploy => world.memory.event = true,
            Step::DeleteCredentials { token } => freed(world, *token),
            _ => {}
        }
    }

    fn survey(&self, seen: &Observed) -> Result<Record, Vec<Blocker>> {
        match self.mutant {
            // With this mistake nothing would be begun.
            Some(Mutant::ByName) => Rescue::survey(seen),
            _ => Rescue::survey(&self.view(seen)),
        }
    }

    fn decide(&self, seen: &Observed, run: &Run) -> Decision<Rescue> {
        let mut decision = decide(&self.view(seen), run);
        if let Next::Step(intent) = &mut decision.next {
            match (self.mutant, &intent.step) {
                (Some(Mutant::NoEnd), Step::LimitGrace { name }) => {
                    intent.step = Step::Reactivate {
                        token: lost(),
                        by: Reactivated::Previous(name.clone()),
                    };
                }
                (Some(Mutant::NotRetired), Step::DropPrevious { .. } | Step::DeleteTemporary { .. }) => {
                    decision.next = Next::Done;
                }
                _ => {}
            }
        }
        decision
    }

    fn predict(&self, seen: &mut Observed, run: &Run, step: &Step) {
        let before = seen.clone();
        Rescue::predict(seen, run, step);
        if let Step::CreateCredentials { token } | Step::PointHeld { token } = step
            && let Some(name) = before.occupied.get(token)
        {
            // The name is taken, and the agent reads what is there.
            seen.credentials = before.credentials;
            let is_named = *name == seen.named_secret || matches!(step, Step::CreateCredentials { .. });
            seen.deployed = if is_named { before.deployed } else { None };
        }
        if self.mutant == Some(Mutant::NotHeld) {
            seen.held = false;
        }
    }

    fn recall(&self, seen: &Observed, claimed: Run) -> Option<Run> {
        claimed.resumed(&self.view(seen))
    }

    fn unsafe_because(&self, world: &World) -> Option<String> {
        self.is_unsafe(world)
    }
}

const LOSSES: [Loss; 8] = [
    Loss::Revoked,
    Loss::TunnelOpen,
    Loss::NoSecret,
    Loss::Foreign,
    Loss::NoTokens,
    Loss::Overwritten,
    Loss::OverwrittenOpen,
    Loss::NameTaken,
];

#[track_caller]
fn comes_back(name: &str, model: &RescueModel) {
    let began = std::time::Instant::now();
    match explore(model, LIMIT) {
        Ok(explored) => {
            println!("{name}: {explored}; {:.1?}", began.elapsed());
            assert!(explored.done > 0, "{name}: {explored}");
            assert!(explored.rolled_back > 0 || model.others.1 == 0, "{name}: {explored}");
        }
        Err(counterexample) => panic!("{name}: {counterexample}"),
    }
}

fn each(mut test: impl FnMut(&str, RescueModel)) {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        for loss in LOSSES {
            test(
                &format!("{loss:?}, {storage:?}, direct"),
                RescueModel::new(loss, storage, true),
            );
        }
        for loss in [
            Loss::Revoked,
            Loss::NoTokens,
            Loss::TunnelOpen,
            Loss::Overwritten,
            Loss::OverwrittenOpen,
        ] {
            let name = format!("{loss:?}, {storage:?}, by its agent");
            test(&name, RescueModel::new(loss, storage, false));
        }
    }
}

#[test]
fn every_lost_agent_comes_back() {
    each(|name, model| comes_back(name, &model));
}

#[test]
fn a_former_holder_and_a_rollback_lose_nothing() {
    each(|name, model| {
        comes_back(
            name,
            &RescueModel {
                others: (1, 1),
                ..model
            },
        );
    });
}

#[test]
fn a_tunnel_that_breaks_loses_nothing() {
    each(|name, model| {
        let model = RescueModel { breaks: 1, ..model };
        comes_back(name, &model);
    });
}

#[test]
fn a_grace_period_that_ends_too_early_loses_nothing() {
    for loss in [Loss::Revoked, Loss::NoTokens] {
        let model = RescueModel {
            ends: 1,
            others: (0, 1),
            ..RescueModel::new(loss, TokenStorage::Secret, false)
        };
        comes_back(&format!("{loss:?}"), &model);
    }
}

/// Nothing is begun, and so nothing is changed.
#[test]
fn without_a_way_it_is_refused() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        let without = RescueModel {
            reactivates: false,
            ..RescueModel::new(Loss::Revoked, storage, false)
        };
        let foreign = RescueModel {
            foreign: true,
            ..RescueModel::new(Loss::Revoked, storage, false)
        };
        for model in [without, foreign] {
            let world = &model.starts()[0];
            assert!(model.survey(&world.seen).is_err());
            assert_eq!(explore(&model, LIMIT).map(|explored| explored.done).ok(), Some(0));
        }
    }
}

/// The context is only trusted, and may lead to the cluster whose token its agent has.
#[test]
fn an_agent_is_not_taken_from_another_cluster() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        let model = RescueModel::new(Loss::Foreign, storage, true);
        let mut seen = model.observed();
        seen.downstream = DownstreamIdentity::Trusted;
        assert!(Rescue::survey(&seen).is_err());
        // Found out in a run that has begun.
        let begun = model.observed();
        let run = Run::begin(RunId::placeholder(), Rescue::survey(&begun).expect("it can begin"));
        assert!(matches!(decide(&seen, &run).next, Next::Refuse(_)));
        let lost = RescueModel::new(Loss::Revoked, storage, true).observed();
        let trusted = Observed {
            downstream: DownstreamIdentity::Trusted,
            ..lost
        };
        assert!(Rescue::survey(&trusted).is_ok());
    }
}

#[track_caller]
fn is_found(mutant: Mutant, mut model: RescueModel) {
    model.mutant = Some(mutant);
    let found = explore(&model, LIMIT);
    assert!(found.is_err(), "{mutant:?} is not found: {found:?}");
}

#[test]
fn each_planted_mistake_is_found() {
    let by_agent = |storage| RescueModel::new(Loss::Revoked, storage, false);
    is_found(Mutant::NoEnd, by_agent(TokenStorage::Secret));
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        is_found(Mutant::NotRetired, by_agent(storage));
        is_found(Mutant::NoProof, RescueModel::new(Loss::TunnelOpen, storage, true));
        is_found(Mutant::NotHeld, RescueModel::new(Loss::TunnelOpen, storage, true));
        let without = RescueModel {
            reactivates: false,
            ..by_agent(storage)
        };
        is_found(Mutant::WithoutFlag, without);
        for loss in [Loss::Overwritten, Loss::NameTaken] {
            is_found(Mutant::ByName, RescueModel::new(loss, storage, true));
            is_found(Mutant::NotFreed, RescueModel::new(loss, storage, true));
        }
        let foreign = RescueModel {
            foreign: true,
            ..by_agent(storage)
        };
        is_found(Mutant::AnyCluster, foreign);
    }
}

#[test]
fn the_plan_of_each_way() {
    let mut plans = Vec::new();
    each(|name, model| {
        let world = &model.starts()[0];
        let plan =
            plan::<Rescue>(model.view(&world.seen), None).map_or_else(|why| why.to_string(), |plan| plan.to_string());
        plans.push(format!("{name}:\n{plan}\n"));
    });
    insta::assert_snapshot!(plans.join("\n"));
}
