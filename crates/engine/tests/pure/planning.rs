//! The plan is `decide` folded over its own predictions.

use client::secret::Fingerprint;
use engine::phase::{Goal, Phase};
use engine::plan::{NoPlan, Placeholder, Planned, plan};
use engine::protocol::{Next, Protocol, Run, RunId};

use crate::badge::{Badge, Notes, View, Worn, Write};

fn old() -> Fingerprint {
    Fingerprint::of("old")
}

fn view() -> View {
    let worn = Worn {
        badge: old(),
        mark: None,
    };
    View {
        issued: [old()].into(),
        accepted: [old()].into(),
        handed: Some(worn.clone()),
        called: Some(worn),
        closed: false,
    }
}

fn run(goal: Goal, phase: Phase, new: Option<Fingerprint>) -> Run<Badge> {
    Run {
        id: RunId::placeholder(),
        goal,
        phase,
        notes: Notes {
            old: old(),
            new,
            mark: None,
        },
        timers: [].into(),
        put_back: 0,
    }
}

fn lines(steps: &[Planned<Write>]) -> String {
    let new = Placeholder::fingerprint().to_string();
    let line = |step: &Planned<Write>| match step {
        Planned::Write { phase, write } => format!("{phase:<8}{write}\n"),
        Planned::Wait { phase, what } => format!("{phase:<8}wait for {what}\n"),
    };
    steps
        .iter()
        .map(line)
        .collect::<String>()
        .replace(&new, "<new>")
        .replace(&old().to_string(), "<old>")
}

#[test]
fn a_rotation_is_planned_from_its_first_step_to_its_last() {
    let plan = plan::<Badge>(view(), None).unwrap();
    assert_eq!((plan.goal, plan.notes.old), (Goal::Forward, old()));
    insta::assert_snapshot!(lines(&plan.steps), @"
    make    issue a new badge
    make    wait for the issuer to accept <new>
    place   hand <new> to the consumer
    prove   wait for a call with <new>
    retire  revoke <old>
    confirm wait for the issuer to refuse <old>
    ");
}

#[test]
fn a_rollback_is_planned_from_where_the_rotation_stands() {
    let new = Fingerprint::of("new");
    let mut view = view();
    view.issued.insert(new);
    view.accepted.insert(new);
    let plan = plan(view, Some(run(Goal::Back, Phase::Make, Some(new)))).unwrap();
    assert_eq!(plan.goal, Goal::Back);
    insta::assert_snapshot!(lines(&plan.steps).replace(&new.to_string(), "<new>"), @"
    place   hand <old> to the consumer
    prove   wait for a call with <old>
    retire  revoke <new>
    confirm wait for the issuer to refuse <new>
    ");
}

#[test]
fn what_is_at_its_end_has_an_empty_plan() {
    let plan = plan(view(), Some(run(Goal::Back, Phase::Survey, None))).unwrap();
    assert_eq!(plan.steps, []);
}

#[test]
fn what_would_be_refused_has_no_plan() {
    let closed = View { closed: true, ..view() };
    let Err(NoPlan::Refused(obstacles)) = plan::<Badge>(closed, None) else {
        panic!("a plan for what is refused")
    };
    assert_eq!(obstacles[0].reason, "the issuer is closed");
}

/// Waits for what does not come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiter;

impl Protocol for Waiter {
    type View = bool;
    type Notes = ();
    type Write = String;
    type Timer = ();

    fn decide(goes_round: &bool, run: Option<&Run<Self>>) -> Next<Self> {
        match run {
            None => Next::Begin(()),
            Some(_) if *goes_round => Next::write(Phase::Make, "the same again".to_owned()),
            Some(_) => Next::wait(Phase::Make, "what does not come"),
        }
    }
    fn recall(_: &bool, _: &Run<Self>) -> Option<()> {
        Some(())
    }
    fn predict(_: &mut bool, _: &Run<Self>, _: &String) {}
    fn rest(_: &mut bool, _: &mut Run<Self>) {}
    fn intend(_: &String, _: &Run<Self>, _: &mut dyn engine::protocol::Draw) {}
}

#[test]
fn a_plan_that_waits_or_goes_round_without_end_is_stuck() {
    let stuck = |goes_round| plan::<Waiter>(goes_round, None).map(|plan| plan.steps.len());
    assert_eq!(stuck(false), Err(NoPlan::Stuck("what does not come".into())));
    assert_eq!(stuck(true), Err(NoPlan::Stuck("more steps than a rotation has".into())));
}
