//! The real stages, walked through every state of a model of Argo CD, Rancher, operators and third parties.
//!
//! The number of states is printed (`cargo test -p kubectl-argocd-rancher --test exploration -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of what the test says")]

mod environment;
mod mutants;
mod plan;

use environment::{Budget, Model};
use model::explore;
use mutants::Mutant;

const LIMIT: usize = 1_000_000;

const QUIET: Budget = Budget {
    invalidations: 0,
    syncs: 0,
    applications: 0,
    revocations: 0,
    expiries: 0,
    third_parties: 0,
    reapplies: 0,
    sharers: 0,
    callers: 0,
    late_syncs: 0,
    failures: 0,
    tampers: 0,
    losses: 0,
    users: 0,
    ranchers: 0,
    outages: 0,
    bans: 0,
};

#[track_caller]
fn nothing_is_lost(name: &str, model: &Model) {
    let began = std::time::Instant::now();
    match explore(model, LIMIT) {
        Ok(explored) => {
            println!("{name}: {explored}; {:.1?}", began.elapsed());
            assert_eq!(explored.done == 0, model.never_accepted, "{name}: {explored}");
            let rolls_back = model.never_accepted || model.others.1 > 0;
            assert!(explored.rolled_back > 0 || !rolls_back, "{name}: {explored}");
        }
        Err(counterexample) => panic!("{name}: {counterexample}"),
    }
}

/// Those of [`each_disturbance`] except a few.
fn except(few: &[&str]) -> Vec<(&'static str, Budget)> {
    let all = [("nothing else", QUIET)].into_iter().chain(each_disturbance());
    all.filter(|(name, _)| !few.contains(name)).collect()
}

