//! The real stages, walked through every state of a model of Rancher, Kubernetes, agents and two operators.
//!
//! A comment beside each move of the environment says what it stands for. The number of states is printed
//! (`cargo test -p kubectl-crt --test exploration -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of what the test says")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Decision, Next, Rotation as _, Timer, decide};
use engine::run::{Run, RunId};
use kubectl_crt::rotation::Crt;
use kubectl_crt::rotation::observed::{
    Address, Age, AgentConnection, DownstreamIdentity, Grace, Observed, Pod, SystemToken, Trigger,
};
use kubectl_crt::rotation::record::{Mark, Record, RolloutSettings, ServerAddress};
use kubectl_crt::rotation::step::Step;
use model::{Counterexample, Environment, Explored, Help, Move, Refusal, World, explore};
use rancher::TokenStorage;
use rancher::token::SYSTEM;

const LIMIT: usize = 1_500_000;
/// A writer that does not stop. It writes only while no pod is starting, so that the number of states is finite.
const ENDLESS: u8 = u8::MAX;

/// How many moves of each disturbing kind the environment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Budget {
    /// A redeploy by Rancher: rendered at one moment, applied at a later one.
    redeploys: u8,
    /// Every tunnel drops; any of the running agents reconnects last and writes `stv-aggregation`.
    reconnects: u8,
    /// An hour passes: the held rollout completes, Secrets are old, and each agent deletes foreign ones.
    hours: u8,
    /// Rancher is upgraded from storage `status` to storage `secret`.
    upgrades: u8,
    /// An agent takes longer to connect than the tool waits before it restarts it.
    slow_starts: u8,
    /// Another writer restores the state of the start: GitOps, a static manifest.
    reapplies: u8,
    /// Rancher's address is changed.
    settings: u8,
    /// Rancher rotates another registration token by itself, and accepts its value for hours.
    rotations: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Memory {
    left: Budget,
    /// A redeploy that was rendered with this token and address and is not applied yet.
    rendered: Option<(Fingerprint, Address)>,
    /// The Cluster has changed since that one began: its last update will conflict, and it starts again.
    conflict: bool,
    /// The other writer has written since this process pointed the Deployment at a token last.
    reapplied: bool,
    /// The templates whose pod has connected to Rancher. An agent connects once, and again only when its tunnel breaks.
    connected_once: BTreeSet<(Option<Fingerprint>, Option<String>, Address)>,
    /// Pods whose ReplicaSet was created while the rollout was held: they do not count as available.
    unavailable: BTreeSet<Pod>,
    /// Storage `secret`: the Cluster has changed, and Rancher will reconcile it.
    event: bool,
}

/// A model of one imported cluster.
struct CrtModel {
    storage: TokenStorage,
    budget: Budget,
    /// Agents with a new value never connect, although Rancher accepts it (a broken image, no room for a pod).
    new_agents_fail: bool,
    /// Agents with the old value do not connect either: the cluster did not work at the start (`--force=agent`).
    old_agents_fail: bool,
    /// Agents cannot reach the address that the settings are changed to.
    unreachable: bool,
    /// How often the journal is forged.
    forgeries: u8,
    variant: Variant,
    /// How many holders lose the lock with a write in flight, and how many rollbacks are requested.
    others: (u8, u8),
    /// No Secret is old enough for an agent to delete it.
    young: bool,
    mutant: Option<Mutant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// A healthy cluster.
    Ordinary,
    /// Rancher began to redeploy before the rotation began.
    RedeployInProgress,
    /// Storage `secret`: Rancher has rotated `system` by itself and has not pushed it.
    RotatedByRancher,
    /// Storage `secret`: the status of `system` has an old end of a grace period.
    StaleGrace,
    /// `system` was deleted; the agent runs with the token of another one.
    NoSystem,
    /// The agent runs with a token of another cluster, and the rotation was forced.
    ForeignAgent,
    /// The downstream context leads to another cluster, whose agent runs with its own token.
    WrongDownstream,
}

fn server_address() -> ServerAddress {
    ServerAddress {
        server: "a".to_owned(),
        ca_checksum: String::new(),
    }
}

/// Where the agent connects to at the start.
static HERE: LazyLock<Address> = LazyLock::new(|| Address::of(Some("a"), Some("")));
/// What Rancher's address is changed to.
static THERE: LazyLock<Address> = LazyLock::new(|| Address::of(Some("b"), Some("")));
static OLD: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("old"));

fn old() -> Fingerprint {
    *OLD
}

impl CrtModel {
    fn new(storage: TokenStorage, variant: Variant, budget: Budget) -> Self {
        Self {
            storage,
            budget,
            new_agents_fail: false,
            old_agents_fail: false,
            unreachable: false,
            forgeries: 0,
            variant,
            others: (0, 0),
            young: false,
            mutant: None,
        }
    }

