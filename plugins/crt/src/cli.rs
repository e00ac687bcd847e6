//! The command line: the verbs, the flags that all of them have, and the names that completion offers.

use kubectl_core::app::{Candidate, CompletionRequest, Context, GlobalFlags, Plugin};
use kubectl_core::error::{Error, ExitCode};

use crate::cmd;

/// Rotate Rancher's cluster registration tokens, without losing a cluster
#[derive(clap::Parser, Debug)]
#[command(name = "kubectl-crt", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Crt {
    /// How to connect and how to talk.
    #[command(flatten)]
    pub global: GlobalFlags,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
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
pub enum Verb {
    /// List registration tokens: who uses each, and what state it is in
    #[command(visible_alias = "ls")]
    List(cmd::list::List),
    /// Explain one cluster: cluster, agent, Secret, token, tunnels, and a rotation under way
    Status(cmd::status::Status),
    /// Give a cluster's registration tokens new values, and lose no cluster
    Rotate(cmd::rotate::Rotate),
    /// Undo an unfinished rotation
    Rollback(cmd::rollback::Rollback),
    /// Prove which token a cluster's agent runs with, and that Rancher accepts it
    Verify(cmd::verify::Verify),
    /// Print the version of this program, of the management cluster and of its Rancher
    Version(cmd::version::Version),
    /// Print the file that lets kubectl complete this plugin's words
    Completion(cmd::completion::Completion),
}

impl Plugin for Crt {
    const NAME: &'static str = "crt";
    const LOGGED: &'static [&'static str] = &["kubectl_crt", "kubectl_core", "rancher", "rotation"];

    fn global(&self) -> &GlobalFlags {
        &self.global
    }

    async fn run(self, context: Context) -> Result<ExitCode, Error> {
        let Self { global, verb } = self;
        match verb {
            Verb::List(list) => cmd::list::run(list, &global, &context).await,
            Verb::Status(status) => cmd::status::run(status, &global, &context).await,
            Verb::Rotate(rotate) => Box::pin(cmd::rotate::run(rotate, &global, &context)).await,
            Verb::Rollback(rollback) => Box::pin(cmd::rollback::run(rollback, &global, &context)).await,
            Verb::Verify(verify) => cmd::verify::run(verify, &global, &context).await,
            Verb::Version(version) => cmd::version::run(version, &global, &context).await,
            Verb::Completion(completion) => cmd::completion::run(completion, &context),
        }
    }

    async fn candidates(request: CompletionRequest, context: Context) -> Vec<Candidate> {
        cmd::completion::candidates(request, context).await
    }
}
