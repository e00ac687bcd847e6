//! Ctrl-C is a designed path: the first signal asks for an orderly end, the second leaves at once.

use std::future::Future;

use client::error::{Error, Kind};

use crate::ExitCode;
use crate::ui::Ui;

/// Runs `work`, turning the first SIGINT or SIGTERM into a cancelled [`Ui::interrupt`] and the second into the end.
///
/// Work that says it was interrupted ends with the code of the signal that did it ([`Ui::by_signal`]).
pub(super) async fn guarded(ui: &Ui, work: impl Future<Output = Result<ExitCode, Error>>) -> Result<ExitCode, Error> {
    let mut signals = Signals::install().map_err(|error| Error::from(error).doing("listen for signals"))?;
    tokio::pin!(work);
    let first = tokio::select! {
        outcome = &mut work => return outcome,
        kind = signals.next() => kind,
    };
    ui.interrupt_by(first);
    tokio::select! {
        outcome = &mut work => match outcome {
            Ok(ExitCode::Interrupted) => Ok(first.into()),
            outcome => outcome.map_err(|error| ui.by_signal(error)),
        },
        second = signals.next() => Err(Error::new(second, "stopped at once by a second signal")),
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn install() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Kind {
        tokio::select! {
            _ = self.interrupt.recv() => Kind::Interrupted,
            _ = self.terminate.recv() => Kind::Terminated,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[allow(clippy::unnecessary_wraps, reason = "the same shape as on Unix")]
    fn install() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Kind {
        let _ = tokio::signal::ctrl_c().await;
        Kind::Interrupted
    }
}
