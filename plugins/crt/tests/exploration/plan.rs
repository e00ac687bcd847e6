//! Each condition of the stages on its own: what the next step is in one state, and what it is with one fact changed.

mod agent;
mod kinds;
mod make;
mod retire;

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::plan::plan;
use engine::rotation::{Blocker, Intent, Next, Rotation as _, Timer, decide};
use engine::run::RunId;
use kubectl_crt::rotation::Crt;
use kubectl_crt::rotation::observed::{Age, AgentConnection, DownstreamIdentity, Observed, Pod, SystemToken};
use kubectl_crt::rotation::record::{Mark, Record};
use rancher::TokenStorage;

use crate::QUIET;
use crate::environment::{CrtModel, HERE, Run, THERE, Variant, old};

const STORAGES: [TokenStorage; 2] = [TokenStorage::Status, TokenStorage::Secret];

fn new() -> Fingerprint {
    Fingerprint::of("new")
}

fn third() -> Fingerprint {
    Fingerprint::of("third")
}

/// Before a rotation.
fn start(storage: TokenStorage) -> Observed {
    CrtModel {
        young: true,
        ..CrtModel::new(storage, Variant::Ordinary, QUIET)
    }
    .observed()
}

fn begun(seen: &Observed, direction: Direction, phase: Phase) -> Run {
    let record = Record {
        new: Some(new()),
        ..Crt::survey(seen).expect("a rotation that can begin")
    };
    Run {
        direction,
        phase,
        ..Run::begin(RunId::placeholder(), record)
    }
}

/// `system` has T and the mark of the run, and X is kept valid.
fn made(storage: TokenStorage, direction: Direction) -> (Observed, Run) {
    let mut seen = start(storage);
    let mut run = begun(&seen, direction, Phase::Place);
    let (target, other) = if direction.is_rollback() {
        (old(), new())
    } else {
        (new(), old())
    };
    seen.system = Some(SystemToken {
        token: target,
        previous: (storage == TokenStorage::Secret).then_some(other),
        protected: true,
    });
    if storage == TokenStorage::Status {
        seen.temporary.insert(other);
    }
    seen.mark = Some(Mark::of(&run));
    seen.acceptance.insert(new(), Acceptance::Accepted);
    run.timers.insert(Timer::Quiet, true);
    (seen, run)
}

fn pod(token: Fingerprint, mark: &str) -> Pod {
    Pod {
        token: Some(token),
        restarted_at: Some(mark.to_owned()).filter(|mark| !mark.is_empty()),
        address: *HERE,
        ready: true,
        leaving: false,
    }
}

/// The Deployment names T, rollout held, and a pod with it runs beside the one with X. It has not connected yet.
fn placed(storage: TokenStorage, direction: Direction) -> (Observed, Run) {
    let (mut seen, mut run) = made(storage, direction);
    let (target, other) = match direction {
        Direction::Rollback => (old(), new()),
        _ => (new(), old()),
    };
    seen.credentials.insert(new(), Age::Young);
    seen.deployed = Some(target);
    seen.restarted_at = Some("T".to_owned());
    seen.held = true;
    seen.deployment_direction = Some(direction).filter(|direction| direction.is_rollback());
    seen.pods = [pod(target, "T"), pod(other, "X")].into();
    seen.connected = Some(AgentConnection {
        token: other,
        address: *HERE,
    });
    seen.applied = seen.applied.map(|_| other);
    run.phase = Phase::Prove;
    run.record.restarted_at.clone_from(&seen.restarted_at);
    (seen, run)
}

/// The agent works with T by every sign, and nothing else runs.
fn proven(storage: TokenStorage, direction: Direction) -> (Observed, Run) {
    let (mut seen, mut run) = placed(storage, direction);
    let target = seen.deployed.expect("it has one");
    seen.held = false;
    seen.pods = [pod(target, "T")].into();
    seen.connected = Some(AgentConnection {
        token: target,
        address: *HERE,
    });
    seen.applied = seen.applied.map(|_| target);
    run.phase = Phase::Retire;
    (seen, run)
}

