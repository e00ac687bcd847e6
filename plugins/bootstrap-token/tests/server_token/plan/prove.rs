//! *Prove*, *retire* and *confirm*.

use engine::direction::Direction;
use engine::rotation::{Next, Rotation as _, Timer, decide};
use kubectl_bootstrap_token::server_token::rotation::ServerToken;
use kubectl_bootstrap_token::server_token::rotation::observed::{
    Configured, Datastore, Files, Login, Needs, Observed, Repin,
};

use supervisor::node::EtcdMember;

use super::place::{DISTURBED, stops};
use super::{State, begun, fresh, load, made, new, next, old, placed, proven, recorded, server, with};

const RESTARTS: &str = "prove: restart server s1";

#[test]
fn one_server_at_a_time_is_restarted_in_the_order_of_the_round() {
    let state = placed(Direction::Forward);
    with(&state, |_, _| {}, RESTARTS);
    let loaded = |name: &'static str| {
        move |seen: &mut Observed, _: &mut super::Run| {
            server(seen, name).accepts = Login::Accepts(new());
            server(seen, name).as_node = Some(Login::Accepts(new()));
        }
    };
    with(&state, loaded("s1"), "prove: restart server s2");
    with(&state, loaded("s2"), RESTARTS);
    // As node too, unless agents have a token of their own.
    let server_only = |as_node: Option<Login>| {
        move |seen: &mut Observed, _: &mut super::Run| {
            server(seen, "s1").accepts = Login::Accepts(new());
            server(seen, "s1").as_node = as_node;
        }
    };
    with(&state, server_only(Some(Login::Accepts(old()))), RESTARTS);
    with(&state, server_only(None), "prove: restart server s2");
    with(
        &state,
        |seen, _| seen.options.has_node_access = false,
        "prove: have an operator restart server s1",
    );
    stops(&state, "prove");
}

#[test]
fn a_server_that_has_not_come_back_stops_all_others() {
    let mut state = proven(Direction::Forward);
    server(&mut state.0, "s3").accepts = Login::Unknown;
    let waits = "prove: wait for server s3 to be ready";
    with(&state, |_, _| {}, waits);
    with(
        &state,
        |_, run| _ = run.timers.insert(Timer::Proof, true),
        "refuse: still waiting for server s3 to be ready when --restart-timeout expired; restart nothing [recover]",
    );
    with(
        &state,
        |seen, _| load_one(seen, "s3"),
        &next(&proven(Direction::Forward)),
    );
    // That it accepts the token is not enough.
    let state = proven(Direction::Forward);
    with(&state, |seen, _| server(seen, "s3").is_ready = false, waits);
    with(
        &state,
        |seen, _| server(seen, "s3").member = EtcdMember::NotVoter,
        waits,
    );
}

/// While it is down, its files cannot be read. The others may not be restarted, and the files of a server that is up are checked first.
#[test]
fn the_wait_for_a_restart_is_of_the_phase_that_restarts() {
    let mut state = placed(Direction::Forward);
    let s1 = server(&mut state.0, "s1");
    (s1.files, s1.accepts, s1.is_ready, s1.is_restarting) = (Files::Unknown, Login::Unknown, false, true);
    let waits = "prove: wait for server s1 to be ready";
    with(&state, |_, _| {}, waits);
    with(&state, |seen, _| seen.cluster.datastore = Datastore::Sqlite, waits);
    with(&state, |seen, _| seen.forget_files(), waits);
    with(
        &state,
        |_, run| _ = run.timers.insert(Timer::Proof, true),
        "refuse: still waiting for server s1 to be ready when --restart-timeout expired; restart nothing [recover]",
    );
    let s1 = server(&mut state.0, "s1");
    (s1.accepts, s1.is_ready) = (Login::Accepts(new()), true);
    with(&state, |_, _| {}, "prove: wait for server s1 to restart");
    server(&mut state.0, "s1").is_restarting = false;
    with(
        &state,
        |_, _| {},
        "place: take an etcd snapshot on every server, to check its files",
    );
}

