//! One command of several: announced with the time at which it begins, shown as it runs, and the last one if it fails.

use std::fmt;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anstyle::Style;
use anyhow::{Context as _, Result};

/// The commands of one verb.
pub(crate) struct Steps {
    began: Instant,
}

impl Steps {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now() }
    }

    /// Runs a command to its end, with our own standard streams.
    pub(crate) fn run(&self, title: &str, command: &mut Command) -> Result<()> {
        self.announce(title, command);
        let status = command
            .status()
            .with_context(|| format!("run {}", command.get_program().display()))?;
        if status.success() {
            return Ok(());
        }
        let (title, after) = (title.to_owned(), self.began.elapsed());
        Err(Failed::new(title, status, after).into())
    }

    /// Becomes a command, the last one: so a Ctrl-C reaches nobody who would go before it has tidied up.
    pub(crate) fn become_one(&self, title: &str, command: &mut Command) -> Result<()> {
        self.announce(title, command);
        let error = command.exec();
        Err(error).with_context(|| format!("run {}", command.get_program().display()))
    }

    /// Says that a command has ended; how long after our own beginning.
    pub(crate) fn ended(&self, title: &str, status: ExitStatus) -> Duration {
        let bold = Style::new().bold();
        let after = self.began.elapsed();
        anstream::eprintln!("{bold}[{}] {title} has ended{bold:#}: {status}", clock(after));
        after
    }

    pub(crate) fn announce(&self, title: &str, command: &Command) {
        let bold = Style::new().bold();
        let at = clock(self.began.elapsed());
        anstream::eprintln!("{bold}[{at}] {title}{bold:#}: {}", line(command));
    }
}

/// A command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failed {
    title: String,
    status: ExitStatus,
    after: Duration,
}

impl Failed {
    /// This step, or these, so long after the beginning.
    pub(crate) fn new(title: String, status: ExitStatus, after: Duration) -> Self {
        Self { title, status, after }
    }

    /// Its exit code; of one that a signal ended, 128 and the signal's number, as a shell says it.
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

/// As one would type it, from the repository's root.
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
    fn a_failing_step_ends_with_its_own_exit_code() {
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
}