/// X is held by nothing any more, and Rancher still accepts it.
fn retired(storage: TokenStorage, direction: Direction) -> (Observed, Run) {
    let (mut seen, mut run) = proven(storage, direction);
    seen.temporary.clear();
    seen.system.iter_mut().for_each(|system| system.previous = None);
    if direction.is_rollback() {
        seen.credentials.remove(&new());
    } else {
        for value in seen.others.values_mut() {
            *value = Fingerprint::of("renewed");
        }
    }
    run.phase = Phase::Confirm;
    (seen, run)
}

/// What comes next, with O, N and the third value by name.
fn next(seen: &Observed, run: &Run) -> String {
    let decision = decide(seen, run);
    let text = match decision.next {
        Next::Step(Intent { step, .. }) => format!("{}: {step}", decision.phase),
        Next::Wait(wait) => format!("{}: wait for {}", decision.phase, wait.what),
        Next::Turn { to, reason } => format!("{}: {to}, {reason}", decision.phase),
        Next::Refuse(blockers) => format!("refuse: {}", blockers[0].reason),
        Next::Pause(blocker) => format!("stop: {}", blocker.reason),
        Next::Done => "done".to_owned(),
    };
    [(old(), "O"), (new(), "N"), (third(), "M")]
        .iter()
        .fold(text, |text, (token, name)| text.replace(&token.to_string(), name))
}

/// The next step with one fact changed.
#[track_caller]
fn with(state: &(Observed, Run), change: impl FnOnce(&mut Observed, &mut Run), expected: &str) {
    let (mut seen, mut run) = state.clone();
    change(&mut seen, &mut run);
    assert_eq!(next(&seen, &run), expected);
}

fn intent(seen: &Observed, run: &Run) -> Intent<Crt> {
    match decide(seen, run).next {
        Next::Step(intent) => intent,
        other => panic!("no step: {other:?}"),
    }
}

fn lines(seen: Observed, run: Option<Run>) -> String {
    let text = plan(seen, run).map_or_else(|none| none.to_string(), |plan| plan.to_string());
    let default = Fingerprint::of("default").to_string();
    [(old().to_string(), "O"), (new().to_string(), "N"), (default, "D")]
        .iter()
        .fold(text, |text, (token, name)| text.replace(token, name))
}