/// One disturbance of each kind, one kind at a time.
fn each_disturbance() -> [(&'static str, Budget); 8] {
    [
        (
            "an invalidation",
            Budget {
                invalidations: 1,
                ..QUIET
            },
        ),
        (
            "a revocation",
            Budget {
                revocations: 1,
                ..QUIET
            },
        ),
        ("an expiry", Budget { expiries: 1, ..QUIET }),
        (
            "a third party",
            Budget {
                third_parties: 1,
                ..QUIET
            },
        ),
        ("a tamperer", Budget { tampers: 1, ..QUIET }),
        ("a lost value", Budget { losses: 1, ..QUIET }),
        ("an outage", Budget { outages: 1, ..QUIET }),
        ("a ban", Budget { bans: 1, ..QUIET }),
    ]
}

#[test]
fn one_disturbance_and_a_rollback_lose_nothing() {
    for (name, budget) in except(&[]) {
        let model = Model {
            others: (0, 1),
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("{name} and a rollback"), &model);
    }
}

/// The lost update: Argo CD may write what it has read over the Secret later.
#[test]
fn a_lost_update_beside_another_disturbance_loses_nothing() {
    // A third party that puts O back right before Argo CD writes N back cannot be observed by polling.
    for (name, budget) in except(&["nothing else", "a third party"]) {
        let model = Model::new(Budget {
            invalidations: budget.invalidations + 1,
            ..budget
        });
        nothing_is_lost(&format!("{name} and an invalidation"), &model);
    }
    let budget = Budget {
        invalidations: 2,
        syncs: 1,
        ..QUIET
    };
    let model = Model {
        others: (0, 1),
        ..Model::new(budget)
    };
    nothing_is_lost("two invalidations, a sync and a rollback", &model);
}

#[test]
fn a_former_holder_loses_nothing() {
    for (name, budget) in except(&["a revocation", "an expiry"]) {
        let model = Model {
            others: (1, 0),
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("a former holder and {name}"), &model);
    }
}

#[test]
fn a_former_holder_and_a_rollback_lose_nothing() {
    for (name, budget) in except(&[
        "a revocation",
        "an expiry",
        "a third party",
        "a tamperer",
        "an outage",
        "a ban",
    ]) {
        let model = Model {
            others: (1, 1),
            watched: false,
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("a former holder, a rollback and {name}"), &model);
    }
}

#[test]
fn what_a_former_holder_creates_late_is_needed_by_nothing() {
    let budget = Budget { losses: 1, ..QUIET };
    let model = Model {
        others: (1, 1),
        late_creates: true,
        ..Model::new(budget)
    };
    nothing_is_lost("late creates, a lost value and a rollback", &model);
}

#[test]
fn a_cluster_without_applications_loses_nothing() {
    let lost_update = Budget {
        invalidations: 1,
        applications: 1,
        syncs: 1,
        ..QUIET
    };
    for (name, budget) in [("its first Application", lost_update)]
        .into_iter()
        .chain(except(&["a revocation", "an expiry"]))
    {
        let model = Model {
            others: (0, 1),
            watched: false,
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("not watched, {name} and a rollback"), &model);
    }
}

#[test]
fn an_old_token_of_another_user_stays_valid() {
    for (name, budget) in except(&["an expiry"]) {
        let model = Model {
            others: (0, 1),
            foreign: true,
            watched: false,
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("another user's token, {name} and a rollback"), &model);
    }
}

#[test]
fn an_expired_old_token_is_replaced() {
    for (name, budget) in except(&["a revocation", "an expiry", "a third party", "a tamperer"]) {
        let model = Model {
            others: (0, 1),
            expired: true,
            late_proof: true,
            watched: false,
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("expired before, {name} and a rollback"), &model);
    }
}

#[test]
fn servers_that_learn_late_lose_nothing() {
    for (name, budget) in except(&["an expiry", "a third party", "an outage", "a ban"]) {
        let model = Model {
            others: (0, 1),
            many_servers: true,
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("several servers, {name} and a rollback"), &model);
    }
}

/// A use of N proves only that it was placed once; where Argo CD writes O back, it is not down.
#[test]
fn an_argo_cd_that_is_down_is_waited_for() {
    for (name, budget) in except(&["an invalidation", "a third party"]) {
        let model = Model {
            argo_down: true,
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("Argo CD down, {name}"), &model);
    }
}

#[test]
fn a_rancher_that_records_no_last_use_loses_nothing() {
    let model = Model {
        others: (0, 1),
        no_last_use: true,
        ..Model::new(Budget {
            invalidations: 1,
            syncs: 1,
            ..QUIET
        })
    };
    nothing_is_lost("no last use, an invalidation, a sync and a rollback", &model);
}

#[test]
fn another_user_changes_nothing() {
    let model = Model {
        others: (0, 1),
        ..Model::new(Budget { users: 1, ..QUIET })
    };
    nothing_is_lost("another user and a rollback", &model);
}

#[test]
fn a_new_token_that_is_never_accepted_rolls_back() {
    for (name, others, budget) in [
        ("nothing else", (1, 0), QUIET),
        (
            "an invalidation",
            (0, 1),
            Budget {
                invalidations: 1,
                ..QUIET
            },
        ),
    ] {
        let model = Model {
            never_accepted: true,
            others,
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("never accepted, {name}"), &model);
    }
}

/// Whoever may write Leases and nothing else can delay a run or have O left valid, and no more; also with an old journal of the
/// same run, and after the run has ended.
#[test]
fn a_forged_journal_loses_nothing() {
    for (name, foreign, budget) in [
        ("nothing else", false, QUIET),
        ("another user's token", true, QUIET),
        ("a tamperer", false, Budget { tampers: 1, ..QUIET }),
        ("a lost value", false, Budget { losses: 1, ..QUIET }),
        (
            "an invalidation",
            false,
            Budget {
                invalidations: 1,
                ..QUIET
            },
        ),
    ] {
        let model = Model {
            forgeries: 1,
            foreign,
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("a forged journal and {name}"), &model);
    }
}

/// GitOps, or a loop that applies a saved Secret.
#[test]
fn another_writer_that_does_not_stop_loses_nothing() {
    // A third party that does so right before Argo CD writes N back cannot be observed by polling.
    for (name, watched) in [("a watched cluster", true), ("one that is not", false)] {
        let model = Model {
            others: (0, 1),
            watched,
            ..Model::new(Budget { reapplies: 3, ..QUIET })
        };
        nothing_is_lost(&format!("another writer and {name}"), &model);
    }
}

/// What counts as use comes from Argo CD, whatever else calls with the new token.
#[test]
fn use_by_others_proves_nothing() {
    let called = Budget { callers: 1, ..QUIET };
    let late = Budget { late_syncs: 1, ..QUIET };
    for (name, budget) in [
        ("another client calls", called),
        ("a sync that began before ends", late),
    ] {
        let model = Model {
            argo_down: true,
            ..Model::new(budget)
        };
        nothing_is_lost(&format!("Argo CD down, {name}"), &model);
    }
    let budget = Budget {
        failures: 1,
        callers: 1,
        ..QUIET
    };
    let model = Model {
        others: (0, 1),
        ..Model::new(budget)
    };
    nothing_is_lost("a sync of Argo CD's fails", &model);
}

#[test]
fn what_is_needed_elsewhere_stays_and_another_rancher_is_not_changed() {
    for (name, budget) in [
        ("O is put into another Secret", Budget { sharers: 1, ..QUIET }),
        ("another Rancher", Budget { ranchers: 1, ..QUIET }),
    ] {
        let model = Model {
            others: (0, 1),
            ..Model::new(budget)
        };
        nothing_is_lost(name, &model);
    }
}

#[track_caller]
fn is_found(mutant: Mutant, model: &Model) {
    match explore(&Model { mutant, ..*model }, LIMIT) {
        Ok(explored) => panic!("{mutant:?} was not found in {explored}"),
        Err(counterexample) => {
            let because = counterexample.because.split(": ").next().unwrap_or_default().to_owned();
            println!("{mutant:?}: {because}, by {}", counterexample.trace.join("; "));
        }
    }
}

#[test]
fn mutants_are_found() {
    let quiet = Model::new(QUIET);
    let with = |budget| Model::new(budget);
    let back = |model| Model {
        others: (0, 1),
        ..model
    };
    is_found(Mutant::PlacesUnaccepted, &quiet);
    is_found(Mutant::UnknownIsAccepted, &with(Budget { outages: 1, ..QUIET }));
    is_found(Mutant::NoBackup, &quiet);
    is_found(Mutant::RevokesBeforePlace, &quiet);
    is_found(Mutant::NoGrace, &quiet);
    is_found(
        Mutant::GraceGoesOn,
        &with(Budget {
            third_parties: 1,
            ..QUIET
        }),
    );
    is_found(
        Mutant::SecretNotReread,
        &with(Budget {
            invalidations: 1,
            ..QUIET
        }),
    );
    is_found(
        Mutant::UseNotAwaited,
        &Model {
            argo_down: true,
            ..quiet
        },
    );
    is_found(
        Mutant::OwnCallCounts,
        &Model {
            argo_down: true,
            ..with(Budget { late_syncs: 1, ..QUIET })
        },
    );
    is_found(
        Mutant::AnyUseCounts,
        &Model {
            argo_down: true,
            ..with(Budget { callers: 1, ..QUIET })
        },
    );
    is_found(
        Mutant::TrustsJournal,
        &Model {
            foreign: true,
            forgeries: 1,
            ..quiet
        },
    );
    is_found(Mutant::IgnoresFailedSync, &with(Budget { failures: 1, ..QUIET }));
    is_found(Mutant::AnyRancher, &with(Budget { ranchers: 1, ..QUIET }));
    is_found(Mutant::RevokesShared, &with(Budget { sharers: 1, ..QUIET }));
    is_found(Mutant::GraceGoesOn, &with(Budget { reapplies: 1, ..QUIET }));

    is_found(
        Mutant::NoFence,
        &Model {
            others: (1, 1),
            ..quiet
        },
    );
    is_found(Mutant::RestoresInvalidOld, &back(with(Budget { expiries: 1, ..QUIET })));
    is_found(
        Mutant::OverwritesForeign,
        &with(Budget {
            third_parties: 1,
            ..QUIET
        }),
    );
    is_found(Mutant::NoExpiryMargin, &back(with(Budget { expiries: 1, ..QUIET })));
    is_found(
        Mutant::NoConfirmation,
        &Model {
            many_servers: true,
            ..quiet
        },
    );
    is_found(Mutant::DeletesBackupEarly, &quiet);
    is_found(Mutant::AnyUser, &with(Budget { users: 1, ..QUIET }));
    is_found(Mutant::RevokesForeign, &Model { foreign: true, ..quiet });
    let lost = Budget {
        losses: 1,
        third_parties: 1,
        tampers: 1,
        ..QUIET
    };
    is_found(Mutant::RevokesPlaced, &with(lost));
    is_found(
        Mutant::ReliesOnRevoked,
        &Model {
            others: (1, 1),
            watched: false,
            ..with(Budget {
                revocations: 1,
                ..QUIET
            })
        },
    );
}
