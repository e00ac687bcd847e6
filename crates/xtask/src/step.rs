//! Commands that run one after another: each is announced with its start time, and its duration is recorded.

use std::fmt::{self, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anstyle::Style;
use anyhow::{Context as _, Result};

/// The commands of one task.
pub(crate) struct Steps {
    began: Instant,
    durations: Mutex<Vec<(String, Duration)>>,
    /// What is printed once more at the end.
    repeated: Mutex<String>,
}

impl Steps {
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
            durations: Mutex::default(),
            repeated: Mutex::default(),
        }
    }

    /// Runs a command to its end, with our own standard streams.
    pub(crate) fn run(&self, title: &str, command: &mut Command) -> Result<()> {
        self.announce(title, command);
        let began = Instant::now();
        let status = command
            .status()
            .with_context(|| format!("run {}", command.get_program().display()))?;
        self.record(title, began.elapsed());
        self.check(title, status)
    }

    /// Runs commands one after another as one step, until one fails.
    pub(crate) fn run_in_turn(&self, title: &str, commands: impl Iterator<Item = Command>) -> Result<()> {
        let began = Instant::now();
        let outcome = commands.into_iter().try_for_each(|mut command| {
            self.announce(title, &command);
            let status = command
                .status()
                .with_context(|| format!("run {}", command.get_program().display()))?;
            self.check(title, status)
        });
        self.record(title, began.elapsed());
        outcome
    }

    /// Says that a step is not run, and why.
    pub(crate) fn skip(&self, title: &str, why: &str) {
        let bold = Style::new().bold();
        anstream::eprintln!("{bold}[{}] {title} skipped{bold:#}: {why}", clock(self.began.elapsed()));
    }

    /// Replaces this process with the last command. A Ctrl-C then reaches no parent that would exit before the command
    /// has cleaned up.
    pub(crate) fn become_one(&self, title: &str, command: &mut Command) -> Result<()> {
        self.announce(title, command);
        let error = command.exec();
        Err(error).with_context(|| format!("run {}", command.get_program().display()))
    }

    /// Prints that a command has ended. Returns the time since our own start.
    pub(crate) fn ended(&self, title: &str, status: ExitStatus, took: Duration) -> Duration {
        self.record(title, took);
        let bold = Style::new().bold();
        let after = self.began.elapsed();
        anstream::eprintln!(
            "{bold}[{}] {title} ended after {}{bold:#}: {status}",
            clock(after),
            clock(took)
        );
        after
    }

    pub(crate) fn announce(&self, title: &str, command: &Command) {
        let bold = Style::new().bold();
        let at = clock(self.began.elapsed());
        anstream::eprintln!("{bold}[{at}] {title}{bold:#}: {}", line(command));
    }

    pub(crate) fn check(&self, title: &str, status: ExitStatus) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        Err(Failed::new(title.to_owned(), status, self.began.elapsed()).into())
    }

    pub(crate) fn record(&self, title: &str, took: Duration) {
        let mut durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        durations.push((title.to_owned(), took));
    }

    /// Has the last summary say why a command failed.
    pub(crate) fn repeat_at_the_end(&self, title: &str, messages: &str) {
        let mut repeated = self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = write!(repeated, "\n{title}:\n{messages}\n");
    }

    /// Prints the duration of each command that has ended, and of all of them together, and why those failed that did.
    pub(crate) fn print_summary(&self) {
        let durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        let repeated = self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        anstream::eprint!("\n{}{repeated}", table(&durations, self.began.elapsed()));
    }
}

/// One line for each duration. Commands that ran side by side take less together than the sum of their durations.
fn table(durations: &[(String, Duration)], total: Duration) -> String {
    const TOTAL: &str = "total";
    let titles = durations.iter().map(|(title, _)| title.len());
    let width = titles.chain([TOTAL.len()]).max().unwrap_or_default();
    let mut table = String::new();
    let total = (TOTAL.to_owned(), total);
    for (title, took) in durations.iter().chain([&total]) {
        let _ = writeln!(table, "{title:width$}  {:>7}", clock(*took));
    }
    table
}

/// A command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failed {
    title: String,
    status: ExitStatus,
    after: Duration,
}

impl Failed {
    /// This command, or these, so long after the start.
    pub(crate) fn new(title: String, status: ExitStatus, after: Duration) -> Self {
        Self { title, status, after }
    }

    /// The exit code of the command, or 128 and the number of the signal that ended it, as in a shell.
    pub(crate) fn code(&self) -> u8 {
        let code = self
            .status
            .code()
            .or_else(|| self.status.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, status, after } = self;
        write!(f, "{title} failed after {} ({status})", clock(*after))
    }
}

impl std::error::Error for Failed {}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}m{:02}s", seconds / 60, seconds % 60)
}

/// The command line, as typed in the root of the repository.
fn line(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(name).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_keeps_its_exit_code() {
        let steps = Steps::begin();
        let code = |script: &str| {
            let failed = steps
                .run("a step", Command::new("sh").args(["-c", script]))
                .unwrap_err();
            failed.downcast_ref::<Failed>().unwrap().code()
        };
        assert_eq!(code("exit 101"), 101);
        assert_eq!(code("kill -TERM $$"), 143);
        steps.run("another", &mut Command::new("true")).unwrap();
    }

    #[test]
    fn the_table_aligns_titles_and_durations() {
        let durations = [
            ("format".to_owned(), Duration::from_secs(2)),
            ("end-to-end tests: crt".to_owned(), Duration::from_secs(754)),
        ];
        assert_eq!(
            table(&durations, Duration::from_secs(800)),
            "format                   0m02s\nend-to-end tests: crt   12m34s\ntotal                   13m20s\n"
        );
    }
}
