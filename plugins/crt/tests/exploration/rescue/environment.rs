//! The world of a rescue. `world.seen` is what is really there. Where only the agent itself leads to the cluster, the tool sees it while a
//! tunnel is open.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::rotation::{Blocker, Decision, Next, Rotation as _, Timer, decide};
use kubectl_crt::rotation::observed::{
    Age, AgentConnection, DownstreamAccess, Observed, Pod, Reactivated, SystemToken, Trigger,
};
use kubectl_crt::rotation::record::Record;
use kubectl_crt::rotation::rescue::Rescue;
use kubectl_crt::rotation::step::Step;
use model::{Environment, Help, Move};
use rancher::TokenStorage;

use super::moves::{by_name, close, freed, rancher, rereads, roll_out, step, token_of};
use crate::QUIET;
use crate::environment::{CrtModel, HERE, Variant};

pub(super) type World = model::World<RescueModel>;
pub(super) type Run = engine::run::Run<Rescue>;

/// How the agent has lost its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
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
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::TunnelOpen | Self::OverwrittenOpen)
    }

    pub(super) fn is_overwritten(self) -> bool {
        matches!(self, Self::Overwritten | Self::OverwrittenOpen)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
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

pub(super) struct RescueModel {
    pub(super) loss: Loss,
    pub(super) storage: TokenStorage,
    /// A context leads to the cluster without its agent.
    pub(super) direct: bool,
    /// The old token may be made valid again.
    pub(super) reactivates: bool,
    /// It is one of another cluster, or Rancher accepts it as such.
    pub(super) foreign: bool,
    /// How often a tunnel breaks, and how often Rancher ends a grace period.
    pub(super) breaks: u8,
    pub(super) ends: u8,
    pub(super) others: (u8, u8),
    pub(super) mutant: Option<Mutant>,
}

type Template = (Option<Fingerprint>, Option<String>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Memory {
    /// The pods whose tunnel is open.
    pub(super) tunnels: BTreeSet<Template>,
    /// The tokens of the pods that run with another one than their Secret has now.
    pub(super) processes: BTreeMap<Template, Fingerprint>,
    /// The Secret that the Deployment names has another content than it should.
    pub(super) overwritten: bool,
    /// A redeploy that Rancher has begun.
    pub(super) rendered: Option<Fingerprint>,
    /// The Cluster has changed, and Rancher will reconcile it.
    pub(super) event: bool,
    pub(super) breaks: u8,
    pub(super) ends: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Condition {
    Cluster(Option<Trigger>),
    Token(Option<SystemToken>, Option<Fingerprint>, Option<Fingerprint>),
    Status(bool),
    Temporary(bool),
    Credentials(Option<Age>, bool),
    Deployment(Option<Fingerprint>, Option<String>, bool, Option<Direction>),
}

pub(super) fn lost() -> Fingerprint {
    Fingerprint::of("lost")
}

pub(super) fn template(pod: &Pod) -> Template {
    (pod.token, pod.restarted_at.clone())
}

pub(super) fn is_current(seen: &Observed, pod: &Pod) -> bool {
    template(pod) == (seen.deployed, seen.restarted_at.clone())
}

impl RescueModel {
    pub(super) fn new(loss: Loss, storage: TokenStorage, direct: bool) -> Self {
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

    pub(super) fn observed(&self) -> Observed {
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
    pub(super) fn view(&self, seen: &Observed) -> Observed {
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

    pub(super) fn agents(&self, world: &World, moves: &mut Vec<Move<Self>>) {
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

    pub(super) fn is_unsafe(&self, world: &World) -> Option<String> {
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
