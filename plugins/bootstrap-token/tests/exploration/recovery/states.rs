//! The states of servers that were seen on real ones, and the first action for each.

use rstest::rstest;

use super::{
    Clocks, Encryption, PASSWD, RecoveryFacts, Response, ServerFacts, brief, cluster, decide, down, hash, node, ready,
    start, without_access,
};
use kubectl_bootstrap_token::server_token::recovery::diagnosis::ServerState;
use kubectl_bootstrap_token::server_token::recovery::facts::{
    ConfiguredToken, FileToken, LastStart, Presence, RoundEnd, RoundFacts, StartFailure,
};
use kubectl_bootstrap_token::server_token::recovery::plan::Recovery;

const DIFFERENT: &str = "bootstrap data already found and encrypted with different token";

fn own_copy() -> String {
    format!(
        "level=fatal msg=\"Error: preparing server: failed to bootstrap cluster data: failed to reconcile with local datastore: {DIFFERENT}\""
    )
}

fn save() -> String {
    format!("level=error msg=\"Shutdown request received: failed to save bootstrap data: {DIFFERENT}\"")
}

fn trap(files: &str) -> String {
    format!(
        "level=fatal msg=\"Error: preparing server: {files} newer than datastore and could cause a cluster outage. Remove the file(s) from disk \
         and restart to be recreated from datastore.\""
    )
}

#[rstest]
#[case::own_copy(&own_copy(), StartFailure::OwnCopy)]
#[case::older_line(&format!("Failed to reconcile with temporary etcd: {DIFFERENT}"), StartFailure::OwnCopy)]
#[case::sqlite(&format!("Error: preparing server: failed to bootstrap cluster data: {DIFFERENT}"), StartFailure::OwnCopy)]
#[case::save(&save(), StartFailure::Save)]
#[case::no_token(&format!("Error: preparing server: failed to start cluster: {DIFFERENT}"), StartFailure::NoToken)]
#[case::not_authorized("failed to bootstrap cluster data: not authorized", StartFailure::NotAuthorized)]
#[case::passwd(&trap(PASSWD), StartFailure::Newer(vec![PASSWD.to_owned()]))]
#[case::two_files(&trap("/a/encryption-config.json, /a/encryption-state.json"), StartFailure::Newer(vec!["/a/encryption-config.json".to_owned(), "/a/encryption-state.json".to_owned()]))]
#[case::quorum("level=fatal msg=\"leaderelection lost for k3s\"", StartFailure::NoQuorum)]
#[case::other("panic: nil", StartFailure::Other("panic: nil".to_owned()))]
fn the_last_line_that_tells_is_the_failure(#[case] line: &str, #[case] failure: StartFailure) {
    let log = [save(), line.to_owned()];
    let of_log = StartFailure::of_log(&log);
    // A line without a rule does not hide an earlier one that has one.
    let expected = if matches!(failure, StartFailure::Other(_)) {
        StartFailure::Save
    } else {
        failure.clone()
    };
    assert_eq!(of_log, Some(expected));
    assert_eq!(StartFailure::of_log(&[line.to_owned()]), Some(failure));
}

#[rstest]
#[case(PASSWD, true)]
#[case(
    "/var/lib/rancher/k3s/server/cred/passwd, /var/lib/rancher/k3s/server/cred/encryption-config.json",
    false
)]
#[case(
    "/var/lib/rancher/k3s/server/cred/encryption-config.json, /var/lib/rancher/k3s/server/cred/passwd",
    false
)]
#[case("/srv/with space, /x/server/cred/passwd", false)]
fn only_a_trap_that_names_nothing_but_passwd_allows_to_delete_it(#[case] files: &str, #[case] only: bool) {
    assert_eq!(StartFailure::of_log(&[trap(files)]).unwrap().names_only_passwd(), only);
}

