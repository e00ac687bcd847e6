//! Several commands side by side, for those that mostly wait.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::step::{Failed, Steps};

/// So many lines of the message of a failed test are repeated at the end.
const REPEATED: usize = 60;

/// A command that has ended.
struct Ended {
    title: String,
    status: ExitStatus,
    after: Duration,
}

impl Steps {
    /// Runs all commands, at most `at_once` at a time, in their order. The output of each, on both streams, is printed on
    /// stdout as a whole when the command has ended. All commands run even if some fail; the error names each failed one.
    ///
    /// The commands stay in our own process group, so that a Ctrl-C reaches them too.
    pub(crate) fn run_parallel(&self, at_once: usize, commands: Vec<(String, Command)>) -> Result<()> {
        self.run_into(&mut io::stdout(), at_once, commands)
    }

    fn run_into(&self, out: &mut (dyn Write + Send), at_once: usize, commands: Vec<(String, Command)>) -> Result<()> {
        let waiting = Mutex::new(VecDeque::from(commands));
        let next = || lock(&waiting).pop_front();
        let printed = Mutex::new((out, Vec::new()));
        let worker = || -> Result<()> {
            while let Some((title, mut command)) = next() {
                self.announce(&title, &command);
                let began = Instant::now();
                let (status, output) = run(&mut command)?;
                let took = began.elapsed();
                let mut printed = lock(&printed);
                let after = self.ended(&title, status, took);
                printed.0.write_all(&output)?;
                printed.0.flush()?;
                if !status.success() {
                    self.repeat_at_the_end(&title, &messages(&output));
                }
                printed.1.push(Ended { title, status, after });
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
            let mut outcomes = workers.into_iter().map(thread::ScopedJoinHandle::join);
            outcomes.try_for_each(|outcome| outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        let (_, ended) = printed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failures(ended)
    }
}

/// The exit status, and all output in the order in which it was written.
fn run(command: &mut Command) -> Result<(ExitStatus, Vec<u8>)> {
    let (mut output, ours) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(ours.try_clone()?).stderr(ours);
    let program = command.get_program().display().to_string();
    let mut child = command.spawn().with_context(|| format!("run {program}"))?;
    // The command holds our ends of the pipe too. While they are open, reading never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut text = Vec::new();
    output.read_to_end(&mut text)?;
    Ok((child.wait()?, text))
}

/// What the failed tests of this output say. It is far from the end of a long output, where one looks for it.
fn messages(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let Some((_, failures)) = text.split_once("\nfailures:\n") else {
        let lines: Vec<&str> = text.lines().collect();
        return lines[lines.len().saturating_sub(REPEATED)..].join("\n");
    };
    let mut kept = Vec::new();
    let mut of_test = 0;
    for line in failures.lines().take_while(|line| *line != "failures:") {
        of_test = if line.starts_with("---- ") { 0 } else { of_test + 1 };
        match of_test {
            ..REPEATED => kept.push(line),
            REPEATED => kept.push("[…]"),
            _ => {}
        }
    }
    kept.join("\n").trim().to_owned()
}

/// One error for all that failed, with the exit code of the first.
fn failures(ended: Vec<Ended>) -> Result<()> {
    let mut failed = ended.into_iter().filter(|ended| !ended.status.success());
    let Some(first) = failed.next() else { return Ok(()) };
    let titles = failed.fold(first.title, |titles, next| format!("{titles}, {}", next.title));
    Err(Failed::new(titles, first.status, first.after).into())
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts(scripts: &[(&str, &str)]) -> Vec<(String, Command)> {
        let command = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let named = scripts
            .iter()
            .map(|(title, script)| ((*title).to_owned(), command(script)));
        named.collect()
    }

    #[test]
    fn two_commands_run_at_once_and_their_output_is_not_mixed() {
        let directory = tempfile::tempdir().unwrap();
        let meet = |me: &str, other: &str| {
            let here = directory.path().display();
            format!("echo {me}; touch {here}/{me}; until test -e {here}/{other}; do sleep 0.01; done; echo met >&2")
        };
        let (left, right) = (meet("left", "right"), meet("right", "left"));
        let mut out = Vec::new();
        let all = scripts(&[("left", &left), ("right", &right)]);
        Steps::begin().run_into(&mut out, 2, all).unwrap();
        let output = String::from_utf8(out).unwrap();
        assert!(
            output.contains("left\nmet\n") && output.contains("right\nmet\n"),
            "{output}"
        );
    }

    #[test]
    fn the_messages_of_failed_tests_are_repeated() {
        let long = "a line\n".repeat(70);
        let output = format!(
            "running 3 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... FAILED\n\nfailures:\n\n---- b stdout ----\nError: no agent\n\n\
             ---- c stdout ----\n{long}\n\nfailures:\n    b\n    c\n\ntest result: FAILED.\n"
        );
        let messages = messages(output.as_bytes());
        assert!(
            messages.starts_with("---- b stdout ----\nError: no agent\n\n---- c stdout ----\na line\n"),
            "{messages}"
        );
        assert!(
            messages.ends_with("a line\n[…]") && messages.lines().count() == 64,
            "{messages}"
        );
    }

    #[test]
    fn all_failures_are_reported() {
        let mut out = Vec::new();
        let all = scripts(&[
            ("one", "echo 1; exit 101"),
            ("two", "echo 2; kill -TERM $$"),
            ("three", "echo 3"),
        ]);
        let error = Steps::begin().run_into(&mut out, 1, all).unwrap_err();
        assert_eq!(String::from_utf8(out).unwrap(), "1\n2\n3\n");
        assert!(error.to_string().starts_with("one, two failed"), "{error}");
        assert_eq!(error.downcast_ref::<Failed>().unwrap().code(), 101);
    }
}