    fn observed(&self) -> Observed {
        let native = Fingerprint::of("rotated by Rancher");
        let system = match self.variant {
            Variant::NoSystem => None,
            Variant::RotatedByRancher => Some(SystemToken {
                token: native,
                previous: Some(old()),
                protected: false,
            }),
            Variant::ForeignAgent | Variant::WrongDownstream => Some(SystemToken {
                token: Fingerprint::of("system"),
                previous: None,
                protected: true,
            }),
            _ => Some(SystemToken {
                token: old(),
                previous: None,
                protected: true,
            }),
        };
        let foreign = matches!(self.variant, Variant::ForeignAgent | Variant::WrongDownstream);
        let system_token = match self.variant {
            Variant::RotatedByRancher => Some(old()),
            _ => system.as_ref().map(|holder| holder.token).or(Some(old())),
        };
        let default = if self.variant == Variant::NoSystem {
            old()
        } else {
            Fingerprint::of("default")
        };
        let mut seen = Observed {
            storage: self.storage,
            blockers: Vec::new(),
            downstream: if self.variant == Variant::WrongDownstream {
                DownstreamIdentity::Another
            } else {
                DownstreamIdentity::Proven
            },
            foreign: foreign.then(old).into_iter().collect(),
            mark: None,
            address: *HERE,
            server_address: server_address(),
            pushes: Some(*HERE),
            move_forced: false,
            writer: String::new(),
            trigger: None,
            system,
            status_grace: (self.variant == Variant::StaleGrace).then_some(Grace::Near),
            temporary: [].into(),
            others: [("default-token".to_owned(), default)].into(),
            others_previous: [].into(),
            acceptance: [].into(),
            credentials: [(old(), if self.young { Age::Young } else { Age::Old })].into(),
            occupied: [].into(),
            leftovers: [].into(),
            only_agent: false,
            named_secret: String::new(),
            rollout: RolloutSettings::default(),
            deployed: Some(old()),
            held: false,
            deployment_direction: None,
            restarted_at: None,
            pods: [Pod {
                token: Some(old()),
                restarted_at: None,
                address: *HERE,
                ready: true,
                leaving: false,
            }]
            .into(),
            connected: (!self.old_agents_fail).then(|| AgentConnection {
                token: old(),
                address: *HERE,
            }),
            applied: system_token.filter(|_| self.storage == TokenStorage::Secret),
            tunnel_works: Some(true),
        };
        let accepted = seen.held_values().into_iter().chain(seen.foreign.iter().copied());
        seen.acceptance = accepted.map(|token| (token, Acceptance::Accepted)).collect();
        seen
    }

    /// Whether a rotation ends at all: not where every run is refused.
    fn can_be_rotated(&self) -> bool {
        let fails = self.new_agents_fail && (self.old_agents_fail || self.others.1 == 0);
        self.variant != Variant::WrongDownstream && !fails
    }

    fn reaches(&self, pod: &Pod) -> bool {
        !self.unreachable || pod.address == *HERE
    }
}

type W = World<CrtModel>;

fn step(name: impl Into<String>, help: Help, to: W) -> Move<CrtModel> {
    Move {
        name: name.into(),
        help,
        to,
    }
}

impl Environment for CrtModel {
    type Rotation = Crt;
    type Memory = Memory;
    type Condition = Condition;

    fn starts(&self) -> Vec<World<Self>> {
        let memory = Memory {
            left: self.budget,
            rendered: (self.variant == Variant::RedeployInProgress).then(|| (old(), *HERE)),
            conflict: false,
            reapplied: false,
            connected_once: if self.old_agents_fail {
                [].into()
            } else {
                [(Some(old()), None, *HERE)].into()
            },
            unavailable: [].into(),
            event: false,
        };
        let world = World::new(self.observed(), memory).with(self.others.0, self.others.1);
        let mut world = world.forgeries(self.forgeries);
        if self.variant == Variant::WrongDownstream {
            // Begun with the right context, and resumed with a wrong one.
            let mut resumed: World<Self> = world.clone();
            let record = record(Fingerprint::of("new"));
            resumed.seen.mark = Some(Mark {
                run: RunId::placeholder().to_string(),
                direction: Direction::Forward,
                record: record.clone(),
            });
            resumed.run = Some(run(Direction::Forward, Phase::Place, record));
            let mut rollback = resumed.clone();
            rollback.run.as_mut().expect("it has one").direction = Direction::Rollback;
            world.seen.blockers.clear();
            return vec![world, resumed, rollback];
        }
        vec![world]
    }