/// §4 and §12 of what was measured: the server `s1`, two others that are healthy, and what comes first.
#[rstest]
#[case::healthy(ready("old", "old", None), ServerState::Healthy, "done")]
#[case::empty_token_file(
    down(None, Some("new"), None, &format!("failed to start cluster: {DIFFERENT}")),
    ServerState::EmptyTokenFile,
    "write old on s1"
)]
#[case::trap_with_the_right_token(down(Some("old"), Some("new"), None, &trap(PASSWD)), ServerState::TrapPasswd, "delete passwd on s1")]
#[case::killed_after_the_key(
    down(Some("new"), Some("new"), None, &trap(PASSWD)),
    ServerState::KeyWithoutFiles(hash("new")),
    "put new on s2 s3"
)]
#[case::trap_of_encryption(
    down(Some("old"), Some("old"), None, &trap("/a/encryption-config.json")),
    ServerState::TrapOther(vec!["/a/encryption-config.json".to_owned()]),
    "refuse: server s1 reports files that are newer than the datastore: /a/encryption-config.json"
)]
#[case::trap_of_more_than_passwd(
    down(Some("old"), Some("old"), None, &trap("/a/server/cred/passwd, /a/encryption-config.json")),
    ServerState::TrapOther(vec!["/a/server/cred/passwd".to_owned(), "/a/encryption-config.json".to_owned()]),
    "refuse: server s1 reports files that are newer than the datastore: /a/server/cred/passwd, /a/encryption-config.json"
)]
#[case::stale_copy(down(Some("new"), Some("new"), None, &own_copy()), ServerState::StaleCopy, "write old on s1")]
#[case::copy_is_up_to_date(down(Some("new"), Some("new"), None, &save()), ServerState::NotSaved, "write old on s1")]
#[case::configured(
    down(Some("old"), Some("old"), Some("new"), &own_copy()),
    ServerState::ConfiguredOther { runs: false },
    "unpin s1"
)]
#[case::stopped(down(Some("old"), Some("old"), None, ""), ServerState::Stopped, "start s1 once")]
#[case::no_rule(
    down(Some("old"), Some("old"), None, "level=fatal msg=\"no space left on device\""),
    ServerState::Stopped,
    "start s1 once"
)]
#[case::led_without_a_quorum(
    down(Some("old"), Some("old"), None, "level=fatal msg=\"leaderelection lost for k3s\""),
    ServerState::Stopped,
    "start s1 once"
)]
fn a_server_beside_two_healthy_ones(#[case] server: ServerFacts, #[case] state: ServerState, #[case] first: &str) {
    let facts = cluster(
        &[server, ready("old", "old", None), ready("old", "old", None)],
        &["new", "old"],
    );
    let (diagnosis, next) = decide(&facts);
    assert_eq!(diagnosis.servers["s1"].state, state);
    assert_eq!(brief(&next), first);
}

#[test]
fn a_server_is_started_once_before_an_error_without_a_rule_is_its_end() {
    let mut server = down(
        Some("old"),
        Some("old"),
        None,
        "level=error msg=\"no space left on device\"",
    );
    let last = server.starts.last.clone().unwrap();
    server.starts.add(last, None);
    let facts = cluster(
        &[server, ready("old", "old", None), ready("old", "old", None)],
        &["old"],
    );
    let (diagnosis, next) = decide(&facts);
    assert_eq!(diagnosis.servers["s1"].state, ServerState::Damaged);
    let refused = "refuse: server s1 cannot be brought back by its token: the recovery does not know its last error: level=error msg=\"no space left on device\"";
    assert_eq!(brief(&next), refused);
}

#[test]
fn a_member_that_joined_with_the_old_token_is_brought_back_before_any_round() {
    let servers = [
        ready("old", "new", None),
        ready("old", "new", None),
        ready("old", "new", None),
        down(Some("old"), Some("old"), Some("old"), &save()),
    ];
    let (diagnosis, next) = decide(&cluster(&servers, &["new", "old"]));
    assert_eq!(
        diagnosis.servers["s4"].state,
        ServerState::ConfiguredOther { runs: false }
    );
    assert_eq!(brief(&next), "unpin s4");
}

