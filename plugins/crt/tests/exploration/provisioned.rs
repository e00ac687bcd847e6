//! The model of clusters that are not imported.

use rancher::TokenStorage;

use crate::environment::planner::storages;
use crate::environment::{Budget, ClusterModel, CrtModel, Variant};
use crate::{QUIET, nothing_is_lost};

pub(crate) fn provisioned(machines: u8, storage: TokenStorage, variant: Variant, budget: Budget) -> CrtModel {
    CrtModel {
        cluster: ClusterModel::Provisioned {
            machines,
            readable: true,
        },
        young: true,
        ..CrtModel::new(storage, variant, budget)
    }
}

#[test]
fn provisioned_clusters_lose_nothing() {
    for variant in [
        Variant::Ordinary,
        Variant::Shared,
        Variant::SystemElsewhere,
        Variant::FirstRotated,
    ] {
        for storage in storages(variant) {
            let name = format!("provisioned, {variant:?}, {storage}");
            nothing_is_lost(&name, &provisioned(1, *storage, variant, QUIET));
        }
    }
}

/// One disturbance of each kind, one kind at a time.
fn each_disturbance() -> [(&'static str, Budget); 5] {
    [
        ("an event", Budget { events: 1, ..QUIET }),
        ("a start", Budget { starts: 1, ..QUIET }),
        ("a redeploy", Budget { redeploys: 1, ..QUIET }),
        ("a reconnect", Budget { reconnects: 1, ..QUIET }),
        ("a new first token", Budget { firsts: 1, ..QUIET }),
    ]
}

#[test]
fn one_disturbance_of_a_provisioned_cluster_loses_nothing() {
    for (name, budget) in each_disturbance() {
        for storage in [TokenStorage::Status, TokenStorage::Secret] {
            nothing_is_lost(
                &format!("provisioned, {name}, {storage}"),
                &provisioned(1, storage, Variant::Ordinary, budget),
            );
        }
    }
}

#[test]
fn a_rollback_of_a_provisioned_cluster_loses_nothing() {
    for (variant, storages) in [
        (Variant::Ordinary, &[TokenStorage::Status][..]),
        (Variant::Shared, storages(Variant::Shared)),
        (Variant::SystemElsewhere, storages(Variant::SystemElsewhere)),
    ] {
        for storage in storages {
            let model = CrtModel {
                others: (0, 1),
                ..provisioned(1, *storage, variant, QUIET)
            };
            nothing_is_lost(&format!("provisioned, a rollback, {variant:?}, {storage}"), &model);
        }
    }
}

/// The rescue of a cluster whose machines answer is its rotation: the plans bring the agent back.
#[test]
fn a_lost_agent_comes_back_by_its_machines() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        for (machines, others, budget) in [
            (1, (0, 0), QUIET),
            (2, (0, 0), QUIET),
            (1, (1, 0), QUIET),
            (1, (0, 1), QUIET),
            (1, (0, 0), Budget { events: 1, ..QUIET }),
            (1, (0, 0), Budget { starts: 1, ..QUIET }),
        ] {
            let model = CrtModel {
                others,
                ..provisioned(machines, storage, Variant::LostAgent, budget)
            };
            nothing_is_lost(
                &format!("a lost agent, {machines} machines, {others:?}, {storage}"),
                &model,
            );
        }
    }
}

/// It is waited for, or deleted. Nothing is revoked before.
#[test]
fn a_machine_that_does_not_answer_loses_nothing() {
    let dies = Budget { deaths: 1, ..QUIET };
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        nothing_is_lost(
            &format!("provisioned, a silent machine, {storage}"),
            &provisioned(2, storage, Variant::Ordinary, dies),
        );
    }
}

#[test]
fn a_rollback_with_a_machine_that_does_not_answer_loses_nothing() {
    let budget = Budget { deaths: 1, ..QUIET };
    // With storage `secret` there are too many states.
    let model = CrtModel {
        others: (0, 1),
        ..provisioned(2, TokenStorage::Status, Variant::Shared, budget)
    };
    nothing_is_lost("provisioned, a rollback, a silent machine", &model);
}

#[test]
fn a_former_holder_on_a_provisioned_cluster_loses_nothing() {
    for (storage, others) in [(TokenStorage::Status, (1, 1)), (TokenStorage::Secret, (1, 0))] {
        let model = CrtModel {
            others,
            ..provisioned(1, storage, Variant::Ordinary, QUIET)
        };
        nothing_is_lost(&format!("provisioned, a former holder, {storage}"), &model);
    }
}

#[test]
fn new_agents_that_never_connect_on_a_provisioned_cluster_cause_a_rollback() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        let model = CrtModel {
            new_agents_fail: true,
            ..provisioned(1, storage, Variant::Shared, Budget { events: 1, ..QUIET })
        };
        nothing_is_lost(&format!("provisioned, failing agents, {storage}"), &model);
    }
}

#[test]
fn an_upgrade_in_the_middle_on_a_provisioned_cluster_loses_nothing() {
    let budget = Budget { upgrades: 1, ..QUIET };
    // With a rollback there are too many states: the redeploy that the upgrade brings has N, and so may a file.
    nothing_is_lost(
        "provisioned, an upgrade",
        &provisioned(1, TokenStorage::Status, Variant::Ordinary, budget),
    );
}

#[test]
fn plans_that_cannot_be_read_lose_nothing() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        for (name, budget, rollbacks) in [("a rollback", QUIET, 1), ("an event", Budget { events: 1, ..QUIET }, 0)] {
            let model = CrtModel {
                cluster: ClusterModel::Provisioned {
                    machines: 1,
                    readable: false,
                },
                others: (0, rollbacks),
                ..provisioned(1, storage, Variant::Ordinary, budget)
            };
            nothing_is_lost(&format!("provisioned, no plans, {name}, {storage}"), &model);
        }
    }
}

#[test]
fn hosted_clusters_lose_nothing() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        let model = CrtModel {
            cluster: ClusterModel::Hosted,
            others: (0, 1),
            young: true,
            ..CrtModel::new(storage, Variant::Ordinary, QUIET)
        };
        nothing_is_lost(&format!("hosted, {storage}"), &model);
    }
}

#[test]
fn clusters_that_cannot_be_read_lose_nothing() {
    let model = CrtModel {
        cluster: ClusterModel::Unreadable,
        others: (0, 1),
        young: true,
        ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, QUIET)
    };
    nothing_is_lost("no rights downstream", &model);
}
