//! The command line: the commands and their common flags.

use cli::ExitCode;
use cli::app::{Candidate, CompletionRequest, Context, GlobalFlags, Plugin};
use client::error::Error;

use crate::{agent_token, candidates, commands, server_token, snapshots};

/// Create, check, rotate and revoke the tokens that nodes join with
#[derive(clap::Parser, Debug)]
#[command(name = "kubectl-bootstrap_token", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct BootstrapToken {
    #[command(flatten)]
    global: GlobalFlags,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  # Create a token that is valid for one hour, and write a bootstrap kubeconfig with it
  kubectl bootstrap-token create -o kubeconfig --write bootstrap-kubelet.conf

  # List all tokens, and why they are invalid
  kubectl bootstrap-token list

  # Revoke a token, and wait until the API server rejects it
  kubectl bootstrap-token revoke 07401b";

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Create a token and print it once
    Create(commands::create::Create),
    /// List tokens without their secrets, and why they are invalid
    #[command(visible_alias = "ls")]
    List(commands::list::List),
    /// Print a random token without creating it
    Generate(commands::generate::Generate),
    /// Delete tokens, and wait until the API server rejects them
    Revoke(commands::revoke::Revoke),
    /// Show a token, why it is invalid, and the rotation in progress
    Status(commands::status::Status),
    /// Replace a token without breaking nodes that are joining
    Rotate(commands::rotate::Rotate),
    /// Roll back an unfinished rotation
    Rollback(commands::rollback::Rollback),
    /// Change a token's expiry
    Extend(commands::extend::Extend),
    /// Verify that the API server accepts a token
    Verify(commands::verify::Verify),
    /// Show or create the bindings that nodes need to join
    Rbac(commands::rbac::Rbac),
    /// Print the bootstrap kubeconfig of a token
    Kubeconfig(commands::kubeconfig::Kubeconfig),
    /// Show, rotate and recover the server token of K3s and RKE2
    ServerToken(server_token::commands::ServerToken),
    /// Show, set, rotate and remove the agent token of K3s and RKE2
    AgentToken(agent_token::commands::AgentToken),
    /// List the etcd snapshots, and the server token that each needs
    Snapshots(snapshots::command::Snapshots),
    /// Print the client and server version information
    Version(commands::version::Version),
}

impl Plugin for BootstrapToken {
    const NAME: &'static str = "bootstrap-token";
    const LOGGED: &'static [&'static str] = &[
        "kubectl_bootstrap_token",
        "client",
        "cli",
        "bootstrap",
        "engine",
        "supervisor",
        "node_access",
    ];

    fn global(&self) -> &GlobalFlags {
        &self.global
    }

    async fn run(self, context: Context) -> Result<ExitCode, Error> {
        let Self { global, command } = self;
        match command {
            Command::Create(create) => commands::create::run(create, &global, &context).await,
            Command::List(list) => commands::list::run(list, &global, &context).await,
            Command::Generate(generate) => commands::generate::run(generate, &context),
            Command::Revoke(revoke) => commands::revoke::run(revoke, &global, &context).await,
            Command::Status(status) => commands::status::run(status, &global, &context).await,
            Command::Rotate(rotate) => commands::rotate::run(rotate, &global, &context).await,
            Command::Rollback(rollback) => commands::rollback::run(rollback, &global, &context).await,
            Command::Extend(extend) => commands::extend::run(extend, &global, &context).await,
            Command::Verify(verify) => commands::verify::run(verify, &global, &context).await,
            Command::Rbac(rbac) => commands::rbac::run(rbac, &global, &context).await,
            Command::Kubeconfig(kubeconfig) => commands::kubeconfig::run(kubeconfig, &global, &context).await,
            Command::ServerToken(command) => server_token::commands::run(command, &global, &context).await,
            Command::AgentToken(command) => Box::pin(agent_token::commands::run(command, &global, &context)).await,
            Command::Snapshots(command) => snapshots::command::run(command, &global, &context).await,
            Command::Version(version) => commands::version::run(version, &global, &context).await,
        }
    }

    async fn candidates(request: CompletionRequest, context: Context) -> Result<Vec<Candidate>, Error> {
        candidates::candidates(request, context).await
    }
}