    fn moves(&self, world: &World<Self>) -> Vec<Move<Self>> {
        let mut moves = Vec::new();
        roll_out(world, &mut moves);
        self.agents(world, &mut moves);
        rancher(world, &mut moves);
        disturbances(world, &mut moves);
        moves.extend(self.operator(world));
        moves
    }

    fn timer(&self, world: &World<Self>, timer: Timer) -> Option<Help> {
        match timer {
            // A redeploy is applied or fails within half a minute; --settle is longer.
            Timer::Quiet => {
                let system = world.seen.system.as_ref().map(|holder| holder.token);
                let rendered = world.memory.rendered.map(|(token, _)| token);
                let landed = rendered.is_none() || rendered == system;
                // A writer that writes more often than every --settle has written by then, unless it has stopped.
                let back = world
                    .run
                    .as_ref()
                    .is_some_and(|run| run.direction == Direction::Rollback);
                let quiet = world.memory.left.reapplies == 0 || world.memory.reapplied || back;
                (landed && quiet).then_some(Help::Helps)
            }
            Timer::Cache | Timer::InFlight => None,
            Timer::Retry if world.is_sending() => None,
            Timer::Retry => {
                let long = has_connected(world) || world.memory.left.slow_starts > 0;
                long.then_some(Help::Helps)
            }
            // The rest is the same as after `rollback` by another operator, which may come at any moment.
            Timer::Proof => {
                let moved = world.seen.pushes == Some(*THERE) || world.seen.address == *THERE;
                (self.new_agents_fail || moved).then_some(Help::Helps)
            }
        }
    }

    fn timer_passed(&self, world: &mut World<Self>, timer: Timer) {
        if timer == Timer::Retry && !has_connected(world) {
            world.memory.left.slow_starts = world.memory.left.slow_starts.saturating_sub(1);
        }
    }

    fn in_use(&self, seen: &Observed, former: Option<&Record>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        let mut credentials: BTreeSet<_> = seen
            .held_values()
            .into_iter()
            .chain(seen.acceptance.keys().copied())
            .collect();
        let connected = seen.connected.map(|connected| connected.token);
        credentials.extend(seen.credentials.keys().chain(&seen.deployed).chain(&connected));
        credentials.extend(seen.mark.as_ref().and_then(|mark| mark.record.new));
        credentials.extend(former.and_then(|record| record.new));
        let pods = seen.pods.iter().filter_map(|pod| pod.restarted_at.clone());
        let marks = pods
            .chain(seen.restarted_at.clone())
            .chain(former.and_then(|record| record.restarted_at.clone()));
        (credentials, marks.collect())
    }

    fn condition(&self, seen: &Observed, step: &Step) -> Option<Condition> {
        Some(match step {
            Step::TriggerApply => Condition::Trigger(seen.trigger),
            Step::CreateTemporary { .. } | Step::CreateCredentials { .. } | Step::DeleteLeftover { .. } => return None,
            Step::PostponeGrace | Step::ClearGrace => Condition::Status(seen.system.clone(), seen.status_grace),
            Step::SetNew if seen.system.is_none() => return None,
            Step::Adopt { .. } | Step::SetNew | Step::Restore { .. } | Step::Protect { .. } => {
                let back = seen.mark.as_ref().is_some_and(|mark| mark.direction.is_rollback());
                Condition::System(seen.system.clone(), back)
            }
            Step::DropPrevious { name, .. } if name == SYSTEM => {
                let back = seen.mark.as_ref().is_some_and(|mark| mark.direction.is_rollback());
                Condition::System(seen.system.clone(), back)
            }
            Step::DeleteCredentials { token } => Condition::Credentials(seen.credentials.get(token).copied()),
            Step::PointHeld { .. } | Step::PointBack { .. } | Step::Fence | Step::Release => Condition::Deployment(
                seen.deployed,
                seen.restarted_at.clone(),
                seen.held,
                seen.deployment_direction,
            ),
            Step::DeleteTemporary { token } => Condition::Temporary(seen.temporary.contains(token)),
            Step::Renew { name } | Step::DropPrevious { name, .. } => {
                Condition::Other(seen.others.get(name).copied(), seen.others_previous.get(name).copied())
            }
        })
    }

    fn applied(&self, world: &mut World<Self>, step: &Step) {
        match step {
            Step::TriggerApply => {
                world.memory.event = true;
                world.memory.conflict |= world.memory.rendered.is_some();
            }
            // A new or changed template: its ReplicaSet gets the present `minReadySeconds`.
            Step::PointHeld { .. } | Step::PointBack { .. } => {
                world.memory.reapplied = false;
                settle_availability(world);
            }
            Step::Release => settle_availability(world),
            _ => {}
        }
    }

    fn resumed(&self, World { memory, .. }: &mut World<Self>) {
        memory.reapplied = false;
    }

