//! What one look decides: the walk through the stages, waits with a deadline, and the reaction to another writer.

use engine::direction::Direction::{self, Forward, RollForward, Rollback};
use engine::phase::Phase;
use engine::plan::Placeholder;
use engine::rotation::{Decision, Next, Repeats, Timer, decide};
use engine::run::Run;
use rstest::rstest;

use crate::scripted::{Reply, Script, Scripted, run_in};

fn turn_back(reason: &str) -> Next<Scripted> {
    Next::Turn {
        to: Rollback,
        reason: reason.to_owned(),
    }
}

/// A run in *prove* whose `--timeout` has passed.
fn timed_out(direction: Direction) -> Run<Scripted> {
    let mut run = run_in(Phase::Prove, direction);
    run.timers.insert(Timer::Proof, true);
    run
}

#[rstest]
#[case(Phase::Survey, Phase::Make)]
#[case(Phase::Make, Phase::Make)]
#[case(Phase::Place, Phase::Place)]
#[case(Phase::Prove, Phase::Prove)]
#[case(Phase::Retire, Phase::Retire)]
#[case(Phase::Confirm, Phase::Confirm)]
fn first_stage_that_is_not_passed_decides(#[case] stage: Phase, #[case] phase: Phase) {
    let decision = decide(&Script::new(stage, Reply::Wait), &run_in(Phase::Survey, Forward));
    let next = Next::wait("it");
    assert_eq!(decision, Decision { phase, next });
}

#[test]
fn guard_decides_in_the_phase_of_the_run() {
    let script = Script::new(Phase::Survey, Reply::Wait);
    assert_eq!(decide(&script, &run_in(Phase::Confirm, Forward)).phase, Phase::Confirm);
}

#[test]
fn run_whose_stages_are_all_passed_is_done() {
    let script = Script::new(Phase::Make, Reply::Pass);
    for direction in Direction::ALL {
        let decision = decide(&script, &run_in(Phase::Survey, direction));
        let (phase, next) = (Phase::Confirm, Next::Done);
        assert_eq!(decision, Decision { phase, next });
    }
}

#[test]
fn wait_starts_the_deadline_of_the_proof() {
    let script = Script::new(Phase::Make, Reply::WaitUntilTimeout);
    let next = decide(&script, &run_in(Phase::Make, Forward)).next;
    assert_eq!(next, Next::wait("it").starting(Timer::Proof));
}

#[test]
fn wait_turns_back_when_timeout_expires() {
    let wait = Script::new(Phase::Prove, Reply::WaitUntilTimeout);
    assert_eq!(
        decide(&wait, &timed_out(Forward)).next,
        turn_back("still waiting for it when --timeout expired")
    );
    let why = Script::new(Phase::Prove, Reply::WaitBecause("no pod is ready"));
    assert_eq!(
        decide(&why, &timed_out(Forward)).next,
        turn_back("still waiting for it when --timeout expired: no pod is ready")
    );
}

#[test]
fn wait_of_a_proven_run_has_no_deadline() {
    let mut run = timed_out(Forward);
    run.timers.insert(Timer::Quiet, false);
    let script = Script::new(Phase::Prove, Reply::WaitUntilTimeout);
    assert_eq!(decide(&script, &run).next, Next::wait("it"));
}

#[test]
fn wait_of_a_run_that_cannot_turn_back_has_no_deadline() {
    let script = Script::new(Phase::Make, Reply::WaitUntilTimeout);
    for direction in [Rollback, RollForward] {
        assert_eq!(decide(&script, &timed_out(direction)).next, Next::wait("it"));
    }
    let retiring = Run {
        phase: Phase::Retire,
        ..timed_out(Forward)
    };
    assert_eq!(decide(&script, &retiring).next, Next::wait("it"));
    let not_restorable = Script {
        is_restorable: false,
        ..script
    };
    assert_eq!(decide(&not_restorable, &timed_out(Forward)).next, Next::wait("it"));
}

/// How often the run reapplies before it decides otherwise, and what it decides then.
fn reapplies(script: &Script, mut run: Run<Scripted>) -> (usize, Next<Scripted>) {
    for times in 0..10 {
        let decision = decide(script, &run);
        let Next::Step(intent) = &decision.next else {
            return (times, decision.next);
        };
        assert_eq!(intent.repeats, Repeats::Reapply("GitOps".to_owned()));
        run.advance(script, &decision, &mut Placeholder);
        run.succeeded(&intent.repeats);
    }
    (10, decide(script, &run).next)
}

#[test]
fn run_turns_back_when_it_would_reapply_for_the_third_time() {
    let script = Script::new(Phase::Place, Reply::Reapply);
    let (times, next) = reapplies(&script, run_in(Phase::Place, Forward));
    assert_eq!((times, next), (2, turn_back("GitOps keeps writing the old state back")));
}

#[test]
fn run_that_cannot_turn_back_keeps_reapplying() {
    let script = Script::new(Phase::Place, Reply::Reapply);
    for run in [run_in(Phase::Place, Rollback), run_in(Phase::Retire, Forward)] {
        assert_eq!(reapplies(&script, run).0, 10);
    }
}

#[test]
fn quiet_time_passes_with_its_timer_or_where_nothing_is_taken_away() {
    let script = Script::new(Phase::Prove, Reply::WaitForQuiet);
    let mut run = run_in(Phase::Prove, Forward);
    for timer in [None, Some(false)] {
        timer.map(|passed| run.timers.insert(Timer::Quiet, passed));
        let next = decide(&script, &run).next;
        assert_eq!(next, Next::wait("quiet").starting(Timer::Quiet));
    }
    let nothing_left = Script {
        takes_away: false,
        ..script.clone()
    };
    assert_eq!(decide(&nothing_left, &run).next, Next::Done);
    run.timers.insert(Timer::Quiet, true);
    assert_eq!(decide(&script, &run).next, Next::Done);
}
