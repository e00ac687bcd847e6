//! `kubectl bootstrap-token server-token rotate`: replaces the server token.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::{Verb, force};
use client::error::Error;
use engine::rotation::Check;

use super::rotation_command::{NewTokenFlags, RotationCommand, RotationFlags};
use crate::server_token::rotation::ServerToken;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rotate {
    #[command(flatten)]
    pub(super) new: NewTokenFlags,

    #[command(flatten)]
    pub(super) rotation: RotationFlags,

    /// Override a preflight check by its name. Can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::parser::<ServerToken>())]
    pub(super) force: Vec<Check>,
}

const EXAMPLES: &str = "\
Examples:
  # Print the plan without changing anything
  kubectl bootstrap-token server-token rotate --token-file old --write-token new --dry-run

  # Rotate, and restart the servers one at a time over ssh
  kubectl bootstrap-token server-token rotate --token-file old --write-token new \\
      --node-exec 'ssh root@{address}'

  # Rotate, and have an operator restart each server
  kubectl bootstrap-token server-token rotate --token-file old --write-token new

  # Restart one server in its maintenance window; the last command finishes the rotation
  kubectl bootstrap-token server-token rotate --token-file old --write-token new --only s2

  # Also write the new token into the configuration of the servers and agents that had the old one
  kubectl bootstrap-token server-token rotate --token-file old --write-token new \\
      --node-exec 'ssh root@{address}' --repin --agents

Kill it at any point: run the same command again to resume, with the old or the new token. Until its end, `kubectl bootstrap-token server-token rollback` restores the old token. In between, join no server, and pause autoscaling and configuration management.

The token is sent only to servers whose CA is verified. A cluster-admin kubeconfig alone cannot rotate: the servers ask for the token.

Exit codes: 0 done, 1 failed, 2 usage, 4 pending (resumable), 5 held by another run, 130 interrupted";

pub(crate) async fn run(rotate: Rotate, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let command = RotationCommand {
        verb: Verb::Rotate,
        flags: &rotate.rotation,
        new: &rotate.new,
        forced: rotate.force,
        global,
        context,
    };
    let (_, ended) = command.run().await?;
    ended.map(|()| ExitCode::Done)
}
