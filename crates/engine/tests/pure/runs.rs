//! The transition of a run: phases, timers, directions and the count of reapplied steps.

use std::collections::BTreeMap;

use engine::direction::Direction::{self, Forward, RollForward, Rollback};
use engine::phase::Phase;
use engine::plan::Placeholder;
use engine::rotation::{Decision, Next, Repeats, Timer};
use engine::run::Run;
use rstest::rstest;

use crate::scripted::{Reply, Script, Scripted, run_in};

/// Carries a decision out; returns the timers that start.
fn advance(run: &mut Run<Scripted>, timers: &[Timer], phase: Phase, next: Next<Scripted>) -> Vec<Timer> {
    let seen = Script {
        timers: timers.to_vec(),
        ..Script::new(phase, Reply::Pass)
    };
    run.advance(&seen, &Decision { phase, next }, &mut Placeholder)
}

fn step() -> Next<Scripted> {
    Next::step("step".to_owned())
}

fn timers<const N: usize>(timers: [(Timer, bool); N]) -> BTreeMap<Timer, bool> {
    timers.into()
}

#[test]
fn phase_never_moves_back() {
    let mut run = run_in(Phase::Survey, Forward);
    let walk = [Phase::Make, Phase::Prove, Phase::Place, Phase::Retire, Phase::Make];
    let phases = walk.map(|phase| {
        let next = if phase == Phase::Place {
            step()
        } else {
            Next::wait("it")
        };
        advance(&mut run, &[], phase, next);
        run.phase
    });
    let farthest = [Phase::Make, Phase::Prove, Phase::Prove, Phase::Retire, Phase::Retire];
    assert_eq!(phases, farthest);
}

#[test]
fn phase_moves_back_only_when_the_first_step_of_retire_is_refused() {
    let mut run = run_in(Phase::Retire, Forward);
    assert!(!run.refused(Phase::Retire) && run.phase == Phase::Retire);
    assert!(run.refused(Phase::Prove) && run.phase == Phase::Prove);
    assert!(run.may_turn(Rollback));
    assert!(!run.refused(Phase::Make) && run.phase == Phase::Prove);
}

#[rstest]
#[case::refusal(Next::refuse("it is wrong", "mend it"))]
#[case::end(Next::Done)]
fn decision_that_changes_nothing_leaves_the_run_as_it_is(#[case] next: Next<Scripted>) {
    let before = run_in(Phase::Make, Forward);
    let mut run = before.clone();
    assert_eq!(advance(&mut run, &[Timer::Quiet], Phase::Confirm, next), []);
    assert_eq!(run, before);
}

#[test]
fn step_records_its_intent_and_a_wait_does_not() {
    let mut run = run_in(Phase::Make, Forward);
    advance(&mut run, &[], Phase::Make, Next::wait("it"));
    assert_eq!(run.record, 0);
    advance(&mut run, &[], Phase::Make, step());
    assert_eq!(run.record, 1);
}

#[test]
fn step_restarts_its_timers_and_a_wait_leaves_them_running() {
    let mut run = run_in(Phase::Make, Forward);
    run.timers.insert(Timer::Proof, true);
    let wait = Next::wait("it").starting(Timer::Proof).starting(Timer::Retry);
    assert_eq!(advance(&mut run, &[], Phase::Make, wait), [Timer::Retry]);
    assert_eq!(run.timers, timers([(Timer::Proof, true), (Timer::Retry, false)]));
    let step = step().starting(Timer::Proof);
    assert_eq!(advance(&mut run, &[], Phase::Make, step), [Timer::Proof]);
    assert_eq!(run.timers, timers([(Timer::Proof, false), (Timer::Retry, false)]));
}

#[test]
fn stopped_timer_counts_as_never_started() {
    let mut run = run_in(Phase::Prove, Forward);
    run.timers.insert(Timer::Quiet, true);
    advance(&mut run, &[], Phase::Place, step().stopping(Timer::Quiet));
    assert!(!run.passed(Timer::Quiet) && !run.running(Timer::Quiet));
}

#[test]
fn timer_that_starts_by_seeing_starts_once() {
    let mut run = run_in(Phase::Make, Forward);
    let wait = || Next::wait("it");
    assert_eq!(advance(&mut run, &[Timer::Quiet], Phase::Make, wait()), [Timer::Quiet]);
    run.timers.insert(Timer::Quiet, true);
    assert_eq!(advance(&mut run, &[Timer::Quiet], Phase::Make, wait()), []);
    assert!(run.passed(Timer::Quiet));
}

