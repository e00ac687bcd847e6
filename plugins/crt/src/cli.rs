//! The command line: the commands, the flags that all of them have, and the names that completion offers.

use cli::ExitCode;
use cli::app::{Candidate, CompletionRequest, Context, GlobalFlags, Plugin};
use client::error::Error;

use crate::{candidates, commands};

/// Rotate Rancher's cluster registration tokens without losing a cluster
#[derive(clap::Parser, Debug)]
#[command(name = "kubectl-crt", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Crt {
    /// The flags of every command.
    #[command(flatten)]
    pub(crate) global: GlobalFlags,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  # List all registration tokens, what uses them, and their state
  kubectl crt list

  # Print the plan of a rotation
  kubectl crt rotate c-x7k2p --dry-run

  # Give a cluster's agent a new token, and revoke the old one once the new one is proven
  kubectl crt rotate c-x7k2p";

/// The commands.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// List registration tokens, what uses them, and their state
    #[command(visible_alias = "ls")]
    List(commands::list::List),
    /// Show the registration of a cluster and the rotation in progress
    Status(commands::status::Status),
    /// Rotate a cluster's registration tokens without losing its agent
    Rotate(commands::rotate::Rotate),
    /// Roll back an unfinished rotation
    Rollback(commands::rollback::Rollback),
    /// Bring back agents that have lost their token
    Rescue(commands::rescue::Rescue),
    /// Verify which token a cluster's agent uses, and that it is accepted
    Verify(commands::verify::Verify),
    /// Print the client and server version information
    Version(commands::version::Version),
}

impl Plugin for Crt {
    const NAME: &'static str = "crt";
    const LOGGED: &'static [&'static str] = &["kubectl_crt", "client", "cli", "rancher", "engine"];

    fn global(&self) -> &GlobalFlags {
        &self.global
    }

    async fn run(self, context: Context) -> Result<ExitCode, Error> {
        let Self { global, command } = self;
        match command {
            Command::List(list) => commands::list::run(list, &global, &context).await,
            Command::Status(status) => commands::status::run(status, &global, &context).await,
            Command::Rotate(rotate) => Box::pin(commands::rotate::run(rotate, &global, &context)).await,
            Command::Rollback(rollback) => Box::pin(commands::rollback::run(rollback, &global, &context)).await,
            Command::Rescue(rescue) => Box::pin(commands::rescue::run(rescue, &global, &context)).await,
            Command::Verify(verify) => commands::verify::run(verify, &global, &context).await,
            Command::Version(version) => commands::version::run(version, &global, &context).await,
        }
    }

    async fn candidates(request: CompletionRequest, context: Context) -> Result<Vec<Candidate>, Error> {
        candidates::candidates(request, context).await
    }
}