#[test]
fn a_rotation_is_planned_from_its_first_step_to_its_last() {
    insta::assert_snapshot!(lines(start(TokenStorage::Status), None), @r#"
    make    create a temporary registration token that keeps O valid
    make    set a new value on registration token "system"
    make    wait for Rancher to accept <new>
    place   create the agent's Secret with <new>
    place   point the agent at <new>, rollout held
    prove   wait for the agent to connect with <new>
    prove   release the rollout
    prove   wait for the agent's other pods to terminate
    prove   wait for redeploys that Rancher may have begun before (--settle)
    retire  revoke O: delete its temporary registration token
    retire  set a new value on registration token "default-token"
    confirm wait for Rancher to reject O
    confirm delete the agent's Secret with O
    "#);
    insta::assert_snapshot!(lines(start(TokenStorage::Secret), None), @r#"
    make    set a new value on registration token "system"
    make    wait for Rancher to accept <new>
    place   create the agent's Secret with <new>
    place   point the agent at <new>, rollout held
    prove   wait for the agent to connect with <new>
    prove   annotate the cluster, so that Rancher applies the token of "system"
    prove   wait for Rancher to apply <new> itself
    prove   release the rollout
    prove   wait for the agent's other pods to terminate
    prove   wait for redeploys that Rancher may have begun before (--settle)
    retire  revoke O: drop it as the previous token of "system"
    retire  set a new value on registration token "default-token"
    confirm wait for Rancher to reject O
    confirm delete the agent's Secret with O
    "#);
}

#[test]
fn a_rollback_is_planned_from_the_present_state() {
    for (storage, dropped) in [
        (TokenStorage::Status, "delete its temporary registration token"),
        (TokenStorage::Secret, "drop it as the previous token of \"system\""),
    ] {
        let (mut seen, mut run) = placed(storage, Direction::Forward);
        run.direction = Direction::Rollback;
        seen.pods = [pod(new(), "T")].into();
        let lines = lines(seen, Some(run));
        assert!(
            lines.contains("make    restore O on registration token \"system\""),
            "{lines}"
        );
        assert!(lines.contains(&format!("revoke N: {dropped}")), "{lines}");
    }
}

#[test]
fn the_survey_records_what_the_run_needs() {
    let mut seen = start(TokenStorage::Status);
    let record = Crt::survey(&seen).expect("a record");
    assert_eq!((record.old, record.new, record.system), (old(), None, Some(old())));
    assert_eq!(record.others, seen.others);
    assert!(record.worked);
    seen.only_agent = true;
    assert!(Crt::survey(&seen).expect("a record").others.is_empty());
    seen.connected = None;
    assert!(!Crt::survey(&seen).expect("a record").worked);
    seen.deployed = None;
    assert_eq!(
        Crt::survey(&seen).expect_err("no Secret")[0].reason,
        "the agent's Deployment names no Secret with a token"
    );
    seen.blockers = vec![Blocker::new("because", "do")];
    assert_eq!(Crt::survey(&seen).expect_err("a blocker"), seen.blockers);
    seen.downstream = DownstreamIdentity::Another;
    let refused = Crt::survey(&seen).expect_err("another cluster");
    assert_eq!(refused[0].reason, "the downstream context leads to another cluster");
    seen.downstream = DownstreamIdentity::Unproven;
    assert_eq!(Crt::survey(&seen).expect_err("unproven")[0].check, Some("context"));
}

#[test]
fn what_rancher_has_rotated_by_itself_becomes_the_new_token() {
    let rotated = |storage, previous| {
        let mut seen = start(storage);
        seen.system = Some(SystemToken {
            token: third(),
            previous,
            protected: true,
        });
        Crt::survey(&seen).expect("a record").new
    };
    assert_eq!(rotated(TokenStorage::Secret, Some(old())), Some(third()));
    assert_eq!(rotated(TokenStorage::Secret, Some(new())), None);
    assert_eq!(rotated(TokenStorage::Secret, None), None);
    assert_eq!(rotated(TokenStorage::Status, Some(old())), None);
    let mut seen = start(TokenStorage::Secret);
    seen.system.iter_mut().for_each(|system| system.previous = Some(old()));
    assert_eq!(Crt::survey(&seen).expect("a record").new, None);
}

#[test]
fn a_rollback_that_would_lose_the_cluster_is_refused() {
    for storage in STORAGES {
        let state = placed(storage, Direction::Rollback);
        let refused = |change: fn(&mut Observed, &mut Run), expected: &str| with(&state, change, expected);
        refused(
            |seen, _| seen.downstream = DownstreamIdentity::Another,
            "refuse: the downstream context leads to another cluster",
        );
        refused(
            |seen, _| _ = seen.foreign.insert(old()),
            "refuse: the old token O belongs to another cluster: restoring it would disconnect the agent",
        );
        refused(
            |seen, _| {
                seen.system.iter_mut().for_each(|system| system.token = new());
                seen.credentials.remove(&old());
            },
            "refuse: no object has the value of the old token O any more, so it cannot be restored",
        );
    }
}

/// O did not work at the start. Before anything is restored, an agent that works with N is not cut off.
#[test]
fn a_rollback_to_what_did_not_work_is_refused_while_the_new_token_works() {
    for storage in STORAGES {
        let (seen, mut run) = proven(storage, Direction::Forward);
        run.record.worked = false;
        run.direction = Direction::Rollback;
        let state = (seen, run);
        let refusal = "refuse: no agent worked with the old token O when the rotation began, and one works with the new token: \
                       restoring O would disconnect it";
        with(&state, |_, _| {}, refusal);
        let restores = |change: fn(&mut Observed, &mut Run)| {
            let (mut seen, mut run) = state.clone();
            change(&mut seen, &mut run);
            assert!(next(&seen, &run).starts_with("make: "), "{}", next(&seen, &run));
        };
        restores(|_, run| run.record.worked = true);
        restores(|seen, _| seen.connected = None);
        restores(|seen, _| {
            let address = *HERE;
            seen.connected = Some(AgentConnection {
                token: third(),
                address,
            });
        });
        restores(|seen, _| seen.mark = None);
        restores(|seen, _| seen.system.iter_mut().for_each(|system| system.token = third()));
        restores(|seen, _| {
            seen.mark
                .iter_mut()
                .for_each(|mark| mark.direction = Direction::Rollback);
        });
    }
}

#[test]
fn a_resumed_run_is_read_from_the_objects() {
    let (mut seen, run) = placed(TokenStorage::Status, Direction::Forward);
    let forged = Run {
        record: Record {
            old: third(),
            ..run.record.clone()
        },
        ..run.clone()
    };
    let recalled = Crt::recall(&seen, &forged).expect("it has a mark");
    assert_eq!((recalled.old, recalled.restarted_at), (old(), Some("T".to_owned())));
    seen.deployed = Some(old());
    assert_eq!(Crt::recall(&seen, &run).expect("it has a mark").restarted_at, None);
    seen.mark.iter_mut().for_each(|mark| mark.run = "another".to_owned());
    assert_eq!(Crt::recall(&seen, &run), None);
    let back = Run {
        direction: Direction::Rollback,
        ..run
    };
    let recalled = Crt::recall(&seen, &back).expect("a temporary token may exist");
    assert_eq!((recalled.old, recalled.new), (old(), None));
    seen.deployed = None;
    assert_eq!(Crt::recall(&seen, &back), None);
}

#[test]
fn who_holds_and_who_uses_a_value_is_read_from_the_objects() {
    let mut seen = start(TokenStorage::Secret);
    seen.system = Some(SystemToken {
        token: new(),
        previous: Some(third()),
        protected: true,
    });
    seen.others_previous = [("default-token".to_owned(), Fingerprint::of("before"))].into();
    for held in [new(), third(), Fingerprint::of("default")] {
        assert!(seen.is_held(held) && seen.has_value(held), "{held}");
    }
    assert!(
        !seen.is_held(old()) && seen.has_value(old()),
        "a Secret of the agent has it"
    );
    seen.credentials.clear();
    assert!(!seen.has_value(old()) && seen.has_value(Fingerprint::of("before")));
    let used = |change: &dyn Fn(&mut Observed)| {
        let mut seen = seen.clone();
        (seen.deployed, seen.connected, seen.pods) = (None, None, [].into());
        change(&mut seen);
        seen.is_in_use(old())
    };
    let address = *HERE;
    assert!(!used(&|_| {}));
    assert!(used(&|seen| seen.deployed = Some(old())));
    assert!(used(&|seen| _ = seen.pods.insert(pod(old(), ""))));
    assert!(used(
        &|seen| seen.connected = Some(AgentConnection { token: old(), address })
    ));
}

#[test]
fn the_quiet_time_begins_when_the_value_is_seen_on_system() {
    for storage in STORAGES {
        for direction in [Direction::Forward, Direction::Rollback] {
            let (mut seen, run) = made(storage, direction);
            assert_eq!(Crt::timers(&seen, &run), [Timer::Quiet]);
            let marked = seen.mark.take();
            assert_eq!(Crt::timers(&seen, &run), []);
            seen.mark = marked;
            seen.system.iter_mut().for_each(|system| system.token = third());
            assert_eq!(Crt::timers(&seen, &run), []);
        }
    }
}
