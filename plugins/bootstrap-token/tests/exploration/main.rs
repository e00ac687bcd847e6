//! The model checker: walks the real stages through every state of a model of Kubernetes, nodes, operators and other writers.
//!
//! The number of states is printed (`cargo test -p kubectl-bootstrap-token --test exploration -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of the result")]

mod environment;
mod mutants;
mod plan;
mod recovery;

use environment::{Budget, Model, To};
use model::explore;
use mutants::Mutant;

const LIMIT: usize = 1_000_000;

fn budget(change: impl FnOnce(&mut Budget)) -> Budget {
    let mut budget = Budget::default();
    change(&mut budget);
    budget
}

fn model(to: To, budget: Budget) -> Model {
    Model {
        to,
        budget,
        ..Model::default()
    }
}

/// With another operator who requests the rollback.
fn rolled_back(to: To, budget: Budget) -> Model {
    Model {
        others: (0, 1),
        ..model(to, budget)
    }
}

#[track_caller]
fn nothing_is_lost(name: &str, model: &Model) {
    let began = std::time::Instant::now();
    match explore(model, LIMIT) {
        Ok(explored) => {
            println!("{name} ({:?}): {explored}; {:.1?}", model.to, began.elapsed());
            assert_eq!(explored.done == 0, model.never_accepted, "{name}: {explored}");
            assert!(explored.rolled_back > 0, "{name}: {explored}");
        }
        Err(counterexample) => panic!("{name} ({:?}): {counterexample}", model.to),
    }
}