    /// A user with permission to write Leases can claim anything about this run or another one.
    fn forged(&self, _: &World<Self>) -> Vec<Run<Crt>> {
        let claims = record(old());
        let mut forged = Vec::new();
        for direction in [Direction::Forward, Direction::Rollback] {
            for phase in [Phase::Make, Phase::Place, Phase::Retire, Phase::Confirm] {
                forged.push(run(direction, phase, claims.clone()));
            }
            let another = serde_json::from_value("other".into());
            forged.push(Run {
                id: another.expect("a name of a run"),
                ..run(direction, Phase::Confirm, claims.clone())
            });
        }
        forged
    }

    /// An operator discards a journal that was forged, or that would restore a token of another cluster.
    fn refused(&self, world: &World<Self>, blockers: &[Blocker]) -> Result<Refusal, String> {
        let no_rollback = matches!(self.variant, Variant::WrongDownstream | Variant::ForeignAgent);
        if self.old_agents_fail {
            return Ok(Refusal::Waits);
        }
        if world.was_forged() || no_rollback {
            Ok(Refusal::Discarded)
        } else {
            Err(format!("refuses in the middle of a run: {blockers:?}"))
        }
    }

    fn survey(&self, seen: &Observed) -> Result<Record, Vec<Blocker>> {
        Crt::survey(&self.mutated(seen, None))
    }

    fn decide(&self, seen: &Observed, run: &Run<Crt>) -> Decision<Crt> {
        let Some(mutant) = self.mutant else {
            return decide(seen, run);
        };
        let mut run = run.clone();
        if mutant == Mutant::NoQuietTime {
            run.timers.insert(Timer::Quiet, true);
        }
        if mutant == Mutant::AlwaysWorked {
            run.record.worked = true;
        }
        let mut decision = decide(&self.mutated(seen, Some(&run)), &run);
        match &mut decision.next {
            // The mutant may make it delete what does not exist.
            Next::Step(intent) => match &intent.step {
                Step::DeleteTemporary { token } if !seen.temporary.contains(token) => {
                    decision.next = Next::wait("nothing");
                }
                Step::PointHeld { .. } if mutant == Mutant::QuietNotRestarted => intent.stops.clear(),
                _ => {}
            },
            Next::Refuse(blockers) => decision.next = Next::wait(blockers[0].hint.clone()),
            Next::Wait(_) | Next::Turn { .. } | Next::Done => {}
        }
        decision
    }

    fn recall(&self, seen: &Observed, claimed: Run<Crt>) -> Option<Run<Crt>> {
        if self.mutant == Some(Mutant::TrustsLease) {
            return Some(Run {
                timers: [].into(),
                ..claimed
            });
        }
        claimed.resumed(seen)
    }

    fn predict(&self, seen: &mut Observed, run: &Run<Crt>, step: &Step) {
        Crt::predict(seen, run, step);
        if self.mutant == Some(Mutant::NotHeld) {
            seen.held = false;
        }
    }

    fn unsafe_because(&self, world: &World<Self>) -> Option<String> {
        let seen = &world.seen;
        let held: BTreeSet<_> = seen.held_values().into_iter().collect();
        if self.variant == Variant::WrongDownstream && seen.deployed != Some(old()) {
            return Some(format!(
                "the agent of another cluster was given a token of this one: {seen:#?}"
            ));
        }
        if held.intersection(&seen.foreign).next().is_some() {
            return Some(format!(
                "a token of another cluster was brought into this one: {seen:#?}"
            ));
        }
        let system = seen.system.as_ref().map(|holder| holder.token);
        let in_time = |trigger: &Trigger| !trigger.overdue && Some(trigger.token) == system;
        // A write that a former holder has overtaken is rejected: the Cluster has another version by then.
        if self.others.0 == 0
            && world.sending() == Some(&Step::TriggerApply)
            && seen.trigger.as_ref().is_some_and(in_time)
        {
            return Some("Rancher was triggered again before it could apply anything".to_owned());
        }
        let is_accepted = |token: &Fingerprint| held.contains(token) || seen.foreign.contains(token);
        let works = |pod: &&Pod| {
            pod.ready && !pod.leaving && self.reaches(pod) && pod.token.is_some_and(|token| is_accepted(&token))
        };
        let running: Vec<_> = seen.pods.iter().filter(works).collect();
        if running.is_empty() {
            return Some(format!("no agent runs with a token that Rancher accepts: {seen:#?}"));
        }
        // Its tunnel stays open, but once that breaks it cannot connect again.
        let revoked = |pod: &&Pod| pod.ready && !pod.leaving && pod.token.is_some_and(|token| !is_accepted(&token));
        if let Some(pod) = seen.pods.iter().find(revoked) {
            return Some(format!(
                "the token of an agent that runs was revoked, {pod:?}: {seen:#?}"
            ));
        }
        if self.new_agents_fail && !self.old_agents_fail && !running.iter().any(|pod| pod.token == Some(old())) {
            return Some(format!("the only agent that can connect is gone: {seen:#?}"));
        }
        if !seen.deployed.is_some_and(|named| is_accepted(&named)) {
            return Some(format!(
                "the Deployment names a token that Rancher does not accept: {seen:#?}"
            ));
        }
        let restorable = world.run.as_ref().is_some_and(undoable) && !world.was_forged() && seen.foreign.is_empty();
        if !held.contains(&old()) && !seen.credentials.contains_key(&old()) && restorable {
            return Some(format!("the old value is lost while it may still be needed: {seen:#?}"));
        }
        Self::ended_wrong(world)
    }
}

