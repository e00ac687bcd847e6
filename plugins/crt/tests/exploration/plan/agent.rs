//! *Place* and *prove*: what happens to the agent.

use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Next, Repeats, Timer, decide};
use kubectl_crt::rotation::observed::{Age, AgentConnection, Observed, Pod, Trigger};
use rancher::TokenStorage;

use super::{HERE, Run, STORAGES, THERE, intent, made, new, next, old, placed, pod, proven, with};

#[test]
fn the_agent_is_pointed_at_the_new_token_held() {
    for storage in STORAGES {
        let state = made(storage, Direction::Forward);
        let pointed = "place: point the agent at N, rollout held";
        let credentials = |age| move |seen: &mut Observed| _ = seen.credentials.insert(new(), age);
        with(&state, |seen, _| credentials(Age::Young)(seen), pointed);
        with(
            &state,
            |seen, _| credentials(Age::Old)(seen),
            "place: delete the agent's Secret with N",
        );
        with(
            &state,
            |seen, _| _ = seen.occupied.insert(new(), "cattle-credentials-1".to_owned()),
            "refuse: Secret cattle-system/cattle-credentials-1 of the downstream cluster should have N, and has another content",
        );
        let (mut seen, run) = state.clone();
        credentials(Age::Young)(&mut seen);
        let point = intent(&seen, &run);
        assert_eq!((point.starts, point.stops), (vec![Timer::Retry], vec![Timer::Quiet]));
        assert_eq!(point.repeats, Repeats::Never);
        // Named already: an old Secret is not deleted under the agent.
        let placed = placed(storage, Direction::Forward);
        with(
            &placed,
            |seen, _| credentials(Age::Old)(seen),
            "prove: wait for the agent to connect with N",
        );
    }
}

#[test]
fn another_writer_of_the_template_is_seen() {
    for storage in STORAGES {
        let state = placed(storage, Direction::Forward);
        let pointed = "place: point the agent at N, rollout held";
        with(
            &state,
            |seen, _| seen.restarted_at = Some("another".to_owned()),
            pointed,
        );
        with(&state, |seen, _| seen.deployed = Some(old()), pointed);
        with(
            &state,
            |seen, run| {
                seen.restarted_at = Some("another".to_owned());
                run.record.restarted_at = None;
            },
            "prove: wait for the agent to connect with N",
        );
        let (mut seen, mut run) = state.clone();
        seen.deployed = Some(old());
        assert!(matches!(intent(&seen, &run).repeats, Repeats::Reapply(_)));
        run.phase = Phase::Place;
        assert_eq!(intent(&seen, &run).repeats, Repeats::Never, "it was not placed yet");
        with(
            &state,
            |seen, run| {
                seen.restarted_at = Some("another".to_owned());
                run.phase = Phase::Place;
            },
            "prove: wait for the agent to connect with N",
        );
    }
}

#[test]
fn a_rollback_counts_other_writers_once_its_own_mark_is_there() {
    for storage in STORAGES {
        let (mut seen, run) = placed(storage, Direction::Rollback);
        seen.deployed = Some(new());
        assert!(matches!(intent(&seen, &run).repeats, Repeats::Reapply(_)));
        seen.deployment_direction = None;
        assert_eq!(intent(&seen, &run).repeats, Repeats::Never);
    }
}

/// Only a rollback returns to a pod that is there already.
#[test]
fn a_rotation_never_points_back() {
    for storage in STORAGES {
        let (mut seen, run) = proven(storage, Direction::Forward);
        seen.deployed = Some(old());
        assert_eq!(next(&seen, &run), "place: point the agent at N, rollout held");
    }
}

