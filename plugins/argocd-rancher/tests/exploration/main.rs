//! The real `decide`, walked through every state of a small world of Argo CD, Rancher, operators and strangers.
//!
//! The number of states is printed (`cargo test -p kubectl-argocd-rancher --test exploration -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of what the test says")]

mod mistake;
mod plan;
mod world;

use mistake::Mistake;
use model::explore;
use world::{Budget, Small};

const LIMIT: usize = 1_000_000;

const QUIET: Budget = Budget {
    invalidations: 0,
    syncs: 0,
    applications: 0,
    revocations: 0,
    expiries: 0,
    strangers: 0,
    reapplies: 0,
    sharers: 0,
    callers: 0,
    late_syncs: 0,
    failures: 0,
    tampers: 0,
    forgets: 0,
    users: 0,
    ranchers: 0,
    outages: 0,
    bans: 0,
};

#[track_caller]
fn nothing_is_lost(name: &str, small: &Small) {
    let began = std::time::Instant::now();
    match explore(small, LIMIT) {
        Ok(explored) => {
            println!("{name}: {explored}; {:.1?}", began.elapsed());
            assert_eq!(explored.done == 0, small.never_let_in, "{name}: {explored}");
            let leads_back = small.never_let_in || small.others.1 > 0;
            assert!(explored.undone > 0 || !leads_back, "{name}: {explored}");
        }
        Err(counterexample) => panic!("{name}: {counterexample}"),
    }
}

/// Those of [`each_disturbance`] but for a few.
fn but(few: &[&str]) -> Vec<(&'static str, Budget)> {
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
        ("a stranger", Budget { strangers: 1, ..QUIET }),
        ("a tamperer", Budget { tampers: 1, ..QUIET }),
        ("a lost value", Budget { forgets: 1, ..QUIET }),
        ("an outage", Budget { outages: 1, ..QUIET }),
        ("a ban", Budget { bans: 1, ..QUIET }),
    ]
}

#[test]
fn one_disturbance_and_a_rollback_lose_nothing() {
    for (name, budget) in but(&[]) {
        let small = Small {
            others: (0, 1),
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("{name} and a rollback"), &small);
    }
}

/// The lost update: what Argo CD has read it may write over the Secret later.
#[test]
fn a_lost_update_beside_another_disturbance_loses_nothing() {
    // One who puts O back right before Argo CD writes N back is not seen by anybody who looks now and then.
    for (name, budget) in but(&["nothing else", "a stranger"]) {
        let small = Small::new(Budget {
            invalidations: budget.invalidations + 1,
            ..budget
        });
        nothing_is_lost(&format!("{name} and an invalidation"), &small);
    }
    let budget = Budget {
        invalidations: 2,
        syncs: 1,
        ..QUIET
    };
    let small = Small {
        others: (0, 1),
        ..Small::new(budget)
    };
    nothing_is_lost("two invalidations, a sync and a rollback", &small);
}

#[test]
fn a_former_holder_loses_nothing() {
    for (name, budget) in but(&["a revocation", "an expiry"]) {
        let small = Small {
            others: (1, 0),
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("a former holder and {name}"), &small);
    }
}

#[test]
fn a_former_holder_and_a_rollback_lose_nothing() {
    for (name, budget) in but(&[
        "a revocation",
        "an expiry",
        "a stranger",
        "a tamperer",
        "an outage",
        "a ban",
    ]) {
        let small = Small {
            others: (1, 1),
            watched: false,
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("a former holder, a rollback and {name}"), &small);
    }
}

#[test]
fn what_a_former_holder_creates_late_leaves_nothing_that_anybody_needs() {
    let budget = Budget { forgets: 1, ..QUIET };
    let small = Small {
        others: (1, 1),
        late_creations: true,
        ..Small::new(budget)
    };
    nothing_is_lost("late creations, a lost value and a rollback", &small);
}

