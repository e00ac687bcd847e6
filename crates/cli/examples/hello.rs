//! The smallest plugin, with one verb for each way in which a process can end. The tests of this crate run it.

use cli::ExitCode;
use cli::app::{self, Candidate, CompletionRequest, Context, GlobalFlags, Plugin};
use client::error::{Doing as _, Error, Kind};

/// Says hello, and ends in any way you like
#[derive(clap::Parser)]
#[command(
    name = "kubectl-hello",
    bin_name = "kubectl hello",
    version,
    arg_required_else_help = true
)]
struct Hello {
    #[command(flatten)]
    global: GlobalFlags,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Greets each name
    Greet {
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Fails in the middle of a rotation
    Fail,
    /// Waits for Ctrl-C and comes to an orderly end
    Wait,
    /// Waits and ignores Ctrl-C
    Ignore,
    /// Waits and holds nothing
    Idle,
    /// Prints without end
    Spill,
    /// Prints, changes a file, and ends with 0 or 4
    Change { file: std::path::PathBuf, code: u8 },
    /// Panics with a secret
    Panic,
    /// Asks the API server for its version
    Version,
    /// Reports three steps
    Steps,
    /// Lets choose from a list
    Choose,
    /// Reads a credential
    Type,
    /// Asks for confirmation
    Ask {
        #[arg(long)]
        yes: bool,
    },
}

impl Plugin for Hello {
    const NAME: &'static str = "hello";
    const LOGGED: &'static [&'static str] = &["hello"];

    fn global(&self) -> &GlobalFlags {
        &self.global
    }

    async fn run(self, context: Context) -> Result<ExitCode, Error> {
        let ui = &context.ui;
        match self.verb {
            Verb::Greet { names } => {
                tracing::debug!("saying hello");
                for name in names {
                    ui.out(format!("hello {name}"));
                }
            }
            Verb::Fail => return Err(Error::new(Kind::Pending, "stopped half-way").hint("run it again to continue")),
            Verb::Idle => {
                ui.out("waiting");
                std::future::pending::<()>().await;
            }
            Verb::Wait => {
                let _hold = ui.hold();
                ui.out("waiting");
                ui.interrupt().cancelled().await;
                return Err(Error::new(
                    Kind::Interrupted,
                    "stopped after what was begun was finished",
                ));
            }
            Verb::Ignore => {
                let _hold = ui.hold();
                ui.out("waiting");
                ui.interrupt().cancelled().await;
                ui.out("once more");
                std::future::pending::<()>().await;
            }
            Verb::Spill => {
                while ui.output_error().is_none() {
                    ui.out("line");
                }
            }
            Verb::Change { file, code } => {
                ui.out("changed the first");
                ui.status("changing the second");
                ui.out("changed the second");
                std::fs::write(file, "changed")?;
                if code != 0 {
                    return Err(Error::new(Kind::Pending, "stopped half-way"));
                }
            }
            Verb::Panic => panic!("hunter2"),
            Verb::Version => {
                tracing::debug!("asking");
                let server = self.global.connection.load(&context.environment)?.connect()?;
                let version = server
                    .client
                    .apiserver_version()
                    .await
                    .doing("read the version of the server")?;
                ui.out(version.git_version);
            }
            Verb::Steps => {
                let progress = ui.progress();
                let mut step = progress.start("make", "create the new token");
                step.waiting("the server to accept it");
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                ui.status("said in between");
                step.done("created the new token");
                progress.start("place", "point the agent at it").failed("refused");
                drop(progress.start("prove", "call with it"));
            }
            Verb::Choose => {
                let items = ["one", "two", "three"].map(str::to_owned);
                let chosen = ui
                    .choose("Numbers (space selects, enter confirms):", "", &items, true)
                    .await?;
                let chosen: Vec<_> = chosen.into_iter().map(|at| items[at].as_str()).collect();
                ui.out(format!("chose {}", chosen.join(", ")));
            }
            Verb::Type => {
                let secret = ui.read_secret().await?;
                ui.out(format!("{} characters", secret.expose().len()));
            }
            Verb::Ask { yes } => {
                let go = ui.confirm("This changes nothing.", yes).await?;
                ui.out(if go { "confirmed" } else { "declined" });
            }
        }
        Ok(ExitCode::Done)
    }

    async fn candidates(request: CompletionRequest, _: Context) -> Result<Vec<Candidate>, Error> {
        tracing::debug!("reading the names");
        Ok(match (request.flag, request.verbs.as_slice()) {
            (None, [verb]) if verb == "greet" => vec![Candidate::new("world", "the usual one")],
            _ => Vec::new(),
        })
    }
}

fn main() -> std::process::ExitCode {
    app::run::<Hello>()
}
