//! The real `decide`, walked through every state of a small world of Kubernetes, nodes, operators and strangers.
//!
//! The number of states is printed (`cargo test -p kubectl-bootstrap-token --test exploration -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of what the test says")]

mod mistake;
mod plan;
mod world;

use mistake::{Mistake, Perhaps};
use model::explore;
use world::{Budget, Small, To};

const LIMIT: usize = 1_000_000;

const QUIET: Budget = Budget {
    deletions: 0,
    expiries: 0,
    extensions: 0,
    strangers: 0,
    tampers: 0,
    lost_signatures: 0,
    signer_offs: 0,
    hosts: 0,
    losses: 0,
    forgets: 0,
    collisions: 0,
    readers: 0,
    wrong_runs: 0,
    reapplies: 0,
};

#[track_caller]
fn nothing_is_lost(name: &str, small: &Small<Perhaps>) {
    let began = std::time::Instant::now();
    match explore(small, LIMIT) {
        Ok(explored) => {
            println!("{name} ({:?}): {explored}; {:.1?}", small.to, began.elapsed());
            assert_eq!(explored.done == 0, small.never_accepted, "{name}: {explored}");
            assert!(explored.undone > 0, "{name}: {explored}");
        }
        Err(counterexample) => panic!("{name} ({:?}): {counterexample}", small.to),
    }
}