/// Rancher was triggered for another value. What it pushes must meet a held rollout.
#[test]
fn what_rancher_may_still_push_meets_a_held_rollout() {
    let (mut seen, run) = proven(TokenStorage::Secret, Direction::Forward);
    let trigger = |token, overdue| {
        Some(Trigger {
            token,
            first: None,
            overdue,
        })
    };
    seen.trigger = trigger(old(), false);
    let state = (seen, run);
    with(&state, |_, _| {}, "place: point the agent at N, rollout held");
    with(
        &state,
        |seen, _| seen.held = true,
        "prove: wait for Rancher to finish applying the other token",
    );
    let retired = "retire: revoke O: drop it as the previous token of \"system\"";
    with(&state, |seen, _| seen.trigger = trigger(old(), true), retired);
    with(&state, |seen, _| seen.trigger = trigger(new(), false), retired);
    with(&state, |seen, _| seen.trigger = None, retired);
    let (mut seen, run) = proven(TokenStorage::Status, Direction::Forward);
    seen.trigger = trigger(old(), false);
    assert_eq!(
        next(&seen, &run),
        "retire: revoke O: delete its temporary registration token",
        "storage `status` pushes nothing by itself"
    );
    let mut applied = state.clone();
    applied.0.applied = Some(old());
    with(
        &applied,
        |_, _| {},
        "prove: annotate the cluster, so that Rancher applies the token of \"system\"",
    );
}

#[test]
fn a_rollback_points_back_at_the_pod_that_still_runs() {
    for storage in STORAGES {
        let (mut seen, run) = placed(storage, Direction::Rollback);
        seen.deployed = Some(new());
        seen.deployment_direction = None;
        seen.connected = Some(AgentConnection {
            token: old(),
            address: *HERE,
        });
        seen.applied = seen.applied.map(|_| old());
        let state = (seen, run);
        with(&state, |_, _| {}, "place: point the agent back at O");
        let held = "place: point the agent at O, rollout held";
        with(&state, |seen, _| seen.pods = [pod(new(), "T")].into(), held);
        with(&state, |seen, _| seen.connected = None, held);
        with(
            &state,
            |seen, run| {
                seen.connected = None;
                run.record.worked = false;
            },
            "place: point the agent back at O",
        );
        if storage == TokenStorage::Secret {
            with(&state, |seen, _| seen.applied = Some(new()), held);
            with(
                &state,
                |seen, _| {
                    seen.trigger = Some(Trigger {
                        first: None,
                        token: new(),
                        overdue: false,
                    });
                },
                held,
            );
        }
    }
}

#[test]
fn a_rollback_fences_a_deployment_that_is_right_already() {
    for storage in STORAGES {
        let (mut seen, run) = placed(storage, Direction::Rollback);
        seen.deployment_direction = None;
        assert_eq!(
            next(&seen, &run),
            "place: fence the agent's Deployment (bump its resourceVersion)"
        );
    }
}

#[test]
fn the_agent_must_connect_with_the_address_of_the_template() {
    for storage in STORAGES {
        let mut state = placed(storage, Direction::Forward);
        let waits = "prove: wait for the agent to connect with N";
        with(&state, |_, _| {}, waits);
        with(
            &state,
            |seen, _| {
                seen.connected = Some(AgentConnection {
                    token: new(),
                    address: *THERE,
                });
            },
            waits,
        );
        let (seen, run) = &mut state;
        let Next::Wait(wait) = decide(seen, run).next else {
            panic!("no wait");
        };
        assert!(wait.starts.contains(&Timer::Retry) && wait.starts.contains(&Timer::Proof));
        // Only after its time it is restarted; where the rollout is not held, at once.
        run.timers.insert(Timer::Retry, true);
        assert_eq!(
            next(seen, run),
            "place: point the agent at N, rollout held".replace("place", "prove")
        );
        run.timers.insert(Timer::Retry, false);
        assert_eq!(next(seen, run), waits);
        run.timers.remove(&Timer::Retry);
        seen.held = false;
        assert_eq!(next(seen, run), "prove: point the agent at N, rollout held");
        // In time it turns back.
        run.timers.insert(Timer::Proof, true);
        run.timers.insert(Timer::Retry, false);
        assert!(
            next(seen, run).starts_with("prove: rollback, still waiting for"),
            "{}",
            next(seen, run)
        );
    }
}