#[test]
fn a_poisoned_server_gets_the_token_that_is_proven() {
    let mut facts = cluster(
        &[
            ready("old", "old", None),
            ready("old", "other", None),
            ready("old", "old", None),
        ],
        &["new", "old"],
    );
    facts.proven = Some(hash("old"));
    let (diagnosis, next) = decide(&facts);
    assert_eq!(diagnosis.servers["s2"].state, ServerState::Poisoned);
    assert_eq!(diagnosis.servers["s1"].state, ServerState::Healthy);
    assert_eq!(brief(&next), "put old on s2");
}

#[test]
fn a_poisoned_server_and_a_half_finished_round_look_the_same_and_both_are_mended_by_the_same_token() {
    let facts = cluster(&[ready("old", "new", None), ready("old", "old", None)], &["new", "old"]);
    let (diagnosis, next) = decide(&facts);
    assert_eq!(diagnosis.datastore, None);
    assert!(matches!(diagnosis.servers["s1"].state, ServerState::NotKnown { .. }));
    assert_eq!(diagnosis.servers["s2"].state, ServerState::HalfRound(hash("new")));
    assert_eq!(brief(&next), "put new on s2");
}

#[test]
fn placed_servers_are_restarted_one_by_one_after_a_round_whose_order_is_known() {
    let mut facts = cluster(&[ready("old", "new", None), ready("old", "new", None)], &["new", "old"]);
    assert_eq!(brief(&decide(&facts).1), "put new on s1");
    for (sha256, server) in ["1", "2"].into_iter().zip(facts.servers.values_mut()) {
        let passwd = &mut server.node.as_mut().unwrap().passwd[0].file;
        (passwd.sha256, passwd.modified) = (sha256.to_owned(), if sha256 == "1" { 0 } else { 60 });
    }
    assert_eq!(brief(&decide(&facts).1), "put fresh on s1 s2");
    facts.last_round = Some(RoundFacts {
        value: hash("new"),
        end: RoundEnd::OutOfOrder,
    });
    assert_eq!(brief(&decide(&facts).1), "put fresh on s1 s2");
    facts.last_round = Some(RoundFacts {
        value: hash("new"),
        end: RoundEnd::InOrder,
    });
    let (diagnosis, next) = decide(&facts);
    assert_eq!(diagnosis.servers["s1"].state, ServerState::Placed);
    assert_eq!(brief(&next), "restart s1");
}

#[test]
fn a_fresh_token_that_the_first_server_rejects_is_followed_by_that_of_the_others_and_then_by_hand() {
    let mut facts = cluster(&[ready("old", "fresh", None), ready("old", "old", None)], &["old"]);
    facts.last_round = Some(RoundFacts {
        value: hash("fresh"),
        end: RoundEnd::FirstRejected("s1".to_owned()),
    });
    assert_eq!(brief(&decide(&facts).1), "put old on s1");
    facts.last_round = Some(RoundFacts {
        value: hash("old"),
        end: RoundEnd::NoneAccepted,
    });
    let (diagnosis, next) = decide(&facts);
    assert!(diagnosis.is_stuck);
    let Recovery::ByHand { instructions, .. } = next else {
        panic!("{next:?}");
    };
    assert!(instructions[0].steps[0].contains("do not restart"));
}

#[test]
fn a_killed_server_alone_is_configured_by_hand_once_its_start_has_shown_the_old_files() {
    let mut server = down(Some("new"), Some("new"), None, &trap(PASSWD));
    assert_eq!(
        brief(&decide(&cluster(&[server.clone()], &["new", "old"])).1),
        "delete passwd on s1"
    );
    server.starts.add(
        LastStart {
            with: Some(hash("new")),
            failure: StartFailure::Save,
        },
        Some(hash("old")),
    );
    server.node = Some(node(Some(hash("old")), Some(hash("old")), None));
    server.node.as_mut().unwrap().service.active = "failed".to_owned();
    let (diagnosis, next) = decide(&cluster(&[server], &["new", "old"]));
    assert_eq!(diagnosis.servers["s1"].state, ServerState::KeyWithoutFiles(hash("new")));
    assert_eq!(brief(&next), "by hand on s1");
}