#[test]
fn stale_timer_counts_as_never_started() {
    let mut run = run_in(Phase::Confirm, Forward);
    run.timers = timers([(Timer::Cache, true), (Timer::Proof, true)]);
    let seen = Script {
        stale: vec![Timer::Cache],
        ..Script::new(Phase::Confirm, Reply::Pass)
    };
    let (phase, next) = (Phase::Confirm, Next::wait("it"));
    run.advance(&seen, &Decision { phase, next }, &mut Placeholder);
    assert_eq!(run.timers, timers([(Timer::Proof, true)]));
}

#[test]
fn step_that_stops_a_timer_wins_over_seeing() {
    let mut run = run_in(Phase::Make, Forward);
    let step = step().stopping(Timer::Quiet);
    assert_eq!(advance(&mut run, &[Timer::Quiet], Phase::Make, step), []);
    assert_eq!(run.timers, timers([]));
}

#[test]
fn turn_clears_timers_and_the_count_of_reapplied_steps() {
    let mut run = run_in(Phase::Prove, Forward);
    run.timers = timers([(Timer::Proof, true), (Timer::Quiet, false)]);
    run.succeeded(&Repeats::Reapply("GitOps".to_owned()));
    assert_eq!(run.reapplied, 1);
    let turn = Next::Turn {
        to: Rollback,
        reason: "requested".to_owned(),
    };
    assert_eq!(advance(&mut run, &[Timer::Quiet], Phase::Prove, turn), []);
    assert_eq!(run, run_in(Phase::Prove, Rollback));
}

#[rstest]
#[case::reapplied(Forward, Repeats::Reapply("GitOps".to_owned()), 1)]
#[case::triggered(Forward, Repeats::Trigger, 0)]
#[case::ordinary(Forward, Repeats::Never, 0)]
#[case::in_a_rollback(Rollback, Repeats::Reapply("GitOps".to_owned()), 0)]
#[case::rolling_forward(RollForward, Repeats::Reapply("GitOps".to_owned()), 0)]
fn only_a_reapplied_step_is_counted(#[case] direction: Direction, #[case] repeats: Repeats, #[case] counted: u8) {
    let mut run = run_in(Phase::Place, direction);
    run.succeeded(&repeats);
    assert_eq!(run.reapplied, counted);
}

#[test]
fn run_is_contested_after_two_reapplied_steps() {
    let mut run = run_in(Phase::Place, Forward);
    let contested = [1, 2, 3].map(|_| {
        run.succeeded(&Repeats::Reapply("GitOps".to_owned()));
        run.is_contested()
    });
    assert_eq!(contested, [false, true, true]);
}

#[test]
fn run_may_turn_to_a_later_direction_and_back_only_until_retire() {
    let turns = |phase: Phase| {
        let pairs = Direction::ALL
            .map(|from| Direction::ALL.map(|to| (from, to)))
            .into_iter()
            .flatten();
        let may_turn = |(from, to): &(Direction, Direction)| run_in(phase, *from).may_turn(*to);
        pairs.filter(may_turn).collect::<Vec<_>>()
    };
    for phase in [Phase::Survey, Phase::Make, Phase::Place, Phase::Prove] {
        let all = [(Forward, Rollback), (Forward, RollForward), (Rollback, RollForward)];
        assert_eq!(turns(phase), all, "{phase}");
    }
    for phase in [Phase::Retire, Phase::Confirm] {
        let later = [(Forward, RollForward), (Rollback, RollForward)];
        assert_eq!(turns(phase), later, "{phase}");
    }
}

#[test]
fn step_without_an_answer_restarts_the_wait_for_writes_in_flight() {
    let mut run = run_in(Phase::Place, Forward);
    run.unanswered();
    assert_eq!(run.timers, timers([]), "a rotation that does not use the timer");
    run.timers = timers([(Timer::InFlight, true), (Timer::Proof, true)]);
    run.unanswered();
    assert_eq!(run.timers, timers([(Timer::InFlight, false), (Timer::Proof, true)]));
}

#[test]
fn resumed_run_has_no_timers_and_keeps_everything_else() {
    let mut run = run_in(Phase::Prove, Rollback);
    run.reapplied = 2;
    let claimed = Run {
        timers: timers([(Timer::Quiet, true)]),
        ..run.clone()
    };
    let seen = Script::new(Phase::Make, Reply::Pass);
    assert_eq!(claimed.resumed(&seen), Some(run));
}

#[test]
fn resumed_run_has_the_direction_that_the_objects_confirm() {
    let seen = Script {
        confirms: Some(Rollback),
        ..Script::new(Phase::Make, Reply::Pass)
    };
    let resumed = run_in(Phase::Prove, RollForward).resumed(&seen);
    assert_eq!(resumed, Some(run_in(Phase::Prove, Rollback)));
}
