//! The question before something is changed.
//!
//! The answer is a line of its own (`y` and Enter), read in the terminal's ordinary mode: a single key must not be able
//! to start a rotation, Ctrl-C stays a signal, and the cursor is never hidden, so that nothing needs to be restored.

use std::io::{BufRead as _, Write as _};

use client::error::{Error, Kind};

use super::{Ui, clean, lock};

impl Ui {
    /// Asks `QUESTION`, in kubectl's words: `Do you want to continue? (y/N): `. `yes` (the flag `--yes`) skips it.
    ///
    /// # Errors
    /// Without a terminal and without `--yes` it is refused, exit code 1: the command line itself is right. A "no" is an
    /// answer, not an error. Ctrl-C while it waits is [`Kind::Interrupted`].
    pub async fn confirm(&self, question: &str, yes: bool) -> Result<bool, Error> {
        if yes {
            return Ok(true);
        }
        if !self.0.terminal.stdin {
            return Err(
                Error::failed("this changes credentials, and there is no terminal to confirm it on")
                    .hint("pass --yes to go ahead, or --dry-run to see what would be done"),
            );
        }
        if !question.is_empty() {
            self.say(&clean(question));
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        let ui = self.clone();
        // A thread of its own: a read of a terminal cannot be cancelled, and the process must be able to end meanwhile.
        std::thread::spawn(move || answer.send(ui.ask()));
        tokio::select! {
            answer = answered => answer.unwrap_or(Ok(false)),
            () = self.0.interrupt.cancelled() => {
                self.say("");
                Err(Error::new(Kind::Interrupted, "interrupted before anything was changed"))
            }
        }
    }

    fn ask(&self) -> Result<bool, Error> {
        self.0.bars.suspend(|| {
            let mut err = lock(&self.0.err);
            let _ = write!(err, "Do you want to continue? (y/N): ").and_then(|()| err.flush());
        });
        let mut line = String::new();
        lock(&self.0.input).read_line(&mut line)?;
        if !line.ends_with('\n') {
            self.say("");
        }
        Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}
