//! The plan is the decisions of a rotation, folded over its own predictions.

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::plan::{NoPlan, Placeholder, Plan, plan};
use engine::run::{Run, RunId};

use crate::badge::{Badge, Observed, Record, Worn};
use crate::scripted::{Reply, Script, Scripted, run_in};

fn old() -> Fingerprint {
    Fingerprint::of("old")
}

fn observed() -> Observed {
    let worn = Worn {
        badge: old(),
        mark: None,
    };
    Observed {
        issued: [old()].into(),
        accepted: [old()].into(),
        handed: Some(worn.clone()),
        called: Some(worn),
        closed: false,
    }
}

fn rollback(phase: Phase, new: Option<Fingerprint>) -> Run<Badge> {
    let record = Record {
        old: old(),
        new,
        mark: None,
    };
    Run {
        direction: Direction::Rollback,
        phase,
        ..Run::begin(RunId::placeholder(), record)
    }
}

fn lines(plan: &Plan<Badge>, new: Fingerprint) -> String {
    let names = [(new, "<new>"), (old(), "<old>")];
    names.iter().fold(plan.to_string(), |lines, (badge, name)| {
        lines.replace(&badge.to_string(), name)
    })
}

#[test]
fn rotation_is_planned_from_its_first_step_to_its_last() {
    let plan = plan::<Badge>(observed(), None).unwrap();
    assert_eq!((plan.direction, plan.record.old), (Direction::Forward, old()));
    insta::assert_snapshot!(lines(&plan, Placeholder::fingerprint()), @"
    make    issue a new badge
    make    wait for the issuer to accept <new>
    place   hand <new> to the consumer
    prove   wait for a call with <new>
    retire  revoke <old>
    confirm wait for the issuer to reject <old>
    ");
}

#[test]
fn rollback_is_planned_from_where_the_rotation_stopped() {
    let new = Fingerprint::of("new");
    let mut seen = observed();
    seen.issued.insert(new);
    seen.accepted.insert(new);
    let plan = plan(seen, Some(rollback(Phase::Make, Some(new)))).unwrap();
    assert_eq!(plan.direction, Direction::Rollback);
    insta::assert_snapshot!(lines(&plan, new), @"
    place   hand <old> to the consumer
    prove   wait for a call with <old>
    retire  revoke <new>
    confirm wait for the issuer to reject <new>
    ");
}

#[test]
fn run_at_its_end_has_an_empty_plan() {
    let plan = plan(observed(), Some(rollback(Phase::Survey, None))).unwrap();
    assert_eq!(plan.steps, []);
}

#[test]
fn rotation_that_would_be_refused_has_no_plan() {
    let closed = Observed {
        closed: true,
        ..observed()
    };
    let Err(NoPlan::Refused(blockers)) = plan::<Badge>(closed, None) else {
        panic!("a plan of a rotation that would be refused")
    };
    assert_eq!(blockers[0].reason, "the issuer is closed");
}

#[test]
fn plan_without_an_end_is_stuck() {
    let stuck = |reply| {
        let planned = plan::<Scripted>(Script::new(Phase::Make, reply), None);
        planned.map(|plan| plan.steps.len()).unwrap_err()
    };
    assert_eq!(stuck(Reply::Wait), NoPlan::Stuck("it".into()));
    assert_eq!(
        stuck(Reply::Step),
        NoPlan::Stuck("more steps than a rotation has".into())
    );
}

#[test]
fn rollback_that_is_not_possible_is_planned_forward() {
    let script = Script::new(Phase::Make, Reply::RollForward);
    let plan = plan(script, Some(run_in(Phase::Place, Direction::Rollback))).unwrap();
    assert_eq!((plan.direction, plan.steps.len()), (Direction::RollForward, 0));
}
