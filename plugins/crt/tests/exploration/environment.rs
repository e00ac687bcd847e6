//! A model of one cluster: Rancher, Kubernetes, agents, operators and other writers. The parts of a cluster that Rancher provisioned are
//! in `planner`.

mod moves;
pub(crate) mod planner;
mod safety;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Decision, Next, Rotation as _, Timer, decide};
use engine::run::RunId;
use kubectl_crt::rotation::Crt;
use kubectl_crt::rotation::observed::{
    Address, Age, AgentConnection, DownstreamAccess, DownstreamIdentity, GivenMark, Grace, Kind, Observed, Pod,
    SystemToken, Trigger,
};
use kubectl_crt::rotation::record::{Mark, Record, RolloutSettings, ServerAddress};
use kubectl_crt::rotation::step::Step;
use model::{Environment, Help, Move, Refusal};
use rancher::TokenStorage;
use rancher::token::SYSTEM;

use self::planner::Planner;
use crate::mutants::Mutant;

pub(crate) type Run = engine::run::Run<Crt>;
pub(crate) type World = model::World<CrtModel>;

/// A writer that does not stop. It writes only while no pod is starting, so that the number of states is finite.
pub(crate) const ENDLESS: u8 = u8::MAX;

/// How many moves of each disturbing kind the environment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// A redeploy by Rancher: rendered at one moment, applied at a later one.
    pub(crate) redeploys: u8,
    /// Every tunnel drops; any of the running agents reconnects last and writes `stv-aggregation`.
    pub(crate) reconnects: u8,
    /// An hour passes: the held rollout completes, Secrets are old, and each agent deletes foreign ones.
    pub(crate) hours: u8,
    /// Rancher is upgraded from storage `status` to storage `secret`.
    pub(crate) upgrades: u8,
    /// An agent takes longer to connect than the tool waits before it restarts it.
    pub(crate) slow_starts: u8,
    /// Another writer restores the state of the start: GitOps, a static manifest.
    pub(crate) reapplies: u8,
    /// Rancher's address is changed.
    pub(crate) settings: u8,
    /// Rancher rotates another registration token by itself, and accepts its value for hours.
    pub(crate) rotations: u8,
    /// An admin or Rancher drops what keeps the other value valid.
    pub(crate) withdrawals: u8,
    /// `system` is given another value: an admin restores that of the start or sets a new one, or Rancher rotates it.
    pub(crate) admins: u8,
    /// Provisioned: the planner reconciles by itself.
    pub(crate) events: u8,
    /// Provisioned: a server starts, and applies the file that it has.
    pub(crate) starts: u8,
    /// Provisioned: the system-agent of a control-plane machine stops.
    pub(crate) deaths: u8,
    /// Provisioned: someone creates a registration token that sorts first.
    pub(crate) firsts: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    pub(crate) left: Budget,
    /// A redeploy that was rendered with this token and address and is not applied yet.
    pub(crate) rendered: Option<(Fingerprint, Address)>,
    /// The Cluster has changed since that one began: its last update will conflict, and it starts again.
    pub(crate) conflict: bool,
    /// The other writer has written since this process pointed the Deployment at a token last.
    pub(crate) reapplied: bool,
    /// The templates whose pod has connected to Rancher. An agent connects once, and again only when its tunnel breaks.
    pub(crate) connected_once: BTreeSet<(Option<Fingerprint>, Option<String>, Address)>,
    /// Pods whose ReplicaSet was created while the rollout was held: they do not count as available.
    pub(crate) unavailable: BTreeSet<Pod>,
    /// Storage `secret`: the Cluster has changed, and Rancher will reconcile it.
    pub(crate) event: bool,
    /// Values that someone else has dropped in mid-run.
    pub(crate) withdrawn: BTreeSet<Fingerprint>,
    /// Provisioned: the planner and the machines.
    pub(crate) planner: Planner,
}

/// A model of one cluster.
pub(crate) struct CrtModel {
    pub(crate) cluster: ClusterModel,
    pub(crate) storage: TokenStorage,
    pub(crate) budget: Budget,
    /// Agents with a new value never connect, although Rancher accepts it (a broken image, no room for a pod).
    pub(crate) new_agents_fail: bool,
    /// Agents with the old value do not connect either: the cluster did not work at the start (`--force=agent`).
    pub(crate) old_agents_fail: bool,
    /// Agents cannot reach the address that the settings are changed to.
    pub(crate) unreachable: bool,
    /// How often the journal is forged.
    pub(crate) forgeries: u8,
    pub(crate) variant: Variant,
    /// How many holders lose the lock with a write in flight, and how many rollbacks are requested.
    pub(crate) others: (u8, u8),
    /// No Secret is old enough for an agent to delete it.
    pub(crate) young: bool,
    pub(crate) mutant: Option<Mutant>,
}