#[rstest]
#[case::unsafe_encryption(Encryption::Unsafe("stages differ".to_owned()), "refuse: a change of the token or a restart can lose every Secret: stages differ")]
#[case::unknown_encryption(Encryption::Unknown, "wait: the encryption status of every server")]
fn the_encryption_of_secrets_is_asked_before_each_put_and_restart(
    #[case] encryption: Encryption,
    #[case] expected: &str,
) {
    let mut facts = cluster(&[ready("old", "new", None), ready("old", "old", None)], &["new", "old"]);
    facts.encryption = encryption.clone();
    assert_eq!(brief(&decide(&facts).1), expected);
    let mut placed = cluster(&[ready("old", "new", None)], &["new", "old"]);
    placed.last_round = Some(RoundFacts {
        value: hash("new"),
        end: RoundEnd::InOrder,
    });
    assert_eq!(brief(&decide(&placed).1), "restart s1");
    placed.encryption = encryption.clone();
    assert_eq!(brief(&decide(&placed).1), expected);
    let dead = down(Some("new"), Some("new"), None, &trap(PASSWD));
    let mut killed = cluster(
        &[dead, ready("old", "old", None), ready("old", "old", None)],
        &["new", "old"],
    );
    killed.encryption = encryption;
    assert_eq!(brief(&decide(&killed).1), expected);
}

#[test]
fn a_server_that_does_not_answer_about_its_encryption_yet_is_still_starting() {
    let mut facts = cluster(&[ready("old", "old", None)], &["old"]);
    assert_eq!(brief(&decide(&facts).1), "done");
    facts.encryption = Encryption::Unknown;
    assert_eq!(brief(&decide(&facts).1), "wait: the encryption status of every server");
    facts.encryption = Encryption::Unsafe("stages differ".to_owned());
    assert_eq!(brief(&decide(&facts).1), "done");
}

#[test]
fn a_restarting_service_is_stopped_before_anything_is_changed() {
    let mut dead = down(Some("old"), Some("old"), Some("old"), &trap(PASSWD));
    let service = &mut dead.node.as_mut().unwrap().service;
    (service.active, service.sub, service.restarts) = ("activating".to_owned(), "auto-restart".to_owned(), Some(7));
    assert_eq!(dead.presence(), Presence::Down);
    let facts = cluster(
        &[ready("old", "new", None), dead, ready("old", "new", None)],
        &["new", "old"],
    );
    assert_eq!(brief(&decide(&facts).1), "stop s2");
}

#[test]
fn without_node_access_a_server_that_does_not_answer_is_for_an_operator() {
    let mut dead = without_access(down(None, None, None, ""));
    dead.response = Response::None;
    let (diagnosis, next) = decide(&cluster(&[ready("old", "new", None), dead], &["new", "old"]));
    assert!(matches!(diagnosis.servers["s2"].state, ServerState::NotKnown { .. }));
    let Recovery::ByHand { instructions, .. } = next else {
        panic!("{next:?}");
    };
    assert_eq!(instructions.len(), 2);
}

#[test]
fn files_that_are_not_known_are_shown_by_a_snapshot_and_on_sqlite_by_a_put() {
    let mut server = without_access(ready("old", "old", None));
    server.snapshot = None;
    let mut facts = cluster(&[server], &["new", "old"]);
    assert_eq!(brief(&decide(&facts).1), "snapshot");
    facts.has_snapshots = false;
    assert_eq!(brief(&decide(&facts).1), "put new on s1");
    facts.at_hand = vec![hash("old")];
    assert_eq!(brief(&decide(&facts).1), "put fresh on s1");
    // Neither is possible without what the server accepts.
    facts.servers.get_mut("s1").unwrap().loaded = None;
    for has_snapshots in [true, false] {
        facts.has_snapshots = has_snapshots;
        let refused = "refuse: server s1 accepts none of the known tokens";
        assert_eq!(brief(&decide(&facts).1), refused);
    }
}

