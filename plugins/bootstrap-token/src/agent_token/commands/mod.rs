//! `kubectl bootstrap-token agent-token`: its commands, one file each.

mod flags;
mod remove;
mod rollback;
mod rotate;
mod rotation_command;
mod set;
mod status;
mod verify;

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::{Commands, OtherKind};
use client::error::Error;
use engine::rotation::Rotation as _;

use super::rotation;

#[derive(clap::Args, Clone, Debug)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct AgentToken {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// Show each server, its agent token, and what it accepts from agents
    Status(status::Status),
    /// Verify that every server accepts an agent token
    Verify(verify::Verify),
    /// Set the first agent token without losing a server
    Set(set::Set),
    /// Rotate the agent token without losing a server
    Rotate(rotate::Rotate),
    /// Remove the agent token: agents join with the server token
    Remove(remove::Remove),
    /// Roll back an unfinished change of the agent token
    Rollback(rollback::Rollback),
}

const EXAMPLES: &str = "\
Examples:
  # Show the servers, where their agent token is configured, and what they accept from agents
  kubectl bootstrap-token agent-token status --token-file server --agent-token-file agent

  # Set the first agent token, and restart the servers one at a time over ssh
  kubectl bootstrap-token agent-token set --token-file server --write-token agent \\
      --node-exec 'ssh root@{address}'

An agent token lets machines join as agents only. Without one, they join with the server token.";

/// Its commands, for those of the other token with the same Lease.
pub(crate) fn other_kind(commands: Commands) -> OtherKind {
    OtherKind {
        kind: rotation::AgentToken::KIND,
        display: "a rotation of the agent token",
        commands,
    }
}

pub(crate) async fn run(command: AgentToken, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    match command.command {
        Command::Status(status) => status::run(status, global, context).await,
        Command::Verify(verify) => verify::run(verify, global, context).await,
        Command::Set(set) => set::run(set, global, context).await,
        Command::Rotate(rotate) => rotate::run(rotate, global, context).await,
        Command::Remove(remove) => remove::run(remove, global, context).await,
        Command::Rollback(rollback) => rollback::run(rollback, global, context).await,
    }
}
