//! A plugin's process from the outside: what it prints where, how it ends on signals, and with which code.

#![allow(clippy::unwrap_used, reason = "a test may panic, and so may its helpers")]

use std::io::{BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// The example, which cargo builds beside the tests.
fn hello() -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples/hello"));
    command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    hello().args(arguments).output().unwrap()
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "code {:?}\n--- stdout\n{}--- stderr\n{}",
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// Starts a verb that prints `waiting` when it is ready for a signal.
fn waiting(verb: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = hello()
        .arg(verb)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    expect(&mut out, "waiting");
    (child, out)
}

fn expect(out: &mut impl std::io::BufRead, expected: &str) {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), expected);
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn data_is_on_stdout_and_success_is_zero() {
    insta::assert_snapshot!(shown(&run(&["greet", "world"])), @r"
    code Some(0)
    --- stdout
    hello world
    --- stderr
    ");
}

#[test]
fn an_error_says_what_to_do_next_and_has_its_own_code() {
    insta::assert_snapshot!(shown(&run(&["fail"])), @r"
    code Some(4)
    --- stdout
    --- stderr
    error: stopped half-way
    hint: run it again to continue
    ");
}

#[test]
fn a_usage_error_exits_with_2_and_names_kubectl() {
    let output = run(&["greet", "world", "--nonsense"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.starts_with("error: unexpected argument '--nonsense' found") && said.contains("kubectl hello greet"),
        "{said}"
    );
}

#[test]
fn help_of_a_command_is_data_and_points_to_options() {
    let output = run(&["greet", "--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    let pointer = r#"Use "kubectl hello options" for a list of global command-line options (applies to all commands)."#;
    assert!(help.ends_with(&format!("\n\n{pointer}\n")), "{help}");
    assert!(!help.contains("--kubeconfig"), "{help}");
}

#[test]
fn options_is_data_and_lists_every_flag_of_all_commands() {
    let output = run(&["options"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        help.starts_with("The following options can be passed to any command:\n\nConnection options:\n"),
        "{help}"
    );
    for flag in [
        "--kubeconfig",
        "--context",
        "--cluster",
        "--user",
        "-n, --namespace",
        "-s, --server",
        "--token",
        "--tls-server-name",
        "--insecure-skip-tls-verify",
        "--certificate-authority",
        "--client-certificate",
        "--client-key",
        "--as ",
        "--as-uid",
        "--as-group",
        "--as-user-extra",
        "--request-timeout",
        "--disable-compression",
        "-v, --v",
        "--color",
        "-q, --quiet",
    ] {
        assert!(help.contains(flag), "{flag} is missing:\n{help}");
    }
}

#[test]
fn without_a_kubeconfig_the_error_is_that_of_kubectl() {
    let output = run(&["version"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.starts_with(
            "error: cannot read the version of the server: The connection to the server localhost:8080 was refused - did you specify the right host or port?\nhint: no kubeconfig was found"
        ),
        "{said}"
    );
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let mut child = hello()
        .arg("spill")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(ended(child), (Some(0), String::new()));
}

/// A pipe without a reader.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn closed_output_neither_stops_a_change_nor_sets_the_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    for code in ["0", "4"] {
        let file = directory.path().join(code);
        let mut command = hello();
        command.arg("change").arg(&file).arg(code);
        let status = command.stdout(unread()).stderr(unread()).status().unwrap();
        assert_eq!(status.code(), Some(code.parse().unwrap()));
        assert!(file.exists(), "{code}: nothing was changed");
    }
    let status = hello().arg("--nonsense").stderr(unread()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_only_if_the_command_succeeded() {
    let directory = tempfile::tempdir().unwrap();
    for (code, expected) in [
        (
            "0",
            (
                1,
                "changing the second\nerror: cannot write to stdout: no space left on device\n",
            ),
        ),
        (
            "4",
            (
                4,
                "changing the second\nerror: stopped half-way\nerror: cannot write to stdout: no space left on device\n",
            ),
        ),
    ] {
        let file = directory.path().join(code);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = hello();
        command.arg("change").arg(&file).arg(code);
        let output = command.stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(expected.0), expected.1));
        assert!(file.exists(), "{code}: nothing was changed");
    }
}

#[test]
fn a_panic_is_one_line_without_its_payload() {
    let output = run(&["panic"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("error: internal error at ") && !said.contains("hunter2"),
        "{said}"
    );
    assert!(!output.status.success());
}

#[test]
fn the_first_signal_requests_an_orderly_end() {
    for (which, code) in [
        (rustix::process::Signal::INT, 130),
        (rustix::process::Signal::TERM, 143),
    ] {
        let (child, _out) = waiting("wait");
        signal(&child, which);
        let (got, said) = ended(child);
        assert_eq!(
            (got, said.as_str()),
            (Some(code), "error: stopped after what was begun was finished\n")
        );
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    let (child, mut out) = waiting("ignore");
    signal(&child, rustix::process::Signal::INT);
    expect(&mut out, "once more");
    signal(&child, rustix::process::Signal::INT);
    assert_eq!(ended(child).0, Some(130));
}

/// The pipe is open, and no one writes to it.
#[cfg(unix)]
#[test]
fn a_signal_ends_a_command_that_waits_for_its_kubeconfig() {
    let home = tempfile::tempdir().unwrap();
    let pipe = home.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = hello();
    command.arg("version").arg("--kubeconfig").arg(&pipe);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Returns when the other end is opened.
    let _writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    signal(&child, rustix::process::Signal::INT);
    assert_eq!(ended(child), (Some(130), "error: interrupted\n".to_owned()));
}

#[test]
fn without_a_terminal_confirmation_requires_yes() {
    assert_eq!(run(&["ask"]).status.code(), Some(1));
    assert_eq!(run(&["ask", "--yes"]).stdout, b"confirmed\n");
}

#[test]
fn completion_answers_in_cobras_protocol() {
    assert_eq!(run(&["__complete", "gr"]).stdout, b"greet\tGreets each name\n:4\n");
    assert_eq!(run(&["__complete", "greet", ""]).stdout, b"world\tthe usual one\n:4\n");
    assert_eq!(run(&["__complete", "--nonsense", "x", ""]).status.code(), Some(0));
}

#[test]
fn the_log_shows_requests_and_only_the_events_of_this_workspace() {
    let said = String::from_utf8(run(&["version", "-v=9"]).stderr).unwrap();
    assert!(said.contains("DEBUG hello: asking"), "{said}");
    assert!(said.contains("GET http://localhost:8080/version failed in "), "{said}");
    assert!(!said.contains("kube_client") && !said.contains("hyper"), "{said}");
    let said = String::from_utf8(run(&["version", "-v", "5"]).stderr).unwrap();
    assert!(said.contains("asking") && !said.contains("GET "), "{said}");
}

#[test]
fn completion_lists_the_names_of_the_kubeconfig() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "contexts: [{name: kind}, {name: prod}]\nusers: [{name: bob}]\n",
    )
    .unwrap();
    let flag = format!("--kubeconfig={}", file.path().display());
    assert_eq!(
        run(&["__complete", &flag, "greet", "--context", ""]).stdout,
        b"kind\nprod\n:4\n"
    );
    assert_eq!(
        run(&["__complete", &flag, "greet", "--context=p"]).stdout,
        b"prod\n:4\n"
    );
    let output = hello()
        .env("KUBECONFIG", file.path())
        .args(["__complete", "greet", "--user", ""])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"bob\n:4\n");
}
