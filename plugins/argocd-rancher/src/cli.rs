//! The command line: the verbs, the flags that all of them have, and the names that completion offers.

use cli::ExitCode;
use cli::app::{Candidate, CompletionRequest, Context, GlobalFlags, Plugin};
use client::error::Error;

use crate::commands;

/// Keep the tokens by which Argo CD reaches clusters through Rancher
#[derive(clap::Parser, Debug)]
#[command(name = "kubectl-argocd_rancher", bin_name = "kubectl argocd-rancher", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct ArgocdRancher {
    /// How to connect and how to talk.
    #[command(flatten)]
    global: GlobalFlags,
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  # Every cluster that Argo CD reaches through Rancher: whose token, which scope, when it ends
  kubectl argocd-rancher list --rancher-context rancher

  # Give Argo CD a cluster of Rancher's, by a token for that cluster alone
  kubectl argocd-rancher add staging --rancher-context rancher

  # Give Argo CD a new token for it, prove it in use, and only then end the old one
  kubectl argocd-rancher rotate staging --rancher-context rancher

  # Does the token that Argo CD has work, and may it do what Argo CD does?
  kubectl argocd-rancher verify staging

--context is where Argo CD runs; --namespace is its namespace there, argocd by default.";

/// The verbs.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Verb {
    /// List the clusters that Argo CD reaches through Rancher, and the tokens it has for them
    #[command(visible_alias = "ls")]
    List(commands::list::List),
    /// Prove that the token that Argo CD has for a cluster works, or say what is wrong
    Verify(commands::verify::Verify),
    /// Mint a token for a cluster, prove it, and give both to Argo CD
    Add(commands::add::Add),
    /// Give Argo CD a new token for a cluster and end the old one, without a refused call
    Rotate(commands::rotate::Rotate),
    /// Undo an unfinished rotation
    Rollback(commands::rollback::Rollback),
    /// Show one cluster: its Secret, its token, and a rotation under way
    Status(commands::status::Status),
    /// Make Argo CD forget a cluster, and end its token
    Remove(commands::remove::Remove),
    /// Print the version of this program, of Argo CD's cluster and of Rancher
    Version(commands::version::Version),
    /// Print the file that lets kubectl complete this plugin's words
    Completion(commands::completion::Completion),
}

impl Plugin for ArgocdRancher {
    const NAME: &'static str = "argocd-rancher";
    const LOGGED: &'static [&'static str] = &["kubectl_argocd_rancher", "client", "argocd", "rancher", "engine", "cli"];

    fn global(&self) -> &GlobalFlags {
        &self.global
    }

    async fn run(self, context: Context) -> Result<ExitCode, Error> {
        let Self { global, verb } = self;
        match verb {
            Verb::List(list) => Box::pin(commands::list::run(list, &global, &context)).await,
            Verb::Verify(verify) => commands::verify::run(verify, &global, &context).await,
            Verb::Add(add) => commands::add::run(add, &global, &context).await,
            Verb::Rotate(rotate) => Box::pin(commands::rotate::run(rotate, &global, &context)).await,
            Verb::Rollback(rollback) => Box::pin(commands::rollback::run(rollback, &global, &context)).await,
            Verb::Status(status) => Box::pin(commands::status::run(status, &global, &context)).await,
            Verb::Remove(remove) => commands::remove::run(remove, &global, &context).await,
            Verb::Version(version) => commands::version::run(version, &global, &context).await,
            Verb::Completion(completion) => commands::completion::run(completion, &context),
        }
    }

    async fn candidates(request: CompletionRequest, context: Context) -> Vec<Candidate> {
        commands::completion::candidates(request, context).await
    }
}
