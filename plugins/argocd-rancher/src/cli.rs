//! The command line: the verbs, the flags that all of them have, and the names that completion offers.

use cli::ExitCode;
use cli::app::{Candidate, CompletionRequest, Context, GlobalFlags, Plugin};
use client::error::Error;

use crate::commands;

/// Manage the Rancher API tokens that Argo CD uses
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
  # List the clusters that Argo CD reaches through Rancher, with owner, scope and expiry of each token
  kubectl argocd-rancher list --rancher-context rancher

  # Add a cluster of Rancher to Argo CD, with a token for that cluster only
  kubectl argocd-rancher add staging --rancher-context rancher

  # Replace its token, and revoke the old one only after Argo CD has used the new one
  kubectl argocd-rancher rotate staging --rancher-context rancher

  # Verify that the token works, and has the permissions that Argo CD needs
  kubectl argocd-rancher verify staging

--context is where Argo CD runs; --namespace is its namespace there, argocd by default.";

/// The commands.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Verb {
    /// List the clusters that Argo CD reaches through Rancher
    #[command(visible_alias = "ls")]
    List(commands::list::List),
    /// Verify that a cluster's token works
    Verify(commands::verify::Verify),
    /// Add a cluster to Argo CD with a token of its own
    Add(commands::add::Add),
    /// Replace a cluster's token without a rejected call
    Rotate(commands::rotate::Rotate),
    /// Undo an unfinished rotation
    Rollback(commands::rollback::Rollback),
    /// Show a cluster's Secret, token, and rotation in progress
    Status(commands::status::Status),
    /// Remove a cluster from Argo CD and revoke its token
    Remove(commands::remove::Remove),
    /// Print the versions of this plugin, of Argo CD's cluster and of Rancher
    Version(commands::version::Version),
    /// Print the kubectl completion script
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

    async fn candidates(request: CompletionRequest, context: Context) -> Result<Vec<Candidate>, Error> {
        commands::completion::candidates(request, context).await
    }
}
