//! What is read for a rotation of the agent token.

use super::*;

#[rstest]
#[case::ready(&[(old(), NO), (new(), YES)], Login::Accepts(new()))]
#[case::starting(&[(old(), NO), (new(), unknown())], Login::Accepts(new()))]
#[case::fails(&[(old(), NO), (new(), ProbeResult::Unknown(UnknownReason::Unexpected(500)))], Login::Accepts(new()))]
#[case::asked_before_the_other_was_rejected(&[(new(), unknown()), (old(), NO)], Login::Unknown)]
#[case::does_not_check_logins_yet(&[(old(), unknown()), (new(), unknown())], Login::Unknown)]
#[case::no_answer(&[(old(), NO), (new(), ProbeResult::Unknown(UnknownReason::NoResponse(String::new())))], Login::Unknown)]
#[case::only_one_is_known(&[(new(), unknown())], Login::Unknown)]
#[case::neither(&[(old(), NO), (new(), NO)], Login::Another)]
fn a_server_that_is_starting_accepts_the_only_token_that_it_does_not_reject(
    #[case] results: &[(Fingerprint, ProbeResult)],
    #[case] expected: Login,
) {
    let mut world = World::new();
    world.rotates = RotatedToken::Agent;
    world.reading("s1").as_node = results.to_vec();
    assert_eq!(world.observed().servers["s1"].as_node, Some(expected));
}

#[test]
fn after_a_change_of_the_agent_token_a_server_need_only_answer() {
    let mut world = World::new();
    let restarting = Restarting {
        accepted: Login::Accepts(old()),
        was_configured: false,
        as_node: Some(Login::Accepts(old())),
        was_away: false,
        was_silent: false,
    };
    let mut follow = |as_node: Login, accepts: Login, is_ready: bool, rotates| {
        world.memory.restarting.insert("s2".to_owned(), restarting);
        let mut seen = World::new().observed();
        let server = seen.servers.get_mut("s2").unwrap();
        (server.as_node, server.accepts, server.is_ready) = (Some(as_node), accepts, is_ready);
        world.memory.follow_restarts(&mut seen, rotates);
        seen.servers["s2"].is_restarting
    };
    let (was, is) = (Login::Accepts(old()), Login::Accepts(new()));
    assert!(follow(was, was, true, RotatedToken::Agent));
    assert!(follow(Login::Unknown, was, false, RotatedToken::Agent));
    assert!(!follow(is, was, false, RotatedToken::Agent));
    assert!(follow(is, was, false, RotatedToken::Server));
}

#[test]
fn an_agent_token_in_a_file_that_is_no_list_of_keys_is_not_known() {
    let odd = TokenPlace {
        kind: PlaceKind::Yaml,
        file: "/etc/rancher/k3s/config.yaml".to_owned(),
        line: 0,
        lines: 0,
        name: "token".to_owned(),
        key: TokenKey::Token,
        fingerprint: None,
        user: None,
        sha256: String::new(),
        target: None,
        target_sha256: String::new(),
        blocker: Some("the file is not a plain list of keys and values".to_owned()),
    };
    let mut world = World::new();
    world.rotates = RotatedToken::Agent;
    let mut state = state("old", Some("old"));
    world.node_states.insert("s1".to_owned(), state.clone());
    assert_eq!(world.observed().servers["s1"].configured, Configured::Nowhere);
    state.configuration.places = vec![odd];
    world.node_states.insert("s1".to_owned(), state);
    assert_eq!(world.observed().servers["s1"].configured, Configured::Unknown);
}
