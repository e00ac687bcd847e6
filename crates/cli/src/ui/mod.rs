//! The terminal: one [`Ui`] owns every stream of the process.
//!
//! stdout is for data, stderr for messages. Nothing else in the workspace writes to either; a lint forbids it. So
//! colour, `--quiet`, progress bars and control characters in text are handled here only.

mod console;
mod progress;
mod prompt;

use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressDrawTarget};
use tokio_util::sync::CancellationToken;

pub use self::progress::{Progress, Step};
use client::error::{Error, Kind};
use client::redact;
use client::sanitize::{clean, clean_but, line};

/// The output flags. Flatten them into a plugin's root command.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output options")]
pub struct UiFlags {
    /// When to use colour
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    pub color: ColorChoice,

    /// Log level: 4 shows decisions, 6 requests, 8 headers; bodies and credentials are never shown
    #[arg(short = 'v', long = "v", global = true, value_name = "LEVEL", default_value_t = 0)]
    pub verbosity: u8,

    /// Print errors and data only
    #[arg(short = 'q', long, global = true)]
    pub quiet: bool,
}

/// When colour is used.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The meaning of a piece of text, which determines its colour. Colour never carries meaning alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It went well.
    Good,
    /// It deserves a look.
    Caution,
    /// It went wrong.
    Bad,
    /// It is said by the way.
    Quiet,
    /// It is what to look at.
    Strong,
}

impl Tone {
    const ALL: [Self; 5] = [Self::Good, Self::Caution, Self::Bad, Self::Quiet, Self::Strong];

    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Caution => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Quiet => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }
}

/// The two streams that can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// stdout, for data.
    Out,
    /// stderr, for messages.
    Err,
}

/// The terminal at the start of the process, or in a test.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal {
    /// stdin is a terminal.
    pub stdin: bool,
    /// stdout is a terminal.
    pub stdout: bool,
    /// stderr is a terminal.
    pub stderr: bool,
    /// `NO_COLOR` is set (to anything: kubectl takes its presence) or `TERM` is `dumb`.
    pub plain: bool,
    /// The locale uses UTF-8.
    pub utf8: bool,
}

impl Terminal {
    /// What this process is connected to.
    fn of_process() -> Self {
        let set = |name: &str| std::env::var_os(name);
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| set(name).filter(|v| !v.is_empty()));
        let locale = locale
            .map(|value| value.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default();
        Self {
            stdin: io::stdin().is_terminal(),
            stdout: io::stdout().is_terminal(),
            stderr: io::stderr().is_terminal(),
            plain: set("NO_COLOR").is_some() || set("TERM").is_some_and(|term| term == "dumb"),
            utf8: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }
}

/// Owner of every stream. Clones share them.
#[derive(Clone)]
pub struct Ui(Arc<Inner>);

struct Inner {
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    input: Mutex<Box<dyn BufRead + Send>>,
    terminal: Terminal,
    flags: UiFlags,
    bars: MultiProgress,
    warned: Mutex<HashSet<String>>,
    interrupt: CancellationToken,
    holds: tokio::sync::watch::Sender<usize>,
    signal: OnceLock<Kind>,
    output_error: OnceLock<Error>,
}

impl std::fmt::Debug for Ui {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ui")
            .field("terminal", &self.0.terminal)
            .finish_non_exhaustive()
    }
}

