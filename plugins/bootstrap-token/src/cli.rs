//! The command line: the verbs, and the flags that all of them have.

use kubectl_core::app::{Candidate, CompletionRequest, Context, GlobalFlags, Plugin};
use kubectl_core::error::{Error, ExitCode};

use crate::cmd;

/// Make, explain, extend, rotate and revoke the tokens that nodes join a cluster with
#[derive(clap::Parser, Debug)]
#[command(name = "kubectl-bootstrap_token", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct BootstrapToken {
    /// How to connect and how to talk.
    #[command(flatten)]
    pub global: GlobalFlags,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
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
pub enum Verb {
    /// Make a token and print it, once
    Create(cmd::create::Create),
    /// List tokens, never their secrets, and say why one cannot work
    #[command(visible_alias = "ls")]
    List(cmd::list::List),
    /// Print a token that could be used, and write nothing
    Generate(cmd::generate::Generate),
    /// Delete tokens, and wait until the API server refuses them
    Revoke(cmd::revoke::Revoke),
    /// Explain one token: why it can or cannot work, and a rotation under way
    Status(cmd::status::Status),
    /// Put another token in the place of one, and leave nobody at the door
    Rotate(cmd::rotate::Rotate),
    /// Undo an unfinished rotation
    Rollback(cmd::rollback::Rollback),
    /// Give a token a later end, or a sooner one
    Extend(cmd::extend::Extend),
    /// Ask the API server about a token, with the token itself
    Verify(cmd::verify::Verify),
    /// Show or make the bindings that a joining node needs
    Rbac(cmd::rbac::Rbac),
    /// Print the bootstrap kubeconfig of a token, for a kubelet
    Kubeconfig(cmd::kubeconfig::Kubeconfig),
    /// Print the version of this program and of the cluster
    Version(cmd::version::Version),
    /// Print the file that lets kubectl complete this plugin's words
    Completion(cmd::completion::Completion),
}

impl Plugin for BootstrapToken {
    const NAME: &'static str = "bootstrap-token";
    const LOGGED: &'static [&'static str] = &["kubectl_bootstrap_token", "kubectl_core", "bootstrap", "rotation"];

    fn global(&self) -> &GlobalFlags {
        &self.global
    }

    async fn run(self, context: Context) -> Result<ExitCode, Error> {
        let Self { global, verb } = self;
        match verb {
            Verb::Create(create) => cmd::create::run(create, &global, &context).await,
            Verb::List(list) => cmd::list::run(list, &global, &context).await,
            Verb::Generate(generate) => cmd::generate::run(generate, &context),
            Verb::Revoke(revoke) => cmd::revoke::run(revoke, &global, &context).await,
            Verb::Status(status) => cmd::status::run(status, &global, &context).await,
            Verb::Rotate(rotate) => cmd::rotate::run(rotate, &global, &context).await,
            Verb::Rollback(rollback) => cmd::rollback::run(rollback, &global, &context).await,
            Verb::Extend(extend) => cmd::extend::run(extend, &global, &context).await,
            Verb::Verify(verify) => cmd::verify::run(verify, &global, &context).await,
            Verb::Rbac(rbac) => cmd::rbac::run(rbac, &global, &context).await,
            Verb::Kubeconfig(kubeconfig) => cmd::kubeconfig::run(kubeconfig, &global, &context).await,
            Verb::Version(version) => cmd::version::run(version, &global, &context).await,
            Verb::Completion(completion) => cmd::completion::run(completion, &context),
        }
    }

    async fn candidates(request: CompletionRequest, context: Context) -> Vec<Candidate> {
        cmd::completion::candidates(request, context).await
    }
}