/// A named disturbance by the environment.
type Disturbance = (&'static str, fn(&mut Budget));

const NOTHING_ELSE: Disturbance = ("nothing else", |_| {});

/// One disturbance of each kind, one kind at a time.
const DISTURBANCES: [Disturbance; 6] = [
    ("a deletion", |budget| budget.deletions += 1),
    ("an expiry", |budget| budget.expiries += 1),
    ("a foreign write", |budget| budget.foreign_writes += 1),
    ("a tampered token", |budget| budget.tampers += 1),
    ("a lost value", |budget| budget.forgets += 1),
    ("a taken id", |budget| budget.collisions += 1),
];

#[test]
fn one_disturbance_and_a_rollback_lose_nothing() {
    for to in [To::Nothing, To::Secret, To::File] {
        for (name, disturb) in DISTURBANCES {
            let budget = Budget {
                readers: 1,
                ..budget(disturb)
            };
            nothing_is_lost(&format!("{name}, a node and a rollback"), &rolled_back(to, budget));
        }
    }
}

#[test]
fn two_disturbances_of_different_kinds_lose_nothing() {
    for (at, (first, one)) in DISTURBANCES.iter().enumerate() {
        for (second, other) in &DISTURBANCES[at + 1..] {
            let mut budget = budget(one);
            other(&mut budget);
            let model = rolled_back(To::Secret, budget);
            nothing_is_lost(&format!("{first}, {second} and a rollback"), &model);
        }
    }
}

#[test]
fn a_former_holder_and_a_rollback_lose_nothing() {
    for to in [To::Nothing, To::Secret] {
        for (name, disturb) in [NOTHING_ELSE].into_iter().chain(DISTURBANCES) {
            let model = Model {
                others: (1, 1),
                ..model(to, budget(disturb))
            };
            nothing_is_lost(&format!("a former holder, a rollback and {name}"), &model);
        }
    }
}

#[test]
fn tokens_that_expire_and_are_extended_lose_nothing() {
    let budget = budget(|it| (it.expiries, it.extensions, it.readers) = (2, 1, 1));
    for (to, late_proof) in [(To::Nothing, true), (To::Secret, false)] {
        let model = Model {
            late_proof,
            ..rolled_back(to, budget)
        };
        nothing_is_lost("two expiries and an extension", &model);
    }
}

#[test]
fn several_servers_that_learn_late_lose_nothing() {
    let deletion = budget(|it| it.deletions = 1);
    for (name, budget, others) in [
        ("several servers", Budget::default(), (1, 1)),
        ("several servers and a deletion", deletion, (0, 1)),
    ] {
        let model = Model {
            many_servers: true,
            late_proof: true,
            others,
            ..model(To::Secret, budget)
        };
        nothing_is_lost(name, &model);
    }
}

#[test]
fn a_server_that_is_not_probed_loses_nothing() {
    for to in [To::Nothing, To::Secret] {
        let budget = budget(|it| (it.forgets, it.reapplies) = (1, 1));
        let model = Model {
            unasked_server: true,
            ..rolled_back(to, budget)
        };
        nothing_is_lost(
            "a server that is not probed, a lost value, a re-apply and a rollback",
            &model,
        );
    }
}

#[test]
fn a_signer_that_loses_an_update_or_is_off_loses_nothing() {
    let budgets: [Disturbance; 4] = [
        ("a signer", |_| {}),
        ("a signer that loses an update", |it| it.lost_signatures = 1),
        ("a signer that is switched off", |it| it.signer_offs = 1),
        ("a signer that is switched off, and an expiry", |it| {
            (it.signer_offs, it.expiries) = (1, 1);
        }),
    ];
    for (name, change) in budgets {
        let model = Model {
            signing: true,
            ..rolled_back(To::Secret, budget(change))
        };
        nothing_is_lost(name, &model);
    }
}

/// There is no former holder of a file: its lock ends with the process.
#[test]
fn a_file_on_another_host_is_left_alone() {
    let budget = budget(|it| (it.hosts, it.expiries) = (2, 1));
    nothing_is_lost("another host", &rolled_back(To::File, budget));
}

/// There is no former holder either: a late write would be in the abandoned file.
#[test]
fn a_file_on_a_host_that_is_lost_is_abandoned() {
    for (name, disturb) in [NOTHING_ELSE].into_iter().chain(DISTURBANCES) {
        let mut budget = budget(disturb);
        (budget.hosts, budget.losses, budget.readers) = (1, 1, 1);
        let model = rolled_back(To::File, budget);
        nothing_is_lost(&format!("a lost host, a node, a rollback and {name}"), &model);
    }
}

#[test]
fn a_new_token_that_is_never_accepted_is_rolled_back() {
    for to in [To::Nothing, To::Secret] {
        let model = Model {
            never_accepted: true,
            many_servers: true,
            others: (1, 0),
            ..model(to, Budget::default())
        };
        nothing_is_lost("never accepted", &model);
    }
}

/// An attacker who may write Leases can write any journal, including an old one of the same run.
#[test]
fn a_forged_journal_only_delays() {
    let reader = budget(|it| it.readers = 1);
    for to in [To::Nothing, To::Secret, To::File] {
        for victim in [false, true] {
            let model = Model {
                forgeries: 1,
                victim,
                ..rolled_back(to, reader)
            };
            nothing_is_lost(&format!("a forged journal ({victim})"), &model);
        }
    }
    let foreign = budget(|it| (it.readers, it.foreign_writes) = (1, 1));
    for (name, forgeries, budget) in [
        ("a forged journal and a foreign write", 1, foreign),
        ("two forged journals", 2, Budget::default()),
    ] {
        let model = Model {
            forgeries,
            ..model(To::Secret, budget)
        };
        nothing_is_lost(name, &model);
    }
}

/// With the login of the token that would be revoked, or a delivery of another cluster, nothing is written.
#[test]
fn a_command_with_the_wrong_login_or_cluster_changes_nothing() {
    for to in [To::Nothing, To::Secret, To::File] {
        let budget = budget(|it| it.wrong_runs = 2);
        nothing_is_lost("two wrong runs", &rolled_back(to, budget));
    }
}

/// GitOps writes O back repeatedly. The third time, the run rolls back. After *retire*, it is done only after a whole overlap without
/// such a write.
#[test]
fn another_writer_that_writes_the_old_token_back_loses_nothing() {
    for (to, reapplies, readers) in [(To::Secret, 3, 1), (To::Secret, 4, 0), (To::File, 3, 0)] {
        let budget = budget(|it| (it.reapplies, it.readers) = (reapplies, readers));
        nothing_is_lost(&format!("{reapplies} re-applies"), &model(to, budget));
    }
}

#[test]
fn all_mutants_are_found() {
    let quiet = Budget::default();
    let reader = budget(|it| it.readers = 1);
    let expiry = budget(|it| it.expiries = 1);
    let away = budget(|it| (it.hosts, it.readers) = (1, 1));
    let signing = Model {
        signing: true,
        ..model(To::Secret, quiet)
    };
    let many_servers = Model {
        many_servers: true,
        ..model(To::Secret, quiet)
    };
    let unasked_server = Model {
        unasked_server: true,
        ..model(To::Nothing, quiet)
    };
    let late = |to, budget| Model {
        others: (1, 1),
        ..model(to, budget)
    };
    let forged = |to, victim, budget| Model {
        forgeries: 1,
        victim,
        ..model(to, budget)
    };
    let wrong_runs = model(To::Secret, budget(|it| it.wrong_runs = 1));
    let forged_secret = forged(To::Secret, false, reader);
    for (mutant, model) in [
        (Mutant::NotAccepted, model(To::Secret, quiet)),
        (Mutant::NotDelivered, model(To::Secret, quiet)),
        (Mutant::NoOverlap, model(To::Secret, reader)),
        (Mutant::RevokesTooEarly, rolled_back(To::Secret, quiet)),
        (
            Mutant::Overwrites,
            model(To::Secret, budget(|it| it.foreign_writes = 1)),
        ),
        (Mutant::NoProof, model(To::Secret, budget(|it| it.tampers = 1))),
        (Mutant::NoFence, late(To::Secret, quiet)),
        (Mutant::ExpiredOld, rolled_back(To::Nothing, expiry)),
        (Mutant::NoMark, late(To::Nothing, expiry)),
        (Mutant::NotSigned, signing),
        (Mutant::OneServer, many_servers),
        (Mutant::NoMargin, rolled_back(To::Nothing, expiry)),
        (Mutant::NoConfirmation, model(To::Nothing, quiet)),
        (Mutant::NoCache, unasked_server),
        (Mutant::Abandons, model(To::File, away)),
        (
            Mutant::NoOverlapAfterAbandoning,
            model(To::File, Budget { losses: 1, ..away }),
        ),
        (Mutant::KeepsQuiet, model(To::Secret, budget(|it| it.reapplies = 1))),
        (Mutant::IgnoresLogin, wrong_runs),
        (Mutant::IgnoresCluster, wrong_runs),
        (Mutant::TrustsDelivered, forged_secret),
        (Mutant::TrustsDirection, forged_secret),
        (Mutant::TrustsJournal, forged_secret),
        (Mutant::TrustsJournal, forged(To::Nothing, true, quiet)),
    ] {
        let mutant_model = Model {
            mutant: Some(mutant),
            ..model
        };
        match explore(&mutant_model, LIMIT) {
            Ok(explored) => panic!("{mutant:?} was not found in {explored}"),
            Err(counterexample) => {
                let because = counterexample.because.split(": ").next().unwrap_or_default();
                println!("{mutant:?}: {because}, by {}", counterexample.trace.join("; "));
            }
        }
    }
}
