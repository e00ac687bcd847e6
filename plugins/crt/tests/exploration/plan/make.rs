//! *Make*: `system` has T, and X is kept valid.

use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Next, Repeats, Timer, decide};
use kubectl_crt::rotation::observed::{AgentConnection, Grace, Observed, SystemToken};
use kubectl_crt::rotation::step::Step;
use rancher::TokenStorage;

use super::{HERE, Run, STORAGES, begun, intent, made, new, next, old, placed, pod, start, third, with};

#[test]
fn system_gets_the_new_token_once_the_old_one_is_kept_valid() {
    for (storage, expected) in [
        (
            TokenStorage::Status,
            "make: create a temporary registration token that keeps O valid",
        ),
        (
            TokenStorage::Secret,
            "make: set a new value on registration token \"system\"",
        ),
    ] {
        let seen = start(storage);
        let mut run = begun(&seen, Direction::Forward, Phase::Make);
        run.record.new = None;
        let state = (seen, run);
        with(&state, |_, _| {}, expected);
        let set = "make: set a new value on registration token \"system\"";
        with(&state, |seen, _| _ = seen.temporary.insert(old()), set);
        with(&state, |seen, _| _ = seen.others.insert("other".to_owned(), old()), set);
        with(&state, |seen, _| seen.system = None, set);
    }
    let seen = start(TokenStorage::Secret);
    let run = begun(&seen, Direction::Forward, Phase::Make);
    let state = (seen, run);
    let postponed = "make: postpone the end of the grace period in the status of registration token \"system\"";
    with(&state, |seen, _| seen.status_grace = Some(Grace::Near), postponed);
    let set = "make: set a new value on registration token \"system\"";
    with(&state, |seen, _| seen.status_grace = Some(Grace::Far), set);
    let previous = |token| {
        move |seen: &mut Observed, _: &mut Run| seen.system.iter_mut().for_each(|system| system.previous = Some(token))
    };
    with(&state, previous(third()), set);
    with(&state, previous(old()), set);
    with(
        &state,
        |seen, run| {
            previous(third())(seen, run);
            seen.pods.insert(pod(third(), "M"));
        },
        "refuse: registration token \"system\" has a previous token M that does not belong to this rotation",
    );
}

#[test]
fn setting_a_new_value_starts_the_timers_once() {
    let mut seen = start(TokenStorage::Secret);
    let mut run = begun(&seen, Direction::Forward, Phase::Make);
    run.record.new = None;
    let first = intent(&seen, &run);
    assert_eq!((first.starts, first.stops), (vec![Timer::Proof], vec![Timer::Quiet]));
    assert_eq!(first.repeats, Repeats::Never);
    run.timers.insert(Timer::Proof, false);
    assert_eq!(intent(&seen, &run).starts, vec![]);
    run.record.new = Some(new());
    assert!(matches!(intent(&seen, &run).repeats, Repeats::Reapply(_)));
    run.reapplied = 3;
    assert!(matches!(
        decide(&seen, &run).next,
        Next::Turn {
            to: Direction::Rollback,
            ..
        }
    ));
    run.direction = Direction::Rollback;
    seen.mark = None;
    run.timers.clear();
    let back = intent(&seen, &run);
    assert_eq!((back.starts, back.repeats), (vec![], Repeats::Never));
}

