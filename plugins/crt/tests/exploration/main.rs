//! The model checker: walks the real stages through every state of a model of Rancher, Kubernetes, agents and two operators.
//!
//! A comment beside each move of the environment says what it stands for. The number of states is printed
//! (`cargo test -p kubectl-crt --test exploration -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of what the test says")]

mod environment;
mod mutants;
mod plan;
mod provisioned;
mod rescue;

use environment::{Budget, CrtModel, ENDLESS, Variant};
use model::explore;
use rancher::TokenStorage;

const LIMIT: usize = 1_500_000;

#[track_caller]
fn nothing_is_lost(name: &str, model: &CrtModel) {
    let began = std::time::Instant::now();
    match explore(model, LIMIT) {
        Ok(explored) => {
            println!("{name}: {explored}; {:?}; {:.1?}", model.budget, began.elapsed());
            assert!(explored.done > 0 || !model.can_be_rotated(), "{name}: {explored}");
            // A rollback to the token of another cluster is refused.
            let can_roll_back = model.can_be_rotated() && !matches!(model.variant, Variant::ForeignAgent);
            let rolls_back = model.others.1 > 0 || model.new_agents_fail;
            assert!(
                explored.rolled_back > 0 || !rolls_back || !can_roll_back,
                "{name}: {explored}"
            );
        }
        Err(counterexample) => panic!("{name}: {counterexample}"),
    }
}

const QUIET: Budget = Budget {
    redeploys: 0,
    reconnects: 0,
    hours: 0,
    upgrades: 0,
    slow_starts: 0,
    reapplies: 0,
    settings: 0,
    rotations: 0,
    withdrawals: 0,
    admins: 0,
    events: 0,
    starts: 0,
    deaths: 0,
    firsts: 0,
};

/// One disturbance of each kind, one kind at a time.
fn each_disturbance() -> [(&'static str, Budget); 4] {
    [
        ("a redeploy", Budget { redeploys: 1, ..QUIET }),
        ("a reconnect", Budget { reconnects: 1, ..QUIET }),
        ("an hour", Budget { hours: 1, ..QUIET }),
        (
            "a slow start",
            Budget {
                slow_starts: 1,
                ..QUIET
            },
        ),
    ]
}

#[test]
fn one_disturbance_loses_nothing_with_storage_status() {
    for (name, budget) in each_disturbance() {
        nothing_is_lost(name, &CrtModel::new(TokenStorage::Status, Variant::Ordinary, budget));
        let rollback = CrtModel {
            others: (0, 1),
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, budget)
        };
        nothing_is_lost(&format!("{name} and a rollback"), &rollback);
    }
}

#[test]
fn one_disturbance_loses_nothing_with_storage_secret() {
    for (name, budget) in each_disturbance() {
        nothing_is_lost(name, &CrtModel::new(TokenStorage::Secret, Variant::Ordinary, budget));
    }
}

#[test]
fn a_former_holder_and_a_rollback_lose_nothing() {
    nothing_is_lost(
        "both",
        &CrtModel {
            others: (1, 1),
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET)
        },
    );
    nothing_is_lost(
        "a former holder",
        &CrtModel {
            others: (1, 0),
            ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, QUIET)
        },
    );
    nothing_is_lost(
        "a rollback",
        &CrtModel {
            others: (0, 1),
            ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, QUIET)
        },
    );
}

#[test]
fn unusual_starts_lose_nothing() {
    for variant in [Variant::RedeployInProgress, Variant::NoSystem] {
        nothing_is_lost(
            &format!("{variant:?}"),
            &CrtModel::new(TokenStorage::Status, variant, QUIET),
        );
    }
    for variant in [
        Variant::RedeployInProgress,
        Variant::RotatedByRancher,
        Variant::StaleGrace,
    ] {
        nothing_is_lost(
            &format!("{variant:?}"),
            &CrtModel::new(TokenStorage::Secret, variant, QUIET),
        );
    }
}

