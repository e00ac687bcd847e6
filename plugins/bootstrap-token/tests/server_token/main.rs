//! The model checker: walks the real stages of the rotation of the server token through every state of a model of the servers.
//!
//! The number of states is printed (`cargo test -p kubectl-bootstrap-token --test server_token -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of the result")]

mod environment;
mod mutants;
mod plan;

use environment::{Budget, Model};
use kubectl_bootstrap_token::server_token::rotation::observed::Datastore;
use model::explore;
use mutants::Mutant;

const LIMIT: usize = 1_500_000;

fn budget(change: impl FnOnce(&mut Budget)) -> Budget {
    let mut budget = Budget::default();
    change(&mut budget);
    budget
}

#[track_caller]
fn nothing_is_lost(name: &str, model: &Model) {
    let began = std::time::Instant::now();
    match explore(model, LIMIT) {
        Ok(explored) => {
            println!("{name}: {explored}; {:.1?}", began.elapsed());
            assert!(explored.done > 0, "{name}: {explored}");
            assert!(model.rollbacks == 0 || explored.rolled_back > 0, "{name}: {explored}");
        }
        Err(counterexample) => panic!("{name}: {counterexample}"),
    }
}

#[test]
fn a_rotation_and_a_rollback_lose_nothing() {
    for servers in [1, 2, 3] {
        for datastore in [Datastore::Etcd, Datastore::Sqlite] {
            if servers > 1 && datastore == Datastore::Sqlite {
                continue;
            }
            for (is_pinned, has_node_access) in [(false, false), (true, true), (true, false)] {
                let model = Model {
                    servers,
                    datastore,
                    is_pinned,
                    has_node_access,
                    rollbacks: 1,
                    ..Model::default()
                };
                nothing_is_lost(&format!("{servers} servers, {datastore:?}, pinned {is_pinned}"), &model);
            }
        }
    }
}