#[test]
fn the_time_for_a_restart_ends_once_every_server_is_up() {
    let (mut seen, run) = placed(Direction::Forward);
    assert_eq!(ServerToken::stale_timers(&seen, &run), [Timer::Proof]);
    assert_eq!(ServerToken::timers(&seen, &run), []);
    server(&mut seen, "s3").is_ready = false;
    seen.may_be_in_flight = true;
    assert_eq!(ServerToken::stale_timers(&seen, &run), []);
    assert_eq!(ServerToken::timers(&seen, &run), [Timer::InFlight]);
    let (mut seen, run) = placed(Direction::Forward);
    seen.joining.insert("s4".to_owned());
    assert_eq!(ServerToken::stale_timers(&seen, &run), []);
}

/// A rollback would be another round.
#[test]
fn no_wait_turns_the_run_back() {
    for state in [
        made(Direction::Forward),
        recorded(Direction::Forward),
        placed(Direction::Forward),
    ] {
        for (change, _) in DISTURBED {
            let (mut seen, mut run) = state.clone();
            change(&mut seen);
            run.timers.insert(Timer::Proof, true);
            let decision = decide(&seen, &run);
            assert!(!matches!(decision.next, Next::Turn { .. }), "{decision:?}");
        }
    }
}

fn load_one(seen: &mut Observed, name: &str) {
    server(seen, name).accepts = Login::Accepts(new());
}

#[test]
fn a_configuration_that_has_the_old_token_again_stops_everything() {
    let state = placed(Direction::Forward);
    for name in ["s1", "s3"] {
        let again =
            format!("refuse: the configuration of server {name} has another token again, with which it does not start");
        let pin = |value, is_forced| {
            move |seen: &mut Observed, _: &mut super::Run| {
                server(seen, name).configured = Configured::Token(value);
                seen.options.force_unpin = is_forced;
            }
        };
        with(&state, pin(Some(old()), false), &again);
        with(&state, pin(Some(old()), true), &again);
        with(&state, pin(None, false), &again);
        with(&state, pin(None, true), RESTARTS);
        with(&state, pin(Some(new()), false), RESTARTS);
        with(
            &state,
            |seen, _| server(seen, name).configured = Configured::Unknown,
            &format!("refuse: it is not known whether the configuration of server {name} has a token [--force=unpin]"),
        );
    }
}

#[test]
fn restarts_can_be_spread_over_maintenance_windows() {
    let mut state = placed(Direction::Forward);
    with(
        &state,
        |seen, _| seen.options.only = Some("s3".to_owned()),
        "prove: restart server s3",
    );
    load_one(&mut state.0, "s3");
    server(&mut state.0, "s3").as_node = None;
    with(
        &state,
        |seen, _| seen.options.only = Some("s3".to_owned()),
        "stop: s1, s2 still to be restarted (--only)",
    );
    let pause = "prove: wait for the pause between two restarts (--pause-between)";
    with(&state, |seen, _| seen.options.pauses = true, pause);
    for (passed, expected) in [(false, pause), (true, RESTARTS)] {
        with(
            &state,
            |seen, run| {
                seen.options.pauses = true;
                run.timers.insert(Timer::Quiet, passed);
            },
            expected,
        );
    }
    with(
        &placed(Direction::Forward),
        |seen, _| seen.options.pauses = true,
        RESTARTS,
    );
}

#[test]
fn a_rollback_restarts_only_the_servers_that_have_loaded_the_new_token() {
    let mut state = placed(Direction::Rollback);
    with(&state, |_, _| {}, RESTARTS);
    load(&mut state.0, old());
    server(&mut state.0, "s2").accepts = Login::Accepts(new());
    with(&state, |_, _| {}, "prove: restart server s2");
    // Before the first round, none is.
    let state = made(Direction::Rollback);
    with(&state, |_, _| {}, "confirm: delete the backup Secret");
    with(
        &state,
        |seen, _| load_one(seen, "s2"),
        &format!(
            "refuse: server s2 does not accept {}, although nothing was changed [recover]",
            "O"
        ),
    );
    let (seen, mut run) = begun(3);
    run.direction = Direction::Rollback;
    with(&(seen, run), |_, _| {}, "done");
}

