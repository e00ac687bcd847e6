//! The plans and the single conditions of clusters that are not imported.

use kubectl_crt::rotation::observed::{
    DownstreamAccess, GivenMark, Kind, MachinePlan, Plans, Provisioned, Reconfiguration, Trigger,
};

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
    insta::assert_snapshot!(lines(seen, None), @r#"
    make    set a new value on registration token "system"
    make    wait for Rancher to accept <new>
    prove   annotate the cluster, so that Rancher applies the token of "system"
    prove   wait for Rancher to apply <new> itself
    prove   wait for redeploys that Rancher may have begun before (--settle)
    retire  revoke O: drop it as the previous token of "system"
    retire  set a new value on registration token "default-token"
    confirm wait for Rancher to reject O
    "#);
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
    insta::assert_snapshot!(lines(provisioned(1, TokenStorage::Status), None), @r#"
    make    hold the rollout of the agent
    make    create a temporary registration token that keeps O valid
    make    set a new value on registration token "system"
    make    create a temporary registration token that keeps D valid
    make    set <new> on registration token "default-token"
    make    wait for Rancher to accept <new>
    place   create the agent's Secret with <new>
    place   point the agent at <new>, rollout held
    prove   wait for the agent to connect with <new>
    prove   annotate the cluster, so that Rancher applies its tokens and writes the machines' plans
    prove   wait for Rancher to write the plans of the control-plane machines with <new>
    prove   release the rollout
    prove   wait for the agent's other pods to terminate
    prove   wait for redeploys that Rancher may have begun before (--settle)
    retire  revoke D: delete its temporary registration token
    retire  revoke O: delete its temporary registration token
    confirm wait for Rancher to reject O
    confirm delete the agent's Secret with O
    "#);
    insta::assert_snapshot!(lines(provisioned(1, TokenStorage::Secret), None), @r#"
    make    hold the rollout of the agent
    make    set a new value on registration token "system"
    make    set <new> on registration token "default-token"
    make    wait for Rancher to accept <new>
    place   create the agent's Secret with <new>
    place   point the agent at <new>, rollout held
    prove   wait for the agent to connect with <new>
    prove   annotate the cluster, so that Rancher applies its tokens and writes the machines' plans
    prove   wait for Rancher to apply <new> itself
    prove   release the rollout
    prove   wait for the agent's other pods to terminate
    prove   wait for redeploys that Rancher may have begun before (--settle)
    retire  revoke O: drop it as the previous token of "system"
    retire  revoke D: drop it as the previous token of "default-token"
    confirm wait for Rancher to reject O
    confirm delete the agent's Secret with O
    "#);
}

#[test]
fn a_rotation_of_a_hosted_cluster_is_planned() {
    insta::assert_snapshot!(lines(of_kind(ClusterModel::Hosted, TokenStorage::Secret), None), @r#"
    make    set a new value on registration token "system"
    make    wait for Rancher to accept <new>
    place   create the agent's Secret with <new>
    place   point the agent at <new>, rollout held
    prove   wait for the agent to connect with <new>
    prove   annotate the cluster, so that Rancher applies the token of "system"
    prove   wait for Rancher to apply <new> itself
    prove   release the rollout
    prove   wait for the agent's other pods to terminate
    prove   wait for redeploys that Rancher may have begun before (--settle)
    retire  revoke O: drop it as the previous token of "system"
    retire  set a new value on registration token "default-token"
    confirm wait for Rancher to reject O
    confirm delete the agent's Secret with O
    "#);
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
    insta::assert_snapshot!(lines(seen, None), @r#"
    make    hold the rollout of the agent
    make    set a new value on registration token "system"
    make    set <new> on registration token "default-token"
    make    wait for Rancher to accept <new>
    place   create the agent's Secret with <new>
    place   point the agent at <new>, rollout held
    prove   wait for the agent to connect with <new>
    prove   annotate the cluster, so that Rancher applies its tokens and writes the machines' plans
    prove   wait for Rancher to apply <new> itself
    prove   release the rollout
    prove   wait for the agent's other pods to terminate
    prove   stop: control-plane machine m0 has not applied the plan with <new>, and would go back to another value at the next start of the server; nothing is revoked until then
    "#);
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
    insta::assert_snapshot!(lines(seen, Some(run)), @r#"
    make    restore O on registration token "system"
    make    set D on registration token "default-token"
    place   fence the agent's Deployment (bump its resourceVersion)
    "#);
}

fn first(seen: &mut Observed) -> &mut Provisioned {
    match &mut seen.kind {
        Kind::Provisioned(provisioned) => provisioned,
        other => panic!("not provisioned: {other:?}"),
    }
}

fn machine(seen: &mut Observed) -> &mut MachinePlan {
    match &mut first(seen).plans {
        Plans::Read(machines) => machines.values_mut().next().expect("a machine"),
        other @ Plans::Unreadable(_) => panic!("not readable: {other:?}"),
    }
}

/// As `proven`, on a cluster that Rancher provisioned: F has N too, and its machine has applied the plan with it.
fn proven_everywhere(storage: TokenStorage) -> (Observed, Run) {
    let (mut seen, mut run) = proven(storage, Direction::Forward);
    seen.kind = provisioned(1, storage).kind;
    seen.others.insert("default-token".to_owned(), new());
    let (direction, before) = (Direction::Forward, Fingerprint::of("default"));
    seen.given
        .insert("default-token".to_owned(), GivenMark { direction, before });
    if storage == TokenStorage::Secret {
        seen.others_previous.insert("default-token".to_owned(), before);
    } else {
        seen.temporary.insert(before);
    }
    let plan = machine(&mut seen);
    (plan.planned, plan.applied) = (Some(new()), Some(new()));
    run.phase = Phase::Prove;
    (seen, run)
}

const STOP: &str = "stop: control-plane machine m0 has not applied the plan with N, and would go back to another value at the next start of \
                    the server; nothing is revoked until then";

#[test]
fn nothing_is_revoked_before_every_machine_has_applied_the_new_token() {
    for storage in STORAGES {
        let state = proven_everywhere(storage);
        let revokes = |change: &dyn Fn(&mut Observed, &mut Run)| {
            let (mut seen, mut run) = state.clone();
            change(&mut seen, &mut run);
            next(&seen, &run).starts_with("retire: revoke")
        };
        assert!(revokes(&|_, _| {}), "{}", next(&state.0, &state.1));
        assert!(!revokes(&|seen, _| machine(seen).planned = Some(third())));
        assert!(!revokes(&|seen, _| machine(seen).applied = Some(third())));
        assert!(!revokes(&|seen, _| machine(seen).is_applied = false));
        assert!(!revokes(&|_, run| _ = run.timers.insert(Timer::Quiet, false)));
        let silent = |seen: &mut Observed| {
            let plan = machine(seen);
            (plan.is_applied, plan.answers) = (false, false);
        };
        with(&state, |seen, _| silent(seen), STOP);
        assert!(revokes(&|seen, _| {
            silent(seen);
            first(seen).machine_forced = true;
        }));
    }
}

/// Also of a machine that did not answer: its server may have started with the file before, and be applying it while its system-agent
/// writes the one with N.
#[test]
fn the_quiet_time_begins_when_the_last_machine_has_applied_the_new_token() {
    for storage in STORAGES {
        let (seen, run) = proven_everywhere(storage);
        let begins = |change: fn(&mut MachinePlan)| {
            let mut seen = seen.clone();
            change(machine(&mut seen));
            !Crt::stale_timers(&seen, &run).contains(&Timer::Quiet)
        };
        assert!(begins(|_| {}));
        assert!(!begins(|plan| plan.is_applied = false));
        assert!(!begins(|plan| (plan.is_applied, plan.answers) = (false, false)));
        assert!(!begins(|plan| plan.applied = Some(third())));
    }
}

#[test]
fn a_run_that_stops_for_a_machine_extends_the_grace_first() {
    let state = proven_everywhere(TokenStorage::Secret);
    let aging = |name: &str| {
        let (mut seen, run) = state.clone();
        machine(&mut seen).answers = false;
        machine(&mut seen).is_applied = false;
        first(&mut seen).aging.insert(name.to_owned());
        next(&seen, &run)
    };
    assert_eq!(
        aging("system"),
        "prove: keep O valid as the previous token of \"system\" for seven days"
    );
    let default = Fingerprint::of("default");
    assert_eq!(
        aging("default-token"),
        format!("prove: keep {default} valid as the previous token of \"default-token\" for seven days")
    );
}

/// A machine that has brought its plan is not another writer: the run never turns back for it.
#[test]
fn a_file_that_is_applied_late_does_not_count_as_another_writer() {
    for storage in STORAGES {
        let (mut seen, mut run) = proven_everywhere(storage);
        run.reapplied = 2;
        seen.writer = "another writer".to_owned();
        let old_value = Fingerprint::of("default");
        seen.deployed = Some(old_value);
        seen.credentials.remove(&new());
        let machine = machine(&mut seen);
        (machine.applied, machine.is_applied, machine.answers) = (Some(old_value), false, false);
        let state = (seen, run);
        with(&state, |_, _| {}, "place: create the agent's Secret with N");
        let there = |seen: &mut Observed| _ = seen.credentials.insert(new(), Age::Young);
        let again = (state.0.clone(), state.1.clone());
        with(
            &again,
            |seen, _| there(seen),
            "place: point the agent at N, rollout held",
        );
        with(
            &again,
            |seen, _| {
                there(seen);
                seen.deployed = Some(old());
            },
            "place: rollback, another writer keeps writing the old state back",
        );
    }
}

#[test]
fn plans_that_cannot_be_read_are_proven_by_ready_and_only_if_forced() {
    let (mut seen, run) = proven_everywhere(TokenStorage::Secret);
    let trigger = |seen: &Observed, overdue| {
        Some(Trigger {
            token: new(),
            first: seen.planner_renders(),
            overdue,
        })
    };
    first(&mut seen).plans = Plans::Unreadable(Reconfiguration::Finished);
    seen.trigger = trigger(&seen, false);
    assert!(next(&seen, &run).starts_with("refuse: no permission to read the plans"));
    seen.weak_proof_forced = true;
    assert!(next(&seen, &run).starts_with("retire: revoke"));
    for (ready, overdue, expected) in [
        (
            Reconfiguration::InProgress,
            true,
            "wait for the provisioning cluster to be Ready again",
        ),
        (
            Reconfiguration::NotSeen,
            false,
            "wait for the provisioning cluster to leave Ready",
        ),
    ] {
        first(&mut seen).plans = Plans::Unreadable(ready);
        seen.trigger = trigger(&seen, overdue);
        assert_eq!(next(&seen, &run), format!("prove: {expected}"));
    }
    seen.trigger = trigger(&seen, true);
    seen.trigger.iter_mut().for_each(|trigger| trigger.first = None);
    assert!(next(&seen, &run).starts_with("prove: annotate the cluster"));
}

#[test]
fn a_hosted_cluster_is_proven_by_its_own_tunnel() {
    let (mut seen, run) = proven(TokenStorage::Secret, Direction::Forward);
    let run = Run {
        phase: Phase::Prove,
        ..run
    };
    seen.tunnel_works = None;
    assert!(next(&seen, &run).starts_with("retire: "));
    seen.kind = Kind::Hosted;
    assert_eq!(next(&seen, &run), "prove: wait for a call through the agent's tunnel");
    seen.weak_proof_forced = true;
    assert!(next(&seen, &run).starts_with("retire: "));
}

#[test]
fn a_rotation_of_a_provisioned_cluster_is_refused_where_it_could_lose_a_value() {
    let seen = provisioned(1, TokenStorage::Secret);
    let refused = |change: &dyn Fn(&mut Observed)| {
        let mut seen = seen.clone();
        change(&mut seen);
        Crt::survey(&seen).map_err(|blockers| blockers[0].check)
    };
    assert!(refused(&|_| {}).is_ok());
    // Rancher has rotated F, and the agent has its previous value.
    let previous = |seen: &mut Observed| {
        seen.others_previous.insert("default-token".to_owned(), old());
        seen.system.iter_mut().for_each(|system| system.token = third());
    };
    assert_eq!(refused(&previous), Err(None));
    assert_eq!(
        refused(&|seen| first(seen).plans = Plans::Read([].into())),
        Err(None),
        "no machine"
    );
    let unreadable = |seen: &mut Observed| first(seen).plans = Plans::Unreadable(Reconfiguration::NotSeen);
    assert_eq!(refused(&unreadable), Err(Some("weak-proof")));
    let blind = |seen: &mut Observed| seen.access = DownstreamAccess::None;
    assert_eq!(refused(&blind), Err(Some("weak-proof")));
    assert!(
        refused(&|seen| {
            blind(seen);
            unreadable(seen);
            seen.weak_proof_forced = true;
        })
        .is_ok()
    );
}

/// Rancher has rotated F by itself, and a machine still has its previous value.
#[test]
fn a_previous_value_that_is_in_use_is_left_first() {
    let mut seen = provisioned(1, TokenStorage::Secret);
    seen.held = true;
    seen.others_previous.insert("default-token".to_owned(), third());
    machine(&mut seen).applied = Some(third());
    let run = Run::begin(RunId::placeholder(), Crt::survey(&seen).expect("a record"));
    let state = (seen, run);
    with(
        &state,
        |_, _| {},
        "make: annotate the cluster, so that Rancher applies its tokens and writes the machines' plans",
    );
    let set_system = "make: set a new value on registration token \"system\"";
    with(
        &state,
        |seen, _| machine(seen).applied = Some(Fingerprint::of("default")),
        set_system,
    );
    with(&state, |seen, _| _ = seen.temporary.insert(third()), set_system);
    with(
        &state,
        |seen, _| seen.held = false,
        "make: hold the rollout of the agent",
    );
}
