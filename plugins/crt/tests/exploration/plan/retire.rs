//! *Retire* and *confirm*: when a value is revoked, and which.

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::rotation::Timer;
use kubectl_crt::rotation::observed::{Grace, Observed, Pod};
use rancher::TokenStorage;

use super::{STORAGES, new, next, old, pod, proven, retired, third, with};

#[test]
fn nothing_is_revoked_before_every_sign_is_there() {
    for (storage, retired) in [
        (
            TokenStorage::Status,
            "retire: revoke O: delete its temporary registration token",
        ),
        (
            TokenStorage::Secret,
            "retire: revoke O: drop it as the previous token of \"system\"",
        ),
    ] {
        let state = proven(storage, Direction::Forward);
        with(&state, |_, _| {}, retired);
        with(&state, |seen, _| seen.tunnel_works = None, retired);
        with(
            &state,
            |seen, _| seen.tunnel_works = Some(false),
            "prove: wait for a call through the agent's tunnel",
        );
        let others = "prove: wait for the agent's other pods to terminate";
        with(&state, |seen, _| _ = seen.pods.insert(pod(old(), "X")), others);
        with(
            &state,
            |seen, _| {
                seen.pods.insert(Pod {
                    token: None,
                    ..pod(old(), "X")
                });
            },
            others,
        );
        with(
            &state,
            |seen, _| seen.pods.clear(),
            "prove: wait for a pod of the agent with N",
        );
        let quiet = "prove: wait for redeploys that Rancher may have begun before (--settle)";
        with(&state, |_, run| _ = run.timers.insert(Timer::Quiet, false), quiet);
        with(&state, |_, run| _ = run.timers.remove(&Timer::Quiet), quiet);
    }
}

#[test]
fn the_quiet_time_is_needed_only_where_something_is_revoked() {
    let took = |change: &dyn Fn(&mut Observed)| {
        let (mut seen, mut run) = proven(TokenStorage::Secret, Direction::Forward);
        seen.system.iter_mut().for_each(|system| system.previous = None);
        run.timers.clear();
        change(&mut seen);
        next(&seen, &run).contains("--settle")
    };
    assert!(!took(&|_| {}));
    assert!(!took(&|seen| _ = seen.temporary.insert(new())));
    assert!(took(&|seen| _ = seen.temporary.insert(old())));
    assert!(took(&|seen| seen
        .system
        .iter_mut()
        .for_each(|system| system.previous = Some(old()))));
    assert!(took(
        &|seen| _ = seen.others_previous.insert("default-token".to_owned(), old())
    ));
}

#[test]
fn retire_revokes_everything_that_holds_the_other_value() {
    let (seen, run) = proven(TokenStorage::Secret, Direction::Forward);
    let mut state = (seen, run);
    with(
        &state,
        |seen, _| _ = seen.temporary.insert(third()),
        "retire: revoke M: delete its temporary registration token",
    );
    // Whatever the previous token is, it goes.
    let previous =
        |previous| move |seen: &mut Observed| seen.system.iter_mut().for_each(|system| system.previous = previous);
    with(
        &state,
        |seen, _| previous(Some(third()))(seen),
        "retire: revoke M: drop it as the previous token of \"system\"",
    );
    previous(None)(&mut state.0);
    with(
        &state,
        |seen, _| seen.status_grace = Some(Grace::Far),
        "retire: clear the end of the grace period in the status of registration token \"system\"",
    );
    with(
        &state,
        |_, _| {},
        "retire: set a new value on registration token \"default-token\"",
    );
    let confirms = "confirm: wait for Rancher to reject O";
    with(&state, |seen, _| seen.others.clear(), confirms);
    with(&state, |_, run| run.record.others.clear(), confirms);
    // It has the new token.
    with(
        &state,
        |seen, run| {
            for values in [&mut seen.others, &mut run.record.others] {
                for value in values.values_mut() {
                    *value = new();
                }
            }
        },
        confirms,
    );
    state.0.others.values_mut().for_each(|value| *value = third());
    with(&state, |_, _| {}, confirms);
    // Rancher has rotated it: its previous value is one of the start.
    let kept = |token| move |seen: &mut Observed| _ = seen.others_previous.insert("default-token".to_owned(), token);
    with(
        &state,
        |seen, _| kept(old())(seen),
        "retire: revoke O: drop it as the previous token of \"default-token\"",
    );
    let default = Fingerprint::of("default");
    with(
        &state,
        |seen, run| {
            kept(new())(seen);
            run.record.others = [("default-token".to_owned(), new())].into();
        },
        confirms,
    );
    with(
        &state,
        |seen, _| kept(default)(seen),
        &format!("retire: revoke {default}: drop it as the previous token of \"default-token\""),
    );
    with(&state, |seen, _| kept(third())(seen), confirms);
    with(
        &state,
        |seen, run| {
            kept(old())(seen);
            run.record.others.clear();
        },
        "confirm: delete the agent's Secret with O",
    );
}