#[test]
fn the_token_of_a_configuration_comes_back_at_the_end_only() {
    let backup = |seen: &mut Observed| server(seen, "s2").has_configuration_backup = true;
    let repins = |value: &str| format!("prove: put {value} into the configuration of s2");
    // Not before the round with O is complete, and not before each server has loaded it.
    with(
        &recorded(Direction::Rollback),
        |seen, _| backup(seen),
        "place: set O on s1, s2, s3",
    );
    with(&placed(Direction::Rollback), |seen, _| backup(seen), RESTARTS);
    with(&proven(Direction::Rollback), |seen, _| backup(seen), &repins("O"));
    with(&made(Direction::Rollback), |seen, _| backup(seen), &repins("O"));
    // Forward only where it is asked for.
    let end = "confirm: delete the backup Secret";
    with(&proven(Direction::Forward), |seen, _| backup(seen), end);
    let asked = |repin| {
        move |seen: &mut Observed, _: &mut super::Run| {
            seen.options.repin = repin;
            seen.agents.insert("a1".to_owned(), Configured::Token(Some(old())));
            seen.agents.insert("a2".to_owned(), Configured::Nowhere);
        }
    };
    with(&placed(Direction::Forward), asked(Repin::ServersAndAgents), RESTARTS);
    let state = proven(Direction::Forward);
    with(&state, asked(Repin::Servers), end);
    with(
        &state,
        asked(Repin::ServersAndAgents),
        "prove: put N into the configuration of a1",
    );
    with(
        &state,
        |seen, run| {
            asked(Repin::ServersAndAgents)(seen, run);
            backup(seen);
        },
        &repins("N"),
    );
    with(
        &state,
        |seen, run| {
            asked(Repin::ServersAndAgents)(seen, run);
            seen.options.has_node_access = false;
        },
        end,
    );
}

#[test]
fn the_secret_is_deleted_after_all_servers_have_loaded_the_token_and_before_the_last_snapshot() {
    let (mut seen, run) = proven(Direction::Forward);
    seen.snapshots.has_checking = true;
    server(&mut seen, "s1").has_configuration_backup = true;
    let mut state: State = (seen, run);
    with(
        &state,
        |_, _| {},
        "confirm: delete the etcd snapshots that were taken to check files",
    );
    state.0.snapshots.has_checking = false;
    with(&state, |_, _| {}, "confirm: delete the backup Secret");
    state.0.backup = None;
    state.1.record.is_ended = true;
    with(&state, |_, _| {}, "confirm: delete the backups of configurations");
    server(&mut state.0, "s1").has_configuration_backup = false;
    with(
        &state,
        |_, _| {},
        "confirm: take the last etcd snapshot on every server",
    );
    with(&state, |seen, _| seen.cluster.datastore = Datastore::Sqlite, "done");
    let last = |needs| move |seen: &mut Observed, _: &mut super::Run| seen.snapshots.last = Some(needs);
    with(&state, last(Needs::Token(new())), "done");
    for needs in [Needs::Token(old()), Needs::Unknown] {
        with(
            &state,
            last(needs),
            "refuse: a server has another token than N in its files [recover]",
        );
    }
    with(
        &state,
        |seen, _| server(seen, "s2").accepts = Login::Accepts(old()),
        "refuse: server s2 does not accept N, although nothing was changed [recover]",
    );
}

/// Another process finds a run without a backup Secret.
#[test]
fn the_end_of_a_run_is_believed_only_if_servers_and_snapshots_confirm_it() {
    let (mut seen, run) = proven(Direction::Forward);
    seen.backup = None;
    seen.given = new();
    let state = (seen, run);
    let refused = "refuse: the backup Secret of the rotation is gone, and nothing shows that the rotation was complete";
    with(
        &state,
        |_, _| {},
        "confirm: take the last etcd snapshot on every server",
    );
    with(&state, |seen, _| seen.given = old(), refused);
    with(
        &state,
        |seen, _| server(seen, "s2").accepts = Login::Accepts(old()),
        refused,
    );
    for first in [None, Some(Needs::Unknown), Some(Needs::Token(fresh()))] {
        with(&state, |seen, _| seen.snapshots.first = first, refused);
    }
    with(
        &state,
        |seen, _| {
            seen.snapshots.first = None;
            server(seen, "s2").has_configuration_backup = true;
        },
        "confirm: delete the backups of configurations",
    );
    // It was a rollback.
    let (mut seen, run) = proven(Direction::Rollback);
    seen.backup = None;
    with(
        &(seen, run),
        |_, _| {},
        "confirm: take the last etcd snapshot on every server",
    );
    // A file of another run does not matter to a server that has started.
    let (mut seen, run) = proven(Direction::Forward);
    server(&mut seen, "s2").files = Files::Hold(new());
    with(&(seen, run), |_, _| {}, "confirm: delete the backup Secret");
}
