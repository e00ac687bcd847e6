//! Questions to the user: a confirmation, a choice from a list, a credential that is typed unseen.
//!
//! Each is asked on a thread of its own: a read of a terminal or a pipe cannot be cancelled, and Ctrl-C must end the process meanwhile. The
//! modes of the terminal and its cursor are restored on every way out.

use std::fmt;

use client::error::{Error, Kind};
use client::secret::Secret;
use dialoguer::console::{Term, truncate_str};
use dialoguer::theme::Theme;
use dialoguer::{Confirm, MultiSelect, Password, Select};

use super::{Ui, clean, lock};

impl Ui {
    /// Whether there is a terminal to ask on.
    pub(crate) fn can_ask(&self) -> bool {
        self.0.terminal.stdin && self.0.terminal.stderr
    }

    /// Asks `QUESTION`, in kubectl's words: `Do you want to continue? (y/N): `. `yes` (the flag `--yes`) skips it.
    ///
    /// # Errors
    /// Without a terminal and without `--yes` it is refused, exit code 1: the command line itself is right. A "no" is an answer, not
    /// an error. Ctrl-C while it waits is [`Kind::Interrupted`].
    pub async fn confirm(&self, question: &str, yes: bool) -> Result<bool, Error> {
        if yes {
            return Ok(true);
        }
        if !self.can_ask() {
            return Err(
                Error::failed("this changes credentials, and there is no terminal to confirm it on")
                    .hint("pass --yes to continue, or --dry-run to print the plan"),
            );
        }
        if !question.is_empty() {
            self.say(&clean(question));
        }
        self.ask(|terminal| {
            Confirm::with_theme(&Plain)
                .with_prompt("Do you want to continue?")
                .default(false)
                .wait_for_newline(true)
                .interact_on(terminal)
        })
        .await
    }

    /// Asks as [`Self::confirm`] does. A "no" is an error too.
    ///
    /// # Errors
    /// Those of [`Self::confirm`], and that nothing was changed.
    pub async fn require_confirmation(&self, question: &str, yes: bool) -> Result<(), Error> {
        if self.confirm(question, yes).await? {
            Ok(())
        } else {
            Err(Error::failed("nothing was changed"))
        }
    }

    /// Lets the user choose from the lines of a table: one of them, or `several`. Returns the indices.
    ///
    /// # Errors
    /// Nothing was chosen, or Ctrl-C.
    pub async fn choose(
        &self,
        prompt: &str,
        header: &str,
        items: &[String],
        several: bool,
    ) -> Result<Vec<usize>, Error> {
        let mark = if several { MARK_SEVERAL } else { MARK_ONE };
        let width = usize::from(Term::stderr().size().1).saturating_sub(mark + 1);
        let fitted = |line: &str| truncate_str(&clean(line), width, "…").into_owned();
        let items: Vec<String> = items.iter().map(|item| fitted(item)).collect();
        let mut prompt = clean(prompt);
        if !header.is_empty() {
            prompt = format!("{prompt}\n{:mark$}{}", "", fitted(header));
        }
        let chosen = self
            .ask(move |terminal| {
                if several {
                    let select = MultiSelect::with_theme(&Plain).with_prompt(prompt).items(&items);
                    return select.report(false).interact_on(terminal);
                }
                let select = Select::with_theme(&Plain).with_prompt(prompt).items(&items).default(0);
                select.report(false).interact_on(terminal).map(|chosen| vec![chosen])
            })
            .await?;
        if chosen.is_empty() {
            return Err(Error::failed("nothing was selected"));
        }
        Ok(chosen)
    }

    /// Reads a credential, for `--token-stdin`: from a terminal it is typed unseen; otherwise it is everything up to the end of
    /// stdin, without the line's end.
    pub async fn read_secret(&self) -> Result<Secret, Error> {
        if self.can_ask() {
            let typed = self.ask(|terminal| {
                Password::with_theme(&Plain)
                    .with_prompt("Token")
                    .report(false)
                    .interact_on(terminal)
            });
            return secret(&zeroize::Zeroizing::new(typed.await?));
        }
        let ui = self.clone();
        let text = self.on_a_thread(move || {
            let mut text = zeroize::Zeroizing::new(String::new());
            lock(&ui.0.input).read_to_string(&mut text).map(|_| text)
        });
        secret(&text.await?.map_err(|error| Error::from(error).doing("read stdin"))?)
    }

    async fn ask<T: Send + 'static>(
        &self,
        prompt: impl FnOnce(&Term) -> dialoguer::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let _aside = self.step_aside();
        let _restored = Modes::save();
        match self.on_a_thread(move || prompt(&Term::stderr())).await? {
            Ok(answer) => Ok(answer),
            Err(dialoguer::Error::IO(error)) if error.kind() != std::io::ErrorKind::Interrupted => {
                Err(Error::from(error).doing("read the input"))
            }
            Err(_) => Err(interrupted()),
        }
    }

    /// Reads the terminal or stdin on a thread of its own, so that Ctrl-C ends the command meanwhile.
    async fn on_a_thread<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || answer.send(read()));
        tokio::select! {
            biased;
            () = self.0.interrupt.cancelled() => {
                self.say("");
                Err(interrupted())
            }
            answer = answered => answer.map_err(|_| interrupted()),
        }
    }
}

fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "interrupted before anything was changed")
}

fn secret(text: &str) -> Result<Secret, Error> {
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(Error::usage("no token on stdin"));
    }
    Ok(Secret::new(secret))
}

/// The width of what dialoguer puts before each line.
const MARK_ONE: usize = "> ".len();
const MARK_SEVERAL: usize = "> [x] ".len();

/// kubectl's form of a question.
struct Plain;

impl Theme for Plain {
    fn format_select_prompt(&self, f: &mut dyn fmt::Write, prompt: &str) -> fmt::Result {
        f.write_str(prompt)
    }

    fn format_multi_select_prompt(&self, f: &mut dyn fmt::Write, prompt: &str) -> fmt::Result {
        f.write_str(prompt)
    }

    fn format_confirm_prompt(&self, f: &mut dyn fmt::Write, prompt: &str, default: Option<bool>) -> fmt::Result {
        write!(f, "{prompt} (y/N): {}", if default == Some(true) { "y" } else { "" })
    }

    fn format_confirm_prompt_selection(
        &self,
        f: &mut dyn fmt::Write,
        prompt: &str,
        selection: Option<bool>,
    ) -> fmt::Result {
        write!(f, "{prompt} (y/N): {}", if selection == Some(true) { "y" } else { "n" })
    }
}

/// The modes of the terminal and its cursor, which a prompt changes. They are restored when this is dropped, also where the prompt
/// is still waiting.
struct Modes {
    #[cfg(unix)]
    termios: Option<rustix::termios::Termios>,
}

impl Modes {
    fn save() -> Self {
        Self {
            #[cfg(unix)]
            termios: rustix::termios::tcgetattr(std::io::stdin()).ok(),
        }
    }
}

impl Drop for Modes {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(termios) = &self.termios {
            let now = rustix::termios::OptionalActions::Now;
            let _ = rustix::termios::tcsetattr(std::io::stdin(), now, termios);
        }
        let _ = Term::stderr().show_cursor();
    }
}
