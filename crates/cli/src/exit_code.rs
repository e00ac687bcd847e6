//! The exit codes of a process.

use client::error::{Error, Kind};

/// The process exit codes, a part of the interface that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// 0: done.
    Done = 0,
    /// 1: failed, and nothing is pending. Also: rolled back.
    Failed = 1,
    /// 2: the command line is invalid.
    Usage = 2,
    /// 3: nothing to do, or not due; only where `--exit-code` asks for it.
    NothingToDo = 3,
    /// 4: pending. The same command resumes.
    Pending = 4,
    /// 5: another run holds the lock. Nothing was changed.
    Held = 5,
    /// 124: a wait has timed out.
    TimedOut = 124,
    /// 130: SIGINT.
    Interrupted = 130,
    /// 143: SIGTERM.
    Terminated = 143,
}

impl ExitCode {
    /// What they mean, for the help of a plugin.
    pub(crate) const HELP: &str = "Exit codes: 0 done, 1 failed or rolled back, 2 usage error, 3 nothing to do (with --exit-code), \
                                   4 pending: run the same command again, 5 held by another run, 124 timed out, 130 or 143 \
                                   interrupted.";
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Usage => Self::Usage,
            Kind::NothingToDo => Self::NothingToDo,
            Kind::Pending => Self::Pending,
            Kind::Held => Self::Held,
            Kind::TimedOut => Self::TimedOut,
            Kind::Interrupted => Self::Interrupted,
            Kind::Terminated => Self::Terminated,
            Kind::BrokenPipe => Self::Done,
            _ => Self::Failed,
        }
    }
}

impl From<&Error> for ExitCode {
    fn from(error: &Error) -> Self {
        error.kind.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_the_documented_ones() {
        for (kind, code) in [
            (Kind::Failed, 1),
            (Kind::Usage, 2),
            (Kind::NothingToDo, 3),
            (Kind::Pending, 4),
            (Kind::Held, 5),
            (Kind::TimedOut, 124),
            (Kind::Interrupted, 130),
            (Kind::Terminated, 143),
            (Kind::BrokenPipe, 0),
            (Kind::NotFound, 1),
        ] {
            assert_eq!(ExitCode::from(kind) as u8, code, "{kind:?}");
        }
    }
}