fn undoable(run: &Run<Crt>) -> bool {
    run.direction == Direction::Rollback || run.phase.can_be_undone()
}

impl CrtModel {
    fn ended_wrong(world: &W) -> Option<String> {
        let seen = &world.seen;
        let direction = world.ended?;
        if world.memory
            != (Memory {
                rendered: None,
                ..world.memory.clone()
            })
        {
            return None;
        }
        let target = seen.system.as_ref().map(|holder| holder.token);
        let right = match direction {
            // A forged journal has no old token: the agent keeps its token.
            Direction::RollForward => false,
            Direction::Rollback if world.was_forged() => target == seen.deployed,
            Direction::Rollback => target == Some(old()),
            Direction::Forward => {
                // A second rotation, after the journal of the first was discarded, began with another token.
                let second = world.was_forged() || !seen.foreign.is_empty();
                let clean = second || !seen.credentials.contains_key(&old());
                target != Some(old()) && !seen.is_held(old()) && clean
            }
        };
        let clean = seen.temporary.is_empty() && seen.system.as_ref().is_some_and(|holder| holder.previous.is_none());
        let renewed = direction == Direction::Rollback
            || seen
                .held_values()
                .iter()
                .all(|held| *held != Fingerprint::of("default"));
        // A former holder's write may be applied after the end. It does no harm, but may leave something behind.
        // The next run removes what a forged run has left behind.
        let clean = clean || world.was_forged();
        (!right || !clean || !renewed).then(|| format!("ended wrong ({direction}): {seen:#?}"))
    }

