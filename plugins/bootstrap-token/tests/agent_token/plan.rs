//! Whole plans, and conditions of the stages that the model does not tell apart.

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::plan::{Placeholder, plan};
use engine::rotation::{Blocker, Next, Rotation as _, decide};
use engine::run::RunId;
use kubectl_bootstrap_token::agent_token::rotation::AgentToken;
use kubectl_bootstrap_token::agent_token::rotation::observed::{
    Agent, Clocks, Configured, Encryption, Login, Members, Observed, Output, Purpose, Role, Server,
};
use kubectl_bootstrap_token::agent_token::rotation::record::{Record, Saved};
use supervisor::node::{EtcdMember, NodeManager};

use crate::environment::{Model, Run, drawn, server_token};

fn old() -> Fingerprint {
    Fingerprint::of("old")
}

fn named(text: String) -> String {
    [
        (server_token(), "S"),
        (old(), "O"),
        (drawn(), "N"),
        (Placeholder::fingerprint(), "<new>"),
    ]
    .iter()
    .fold(text, |text, (token, name)| text.replace(&token.to_string(), name))
}

fn lines(seen: Observed, run: Option<Run>) -> String {
    named(plan::<AgentToken>(seen, run).map_or_else(|none| none.to_string(), |plan| plan.to_string()))
}

fn rotation(purpose: Purpose, servers: usize, has_node_access: bool) -> String {
    let model = Model {
        servers,
        purpose,
        has_node_access,
        ..Model::default()
    };
    lines(model.observed(), None)
}

/// *s1* has restarted with N and saved its files, as another process finds it.
fn half_way(has_node_access: bool) -> (Observed, Run) {
    let model = Model {
        servers: 3,
        has_node_access,
        ..Model::default()
    };
    let mut seen = model.observed();
    let record = Record {
        new: Some(drawn()),
        saved: Saved {
            token: Some(drawn()),
            by: Some("s1".to_owned()),
        },
        ..AgentToken::survey(&seen).expect("a rotation that can begin")
    };
    let is_first = Some(["s1".to_owned()].into());
    seen.newest = is_first.filter(|_| has_node_access);
    seen.backup = Some(record.clone());
    server(&mut seen, "s1").as_node = Some(Login::Accepts(drawn()));
    for server in seen.servers.values_mut().filter(|_| has_node_access) {
        server.configured = Configured::Token(Some(drawn()));
        server.has_configuration_backup = true;
    }
    seen.output = Output::File {
        path: "token".to_owned(),
        holds: Some(drawn()),
    };
    let mut run = Run::begin(RunId::placeholder(), record);
    run.phase = Phase::Prove;
    (seen, run)
}

fn server<'a>(seen: &'a mut Observed, name: &str) -> &'a mut Server {
    seen.servers.get_mut(name).expect("it is there")
}

