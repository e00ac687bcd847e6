//! `kubectl bootstrap-token server-token rollback`: restores the old server token in an unfinished rotation.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::results::exit;
use cli::rotation::{Verb, force};
use client::error::Error;
use engine::rotation::Check;

use super::rotation_command::{NewTokenFlags, RotationCommand, RotationFlags};
use crate::server_token::rotation::ServerToken;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// Exit with code 3 if no rotation is in progress
    #[arg(long)]
    pub exit_code: bool,

    /// Override a check by its name. Can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::parser::<ServerToken>())]
    pub force: Vec<Check>,

    #[command(flatten)]
    pub(super) rotation: RotationFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Set the old token on every server again, and restart those that have loaded the new one
  kubectl bootstrap-token server-token rollback --token-file old --node-exec 'ssh root@{address}'

  # Print the plan without changing anything
  kubectl bootstrap-token server-token rollback --token-file old --dry-run

Pass the old or the new token. A rollback is possible until the end of the rotation. A round of changes that has begun is completed first, because half of it would keep servers from starting.

Exit codes: 0 rolled back, or nothing to do (3 with --exit-code), 1 failed, 2 usage, 4 pending (resumable), 5 held by another run, 130 interrupted";

pub(crate) async fn run(rollback: Rollback, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let command = RotationCommand {
        verb: Verb::Rollback,
        flags: &rollback.rotation,
        new: &NewTokenFlags::default(),
        forced: rollback.force,
        global,
        context,
    };
    let (outcome, ended) = command.run().await?;
    exit(ended, outcome == "nothing-to-do", rollback.exit_code)
}
