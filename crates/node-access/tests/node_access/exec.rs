//! Commands of `--node-exec` that do not behave, and what becomes of their processes.

use std::path::Path;
use std::time::{Duration, Instant};

use client::error::Error as UserError;
use client::secret::Secret;
use node_access::NodeProblem;
use rstest::rstest;

use crate::machine::{CONFIG, Machine, TOKEN, target};

/// `sh -c '…' {node}`, with the words of the script after it.
fn command(machine: &Machine, script: &str) -> String {
    machine.program("wrapper", &format!("#!/bin/sh\nshift\n{script}\n"));
    format!("{} {{node}}", machine.root().join("bin/wrapper").display())
}

fn is_running(machine: &Machine) -> bool {
    let pid = machine.text("/pid");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A killed process ends some time after the signal.
async fn ends(machine: &Machine) {
    let end = async {
        while is_running(machine) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), end).await.unwrap();
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let mut machine = Machine::new();
    machine.timeout = Duration::from_millis(700);
    let script = format!("sh -c 'echo $$ >{}/pid; sleep 60; :'", machine.root().display());
    let command = command(&machine, &script);
    let error = machine.access_by(&command).read(&target(), false).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::TimedOut(_)), "{error}");
    ends(&machine).await;

    // Also if the caller gives up first.
    machine.timeout = Duration::from_mins(1);
    std::fs::remove_file(machine.path("/pid")).unwrap();
    let (access, node) = (machine.access_by(&command), target());
    let run = tokio::spawn(async move { access.read(&node, false).await.map(drop) });
    let start = async {
        while !std::fs::read_to_string(machine.path("/pid")).is_ok_and(|pid| pid.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), start).await.unwrap();
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    ends(&machine).await;
}

#[rstest]
#[case("exec yes")]
#[case("exec yes >&2")]
#[tokio::test]
async fn output_without_end_is_limited(#[case] script: &str) {
    let machine = Machine::new();
    let command = command(&machine, script);
    let error = machine.access_by(&command).read(&target(), false).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::TooMuchOutput(_)), "{error}");
}

#[rstest]
#[case("exec <&-\nexit 3", "the command ended with exit code 3")]
#[case(
    "cat >/dev/null\necho >&2\necho 'Permission denied (publickey).' >&2\nexit 255",
    "the command ended with exit code 255: Permission denied (publickey)."
)]
#[case("exit 0", "the result is incomplete")]
#[case("kill -9 $$", "the command ended with a signal")]
#[tokio::test]
async fn a_command_without_a_result_is_an_error(#[case] script: &str, #[case] expected: &str) {
    let machine = Machine::new();
    let command = command(&machine, script);
    let error = machine.access_by(&command).read(&target(), false).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot read the configuration on node s1 (--node-exec): {expected}")
    );
    assert_eq!(UserError::from(error).hints.len(), 1);
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named() {
    let machine = Machine::new();
    let error = machine
        .access_by("/no/such {node}")
        .read(&target(), false)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cannot start /no/such: "), "{error}");
}

#[tokio::test]
async fn other_output_and_an_output_that_stays_open_do_no_harm() {
    let machine = Machine::new();
    let login = machine.root().join("bin/login");
    let script = format!(
        "echo Welcome\necho >&2 warning\nsleep 20 &\nexec {} s1 \"$@\"",
        login.display()
    );
    let command = command(&machine, &script);
    let start = Instant::now();
    let state = machine.access_by(&command).read(&target(), false).await.unwrap();
    assert!(state.server_token.is_some());
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "it does not wait for the other process"
    );
}

#[tokio::test]
async fn a_script_that_arrives_in_part_does_nothing() {
    let machine = Machine::new();
    machine.write(CONFIG, "token: old\n");
    let place = machine.read().await.configuration.places.remove(0);
    let login = machine.root().join("bin/login");
    // All but its last ten bytes.
    let script = format!("head -c -10 | {} s1 \"$@\"", login.display());
    let command = command(&machine, &script);
    let error = machine.access_by(&command).remove(&target(), &place).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Exit { .. }), "{error}");
    assert_eq!(machine.text(CONFIG), "token: old\n");
    assert!(!machine.path("/run/kubectl-rotation.lock").exists());
}

#[tokio::test]
async fn a_secret_in_the_output_of_the_command_is_hidden() {
    let machine = Machine::new();
    let secret = Secret::new("short-token");
    let command = command(&machine, "grep ^secret= >&2\nexit 1");
    let access = machine.access_by(&command);
    let error = access
        .write_token(&target(), &machine.sha256(TOKEN), &secret, None)
        .await
        .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("secret='<hidden>'") && !text.contains(secret.expose()),
        "{text}"
    );
}

#[tokio::test]
async fn no_process_is_left_when_a_script_has_ended() {
    let machine = Machine::new();
    let mark = machine.root().display().to_string();
    machine.read().await;
    let running = || {
        let processes = std::fs::read_dir("/proc").unwrap();
        let environments = processes.filter_map(|entry| std::fs::read(entry.ok()?.path().join("environ")).ok());
        environments
            .filter(|environment| String::from_utf8_lossy(environment).contains(&mark))
            .count()
    };
    let end = async {
        while running() > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(Path::new("/proc/self/environ").exists());
    tokio::time::timeout(Duration::from_secs(10), end).await.unwrap();
}
