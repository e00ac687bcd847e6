//! The command line: the commands, the flags that all of them have, and the names that completion offers.

use cli::ExitCode;
use cli::app::{Candidate, CompletionRequest, Context, GlobalFlags, Plugin};
use client::error::Error;

use crate::{candidates, commands};

/// Manage the Rancher API tokens that Argo CD uses
#[derive(clap::Parser, Debug)]
#[command(name = "kubectl-argocd_rancher", bin_name = "kubectl argocd-rancher", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct ArgocdRancher {
    /// The flags of every command.
    #[command(flatten)]
    global: GlobalFlags,
    /// The command.
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  # List the clusters that Argo CD reaches through Rancher, and their tokens
  kubectl argocd-rancher list --rancher-context rancher

  # Add a cluster of Rancher to Argo CD, with a token for this cluster only
  kubectl argocd-rancher add staging --rancher-context rancher

  # Replace its token, and revoke the old one only after Argo CD has used the new one
  kubectl argocd-rancher rotate staging --rancher-context rancher

  # Verify that the token works, and has the permissions that Argo CD needs
  kubectl argocd-rancher verify staging

--context is the cluster of Argo CD, and --namespace is its namespace there (default argocd).";

/// The commands.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// List the clusters that Argo CD reaches through Rancher
    #[command(visible_alias = "ls")]
    List(commands::list::List),
    /// Verify that a cluster's token works
    Verify(commands::verify::Verify),
    /// Add a cluster to Argo CD with its own token
    Add(commands::add::Add),
    /// Rotate a cluster's token without a rejected call
    Rotate(commands::rotate::Rotate),
    /// Roll back an unfinished rotation
    Rollback(commands::rollback::Rollback),
    /// Show a cluster's Secret, token, and rotation in progress
    Status(commands::status::Status),
    /// Remove a cluster from Argo CD and revoke its token
    Remove(commands::remove::Remove),
    /// Print the client and server version information
    Version(commands::version::Version),
}

impl Plugin for ArgocdRancher {
    const NAME: &'static str = "argocd-rancher";
    const LOGGED: &'static [&'static str] = &["kubectl_argocd_rancher", "client", "argocd", "rancher", "engine", "cli"];

    fn global(&self) -> &GlobalFlags {
        &self.global
    }

    async fn run(self, context: Context) -> Result<ExitCode, Error> {
        let Self { global, command } = self;
        match command {
            Command::List(list) => Box::pin(commands::list::run(list, &global, &context)).await,
            Command::Verify(verify) => Box::pin(commands::verify::run(verify, &global, &context)).await,
            Command::Add(add) => Box::pin(commands::add::run(add, &global, &context)).await,
            Command::Rotate(rotate) => Box::pin(commands::rotate::run(rotate, &global, &context)).await,
            Command::Rollback(rollback) => Box::pin(commands::rollback::run(rollback, &global, &context)).await,
            Command::Status(status) => Box::pin(commands::status::run(status, &global, &context)).await,
            Command::Remove(remove) => Box::pin(commands::remove::run(remove, &global, &context)).await,
            Command::Version(version) => commands::version::run(version, &global, &context).await,
        }
    }

    async fn candidates(request: CompletionRequest, context: Context) -> Result<Vec<Candidate>, Error> {
        candidates::candidates(request, context).await
    }
}
