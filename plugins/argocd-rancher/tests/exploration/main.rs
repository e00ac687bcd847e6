//! The real stages, walked through every state of a model of Argo CD, Rancher, operators and third parties.
//!
//! The number of states is printed (`cargo test -p kubectl-argocd-rancher --test exploration -- --nocapture`).

#![expect(clippy::print_stdout, reason = "the number of states is part of what the test says")]

mod environment;
mod mutants;
mod plan;

use environment::Disturbance::{self, *};
use environment::Model;
use model::explore;
use mutants::Mutant;

const LIMIT: usize = 1_000_000;

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

/// No disturbance, and one of each of these kinds at a time.
const ALONE: [&[Disturbance]; 9] = [
    &[],
    &[Invalidation],
    &[Revocation],
    &[Expiry],
    &[ThirdParty],
    &[Tampering],
    &[Loss],
    &[Outage],
    &[Ban],
];

/// Those of [`ALONE`] except a few.
fn all_but(few: &'static [Disturbance]) -> impl Iterator<Item = &'static [Disturbance]> {
    let left_out = |one: &&[Disturbance]| one.iter().any(|one| few.contains(one));
    ALONE.into_iter().filter(move |one| !left_out(one))
}

#[test]
fn one_disturbance_and_a_rollback_lose_nothing() {
    for one in all_but(&[]) {
        let model = Model {
            others: (0, 1),
            ..Model::with(one)
        };
        nothing_is_lost(&format!("{one:?} and a rollback"), &model);
    }
}

/// The lost update: Argo CD may write what it has read over the Secret later. A third party that puts O back right before that cannot
/// be observed by polling.
#[test]
fn a_lost_update_beside_another_disturbance_loses_nothing() {
    for two in [
        &[Invalidation, Invalidation],
        &[Revocation, Invalidation],
        &[Expiry, Invalidation],
        &[Tampering, Invalidation],
        &[Loss, Invalidation],
        &[Outage, Invalidation],
        &[Ban, Invalidation],
    ] {
        nothing_is_lost(&format!("{two:?}"), &Model::with(two));
    }
    let model = Model {
        others: (0, 1),
        ..Model::with(&[Invalidation, Invalidation, Sync])
    };
    nothing_is_lost("two invalidations, a sync and a rollback", &model);
}

#[test]
fn a_former_holder_loses_nothing() {
    for one in all_but(&[Revocation, Expiry]) {
        let model = Model {
            others: (1, 0),
            ..Model::with(one)
        };
        nothing_is_lost(&format!("a former holder and {one:?}"), &model);
    }
}

#[test]
fn a_former_holder_and_a_rollback_lose_nothing() {
    for one in all_but(&[Revocation, Expiry, ThirdParty, Tampering, Outage, Ban]) {
        let model = Model {
            others: (1, 1),
            watched: false,
            ..Model::with(one)
        };
        nothing_is_lost(&format!("a former holder, a rollback and {one:?}"), &model);
    }
}

#[test]
fn what_a_former_holder_creates_late_is_needed_by_nothing() {
    let model = Model {
        others: (1, 1),
        late_creates: true,
        ..Model::with(&[Loss])
    };
    nothing_is_lost("late creates, a lost value and a rollback", &model);
}

#[test]
fn a_cluster_without_applications_loses_nothing() {
    let lost_update: &[Disturbance] = &[Invalidation, Application, Sync];
    for some in all_but(&[Revocation, Expiry]).chain([lost_update]) {
        let model = Model {
            others: (0, 1),
            watched: false,
            ..Model::with(some)
        };
        nothing_is_lost(&format!("not watched, {some:?} and a rollback"), &model);
    }
}

#[test]
fn an_old_token_of_another_user_stays_valid() {
    for one in all_but(&[Expiry]) {
        let model = Model {
            others: (0, 1),
            foreign: true,
            watched: false,
            ..Model::with(one)
        };
        nothing_is_lost(&format!("another user's token, {one:?} and a rollback"), &model);
    }
}

#[test]
fn an_expired_old_token_is_replaced() {
    for one in all_but(&[Revocation, Expiry, ThirdParty, Tampering]) {
        let model = Model {
            others: (0, 1),
            expired: true,
            late_proof: true,
            watched: false,
            ..Model::with(one)
        };
        nothing_is_lost(&format!("expired before, {one:?} and a rollback"), &model);
    }
}

#[test]
fn servers_that_learn_late_lose_nothing() {
    for one in all_but(&[Expiry, ThirdParty, Outage, Ban]) {
        let model = Model {
            others: (0, 1),
            many_servers: true,
            ..Model::with(one)
        };
        nothing_is_lost(&format!("several servers, {one:?} and a rollback"), &model);
    }
}

/// A use of N proves only that it was placed once; where Argo CD writes O back, it is not down.
#[test]
fn an_argo_cd_that_is_down_is_waited_for() {
    for one in all_but(&[Invalidation, ThirdParty]) {
        let model = Model {
            argo_down: true,
            ..Model::with(one)
        };
        nothing_is_lost(&format!("Argo CD down, {one:?}"), &model);
    }
}

#[test]
fn a_rancher_that_records_no_last_use_loses_nothing() {
    let model = Model {
        others: (0, 1),
        no_last_use: true,
        ..Model::with(&[Invalidation, Sync])
    };
    nothing_is_lost("no last use, an invalidation, a sync and a rollback", &model);
}

#[test]
fn a_new_token_that_is_never_accepted_is_rolled_back() {
    let cases: [((u8, u8), &[Disturbance]); 2] = [((1, 0), &[]), ((0, 1), &[Invalidation])];
    for (others, some) in cases {
        let model = Model {
            never_accepted: true,
            others,
            ..Model::with(some)
        };
        nothing_is_lost(&format!("never accepted, {some:?}"), &model);
    }
}

/// A client that may write Leases and nothing else can delay a run, and no more; also with an old journal of the same run, and
/// after the run has ended.
#[test]
fn a_forged_journal_loses_nothing() {
    let cases: [(bool, &[Disturbance]); 5] = [
        (false, &[]),
        (true, &[]),
        (false, &[Tampering]),
        (false, &[Loss]),
        (false, &[Invalidation]),
    ];
    for (foreign, some) in cases {
        let model = Model {
            forgeries: 1,
            foreign,
            ..Model::with(some)
        };
        let whose = if foreign { ", another user's token" } else { "" };
        nothing_is_lost(&format!("a forged journal{whose} and {some:?}"), &model);
    }
}

/// GitOps, or a loop that applies a saved Secret.
#[test]
fn another_writer_that_does_not_stop_loses_nothing() {
    for watched in [true, false] {
        let model = Model {
            others: (0, 1),
            watched,
            ..Model::with(&[Reapply, Reapply, Reapply])
        };
        nothing_is_lost(&format!("another writer and a rollback, watched: {watched}"), &model);
    }
}

/// What counts as use comes from Argo CD, whatever else calls with the new token.
#[test]
fn use_by_others_proves_nothing() {
    for one in [&[Call], &[LateSync]] {
        let model = Model {
            argo_down: true,
            ..Model::with(one)
        };
        nothing_is_lost(&format!("Argo CD down, {one:?}"), &model);
    }
}

#[test]
fn other_interference_loses_nothing() {
    let all: [&[Disturbance]; 4] = [&[FailedSync, Call], &[Sharing], &[OtherUser], &[OtherRancher]];
    for some in all {
        let model = Model {
            others: (0, 1),
            ..Model::with(some)
        };
        nothing_is_lost(&format!("{some:?} and a rollback"), &model);
    }
}

#[track_caller]
fn is_found(mutant: Mutant, model: Model) {
    match explore(&Model { mutant, ..model }, LIMIT) {
        Ok(explored) => panic!("{mutant:?} was not found in {explored}"),
        Err(counterexample) => {
            let because = counterexample.because.split(": ").next().unwrap_or_default().to_owned();
            println!("{mutant:?}: {because}, by {}", counterexample.trace.join("; "));
        }
    }
}

#[test]
fn mutants_are_found() {
    let with = Model::with;
    let rolled_back = |model| Model {
        others: (0, 1),
        ..model
    };
    let down = |model| Model {
        argo_down: true,
        ..model
    };
    let foreign = |model| Model { foreign: true, ..model };
    is_found(Mutant::PlacesUnaccepted, with(&[]));
    is_found(Mutant::UnknownIsAccepted, with(&[Outage]));
    is_found(Mutant::NoBackup, with(&[]));
    is_found(Mutant::RevokesBeforePlace, with(&[]));
    is_found(Mutant::NoGrace, with(&[]));
    is_found(Mutant::GraceGoesOn, with(&[ThirdParty]));
    is_found(Mutant::GraceGoesOn, with(&[Reapply]));
    is_found(Mutant::SecretNotReread, with(&[Invalidation]));
    is_found(Mutant::UseNotAwaited, down(with(&[])));
    is_found(Mutant::OwnCallCounts, down(with(&[LateSync])));
    is_found(Mutant::AnyUseCounts, down(with(&[Call])));
    is_found(Mutant::IgnoresFailedSync, with(&[FailedSync]));
    is_found(Mutant::AnyRancher, with(&[OtherRancher]));
    is_found(Mutant::AnyUser, with(&[OtherUser]));
    is_found(Mutant::RevokesShared, with(&[Sharing]));
    is_found(Mutant::RestoresInvalidOld, rolled_back(with(&[Expiry])));
    is_found(Mutant::NoExpiryMargin, rolled_back(with(&[Expiry])));
    is_found(Mutant::OverwritesForeign, with(&[ThirdParty]));
    is_found(Mutant::DeletesBackupEarly, with(&[]));
    is_found(Mutant::NotBackedUpAgain, with(&[Tampering]));
    is_found(Mutant::RevokesForeign, foreign(with(&[])));
    is_found(Mutant::RevokesPlaced, with(&[Loss, ThirdParty, Tampering]));
    let forged = Model {
        forgeries: 1,
        ..foreign(with(&[]))
    };
    is_found(Mutant::TrustsJournal, forged);
    let late = Model {
        others: (1, 1),
        ..with(&[])
    };
    is_found(Mutant::NoFence, late);
    let several = Model {
        many_servers: true,
        ..with(&[])
    };
    is_found(Mutant::NoConfirmation, several);
    let late = Model {
        others: (1, 1),
        watched: false,
        ..with(&[Revocation])
    };
    is_found(Mutant::ReliesOnRevoked, late);
}
