//! The command line: the verbs, the flags that all of them have, and the names that completion offers.

use cli::ExitCode;
use cli::app::{Candidate, CompletionRequest, Context, GlobalFlags, Plugin};
use client::error::Error;

use crate::commands;

/// Rotate Rancher's cluster registration tokens, without losing a cluster
#[derive(clap::Parser, Debug)]
#[command(name = "kubectl-crt", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Crt {
    /// How to connect and how to talk.
    #[command(flatten)]
    global: GlobalFlags,
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  # Every registration token, who uses it and what state it is in
  kubectl crt list

  # What a rotation would do
  kubectl crt rotate c-x7k2p --dry-run

  # Give a cluster's agent a new token, and revoke the old one once the new one is proven
  kubectl crt rotate c-x7k2p";

/// The verbs.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Verb {
    /// List registration tokens: who uses each, and what state it is in
    #[command(visible_alias = "ls")]
    List(commands::list::List),
    /// Explain one cluster: cluster, agent, Secret, token, tunnels, and a rotation under way
    Status(commands::status::Status),
    /// Give a cluster's registration tokens new values, and lose no cluster
    Rotate(commands::rotate::Rotate),
    /// Undo an unfinished rotation
    Rollback(commands::rollback::Rollback),
    /// Prove which token a cluster's agent runs with, and that Rancher accepts it
    Verify(commands::verify::Verify),
    /// Print the version of this program, of the management cluster and of its Rancher
    Version(commands::version::Version),
    /// Print the file that lets kubectl complete this plugin's words
    Completion(commands::completion::Completion),
}

impl Plugin for Crt {
    const NAME: &'static str = "crt";
    const LOGGED: &'static [&'static str] = &["kubectl_crt", "client", "cli", "rancher", "engine"];

    fn global(&self) -> &GlobalFlags {
        &self.global
    }

    async fn run(self, context: Context) -> Result<ExitCode, Error> {
        let Self { global, verb } = self;
        match verb {
            Verb::List(list) => commands::list::run(list, &global, &context).await,
            Verb::Status(status) => commands::status::run(status, &global, &context).await,
            Verb::Rotate(rotate) => Box::pin(commands::rotate::run(rotate, &global, &context)).await,
            Verb::Rollback(rollback) => Box::pin(commands::rollback::run(rollback, &global, &context)).await,
            Verb::Verify(verify) => commands::verify::run(verify, &global, &context).await,
            Verb::Version(version) => commands::version::run(version, &global, &context).await,
            Verb::Completion(completion) => commands::completion::run(completion, &context),
        }
    }

    async fn candidates(request: CompletionRequest, context: Context) -> Vec<Candidate> {
        commands::completion::candidates(request, context).await
    }
}
