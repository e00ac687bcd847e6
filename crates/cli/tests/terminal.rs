//! A plugin on a real (pseudo) terminal: its question, its steps, Ctrl-C.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic, and so may its helpers")]

use std::process::Command;
use std::time::Duration;

use expectrl::session::OsSession;
use expectrl::{ControlCode, Eof, Expect as _, Session};

fn hello(verb: &str) -> OsSession {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples/hello"));
    command
        .arg(verb)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("TERM", "xterm")
        .env("LANG", "C.UTF-8");
    let mut session = Session::spawn(command).unwrap();
    session.set_expect_timeout(Some(Duration::from_secs(20)));
    session
}

/// Everything up to the end, and the exit code.
fn rest(mut session: OsSession) -> (String, Option<i32>) {
    let said = String::from_utf8_lossy(session.expect(Eof).unwrap().as_bytes()).into_owned();
    let code = match session.get_process().wait().unwrap() {
        expectrl::process::unix::WaitStatus::Exited(_, code) => Some(code),
        _ => None,
    };
    (said, code)
}

/// The sequence that hides the cursor: whoever sends it has to restore it on every way out.
const HIDE_CURSOR: &str = "\u{1b}[?25l";

#[test]
fn a_question_is_answered_by_a_whole_line() {
    for (answer, outcome) in [("y", "went on"), ("", "stayed"), ("no", "stayed")] {
        let mut session = hello("ask");
        session
            .expect("This changes nothing.\r\nDo you want to continue? (y/N): ")
            .unwrap();
        session.send_line(answer).unwrap();
        let (said, code) = rest(session);
        assert!(said.contains(outcome) && code == Some(0), "{answer:?}: {said}");
    }
}

#[test]
fn ctrl_c_at_a_question_changes_nothing_and_leaves_the_cursor_alone() {
    let mut session = hello("ask");
    session.expect("(y/N): ").unwrap();
    session.send(ControlCode::EndOfText).unwrap();
    let (said, code) = rest(session);
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("error: interrupted before anything was changed") && !said.contains(HIDE_CURSOR),
        "{said:?}"
    );
}

#[test]
fn steps_are_drawn_and_what_stays_is_one_line_each() {
    let (said, code) = rest(hello("steps"));
    assert_eq!(code, Some(0));
    let waited = said.find("create the new token: the server to accept it").unwrap();
    let between = said.find("said in between\r\n").unwrap();
    let done = said.find("✔\u{1b}[0m make     created the new token\r\n").unwrap();
    let failed = said
        .find("✖\u{1b}[0m place    point the agent at it: refused\r\n")
        .unwrap();
    let stopped = said.find("⚠\u{1b}[0m prove    call with it\r\n").unwrap();
    assert!(
        waited < between && between < done && done < failed && failed < stopped,
        "{said:?}"
    );
    assert!(!said.contains(HIDE_CURSOR), "{said:?}");
}
