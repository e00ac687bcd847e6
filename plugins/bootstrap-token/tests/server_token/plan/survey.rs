//! What a rotation is refused for, and what it stops for at any time.

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::rotation::{Blocker, Rotation as _};
use kubectl_bootstrap_token::server_token::rotation::ServerToken;
use kubectl_bootstrap_token::server_token::rotation::observed::{
    Clocks, Configured, Datastore, Encryption, Files, Login, Members, Observed, Output, Role, RoundResult,
};
use supervisor::SupervisorKind;
use supervisor::node::{EtcdMember, NodeManager};

use super::{begun, fresh, made, new, old, placed, recorded, refusal, server, set_round, start, with};

#[track_caller]
fn refused(change: impl FnOnce(&mut Observed), expected: &str) {
    let mut seen = start(3);
    seen.options.force_unmeasured = false;
    change(&mut seen);
    let found: Vec<Blocker> = ServerToken::survey(&seen).err().unwrap_or_default();
    assert_eq!(super::named(refusal(&found)), format!("refuse: {expected}"));
}

#[test]
fn a_healthy_cluster_is_not_refused() {
    refused(|_| {}, "");
    refused(|seen| seen.servers.retain(|name, _| name == "s1"), "");
}

#[test]
fn survey_refuses_what_owns_the_token_or_cannot_change_it() {
    refused(
        |seen| seen.cluster.manager = Some(NodeManager::Harvester),
        "this cluster is a Harvester, which configures the token of its nodes itself",
    );
    refused(
        |seen| seen.cluster.manager = Some(NodeManager::Rancher),
        "Rancher has provisioned this cluster and owns its token",
    );
    refused(
        |seen| seen.cluster.can_change_token = Some(false),
        "a server has a version that cannot change its token",
    );
    refused(
        |seen| seen.cluster.can_change_token = None,
        "the version of a server is not known",
    );
    refused(|seen| seen.cluster.is_ca_rotating = true, "a new CA waits for restarts");
    refused(
        |seen| seen.output = Output::Nowhere,
        "nothing says where the new token goes",
    );
    refused(|seen| seen.given_new = Some(old()), "the new token is the old one");
    refused(|seen| seen.servers.clear(), "no server was found");
}

#[test]
fn survey_refuses_a_server_that_is_not_up_or_not_whole() {
    let down = "server s2 is not ready, or not a voting member of etcd";
    refused(|seen| server(seen, "s2").is_ready = false, down);
    refused(|seen| server(seen, "s2").accepts = Login::Unknown, down);
    for member in [EtcdMember::NotVoter, EtcdMember::Unknown, EtcdMember::Missing] {
        refused(|seen| server(seen, "s2").member = member, down);
    }
    let rejects = "server s2 rejects the token";
    refused(|seen| server(seen, "s2").accepts = Login::Another, rejects);
    refused(|seen| server(seen, "s2").accepts = Login::Accepts(new()), rejects);
    // It is said once, and nothing else is asked of them.
    let wrong_token = |seen: &mut Observed| {
        for server in seen.servers.values_mut() {
            (server.accepts, server.configured) = (Login::Another, Configured::Unknown);
        }
    };
    refused(wrong_token, "servers s1, s2, s3 reject the token");
    refused(
        |seen| server(seen, "s2").role = Role::ControlPlaneOnly,
        "server s2 has no etcd: it does not start without a configured token",
    );
    refused(
        |seen| server(seen, "s2").role = Role::EtcdOnly,
        "server s2 has no control plane: it does not start without a configured token",
    );
    let other =
        "a server does not have O in its files, although it accepts it: an earlier change was not completed [recover]";
    refused(|seen| server(seen, "s2").files = Files::Hold(new()), other);
    refused(|seen| server(seen, "s2").files = Files::Damaged, other);
    refused(|seen| server(seen, "s2").files = Files::Hold(old()), "");
}

#[test]
fn survey_refuses_joins_skew_and_encryption_that_differs() {
    let members = "the members of etcd are not the servers";
    refused(|seen| seen.members = Members::Differ, members);
    refused(|seen| seen.members = Members::Unknown, members);
    refused(|seen| _ = seen.joining.insert("s4".to_owned()), "s4 is joining");
    refused(
        |seen| seen.clocks = Clocks::Skewed,
        "the clocks of the servers differ by 2 s or more",
    );
    refused(
        |seen| seen.clocks = Clocks::Unknown,
        "the clock of a server is not known",
    );
    refused(
        |seen| {
            seen.clocks = Clocks::Unknown;
            seen.servers.retain(|name, _| name == "s1");
        },
        "",
    );
    refused(
        |seen| seen.encryption = Encryption::Unsafe("stage prepare".to_owned()),
        "a change of the token could lose every Secret of the cluster: stage prepare",
    );
    refused(
        |seen| seen.encryption = Encryption::Unknown,
        "the encryption status of a server is not known",
    );
}