/// One disturbance of each kind, one kind at a time.
fn each_disturbance() -> [(&'static str, Budget); 6] {
    [
        ("a deletion", Budget { deletions: 1, ..QUIET }),
        ("an expiry", Budget { expiries: 1, ..QUIET }),
        ("a stranger", Budget { strangers: 1, ..QUIET }),
        ("a tamperer", Budget { tampers: 1, ..QUIET }),
        ("a lost value", Budget { forgets: 1, ..QUIET }),
        ("a taken id", Budget { collisions: 1, ..QUIET }),
    ]
}

#[test]
fn one_disturbance_and_a_rollback_lose_nothing() {
    for to in [To::Nothing, To::Secret, To::File] {
        for (name, budget) in each_disturbance() {
            let budget = Budget { readers: 1, ..budget };
            let small = Small {
                others: (0, 1),
                ..Small::new(to, budget)
            };
            nothing_is_lost(&format!("{name}, a node and a rollback"), &small);
        }
    }
}

#[test]
fn two_disturbances_of_different_kinds_lose_nothing() {
    let each = each_disturbance();
    for (at, (first, one)) in each.iter().enumerate() {
        for (second, other) in &each[at + 1..] {
            let budget = Budget {
                deletions: one.deletions + other.deletions,
                expiries: one.expiries + other.expiries,
                strangers: one.strangers + other.strangers,
                tampers: one.tampers + other.tampers,
                forgets: one.forgets + other.forgets,
                collisions: one.collisions + other.collisions,
                ..QUIET
            };
            let small = Small {
                others: (0, 1),
                ..Small::new(To::Secret, budget)
            };
            nothing_is_lost(&format!("{first}, {second} and a rollback"), &small);
        }
    }
}

#[test]
fn a_former_holder_and_a_rollback_lose_nothing() {
    for to in [To::Nothing, To::Secret] {
        for (name, budget) in [("nothing else", QUIET)].into_iter().chain(each_disturbance()) {
            let small = Small {
                others: (1, 1),
                ..Small::new(to, budget)
            };
            nothing_is_lost(&format!("a former holder, a rollback and {name}"), &small);
        }
    }
}

#[test]
fn tokens_that_expire_and_are_extended_lose_nothing() {
    for (to, late_proof) in [(To::Nothing, true), (To::Secret, false)] {
        let budget = Budget {
            expiries: 2,
            extensions: 1,
            readers: 1,
            ..QUIET
        };
        let small = Small {
            others: (0, 1),
            late_proof,
            ..Small::new(to, budget)
        };
        nothing_is_lost("two expiries and an extension", &small);
    }
}

#[test]
fn several_servers_that_learn_late_lose_nothing() {
    for (name, budget, others) in [
        ("several servers", QUIET, (1, 1)),
        (
            "several servers and a deletion",
            Budget { deletions: 1, ..QUIET },
            (0, 1),
        ),
    ] {
        let small = Small {
            many_servers: true,
            late_proof: true,
            others,
            ..Small::new(To::Secret, budget)
        };
        nothing_is_lost(name, &small);
    }
}

#[test]
fn a_signer_that_forgets_or_is_off_loses_nothing() {
    let budgets = [
        ("a signer", QUIET),
        (
            "a signer that loses an update",
            Budget {
                lost_signatures: 1,
                ..QUIET
            },
        ),
        (
            "a signer that is switched off",
            Budget {
                signer_offs: 1,
                ..QUIET
            },
        ),
        (
            "a signer that is switched off, and an expiry",
            Budget {
                signer_offs: 1,
                expiries: 1,
                ..QUIET
            },
        ),
    ];
    for (name, budget) in budgets {
        let small = Small {
            signing: true,
            others: (0, 1),
            ..Small::new(To::Secret, budget)
        };
        nothing_is_lost(name, &small);
    }
}

/// A file has no former holder: its lock lasts as long as the process that holds it.
#[test]
fn a_file_on_another_host_is_left_alone() {
    let budget = Budget {
        hosts: 2,
        expiries: 1,
        ..QUIET
    };
    let small = Small {
        others: (0, 1),
        ..Small::new(To::File, budget)
    };
    nothing_is_lost("another host", &small);
}

/// Nor does it have one when its host is lost: what would arrive late is in the file that was given up.
#[test]
fn a_file_on_a_host_that_is_lost_is_left_behind() {
    for (name, budget) in [("nothing else", QUIET)].into_iter().chain(each_disturbance()) {
        let budget = Budget {
            hosts: 1,
            losses: 1,
            readers: 1,
            ..budget
        };
        let small = Small {
            others: (0, 1),
            ..Small::new(To::File, budget)
        };
        nothing_is_lost(&format!("a lost host, a node, a rollback and {name}"), &small);
    }
}

#[test]
fn a_new_token_that_is_never_accepted_leads_back() {
    for to in [To::Nothing, To::Secret] {
        let small = Small {
            never_accepted: true,
            many_servers: true,
            others: (1, 0),
            ..Small::new(to, QUIET)
        };
        nothing_is_lost("never accepted", &small);
    }
}

/// Whoever may write Leases can put any journal there, an old one of the same run among them.
#[test]
fn a_forged_journal_delays_and_nothing_else() {
    let reader = Budget { readers: 1, ..QUIET };
    for to in [To::Nothing, To::Secret, To::File] {
        for victim in [false, true] {
            let small = Small {
                forgeries: 1,
                victim,
                others: (0, 1),
                ..Small::new(to, reader)
            };
            nothing_is_lost(&format!("a forged journal ({victim})"), &small);
        }
    }
    let stranger = Budget { strangers: 1, ..reader };
    let stranger = Small {
        forgeries: 1,
        ..Small::new(To::Secret, stranger)
    };
    nothing_is_lost("a forged journal and a stranger", &stranger);
    let twice = Small {
        forgeries: 2,
        ..Small::new(To::Secret, QUIET)
    };
    nothing_is_lost("two forged journals", &twice);
}

/// With the login of the token that would be revoked, or with something of another cluster, nothing is written.
#[test]
fn a_command_with_the_wrong_login_or_cluster_changes_nothing() {
    for to in [To::Nothing, To::Secret, To::File] {
        let small = Small {
            others: (0, 1),
            ..Small::new(to, Budget { wrong_runs: 2, ..QUIET })
        };
        nothing_is_lost("two wrong runs", &small);
    }
}

/// GitOps writes O back, as often as it likes: the third time turns back; after *retire* nothing is said to be done before
/// it has been quiet for a whole overlap.
#[test]
fn another_writer_that_writes_the_old_token_back_loses_nothing() {
    for (to, reapplies, readers) in [(To::Secret, 3, 1), (To::Secret, 4, 0), (To::File, 3, 0)] {
        let budget = Budget {
            readers,
            reapplies,
            ..QUIET
        };
        nothing_is_lost(&format!("{reapplies} re-applies"), &Small::new(to, budget));
    }
}

#[track_caller]
fn is_found(mistake: Mistake, small: &Small<Perhaps>) {
    match mistake::with(mistake, || explore(small, LIMIT)) {
        Ok(explored) => panic!("{mistake:?} was not found in {explored}"),
        Err(counterexample) => {
            let because = counterexample.because.split(": ").next().unwrap_or_default().to_owned();
            println!("{mistake:?}: {because}, by {}", counterexample.trace.join("; "));
        }
    }
}

#[test]
fn seeded_mistakes_are_found() {
    let expiry = Budget { expiries: 1, ..QUIET };
    is_found(Mistake::NotAccepted, &Small::new(To::Secret, QUIET));
    is_found(Mistake::NotDelivered, &Small::new(To::Secret, QUIET));
    is_found(
        Mistake::NoOverlap,
        &Small::new(To::Secret, Budget { readers: 1, ..QUIET }),
    );
    is_found(
        Mistake::BackTooEarly,
        &Small {
            others: (0, 1),
            ..Small::new(To::Secret, QUIET)
        },
    );
    is_found(
        Mistake::Overwrites,
        &Small::new(To::Secret, Budget { strangers: 1, ..QUIET }),
    );
    is_found(
        Mistake::NoProof,
        &Small::new(To::Secret, Budget { tampers: 1, ..QUIET }),
    );
    is_found(
        Mistake::NoGuard,
        &Small {
            others: (1, 1),
            ..Small::new(To::Secret, QUIET)
        },
    );
    is_found(
        Mistake::DeadOld,
        &Small {
            others: (0, 1),
            ..Small::new(To::Nothing, expiry)
        },
    );
    is_found(
        Mistake::NoMark,
        &Small {
            others: (1, 1),
            ..Small::new(To::Nothing, expiry)
        },
    );
    is_found(Mistake::NoConfirmation, &Small::new(To::Nothing, QUIET));
    is_found(
        Mistake::NotSigned,
        &Small {
            signing: true,
            ..Small::new(To::Secret, QUIET)
        },
    );
    is_found(
        Mistake::OneServer,
        &Small {
            many_servers: true,
            ..Small::new(To::Secret, QUIET)
        },
    );
    let away = Budget {
        hosts: 1,
        readers: 1,
        ..QUIET
    };
    is_found(Mistake::GivesUp, &Small::new(To::File, away));
    is_found(
        Mistake::LeavesInHaste,
        &Small::new(To::File, Budget { losses: 1, ..away }),
    );
    let reapplies = |reapplies| Small::new(To::Secret, Budget { reapplies, ..QUIET });
    let wrong_runs = Small::new(To::Secret, Budget { wrong_runs: 1, ..QUIET });
    is_found(Mistake::IgnoresLogin, &wrong_runs);
    is_found(Mistake::IgnoresCluster, &wrong_runs);
    is_found(Mistake::StaysQuiet, &reapplies(1));
    let forged = Small {
        forgeries: 1,
        ..Small::new(To::Secret, Budget { readers: 1, ..QUIET })
    };
    is_found(Mistake::TrustsDelivered, &forged);
    is_found(Mistake::TrustsJournal, &forged);
    is_found(
        Mistake::TrustsJournal,
        &Small {
            forgeries: 1,
            victim: true,
            ..Small::new(To::Nothing, QUIET)
        },
    );
    is_found(
        Mistake::NoMargin,
        &Small {
            others: (0, 1),
            ..Small::new(To::Nothing, expiry)
        },
    );
}