#[test]
fn a_cluster_that_nobody_watches_loses_nothing() {
    let lost_update = Budget {
        invalidations: 1,
        applications: 1,
        syncs: 1,
        ..QUIET
    };
    for (name, budget) in [("its first Application", lost_update)]
        .into_iter()
        .chain(but(&["a revocation", "an expiry"]))
    {
        let small = Small {
            others: (0, 1),
            watched: false,
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("not watched, {name} and a rollback"), &small);
    }
}

#[test]
fn an_old_token_of_somebody_else_stays() {
    for (name, budget) in but(&["an expiry"]) {
        let small = Small {
            others: (0, 1),
            foreign: true,
            watched: false,
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("somebody else's token, {name} and a rollback"), &small);
    }
}

#[test]
fn a_dead_old_token_is_replaced() {
    for (name, budget) in but(&["a revocation", "an expiry", "a stranger", "a tamperer"]) {
        let small = Small {
            others: (0, 1),
            dead: true,
            late_proof: true,
            watched: false,
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("dead before, {name} and a rollback"), &small);
    }
}

#[test]
fn servers_that_learn_late_lose_nothing() {
    for (name, budget) in but(&["an expiry", "a stranger", "an outage", "a ban"]) {
        let small = Small {
            others: (0, 1),
            many_servers: true,
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("several servers, {name} and a rollback"), &small);
    }
}

/// That N is seen to be used is proof of its first placing alone; where Argo CD writes O back, it is not away.
#[test]
fn an_argo_cd_that_is_away_is_waited_for() {
    for (name, budget) in but(&["an invalidation", "a stranger"]) {
        let small = Small {
            argo_away: true,
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("Argo CD away, {name}"), &small);
    }
}

#[test]
fn a_rancher_that_keeps_no_last_use_loses_nothing() {
    let small = Small {
        others: (0, 1),
        no_last_use: true,
        ..Small::new(Budget {
            invalidations: 1,
            syncs: 1,
            ..QUIET
        })
    };
    nothing_is_lost("no last use, an invalidation, a sync and a rollback", &small);
}

#[test]
fn another_user_changes_nothing() {
    let small = Small {
        others: (0, 1),
        ..Small::new(Budget { users: 1, ..QUIET })
    };
    nothing_is_lost("another user and a rollback", &small);
}

#[test]
fn a_new_token_that_is_never_let_in_leads_back() {
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
        let small = Small {
            never_let_in: true,
            others,
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("never let in, {name}"), &small);
    }
}

/// Whoever may write Leases and nothing else can delay a run, and no more; also with an old journal of the same run, and after
/// the run has ended.
#[test]
fn a_forged_journal_loses_nothing() {
    for (name, foreign, budget) in [
        ("nothing else", false, QUIET),
        ("somebody else's token", true, QUIET),
        ("a tamperer", false, Budget { tampers: 1, ..QUIET }),
        ("a lost value", false, Budget { forgets: 1, ..QUIET }),
        (
            "an invalidation",
            false,
            Budget {
                invalidations: 1,
                ..QUIET
            },
        ),
    ] {
        let small = Small {
            forgeries: 1,
            foreign,
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("a forged journal and {name}"), &small);
    }
}

/// GitOps, or a loop that applies a saved Secret.
#[test]
fn another_writer_who_does_not_stop_loses_nothing() {
    // One who does so right before Argo CD writes N back is not seen by anybody who looks now and then.
    for (name, watched) in [("a watched cluster", true), ("one that is not", false)] {
        let small = Small {
            others: (0, 1),
            watched,
            ..Small::new(Budget { reapplies: 3, ..QUIET })
        };
        nothing_is_lost(&format!("another writer and {name}"), &small);
    }
}

