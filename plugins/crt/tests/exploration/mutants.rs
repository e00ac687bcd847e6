//! Planted mistakes, each of which the model checker must find.

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use kubectl_crt::rotation::observed::{AgentConnection, DownstreamIdentity, Kind, Observed, Plans, Pod};
use kubectl_crt::rotation::record::Mark;
use model::explore;
use rancher::TokenStorage;

use crate::environment::{Budget, CrtModel, ENDLESS, Run, Variant};
use crate::provisioned::provisioned;
use crate::{LIMIT, QUIET};

/// A planted mistake in the stages. The model checker must find each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mutant {
    /// The run does not wait for a redeploy that began before.
    NoQuietTime,
    /// What `system` has is overwritten without a temporary token.
    NoTemporaryToken,
    /// The rollout is not held.
    NotHeld,
    /// The old token is revoked while pods with it still exist.
    PodsNotAwaited,
    /// A rollback does not write objects that have the right value already, so a late write is still accepted.
    NoFence,
    /// The agent's own proof is not required.
    NoProof,
    /// Any cluster is accepted as the downstream cluster.
    AnyDownstream,
    /// A token of another cluster is kept valid like one of this cluster.
    KeepsForeignToken,
    /// The quiet time continues although another writer has written.
    QuietNotRestarted,
    /// The claims of the Lease are trusted.
    TrustsLease,
    /// Rancher is triggered again and again.
    RepeatedTrigger,
    /// The rollout is released on the proof of an earlier template.
    EarlierTemplate,
    /// A template that another writer has replaced between two looks counts as the run's own.
    AnyTemplate,
    /// Values that Rancher keeps as the previous ones of other tokens are not looked for.
    NoPreviousOfOthers,
    /// A rollback waits for an agent with the old token, although none worked at the start.
    AlwaysWorked,
    /// What keeps the other value valid is not looked at again.
    ValidOnce,
    /// The value of the start counts as a new one where `system` has it.
    AdoptsOld,
    /// Provisioned: F is the token that it was when the rotation began.
    RemembersFirst,
    /// Provisioned: only `system` is rotated.
    OnlySystem,
    /// Provisioned: the old token is revoked before the plans were applied.
    PlansNotAwaited,
    /// Provisioned: a machine that does not answer is not waited for.
    SilentMachinesIgnored,
    /// Provisioned: a temporary token sorts before F.
    SortsFirst,
    /// Provisioned: F is deleted, so that `system` is the first.
    DeletesFirst,
    /// Provisioned: N is set on F before the rollout is held.
    FirstNotHeld,
}

impl CrtModel {
    /// The observed state as the mutant reports it.
    pub(crate) fn mutated(&self, seen: &Observed, run: Option<&Run>) -> Observed {
        let mut seen = seen.clone();
        let rollback = run.is_some_and(|run| run.direction.is_rollback());
        let target = run.and_then(|run| if rollback { Some(run.record.old) } else { run.record.new });
        match self.mutant {
            Some(Mutant::NoTemporaryToken) => seen.temporary.extend(seen.system.as_ref().map(|system| system.token)),
            Some(Mutant::PodsNotAwaited) => seen.pods.retain(|pod| pod.token == target),
            Some(Mutant::NoFence) => {
                seen.deployment_direction = Some(Direction::Rollback);
                seen.mark = run.filter(|_| rollback).map(Mark::of).or(seen.mark);
            }
            Some(Mutant::NoProof) => {
                let address = seen.address;
                seen.connected = target.map(|token| AgentConnection { token, address });
            }
            Some(Mutant::AnyTemplate) => {
                let placed = run.and_then(|run| run.record.restarted_at.clone());
                seen.restarted_at = placed.or(seen.restarted_at);
            }
            Some(Mutant::ValidOnce) if seen.system.as_ref().map(|system| system.token) == target => {
                let other = run.and_then(|run| if rollback { run.record.new } else { Some(run.record.old) });
                seen.others.extend(other.map(|other| ("kept".to_owned(), other)));
            }
            Some(Mutant::NoPreviousOfOthers) => seen.others_previous.clear(),
            Some(Mutant::OnlySystem) => seen.kind = Kind::Imported,
            Some(Mutant::FirstNotHeld) if run.is_some_and(|run| run.phase < Phase::Place) => seen.held = true,
            _ => self.mutate_plans(&mut seen, target),
        }
        match self.mutant {
            Some(Mutant::AnyDownstream) => seen.downstream = DownstreamIdentity::Proven,
            Some(Mutant::KeepsForeignToken) => seen.foreign.clear(),
            Some(Mutant::RepeatedTrigger) => seen.trigger.iter_mut().for_each(|trigger| trigger.overdue = true),
            Some(Mutant::EarlierTemplate) => {
                let address = seen.address;
                seen.connected
                    .iter_mut()
                    .for_each(|connected| connected.address = address);
                let pods = std::mem::take(&mut seen.pods).into_iter();
                seen.pods = pods.map(|pod| Pod { address, ..pod }).collect();
            }
            _ => {}
        }
        seen
    }
}

