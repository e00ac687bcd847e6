//! The journal can be read by another process, and one of another version is left alone.

use std::time::Duration;

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::engine::LONGEST_WRITE;
use engine::journal::{Journal, Unreadable, VERSION};
use engine::phase::Phase;
use engine::plan::Placeholder;
use engine::rotation::{Decision, Next, Timer};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use rstest::rstest;

use crate::badge::{Badge, Observed, Record, Step};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a second of this century")
}

fn journal() -> Journal<Badge> {
    let record = Record {
        old: Fingerprint::of("old"),
        new: Some(Fingerprint::of("new")),
        mark: None,
    };
    Journal::begin(record, "any admin", at(1_700_000_000))
}

fn value(journal: &Journal<Badge>) -> serde_json::Value {
    let text = journal.to_text().expect("it can be written");
    serde_json::from_str(&text).expect("it is JSON")
}

fn read(value: &serde_json::Value) -> Result<Journal<Badge>, Unreadable> {
    Journal::read(&value.to_string())
}

/// Carries a decision into the journal when it was just begun, or so many seconds later.
fn advance(journal: &mut Journal<Badge>, phase: Phase, next: Next<Badge>, later: i64, lasts: Duration) -> bool {
    let seen = Observed {
        issued: [].into(),
        accepted: [].into(),
        handed: None,
        called: None,
        closed: false,
    };
    let now = at(journal.started.as_second() + later);
    journal.advance(&seen, &Decision { phase, next }, &mut Placeholder, now, |_| lasts)
}

fn wait() -> Next<Badge> {
    Next::wait("a call").starting(Timer::Proof)
}

fn any_journal() -> impl Strategy<Value = Journal<Badge>> {
    let text = any::<String>;
    let phase = proptest::sample::select(Phase::ALL.to_vec());
    let direction = proptest::option::of((proptest::sample::select(Direction::ALL.to_vec()), text()));
    let started = 0_i64..4_000_000_000;
    let timer = proptest::option::of(0_u64..4_000_000_000);
    (text(), proptest::option::of(text()), direction, phase, started, timer).prop_map(
        |(by, mark, turn, phase, started, timer)| {
            let record = Record {
                old: Fingerprint::of(&by),
                new: mark.as_deref().map(Fingerprint::of),
                mark,
            };
            let mut journal = Journal::begin(record, by, at(started));
            if let Some((to, reason)) = turn {
                journal.turn(to, reason);
            }
            advance(&mut journal, phase, Next::step(Step::Issue), 0, Duration::ZERO);
            if let Some(seconds) = timer {
                advance(&mut journal, phase, wait(), 0, Duration::from_secs(seconds));
            }
            journal
        },
    )
}

proptest! {
    #[test]
    fn written_journal_is_read_again(journal in any_journal()) {
        let again = read(&value(&journal)).unwrap();
        prop_assert_eq!(value(&again), value(&journal));
        prop_assert_eq!(again.run_at(again.started), journal.run_at(journal.started));
    }

    #[test]
    fn unreadable_text_is_never_quoted(text in any::<String>()) {
        let text = format!("{text}s3cr3t");
        let Err(error) = Journal::<Badge>::read(&text) else { panic!("read {text:?}") };
        prop_assert!(!error.to_string().contains("s3cr3t"), "{}", error);
    }

    #[test]
    fn timer_has_passed_from_its_deadline_on(lasts in 0_u64..1_000_000, later in 0_i64..2_000_000) {
        let mut journal = journal();
        advance(&mut journal, Phase::Prove, wait(), 0, Duration::from_secs(lasts));
        let run = journal.run_at(at(journal.started.as_second() + later));
        prop_assert_eq!(run.passed(Timer::Proof), later >= lasts as i64);
        prop_assert_eq!(run.running(Timer::Proof), later < lasts as i64);
    }
}

#[rstest]
#[case::older(VERSION - 1)]
#[case::newer(VERSION + 1)]
fn journal_of_another_version_is_left_alone_whatever_else_it_holds(#[case] version: u32) {
    let text = format!(r#"{{"version":{version},"phase":"teleport","record":["unknown"]}}"#);
    let error = Journal::<Badge>::read(&text).unwrap_err();
    assert_eq!(error, Unreadable::OtherRelease(version));
}

#[test]
fn message_about_another_version_names_both_ways_out() {
    insta::assert_snapshot!(Unreadable::OtherRelease(2), @"the rotation in progress was begun by another release (journal version 2, this one knows 3): finish it with that release, or discard its journal with --force=journal");
}

#[test]
fn malformed_journal_is_reported_by_position() {
    let mut damaged = value(&journal());
    damaged["record"]["old"] = "hunter2-in-the-wrong-place".into();
    let error = read(&damaged).unwrap_err();
    assert!(matches!(error, Unreadable::Malformed { line: 1, .. }), "{error:?}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let of_this_version = format!(r#"{{"version":{VERSION}}}"#);
    for text in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"version":"1"}"#,
        r#"{"version":-1}"#,
        &of_this_version,
    ] {
        let read = Journal::<Badge>::read(text);
        assert!(matches!(read, Err(Unreadable::Malformed { .. })), "{text}: {read:?}");
    }
}