/// What counts as use comes from Argo CD, whoever else calls with the new token.
#[test]
fn the_use_by_others_proves_nothing() {
    let called = Budget { callers: 1, ..QUIET };
    let late = Budget { late_syncs: 1, ..QUIET };
    for (name, budget) in [("a colleague calls", called), ("a sync that began before ends", late)] {
        let small = Small {
            argo_away: true,
            ..Small::new(budget)
        };
        nothing_is_lost(&format!("Argo CD away, {name}"), &small);
    }
    let budget = Budget {
        failures: 1,
        callers: 1,
        ..QUIET
    };
    let small = Small {
        others: (0, 1),
        ..Small::new(budget)
    };
    nothing_is_lost("a sync of Argo CD's fails", &small);
}

#[test]
fn what_is_needed_elsewhere_stays_and_another_rancher_is_left_alone() {
    for (name, budget) in [
        ("O is put into another Secret", Budget { sharers: 1, ..QUIET }),
        ("another Rancher", Budget { ranchers: 1, ..QUIET }),
    ] {
        let small = Small {
            others: (0, 1),
            ..Small::new(budget)
        };
        nothing_is_lost(name, &small);
    }
}

#[track_caller]
fn is_found(mistake: Mistake, small: &Small) {
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
    let quiet = Small::new(QUIET);
    let with = |budget| Small::new(budget);
    let back = |small| Small {
        others: (0, 1),
        ..small
    };
    is_found(Mistake::NotLetIn, &quiet);
    is_found(Mistake::NoAnswerIsYes, &with(Budget { outages: 1, ..QUIET }));
    is_found(Mistake::NotParked, &quiet);
    is_found(Mistake::NotPlaced, &quiet);
    is_found(Mistake::NoGrace, &quiet);
    is_found(Mistake::GraceGoesOn, &with(Budget { strangers: 1, ..QUIET }));
    is_found(
        Mistake::NotReadAgain,
        &with(Budget {
            invalidations: 1,
            ..QUIET
        }),
    );
    is_found(
        Mistake::NotSeen,
        &Small {
            argo_away: true,
            ..quiet
        },
    );
    is_found(
        Mistake::NotQuiet,
        &Small {
            argo_away: true,
            ..with(Budget { late_syncs: 1, ..QUIET })
        },
    );
    is_found(
        Mistake::AnyUse,
        &Small {
            argo_away: true,
            ..with(Budget { callers: 1, ..QUIET })
        },
    );
    is_found(
        Mistake::TrustsJournal,
        &Small {
            foreign: true,
            forgeries: 1,
            ..quiet
        },
    );
    is_found(Mistake::NeverFailed, &with(Budget { failures: 1, ..QUIET }));
    is_found(Mistake::AnyRancher, &with(Budget { ranchers: 1, ..QUIET }));
    is_found(Mistake::RevokesShared, &with(Budget { sharers: 1, ..QUIET }));
    is_found(Mistake::GraceGoesOn, &with(Budget { reapplies: 1, ..QUIET }));

    is_found(
        Mistake::NoGuard,
        &Small {
            others: (1, 1),
            ..quiet
        },
    );
    is_found(Mistake::DeadOld, &back(with(Budget { expiries: 1, ..QUIET })));
    is_found(Mistake::Overwrites, &with(Budget { strangers: 1, ..QUIET }));
    is_found(Mistake::NoMargin, &back(with(Budget { expiries: 1, ..QUIET })));
    is_found(
        Mistake::NoConfirmation,
        &Small {
            many_servers: true,
            ..quiet
        },
    );
    is_found(Mistake::UnparksEarly, &quiet);
    is_found(Mistake::AnyUser, &with(Budget { users: 1, ..QUIET }));
    is_found(Mistake::RevokesForeign, &Small { foreign: true, ..quiet });
    let lost = Budget {
        forgets: 1,
        strangers: 1,
        tampers: 1,
        ..QUIET
    };
    is_found(Mistake::DropsPlaced, &with(lost));
    is_found(
        Mistake::ReliesOnGivenUp,
        &Small {
            others: (1, 1),
            watched: false,
            ..with(Budget {
                revocations: 1,
                ..QUIET
            })
        },
    );
}
