//! The journal survives being written down and read by another process, and refuses what it does not know.

use std::time::Duration;

use client::secret::Fingerprint;
use engine::journal::{Journal, Unreadable, VERSION};
use engine::phase::{Goal, Phase};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use crate::badge::{Badge, Notes, Timer};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a second of this century")
}

fn journal() -> Journal<Badge> {
    let notes = Notes {
        old: Fingerprint::of("old"),
        new: Some(Fingerprint::of("new")),
        mark: None,
    };
    Journal::begin(notes, "any admin", at(1_700_000_000))
}

fn value(journal: &Journal<Badge>) -> serde_json::Value {
    let text = journal.to_text().expect("it can be written");
    serde_json::from_str(&text).expect("it is JSON")
}

fn read(value: &serde_json::Value) -> Result<Journal<Badge>, Unreadable> {
    Journal::read(&value.to_string())
}

fn any_journal() -> impl Strategy<Value = Journal<Badge>> {
    let phase = proptest::sample::select(Phase::ALL.to_vec());
    let mark = proptest::option::of(any::<String>());
    let started = 0_i64..4_000_000_000;
    let timer = proptest::option::of(0_u64..4_000_000_000);
    let texts = (
        any::<String>(),
        mark,
        proptest::option::of(any::<String>()),
        proptest::option::of(any::<String>()),
    );
    (texts, phase, started, timer).prop_map(|((by, mark, reason, step), phase, started, timer)| {
        let started = at(started);
        let notes = Notes {
            old: Fingerprint::of(&by),
            new: mark.as_deref().map(Fingerprint::of),
            mark,
        };
        let mut journal = Journal::begin(notes, by, started);
        if let Some(reason) = reason {
            journal.turn_back(reason);
        }
        journal.phase = phase;
        journal.step = step;
        if let Some(seconds) = timer {
            journal.start(Timer::Proof, started, Duration::from_secs(seconds));
        }
        journal
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(journal in any_journal()) {
        let again = read(&value(&journal)).unwrap();
        prop_assert_eq!(value(&again), value(&journal));
        prop_assert_eq!(again.as_of(again.started), journal.as_of(journal.started));
    }

    #[test]
    fn nothing_that_stands_in_the_annotation_is_quoted_or_panics(text in any::<String>()) {
        let text = format!("{text}s3cr3t");
        let Err(error) = Journal::<Badge>::read(&text) else { panic!("read {text:?}") };
        prop_assert!(!error.to_string().contains("s3cr3t"), "{}", error);
    }

    #[test]
    fn a_timer_has_passed_from_its_deadline_on(lasts in 0_u64..1_000_000, later in 0_i64..2_000_000) {
        let mut journal = journal();
        let started = journal.started;
        journal.start(Timer::Proof, started, Duration::from_secs(lasts));
        let then = at(started.as_second() + later);
        let run = journal.as_of(then);
        prop_assert_eq!(run.passed(Timer::Proof), later >= lasts as i64);
        prop_assert_eq!(run.running(Timer::Proof), later < lasts as i64);
    }
}

#[test]
fn a_newer_version_is_refused_whatever_else_it_holds() {
    let text = format!(
        r#"{{"version":{},"phase":"teleport","notes":["unknown"]}}"#,
        VERSION + 1
    );
    let error = Journal::<Badge>::read(&text).unwrap_err();
    assert_eq!(error, Unreadable::Newer(VERSION + 1));
    insta::assert_snapshot!(error, @"the rotation in progress was begun by a newer release (journal version 3, this one knows 2): finish it with that release, or discard its journal with --force=journal");
}

#[test]
fn a_malformed_one_says_where_and_quotes_nothing() {
    let mut damaged = value(&journal());
    damaged["notes"]["old"] = "hunter2-in-the-wrong-place".into();
    let error = read(&damaged).unwrap_err();
    assert!(matches!(error, Unreadable::Malformed { line: 1, .. }), "{error:?}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    for text in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"version":"1"}"#,
        r#"{"version":-1}"#,
        r#"{"version":1}"#,
    ] {
        let read = Journal::<Badge>::read(text);
        assert!(matches!(read, Err(Unreadable::Malformed { .. })), "{text}: {read:?}");
    }
}

/// Within one version a field may come to be added that can be ignored; one that may not needs a new version.
#[test]
fn an_unknown_field_is_ignored_and_gone_with_the_next_save() {
    let mut of_a_later_build = value(&journal());
    of_a_later_build["colour"] = "green".into();
    let again = read(&of_a_later_build).unwrap();
    assert_eq!(again.phase, Phase::Survey);
    assert!(!again.to_text().unwrap().contains("green"));
}

#[test]
fn turning_back_stops_every_timer_and_keeps_the_phase() {
    let mut journal = journal();
    journal.phase = Phase::Prove;
    journal.start(Timer::Proof, journal.started, Duration::from_mins(5));
    journal.turn_back("no call came");
    let run = journal.as_of(journal.started);
    assert_eq!((run.goal, run.phase), (Goal::Back, Phase::Prove));
    assert!(!run.running(Timer::Proof) && !run.passed(Timer::Proof));
    assert_eq!(journal.reason.as_deref(), Some("no call came"));
}

#[test]
fn a_timer_that_was_stopped_counts_as_never_started() {
    let mut journal = journal();
    journal.start(Timer::Proof, journal.started, Duration::ZERO);
    assert!(journal.as_of(journal.started).passed(Timer::Proof));
    journal.stop(Timer::Proof);
    assert_eq!(journal.deadline(Timer::Proof), None);
    assert!(!journal.as_of(journal.started).passed(Timer::Proof));
}

#[test]
fn a_timer_may_last_longer_than_time_itself() {
    let mut journal = journal();
    journal.start(Timer::Proof, journal.started, Duration::MAX);
    assert!(journal.as_of(journal.started).running(Timer::Proof));
    assert!(read(&value(&journal)).is_ok());
}