impl CrtModel {
    fn mutate_plans(&self, seen: &mut Observed, target: Option<Fingerprint>) {
        let Kind::Provisioned(provisioned) = &mut seen.kind else {
            return;
        };
        match (self.mutant, &mut provisioned.plans) {
            (Some(Mutant::RemembersFirst), _) => {
                provisioned
                    .first
                    .iter_mut()
                    .for_each(|first| "default-token".clone_into(&mut first.name));
            }
            (Some(Mutant::PlansNotAwaited), Plans::Read(machines)) => {
                for machine in machines.values_mut() {
                    (machine.planned, machine.applied, machine.is_applied) = (target, target, true);
                }
            }
            (Some(Mutant::SilentMachinesIgnored), _) => provisioned.machine_forced = true,
            _ => {}
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "each test gives a model of its own")]
#[track_caller]
fn is_found(mutant: Mutant, model: CrtModel) {
    let model = CrtModel {
        mutant: Some(mutant),
        ..model
    };
    match explore(&model, LIMIT) {
        Ok(explored) => panic!("{mutant:?} was not found in {explored}"),
        Err(counterexample) => println!(
            "{mutant:?} found after {} moves: {}: {}",
            counterexample.trace.len(),
            counterexample.because.lines().next().unwrap_or_default(),
            counterexample.trace.join("; ")
        ),
    }
}

#[test]
fn mutants_are_found() {
    let redeploy = Budget { redeploys: 1, ..QUIET };
    is_found(
        Mutant::NoQuietTime,
        CrtModel::new(TokenStorage::Status, Variant::RedeployInProgress, redeploy),
    );
    is_found(
        Mutant::NoTemporaryToken,
        CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET),
    );
    is_found(
        Mutant::NotHeld,
        CrtModel {
            new_agents_fail: true,
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET)
        },
    );
    is_found(
        Mutant::PodsNotAwaited,
        CrtModel::new(TokenStorage::Status, Variant::Ordinary, redeploy),
    );
    is_found(
        Mutant::NoFence,
        CrtModel {
            others: (1, 1),
            young: true,
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET)
        },
    );
    is_found(
        Mutant::NoProof,
        CrtModel {
            new_agents_fail: true,
            ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, QUIET)
        },
    );
    is_found(
        Mutant::AnyDownstream,
        CrtModel::new(TokenStorage::Status, Variant::WrongDownstream, QUIET),
    );
    is_found(
        Mutant::KeepsForeignToken,
        CrtModel::new(TokenStorage::Status, Variant::ForeignAgent, QUIET),
    );
    is_found(
        Mutant::KeepsForeignToken,
        CrtModel::new(TokenStorage::Secret, Variant::ForeignAgent, QUIET),
    );
    let once = Budget { reapplies: 2, ..QUIET };
    is_found(
        Mutant::QuietNotRestarted,
        CrtModel::new(TokenStorage::Status, Variant::Ordinary, once),
    );
    is_found(
        Mutant::QuietNotRestarted,
        CrtModel::new(TokenStorage::Secret, Variant::Ordinary, once),
    );
    is_found(
        Mutant::AnyTemplate,
        CrtModel {
            young: true,
            ..CrtModel::new(
                TokenStorage::Secret,
                Variant::Ordinary,
                Budget {
                    reapplies: ENDLESS,
                    ..QUIET
                },
            )
        },
    );
    is_found(
        Mutant::TrustsLease,
        CrtModel {
            forgeries: 1,
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET)
        },
    );
    is_found(
        Mutant::NoPreviousOfOthers,
        CrtModel::new(
            TokenStorage::Secret,
            Variant::Ordinary,
            Budget { rotations: 1, ..QUIET },
        ),
    );
    is_found(
        Mutant::AlwaysWorked,
        CrtModel {
            old_agents_fail: true,
            new_agents_fail: true,
            young: true,
            ..CrtModel::new(TokenStorage::Status, Variant::Ordinary, QUIET)
        },
    );
    is_found(
        Mutant::RepeatedTrigger,
        CrtModel::new(TokenStorage::Secret, Variant::Ordinary, QUIET),
    );
    is_found(
        Mutant::EarlierTemplate,
        CrtModel {
            unreachable: true,
            ..CrtModel::new(TokenStorage::Secret, Variant::Ordinary, Budget { settings: 1, ..QUIET })
        },
    );
    let withdrawals = Budget {
        withdrawals: 1,
        ..QUIET
    };
    is_found(
        Mutant::ValidOnce,
        CrtModel::new(TokenStorage::Status, Variant::Ordinary, withdrawals),
    );
    is_found(
        Mutant::ValidOnce,
        CrtModel::new(TokenStorage::Secret, Variant::Ordinary, withdrawals),
    );
    is_found(
        Mutant::AdoptsOld,
        CrtModel::new(
            TokenStorage::Status,
            Variant::SystemElsewhere,
            Budget { admins: 1, ..QUIET },
        ),
    );
}

#[test]
fn mutants_of_provisioned_clusters_are_found() {
    let model = |budget| provisioned(1, TokenStorage::Status, Variant::Ordinary, budget);
    is_found(Mutant::RemembersFirst, model(Budget { firsts: 1, ..QUIET }));
    is_found(Mutant::OnlySystem, model(QUIET));
    is_found(Mutant::PlansNotAwaited, model(QUIET));
    is_found(
        Mutant::PlansNotAwaited,
        CrtModel {
            others: (0, 1),
            ..model(QUIET)
        },
    );
    is_found(Mutant::NoQuietTime, model(Budget { starts: 1, ..QUIET }));
    is_found(
        Mutant::SilentMachinesIgnored,
        provisioned(
            2,
            TokenStorage::Secret,
            Variant::Ordinary,
            Budget { deaths: 1, ..QUIET },
        ),
    );
    // A previous value that Rancher's own rotation has left, and that is in use, is overwritten.
    is_found(
        Mutant::NoPreviousOfOthers,
        provisioned(1, TokenStorage::Secret, Variant::FirstRotated, QUIET),
    );
    is_found(Mutant::SortsFirst, model(QUIET));
    is_found(
        Mutant::DeletesFirst,
        provisioned(1, TokenStorage::Secret, Variant::Ordinary, QUIET),
    );
    is_found(
        Mutant::FirstNotHeld,
        CrtModel {
            new_agents_fail: true,
            ..model(Budget { events: 1, ..QUIET })
        },
    );
}
