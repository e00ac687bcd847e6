//! Signal handling. The first signal ends a command at once, unless it holds a lock or has a write in flight
//! ([`Ui::hold`]). Then the first signal requests an orderly end, and the second one ends the command at once.

use std::future::Future;

use client::error::{Error, Kind};

use crate::ui::Ui;

/// Runs `work` until it ends or a signal ends it.
///
/// Interrupted work ends with the exit code of the signal ([`Ui::by_signal`]).
pub(super) async fn guarded<T>(ui: &Ui, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut signals = Signals::install().map_err(|error| Error::from(error).doing("listen for signals"))?;
    tokio::pin!(work);
    let first = tokio::select! {
        outcome = &mut work => return outcome,
        kind = signals.next() => kind,
    };
    ui.interrupt_by(first);
    tokio::select! {
        biased;
        outcome = &mut work => outcome.map_err(|error| ui.by_signal(error)),
        () = ui.released() => Err(Error::new(first, "interrupted")),
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
