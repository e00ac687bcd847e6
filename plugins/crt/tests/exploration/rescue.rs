//! The model of a rescue: a cluster whose agent has lost its token, Rancher, Kubernetes, and two operators.

mod environment;
mod moves;

use engine::plan::plan;
use engine::rotation::{Next, Rotation as _, decide};
use engine::run::RunId;
use kubectl_crt::rotation::observed::{DownstreamIdentity, Observed};
use kubectl_crt::rotation::rescue::Rescue;
use model::{Environment as _, explore};
use rancher::TokenStorage;

use self::environment::{Loss, Mutant, RescueModel, Run};

const LIMIT: usize = 600_000;

const LOSSES: [Loss; 8] = [
    Loss::Revoked,
    Loss::TunnelOpen,
    Loss::NoSecret,
    Loss::Foreign,
    Loss::NoTokens,
    Loss::Overwritten,
    Loss::OverwrittenOpen,
    Loss::NameTaken,
];

#[track_caller]
fn comes_back(name: &str, model: &RescueModel) {
    let began = std::time::Instant::now();
    match explore(model, LIMIT) {
        Ok(explored) => {
            println!("{name}: {explored}; {:.1?}", began.elapsed());
            assert!(explored.done > 0, "{name}: {explored}");
            assert!(explored.rolled_back > 0 || model.others.1 == 0, "{name}: {explored}");
        }
        Err(counterexample) => panic!("{name}: {counterexample}"),
    }
}

fn each(mut test: impl FnMut(&str, RescueModel)) {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        for loss in LOSSES {
            test(
                &format!("{loss:?}, {storage:?}, direct"),
                RescueModel::new(loss, storage, true),
            );
        }
        for loss in [
            Loss::Revoked,
            Loss::NoTokens,
            Loss::TunnelOpen,
            Loss::Overwritten,
            Loss::OverwrittenOpen,
        ] {
            let name = format!("{loss:?}, {storage:?}, by its agent");
            test(&name, RescueModel::new(loss, storage, false));
        }
    }
}

#[test]
fn every_lost_agent_comes_back() {
    each(|name, model| comes_back(name, &model));
}

#[test]
fn a_former_holder_and_a_rollback_lose_nothing() {
    each(|name, model| {
        comes_back(
            name,
            &RescueModel {
                others: (1, 1),
                ..model
            },
        );
    });
}

#[test]
fn a_tunnel_that_breaks_loses_nothing() {
    each(|name, model| {
        let model = RescueModel { breaks: 1, ..model };
        comes_back(name, &model);
    });
}

#[test]
fn a_grace_period_that_ends_too_early_loses_nothing() {
    for loss in [Loss::Revoked, Loss::NoTokens] {
        let model = RescueModel {
            ends: 1,
            others: (0, 1),
            ..RescueModel::new(loss, TokenStorage::Secret, false)
        };
        comes_back(&format!("{loss:?}"), &model);
    }
}

/// Nothing is begun, and so nothing is changed.
#[test]
fn without_a_way_it_is_refused() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        let without = RescueModel {
            reactivates: false,
            ..RescueModel::new(Loss::Revoked, storage, false)
        };
        let foreign = RescueModel {
            foreign: true,
            ..RescueModel::new(Loss::Revoked, storage, false)
        };
        for model in [without, foreign] {
            let world = &model.starts()[0];
            assert!(model.survey(&world.seen).is_err());
            assert_eq!(explore(&model, LIMIT).map(|explored| explored.done).ok(), Some(0));
        }
    }
}

/// The context is only trusted, and may lead to the cluster whose token its agent has.
#[test]
fn an_agent_is_not_taken_from_another_cluster() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        let model = RescueModel::new(Loss::Foreign, storage, true);
        let mut seen = model.observed();
        seen.downstream = DownstreamIdentity::Trusted;
        assert!(Rescue::survey(&seen).is_err());
        // Found out in a run that has begun.
        let begun = model.observed();
        let run = Run::begin(RunId::placeholder(), Rescue::survey(&begun).expect("it can begin"));
        assert!(matches!(decide(&seen, &run).next, Next::Refuse(_)));
        let lost = RescueModel::new(Loss::Revoked, storage, true).observed();
        let trusted = Observed {
            downstream: DownstreamIdentity::Trusted,
            ..lost
        };
        assert!(Rescue::survey(&trusted).is_ok());
    }
}

#[track_caller]
fn is_found(mutant: Mutant, mut model: RescueModel) {
    model.mutant = Some(mutant);
    let found = explore(&model, LIMIT);
    assert!(found.is_err(), "{mutant:?} is not found: {found:?}");
}

#[test]
fn each_planted_mistake_is_found() {
    let by_agent = |storage| RescueModel::new(Loss::Revoked, storage, false);
    is_found(Mutant::NoEnd, by_agent(TokenStorage::Secret));
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        is_found(Mutant::NotRetired, by_agent(storage));
        is_found(Mutant::NoProof, RescueModel::new(Loss::TunnelOpen, storage, true));
        is_found(Mutant::NotHeld, RescueModel::new(Loss::TunnelOpen, storage, true));
        let without = RescueModel {
            reactivates: false,
            ..by_agent(storage)
        };
        is_found(Mutant::WithoutFlag, without);
        for loss in [Loss::Overwritten, Loss::NameTaken] {
            is_found(Mutant::ByName, RescueModel::new(loss, storage, true));
            is_found(Mutant::NotFreed, RescueModel::new(loss, storage, true));
        }
        let foreign = RescueModel {
            foreign: true,
            ..by_agent(storage)
        };
        is_found(Mutant::AnyCluster, foreign);
    }
}

#[test]
fn the_plan_of_each_way() {
    let mut plans = Vec::new();
    each(|name, model| {
        let world = &model.starts()[0];
        let plan =
            plan::<Rescue>(model.view(&world.seen), None).map_or_else(|why| why.to_string(), |plan| plan.to_string());
        plans.push(format!("{name}:\n{plan}\n"));
    });
    insta::assert_snapshot!(plans.join("\n"));
}