    /// Where no agent worked at the start, nothing rolls back by itself, but an operator does. A rollback that is refused from the
    /// start is not begun: the rotation is resumed.
    fn operator(&self, world: &W) -> Option<Move<Self>> {
        let run = world
            .run
            .as_ref()
            .filter(|_| self.old_agents_fail && !world.is_sending())?;
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Condition {
    Trigger(Option<Trigger>),
    System(Option<SystemToken>, bool),
    Status(Option<SystemToken>, Option<Grace>),
    Credentials(Option<Age>),
    Deployment(Option<Fingerprint>, Option<String>, bool, Option<Direction>),
    Temporary(bool),
    Other(Option<Fingerprint>, Option<Fingerprint>),
}

fn is_current(seen: &Observed, pod: &Pod) -> bool {
    pod.token == seen.deployed && pod.restarted_at == seen.restarted_at && pod.address == seen.address
}

fn template(pod: &Pod) -> (Option<Fingerprint>, Option<String>, Address) {
    (pod.token, pod.restarted_at.clone(), pod.address)
}

fn record(new: Fingerprint) -> Record {
    Record {
        old: Fingerprint::of("claimed"),
        new: Some(new),
        system: None,
        others: [].into(),
        restarted_at: None,
        worked: true,
        server_address: server_address(),
        old_secret: "claimed".to_owned(),
        rollout: RolloutSettings {
            min_ready_seconds: 2_000_000_000,
            progress_deadline_seconds: 2_000_000_001,
        },
    }
}

fn run(direction: Direction, phase: Phase, record: Record) -> Run<Crt> {
    Run {
        id: RunId::placeholder(),
        direction,
        phase,
        record,
        timers: [].into(),
        reapplied: 0,
    }
}

/// Whether the agent that should connect has done so, and will not connect again before its tunnel breaks.
fn has_connected(world: &W) -> bool {
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
fn settle_availability(world: &mut W) {
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
        if world.seen.held {
            world.memory.unavailable.insert(pod);
        } else {
            world.memory.unavailable.remove(&pod);
        }
    }
}

/// The Deployment controller with maxSurge 1 and maxUnavailable 0, one replica (rolling.go, 1.36), and the kubelet.
fn roll_out(world: &W, moves: &mut Vec<Move<CrtModel>>) {
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
            to.memory.unavailable.remove(*pod);
            // Which template it had makes no difference any more.
            let leaving = Pod {
                leaving: true,
                restarted_at: Some("leaving".to_owned()),
                ..(*pod).clone()
            };
            if to.memory.connected_once.remove(&template(pod)) {
                to.memory.connected_once.insert(template(&leaving));
            }
            to.seen.pods.insert(leaving);
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
    fn agents(&self, world: &W, moves: &mut Vec<Move<CrtModel>>) {
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
fn rancher(world: &W, moves: &mut Vec<Move<CrtModel>>) {
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
    if let Some((token, address)) = world.memory.rendered {
        let mut to = world.clone();
        to.memory.rendered = None;
        land(&mut to, token, address);
        moves.push(step("the redeploy is applied", Help::Helps, to));
    }
    // Nothing is in progress, so that a minute may pass.
    let waiting = world.seen.trigger.is_some_and(|trigger| !trigger.overdue);
    if waiting && !world.memory.event && world.memory.rendered.is_none() && !world.is_sending() {
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
fn land(world: &mut W, token: Fingerprint, address: Address) {
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

fn disturbances(world: &W, moves: &mut Vec<Move<CrtModel>>) {
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

/// GitOps, or a static manifest: the Deployment and its Secret are again as at the start.
fn reapplies(world: &W, moves: &mut Vec<Move<CrtModel>>) {
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

fn explored(model: &CrtModel) -> Result<Explored, Counterexample> {
    explore(model, LIMIT)
}

#[track_caller]
fn nothing_is_lost(name: &str, model: &CrtModel) {
    let began = std::time::Instant::now();
    match explored(model) {
        Ok(explored) => {
            println!("{name}: {explored}; {:?}; {:.1?}", model.budget, began.elapsed());
            assert!(explored.done > 0 || !model.can_be_rotated(), "{name}: {explored}");
            // A rollback to the token of another cluster is refused.
            let can_roll_back = model.can_be_rotated() && !matches!(model.variant, Variant::ForeignAgent);
            let rolls_back = model.others.1 > 0 || model.new_agents_fail;
            assert!(
                explored.rolled_back > 0 || !rolls_back || !can_roll_back,
                "{name}: {explored}"
            );
        }
        Err(counterexample) => panic!("{name}: {counterexample}"),
    }
}

const QUIET: Budget = Budget {
    redeploys: 0,
    reconnects: 0,
    hours: 0,
    upgrades: 0,
    slow_starts: 0,
    reapplies: 0,
    settings: 0,
    rotations: 0,
};

/// One disturbance of each kind, one kind at a time.
fn each_disturbance() -> [(&'static str, Budget); 4] {
    [
        ("a redeploy", Budget { redeploys: 1, ..QUIET }),
        ("a reconnect", Budget { reconnects: 1, ..QUIET }),
        ("an hour", Budget { hours: 1, ..QUIET }),
        (
            "a slow start",
            Budget {
                slow_starts: 1,
                ..QUIET
            },
        ),
    ]
}

#[test]
fn one_disturbance_loses_nothing_with_storage_status() {
    for (name, budget) in each_disturbance() {
        nothing_is_lost(name, &CrtModel::new(TokenStorage::Status, Variant::Ordinary, budget));
        let rollback = CrtModel {
            others: (0, 1),
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, budget)
        };
        nothing_is_lost(&format!("{name} and a rollback"), &rollback);
    }
}

#[test]
fn one_disturbance_loses_nothing_with_storage_secret() {
    for (name, budget) in each_disturbance() {
        nothing_is_lost(name, &CrtModel::new(TokenStorage::Secret, Variant::Ordinary, budget));
    }
}

#[test]
fn a_former_holder_and_a_rollback_lose_nothing() {
    nothing_is_lost(
        "both",
        &CrtModel {
            others: (1, 1),
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET)
        },
    );
    nothing_is_lost(
        "a former holder",
        &CrtModel {
            others: (1, 0),
            ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, QUIET)
        },
    );
    nothing_is_lost(
        "a rollback",
        &CrtModel {
            others: (0, 1),
            ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, QUIET)
        },
    );
}

#[test]
fn unusual_starts_lose_nothing() {
    for variant in [Variant::RedeployInProgress, Variant::NoSystem] {
        nothing_is_lost(
            &format!("{variant:?}"),
            &CrtModel::new(TokenStorage::Status, variant, QUIET),
        );
    }
    for variant in [
        Variant::RedeployInProgress,
        Variant::RotatedByRancher,
        Variant::StaleGrace,
    ] {
        nothing_is_lost(
            &format!("{variant:?}"),
            &CrtModel::new(TokenStorage::Secret, variant, QUIET),
        );
    }
}

#[test]
fn an_upgrade_in_the_middle_loses_nothing() {
    let budget = Budget { upgrades: 1, ..QUIET };
    nothing_is_lost(
        "an upgrade",
        &CrtModel::new(TokenStorage::Status, Variant::Ordinary, budget),
    );
}

#[test]
fn new_agents_that_never_connect_cause_a_rollback() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        let failing = CrtModel {
            new_agents_fail: true,
            ..CrtModel::new(storage, Variant::Ordinary, QUIET)
        };
        nothing_is_lost("failing agents", &failing);
    }
}

#[test]
fn another_cluster_is_never_changed() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        nothing_is_lost(
            "a wrong downstream",
            &CrtModel::new(storage, Variant::WrongDownstream, QUIET),
        );
        nothing_is_lost("a foreign agent", &CrtModel::new(storage, Variant::ForeignAgent, QUIET));
    }
    let foreign = CrtModel {
        others: (0, 1),
        ..CrtModel::new(TokenStorage::Status, Variant::ForeignAgent, QUIET)
    };
    nothing_is_lost("a foreign agent and a rollback", &foreign);
}

#[test]
fn another_writer_loses_nothing() {
    for (storage, reapplies) in [
        (TokenStorage::Status, 1),
        (TokenStorage::Secret, 1),
        (TokenStorage::Status, ENDLESS),
        (TokenStorage::Secret, ENDLESS),
    ] {
        let writer = CrtModel {
            young: true,
            ..CrtModel::new(storage, Variant::Ordinary, Budget { reapplies, ..QUIET })
        };
        nothing_is_lost("another writer", &writer);
    }
}

#[test]
fn a_forged_journal_loses_nothing() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        let forged = CrtModel {
            forgeries: 1,
            ..CrtModel::new(storage, Variant::Ordinary, QUIET)
        };
        nothing_is_lost("a forged journal", &forged);
    }
}