#[test]
fn what_another_sets_on_system_is_adopted_while_no_agent_uses_the_new_token() {
    for storage in STORAGES {
        let state = made(storage, Direction::Forward);
        let set = |token| {
            move |seen: &mut Observed, _: &mut Run| seen.system.iter_mut().for_each(|system| system.token = token)
        };
        let adopted = "make: adopt M as the new token: registration token \"system\" already has it";
        with(&state, set(third()), adopted);
        with(
            &state,
            |seen, run| {
                set(third())(seen, run);
                seen.foreign.insert(third());
            },
            if storage == TokenStorage::Status {
                "make: create a temporary registration token that keeps M valid"
            } else {
                "make: set a new value on registration token \"system\""
            },
        );
        // N without the mark of the run: it is marked.
        with(
            &state,
            |seen, _| seen.mark = None,
            "make: adopt N as the new token: registration token \"system\" already has it",
        );
        with(
            &state,
            |seen, _| seen.mark.iter_mut().for_each(|mark| mark.record.new = Some(third())),
            "make: adopt N as the new token: registration token \"system\" already has it",
        );
        // What the run began with is never the new token.
        let (mut seen, mut run) = state.clone();
        run.record.system = Some(third());
        set(old())(&mut seen, &mut run);
        assert!(!next(&seen, &run).contains("adopt"), "{}", next(&seen, &run));
        let (mut seen, run) = state.clone();
        set(old())(&mut seen, &mut run.clone());
        assert!(!next(&seen, &run).contains("adopt"), "{}", next(&seen, &run));
        let (mut seen, mut run) = state.clone();
        run.record.system = Some(third());
        set(third())(&mut seen, &mut run);
        assert!(!next(&seen, &run).contains("adopt"), "{}", next(&seen, &run));
    }
}

#[test]
fn the_new_token_is_set_again_where_an_agent_uses_it() {
    let (mut seen, run) = placed(TokenStorage::Secret, Direction::Forward);
    seen.system.iter_mut().for_each(|system| system.token = third());
    let again = |seen: &Observed| match intent(seen, &run).step {
        Step::Restore { token, previous } => (token, previous),
        step => panic!("{step}"),
    };
    assert_eq!(again(&seen), (new(), Some(old())), "O runs, and M does not");
    seen.pods.insert(pod(third(), "M"));
    assert_eq!(again(&seen), (new(), Some(old())), "O comes first");
    seen.deployed = Some(third());
    assert_eq!(again(&seen), (new(), Some(old())), "the rollout is held");
    (seen.deployed, seen.held) = (Some(third()), false);
    assert_eq!(again(&seen), (new(), Some(third())), "the pods with M stay");
    seen.system.iter_mut().for_each(|system| system.previous = Some(new()));
    assert_eq!(again(&seen), (new(), Some(third())), "N is current afterwards");
    (seen.deployed, seen.held) = (Some(new()), true);
    seen.pods = [pod(new(), "T")].into();
    assert_eq!(
        again(&seen),
        (new(), Some(third())),
        "N is current afterwards, also where it runs"
    );
    seen.system.iter_mut().for_each(|system| system.previous = Some(old()));
    (seen.pods, seen.connected) = ([].into(), None);
    assert_eq!(again(&seen), (new(), Some(third())), "no agent needs either");
    let (mut seen, run) = placed(TokenStorage::Status, Direction::Forward);
    seen.system.iter_mut().for_each(|system| system.token = third());
    seen.temporary.insert(third());
    let Step::Restore { token, previous } = intent(&seen, &run).step else {
        panic!("{}", next(&seen, &run));
    };
    assert_eq!(
        (token, previous),
        (new(), None),
        "storage `status` has no previous tokens"
    );
}

#[test]
fn a_rollback_that_only_marks_keeps_the_previous_token() {
    let (mut seen, run) = made(TokenStorage::Secret, Direction::Rollback);
    seen.mark = None;
    let Step::Restore { token, previous } = intent(&seen, &run).step else {
        panic!("{}", next(&seen, &run));
    };
    assert_eq!((token, previous), (old(), Some(new())));
}

#[test]
fn what_rancher_has_rotated_is_marked() {
    let mut seen = start(TokenStorage::Secret);
    seen.system = Some(SystemToken {
        token: third(),
        previous: Some(old()),
        protected: true,
    });
    let mut run = begun(&seen, Direction::Forward, Phase::Make);
    run.record.new = Some(third());
    assert_eq!(
        next(&seen, &run),
        "make: adopt M as the new token: registration token \"system\" already has it"
    );
}

