//! The real `decide`, walked through every state of a small world of Argo CD, Rancher, operators and strangers.
//!
//! The number of states is printed (`cargo test -p kubectl-argocd-rancher --test exploration -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of what the test says")]

mod mistake;
mod world;

use mistake::Mistake;
use rotation::explore::explore;
use world::{Budget, Small};

const LIMIT: usize = 1_000_000;

const QUIET: Budget = Budget {
    invalidations: 0,
    syncs: 0,
    applications: 0,
    revocations: 0,
    expiries: 0,
    strangers: 0,
    tampers: 0,
    forgets: 0,
    users: 0,
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
            assert_eq!(explored.undone > 0, small.never_let_in || small.others.1 > 0, "{name}: {explored}");
        }
        Err(counterexample) => panic!("{name}: {counterexample}"),
    }
}

/// One disturbance of each kind, one kind at a time.
fn each_disturbance() -> [(&'static str, Budget); 8] {
    [
        ("an invalidation", Budget { invalidations: 1, ..QUIET }),
        ("a revocation", Budget { revocations: 1, ..QUIET }),
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
    for (name, budget) in [("nothing else", QUIET)].into_iter().chain(each_disturbance()) {
        let small = Small { others: (0, 1), ..Small::new(budget) };
        nothing_is_lost(&format!("{name} and a rollback"), &small);
    }
}
