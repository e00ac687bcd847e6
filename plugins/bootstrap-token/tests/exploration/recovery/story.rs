//! `k3s token rotate` by hand on one server, with the old token still in each `config.yaml`, on invented servers that follow the
//! start-up rules of the [`model`](super::model).

use super::brief;
use super::model::{Access, NEW, OLD, World};

/// Three servers that are configured with the old token, after the command on the first.
fn rotated_by_hand() -> World {
    let mut world = World::new(3, true);
    assert!(world.put(0, NEW));
    world.pass();
    world
}

#[test]
fn all_servers_are_up_and_the_value_is_known() {
    let mut world = rotated_by_hand();
    let actions = world.recover(&Access::nodes(&[NEW, OLD])).unwrap();
    let expected = [
        "unpin s2",
        "unpin s3",
        "put new on s2 s3",
        "unpin s1",
        "restart s1",
        "restart s2",
        "restart s3",
    ];
    assert_eq!(actions.iter().map(brief).collect::<Vec<_>>(), expected);
}

#[test]
fn all_servers_are_up_and_the_value_is_not_known() {
    let mut world = rotated_by_hand();
    let actions = world.recover(&Access::nodes(&[OLD])).unwrap();
    let actions: Vec<_> = actions.iter().map(brief).collect();
    assert_eq!(actions[..3], ["unpin s2", "unpin s3", "put fresh on s1 s2 s3"]);
    assert_eq!(actions.last().unwrap(), "restart s3");
}

#[test]
fn without_node_access_each_server_is_unpinned_by_hand_and_restarted() {
    let mut world = rotated_by_hand();
    let actions = world.recover(&Access::none(&[NEW, OLD])).unwrap();
    let expected = [
        "snapshot",
        "put new on s2 s3",
        "unpin and restart s1",
        "unpin and restart s2",
        "unpin and restart s3",
    ];
    assert_eq!(actions.iter().map(brief).collect::<Vec<_>>(), expected);
}

#[test]
fn one_server_was_restarted_and_is_dead() {
    for dead in 0..3 {
        let mut world = rotated_by_hand();
        world.crash_loop(dead);
        assert!(!world.is_ready(dead));
        let actions = world.recover(&Access::nodes(&[NEW, OLD])).unwrap();
        let actions: Vec<_> = actions.iter().map(brief).collect();
        assert_eq!(actions[0], format!("stop s{}", dead + 1));
        let back = actions
            .iter()
            .position(|action| action.starts_with("end once"))
            .unwrap();
        let put = actions.iter().position(|action| action.starts_with("put")).unwrap();
        assert!(back < put, "{actions:?}");
    }
}

#[test]
fn two_servers_are_dead_and_etcd_has_no_quorum() {
    for running in 0..3 {
        let mut world = rotated_by_hand();
        for dead in (0..3).filter(|server| *server != running) {
            world.crash_loop(dead);
        }
        world.recover(&Access::nodes(&[NEW, OLD])).unwrap();
    }
}

#[test]
fn no_server_runs_and_there_is_no_api_server() {
    for servers in 1..=3 {
        let mut world = World::new(servers, true);
        world.put(0, NEW);
        world.pass();
        for server in 0..servers {
            world.crash_loop(server);
        }
        world.recover(&Access::nodes(&[NEW, OLD])).unwrap();
    }
}

#[test]
fn a_dead_server_needs_a_value_that_is_at_hand() {
    let mut world = rotated_by_hand();
    world.crash_loop(1);
    let refused = world.recover(&Access::nodes(&[OLD])).unwrap_err();
    assert!(
        refused.contains("refuse: none of the known tokens starts server s2"),
        "{refused}"
    );
    // The server is unpinned and stopped, and nothing else is changed.
    world.recover(&Access::nodes(&[NEW, OLD])).unwrap();
}

#[test]
fn the_model_arms_the_trap_where_a_round_is_turned_half_way_and_a_fresh_token_disarms_it() {
    let mut world = World::new(3, false);
    assert!(world.put(0, NEW));
    world.pass();
    assert!((0..3).all(|server| world.put(server, OLD)));
    world.pass();
    assert!(!world.would_start(0));
    let actions = world.recover(&Access::nodes(&[NEW, OLD])).unwrap();
    assert_eq!(brief(&actions[0]), "put fresh on s1 s2 s3");
}
