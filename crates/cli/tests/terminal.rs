//! A plugin on a real (pseudo) terminal: its question, its steps, Ctrl-C.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic, and so may its helpers")]

use std::process::Command;
use std::time::{Duration, Instant};

use expectrl::session::OsSession;
use expectrl::{ControlCode, Eof, Expect as _, Session};

const PATIENCE: Duration = Duration::from_secs(20);

fn hello(verb: &str) -> OsSession {
    hello_with(&[verb])
}

fn hello_with(arguments: &[&str]) -> OsSession {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples/hello"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("TERM", "xterm")
        .env("LANG", "C.UTF-8");
    let mut session = Session::spawn(command).unwrap();
    session.set_expect_timeout(Some(PATIENCE));
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

const HIDE_CURSOR: &str = "\u{1b}[?25l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";

/// Whether the cursor is visible at the end.
fn shows_cursor(text: &str) -> bool {
    text.rfind(SHOW_CURSOR) > text.rfind(HIDE_CURSOR)
}

#[test]
fn confirm_waits_for_enter_and_defaults_to_no() {
    for (answer, outcome) in [
        ("y", "confirmed"),
        ("", "declined"),
        ("no", "declined"),
        ("x", "declined"),
    ] {
        let mut session = hello("ask");
        session.expect("This changes nothing.\r\n").unwrap();
        session.expect("Do you want to continue? (y/N): ").unwrap();
        session.send(answer).unwrap();
        session.send("\r").unwrap();
        let (text, code) = rest(session);
        assert!(text.contains(outcome) && code == Some(0), "{answer:?}: {text}");
        assert!(shows_cursor(&text), "{text:?}");
    }
}

#[test]
fn ctrl_c_at_a_prompt_changes_nothing_and_restores_the_cursor() {
    for verb in ["ask", "choose", "type"] {
        let mut session = hello(verb);
        session.expect(":").unwrap();
        session.send(ControlCode::EndOfText).unwrap();
        let (text, code) = rest(session);
        assert_eq!(code, Some(130), "{verb}: {text}");
        assert!(text.contains("error: interrupted"), "{verb}: {text:?}");
        assert!(shows_cursor(&text), "{verb}: {text:?}");
    }
}

#[test]
fn choose_returns_the_selected_items() {
    let mut session = hello("choose");
    session.expect("enter confirms):").unwrap();
    session.send(" ").unwrap();
    session.send("\u{1b}[B").unwrap();
    session.send("\u{1b}[B").unwrap();
    session.send(" ").unwrap();
    session.send("\r").unwrap();
    let (text, code) = rest(session);
    assert!(text.contains("chose one, three") && code == Some(0), "{text}");
    assert!(shows_cursor(&text), "{text:?}");
}

#[test]
fn a_missing_target_is_selected_from_what_completion_offers() {
    let mut session = hello("greet");
    session
        .expect("Select what to greet (space selects, enter confirms):")
        .unwrap();
    session.expect("world   the usual one").unwrap();
    session.send(" \r").unwrap();
    let (text, code) = rest(session);
    assert!(text.ends_with("hello world\r\n") && code == Some(0), "{text:?}");

    let mut session = hello("greet");
    session.expect("the usual one").unwrap();
    session.send("\r").unwrap();
    let (text, code) = rest(session);
    assert!(
        text.contains("error: nothing was selected") && code == Some(1),
        "{text:?}"
    );
}

#[test]
fn the_log_shows_how_a_selection_is_read() {
    let mut session = hello_with(&["greet", "-v=4"]);
    session.expect("DEBUG hello: reading the names").unwrap();
    session.expect("the usual one").unwrap();
    session.send(" \r").unwrap();
    let (text, code) = rest(session);
    assert!(
        text.contains("DEBUG hello: saying hello") && code == Some(0),
        "{text:?}"
    );
}

#[test]
fn a_token_is_typed_unseen() {
    let mut session = hello("type");
    session.expect("Token: ").unwrap();
    // What is typed before the terminal hides it is dropped.
    let began = Instant::now();
    while session.get_process().get_echo().unwrap() {
        assert!(began.elapsed() < PATIENCE, "the terminal does not hide what is typed");
        std::thread::sleep(Duration::from_millis(5));
    }
    session.send("hunter2\r").unwrap();
    let (text, code) = rest(session);
    assert!(text.contains("7 characters") && code == Some(0), "{text}");
    assert!(!text.contains("hunter2"), "{text:?}");
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
