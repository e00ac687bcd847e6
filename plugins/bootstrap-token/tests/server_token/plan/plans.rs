//! Whole plans.

use engine::direction::Direction;
use engine::plan::plan;
use kubectl_bootstrap_token::server_token::rotation::ServerToken;
use kubectl_bootstrap_token::server_token::rotation::observed::{Datastore, Files, Observed, Repin, RoundResult};
use supervisor::SupervisorKind;

use super::{Model, State, load, made, named, new, old, placed, proven, recorded, server};

fn lines(seen: Observed, run: Option<super::Run>) -> String {
    named(plan::<ServerToken>(seen, run).map_or_else(|none| none.to_string(), |plan| plan.to_string()))
        .replace(&engine::plan::Placeholder::fingerprint().to_string(), "<new>")
}

fn rotation(model: Model) -> String {
    lines(model.observed(), None)
}

/// By a process that takes the run over.
fn rollback(mut state: State) -> String {
    state.1.direction = Direction::Rollback;
    state.0.round = RoundResult::Unknown;
    state.0.may_be_in_flight = true;
    state.0.forget_files();
    lines(state.0, Some(state.1))
}

fn model(servers: usize) -> Model {
    Model {
        servers,
        ..Model::default()
    }
}

#[test]
fn three_servers_are_changed_in_one_round_and_restarted_one_at_a_time() {
    insta::assert_snapshot!(rotation(model(3)), @r"
    make    take an etcd snapshot on every server, to keep
    make    create a new token, and write it to token
    make    back up <new> in the backup Secret
    place   record in the backup Secret that a round with <new> begins
    place   set <new> on s1, s2, s3
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that every server has <new>
    prove   restart server s1
    prove   wait for server s1 to be ready
    prove   restart server s2
    prove   wait for server s2 to be ready
    prove   restart server s3
    prove   wait for server s3 to be ready
    confirm delete the etcd snapshots that were taken to check files
    confirm delete the backup Secret
    confirm take the last etcd snapshot on every server
    ");
}

#[test]
fn one_server_is_planned_with_etcd_and_with_sqlite() {
    insta::assert_snapshot!(rotation(model(1)), @r"
    make    take an etcd snapshot on every server, to keep
    make    create a new token, and write it to token
    make    back up <new> in the backup Secret
    place   record in the backup Secret that a round with <new> begins
    place   set <new> on s1
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that every server has <new>
    prove   restart server s1
    prove   wait for server s1 to be ready
    confirm delete the etcd snapshots that were taken to check files
    confirm delete the backup Secret
    confirm take the last etcd snapshot on every server
    ");
    let sqlite = Model {
        datastore: Datastore::Sqlite,
        ..model(1)
    };
    insta::assert_snapshot!(rotation(sqlite), @r"
    make    create a new token, and write it to token
    make    back up <new> in the backup Secret
    place   record in the backup Secret that a round with <new> begins
    place   set <new> on s1
    place   set <new> on s1 once more
    place   record in the backup Secret that every server has <new>
    prove   restart server s1
    prove   wait for server s1 to be ready
    confirm delete the backup Secret
    ");
}

#[test]
fn tokens_in_configurations_are_removed_first() {
    let pinned = Model {
        is_pinned: true,
        ..model(3)
    };
    let mut seen = pinned.observed();
    seen.options.repin = Repin::Servers;
    insta::assert_snapshot!(lines(seen, None), @r"
    make    take an etcd snapshot on every server, to keep
    make    create a new token, and write it to token
    make    back up <new> in the backup Secret
    place   remove the token from the configuration of server s1
    place   remove the token from the configuration of server s2
    place   remove the token from the configuration of server s3
    place   record in the backup Secret that a round with <new> begins
    place   set <new> on s1, s2, s3
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that every server has <new>
    prove   restart server s1
    prove   wait for server s1 to be ready
    prove   restart server s2
    prove   wait for server s2 to be ready
    prove   restart server s3
    prove   wait for server s3 to be ready
    prove   put <new> into the configuration of s1
    prove   put <new> into the configuration of s2
    prove   put <new> into the configuration of s3
    confirm delete the etcd snapshots that were taken to check files
    confirm delete the backup Secret
    confirm delete the backups of configurations
    confirm take the last etcd snapshot on every server
    ");
    let by_hand = Model {
        has_node_access: false,
        ..pinned
    };
    insta::assert_snapshot!(rotation(by_hand), @r"
    make    take an etcd snapshot on every server, to keep
    make    create a new token, and write it to token
    make    back up <new> in the backup Secret
    place   have an operator remove the token from the configuration of server s1, and restart it
    place   wait for server s1 to be ready
    place   have an operator remove the token from the configuration of server s2, and restart it
    place   wait for server s2 to be ready
    place   have an operator remove the token from the configuration of server s3, and restart it
    place   wait for server s3 to be ready
    place   record in the backup Secret that a round with <new> begins
    place   set <new> on s1, s2, s3
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that every server has <new>
    prove   have an operator restart server s1
    prove   wait for server s1 to be ready
    prove   have an operator restart server s2
    prove   wait for server s2 to be ready
    prove   have an operator restart server s3
    prove   wait for server s3 to be ready
    confirm delete the etcd snapshots that were taken to check files
    confirm delete the backup Secret
    confirm take the last etcd snapshot on every server
    ");
    let mut forced = by_hand.observed();
    forced.options.force_unpin = true;
    insta::assert_snapshot!(lines(forced, None), @r"
    make    take an etcd snapshot on every server, to keep
    make    create a new token, and write it to token
    make    back up <new> in the backup Secret
    place   record in the backup Secret that a round with <new> begins
    place   set <new> on s1, s2, s3 (not proven that no other token is configured on s1, s2, s3)
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that every server has <new>
    prove   have an operator restart server s1
    prove   wait for server s1 to be ready
    prove   have an operator restart server s2
    prove   wait for server s2 to be ready
    prove   have an operator restart server s3
    prove   wait for server s3 to be ready
    confirm delete the etcd snapshots that were taken to check files
    confirm delete the backup Secret
    confirm take the last etcd snapshot on every server
    ");
}

#[test]
fn a_plan_says_what_was_not_measured() {
    let mut seen = model(3).observed();
    seen.cluster.supervisor = SupervisorKind::Rke2;
    let plan = plan::<ServerToken>(seen.clone(), None).expect("it is forced");
    let start = <ServerToken as engine::rotation::Rotation>::start(&seen, &plan.record);
    assert_eq!(named(start), "3 servers accept O (unmeasured: RKE2)");
    let also = <ServerToken as engine::rotation::Rotation>::also_invalidated(&plan);
    assert!(also[0].contains("agents"), "{also:?}");
}

#[test]
fn a_rollback_is_planned_from_each_phase() {
    // Before a backup Secret, and before a round.
    let (seen, run) = super::begun(3);
    insta::assert_snapshot!(rollback((seen, run)), @"");
    insta::assert_snapshot!(rollback(made(Direction::Forward)), @r"
    prove   wait for writes in flight to arrive
    confirm delete the backup Secret
    ");
    // Within a round: it is recorded.
    insta::assert_snapshot!(rollback(recorded(Direction::Forward)), @r"
    place   wait for writes in flight to arrive
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that every server has O
    confirm delete the etcd snapshots that were taken to check files
    confirm delete the backup Secret
    confirm take the last etcd snapshot on every server
    ");
    // After it, and after one restart.
    insta::assert_snapshot!(rollback(placed(Direction::Forward)), @r"
    place   wait for writes in flight to arrive
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that a round with O begins
    place   set O on s1, s2, s3
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that every server has O
    confirm delete the etcd snapshots that were taken to check files
    confirm delete the backup Secret
    confirm take the last etcd snapshot on every server
    ");
    let mut restarted = placed(Direction::Forward);
    load(&mut restarted.0, old());
    server(&mut restarted.0, "s1").accepts =
        kubectl_bootstrap_token::server_token::rotation::observed::Login::Accepts(new());
    insta::assert_snapshot!(rollback(restarted), @r"
    place   wait for writes in flight to arrive
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that a round with O begins
    place   set O on s1, s2, s3
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that every server has O
    prove   restart server s1
    prove   wait for server s1 to be ready
    confirm delete the etcd snapshots that were taken to check files
    confirm delete the backup Secret
    confirm take the last etcd snapshot on every server
    ");
    insta::assert_snapshot!(rollback(proven(Direction::Forward)), @r"
    place   wait for writes in flight to arrive
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that a round with O begins
    place   set O on s1, s2, s3
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that every server has O
    prove   restart server s1
    prove   wait for server s1 to be ready
    prove   restart server s2
    prove   wait for server s2 to be ready
    prove   restart server s3
    prove   wait for server s3 to be ready
    confirm delete the etcd snapshots that were taken to check files
    confirm delete the backup Secret
    confirm take the last etcd snapshot on every server
    ");
}

#[test]
fn a_round_in_hand_is_completed_by_a_rollback() {
    let (mut seen, mut run) = recorded(Direction::Forward);
    run.direction = Direction::Rollback;
    seen.round = RoundResult::Unknown;
    server(&mut seen, "s1").files = Files::Hold(new());
    insta::assert_snapshot!(lines(seen, Some(run)), @r"
    place   set N on s1, s2, s3 once more
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that a round with O begins
    place   set O on s1, s2, s3
    place   take an etcd snapshot on every server, to check its files
    place   record in the backup Secret that every server has O
    confirm delete the etcd snapshots that were taken to check files
    confirm delete the backup Secret
    confirm take the last etcd snapshot on every server
    ");
}