#[test]
fn an_upgrade_in_the_middle_loses_nothing() {
    let budget = Budget { upgrades: 1, ..QUIET };
    nothing_is_lost(
        "an upgrade",
        &CrtModel::new(TokenStorage::Status, Variant::Ordinary, budget),
    );
}

#[test]
fn new_agents_that_never_connect_cause_a_rollback() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        let failing = CrtModel {
            new_agents_fail: true,
            ..CrtModel::new(storage, Variant::Ordinary, QUIET)
        };
        nothing_is_lost("failing agents", &failing);
    }
}

#[test]
fn another_cluster_is_never_changed() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        nothing_is_lost(
            "a wrong downstream",
            &CrtModel::new(storage, Variant::WrongDownstream, QUIET),
        );
        nothing_is_lost("a foreign agent", &CrtModel::new(storage, Variant::ForeignAgent, QUIET));
    }
    let foreign = CrtModel {
        others: (0, 1),
        ..CrtModel::new(TokenStorage::Status, Variant::ForeignAgent, QUIET)
    };
    nothing_is_lost("a foreign agent and a rollback", &foreign);
}

#[test]
fn another_writer_loses_nothing() {
    for (storage, reapplies) in [
        (TokenStorage::Status, 1),
        (TokenStorage::Secret, 1),
        (TokenStorage::Status, ENDLESS),
        (TokenStorage::Secret, ENDLESS),
    ] {
        let writer = CrtModel {
            young: true,
            ..CrtModel::new(storage, Variant::Ordinary, Budget { reapplies, ..QUIET })
        };
        nothing_is_lost("another writer", &writer);
    }
}

#[test]
fn a_forged_journal_loses_nothing() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        let forged = CrtModel {
            forgeries: 1,
            ..CrtModel::new(storage, Variant::Ordinary, QUIET)
        };
        nothing_is_lost("a forged journal", &forged);
    }
}

#[test]
fn another_token_that_rancher_rotates_loses_nothing() {
    let budget = Budget { rotations: 1, ..QUIET };
    nothing_is_lost(
        "another token",
        &CrtModel::new(TokenStorage::Secret, Variant::Ordinary, budget),
    );
    nothing_is_lost(
        "another token with the agent's value",
        &CrtModel::new(TokenStorage::Secret, Variant::NoSystem, budget),
    );
}

#[test]
fn a_rollback_to_a_state_that_did_not_work_ends() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        for new_agents_fail in [false, true] {
            let broken = CrtModel {
                old_agents_fail: true,
                new_agents_fail,
                others: (0, u8::from(!new_agents_fail)),
                young: true,
                ..CrtModel::new(storage, Variant::Ordinary, QUIET)
            };
            nothing_is_lost("a cluster that did not work", &broken);
        }
    }
}

#[test]
fn a_change_of_address_loses_nothing() {
    for unreachable in [false, true] {
        let model = CrtModel {
            unreachable,
            ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, Budget { settings: 1, ..QUIET })
        };
        nothing_is_lost("a change of address", &model);
    }
}

#[test]
fn what_is_dropped_is_given_back() {
    let withdrawals = Budget {
        withdrawals: 1,
        ..QUIET
    };
    for (storage, variant, rollbacks) in [
        (TokenStorage::Status, Variant::Ordinary, 1),
        (TokenStorage::Status, Variant::SystemElsewhere, 1),
        (TokenStorage::Secret, Variant::Ordinary, 1),
        (TokenStorage::Secret, Variant::SystemElsewhere, 0),
    ] {
        let model = CrtModel {
            others: (0, rollbacks),
            young: true,
            ..CrtModel::new(storage, variant, withdrawals)
        };
        nothing_is_lost(&format!("a withdrawal, {variant:?}"), &model);
    }
}

#[test]
fn another_value_on_system_loses_nothing() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        for variant in [Variant::Ordinary, Variant::SystemElsewhere] {
            let model = CrtModel {
                young: true,
                ..CrtModel::new(storage, variant, Budget { admins: 1, ..QUIET })
            };
            nothing_is_lost(&format!("another value, {variant:?}"), &model);
        }
    }
}