#[test]
fn the_rollout_is_released_when_a_pod_of_the_present_template_runs() {
    for storage in STORAGES {
        let (mut seen, run) = placed(storage, Direction::Forward);
        seen.connected = Some(AgentConnection {
            token: new(),
            address: *HERE,
        });
        seen.applied = seen.applied.map(|_| new());
        let state = (seen, run);
        with(&state, |_, _| {}, "prove: release the rollout");
        let waits = "prove: wait for a pod of the agent with N";
        for changed in [
            Pod {
                ready: false,
                ..pod(new(), "T")
            },
            Pod {
                leaving: true,
                ..pod(new(), "T")
            },
            pod(new(), "another"),
            Pod {
                address: *THERE,
                ..pod(new(), "T")
            },
        ] {
            with(&state, |seen, _| seen.pods = [changed, pod(old(), "X")].into(), waits);
        }
    }
}

#[test]
fn rancher_is_triggered_once_and_never_for_another_address() {
    let (mut seen, run) = proven(TokenStorage::Secret, Direction::Forward);
    seen.applied = Some(old());
    let state = (seen, run);
    let triggered = "prove: annotate the cluster, so that Rancher applies the token of \"system\"";
    with(&state, |_, _| {}, triggered);
    let trigger = |token, overdue| {
        move |seen: &mut Observed| {
            seen.trigger = Some(Trigger {
                token,
                first: None,
                overdue,
            });
        }
    };
    with(
        &state,
        |seen, _| trigger(new(), false)(seen),
        "prove: wait for Rancher to apply N itself",
    );
    with(&state, |seen, _| trigger(new(), true)(seen), triggered);
    with(&state, |seen, _| trigger(old(), true)(seen), triggered);
    let moves = |seen: &mut Observed| seen.pushes = Some(*THERE);
    with(
        &state,
        |seen, _| moves(seen),
        "prove: point the agent at N, rollout held",
    );
    with(
        &state,
        |seen, _| {
            moves(seen);
            seen.held = true;
        },
        "prove: wait for Rancher's settings server-url and cacerts to match the agent's: they were changed, and Rancher would push \
         them too",
    );
    with(
        &state,
        |seen, _| {
            moves(seen);
            seen.move_forced = true;
        },
        triggered,
    );
    with(&state, |seen, _| seen.pushes = None, triggered);
    let (seen, run) = &state;
    assert_eq!(intent(seen, run).repeats, Repeats::Trigger);
}

#[test]
fn a_rollback_to_what_did_not_work_waits_for_no_agent() {
    for storage in STORAGES {
        let (mut seen, mut run) = placed(storage, Direction::Rollback);
        run.record.worked = false;
        seen.connected = None;
        seen.pods = [pod(new(), "X")].into();
        let state = (seen, run);
        with(&state, |_, _| {}, "prove: release the rollout");
        let released = |seen: &mut Observed| seen.held = false;
        with(
            &state,
            |seen, _| released(seen),
            "prove: wait for the agent's other pods to terminate",
        );
        with(
            &state,
            |seen, _| {
                released(seen);
                seen.pods.clear();
                seen.tunnel_works = Some(false);
            },
            "retire: delete the agent's Secret with N",
        );
    }
}

#[test]
fn a_run_that_is_not_proven_in_time_turns_back_only_to_what_worked() {
    let waits = |change: fn(&mut Observed, &mut Run)| {
        let (mut seen, mut run) = placed(TokenStorage::Status, Direction::Forward);
        run.timers.insert(Timer::Proof, true);
        change(&mut seen, &mut run);
        next(&seen, &run)
    };
    assert!(waits(|_, _| {}).starts_with("prove: rollback"));
    let stays = "prove: wait for the agent to connect with N";
    assert_eq!(waits(|_, run| run.record.worked = false), stays);
    assert_eq!(waits(|seen, _| _ = seen.foreign.insert(old())), stays);
    assert_eq!(
        waits(|seen, _| {
            seen.temporary.clear();
            seen.others.clear();
            seen.pods = [pod(new(), "T")].into();
            seen.connected = None;
            seen.credentials.remove(&old());
        }),
        stays
    );
}
