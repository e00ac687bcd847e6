//! `kubectl bootstrap-token server-token`: its commands, one file each.

pub(crate) mod new_value;
pub(crate) mod node_flags;
mod recover;
mod rollback;
mod rotate;
pub(crate) mod rotation_command;
pub(crate) mod status;
pub(crate) mod verify;

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::{Commands, OtherKind};
use client::error::Error;
use engine::rotation::Rotation as _;

use crate::server_token::rotation;

#[derive(clap::Args, Clone, Debug)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct ServerToken {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// Show each server, its token configuration, and the token it accepts
    Status(status::Status),
    /// Verify that every server accepts a token
    Verify(verify::Verify),
    /// Rotate the server token without losing a server
    Rotate(rotate::Rotate),
    /// Roll back an unfinished rotation
    Rollback(rollback::Rollback),
    /// Recover servers that a change of the token has broken
    Recover(recover::Recover),
}

const EXAMPLES: &str = "\
Examples:
  # Show the servers, and where their token is configured
  kubectl bootstrap-token server-token status

  # Verify that every server accepts a token
  kubectl bootstrap-token server-token verify --token-file token

  # Rotate the token, and restart the servers one at a time over ssh
  kubectl bootstrap-token server-token rotate --token-file token --write-token new-token \\
      --node-exec 'ssh root@{address}'

Requests go to the supervisor of each server, at the InternalIP of its Node. Rancher's proxy does not carry them.";

/// Its commands, for those of the other token with the same Lease.
pub(crate) fn other_kind(commands: Commands) -> OtherKind {
    OtherKind {
        kind: rotation::ServerToken::KIND,
        display: "a rotation of the server token",
        commands,
    }
}

pub(crate) async fn run(command: ServerToken, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    match command.command {
        Command::Status(status) => status::run(status, global, context).await,
        Command::Verify(verify) => verify::run(verify, global, context).await,
        Command::Rotate(rotate) => rotate::run(rotate, global, context).await,
        Command::Rollback(rollback) => rollback::run(rollback, global, context).await,
        Command::Recover(recover) => recover::run(recover, global, context).await,
    }
}