#[test]
fn another_token_that_rancher_rotates_loses_nothing() {
    let budget = Budget { rotations: 1, ..QUIET };
    nothing_is_lost(
        "another token",
        &CrtModel::new(TokenStorage::Secret, Variant::Ordinary, budget),
    );
    nothing_is_lost(
        "another token with the agent's value",
        &CrtModel::new(TokenStorage::Secret, Variant::NoSystem, budget),
    );
}

#[test]
fn a_rollback_to_a_state_that_did_not_work_ends() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        for new_agents_fail in [false, true] {
            let broken = CrtModel {
                old_agents_fail: true,
                new_agents_fail,
                others: (0, u8::from(!new_agents_fail)),
                young: true,
                ..CrtModel::new(storage, Variant::Ordinary, QUIET)
            };
            nothing_is_lost("a cluster that did not work", &broken);
        }
    }
}

#[test]
fn a_change_of_address_loses_nothing() {
    for unreachable in [false, true] {
        let model = CrtModel {
            unreachable,
            ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, Budget { settings: 1, ..QUIET })
        };
        nothing_is_lost("a change of address", &model);
    }
}

/// A planted mistake in the stages. The model checker must find each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mutant {
    /// The run does not wait for a redeploy that began before.
    NoQuietTime,
    /// What `system` has is overwritten without a temporary token.
    NoTemporaryToken,
    /// The rollout is not held.
    NotHeld,
    /// The old token is revoked while pods with it still exist.
    PodsNotAwaited,
    /// A rollback does not write objects that have the right value already, so a late write is still accepted.
    NoFence,
    /// The agent's own proof is not required.
    NoProof,
    /// Any cluster is accepted as the downstream cluster.
    AnyDownstream,
    /// A token of another cluster is kept valid like one of this cluster.
    KeepsForeignToken,
    /// The quiet time continues although another writer has written.
    QuietNotRestarted,
    /// The claims of the Lease are trusted.
    TrustsLease,
    /// Rancher is triggered again and again.
    RepeatedTrigger,
    /// The rollout is released on the proof of an earlier template.
    EarlierTemplate,
    /// A template that another writer has replaced between two looks counts as the run's own.
    AnyTemplate,
    /// Values that Rancher keeps as the previous ones of other tokens are not looked for.
    NoPreviousOfOthers,
    /// A rollback waits for an agent with the old token, although none worked at the start.
    AlwaysWorked,
}

