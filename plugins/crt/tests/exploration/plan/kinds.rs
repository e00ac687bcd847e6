//! The plans and the single conditions of clusters that are not imported.

use kubectl_crt::rotation::observed::{DownstreamAccess, Kind, Plans, Provisioned};

use super::*;
use crate::environment::ClusterModel;

#[test]
fn a_rotation_without_permissions_downstream_is_planned() {
    let mut seen = start(TokenStorage::Secret);
    seen.access = DownstreamAccess::None;
    seen.weak_proof_forced = true;
    (seen.deployed, seen.connected) = (None, None);
    seen.pods.clear();
    seen.credentials.clear();
    insta::assert_snapshot!(lines(seen, None), @"");
}

fn of_kind(cluster: ClusterModel, storage: TokenStorage) -> Observed {
    let model = CrtModel {
        cluster,
        young: true,
        ..CrtModel::new(storage, Variant::Ordinary, QUIET)
    };
    model.observed()
}

fn provisioned(machines: u8, storage: TokenStorage) -> Observed {
    let readable = true;
    of_kind(ClusterModel::Provisioned { machines, readable }, storage)
}

#[test]
fn a_rotation_of_a_provisioned_cluster_is_planned() {
    insta::assert_snapshot!(lines(provisioned(1, TokenStorage::Status), None), @"");
    insta::assert_snapshot!(lines(provisioned(1, TokenStorage::Secret), None), @"");
}

#[test]
fn a_rotation_of_a_hosted_cluster_is_planned() {
    insta::assert_snapshot!(lines(of_kind(ClusterModel::Hosted, TokenStorage::Secret), None), @"");
}

#[test]
fn a_machine_that_does_not_answer_ends_the_plan() {
    let mut seen = provisioned(2, TokenStorage::Secret);
    if let Kind::Provisioned(Provisioned {
        plans: Plans::Read(machines),
        ..
    }) = &mut seen.kind
    {
        machines
            .values_mut()
            .take(1)
            .for_each(|machine| machine.answers = false);
    }
    insta::assert_snapshot!(lines(seen, None), @"");
}

#[test]
fn a_rollback_of_a_provisioned_cluster_is_planned() {
    let seen = provisioned(1, TokenStorage::Status);
    let run = Run {
        record: Record {
            new: None,
            ..begun(&seen, Direction::Rollback, Phase::Make).record
        },
        ..begun(&seen, Direction::Rollback, Phase::Make)
    };
    insta::assert_snapshot!(lines(seen, Some(run)), @"");
}
