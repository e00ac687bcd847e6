//! The process of a plugin: arguments, runtime, signals, the final error, and the exit code.
//!
//! Arguments are parsed first. `--help`, `--version` and a usage error start no runtime and no client, and read no
//! file.

mod choice;
mod completion;
mod dry_run;
mod help;
mod log;
mod signals;
pub mod version;

use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode as ProcessExit;
use std::sync::Arc;

pub use self::completion::{Candidate, CompletionRequest};
pub use self::dry_run::DryRun;
use crate::ExitCode;
use crate::flags::ConnectionFlags;
use crate::ui::{Ui, UiFlags};
use client::connection::{Environment, user_agent};
use client::error::{Error, Kind};
use client::redact;

/// The flags that every plugin has. Flatten them into the root command.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct GlobalFlags {
    /// How to connect.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// What to print.
    #[command(flatten)]
    pub ui: UiFlags,
}

/// The inputs of a command.
#[derive(Clone, Debug)]
pub struct Context {
    /// The terminal. Its [`Ui::interrupt`] is cancelled by the first Ctrl-C or SIGTERM.
    pub ui: Ui,
    /// The environment of the process, for [`ConnectionFlags::load`].
    pub environment: Environment,
}

/// A plugin: its command line and what it does with it.
///
/// ```no_run
/// use cli::app::{self, Context, GlobalFlags, Plugin};
/// use client::error::Error;
/// use cli::ExitCode;
///
/// /// Says hello
/// #[derive(clap::Parser)]
/// #[command(name = "kubectl-hello", version)]
/// struct Hello {
///     #[command(flatten)]
///     global: GlobalFlags,
/// }
///
/// impl Plugin for Hello {
///     const NAME: &'static str = "hello";
///     fn global(&self) -> &GlobalFlags {
///         &self.global
///     }
///     async fn run(self, context: Context) -> Result<ExitCode, Error> {
///         context.ui.out("hello");
///         Ok(ExitCode::Done)
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     app::run::<Hello>()
/// }
/// ```
pub trait Plugin: clap::Parser + Send + 'static {
    /// The word after `kubectl`: `crt`.
    const NAME: &'static str;

    /// The crates whose `tracing` events `-v=4` shows: those of the plugin and its libraries. Other crates are
    /// excluded, because kube logs whole response bodies.
    const LOGGED: &'static [&'static str] = &[];

    /// The common flags.
    fn global(&self) -> &GlobalFlags;

    /// Runs the command. During long work, also await [`Ui::interrupt`]. Once it is cancelled, finish the call in
    /// flight and return an error of kind [`Kind::Interrupted`] or an exit code.
    fn run(self, context: Context) -> impl Future<Output = Result<ExitCode, Error>> + Send;

    /// Completion candidates that only the server knows. Shell completion waits two seconds for them and ignores an error. Where a
    /// target is missing, a user on a terminal selects from them.
    fn candidates(
        request: CompletionRequest,
        context: Context,
    ) -> impl Future<Output = Result<Vec<Candidate>, Error>> + Send {
        let _ = (request, context);
        std::future::ready(Ok(Vec::new()))
    }
}

/// Runs a plugin from the process' arguments to its exit code.
pub fn run<P: Plugin>() -> ProcessExit {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(words) = completion::asked(&arguments) {
        return completion::answer::<P>(words);
    }
    let (matches, asked_on) = match parse::<P>(&arguments) {
        Ok(matches) => (matches, None),
        Err(error) => {
            match choice::Choice::of(&error, command::<P>(), &arguments).and_then(|it| Some((it.ui()?, it))) {
                None => return usage(&error),
                Some((ui, choice)) => {
                    report_to::<P>(&ui);
                    match choice.ask::<P>(&ui).map(|arguments| parse::<P>(&arguments)) {
                        Ok(Ok(matches)) => (matches, Some(ui)),
                        Ok(Err(error)) => return usage(&error),
                        Err(error) => return finish(&ui, &Err(error)).into(),
                    }
                }
            }
        }
    };
    match matches.subcommand_name() {
        // A closed pipe is not an error.
        Some(help::OPTIONS) => {
            let _ = help::print_options(&command::<P>());
            return ExitCode::Done.into();
        }
        Some(completion::COMMAND) => {
            let _ = completion::print_script::<P>();
            return ExitCode::Done.into();
        }
        _ => {}
    }
    let plugin = match P::from_arg_matches(&matches) {
        Ok(plugin) => plugin,
        Err(error) => return usage(&error),
    };
    let ui = asked_on.unwrap_or_else(|| {
        let ui = Ui::of_process(&plugin.global().ui);
        report_to::<P>(&ui);
        ui
    });
    let outcome = with_runtime(&ui, |context| plugin.run(context), P::NAME);
    finish(&ui, &outcome).into()
}

