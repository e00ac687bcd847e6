//! The real `decide`, walked through every state of a small world of Rancher, Kubernetes, agents and two operators.
//!
//! What each move of the environment imitates is said beside it. The number of states is printed
//! (`cargo test -p kubectl-crt --test exploration -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of what the test says")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use client::secret::Fingerprint;
use engine::phase::{Goal, Phase};
use engine::protocol::{Draw, Next, Protocol, Run, RunId, Step};
use kubectl_crt::rotation::view::{
    Address, Age, Connection, Downstream, Grace, Holder, Home, Notes, Pod, Record, Rollout, Trigger, View,
};
use kubectl_crt::rotation::write::Write;
use kubectl_crt::rotation::{Crt, Timer, held_values};
use model::mistaken::{real, told};
use model::{Counterexample, Environment, Explored, Help, Move, World, explore};
use rancher::era::Era;

const LIMIT: usize = 1_500_000;
/// A writer that does not stop. It comes when no pod is on its way, so that there is an end of the states.
const ENDLESS: u8 = u8::MAX;

/// How many moves of each disturbing kind the environment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Budget {
    /// A redeploy by Rancher: rendered at one moment, landing at a later one.
    redeploys: u8,
    /// Every tunnel drops; any of the running agents reconnects last and writes `stv-aggregation`.
    reconnects: u8,
    /// An hour passes: the hold runs out, Secrets are old, and each agent cleans foreign ones away.
    hours: u8,
    /// Rancher is upgraded from era P to era S.
    upgrades: u8,
    /// An agent takes longer to connect than the tool waits before it restarts it.
    slow_starts: u8,
    /// Another writer puts the saved state of the start back: GitOps, a static manifest.
    reapplies: u8,
    /// Rancher's address is changed.
    settings: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Memory {
    left: Budget,
    /// A redeploy that was rendered with this token and address and has not landed yet.
    rendered: Option<(Fingerprint, Address)>,
    /// The Cluster has changed since that one began: its last update will conflict, and it starts again.
    conflict: bool,
    /// The other writer was there since this process pointed the Deployment at a token last.
    reapplied: bool,
    /// The templates whose pod has dialled Rancher. An agent dials once, and again only when its tunnel breaks.
    dialled: BTreeSet<(Option<Fingerprint>, Option<String>, Address)>,
    /// Pods whose ReplicaSet was made while the roll-out was held: they do not count as available.
    unavailable: BTreeSet<Pod>,
    /// Era S: the cluster has changed and Rancher will look at it.
    event: bool,
}

/// A world of one imported cluster.
struct Small<P> {
    era: Era,
    budget: Budget,
    /// Agents with a value drawn by us never get through, though Rancher accepts it (a broken image, no room for a pod).
    new_agents_fail: bool,
    /// Agents cannot reach the address that the settings are changed to.
    unreachable: bool,
    /// How often the journal is forged.
    forgeries: u8,
    variant: Variant,
    /// How many holders lose the lock with a write in hand, and how many rollbacks are asked for.
    others: (u8, u8),
    /// No Secret is old enough to be cleaned away.
    young: bool,
    protocol: std::marker::PhantomData<P>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// All is well at the start.
    Ordinary,
    /// Rancher began to redeploy before the rotation began.
    RedeployUnderWay,
    /// Era S: Rancher's time to live has rotated `system`, and nothing has pushed it.
    RotatedByRancher,
    /// Era S: an old end of grace stands in the status of `system`.
    StaleGrace,
    /// `system` was deleted; the agent runs with the token of another one.
    NoSystem,
    /// The agent runs with a token of another cluster, and the rotation was forced.
    ForeignAgent,
    /// The downstream side is another cluster, whose agent runs with its own token.
    WrongDownstream,
}