/// What kind of cluster it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterModel {
    Imported,
    /// With so many control-plane machines, and whether their plans can be read.
    Provisioned {
        machines: u8,
        readable: bool,
    },
    Hosted,
    /// An imported cluster on which the run has no permissions.
    Unreadable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// A healthy cluster.
    Ordinary,
    /// Rancher began to redeploy before the rotation began.
    RedeployInProgress,
    /// Storage `secret`: Rancher has rotated `system` by itself and has not pushed it.
    RotatedByRancher,
    /// Storage `secret`: the status of `system` has an old end of a grace period.
    StaleGrace,
    /// Provisioned: F and `system` have the same value, as after a rotation.
    Shared,
    /// Provisioned, storage `secret`: Rancher has rotated F by itself, and the plans have its previous value.
    FirstRotated,
    /// `system` was deleted; the agent runs with the token of another one.
    NoSystem,
    /// The agent runs with the value of another registration token, and `system` has one of its own.
    SystemElsewhere,
    /// The agent runs with a token of another cluster, and the rotation was forced.
    ForeignAgent,
    /// The downstream context leads to another cluster, whose agent runs with its own token.
    WrongDownstream,
    /// Provisioned, in a rescue: the agent's token was revoked, and it was restarted. Only its own tunnel leads to it.
    LostAgent,
}

pub(crate) fn server_address() -> ServerAddress {
    ServerAddress {
        server: "a".to_owned(),
        ca_checksum: String::new(),
    }
}

/// Where the agent connects to at the start.
pub(crate) static HERE: LazyLock<Address> = LazyLock::new(|| Address::of(Some("a"), Some("")));
/// What Rancher's address is changed to.
pub(crate) static THERE: LazyLock<Address> = LazyLock::new(|| Address::of(Some("b"), Some("")));
pub(crate) static OLD: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("old"));

pub(crate) fn old() -> Fingerprint {
    *OLD
}

/// What the lost agent has.
pub(crate) fn dead() -> Fingerprint {
    Fingerprint::of("dead")
}