#[test]
fn a_grace_period_is_cleared_only_where_there_are_any() {
    let (mut seen, run) = proven(TokenStorage::Status, Direction::Forward);
    seen.temporary.clear();
    seen.status_grace = Some(Grace::Far);
    assert_eq!(
        next(&seen, &run),
        "retire: set a new value on registration token \"default-token\""
    );
}

#[test]
fn a_rollback_keeps_what_was_valid_before() {
    let (mut seen, run) = proven(TokenStorage::Secret, Direction::Rollback);
    with(
        &(seen.clone(), run.clone()),
        |_, _| {},
        "retire: delete the agent's Secret with N",
    );
    seen.credentials.remove(&new());
    let state = (seen, run);
    with(
        &state,
        |_, _| {},
        "retire: revoke N: drop it as the previous token of \"system\"",
    );
    let confirms = "confirm: wait for Rancher to reject N";
    with(
        &state,
        |seen, _| {
            seen.system
                .iter_mut()
                .for_each(|system| system.previous = Some(third()));
        },
        confirms,
    );
    with(
        &state,
        |seen, _| {
            seen.system.iter_mut().for_each(|system| system.previous = None);
            let default = Fingerprint::of("default");
            seen.others_previous.insert("default-token".to_owned(), default);
        },
        confirms,
    );
}

#[test]
fn confirm_waits_until_every_revoked_value_is_rejected() {
    for storage in STORAGES {
        let state = retired(storage, Direction::Forward);
        with(&state, |_, _| {}, "confirm: wait for Rancher to reject O");
        let rejected = |seen: &mut Observed| _ = seen.acceptance.insert(old(), Acceptance::Rejected);
        let default = Fingerprint::of("default");
        with(
            &state,
            |seen, _| rejected(seen),
            &format!("confirm: wait for Rancher to reject {default}"),
        );
        let all_rejected = |seen: &mut Observed| {
            rejected(seen);
            seen.acceptance.insert(default, Acceptance::Rejected);
        };
        let deletes = "confirm: delete the agent's Secret with O";
        with(&state, |seen, _| all_rejected(seen), deletes);
        with(
            &state,
            |seen, _| {
                all_rejected(seen);
                seen.acceptance
                    .insert(old(), Acceptance::Unknown("no answer".to_owned()));
            },
            "confirm: wait for Rancher to reject O",
        );
        // A token that is not rotated has it, or had it before: it stays accepted.
        for keep in [
            |seen: &mut Observed| _ = seen.others.insert("kept".to_owned(), old()),
            |seen: &mut Observed| _ = seen.others_previous.insert("kept".to_owned(), old()),
            |seen: &mut Observed| _ = seen.foreign.insert(old()),
        ] {
            with(
                &state,
                |seen, _| {
                    keep(seen);
                    seen.acceptance.insert(default, Acceptance::Rejected);
                },
                deletes,
            );
        }
        let leftover = |seen: &mut Observed| {
            all_rejected(seen);
            seen.credentials.remove(&old());
            seen.leftovers.insert("cattle-credentials-2".to_owned());
        };
        with(
            &state,
            |seen, _| leftover(seen),
            "confirm: delete the agent's Secret cattle-credentials-2, which nothing uses",
        );
        with(
            &state,
            |seen, _| {
                leftover(seen);
                seen.leftovers.clear();
            },
            "done",
        );
        let before = |value| move |seen: &mut Observed| _ = seen.others_previous.insert("kept".to_owned(), value);
        with(
            &state,
            |seen, _| before(third())(seen),
            "confirm: wait for Rancher to reject O",
        );
        // Another one had the new value at the start: it is not rejected.
        with(
            &state,
            |seen, run| {
                all_rejected(seen);
                run.record.others = [("default-token".to_owned(), new())].into();
            },
            deletes,
        );
        // In a rollback the others were not renewed.
        let mut back = retired(storage, Direction::Rollback);
        with(&back, |_, _| {}, "confirm: wait for Rancher to reject N");
        let of_rotated = |seen: &mut Observed| _ = seen.others_previous.insert("default-token".to_owned(), new());
        with(
            &back,
            |seen, _| of_rotated(seen),
            "confirm: wait for Rancher to reject N",
        );
        back.0.acceptance.insert(new(), Acceptance::Rejected);
        with(&back, |_, _| {}, "done");
        with(
            &back,
            |seen, _| {
                for value in seen.others.values_mut() {
                    *value = third();
                }
            },
            "done",
        );
    }
}