/// A named disturbance.
type Disturbance = (&'static str, fn(&mut Budget));

const DISTURBANCES: [Disturbance; 7] = [
    ("a server that restarts by itself", |it| it.restarts = 1),
    ("a PUT that goes wrong", |it| it.mishaps = 1),
    ("a server that does not come back", |it| it.losses = 1),
    ("configuration management", |it| it.repins = 1),
    ("a server that joins", |it| it.joins = 1),
    ("a rotation of the encryption keys", |it| it.key_rotations = 1),
    ("another program", |it| it.foreign_puts = 1),
];

#[test]
fn one_disturbance_and_a_rollback_lose_nothing() {
    for (name, disturb) in DISTURBANCES {
        for is_given in [false, true] {
            let model = Model {
                is_given,
                budget: budget(disturb),
                rollbacks: 1,
                ..Model::default()
            };
            nothing_is_lost(&format!("{name}, a rollback, given {is_given}"), &model);
        }
    }
}

#[test]
fn two_disturbances_lose_nothing() {
    for (at, (first, one)) in DISTURBANCES.iter().enumerate() {
        for (second, other) in &DISTURBANCES[at..] {
            let mut budget = budget(one);
            let twice = first == second;
            if !twice {
                other(&mut budget);
            }
            let model = Model {
                budget,
                late_holders: u8::from(twice),
                ..Model::default()
            };
            let second = if twice { "a former holder" } else { second };
            nothing_is_lost(&format!("{first} and {second}"), &model);
        }
    }
}

#[test]
fn former_holders_and_a_rollback_lose_nothing() {
    for (name, change) in [
        ("", (|_| {}) as fn(&mut Model)),
        (" and the new token in the hand of who resumes", |it| {
            it.resumes_with_new = true;
        }),
        (" and a clock that is ahead", |it| it.is_ahead = true),
        (" and a given token", |it| it.is_given = true),
        (" and tokens in configurations", |it| it.is_pinned = true),
        (" and tokens in configurations, by hand", |it| {
            (it.is_pinned, it.has_node_access) = (true, false);
        }),
    ] {
        let mut model = Model {
            late_holders: 1,
            rollbacks: 1,
            ..Model::default()
        };
        change(&mut model);
        nothing_is_lost(&format!("a former holder, a rollback{name}"), &model);
    }
    let three = Model {
        servers: 3,
        late_holders: 1,
        ..Model::default()
    };
    nothing_is_lost("three servers and a former holder", &three);
}

#[test]
fn three_servers_and_one_disturbance_lose_nothing() {
    for (name, disturb) in DISTURBANCES {
        let model = Model {
            servers: 3,
            is_ahead: true,
            budget: budget(disturb),
            ..Model::default()
        };
        nothing_is_lost(&format!("three servers, {name}"), &model);
    }
}

#[test]
fn one_server_and_one_disturbance_lose_nothing() {
    for datastore in [Datastore::Etcd, Datastore::Sqlite] {
        for (name, disturb) in DISTURBANCES {
            // A second server needs etcd.
            if datastore == Datastore::Sqlite && budget(disturb).joins > 0 {
                continue;
            }
            let model = Model {
                servers: 1,
                datastore,
                budget: budget(disturb),
                late_holders: 1,
                rollbacks: 1,
                ..Model::default()
            };
            nothing_is_lost(
                &format!("one server, {datastore:?}, {name}, a former holder, a rollback"),
                &model,
            );
        }
    }
}

#[test]
fn two_puts_that_go_wrong_lose_nothing() {
    for (rollbacks, is_given) in [(0, false), (1, true)] {
        let model = Model {
            budget: budget(|it| it.mishaps = 2),
            rollbacks,
            is_given,
            ..Model::default()
        };
        nothing_is_lost(&format!("two PUTs that go wrong, {rollbacks} rollbacks"), &model);
    }
}

/// They differ before, between and after the PUTs of a round, also in a run that is resumed later.
#[test]
fn clocks_that_differ_lose_nothing() {
    for (servers, datastore, rollbacks) in [
        (2, Datastore::Etcd, 1),
        (2, Datastore::External, 0),
        (3, Datastore::Etcd, 0),
    ] {
        let model = Model {
            servers,
            datastore,
            rollbacks,
            late_holders: 1,
            budget: budget(|it| it.skews = 1),
            ..Model::default()
        };
        nothing_is_lost(&format!("clocks, {servers} servers, {datastore:?}"), &model);
    }
}

/// Without snapshots, what a server has in its files is shown by the second round only.
#[test]
fn an_external_datastore_and_one_disturbance_lose_nothing() {
    for (name, disturb) in DISTURBANCES {
        let model = Model {
            datastore: Datastore::External,
            budget: budget(disturb),
            late_holders: 1,
            ..Model::default()
        };
        nothing_is_lost(&format!("an external datastore, {name}, a former holder"), &model);
    }
}

/// An attacker who may write Leases claims that a round is complete, or that all is done.
#[test]
fn a_forged_journal_only_delays() {
    for (late_holders, rollbacks, is_pinned) in [(0, 1, false), (1, 0, false), (0, 0, true)] {
        let model = Model {
            forgeries: 1,
            late_holders,
            rollbacks,
            is_pinned,
            ..Model::default()
        };
        nothing_is_lost(
            &format!("a forged journal, {late_holders} former holders, {rollbacks} rollbacks"),
            &model,
        );
    }
}

#[test]
fn all_mutants_are_found() {
    let found = |mutant, model: Model| {
        let mutated = Model {
            mutant: Some(mutant),
            ..model
        };
        match explore(&mutated, LIMIT) {
            Ok(explored) => panic!("{mutant:?} was not found in {explored}"),
            Err(counterexample) => {
                let because = counterexample.because.split(": ").next().unwrap_or_default();
                println!("{mutant:?}: {because}, by {}", counterexample.trace.join("; "));
            }
        }
    };
    let plain = Model::default();
    let rolled_back = Model { rollbacks: 1, ..plain };
    let late = Model {
        late_holders: 1,
        ..plain
    };
    let with = |change: fn(&mut Budget)| Model {
        budget: budget(change),
        ..plain
    };
    let pinned = Model {
        is_pinned: true,
        ..rolled_back
    };
    let ahead = Model {
        is_ahead: true,
        ..plain
    };
    for (mutant, model) in [
        (Mutant::TurnsHalfWay, rolled_back),
        (Mutant::StopsAtFailure, with(|it| it.mishaps = 1)),
        (Mutant::AnotherOrder, ahead),
        (Mutant::RepeatsOne, plain),
        (Mutant::AcceptedIsReady, with(|it| it.restarts = 1)),
        (Mutant::NewAfterRejection, with(|it| it.mishaps = 1)),
        (Mutant::AnotherAfterFailure, with(|it| it.mishaps = 1)),
        (Mutant::IgnoresEncryption, with(|it| it.key_rotations = 1)),
        (Mutant::IgnoresDown, with(|it| it.restarts = 1)),
        (Mutant::RestartsTwo, plain),
        (Mutant::RestartsBeforeRound, plain),
        (Mutant::IgnoresMembers, with(|it| it.joins = 1)),
        (Mutant::DoesNotWait, late),
        (Mutant::TrustsFormerRound, plain),
        (Mutant::TrustsJournal, Model { forgeries: 1, ..plain }),
        (Mutant::ForgetsEarly, plain),
        (Mutant::RepinsEarly, pinned),
        (Mutant::NoFreshToken, with(|it| it.mishaps = 1)),
        (Mutant::IgnoresClocks, ahead),
        (Mutant::IgnoresSkew, with(|it| it.skews = 1)),
        (Mutant::IgnoresConfiguration, with(|it| it.repins = 1)),
    ] {
        found(mutant, model);
    }
}