/// Where O did not work at the start, the last connection may stay that of N for ever.
#[test]
fn a_connection_alone_keeps_the_new_token_valid_only_where_the_old_one_worked() {
    let (mut seen, mut run) = made(TokenStorage::Status, Direction::Rollback);
    seen.temporary.clear();
    seen.connected = Some(AgentConnection {
        token: new(),
        address: *HERE,
    });
    let kept = "make: create a temporary registration token that keeps N valid";
    assert_eq!(next(&seen, &run), kept);
    run.record.worked = false;
    assert_ne!(next(&seen, &run), kept);
    seen.pods.insert(pod(new(), "T"));
    assert_eq!(next(&seen, &run), kept);
}

#[test]
fn a_rollback_sets_the_old_token_even_where_it_is() {
    for storage in STORAGES {
        let mut state = made(storage, Direction::Forward);
        state.1.direction = Direction::Rollback;
        let restored = "make: restore O on registration token \"system\"";
        let set_old = |seen: &mut Observed, _: &mut Run| seen.system.iter_mut().for_each(|system| system.token = old());
        with(&state, set_old, restored);
        // Its own value needs nothing that keeps it valid.
        with(
            &state,
            |seen, run| {
                set_old(seen, run);
                seen.temporary.clear();
            },
            restored,
        );
        let kept = if storage == TokenStorage::Status {
            "make: create a temporary registration token that keeps N valid"
        } else {
            restored
        };
        with(&state, |_, _| {}, kept);
    }
}

#[test]
fn the_other_value_is_kept_valid_while_an_agent_needs_it() {
    let (status, secret) = (
        made(TokenStorage::Status, Direction::Forward),
        made(TokenStorage::Secret, Direction::Forward),
    );
    let created = "place: create the agent's Secret with N";
    with(&status, |_, _| {}, created);
    with(&secret, |_, _| {}, created);
    let temporary = "make: create a temporary registration token that keeps O valid";
    with(&status, |seen, _| seen.temporary.clear(), temporary);
    let protected = "make: keep O valid as the previous token of \"system\" for seven days";
    let previous =
        |previous| move |seen: &mut Observed| seen.system.iter_mut().for_each(|system| system.previous = previous);
    with(&secret, |seen, _| previous(None)(seen), protected);
    with(&secret, |seen, _| previous(Some(third()))(seen), protected);
    let unprotected = |seen: &mut Observed| seen.system.iter_mut().for_each(|system| system.protected = false);
    with(&secret, |seen, _| unprotected(seen), protected);
    let postponed = "make: postpone the end of the grace period in the status of registration token \"system\"";
    with(&secret, |seen, _| seen.status_grace = Some(Grace::Near), postponed);
    with(
        &secret,
        |seen, _| {
            previous(None)(seen);
            seen.status_grace = Some(Grace::Near);
        },
        protected,
    );
    let beside = |seen: &mut Observed| _ = seen.others.insert("other".to_owned(), old());
    with(
        &secret,
        |seen, _| {
            previous(None)(seen);
            beside(seen);
        },
        created,
    );
    for state in [&status, &secret] {
        let dropped = |seen: &mut Observed| {
            seen.temporary.clear();
            previous(None)(seen);
        };
        // No agent needs it any more, or it belongs to another cluster.
        with(
            state,
            |seen, _| {
                dropped(seen);
                (seen.pods, seen.connected, seen.deployed) = ([].into(), None, None);
            },
            created,
        );
        with(
            state,
            |seen, _| {
                dropped(seen);
                seen.foreign.insert(old());
            },
            created,
        );
    }
}

#[test]
fn nothing_is_placed_before_rancher_accepts_it() {
    for storage in STORAGES {
        let state = made(storage, Direction::Forward);
        let waits = "make: wait for Rancher to accept N";
        with(&state, |seen, _| _ = seen.acceptance.remove(&new()), waits);
        with(
            &state,
            |seen, _| {
                _ = seen
                    .acceptance
                    .insert(new(), Acceptance::Unknown("no answer".to_owned()));
            },
            waits,
        );
    }
}