impl CrtModel {
    /// The observed state as the mutant reports it.
    fn mutated(&self, seen: &Observed, run: Option<&Run<Crt>>) -> Observed {
        let mut seen = seen.clone();
        let rollback = run.is_some_and(|run| run.direction.is_rollback());
        let target = run.and_then(|run| if rollback { Some(run.record.old) } else { run.record.new });
        match self.mutant {
            Some(Mutant::NoTemporaryToken) => seen.temporary.extend(seen.system.as_ref().map(|system| system.token)),
            Some(Mutant::PodsNotAwaited) => seen.pods.retain(|pod| pod.token == target),
            Some(Mutant::NoFence) => {
                seen.deployment_direction = Some(Direction::Rollback);
                seen.mark = run.filter(|_| rollback).map(Mark::of).or(seen.mark);
            }
            Some(Mutant::NoProof) => {
                let address = seen.address;
                seen.connected = target.map(|token| AgentConnection { token, address });
            }
            Some(Mutant::AnyTemplate) => {
                let placed = run.and_then(|run| run.record.restarted_at.clone());
                seen.restarted_at = placed.or(seen.restarted_at);
            }
            Some(Mutant::NoPreviousOfOthers) => seen.others_previous.clear(),
            Some(Mutant::AnyDownstream) => seen.downstream = DownstreamIdentity::Proven,
            Some(Mutant::KeepsForeignToken) => seen.foreign.clear(),
            Some(Mutant::RepeatedTrigger) => seen.trigger.iter_mut().for_each(|trigger| trigger.overdue = true),
            Some(Mutant::EarlierTemplate) => {
                let address = seen.address;
                seen.connected
                    .iter_mut()
                    .for_each(|connected| connected.address = address);
                let pods = std::mem::take(&mut seen.pods).into_iter();
                seen.pods = pods.map(|pod| Pod { address, ..pod }).collect();
            }
            _ => {}
        }
        seen
    }
}

#[expect(clippy::needless_pass_by_value, reason = "each test gives a model of its own")]
#[track_caller]
fn is_found(mutant: Mutant, model: CrtModel) {
    let model = CrtModel {
        mutant: Some(mutant),
        ..model
    };
    match explore(&model, LIMIT) {
        Ok(explored) => panic!("{mutant:?} was not found in {explored}"),
        Err(counterexample) => println!(
            "{mutant:?} found after {} moves: {}",
            counterexample.trace.len(),
            counterexample.trace.join("; ")
        ),
    }
}

#[test]
fn mutants_are_found() {
    let redeploy = Budget { redeploys: 1, ..QUIET };
    is_found(
        Mutant::NoQuietTime,
        CrtModel::new(TokenStorage::Status, Variant::RedeployInProgress, redeploy),
    );
    is_found(
        Mutant::NoTemporaryToken,
        CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET),
    );
    is_found(
        Mutant::NotHeld,
        CrtModel {
            new_agents_fail: true,
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET)
        },
    );
    is_found(
        Mutant::PodsNotAwaited,
        CrtModel::new(TokenStorage::Status, Variant::Ordinary, redeploy),
    );
    is_found(
        Mutant::NoFence,
        CrtModel {
            others: (1, 1),
            young: true,
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET)
        },
    );
    is_found(
        Mutant::NoProof,
        CrtModel {
            new_agents_fail: true,
            ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, QUIET)
        },
    );
    is_found(
        Mutant::AnyDownstream,
        CrtModel::new(TokenStorage::Status, Variant::WrongDownstream, QUIET),
    );
    is_found(
        Mutant::KeepsForeignToken,
        CrtModel::new(TokenStorage::Status, Variant::ForeignAgent, QUIET),
    );
    is_found(
        Mutant::KeepsForeignToken,
        CrtModel::new(TokenStorage::Secret, Variant::ForeignAgent, QUIET),
    );
    let once = Budget { reapplies: 2, ..QUIET };
    is_found(
        Mutant::QuietNotRestarted,
        CrtModel::new(TokenStorage::Status, Variant::Ordinary, once),
    );
    is_found(
        Mutant::QuietNotRestarted,
        CrtModel::new(TokenStorage::Secret, Variant::Ordinary, once),
    );
    is_found(
        Mutant::AnyTemplate,
        CrtModel {
            young: true,
            ..CrtModel::new(
                TokenStorage::Secret,
                Variant::Ordinary,
                Budget {
                    reapplies: ENDLESS,
                    ..QUIET
                },
            )
        },
    );
    is_found(
        Mutant::TrustsLease,
        CrtModel {
            forgeries: 1,
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET)
        },
    );
    is_found(
        Mutant::NoPreviousOfOthers,
        CrtModel::new(
            TokenStorage::Secret,
            Variant::Ordinary,
            Budget { rotations: 1, ..QUIET },
        ),
    );
    is_found(
        Mutant::AlwaysWorked,
        CrtModel {
            old_agents_fail: true,
            new_agents_fail: true,
            young: true,
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET)
        },
    );
    is_found(
        Mutant::RepeatedTrigger,
        CrtModel::new(TokenStorage::Secret, Variant::Ordinary, QUIET),
    );
    is_found(
        Mutant::EarlierTemplate,
        CrtModel {
            unreachable: true,
            ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, Budget { settings: 1, ..QUIET })
        },
    );
}
