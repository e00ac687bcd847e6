//! *Make* and *place*.

use engine::direction::Direction;
use engine::rotation::Timer;
use kubectl_bootstrap_token::server_token::rotation::observed::{
    Clocks, Configured, Datastore, Encryption, Files, Login, Members, Needs, Observed, Output, Role, RoundResult,
};
use supervisor::node::EtcdMember;

use super::{Run, State, begun, fresh, hold, made, new, next, old, placed, recorded, round, server, set_round, with};

const SNAPSHOTS: &str = "place: take an etcd snapshot on every server, to check its files";
const SENDS: &str = "place: set N on s1, s2, s3";
const REPEATS: &str = "place: set N on s1, s2, s3 once more";

#[test]
fn make_proves_the_old_token_and_stores_the_new_one_before_anything_else() {
    let (mut seen, mut run) = begun(3);
    let path = "FILE".to_owned();
    seen.output = Output::File { path, holds: None };
    let state = (seen.clone(), run.clone());
    with(
        &state,
        |_, _| {},
        "make: take an etcd snapshot on every server, to keep",
    );
    with(
        &state,
        |seen, _| seen.cluster.datastore = Datastore::Sqlite,
        "make: create a new token, and write it to FILE",
    );
    // Nothing was changed, so the run ends, whatever the servers have.
    let turned = "make: rollback, a server does not have O in its files, although it accepts it: an earlier change was not completed; run `recover`";
    for needs in [Needs::Unknown, Needs::Token(new())] {
        with(&state, |seen, _| seen.snapshots.first = Some(needs), turned);
        let ends = |seen: &mut Observed, run: &mut Run| {
            seen.snapshots.first = Some(needs);
            server(seen, "s1").files = Files::Hold(fresh());
            run.direction = Direction::Rollback;
        };
        with(&state, ends, "done");
    }
    seen.snapshots.first = Some(Needs::Token(old()));
    let state = (seen.clone(), run.clone());
    with(&state, |_, _| {}, "make: create a new token, and write it to FILE");
    let print = |printed| Output::Print { printed };
    with(&state, |seen, _| seen.output = print(None), "make: create a new token");
    with(
        &state,
        |seen, _| seen.output = Output::Nowhere,
        "refuse: nothing says where the new token goes",
    );
    run.record.new = vec![new()];
    let state = (seen.clone(), run.clone());
    // The file comes before the Secret.
    with(&state, |_, _| {}, "make: write N to FILE");
    let file = |holds| Output::File {
        path: "FILE".to_owned(),
        holds,
    };
    with(
        &state,
        |seen, _| seen.output = file(Some(old())),
        "make: write N to FILE",
    );
    let backs_up = "make: back up N in the backup Secret";
    with(&state, |seen, _| seen.output = file(Some(new())), backs_up);
    with(&state, |seen, _| seen.output = print(None), backs_up);
    seen.backup = Some(run.record.clone());
    let state = (seen, run);
    let prints = "make: print N";
    with(&state, |seen, _| seen.output = print(None), prints);
    with(&state, |seen, _| seen.output = print(Some(old())), prints);
    with(
        &state,
        |seen, _| {
            seen.output = print(None);
            set_round(seen, round(old(), new()));
        },
        prints,
    );
    begins(&state, |seen| seen.output = print(Some(new())));
    // A successor is stored before it is used, and what was stored is kept.
    with(
        &state,
        |seen, run| {
            seen.output = file(Some(fresh()));
            run.record.new.push(fresh());
        },
        "make: back up F in the backup Secret",
    );
}

#[track_caller]
fn begins(state: &State, change: impl FnOnce(&mut Observed)) {
    super::begins(state, |seen, _| change(seen), "place: ");
}

#[test]
fn who_resumes_a_round_need_not_say_where_the_token_goes() {
    let state = recorded(Direction::Forward);
    with(&state, |seen, _| seen.output = Output::Nowhere, SENDS);
    let state = made(Direction::Forward);
    with(
        &state,
        |seen, _| seen.output = Output::Nowhere,
        "refuse: nothing says where the new token goes",
    );
}