#[test]
fn survey_refuses_what_was_not_measured_unless_forced() {
    let forced = |seen: &mut Observed| seen.options.force_unmeasured = true;
    let rke2 = |seen: &mut Observed| seen.cluster.supervisor = SupervisorKind::Rke2;
    refused(rke2, "the procedure was not measured on RKE2 [--force=unmeasured]");
    refused(|seen| (rke2(seen), forced(seen)).0, "");
    let two = |seen: &mut Observed| seen.servers.retain(|name, _| name != "s3");
    refused(two, "the procedure was not measured on 2 servers [--force=unmeasured]");
    refused(|seen| (two(seen), forced(seen)).0, "");
    let external = |seen: &mut Observed| seen.cluster.datastore = Datastore::External;
    refused(
        external,
        "the procedure was not measured on several servers with an external datastore [--force=unmeasured]",
    );
    refused(
        |seen| {
            external(seen);
            seen.servers.retain(|name, _| name == "s1");
        },
        "",
    );
    let mut seen = start(3);
    rke2(&mut seen);
    let record = ServerToken::survey(&seen).expect("it is forced");
    assert_eq!(
        super::named(ServerToken::start(&seen, &record)),
        "3 servers accept O (unmeasured: RKE2)"
    );
}

#[test]
fn survey_refuses_a_configuration_that_is_not_known_unless_forced() {
    let unknown = |seen: &mut Observed| server(seen, "s2").configured = Configured::Unknown;
    refused(
        unknown,
        "it is not known whether the configuration of server s2 has a token [--force=unpin]",
    );
    refused(
        |seen| {
            unknown(seen);
            seen.options.force_unpin = true;
        },
        "",
    );
    refused(|seen| server(seen, "s2").configured = Configured::Token(None), "");
}

#[test]
fn guard_refuses_tokens_of_others_and_states_for_recover() {
    for state in [
        recorded(Direction::Forward),
        placed(Direction::Forward),
        placed(Direction::Rollback),
    ] {
        with(&state, |seen, _| seen.given = new(), &super::next(&state));
        with(
            &state,
            |seen, _| seen.given = Fingerprint::of("third"),
            &format!(
                "refuse: {} is no token of the rotation in progress",
                Fingerprint::of("third")
            ),
        );
        with(
            &state,
            |seen, _| server(seen, "s2").accepts = Login::Another,
            "refuse: server s2 accepts neither the old token nor the new one [recover]",
        );
        with(
            &state,
            |seen, _| server(seen, "s2").files = Files::Hold(fresh()),
            "refuse: server s2 has another token in its files; restart nothing [recover]",
        );
        with(
            &state,
            |seen, _| server(seen, "s2").files = Files::Damaged,
            "refuse: server s2 has files that contradict each other; restart nothing [recover]",
        );
        with(
            &state,
            |seen, _| seen.round = RoundResult::NotHealed("s1".to_owned()),
            "refuse: server s1 rejects the new token and the former one; restart nothing [recover]",
        );
        with(
            &state,
            |seen, _| seen.backup = None,
            "refuse: the backup Secret of the rotation is gone, and nothing shows that the rotation was complete",
        );
    }
}

#[test]
fn a_resumed_run_takes_its_record_from_the_backup_secret() {
    let (mut seen, run) = placed(Direction::Forward);
    let mut forged = run.clone();
    forged.record.old = fresh();
    forged.record.round.iter_mut().for_each(|round| round.order.reverse());
    assert_eq!(ServerToken::recall(&seen, &forged), seen.backup);
    // Without one, only the claim that a round was begun counts, and it leads to a refusal.
    seen.backup = None;
    assert_eq!(ServerToken::recall(&seen, &run), Some(run.record.clone()));
    let (_, begun) = begun(3);
    assert_eq!(ServerToken::recall(&seen, &begun), None);
}

#[test]
fn the_order_of_a_round_is_kept_and_ends_with_the_clock_that_is_ahead() {
    let order = |seen: &Observed| {
        let state = (
            seen.clone(),
            super::run(seen.backup.clone().expect("it is there"), Direction::Forward),
        );
        super::next(&state)
    };
    let (mut seen, _) = made(Direction::Forward);
    let record = seen.backup.clone().expect("it is there");
    let begins = |seen: &Observed| {
        let run = super::run(record.clone(), Direction::Forward);
        let step = engine::rotation::decide(seen, &run);
        match step.next {
            engine::rotation::Next::Step(intent) => match intent.step {
                kubectl_bootstrap_token::server_token::rotation::step::Step::BackUp(it) => {
                    it.record.round.expect("it begins").order.join(" ")
                }
                other => panic!("{other}"),
            },
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(begins(&seen), "s1 s2 s3");
    seen.clocks = Clocks::Close(Some("s1".to_owned()));
    assert_eq!(begins(&seen), "s2 s3 s1");
    // A later round has the order of the record, whatever the clocks say now.
    let (mut seen, _) = recorded(Direction::Forward);
    seen.clocks = Clocks::Close(Some("s1".to_owned()));
    assert_eq!(order(&seen), "place: set N on s1, s2, s3");
    let mut gone = seen.clone();
    gone.servers.remove("s2");
    assert_eq!(order(&gone), "place: set N on s1, s3");
    let mut joined = seen.clone();
    let like = joined.servers["s1"].clone();
    joined.servers.insert("s9".to_owned(), like);
    assert_eq!(order(&joined), "place: set N on s9, s1, s2, s3");
    joined.clocks = Clocks::Close(Some("s9".to_owned()));
    assert_eq!(order(&joined), "place: set N on s1, s2, s3, s9");
    set_round(&mut seen, super::round(old(), new()));
}