#[test]
fn the_first_agent_token_is_set_on_three_servers() {
    insta::assert_snapshot!(rotation(Purpose::Set, 3, true), @r"
    make    create a new token, and write it to token
    make    back up <new> in the backup Secret
    place   put <new> into the configuration of server s1 as agent token
    place   put <new> into the configuration of server s2 as agent token
    place   put <new> into the configuration of server s3 as agent token
    prove   restart server s1
    prove   wait for server s1 to be ready
    place   record in the backup Secret that s1 is going to save its files
    place   set the same server token again on s1, which saves its files into the datastore
    place   record in the backup Secret that s1 has saved its files
    prove   restart server s2
    prove   wait for server s2 to be ready
    prove   restart server s3
    prove   wait for server s3 to be ready
    confirm delete the backups of configurations
    confirm delete the backup Secret
    ");
}

#[test]
fn it_is_changed_by_hand() {
    insta::assert_snapshot!(rotation(Purpose::Rotate, 3, false), @r"
    make    create a new token, and write it to token
    make    back up <new> in the backup Secret
    prove   have an operator put <new> into the configuration of server s1 as agent token, and restart it
    prove   wait for server s1 to be ready
    place   record in the backup Secret that s1 is going to save its files
    place   set the same server token again on s1, which saves its files into the datastore
    place   record in the backup Secret that s1 has saved its files
    prove   have an operator put <new> into the configuration of server s2 as agent token, and restart it
    prove   wait for server s2 to be ready
    prove   have an operator put <new> into the configuration of server s3 as agent token, and restart it
    prove   wait for server s3 to be ready
    confirm delete the backup Secret
    ");
}

#[test]
fn it_is_removed() {
    insta::assert_snapshot!(rotation(Purpose::Remove, 3, true), @r"
    make    back up S in the backup Secret
    place   remove the agent token from the configuration of server s1
    place   remove the agent token from the configuration of server s2
    place   remove the agent token from the configuration of server s3
    prove   restart server s1
    prove   wait for server s1 to be ready
    place   record in the backup Secret that s1 is going to save its files
    place   set the same server token again on s1, which saves its files into the datastore
    place   record in the backup Secret that s1 has saved its files
    prove   restart server s2
    prove   wait for server s2 to be ready
    prove   restart server s3
    prove   wait for server s3 to be ready
    confirm delete the backups of configurations
    confirm delete the backup Secret
    ");
    insta::assert_snapshot!(rotation(Purpose::Remove, 1, false), @r"
    make    back up S in the backup Secret
    prove   have an operator remove the agent token from the configuration of server s1, and restart it
    prove   wait for server s1 to be ready
    place   record in the backup Secret that s1 is going to save its files
    place   set the same server token again on s1, which saves its files into the datastore
    place   record in the backup Secret that s1 has saved its files
    confirm delete the backup Secret
    ");
}

#[test]
fn it_is_changed_on_one_server() {
    insta::assert_snapshot!(rotation(Purpose::Rotate, 1, true), @r"
    make    create a new token, and write it to token
    make    back up <new> in the backup Secret
    place   put <new> into the configuration of server s1 as agent token
    prove   restart server s1
    prove   wait for server s1 to be ready
    place   record in the backup Secret that s1 is going to save its files
    place   set the same server token again on s1, which saves its files into the datastore
    place   record in the backup Secret that s1 has saved its files
    confirm delete the backups of configurations
    confirm delete the backup Secret
    ");
}

#[test]
fn a_rollback_puts_first() {
    for has_node_access in [true, false] {
        let (mut seen, mut run) = half_way(has_node_access);
        // The PUT is not recorded.
        seen.backup.as_mut().expect("it is there").saved = Saved {
            token: Some(old()),
            by: None,
        };
        seen.backup.as_mut().expect("it is there").saving = ["s1".to_owned()].into();
        run.direction = Direction::Rollback;
        seen.may_be_in_flight = true;
        if let Some(started) = &mut seen.started {
            started.insert("s1".to_owned());
        }
        let plan = lines(seen, Some(run));
        if has_node_access {
            insta::assert_snapshot!(plan, @r"
            place   wait for writes in flight to arrive
            place   set the same server token again on s1, which saves its files into the datastore
            place   record in the backup Secret that s1 has saved its files
            place   put O into the configuration of server s1 as agent token
            place   put O into the configuration of server s2 as agent token
            place   put O into the configuration of server s3 as agent token
            prove   restart server s1
            prove   wait for server s1 to be ready
            place   record in the backup Secret that s1 is going to save its files
            place   set the same server token again on s1, which saves its files into the datastore
            place   record in the backup Secret that s1 has saved its files
            confirm delete the backup Secret
            ");
        } else {
            insta::assert_snapshot!(plan, @r"
            place   wait for writes in flight to arrive
            place   set the same server token again on s1, which saves its files into the datastore
            place   record in the backup Secret that s1 has saved its files
            prove   have an operator put O into the configuration of server s1 as agent token, and restart it
            prove   wait for server s1 to be ready
            place   record in the backup Secret that s1 is going to save its files
            place   set the same server token again on s1, which saves its files into the datastore
            place   record in the backup Secret that s1 has saved its files
            confirm delete the backup Secret
            ");
        }
    }
}

fn refusal(blockers: &[Blocker]) -> String {
    let reasons: Vec<&str> = blockers.iter().map(|it| it.reason.as_str()).collect();
    named(reasons.join("; "))
}

#[track_caller]
fn refused(purpose: Purpose, change: impl FnOnce(&mut Observed), expected: &str) {
    let model = Model {
        purpose,
        servers: 3,
        ..Model::default()
    };
    let mut seen = model.observed();
    seen.options.force_unmeasured = false;
    change(&mut seen);
    let found = AgentToken::survey(&seen).err().unwrap_or_default();
    assert_eq!(refusal(&found), expected);
}

#[test]
fn survey_refuses_what_is_about_the_cluster() {
    for (change, expected) in [
        (
            (|seen| seen.cluster.manager = Some(NodeManager::Rancher)) as fn(&mut Observed),
            "Rancher has provisioned this cluster and owns its token",
        ),
        (
            |seen| seen.members = Members::Differ,
            "the members of etcd are not the servers",
        ),
        (
            |seen| seen.clocks = Clocks::Skewed,
            "the clocks of the servers differ by 2 s or more",
        ),
        (
            |seen| seen.encryption = Encryption::Unknown,
            "the encryption status of a server is not known",
        ),
        (
            |seen| server(seen, "s2").member = EtcdMember::NotVoter,
            "server s2 is not ready, or not a voting member of etcd",
        ),
        (
            |seen| server(seen, "s2").accepts = Login::Another,
            "server s2 rejects the token",
        ),
        (
            |seen| server(seen, "s2").role = Role::EtcdOnly,
            "server s2 has no control plane: it does not start without a configured token",
        ),
        (
            |seen| seen.servers.retain(|name, _| name != "s3"),
            "the procedure was not measured on 2 servers",
        ),
        (
            |seen| server(seen, "s2").configured = Configured::Token(None),
            "it is not known which agent token the configuration of server s2 has",
        ),
    ] {
        refused(Purpose::Rotate, change, expected);
    }
    refused(Purpose::Rotate, |_| {}, "");
    // It is said once. What agents use is only known compared with the right token.
    let wrong_token = |seen: &mut Observed| {
        for server in seen.servers.values_mut() {
            (server.accepts, server.configured) = (Login::Another, Configured::Unknown);
        }
    };
    for purpose in [Purpose::Set, Purpose::Rotate, Purpose::Remove] {
        refused(purpose, wrong_token, "servers s1, s2, s3 reject the token");
    }
}

#[test]
fn survey_refuses_what_is_about_the_tokens() {
    let nowhere = |seen: &mut Observed| seen.output = Output::Nowhere;
    refused(Purpose::Rotate, nowhere, "nothing says where the new token goes");
    refused(Purpose::Remove, nowhere, "");
    let all = |value: Fingerprint| {
        move |seen: &mut Observed| {
            for server in seen.servers.values_mut() {
                server.as_node = Some(Login::Accepts(value));
            }
        }
    };
    let none = "no agent token is set: agents use the server token";
    refused(Purpose::Set, all(old()), "an agent token is already set");
    refused(Purpose::Rotate, all(server_token()), none);
    refused(Purpose::Remove, all(server_token()), none);
    let new = |value| move |seen: &mut Observed| seen.given_new = Some(value);
    refused(Purpose::Rotate, new(old()), "the new token is the old one");
    refused(
        Purpose::Rotate,
        new(server_token()),
        "the new agent token is the server token",
    );
    let another = |seen: &mut Observed| server(seen, "s2").as_node = Some(Login::Another);
    refused(
        Purpose::Rotate,
        another,
        "server s2 rejects the agent token that was passed as the old one",
    );
    let begun = |seen: &mut Observed| server(seen, "s2").as_node = Some(Login::Accepts(drawn()));
    refused(Purpose::Rotate, begun, "servers accept different agent tokens");
    refused(
        Purpose::Rotate,
        |seen| {
            begun(seen);
            seen.given_new = Some(drawn());
        },
        "",
    );
}

/// What comes next half-way, with one fact changed.
#[track_caller]
fn next(has_node_access: bool, change: impl FnOnce(&mut Observed), expected: &str) {
    let (mut seen, run) = half_way(has_node_access);
    change(&mut seen);
    let next = match decide(&seen, &run).next {
        Next::Step(intent) => intent.step.to_string(),
        Next::Wait(wait) => format!("wait for {}", wait.what),
        Next::Refuse(blockers) => format!("refuse: {}", refusal(&blockers)),
        Next::Pause(blocker) => format!("stop: {}", blocker.reason),
        Next::Turn { .. } | Next::Done => panic!("neither is expected here"),
    };
    assert_eq!(named(next), expected);
}

#[test]
fn the_newest_file_is_saved_before_the_next_restart() {
    next(true, |_| {}, "restart server s2");
    let put = |server: &str| format!("record in the backup Secret that {server} is going to save its files");
    next(true, |seen| seen.newest = Some(["s3".to_owned()].into()), &put("s3"));
    // Nothing is restarted before this process has seen a PUT.
    next(
        true,
        |seen| seen.may_be_in_flight = true,
        "wait for writes in flight to arrive",
    );
    let configuration = |seen: &mut Observed| server(seen, "s3").configured = Configured::Token(Some(old()));
    next(
        true,
        configuration,
        "put N into the configuration of server s3 as agent token",
    );
    let starting = |seen: &mut Observed| {
        seen.newest = Some(["s3".to_owned()].into());
        server(seen, "s3").is_ready = false;
    };
    next(true, starting, &put("s3"));
    let two = |seen: &mut Observed| {
        starting(seen);
        server(seen, "s2").is_ready = false;
    };
    next(true, two, "wait for server s2 to be ready");
    let pauses = |seen: &mut Observed| seen.options.pauses = true;
    next(
        true,
        pauses,
        "wait for the pause between two restarts (--pause-between)",
    );
    let silent = |seen: &mut Observed| server(seen, "s3").as_node = Some(Login::Unknown);
    next(true, silent, "wait for server s3 to answer agents");
    next(
        true,
        |seen| seen.options.only = Some("s1".to_owned()),
        "stop: s2, s3 still to be restarted (--only)",
    );
}

#[test]
fn by_hand_it_has_to_be_known_which_servers_have_started() {
    let started = |names: &'static [&str]| {
        move |seen: &mut Observed| seen.started = Some(names.iter().map(|name| (*name).to_owned()).collect())
    };
    let unclear = "refuse: s2, s3 may not start again, and it is not known which of them has started last";
    next(
        false,
        started(&["s1"]),
        "have an operator put N into the configuration of server s2 as agent token, and restart it",
    );
    next(
        false,
        started(&["s3"]),
        "record in the backup Secret that s3 is going to save its files",
    );
    next(false, started(&["s2", "s3"]), unclear);
    next(false, |seen| seen.started = None, unclear);
}

#[test]
fn agents_with_the_old_token_get_the_new_one_at_the_end() {
    let held = |seen: &mut Observed, token: Option<Fingerprint>| {
        for server in seen.servers.values_mut() {
            server.as_node = Some(Login::Accepts(drawn()));
        }
        let agent = Agent {
            configured: Configured::Token(token),
            has_configuration_backup: false,
        };
        seen.agents = [("a1".to_owned(), agent)].into();
        seen.writes_agents = true;
    };
    let record = |seen: &mut Observed| {
        let backup = seen.backup.as_mut().expect("it is there");
        backup.agents.insert("a1".to_owned());
    };
    let end = "delete the backups of configurations";
    next(
        true,
        |seen| held(seen, Some(old())),
        "record in the backup Secret which agents get the new token: a1",
    );
    // A run that is resumed without --agents.
    let recorded = |seen: &mut Observed| {
        held(seen, Some(old()));
        record(seen);
        seen.writes_agents = false;
    };
    next(true, recorded, "put N into the configuration of agent a1");
    let unwanted = |seen: &mut Observed| {
        held(seen, Some(old()));
        seen.writes_agents = false;
    };
    next(true, unwanted, end);
    for token in [Some(server_token()), Some(drawn()), None] {
        next(true, |seen| held(seen, token), end);
    }
    let is_left = |seen: &mut Observed| {
        for server in seen.servers.values_mut() {
            server.has_configuration_backup = false;
        }
        held(seen, Some(drawn()));
    };
    next(true, is_left, "delete the backup Secret");
    let has_backup = |seen: &mut Observed| {
        is_left(seen);
        seen.agents.get_mut("a1").expect("it is there").has_configuration_backup = true;
    };
    next(true, has_backup, end);
}

#[test]
fn nothing_is_written_for_a_token_of_another_run() {
    let foreign = Fingerprint::of("foreign");
    let accepts = move |seen: &mut Observed| server(seen, "s2").as_node = Some(Login::Accepts(foreign));
    next(
        true,
        accepts,
        "refuse: server s2 accepts neither the old agent token nor the new one",
    );
    next(
        true,
        |seen| seen.given = old(),
        "refuse: O is not the server token of the rotation in progress",
    );
    next(
        true,
        |seen| seen.backup = None,
        "refuse: the backup Secret of the rotation is gone, and not every server accepts the same agent token",
    );
    next(
        true,
        |seen| server(seen, "s2").configured = Configured::Unknown,
        "refuse: it is not known which agent token the configuration of server s2 has",
    );
}

#[test]
fn by_hand_it_has_to_be_known_when_servers_have_started() {
    let refuses = |shows_starts, servers| {
        let model = Model {
            servers,
            has_node_access: false,
            shows_starts,
            ..Model::default()
        };
        let found = AgentToken::survey(&model.observed()).err().unwrap_or_default();
        found
            .iter()
            .any(|blocker| blocker.reason.contains("when the servers have started"))
    };
    assert!(refuses(false, 3));
    assert!(!refuses(true, 3) && !refuses(false, 1));
}

#[test]
fn nothing_is_restarted_before_the_files_of_every_server_are_read() {
    let (mut seen, run) = half_way(true);
    assert!(matches!(decide(&seen, &run).next, Next::Step(_)));
    seen.newest = Some([].into());
    let Next::Wait(wait) = decide(&seen, &run).next else {
        panic!("it does not wait")
    };
    assert_eq!(wait.what, "the files of every server to be readable");
}

/// Two servers have written their files within the same second.
#[test]
fn of_files_of_the_same_second_one_is_saved_that_the_datastore_does_not_have() {
    let (mut seen, run) = half_way(true);
    let mut record = run.record.clone();
    record.saved = Saved {
        token: Some(old()),
        by: None,
    };
    record.saving = ["s2".to_owned()].into();
    seen.backup = Some(record.clone());
    seen.newest = Some(["s1", "s2"].map(str::to_owned).into());
    server(&mut seen, "s1").as_node = Some(Login::Accepts(old()));
    server(&mut seen, "s2").as_node = Some(Login::Accepts(drawn()));
    let Next::Step(intent) = decide(&seen, &Run { record, ..run }).next else {
        panic!("it sends nothing")
    };
    assert!(intent.step.to_string().contains("on s2"), "{}", intent.step);
}