fn home() -> Home {
    Home {
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

impl<P> Small<P> {
    fn new(era: Era, variant: Variant, budget: Budget) -> Self {
        Self {
            era,
            budget,
            new_agents_fail: false,
            unreachable: false,
            forgeries: 0,
            variant,
            others: (0, 0),
            young: false,
            protocol: std::marker::PhantomData,
        }
    }

    fn view(&self) -> View {
        let native = Fingerprint::of("rotated by Rancher");
        let system = match self.variant {
            Variant::NoSystem => None,
            Variant::RotatedByRancher => Some(Holder {
                token: native,
                previous: Some(old()),
                protected: false,
            }),
            Variant::ForeignAgent | Variant::WrongDownstream => Some(Holder {
                token: Fingerprint::of("system"),
                previous: None,
                protected: true,
            }),
            _ => Some(Holder {
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
        let mut view = View {
            era: self.era,
            obstacles: Vec::new(),
            downstream: if self.variant == Variant::WrongDownstream {
                Downstream::Another
            } else {
                Downstream::Proven
            },
            foreign: foreign.then(old).into_iter().collect(),
            record: None,
            address: *HERE,
            home: home(),
            pushes: Some(*HERE),
            may_move: false,
            writer: String::new(),
            trigger: None,
            system,
            status_grace: (self.variant == Variant::StaleGrace).then_some(Grace::Near),
            bridges: [].into(),
            others: [("default-token".to_owned(), default)].into(),
            live: [].into(),
            credentials: [(old(), if self.young { Age::Young } else { Age::Old })].into(),
            only_agent: false,
            named_secret: String::new(),
            rollout: Rollout::default(),
            names: Some(old()),
            held: false,
            deployment_going_back: false,
            mark: None,
            pods: [Pod {
                token: Some(old()),
                mark: None,
                address: *HERE,
                ready: true,
                leaving: false,
            }]
            .into(),
            connected: Some(Connection {
                token: old(),
                address: *HERE,
            }),
            pushed: system_token.filter(|_| self.era == Era::Secret),
            answers: Some(true),
        };
        view.live = held_values(&view)
            .into_iter()
            .chain(view.foreign.iter().copied())
            .collect();
        view
    }

    fn reaches(&self, pod: &Pod) -> bool {
        !self.unreachable || pod.address == *HERE
    }
}

type W<P> = World<Small<P>>;

fn step<P: CrtLike>(name: impl Into<String>, help: Help, to: W<P>) -> Move<Small<P>> {
    Move {
        name: name.into(),
        help,
        to,
    }
}

/// The protocol under exploration: the real one, or one with a mistake in it.
trait CrtLike: Protocol<View = View, Notes = Notes, Write = Write, Timer = Timer> {}
impl<P: Protocol<View = View, Notes = Notes, Write = Write, Timer = Timer>> CrtLike for P {}

impl<P: CrtLike> Environment for Small<P> {
    type Protocol = P;
    type Memory = Memory;
    type Target = Target;

    fn starts(&self) -> Vec<World<Self>> {
        let memory = Memory {
            left: self.budget,
            rendered: (self.variant == Variant::RedeployUnderWay).then(|| (old(), *HERE)),
            conflict: false,
            reapplied: false,
            dialled: [(Some(old()), None, *HERE)].into(),
            unavailable: [].into(),
            event: false,
        };
        let world = World::new(self.view(), memory).with(self.others.0, self.others.1);
        let mut world = world.forgeries(self.forgeries);
        if self.variant == Variant::WrongDownstream {
            // Begun with the right context, and resumed with a wrong one.
            let mut resumed: World<Self> = world.clone();
            let notes = notes(Fingerprint::of("new"));
            resumed.view.record = Some(Record {
                run: RunId::placeholder().to_string(),
                back: false,
                notes: notes.clone(),
            });
            resumed.run = Some(run(Goal::Forward, Phase::Place, notes));
            let mut back = resumed.clone();
            back.run.as_mut().expect("it has one").goal = Goal::Back;
            world.view.obstacles.clear();
            return vec![world, resumed, back];
        }
        vec![world]
    }

    fn moves(&self, world: &World<Self>) -> Vec<Move<Self>> {
        let mut moves = Vec::new();
        roll_out(world, &mut moves);
        self.agents(world, &mut moves);
        rancher(world, &mut moves);
        disturbances(world, &mut moves);
        moves
    }

    fn timer(&self, world: &World<Self>, timer: Timer) -> Option<Help> {
        match timer {
            // A redeploy lands or gives up within half a minute; --settle is longer.
            Timer::Settle => {
                let system = world.view.system.as_ref().map(|holder| holder.token);
                let rendered = world.memory.rendered.map(|(token, _)| token);
                let landed = rendered.is_none() || rendered == system;
                // A writer that comes more often than every --settle was there by then, unless it has stopped.
                let back = world.run.as_ref().is_some_and(|run| run.goal == Goal::Back);
                let quiet = world.memory.left.reapplies == 0 || world.memory.reapplied || back;
                (landed && quiet).then_some(Help::Helps)
            }
            Timer::Reconnect if world.is_sending() => None,
            Timer::Reconnect => {
                let long = has_dialled(world) || world.memory.left.slow_starts > 0;
                long.then_some(Help::Helps)
            }
            // What follows is what follows a colleague's `rollback`, which may come at any moment.
            Timer::Proof => {
                let moved = world.view.pushes == Some(*THERE) || world.view.address == *THERE;
                (self.new_agents_fail || moved).then_some(Help::Helps)
            }
        }
    }

    fn timer_passed(&self, world: &mut World<Self>, timer: Timer) {
        if timer == Timer::Reconnect && !has_dialled(world) {
            world.memory.left.slow_starts = world.memory.left.slow_starts.saturating_sub(1);
        }
    }

    fn in_use(&self, view: &View, former: Option<&Notes>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        let mut credentials: BTreeSet<_> = held_values(view).into_iter().chain(view.live.iter().copied()).collect();
        let connected = view.connected.map(|connected| connected.token);
        credentials.extend(view.credentials.keys().chain(&view.names).chain(&connected));
        credentials.extend(view.record.as_ref().and_then(|record| record.notes.new));
        credentials.extend(former.and_then(|notes| notes.new));
        let pods = view.pods.iter().filter_map(|pod| pod.mark.clone());
        let marks = pods
            .chain(view.mark.clone())
            .chain(former.and_then(|notes| notes.mark.clone()));
        (credentials, marks.collect())
    }

    fn target(&self, view: &View, write: &Write) -> Option<Target> {
        Some(match write {
            Write::Touch => Target::Trigger(view.trigger),
            Write::Bridge { .. } | Write::CreateCredentials { .. } => return None,
            Write::PostponeGrace | Write::ClearGrace => Target::Status(view.system.clone(), view.status_grace),
            Write::Mint if view.system.is_none() => return None,
            Write::Adopt { .. }
            | Write::Mint
            | Write::Restore { .. }
            | Write::Protect { .. }
            | Write::DropPrevious { .. } => {
                let back = view.record.as_ref().is_some_and(|record| record.back);
                Target::System(view.system.clone(), back)
            }
            Write::DeleteCredentials { token } => Target::Credentials(view.credentials.get(token).copied()),
            Write::PointHeld { .. } | Write::PointBack { .. } | Write::Guard | Write::Release => {
                Target::Deployment(view.names, view.mark.clone(), view.held, view.deployment_going_back)
            }
            Write::Unbridge { token } => Target::Bridge(view.bridges.contains(token)),
            Write::Renew { name } => Target::Other(view.others.get(name).copied()),
        })
    }

    fn written(&self, world: &mut World<Self>, write: &Write) {
        match write {
            Write::Touch => {
                world.memory.event = true;
                world.memory.conflict |= world.memory.rendered.is_some();
            }
            // A new or changed template: its ReplicaSet takes the hold of this moment.
            Write::PointHeld { .. } | Write::PointBack { .. } => {
                world.memory.reapplied = false;
                settle_availability(world);
            }
            Write::Release => settle_availability(world),
            _ => {}
        }
    }

    fn resumed(&self, memory: &mut Memory) {
        memory.reapplied = false;
    }

    /// Whoever may write Leases can claim anything, of this run and of another.
    fn forged(&self, _: &World<Self>) -> Vec<Run<P>> {
        let claims = notes(old());
        let mut forged = Vec::new();
        for goal in [Goal::Forward, Goal::Back] {
            for phase in [Phase::Make, Phase::Place, Phase::Retire, Phase::Confirm] {
                forged.push(run(goal, phase, claims.clone()));
            }
            let another = serde_json::from_value("other".into());
            forged.push(Run {
                id: another.expect("a name of a run"),
                ..run(goal, Phase::Confirm, claims.clone())
            });
        }
        forged
    }

    fn may_refuse(&self, world: &World<Self>) -> bool {
        // A token of another cluster is never restored.
        let no_way_back = matches!(self.variant, Variant::WrongDownstream | Variant::ForeignAgent);
        world.was_forged() || no_way_back
    }

    fn unsafe_because(&self, world: &World<Self>) -> Option<String> {
        let view = &world.view;
        let held: BTreeSet<_> = held_values(view).into_iter().collect();
        if self.variant == Variant::WrongDownstream && view.names != Some(old()) {
            return Some(format!(
                "the agent of another cluster was given a token of this one: {view:#?}"
            ));
        }
        if held.intersection(&view.foreign).next().is_some() {
            return Some(format!(
                "a token of another cluster was brought into this one: {view:#?}"
            ));
        }
        let system = view.system.as_ref().map(|holder| holder.token);
        let in_time = |trigger: &Trigger| !trigger.overdue && Some(trigger.token) == system;
        // One that a former holder has overtaken is refused: the Cluster has another version by then.
        if self.others.0 == 0 && world.sending() == Some(&Write::Touch) && view.trigger.as_ref().is_some_and(in_time) {
            return Some("Rancher was triggered again before it could apply anything".to_owned());
        }
        let is_accepted = |token: &Fingerprint| held.contains(token) || view.foreign.contains(token);
        let works = |pod: &&Pod| {
            pod.ready && !pod.leaving && self.reaches(pod) && pod.token.is_some_and(|token| is_accepted(&token))
        };
        let running: Vec<_> = view.pods.iter().filter(works).collect();
        if running.is_empty() {
            return Some(format!("no agent runs with a token that Rancher accepts: {view:#?}"));
        }
        // Its tunnel stays open, but once that breaks it cannot connect again.
        let revoked = |pod: &&Pod| pod.ready && !pod.leaving && pod.token.is_some_and(|token| !is_accepted(&token));
        if let Some(pod) = view.pods.iter().find(revoked) {
            return Some(format!(
                "the token of an agent that runs was revoked, {pod:?}: {view:#?}"
            ));
        }
        if self.new_agents_fail && !running.iter().any(|pod| pod.token == Some(old())) {
            return Some(format!("the only agent that gets through is gone: {view:#?}"));
        }
        if !view.names.is_some_and(|named| is_accepted(&named)) {
            return Some(format!(
                "the Deployment names a token that Rancher does not accept: {view:#?}"
            ));
        }
        let restorable = world.run.as_ref().is_some_and(undoable) && !world.was_forged() && view.foreign.is_empty();
        if !held.contains(&old()) && !view.credentials.contains_key(&old()) && restorable {
            return Some(format!("the old value is lost while it may still be needed: {view:#?}"));
        }
        ended_wrong(world)
    }
}

fn undoable<P: CrtLike>(run: &Run<P>) -> bool {
    run.goal == Goal::Back || run.phase.may_be_undone()
}

fn ended_wrong<P: CrtLike>(world: &W<P>) -> Option<String> {
    let view = &world.view;
    let goal = world.ended?;
    if world.memory
        != (Memory {
            rendered: None,
            ..world.memory.clone()
        })
    {
        return None;
    }
    let target = view.system.as_ref().map(|holder| holder.token);
    let right = match goal {
        // A forged journal has no old token: what the agent runs with stays.
        Goal::Back if world.was_forged() => target == view.names,
        Goal::Back => target == Some(old()),
        Goal::Forward => {
            // A second rotation, after the journal of the first was discarded, began with another token.
            let second = world.was_forged() || !view.foreign.is_empty();
            let clean = second || !view.credentials.contains_key(&old());
            target != Some(old()) && !view.is_held(old()) && clean
        }
    };
    let clean = view.bridges.is_empty() && view.system.as_ref().is_some_and(|holder| holder.previous.is_none());
    let renewed = goal == Goal::Back || view.others.values().all(|held| *held != Fingerprint::of("default"));
    // A former holder's write may still have landed after the end; what it can do is harmless, but not tidy.
    // What a run that was forged in between has left is found by the next one.
    let clean = clean || world.was_forged();
    (!right || !clean || !renewed).then(|| format!("ended wrong ({goal}): {view:#?}"))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Trigger(Option<Trigger>),
    System(Option<Holder>, bool),
    Status(Option<Holder>, Option<Grace>),
    Credentials(Option<Age>),
    Deployment(Option<Fingerprint>, Option<String>, bool, bool),
    Bridge(bool),
    Other(Option<Fingerprint>),
}

fn is_current(view: &View, pod: &Pod) -> bool {
    pod.token == view.names && pod.mark == view.mark && pod.address == view.address
}

fn template(pod: &Pod) -> (Option<Fingerprint>, Option<String>, Address) {
    (pod.token, pod.mark.clone(), pod.address)
}

fn notes(new: Fingerprint) -> Notes {
    Notes {
        old: Fingerprint::of("claimed"),
        new: Some(new),
        system: None,
        others: [].into(),
        mark: None,
        worked: true,
        home: home(),
        old_secret: "claimed".to_owned(),
        rollout: Rollout {
            min_ready_seconds: 2_000_000_000,
            progress_deadline_seconds: 2_000_000_001,
        },
    }
}

fn run<P: CrtLike>(goal: Goal, phase: Phase, notes: Notes) -> Run<P> {
    Run {
        id: RunId::placeholder(),
        goal,
        phase,
        notes,
        timers: [].into(),
        put_back: 0,
    }
}

/// Whether the agent that should connect has done so, and will not again before its tunnel breaks.
fn has_dialled<P: CrtLike>(world: &W<P>) -> bool {
    let view = &world.view;
    let mut current = view
        .pods
        .iter()
        .filter(|pod| is_current(view, pod) && pod.ready && !pod.leaving);
    let connected = view.names.is_some_and(|named| view.is_connected(named));
    !connected && current.any(|pod| world.memory.dialled.contains(&template(pod)))
}

/// The Deployment controller sets `minReadySeconds` of the ReplicaSet of the present template, and of no other one
/// (kubernetes/kubernetes `pkg/controller/deployment/sync.go`, 1.36).
fn settle_availability<P: CrtLike>(world: &mut W<P>) {
    let current: Vec<_> = world
        .view
        .pods
        .iter()
        .filter(|pod| is_current(&world.view, pod))
        .map(|pod| Pod {
            ready: true,
            ..pod.clone()
        })
        .collect();
    for pod in current {
        if world.view.held {
            world.memory.unavailable.insert(pod);
        } else {
            world.memory.unavailable.remove(&pod);
        }
    }
}

/// The Deployment controller with maxSurge 1 and maxUnavailable 0, one replica (rolling.go, 1.36), and the kubelet.
fn roll_out<P: CrtLike>(world: &W<P>, moves: &mut Vec<Move<Small<P>>>) {
    let view = &world.view;
    let staying: Vec<_> = view.pods.iter().filter(|pod| !pod.leaving).collect();
    let available = |pod: &Pod| pod.ready && !world.memory.unavailable.contains(pod);
    let current = staying.iter().find(|pod| is_current(view, pod));
    if current.is_none() && staying.len() < 2 {
        let mut to = world.clone();
        let pod = Pod {
            token: view.names,
            mark: view.mark.clone(),
            address: view.address,
            ready: false,
            leaving: false,
        };
        // Its ReplicaSet keeps the hold of this moment, also for a pod that starts later.
        if view.held {
            let started = Pod {
                ready: true,
                ..pod.clone()
            };
            to.memory.unavailable.insert(started);
        }
        to.view.pods.insert(pod);
        moves.push(step("Kubernetes makes a pod", Help::Helps, to));
    }
    let new_unavailable = usize::from(current.is_some_and(|pod| !available(pod)));
    let available_now = staying.iter().filter(|pod| available(pod)).count();
    for pod in staying.iter().filter(|pod| !is_current(view, pod)) {
        let spare = staying.len() > 1 + new_unavailable;
        if spare && (!available(pod) || available_now > 1) {
            let mut to = world.clone();
            to.view.pods.remove(*pod);
            to.memory.unavailable.remove(*pod);
            // Which template it had makes no difference any more.
            let leaving = Pod {
                leaving: true,
                mark: Some("leaving".to_owned()),
                ..(*pod).clone()
            };
            if to.memory.dialled.remove(&template(pod)) {
                to.memory.dialled.insert(template(&leaving));
            }
            to.view.pods.insert(leaving);
            moves.push(step("Kubernetes removes a pod of another template", Help::Helps, to));
        }
    }
    for pod in &view.pods {
        let mut to = world.clone();
        to.view.pods.remove(pod);
        if pod.leaving {
            to.memory.dialled.remove(&template(pod));
            moves.push(step("a pod ends", Help::Helps, to));
        } else if !pod.ready && pod.token.is_some_and(|token| view.credentials.contains_key(&token)) {
            let pod = Pod {
                ready: true,
                ..pod.clone()
            };
            to.view.pods.insert(pod.clone());
            if is_current(view, &pod) && view.held {
                to.memory.unavailable.insert(pod);
            }
            moves.push(step("a pod starts", Help::Helps, to));
        }
    }
}

impl<P: CrtLike> Small<P> {
    /// An agent dials once after its start, writes `stv-aggregation` when Rancher accepts it, and dials again only when its
    /// tunnel breaks (rancher/rancher `cmd/agent/main.go`, `pkg/agent/rancher`).
    fn agents(&self, world: &W<P>, moves: &mut Vec<Move<Small<P>>>) {
        for pod in world.view.pods.iter().filter(|pod| pod.ready) {
            let Some(token) = pod.token.filter(|token| world.view.live.contains(token)) else {
                continue;
            };
            if self.new_agents_fail && token != old() || !self.reaches(pod) {
                continue;
            }
            let address = pod.address;
            let mut to = world.clone();
            to.view.connected = Some(Connection { token, address });
            if to.memory.dialled.insert(template(pod)) {
                moves.push(step("an agent connects", Help::Helps, to));
            } else if to.memory.left.reconnects > 0 && world.view.connected != to.view.connected {
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

/// What Rancher does of its own accord.
fn rancher<P: CrtLike>(world: &W<P>, moves: &mut Vec<Move<Small<P>>>) {
    let view = &world.view;
    let held: BTreeSet<_> = held_values(view)
        .into_iter()
        .chain(view.foreign.iter().copied())
        .collect();
    // Each replica has an index of its own, so that a change takes a moment.
    for token in held.symmetric_difference(&view.live) {
        let mut to = world.clone();
        let learns = to.view.live.insert(*token);
        if !learns {
            to.view.live.remove(token);
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
        moves.push(step("the redeploy lands", Help::Helps, to));
    }
    // Nothing is in progress, so that a minute may pass.
    let waiting = world.view.trigger.is_some_and(|trigger| !trigger.overdue);
    if waiting && !world.memory.event && world.memory.rendered.is_none() && !world.is_sending() {
        let mut to = world.clone();
        to.view.trigger.iter_mut().for_each(|trigger| trigger.overdue = true);
        moves.push(step("a minute passes after the trigger", Help::Helps, to));
    }
    // Era S: at any event of the cluster it compares its token with the one applied last.
    if world.memory.event && view.era == Era::Secret && world.memory.rendered.is_none() {
        let mut to = world.clone();
        to.memory.event = false;
        let system = view.system.as_ref().map(|holder| holder.token);
        if view.pushed != system {
            to.memory.rendered = system.zip(view.pushes);
        }
        moves.push(step("Rancher looks at the cluster", Help::Helps, to));
    }
}

/// Rancher's apply: its Secret, and the Deployment's volume and environment; what others added to the template and to
/// the roll-out settings survives (seen on Rancher 2.15.0 and 2.12.0).
fn land<P: CrtLike>(world: &mut W<P>, token: Fingerprint, address: Address) {
    world.view.credentials.entry(token).or_insert(Age::Young);
    world.view.names = Some(token);
    world.view.address = address;
    if std::mem::take(&mut world.memory.conflict) {
        // The update at its end conflicts with the trigger: nothing is noted, and it starts again.
        world.memory.event = true;
    } else if world.view.era == Era::Secret {
        world.view.pushed = Some(token);
    }
    settle_availability(world);
}

fn disturbances<P: CrtLike>(world: &W<P>, moves: &mut Vec<Move<Small<P>>>) {
    let left = world.memory.left;
    let system = world.view.system.as_ref().map(|holder| holder.token);
    if left.redeploys > 0 && world.memory.rendered.is_none() && system.is_some() {
        let mut to = world.clone();
        to.memory.left.redeploys -= 1;
        to.memory.rendered = system.zip(world.view.pushes);
        moves.push(step("Rancher renders a redeploy", Help::Disturbs, to));
    }
    if left.hours > 0 {
        let mut to = world.clone();
        to.memory.left.hours -= 1;
        to.memory.unavailable.clear();
        to.view.credentials.values_mut().for_each(|age| *age = Age::Old);
        moves.push(step("an hour passes", Help::Disturbs, to));
    }
    if left.hours < 1 {
        for pod in world.view.pods.iter().filter(|pod| pod.ready) {
            let mut to = world.clone();
            to.view
                .credentials
                .retain(|token, age| *age == Age::Young || Some(*token) == pod.token);
            if to.view.credentials != world.view.credentials {
                moves.push(step("an agent cleans foreign Secrets away", Help::Disturbs, to));
            }
        }
    }
    if left.upgrades > 0 && world.view.era == Era::Plain {
        let mut to = world.clone();
        to.memory.left.upgrades -= 1;
        to.view.era = Era::Secret;
        to.memory.rendered = system.zip(world.view.pushes);
        moves.push(step("Rancher is upgraded to era S", Help::Disturbs, to));
    }
    reapplies(world, moves);
    let forward = world.run.as_ref().is_none_or(|run| run.goal == Goal::Forward);
    if left.settings > 0 && forward {
        let mut to = world.clone();
        to.memory.left.settings -= 1;
        to.view.pushes = Some(*THERE);
        moves.push(step("Rancher's server-url is changed", Help::Disturbs, to));
    } else if world.view.pushes == Some(*THERE) && !forward {
        let mut to = world.clone();
        to.view.pushes = Some(*HERE);
        moves.push(step("server-url is put back", Help::Helps, to));
    }
    // Early builds of era S decide by the status alone (seen on Rancher 2.15.0).
    let previous = world.view.system.as_ref().and_then(|holder| holder.previous);
    if world.view.status_grace == Some(Grace::Near) && previous.is_some() {
        let mut to = world.clone();
        if let Some(holder) = &mut to.view.system {
            holder.previous = None;
        }
        to.view.status_grace = None;
        moves.push(step("Rancher ends the grace by the status", Help::Disturbs, to));
    }
}

/// GitOps, or a static manifest: the Deployment and its Secret are as they were at the start again.
fn reapplies<P: CrtLike>(world: &W<P>, moves: &mut Vec<Move<Small<P>>>) {
    let view = &world.view;
    let as_saved = view.names == Some(old()) && view.mark.is_none() && !view.held && view.address == *HERE;
    let left = world.memory.left.reapplies;
    if left > 0 {
        let mut to = world.clone();
        to.memory.left.reapplies = 0;
        moves.push(step("the other writer stops", Help::Helps, to));
    }
    let at_rest = || view.pods.iter().all(|pod| pod.ready && !pod.leaving);
    // In era S there are too many states when it goes on on the way back, which is what it wants.
    let content = || view.era == Era::Secret && world.run.as_ref().is_some_and(|run| run.goal == Goal::Back);
    if left == 0 || as_saved || left == ENDLESS && (!at_rest() || content()) {
        return;
    }
    let mut to = world.clone();
    if left != ENDLESS {
        to.memory.left.reapplies -= 1;
    }
    to.memory.reapplied = true;
    to.view.credentials.entry(old()).or_insert(Age::Young);
    to.view.names = Some(old());
    to.view.mark = None;
    to.view.held = false;
    to.view.address = *HERE;
    to.view.deployment_going_back = false;
    settle_availability(&mut to);
    moves.push(step("another writer puts the old state back", Help::Disturbs, to));
}

fn explored<P: CrtLike>(small: &Small<P>) -> Result<Explored, Counterexample> {
    explore(small, LIMIT)
}

#[track_caller]
fn nothing_is_lost(name: &str, small: &Small<Crt>) {
    let began = std::time::Instant::now();
    match explored(small) {
        Ok(explored) => println!("{name}: {explored}; {:?}; {:.1?}", small.budget, began.elapsed()),
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
fn one_disturbance_loses_nothing_in_era_p() {
    for (name, budget) in each_disturbance() {
        nothing_is_lost(name, &Small::new(Era::Plain, Variant::Ordinary, budget));
        let rollback = Small {
            others: (0, 1),
            ..Small::new(Era::Plain, Variant::Ordinary, budget)
        };
        nothing_is_lost(&format!("{name} and a rollback"), &rollback);
    }
}

#[test]
fn one_disturbance_loses_nothing_in_era_s() {
    for (name, budget) in each_disturbance() {
        nothing_is_lost(name, &Small::new(Era::Secret, Variant::Ordinary, budget));
    }
}

#[test]
fn a_former_holder_and_a_rollback_lose_nothing() {
    nothing_is_lost(
        "both",
        &Small {
            others: (1, 1),
            ..Small::new(Era::Plain, Variant::Ordinary, QUIET)
        },
    );
    nothing_is_lost(
        "a former holder",
        &Small {
            others: (1, 0),
            ..Small::new(Era::Secret, Variant::Ordinary, QUIET)
        },
    );
    nothing_is_lost(
        "a rollback",
        &Small {
            others: (0, 1),
            ..Small::new(Era::Secret, Variant::Ordinary, QUIET)
        },
    );
}

#[test]
fn odd_beginnings_lose_nothing() {
    for variant in [Variant::RedeployUnderWay, Variant::NoSystem] {
        nothing_is_lost(&format!("{variant:?}"), &Small::new(Era::Plain, variant, QUIET));
    }
    for variant in [
        Variant::RedeployUnderWay,
        Variant::RotatedByRancher,
        Variant::StaleGrace,
    ] {
        nothing_is_lost(&format!("{variant:?}"), &Small::new(Era::Secret, variant, QUIET));
    }
}

#[test]
fn an_upgrade_in_the_middle_loses_nothing() {
    let budget = Budget { upgrades: 1, ..QUIET };
    nothing_is_lost("an upgrade", &Small::new(Era::Plain, Variant::Ordinary, budget));
}

#[test]
fn new_agents_that_never_get_through_lead_back() {
    for era in [Era::Plain, Era::Secret] {
        let failing = Small {
            new_agents_fail: true,
            ..Small::new(era, Variant::Ordinary, QUIET)
        };
        nothing_is_lost("failing agents", &failing);
    }
}

#[test]
fn another_cluster_is_never_touched() {
    for era in [Era::Plain, Era::Secret] {
        nothing_is_lost("a wrong downstream", &Small::new(era, Variant::WrongDownstream, QUIET));
        nothing_is_lost("a foreign agent", &Small::new(era, Variant::ForeignAgent, QUIET));
    }
    let foreign = Small {
        others: (0, 1),
        ..Small::new(Era::Plain, Variant::ForeignAgent, QUIET)
    };
    nothing_is_lost("a foreign agent and a rollback", &foreign);
}

#[test]
fn another_writer_loses_nothing() {
    for (era, reapplies) in [
        (Era::Plain, 1),
        (Era::Secret, 1),
        (Era::Plain, ENDLESS),
        (Era::Secret, ENDLESS),
    ] {
        let writer = Small {
            young: true,
            ..Small::new(era, Variant::Ordinary, Budget { reapplies, ..QUIET })
        };
        nothing_is_lost("another writer", &writer);
    }
}

#[test]
fn a_forged_journal_loses_nothing() {
    for era in [Era::Plain, Era::Secret] {
        let forged = Small {
            forgeries: 1,
            ..Small::new(era, Variant::Ordinary, QUIET)
        };
        nothing_is_lost("a forged journal", &forged);
    }
}

#[test]
fn a_change_of_address_loses_nothing() {
    for unreachable in [false, true] {
        let small = Small {
            unreachable,
            ..Small::new(Era::Secret, Variant::Ordinary, Budget { settings: 1, ..QUIET })
        };
        nothing_is_lost("a change of address", &small);
    }
}

/// Mistakes that somebody might make in `decide`. The exploration must find each, or it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Mistaken<const MISTAKE: u8>;

/// A redeploy that began before is not waited for.
const NO_SETTLING: u8 = 0;
/// What `system` holds is overwritten without a bridge.
const NO_BRIDGE: u8 = 1;
/// The roll-out is not held.
const NO_HOLD: u8 = 2;
/// The old token is revoked while pods with it are still there.
const PODS_NOT_AWAITED: u8 = 3;
/// On the way back objects that look right already are left alone, so that a late write still fits them.
const NO_GUARD: u8 = 4;
/// The agent's own proof is not asked for.
const NO_PROOF: u8 = 5;
/// Any cluster will do as the downstream side.
const ANY_DOWNSTREAM: u8 = 6;
/// A token of another cluster is kept accepted like one of this cluster.
const CARRIES_FOREIGN: u8 = 7;
/// The quiet time goes on although another writer was there.
const QUIET_NOT_RESTARTED: u8 = 8;
/// What the Lease claims is believed.
const BELIEVES_THE_LEASE: u8 = 9;
/// Rancher is triggered again and again.
const HASTY_TRIGGER: u8 = 10;
/// The rollout is released on the proof of an earlier template.
const EARLIER_TEMPLATE: u8 = 11;
/// A template that another writer has replaced between two looks is taken for the run's own.
const ANY_TEMPLATE: u8 = 12;

fn mistaken_view<const M: u8>(view: &View, run: Option<&Run<Mistaken<M>>>) -> View {
    let mut view = view.clone();
    let run = run.map(real::<Crt, _>);
    let target = run.as_ref().and_then(|run| {
        if run.goal == Goal::Back {
            Some(run.notes.old)
        } else {
            run.notes.new
        }
    });
    match M {
        NO_BRIDGE => view.bridges.extend(view.system.as_ref().map(|holder| holder.token)),
        PODS_NOT_AWAITED => view.pods.retain(|pod| pod.token == target),
        NO_GUARD => {
            view.deployment_going_back = true;
            let current = run.as_ref().map(|run| Record {
                run: run.id.to_string(),
                back: true,
                notes: run.notes.clone(),
            });
            view.record = current
                .filter(|_| run.as_ref().is_some_and(|run| run.goal == Goal::Back))
                .or(view.record);
        }
        NO_PROOF => {
            let address = view.address;
            view.connected = target.map(|token| Connection { token, address });
        }
        ANY_TEMPLATE => {
            let placed = run.as_ref().and_then(|run| run.notes.mark.clone());
            view.mark = placed.or(view.mark);
        }
        ANY_DOWNSTREAM => view.downstream = Downstream::Proven,
        CARRIES_FOREIGN => view.foreign.clear(),
        HASTY_TRIGGER => view.trigger.iter_mut().for_each(|trigger| trigger.overdue = true),
        EARLIER_TEMPLATE => {
            let address = view.address;
            view.connected
                .iter_mut()
                .for_each(|connected| connected.address = address);
            let pods = std::mem::take(&mut view.pods).into_iter();
            view.pods = pods.map(|pod| Pod { address, ..pod }).collect();
        }
        _ => {}
    }
    view
}

impl<const M: u8> Protocol for Mistaken<M> {
    type View = View;
    type Notes = Notes;
    type Write = Write;
    type Timer = Timer;

    fn decide(view: &View, run: Option<&Run<Self>>) -> Next<Self> {
        let mut real_run = run.map(real::<Crt, _>);
        if let Some(run) = real_run.as_mut().filter(|_| M == NO_SETTLING) {
            run.timers.insert(Timer::Settle, true);
        }
        match Crt::decide(&mistaken_view(view, run), real_run.as_ref()) {
            // The mistake may make it remove what is not there.
            Next::Do(Step {
                write: Write::Unbridge { token },
                phase,
                ..
            }) if !view.bridges.contains(&token) => Next::wait(phase, "nothing"),
            Next::Do(mut step) if M == QUIET_NOT_RESTARTED && matches!(step.write, Write::PointHeld { .. }) => {
                step.stops.clear();
                told(Next::Do(step), run)
            }
            next => told(next, run),
        }
    }

    fn recall(view: &View, claimed: &Run<Self>) -> Option<Notes> {
        if M == BELIEVES_THE_LEASE {
            return Some(claimed.notes.clone());
        }
        Crt::recall(view, &real(claimed))
    }

    fn predict(view: &mut View, run: &Run<Self>, write: &Write) {
        Crt::predict(view, &real(run), write);
        if M == NO_HOLD {
            view.held = false;
        }
    }

    fn rest(_: &mut View, _: &mut Run<Self>) {}

    fn intend(write: &Write, run: &Run<Self>, draw: &mut dyn Draw) -> Notes {
        Crt::intend(write, &real(run), draw)
    }
}

#[track_caller]
fn is_found<const M: u8>(small: &Small<Mistaken<M>>) -> Counterexample {
    match explored(small) {
        Ok(explored) => panic!("the mistake was not found in {explored}"),
        Err(counterexample) => {
            println!(
                "found after {} moves: {}",
                counterexample.trace.len(),
                counterexample.trace.join("; ")
            );
            counterexample
        }
    }
}

#[test]
fn seeded_mistakes_are_found() {
    let redeploy = Budget { redeploys: 1, ..QUIET };
    is_found::<NO_SETTLING>(&Small::new(Era::Plain, Variant::RedeployUnderWay, redeploy));
    is_found::<NO_BRIDGE>(&Small::new(Era::Plain, Variant::Ordinary, QUIET));
    is_found::<NO_HOLD>(&Small {
        new_agents_fail: true,
        ..Small::new(Era::Plain, Variant::Ordinary, QUIET)
    });
    is_found::<PODS_NOT_AWAITED>(&Small::new(Era::Plain, Variant::Ordinary, redeploy));
    is_found::<NO_GUARD>(&Small {
        others: (1, 1),
        young: true,
        ..Small::new(Era::Plain, Variant::Ordinary, QUIET)
    });
    is_found::<NO_PROOF>(&Small {
        new_agents_fail: true,
        ..Small::new(Era::Secret, Variant::Ordinary, QUIET)
    });
    is_found::<ANY_DOWNSTREAM>(&Small::new(Era::Plain, Variant::WrongDownstream, QUIET));
    is_found::<CARRIES_FOREIGN>(&Small::new(Era::Plain, Variant::ForeignAgent, QUIET));
    is_found::<CARRIES_FOREIGN>(&Small::new(Era::Secret, Variant::ForeignAgent, QUIET));
    let once = Budget { reapplies: 2, ..QUIET };
    is_found::<QUIET_NOT_RESTARTED>(&Small::new(Era::Plain, Variant::Ordinary, once));
    is_found::<QUIET_NOT_RESTARTED>(&Small::new(Era::Secret, Variant::Ordinary, once));
    is_found::<ANY_TEMPLATE>(&Small {
        young: true,
        ..Small::new(
            Era::Secret,
            Variant::Ordinary,
            Budget {
                reapplies: ENDLESS,
                ..QUIET
            },
        )
    });
    is_found::<BELIEVES_THE_LEASE>(&Small {
        forgeries: 1,
        ..Small::new(Era::Plain, Variant::Ordinary, QUIET)
    });
    is_found::<HASTY_TRIGGER>(&Small::new(Era::Secret, Variant::Ordinary, QUIET));
    is_found::<EARLIER_TEMPLATE>(&Small {
        unreachable: true,
        ..Small::new(Era::Secret, Variant::Ordinary, Budget { settings: 1, ..QUIET })
    });
}
