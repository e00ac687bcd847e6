//! The command line: the verbs, and the flags that all of them have.

use cli::ExitCode;
use cli::app::{Candidate, CompletionRequest, Context, GlobalFlags, Plugin};
use client::error::Error;

use crate::commands;

/// Make, explain, extend, rotate and revoke the tokens that nodes join a cluster with
#[derive(clap::Parser, Debug)]
#[command(name = "kubectl-bootstrap_token", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct BootstrapToken {
    /// How to connect and how to talk.
    #[command(flatten)]
    global: GlobalFlags,
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  # A token for the next hour, and what a kubelet needs to join with it
  kubectl bootstrap-token create -o kubeconfig > bootstrap-kubelet.conf

  # Every token, and why it cannot work, if it cannot
  kubectl bootstrap-token list

  # Take one back, and wait until the API server refuses it
  kubectl bootstrap-token revoke 07401b";

/// The verbs.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Verb {
    /// Make a token and print it, once
    Create(commands::create::Create),
    /// List tokens, never their secrets, and say why one cannot work
    #[command(visible_alias = "ls")]
    List(commands::list::List),
    /// Print a token that could be used, and write nothing
    Generate(commands::generate::Generate),
    /// Delete tokens, and wait until the API server refuses them
    Revoke(commands::revoke::Revoke),
    /// Explain why a token can or cannot work, and show its rotation
    Status(commands::status::Status),
    /// Replace a token without breaking nodes that are joining
    Rotate(commands::rotate::Rotate),
    /// Roll back an unfinished rotation
    Rollback(commands::rollback::Rollback),
    /// Change a token's expiry
    Extend(commands::extend::Extend),
    /// Ask the API server about a token, with the token itself
    Verify(commands::verify::Verify),
    /// Show or make the bindings that a joining node needs
    Rbac(commands::rbac::Rbac),
    /// Print the bootstrap kubeconfig of a token, for a kubelet
    Kubeconfig(commands::kubeconfig::Kubeconfig),
    /// Print the version of this program and of the cluster
    Version(commands::version::Version),
    /// Print the kubectl completion script
    Completion(commands::completion::Completion),
}

impl Plugin for BootstrapToken {
    const NAME: &'static str = "bootstrap-token";
    const LOGGED: &'static [&'static str] = &["kubectl_bootstrap_token", "client", "cli", "bootstrap", "engine"];

    fn global(&self) -> &GlobalFlags {
        &self.global
    }

    async fn run(self, context: Context) -> Result<ExitCode, Error> {
        let Self { global, verb } = self;
        match verb {
            Verb::Create(create) => commands::create::run(create, &global, &context).await,
            Verb::List(list) => commands::list::run(list, &global, &context).await,
            Verb::Generate(generate) => commands::generate::run(generate, &context),
            Verb::Revoke(revoke) => commands::revoke::run(revoke, &global, &context).await,
            Verb::Status(status) => commands::status::run(status, &global, &context).await,
            Verb::Rotate(rotate) => commands::rotate::run(rotate, &global, &context).await,
            Verb::Rollback(rollback) => commands::rollback::run(rollback, &global, &context).await,
            Verb::Extend(extend) => commands::extend::run(extend, &global, &context).await,
            Verb::Verify(verify) => commands::verify::run(verify, &global, &context).await,
            Verb::Rbac(rbac) => commands::rbac::run(rbac, &global, &context).await,
            Verb::Kubeconfig(kubeconfig) => commands::kubeconfig::run(kubeconfig, &global, &context).await,
            Verb::Version(version) => commands::version::run(version, &global, &context).await,
            Verb::Completion(completion) => commands::completion::run(completion, &context),
        }
    }

    async fn candidates(request: CompletionRequest, context: Context) -> Result<Vec<Candidate>, Error> {
        commands::completion::candidates(request, context).await
    }
}