/// What stops a round, and with it each restart.
type Disturbed = (fn(&mut Observed), &'static str);

pub(super) const DISTURBED: [Disturbed; 13] = [
    (
        |seen| seen.may_be_in_flight = true,
        "wait for writes in flight to arrive",
    ),
    (
        |seen| seen.encryption = Encryption::Unsafe("stage prepare".to_owned()),
        "refuse: a change of the token could lose every Secret of the cluster: stage prepare",
    ),
    (
        |seen| seen.encryption = Encryption::Unknown,
        "wait for the encryption status of every server",
    ),
    (
        |seen| server(seen, "s2").role = Role::EtcdOnly,
        "refuse: server s2 has no control plane: it does not start without a configured token",
    ),
    // 405 is not enough.
    (
        |seen| server(seen, "s2").is_ready = false,
        "wait for server s2 to be ready",
    ),
    (
        |seen| server(seen, "s2").accepts = Login::Unknown,
        "wait for server s2 to be ready",
    ),
    (
        |seen| server(seen, "s2").member = EtcdMember::NotVoter,
        "wait for server s2 to be ready",
    ),
    (
        |seen| server(seen, "s2").member = EtcdMember::Missing,
        "wait for server s2 to be ready",
    ),
    (
        |seen| server(seen, "s2").is_restarting = true,
        "wait for server s2 to restart",
    ),
    (
        |seen| {
            server(seen, "s2").is_restarting = true;
            server(seen, "s2").is_ready = false;
        },
        "wait for server s2 to be ready",
    ),
    (
        |seen| _ = seen.joining.insert("s4".to_owned()),
        "wait for server s4 to join",
    ),
    (
        |seen| seen.members = Members::Differ,
        "wait for the members of etcd to be the servers",
    ),
    (
        |seen| seen.members = Members::Unknown,
        "wait for the members of etcd to be the servers",
    ),
];

#[track_caller]
pub(super) fn stops(state: &State, phase: &str) {
    for (change, expected) in DISTURBED {
        let expected = if expected.starts_with("refuse") {
            expected.to_owned()
        } else {
            format!("{phase}: {expected}")
        };
        with(state, |seen, _| change(seen), &expected);
    }
    with(
        state,
        |seen, run| {
            seen.may_be_in_flight = true;
            run.timers.insert(Timer::InFlight, true);
        },
        &next(state),
    );
    with(
        state,
        |seen, run| {
            server(seen, "s2").is_ready = false;
            run.timers.insert(Timer::Proof, true);
        },
        "refuse: still waiting for server s2 to be ready when --restart-timeout expired; restart nothing [recover]",
    );
}

#[test]
fn nothing_else_happens_when_a_round_begins_or_is_repeated() {
    stops(&made(Direction::Forward), "place");
    stops(&recorded(Direction::Forward), "place");
    stops(&recorded(Direction::Rollback), "place");
    let mut repeated = recorded(Direction::Forward);
    repeated.0.round = RoundResult::Complete;
    server(&mut repeated.0, "s1").files = Files::Hold(new());
    assert_eq!(next(&repeated), REPEATS);
    stops(&repeated, "place");
}

#[test]
fn a_new_value_needs_files_that_are_the_same_and_clocks_that_are_close() {
    let recorded_step = "place: record in the backup Secret that a round with N begins";
    let other = "refuse: a server does not have O in its files, although it accepts it: an earlier change was not completed [recover]";
    let state = made(Direction::Forward);
    with(&state, |_, _| {}, recorded_step);
    with(&state, |seen, _| server(seen, "s3").files = Files::Unknown, SNAPSHOTS);
    with(&state, |seen, _| server(seen, "s3").files = Files::Hold(new()), other);
    with(
        &state,
        |seen, _| {
            seen.cluster.datastore = Datastore::Sqlite;
            seen.forget_files();
        },
        recorded_step,
    );
    for state in [state, recorded(Direction::Forward)] {
        with(
            &state,
            |seen, _| seen.clocks = Clocks::Skewed,
            "refuse: the clocks of the servers differ by 2 s or more",
        );
        with(
            &state,
            |seen, _| seen.clocks = Clocks::Unknown,
            "place: wait for the clock of every server",
        );
    }
    // To complete a round is more urgent.
    let mut state = recorded(Direction::Forward);
    server(&mut state.0, "s1").files = Files::Hold(new());
    for clocks in [Clocks::Skewed, Clocks::Unknown] {
        with(&state, |seen, _| seen.clocks = clocks, REPEATS);
    }
}

#[test]
fn a_round_that_was_recorded_is_sent_or_completed_with_its_own_token() {
    let state = recorded(Direction::Forward);
    with(&state, |_, _| {}, SENDS);
    with(&state, |seen, _| seen.round = RoundResult::Healed, SENDS);
    // It is not known how far it has come.
    let unknown = |seen: &mut Observed| seen.round = RoundResult::Unknown;
    with(&state, |seen, _| unknown(seen), SENDS);
    with(&state, |seen, _| (unknown(seen), seen.forget_files()).1, SNAPSHOTS);
    with(
        &state,
        |seen, _| {
            unknown(seen);
            seen.forget_files();
            seen.cluster.datastore = Datastore::Sqlite;
        },
        REPEATS,
    );
    for name in ["s1", "s3"] {
        with(
            &state,
            |seen, _| {
                unknown(seen);
                server(seen, name).files = Files::Hold(new());
            },
            REPEATS,
        );
    }
    // Also in a rollback.
    let rollback = |seen: &mut Observed, run: &mut super::Run| {
        unknown(seen);
        run.direction = Direction::Rollback;
    };
    with(
        &state,
        |seen, run| {
            rollback(seen, run);
            server(seen, "s1").files = Files::Hold(new());
        },
        REPEATS,
    );
    // Where no server has carried it out, there is nothing to complete, unless the order of the files before is not certain.
    let undone = "place: record in the backup Secret that every server has O";
    with(&state, rollback, undone);
    with(
        &state,
        |seen, run| {
            rollback(seen, run);
            set_round(
                seen,
                super::RoundRecord {
                    mends: true,
                    ..round(old(), new())
                },
            );
        },
        SENDS,
    );
}

#[test]
fn a_rejected_round_is_undone_on_the_server_that_has_rejected_it() {
    let state = recorded(Direction::Forward);
    let rejected = |seen: &mut Observed| seen.round = RoundResult::Rejected("s1".to_owned());
    let heals = "place: set O again on s1, which has rejected the new one";
    with(&state, |seen, _| rejected(seen), heals);
    // At once, whatever else happens.
    for (change, _) in &DISTURBED[..8] {
        with(&state, |seen, _| (rejected(seen), change(seen)).1, heals);
    }
    // Another server has carried it out, without an answer.
    with(
        &state,
        |seen, _| {
            seen.round = RoundResult::Healed;
            server(seen, "s2").files = Files::Hold(new());
        },
        REPEATS,
    );
    with(
        &state,
        |seen, _| {
            seen.round = RoundResult::Healed;
            seen.forget_files();
        },
        SNAPSHOTS,
    );
}

/// A round was sent, and each server has carried it out.
fn sent(result: RoundResult) -> State {
    let mut state = recorded(Direction::Forward);
    state.0.round = result;
    hold(&mut state.0, new());
    state
}

#[test]
fn a_round_is_complete_once_snapshots_show_it_and_the_order_is_known() {
    let complete = "place: record in the backup Secret that every server has N";
    let state = sent(RoundResult::Complete);
    with(&state, |_, _| {}, complete);
    with(&state, |seen, _| server(seen, "s2").files = Files::Unknown, SNAPSHOTS);
    with(&state, |seen, _| server(seen, "s2").files = Files::Hold(old()), REPEATS);
    // Without snapshots it is sent twice.
    let sqlite = |seen: &mut Observed| {
        seen.cluster.datastore = Datastore::Sqlite;
        seen.servers.retain(|name, _| name == "s1");
    };
    with(
        &state,
        |seen, _| (sqlite(seen), seen.forget_files()).1,
        "place: set N on s1 once more",
    );
    let state = sent(RoundResult::Repeated);
    with(
        &state,
        |seen, _| seen.cluster.datastore = Datastore::External,
        "place: create a new token, and write it to FILE",
    );
    with(&state, |seen, _| sqlite(seen), complete);
    with(&state, |seen, _| seen.servers.retain(|name, _| name == "s1"), complete);
    with(&state, |_, _| {}, "place: create a new token, and write it to FILE");
    with(&state, |seen, _| server(seen, "s2").files = Files::Unknown, SNAPSHOTS);
    with(&state, |seen, _| server(seen, "s2").files = Files::Hold(old()), REPEATS);
}

#[test]
fn a_round_that_was_repeated_is_followed_by_one_with_a_token_that_no_server_has() {
    let state = sent(RoundResult::Repeated);
    let begins = |value: &str| format!("place: record in the backup Secret that a round with {value} begins");
    // It is stored first.
    let holds_fresh = |seen: &mut Observed, run: &mut super::Run| {
        let path = "FILE".to_owned();
        seen.output = Output::File {
            path,
            holds: Some(fresh()),
        };
        let backup = seen.backup.as_mut().expect("it is there");
        backup.new.push(fresh());
        run.record = backup.clone();
    };
    with(&state, |seen, run| holds_fresh(seen, run), &begins("F"));
    // One that an earlier disturbance has left is used again.
    with(
        &state,
        |seen, run| {
            holds_fresh(seen, run);
            set_round(seen, round(new(), fresh()));
            hold(seen, fresh());
        },
        "place: write N to FILE",
    );
    with(
        &state,
        |seen, run| {
            let backup = seen.backup.as_mut().expect("it is there");
            backup.is_given = true;
            run.record = backup.clone();
        },
        &begins("O"),
    );
    let mut rollback = recorded(Direction::Rollback);
    rollback.0.round = RoundResult::Repeated;
    hold(&mut rollback.0, old());
    with(&rollback, |_, _| {}, &begins("N"));
    // In a rollback, the round in hand is completed, and mended by the round with O.
    with(&state, |_, run| run.direction = Direction::Rollback, &begins("O"));
}

#[test]
fn a_complete_round_is_checked_once_and_then_left_alone() {
    let state = placed(Direction::Forward);
    let restarts = "prove: restart server s1";
    with(&state, |_, _| {}, restarts);
    with(&state, |seen, _| seen.round = RoundResult::Unknown, restarts);
    with(&state, |seen, _| server(seen, "s2").files = Files::Unknown, SNAPSHOTS);
    with(
        &state,
        |seen, _| server(seen, "s2").files = Files::Hold(old()),
        "refuse: a server does not have N in its files, although it accepts it: an earlier change was not completed [recover]",
    );
    // A server that has joined since enters the order by a round with a fresh token.
    with(
        &state,
        |seen, _| {
            let like = seen.servers["s1"].clone();
            seen.servers.insert("s9".to_owned(), like);
        },
        "place: create a new token, and write it to FILE",
    );
    with(&state, |seen, _| _ = seen.servers.remove("s2"), restarts);
    with(
        &state,
        |_, run| run.direction = Direction::Rollback,
        "place: record in the backup Secret that a round with O begins",
    );
}

#[test]
fn tokens_in_configurations_are_removed_before_a_round() {
    for state in [made(Direction::Forward), recorded(Direction::Forward)] {
        let unpins = "place: remove the token from the configuration of server s2";
        let pin = |value| {
            move |seen: &mut Observed, _: &mut super::Run| server(seen, "s2").configured = Configured::Token(value)
        };
        with(&state, pin(Some(old())), unpins);
        with(&state, pin(None), unpins);
        with(&state, pin(Some(new())), &next(&state));
        with(
            &state,
            |seen, _| server(seen, "s2").configured = Configured::Unknown,
            "refuse: it is not known whether the configuration of server s2 has a token [--force=unpin]",
        );
        // Only where the files of the node have the token of the datastore.
        with(
            &state,
            |seen, _| {
                server(seen, "s2").configured = Configured::Token(None);
                server(seen, "s2").files = Files::Unknown;
            },
            SNAPSHOTS,
        );
        let by_hand = |seen: &mut Observed| {
            seen.options.has_node_access = false;
            server(seen, "s2").configured = Configured::Token(None);
        };
        with(
            &state,
            |seen, _| by_hand(seen),
            "place: have an operator remove the token from the configuration of server s2, and restart it",
        );
        let mut pinned = state.clone();
        by_hand(&mut pinned.0);
        stops(&pinned, "place");
        with(
            &state,
            |seen, _| {
                by_hand(seen);
                seen.options.force_unpin = true;
            },
            &next(&state).replace(
                "s1, s2, s3",
                "s1, s2, s3 (not proven that no other token is configured on s2)",
            ),
        );
    }
    // A rollback places what was configured.
    let state = recorded(Direction::Rollback);
    with(
        &state,
        |seen, _| server(seen, "s2").configured = Configured::Token(None),
        "place: set O on s1, s2, s3",
    );
}