/// Sends panics and the log to this terminal.
fn report_to<P: Plugin>(ui: &Ui) {
    quiet_panics(ui);
    log::install(ui, P::LOGGED);
}

/// Only a call for help pays for its layout.
fn parse<P: Plugin>(arguments: &[std::ffi::OsString]) -> Result<clap::ArgMatches, clap::Error> {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand};

    match command::<P>().try_get_matches_from(arguments) {
        Err(error) if matches!(error.kind(), DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand) => {
            help::concise(command::<P>()).try_get_matches_from(arguments)
        }
        parsed => parsed,
    }
}

/// clap prints help and errors itself, to the stream where each belongs; but not an error that repeats a credential. The code is the
/// same if the reader is gone.
fn usage(error: &clap::Error) -> ProcessExit {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::Done.into();
    }
    let text = error.to_string();
    let redacted = redact::text(&text);
    let _ = if redacted == text {
        error.print()
    } else {
        write!(std::io::stderr(), "{redacted}")
    };
    ExitCode::Usage.into()
}

fn with_runtime<T, F, R>(ui: &Ui, work: F, name: &str) -> Result<T, Error>
where
    F: FnOnce(Context) -> R,
    R: Future<Output = Result<T, Error>> + Send + 'static,
    T: Send + 'static,
{
    // rustls panics if several providers are linked and none is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One may be blocked, as in the read of a pipe. The other one receives the signals.
        .worker_threads(std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2)))
        .enable_all()
        .build()
        .map_err(|error| Error::from(error).doing("start the runtime"))?;
    let agent = user_agent(&format!("kubectl-{name}"), env!("CARGO_PKG_VERSION"));
    let context = Context {
        ui: ui.clone(),
        environment: Environment::of_process(Arc::new(ui.clone()), agent),
    };
    let outcome = runtime.block_on(signals::guarded(ui, work(context)));
    // A thread that waits for a terminal or a name server must not keep the process running.
    runtime.shutdown_background();
    outcome
}

/// Prints the error and returns the exit code: that of the work, and only if it succeeded that of an incomplete output.
fn finish(ui: &Ui, outcome: &Result<ExitCode, Error>) -> ExitCode {
    let print = |error: &Error| {
        ui.error(error);
        ExitCode::from(error)
    };
    let ended = outcome.as_ref().err();
    let code = outcome.as_ref().copied().unwrap_or_else(print);
    match ui.output_error().filter(|error| ended != Some(error)).map(print) {
        Some(output) if code == ExitCode::Done => output,
        _ => code,
    }
}

/// Reports a panic in one line with its location. The payload may contain a secret and is not shown.
fn quiet_panics(ui: &Ui) {
    let ui = ui.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic
            .location()
            .map(|at| format!(" at {}:{}", at.file(), at.line()))
            .unwrap_or_default();
        ui.error(
            &Error::new(Kind::Failed, format!("internal error{place}"))
                .hint("this is a bug; run the same command again to continue, and please report the line above"),
        );
    }));
}

/// The root command under the name that a user types, for help, man pages and completion.
pub fn command<P: Plugin>() -> clap::Command {
    // clap ignores an empty NO_COLOR. kubectl checks only whether it is set.
    let color = if std::env::var_os("NO_COLOR").is_some() {
        clap::ColorChoice::Never
    } else {
        clap::ColorChoice::Auto
    };
    let command = P::command()
        .bin_name(format!("kubectl {}", P::NAME))
        .color(color)
        .subcommand(completion::command(P::NAME))
        .subcommand(help::options_command());
    help::with_last_lines(command, ExitCode::HELP)
}
