//! Signal handling. The first signal ends a command at once, unless it holds a lock or has a write in flight
//! ([`Ui::hold`]). Then the first signal requests an orderly end, and the second one ends the command at once.

use std::future::Future;
use std::time::Duration;

use client::error::{Error, Kind};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use crate::ui::Ui;

/// How long interrupted work that holds nothing may take to say what it has done, and then to restore the terminal.
const FAREWELL: Duration = Duration::from_millis(100);
/// How long the process waits for what is still held once the work has ended, such as the deletion of a pod.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// Runs `work` until it ends or a signal ends it.
///
/// It runs as a task of its own, so that a signal ends it even while it is blocked, as in the read of a pipe that no one
/// writes to. Interrupted work ends with the exit code of the signal ([`Ui::by_signal`]).
pub(super) async fn guarded<T, R>(ui: &Ui, work: R) -> Result<T, Error>
where
    T: Send + 'static,
    R: Future<Output = Result<T, Error>> + Send + 'static,
{
    let mut signals = Signals::install().map_err(|error| Error::from(error).doing("listen for signals"))?;
    let mut work = tokio::spawn(work);
    let outcome = until_stopped(ui, &mut work, &mut signals).await;
    // Tasks of the work can hold longer than it does. A further signal ends that too.
    tokio::select! {
        _ = timeout(CLEAN_UP, ui.released()) => {}
        _ = signals.next() => {}
    }
    match outcome {
        Ended::ByItself(outcome) => ended(outcome).map_err(|error| ui.by_signal(error)),
        Ended::Stopped(error) => Err(error),
    }
}

enum Ended<T> {
    ByItself(Result<Result<T, Error>, JoinError>),
    Stopped(Error),
}

async fn until_stopped<T>(ui: &Ui, work: &mut JoinHandle<Result<T, Error>>, signals: &mut Signals) -> Ended<T> {
    let first = tokio::select! {
        outcome = &mut *work => return Ended::ByItself(outcome),
        kind = signals.next() => kind,
    };
    ui.interrupt_by(first);
    let released = async {
        ui.released().await;
        tokio::time::sleep(FAREWELL).await;
    };
    let stopped = tokio::select! {
        biased;
        outcome = &mut *work => return Ended::ByItself(outcome),
        () = released => Error::new(first, "interrupted"),
        second = signals.next() => Error::new(second, "stopped at once by a second signal"),
    };
    work.abort();
    // A blocked thread is left behind.
    let _ = timeout(FAREWELL, work).await;
    Ended::Stopped(stopped)
}

/// The outcome of a task, which was not aborted. A panic is passed on.
fn ended<T>(outcome: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    outcome.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(Error::new(Kind::Interrupted, "interrupted")),
    })
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// `None`: it ends the process, or is ignored, as under nohup.
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn install() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if is_hangup_fatal() {
                Some(signal(SignalKind::hangup())?)
            } else {
                None
            },
        })
    }

    async fn next(&mut self) -> Kind {
        tokio::select! {
            _ = self.interrupt.recv() => Kind::Interrupted,
            _ = self.terminate.recv() => Kind::Terminated,
            Some(()) = async { self.hangup.as_mut()?.recv().await } => Kind::Terminated,
        }
    }
}

/// Whether a hangup would end the process. A process under nohup has to go on. Only Linux shows which signals are ignored.
#[cfg(unix)]
fn is_hangup_fatal() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit is that of signal 1.
    ignored.is_some_and(|mask| mask & 1 == 0)
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
