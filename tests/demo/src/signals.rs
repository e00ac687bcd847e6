//! The signals that stop the demo: first the running command, then the clusters.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The handled signals.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one.
    pub(crate) async fn next(&mut self) -> Stop {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
        };
        Stop(kind)
    }
}

/// The signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop(SignalKind);

impl Stop {
    /// A Ctrl-C on a terminal, which the running command has received too.
    pub(crate) fn is_from_terminal(self) -> bool {
        self.0 == SignalKind::interrupt() && std::io::stdin().is_terminal()
    }

    /// The exit code that goes with it.
    pub(crate) fn code(self) -> ExitCode {
        u8::try_from(128 + self.0.as_raw_value()).map_or(ExitCode::FAILURE, ExitCode::from)
    }
}