/// Within one version a field can be added that may be ignored. One that may not needs a new version.
#[test]
fn unknown_field_is_ignored_and_not_saved_again() {
    let mut of_a_later_build = value(&journal());
    of_a_later_build["colour"] = "green".into();
    let again = read(&of_a_later_build).unwrap();
    assert_eq!(again.run().phase, Phase::Survey);
    assert!(!again.to_text().unwrap().contains("green"));
}

#[test]
fn turn_stops_every_timer_and_keeps_the_phase() {
    let mut journal = journal();
    advance(&mut journal, Phase::Prove, wait(), 0, Duration::from_mins(5));
    journal.turn(Direction::Rollback, "no call");
    let run = journal.run_at(journal.started);
    assert_eq!((run.direction, run.phase), (Direction::Rollback, Phase::Prove));
    assert!(!run.running(Timer::Proof) && !run.passed(Timer::Proof));
    assert_eq!(journal.reason.as_deref(), Some("no call"));
}

#[test]
fn decided_turn_is_journaled_with_its_reason() {
    let mut journal = journal();
    let turn = Next::Turn {
        to: Direction::Rollback,
        reason: "no call".to_owned(),
    };
    assert!(advance(&mut journal, Phase::Prove, turn, 0, Duration::ZERO));
    assert_eq!(journal.run().direction, Direction::Rollback);
    assert_eq!(journal.reason.as_deref(), Some("no call"));
}

#[test]
fn wait_changes_the_journal_once_and_keeps_its_deadline() {
    let mut journal = journal();
    let minute = Duration::from_mins(1);
    assert!(advance(&mut journal, Phase::Prove, wait(), 0, minute));
    let deadline = journal.deadline(Timer::Proof);
    assert_eq!(deadline, Some(at(journal.started.as_second() + 60)));
    for later in [10, 100] {
        assert!(!advance(&mut journal, Phase::Prove, wait(), later, minute));
        assert_eq!(journal.deadline(Timer::Proof), deadline);
    }
    assert!(advance(&mut journal, Phase::Retire, wait(), 100, minute), "a new phase");
}

#[test]
fn step_is_journaled_and_moves_the_deadline_of_the_timer_that_it_starts() {
    let mut journal = journal();
    let minute = Duration::from_mins(1);
    advance(&mut journal, Phase::Make, wait(), 0, minute);
    let issue = Next::step(Step::Issue).starting(Timer::Proof);
    assert!(advance(&mut journal, Phase::Make, issue, 30, minute));
    let deadline = at(journal.started.as_second() + 90);
    assert_eq!(journal.deadline(Timer::Proof), Some(deadline));
    assert_eq!(journal.step.as_deref(), Some("issue a new badge"));
    assert_eq!(journal.run().record.new, Some(Placeholder::fingerprint()));
}

#[test]
fn stopped_timer_has_no_deadline() {
    let mut journal = journal();
    advance(&mut journal, Phase::Make, wait(), 0, Duration::ZERO);
    assert!(journal.run_at(journal.started).passed(Timer::Proof));
    let issue = Next::step(Step::Issue).stopping(Timer::Proof);
    assert!(advance(&mut journal, Phase::Make, issue, 0, Duration::ZERO));
    assert_eq!(journal.deadline(Timer::Proof), None);
    assert!(!journal.run_at(journal.started).passed(Timer::Proof));
}

#[test]
fn step_without_an_answer_moves_the_deadline_of_writes_in_flight() {
    let mut journal = journal();
    let minute = at(journal.started.as_second() + 60);
    journal.unanswered(minute, LONGEST_WRITE);
    assert_eq!(journal.deadline(Timer::InFlight), None);
    let wait = Next::wait("writes in flight").starting(Timer::InFlight);
    advance(&mut journal, Phase::Place, wait, 0, LONGEST_WRITE);
    assert!(journal.run_at(minute).passed(Timer::InFlight));
    journal.unanswered(minute, LONGEST_WRITE);
    assert!(journal.run_at(minute).running(Timer::InFlight));
    assert!(journal.run_at(at(minute.as_second() + 8)).passed(Timer::InFlight));
    // A controller whose writes take longer to arrive has a longer one.
    journal.unanswered(minute, Duration::from_mins(1));
    assert!(journal.run_at(at(minute.as_second() + 59)).running(Timer::InFlight));
    assert!(journal.run_at(at(minute.as_second() + 60)).passed(Timer::InFlight));
}

#[test]
fn taken_over_journal_has_no_deadlines() {
    let mut journal = journal();
    advance(&mut journal, Phase::Prove, wait(), 0, Duration::ZERO);
    let again = read(&value(&journal)).unwrap();
    assert!(again.deadline(Timer::Proof).is_some(), "it is shown by status");
    assert_eq!(again.taken_over().deadline(Timer::Proof), None);
}

#[test]
fn deadline_may_be_later_than_any_timestamp() {
    let mut journal = journal();
    advance(&mut journal, Phase::Prove, wait(), 0, Duration::MAX);
    assert!(journal.run_at(journal.started).running(Timer::Proof));
    assert!(read(&value(&journal)).is_ok());
}

#[test]
fn journal_of_another_kind_is_not_read_as_one_of_this() {
    let mut value = value(&journal());
    value["kind"] = serde_json::json!("another");
    let error = read(&value).expect_err("it is of another kind");
    assert_eq!(error, Unreadable::OtherKind("another".to_owned()));
    value.as_object_mut().expect("an object").remove("kind");
    assert!(read(&value).is_ok(), "one that was written before there were kinds");
}
