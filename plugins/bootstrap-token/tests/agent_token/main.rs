//! The model checker: walks the real stages of the rotation of the agent token through every state of a model of the servers.
//!
//! The number of states is printed (`cargo test -p kubectl-bootstrap-token --test agent_token -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of the result")]

mod environment;
mod facts;
mod moves;
mod mutants;
mod plan;
mod safety;

use environment::{Budget, Model};
use kubectl_bootstrap_token::agent_token::rotation::observed::Purpose;
use model::explore;
use mutants::Mutant;

const LIMIT: usize = 1_000_000;

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

/// With node access, by hand, and by hand where it is not known which servers have started.
const WAYS: [(&str, bool, bool); 3] = [
    ("with node access", true, false),
    ("by hand", false, true),
    ("by hand, starts unknown", false, false),
];

#[test]
fn setting_changing_and_removing_lose_nothing() {
    for servers in [1, 2, 3] {
        for purpose in [Purpose::Set, Purpose::Rotate, Purpose::Remove] {
            for (way, has_node_access, shows_starts) in WAYS {
                let model = Model {
                    servers,
                    purpose,
                    has_node_access,
                    shows_starts,
                    rollbacks: 1,
                    ..Model::default()
                };
                nothing_is_lost(&format!("{servers} servers, {purpose:?}, {way}"), &model);
            }
        }
    }
}

/// A named disturbance.
type Disturbance = (&'static str, fn(&mut Budget));

const DISTURBANCES: [Disturbance; 6] = [
    ("a server that restarts by itself", |it| it.restarts = 1),
    ("a server that does not come back", |it| it.losses = 1),
    ("configuration management", |it| it.repins = 1),
    ("a server that joins", |it| it.joins = 1),
    ("a rotation of the encryption keys", |it| it.key_rotations = 1),
    ("an operator who forgets an edit", |it| it.forgotten_edits = 1),
];

#[test]
fn one_disturbance_a_former_holder_and_a_rollback_lose_nothing() {
    for (name, disturb) in DISTURBANCES {
        for (way, has_node_access, shows_starts) in WAYS {
            let model = Model {
                has_node_access,
                shows_starts,
                budget: budget(disturb),
                // A PUT in flight cannot be recalled when an operator begins to rotate the encryption keys.
                late_holders: 1 - budget(disturb).key_rotations,
                rollbacks: 1,
                ..Model::default()
            };
            nothing_is_lost(&format!("{name}, a former holder, a rollback, {way}"), &model);
        }
    }
}

#[test]
fn two_disturbances_lose_nothing() {
    for (at, (first, one)) in DISTURBANCES.iter().enumerate() {
        for (second, other) in &DISTURBANCES[at..] {
            for (way, has_node_access, shows_starts) in &WAYS[..2] {
                let mut budget = budget(one);
                other(&mut budget);
                budget.restarts *= 1 + u8::from(first == second);
                let model = Model {
                    has_node_access: *has_node_access,
                    shows_starts: *shows_starts,
                    budget,
                    ..Model::default()
                };
                nothing_is_lost(&format!("{first}, {second}, {way}"), &model);
            }
        }
    }
}

#[test]
fn three_servers_and_one_disturbance_lose_nothing() {
    for (name, disturb) in DISTURBANCES {
        for (way, has_node_access, shows_starts) in WAYS {
            let mut model = Model {
                servers: 3,
                has_node_access,
                shows_starts,
                budget: budget(disturb),
                rollbacks: 1 - budget(disturb).restarts,
                ..Model::default()
            };
            model.budget.restarts *= 2;
            nothing_is_lost(&format!("three servers, {name}, {way}"), &model);
        }
    }
}

const OF_AGENTS: [Disturbance; 3] = [
    ("nothing", |_| {}),
    ("another operator who edits an agent", |it| it.agent_edits = 1),
    ("an agent that cannot be reached", |it| it.agent_losses = 1),
];

#[test]
fn agents_with_the_old_token_get_the_new_one_and_a_rollback_restores_only_these() {
    for purpose in [Purpose::Set, Purpose::Rotate, Purpose::Remove] {
        for (name, disturb) in OF_AGENTS {
            let model = Model {
                servers: 1,
                purpose,
                has_agents: true,
                late_holders: 1,
                rollbacks: 1,
                budget: budget(disturb),
                ..Model::default()
            };
            nothing_is_lost(&format!("agents, {purpose:?}, {name}"), &model);
        }
    }
}

#[test]
fn a_change_that_was_begun_by_hand_is_completed() {
    for purpose in [Purpose::Set, Purpose::Rotate, Purpose::Remove] {
        for (way, has_node_access, shows_starts) in WAYS {
            let model = Model {
                servers: 3,
                purpose,
                is_begun: true,
                has_node_access,
                shows_starts,
                budget: budget(|it| it.restarts = 1),
                rollbacks: 1,
                ..Model::default()
            };
            nothing_is_lost(&format!("begun by hand, {purpose:?}, {way}"), &model);
        }
    }
}

#[test]
fn an_old_token_that_is_not_known_is_replaced() {
    for purpose in [Purpose::Rotate, Purpose::Remove] {
        let model = Model {
            purpose,
            has_node_access: false,
            is_old_unknown: true,
            late_holders: 1,
            rollbacks: 1,
            ..Model::default()
        };
        nothing_is_lost(&format!("unknown old token, {purpose:?}"), &model);
    }
}

/// An attacker who may write Leases claims that all is done, or that a server was saved.
#[test]
fn a_forged_journal_only_delays() {
    for (way, has_node_access, shows_starts) in WAYS {
        let model = Model {
            has_node_access,
            shows_starts,
            forgeries: 1,
            late_holders: 1,
            ..Model::default()
        };
        nothing_is_lost(&format!("a forged journal, {way}"), &model);
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
    let by_hand = Model {
        has_node_access: false,
        ..plain
    };
    let agents = Model {
        has_agents: true,
        ..plain
    };
    let removed = Model {
        purpose: Purpose::Remove,
        rollbacks: 1,
        ..agents
    };
    let with = |model: Model, change: fn(&mut Budget)| Model {
        budget: budget(change),
        ..model
    };
    for (mutant, model) in [
        (Mutant::NoPut, plain),
        (Mutant::RestartsBeforePut, plain),
        (Mutant::RollsBackByConfiguration, rolled_back),
        (Mutant::WrongLogin, plain),
        (Mutant::AnotherOrder, with(plain, |it| it.restarts = 1)),
        (Mutant::IgnoresStarts, with(by_hand, |it| it.restarts = 1)),
        (Mutant::PutsOnOlder, by_hand),
        (Mutant::RestartsBeforeConfigured, plain),
        (Mutant::TrustsRecord, plain),
        (Mutant::RestartsTwo, plain),
        (Mutant::IgnoresEncryption, with(plain, |it| it.key_rotations = 1)),
        (Mutant::IgnoresDown, with(plain, |it| it.restarts = 1)),
        (Mutant::IgnoresMembers, with(plain, |it| it.joins = 1)),
        (Mutant::DoesNotWait, late),
        (Mutant::ForgetsEarly, plain),
        (Mutant::WritesEveryAgent, agents),
        (Mutant::RestoresEveryAgent, removed),
    ] {
        found(mutant, model);
    }
}