#[test]
fn a_service_that_is_stopping_is_not_a_server_that_has_failed() {
    let mut server = down(Some("old"), Some("old"), None, "");
    for (active, presence) in [("deactivating", Presence::Starting), ("failed", Presence::Down)] {
        active.clone_into(&mut server.node.as_mut().unwrap().service.active);
        assert_eq!(server.presence(), presence, "{active}");
    }
}

#[rstest]
#[case::in_flight(|facts: &mut RecoveryFacts| facts.may_be_in_flight = true, "wait: writes of another process to arrive")]
#[case::members(
    |facts: &mut RecoveryFacts| facts.members_are_servers = None,
    "wait: the members of etcd to be the servers, and all of them to vote"
)]
#[case::clocks(
    |facts: &mut RecoveryFacts| facts.clocks = Clocks::Skewed,
    "refuse: the clocks of the servers differ by 2 s or more: which files are the newest would not be known"
)]
#[case::clocks_unknown(
    |facts: &mut RecoveryFacts| facts.clocks = Clocks::Unknown,
    "wait: the clocks of the servers to be known"
)]
#[case::ahead(
    |facts: &mut RecoveryFacts| facts.clocks = Clocks::Close(Some("s2".to_owned())),
    "put new on s3 s2"
)]
#[case::login(
    |facts: &mut RecoveryFacts| facts.servers.get_mut("s3").unwrap().loaded = None,
    "refuse: server s3 accepts none of the known tokens"
)]
#[case::value(|facts: &mut RecoveryFacts| facts.at_hand = vec![hash("old")], "put fresh on s1 s2 s3")]
#[case::role(
    |facts: &mut RecoveryFacts| facts.servers.get_mut("s3").unwrap().is_full = false,
    "refuse: server s3 runs only a control plane or only etcd, for which the recovery has no rules"
)]
fn a_round_waits_for_what_it_needs(#[case] change: fn(&mut RecoveryFacts), #[case] expected: &str) {
    let servers = [
        ready("old", "new", None),
        ready("old", "old", None),
        ready("old", "old", None),
    ];
    let mut facts = cluster(&servers, &["new", "old"]);
    change(&mut facts);
    assert_eq!(brief(&decide(&facts).1), expected);
}

#[test]
fn where_a_token_is_not_proven_to_be_the_datastores_a_server_that_is_down_can_contradict() {
    let others = [ready("old", "old", None), ready("old", "old", None)];
    let with = |dead: ServerFacts| {
        let servers = [dead, others[0].clone(), others[1].clone()];
        decide(&cluster(&servers, &["new", "old"])).0.datastore
    };
    assert_eq!(with(down(Some("old"), Some("old"), None, "")), Some(hash("old")));
    // It took a PUT before it ended.
    assert_eq!(with(down(Some("new"), Some("new"), Some("old"), &own_copy())), None);
    assert_eq!(with(down(Some("old"), Some("old"), None, &save())), None);
}

#[test]
fn facts_of_a_node_come_before_what_its_start_has_shown() {
    let mut server = ready("old", "new", Some("old"));
    assert_eq!(server.configured(), ConfiguredToken::Holds(hash("old")));
    assert_eq!(server.file(), FileToken::Holds(hash("new")));
    server.node = Some(node(Some(hash("new")), Some(hash("old")), None));
    assert_eq!(server.configured(), ConfiguredToken::Nowhere);
    assert_eq!(server.file(), FileToken::PasswdDiffers(hash("new")));
    server.node = Some(node(Some(hash("new")), None, None));
    assert_eq!(server.file(), FileToken::Holds(hash("new")));
    server.node = None;
    server.start = start(false);
    assert_eq!(server.configured(), ConfiguredToken::Nowhere);
}