impl CrtModel {
    pub(crate) fn new(storage: TokenStorage, variant: Variant, budget: Budget) -> Self {
        Self {
            cluster: ClusterModel::Imported,
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

    pub(crate) fn observed(&self) -> Observed {
        let native = Fingerprint::of("rotated by Rancher");
        let system = match self.variant {
            Variant::NoSystem => None,
            Variant::RotatedByRancher => Some(SystemToken {
                token: native,
                previous: Some(old()),
                protected: false,
            }),
            Variant::ForeignAgent | Variant::WrongDownstream | Variant::SystemElsewhere => Some(SystemToken {
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
        let default = if matches!(
            self.variant,
            Variant::NoSystem | Variant::SystemElsewhere | Variant::Shared
        ) {
            old()
        } else {
            Fingerprint::of("default")
        };
        let mut seen = Observed {
            kind: Kind::Imported,
            storage: self.storage,
            access: DownstreamAccess::Full,
            given: [].into(),
            weak_proof_forced: false,
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
            others_previous: (self.variant == Variant::FirstRotated)
                .then(|| ("default-token".to_owned(), planner::before_native()))
                .into_iter()
                .collect(),
            acceptance: [].into(),
            credentials: [(old(), if self.young { Age::Young } else { Age::Old })].into(),
            occupied: [].into(),
            leftovers: [].into(),
            reactivated: [].into(),
            reactivates: None,
            ending: [].into(),
            redeploys: false,
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
        if self.variant == Variant::LostAgent {
            seen.access = DownstreamAccess::Unreachable;
            seen.deployed = Some(dead());
            seen.credentials = [(dead(), Age::Young)].into();
            seen.connected = None;
            seen.tunnel_works = None;
            seen.pods = [Pod {
                token: Some(dead()),
                restarted_at: None,
                address: *HERE,
                ready: true,
                leaving: false,
            }]
            .into();
        }
        self.provision(&mut seen);
        let accepted = seen.held_values().into_iter().chain(seen.foreign.iter().copied());
        seen.acceptance = accepted.map(|token| (token, Acceptance::Accepted)).collect();
        seen
    }

    /// Whether a rotation ends at all: not where every run is refused.
    pub(crate) fn can_be_rotated(&self) -> bool {
        let fails = self.new_agents_fail && (self.old_agents_fail || self.others.1 == 0);
        self.variant != Variant::WrongDownstream && !fails
    }

    /// No agent was connected at the start.
    pub(crate) fn did_not_work(&self) -> bool {
        self.old_agents_fail || self.variant == Variant::LostAgent
    }

    pub(crate) fn reaches(&self, pod: &Pod) -> bool {
        !self.unreachable || pod.address == *HERE
    }
}

impl Environment for CrtModel {
    type Rotation = Crt;
    type Memory = Memory;
    type Condition = Condition;

    fn starts(&self) -> Vec<World> {
        let memory = Memory {
            left: self.budget,
            rendered: (self.variant == Variant::RedeployInProgress).then(|| (old(), *HERE)),
            conflict: false,
            reapplied: false,
            connected_once: if self.old_agents_fail || self.variant == Variant::LostAgent {
                [].into()
            } else {
                [(Some(old()), None, *HERE)].into()
            },
            unavailable: [].into(),
            event: false,
            withdrawn: [].into(),
            planner: self.planner(),
        };
        let world = World::new(self.observed(), memory).with(self.others.0, self.others.1);
        let mut world = world.forgeries(self.forgeries);
        if self.variant == Variant::WrongDownstream {
            // Begun with the right context, and resumed with a wrong one.
            let mut resumed: World = world.clone();
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

    fn moves(&self, world: &World) -> Vec<Move<Self>> {
        let mut moves = Vec::new();
        moves::roll_out(world, &mut moves);
        self.agents(world, &mut moves);
        moves::rancher(world, &mut moves);
        moves::disturbances(world, &mut moves);
        moves.extend(self.operator(world));
        self.machines(world, &mut moves);
        moves
    }

    fn timer(&self, world: &World, timer: Timer) -> Option<Help> {
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
                (landed && quiet && self.is_at_rest(world)).then_some(Help::Helps)
            }
            Timer::Cache | Timer::InFlight => None,
            Timer::Retry if world.is_sending() => None,
            Timer::Retry => {
                let long = moves::has_connected(world) || world.memory.left.slow_starts > 0;
                long.then_some(Help::Helps)
            }
            // The rest is the same as after `rollback` by another operator, which may come at any moment.
            Timer::Proof => {
                let moved = world.seen.pushes == Some(*THERE) || world.seen.address == *THERE;
                (self.new_agents_fail || moved).then_some(Help::Helps)
            }
        }
    }

    fn timer_passed(&self, world: &mut World, timer: Timer) {
        if timer == Timer::Retry && !moves::has_connected(world) {
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
            Step::TriggerApply { .. } | Step::Recreate | Step::Redeploy => Condition::Trigger(seen.trigger),
            Step::LimitGrace { .. } | Step::Reactivate { .. } => unreachable!("a rotation reactivates nothing"),
            Step::CreateTemporary { .. } | Step::CreateCredentials { .. } | Step::DeleteLeftover { .. } => return None,
            Step::PostponeGrace { .. } | Step::ClearGrace { .. } => {
                Condition::Status(seen.system.clone(), seen.status_grace)
            }
            Step::SetNew if seen.system.is_none() => return None,
            Step::Protect { name, .. } if name != SYSTEM => other(seen, name),
            Step::Adopt { .. } | Step::SetNew | Step::Restore { .. } | Step::Protect { .. } => {
                let back = seen.mark.as_ref().is_some_and(|mark| mark.direction.is_rollback());
                Condition::System(seen.system.clone(), back)
            }
            Step::DropPrevious { name, .. } if name == SYSTEM => {
                let back = seen.mark.as_ref().is_some_and(|mark| mark.direction.is_rollback());
                Condition::System(seen.system.clone(), back)
            }
            Step::DeleteCredentials { token } => Condition::Credentials(seen.credentials.get(token).copied()),
            Step::Hold | Step::PointHeld { .. } | Step::PointBack { .. } | Step::Fence | Step::Release => {
                Condition::Deployment(
                    seen.deployed,
                    seen.restarted_at.clone(),
                    seen.held,
                    seen.deployment_direction,
                )
            }
            Step::DeleteTemporary { token } => Condition::Temporary(seen.temporary.contains(token)),
            Step::SetOther { name, .. } | Step::Renew { name } | Step::DropPrevious { name, .. } => other(seen, name),
        })
    }

    fn applied(&self, world: &mut World, step: &Step) {
        match step {
            Step::TriggerApply { .. } => {
                world.memory.event = world.seen.storage == TokenStorage::Secret;
                world.memory.conflict |= world.memory.rendered.is_some();
                planner::triggered(world);
            }
            // A new or changed template: its ReplicaSet gets the present `minReadySeconds`.
            Step::PointHeld { .. } | Step::PointBack { .. } => {
                world.memory.reapplied = false;
                moves::settle_availability(world);
            }
            Step::Hold | Step::Release => moves::settle_availability(world),
            // Rancher changes the Cluster when a token is created.
            Step::CreateTemporary { .. } if self.mutant == Some(Mutant::SortsFirst) => {
                world.memory.planner.event = true;
            }
            _ => {}
        }
    }

    fn resumed(&self, World { memory, .. }: &mut World) {
        memory.reapplied = false;
    }

    /// A user with permission to write Leases can claim anything about this run or another one.
    fn forged(&self, _: &World) -> Vec<Run> {
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
    fn refused(&self, world: &World, blockers: &[Blocker]) -> Result<Refusal, String> {
        let no_rollback = matches!(self.variant, Variant::WrongDownstream | Variant::ForeignAgent);
        if self.did_not_work() {
            return Ok(Refusal::Waits);
        }
        if world.was_forged() || no_rollback {
            Ok(Refusal::Discarded)
        } else {
            Err(format!("refuses in the middle of a run: {blockers:?}"))
        }
    }

    fn survey(&self, seen: &Observed) -> Result<Record, Vec<Blocker>> {
        Crt::survey(&self.mutated(&self.view(seen), None))
    }

    fn decide(&self, seen: &Observed, run: &Run) -> Decision<Crt> {
        let seen = &self.view(seen);
        let Some(mutant) = self.mutant else {
            return decide(seen, run);
        };
        let mut run = run.clone();
        // The plans decide when the quiet time begins, and what is observed of them is the mutant's.
        let of_plans = [
            Mutant::OnlySystem,
            Mutant::PlansNotAwaited,
            Mutant::SilentMachinesIgnored,
            Mutant::RemembersFirst,
        ];
        if mutant == Mutant::NoQuietTime || of_plans.contains(&mutant) {
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
                Step::SetNew
                    if mutant == Mutant::AdoptsOld
                        && seen.system.as_ref().is_some_and(|system| system.token == old()) =>
                {
                    decision.next = Next::step(Step::Adopt { token: old() });
                }
                _ => {}
            },
            Next::Refuse(blockers) => decision.next = Next::wait(blockers[0].hint.clone()),
            Next::Wait(_) | Next::Turn { .. } | Next::Pause(_) | Next::Done => {}
        }
        decision
    }

    fn recall(&self, seen: &Observed, claimed: Run) -> Option<Run> {
        if self.mutant == Some(Mutant::TrustsLease) {
            return Some(Run {
                timers: [].into(),
                ..claimed
            });
        }
        claimed.resumed(&self.view(seen))
    }

    fn predict(&self, seen: &mut Observed, run: &Run, step: &Step) {
        Crt::predict(seen, run, step);
        self.mispredict(seen, step);
        if self.mutant == Some(Mutant::NotHeld) {
            seen.held = false;
        }
    }

    fn unsafe_because(&self, world: &World) -> Option<String> {
        self.is_unsafe(world)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Condition {
    Trigger(Option<Trigger>),
    System(Option<SystemToken>, bool),
    Status(Option<SystemToken>, Option<Grace>),
    Credentials(Option<Age>),
    Deployment(Option<Fingerprint>, Option<String>, bool, Option<Direction>),
    Temporary(bool),
    Other(Option<Fingerprint>, Option<Fingerprint>, Option<GivenMark>),
}

fn other(seen: &Observed, name: &str) -> Condition {
    Condition::Other(
        seen.others.get(name).copied(),
        seen.others_previous.get(name).copied(),
        seen.given.get(name).copied(),
    )
}

pub(crate) fn record(new: Fingerprint) -> Record {
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

pub(crate) fn run(direction: Direction, phase: Phase, record: Record) -> Run {
    Run {
        id: RunId::placeholder(),
        direction,
        phase,
        record,
        timers: [].into(),
        reapplied: 0,
    }
}