/// Nothing that is guarded here can be left half-done by a panic, so a poisoned lock is as good as any.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ui {
    /// The streams of this process.
    pub(crate) fn of_process(flags: &UiFlags) -> Self {
        let terminal = Terminal::of_process();
        Self::new(
            Box::new(io::stdout()),
            Box::new(io::stderr()),
            Box::new(io::BufReader::new(io::stdin())),
            terminal,
            flags.clone(),
        )
    }

    /// Streams in memory, for tests: what was written can be read from the second value.
    pub fn buffered(terminal: Terminal, flags: UiFlags, input: &str) -> (Self, Captured) {
        let captured = Captured::default();
        let input = Box::new(io::Cursor::new(input.as_bytes().to_vec()));
        let ui = Self::new(
            Box::new(captured.out.clone()),
            Box::new(captured.err.clone()),
            input,
            terminal,
            flags,
        );
        (ui, captured)
    }

    fn new(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        input: Box<dyn BufRead + Send>,
        terminal: Terminal,
        flags: UiFlags,
    ) -> Self {
        let ui = Self(Arc::new(Inner {
            out: Mutex::new(out),
            err: Mutex::new(err),
            input: Mutex::new(input),
            terminal,
            flags,
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            warned: Mutex::default(),
            interrupt: CancellationToken::new(),
            holds: tokio::sync::watch::Sender::new(0),
            signal: OnceLock::new(),
            output_error: OnceLock::new(),
        }));
        ui.0.bars.set_draw_target(ui.draw_target());
        ui
    }

    /// What this is connected to.
    pub fn terminal(&self) -> Terminal {
        self.0.terminal
    }

    /// The level of `-v`.
    pub(crate) fn verbosity(&self) -> u8 {
        self.0.flags.verbosity
    }

    /// Cancelled by the first Ctrl-C or SIGTERM. A command that [holds](Self::hold) something must await it during its
    /// work.
    pub fn interrupt(&self) -> &CancellationToken {
        &self.0.interrupt
    }

    /// Call this before acquiring a lock or sending a write. Until the value is dropped, the first Ctrl-C only cancels
    /// [`Self::interrupt`], and the command finishes the call in flight. Otherwise the first Ctrl-C ends the command at
    /// once.
    pub fn hold(&self) -> Hold {
        self.0.holds.send_modify(|holds| *holds += 1);
        Hold(self.clone())
    }

    /// Returns when nothing is held.
    pub(crate) async fn released(&self) {
        let _ = self.0.holds.subscribe().wait_for(|holds| *holds == 0).await;
    }

    /// Cancels [`Self::interrupt`] because of a signal.
    pub(crate) fn interrupt_by(&self, signal: Kind) {
        let _ = self.0.signal.set(signal);
        self.0.interrupt.cancel();
    }

    /// An error that says "interrupted" gets the kind, and so the exit code, of the signal that did it. What work says
    /// otherwise (pending, held, failed all the same) is more exact and stands.
    pub fn by_signal(&self, error: Error) -> Error {
        match self.0.signal.get() {
            Some(signal) if error.kind == Kind::Interrupted => error.of_kind(*signal),
            _ => error,
        }
    }

    /// Writes one line of data to stdout.
    pub fn out(&self, text: impl Display) {
        self.write_out(&(text.to_string().replace('\n', "^J") + "\n"));
    }

    /// Writes data to stdout, with control characters made visible.
    ///
    /// A closed pipe or a full disk does not stop the command, which may have changed one of several objects: the error is kept for
    /// [`Self::output_error`], and nothing more is written.
    pub fn write_out(&self, text: &str) {
        if self.output_error().is_some() {
            return;
        }
        let text = self.spoken(Stream::Out, text);
        let write = || {
            let mut out = lock(&self.0.out);
            out.write_all(text.as_bytes())?;
            out.flush()
        };
        if let Err(error) = self.0.bars.suspend(write) {
            self.output_failed(Error::from(error).doing("write to stdout"));
        }
    }

    /// Keeps why the output is incomplete. The first error counts.
    pub(crate) fn output_failed(&self, error: Error) {
        let _ = self.0.output_error.set(error);
    }

    /// Why stdout is incomplete. The process ends with this error if its work has succeeded, except for a closed pipe. A command whose
    /// output cannot be had again must check it, and one that only reads can stop.
    pub fn output_error(&self) -> Option<&Error> {
        self.0.output_error.get()
    }

    /// Says what is happening, on stderr; `--quiet` hushes it.
    pub fn status(&self, text: impl Display) {
        if !self.0.flags.quiet {
            self.say(&self.spoken(Stream::Err, &text.to_string()));
        }
    }

    /// Text without control characters, but for what [`Ui::paint`] has put there.
    fn spoken(&self, stream: Stream, text: &str) -> String {
        if !self.colored(stream) {
            return clean(text);
        }
        let painted = Tone::ALL.map(|tone| format!("{}", tone.style()));
        let reset = format!("{:#}", Tone::Good.style());
        clean_but(text, &[painted.as_slice(), &[reset]].concat())
    }

    /// `Warning: …`, on stderr. The same warning is given once.
    pub fn warn(&self, text: impl Display) {
        let text = message(&text.to_string());
        if lock(&self.0.warned).insert(text.clone()) {
            self.say(&format!(
                "{} {text}",
                self.paint(Stream::Err, Tone::Caution, "Warning:")
            ));
        }
    }

    /// `hint: …`, on stderr: what to do next.
    pub fn hint(&self, text: impl Display) {
        let text = message(&text.to_string());
        self.say(&format!("{} {text}", self.paint(Stream::Err, Tone::Quiet, "hint:")));
    }

    /// Shows an error and its hints, the last thing a process does.
    pub fn error(&self, error: &Error) {
        if error.kind == client::error::Kind::BrokenPipe {
            return;
        }
        self.say(&message(&error.to_string()));
        for hint in &error.hints {
            self.hint(hint);
        }
    }

    /// A line for those who asked with `-v`; the text is only made when it is wanted.
    pub fn log(&self, level: u8, text: impl FnOnce() -> String) {
        if self.verbosity() >= level {
            self.say(&clean(&text()));
        }
    }

    /// Puts the colour of a meaning on a text, if the stream shows colour.
    pub fn paint(&self, stream: Stream, tone: Tone, text: &str) -> String {
        if self.colored(stream) {
            let style = tone.style();
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// Whether a stream shows colour.
    pub(crate) fn colored(&self, stream: Stream) -> bool {
        let terminal = self.0.terminal;
        match self.0.flags.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                !terminal.plain
                    && if stream == Stream::Out {
                        terminal.stdout
                    } else {
                        terminal.stderr
                    }
            }
        }
    }

    /// Starts to report the steps of something long.
    pub fn progress(&self) -> Progress {
        Progress::new(self.clone())
    }

    /// Prints one line on stderr and hides any progress bar for that time. Errors of stderr are ignored.
    fn say(&self, line: &str) {
        self.0.bars.suspend(|| {
            let mut err = lock(&self.0.err);
            let _ = writeln!(err, "{line}").and_then(|()| err.flush());
        });
    }

    fn animated(&self) -> bool {
        let Terminal { stderr, plain, .. } = self.0.terminal;
        stderr && !plain && !self.0.flags.quiet && self.0.flags.verbosity == 0
    }

    fn draw_target(&self) -> ProgressDrawTarget {
        if self.animated() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        }
    }

    /// Hides the progress bars while another program uses the terminal, until the value is dropped.
    pub(crate) fn step_aside(&self) -> Aside {
        let _ = self.0.bars.clear();
        self.0.bars.set_draw_target(ProgressDrawTarget::hidden());
        Aside(self.clone())
    }
}

/// A message as one line, without what looks like a credential: a user may have typed a token where a name belongs.
pub(crate) fn message(text: &str) -> String {
    line(&redact::text(text))
}

/// Until it is dropped, the first signal does not end the process at once.
#[must_use]
pub struct Hold(Ui);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.holds.send_modify(|holds| *holds -= 1);
    }
}

/// Until it is dropped, no progress bar is drawn.
pub(crate) struct Aside(Ui);

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.0.bars.set_draw_target(self.0.draw_target());
    }
}

/// What a buffered [`Ui`] has written.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    out: Buffer,
    err: Buffer,
}

impl Captured {
    /// The text on stdout.
    pub fn out(&self) -> String {
        self.out.text()
    }

    /// The text on stderr.
    pub fn err(&self) -> String {
        self.err.text()
    }
}

#[derive(Clone, Debug, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.0)).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
