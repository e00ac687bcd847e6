//! `kubectl bootstrap-token rollback`: restores the original state of an unfinished rotation.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::results::exit;
use cli::rotation::{Verb, force};
use client::error::Error;
use engine::rotation::Check;

use super::rotation_command::{RotationCommand, RotationFlags};
use crate::cluster;
use crate::lifetime::DEFAULT;
use crate::rotation::blockers::{CLUSTER, TARGET};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// The id of the token that is being rotated
    #[arg(value_name = "ID")]
    pub id: String,

    /// Exit with code 3 if no rotation is in progress
    #[arg(long)]
    pub exit_code: bool,

    /// Override a check by its name. Can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::of(&[Check::LOCK, Check::JOURNAL, TARGET, CLUSTER]))]
    pub force: Vec<Check>,

    #[command(flatten)]
    pub rotation: RotationFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Deliver the old token again, and revoke the new one
  kubectl bootstrap-token rollback 07401b

  # Print the plan without changing anything
  kubectl bootstrap-token rollback 07401b --dry-run

A rollback is possible until the old token is revoked; after that a rotation can only be finished. If the old token expires in the meantime, the new one is used instead.

Exit codes: 0 rolled back, or nothing to do (3 with --exit-code), 1 failed, 2 usage, 4 pending (resumable), 5 held by another run, 130 interrupted";

pub(crate) async fn run(rollback: Rollback, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let id = cluster::id(&rollback.id, &context.ui, global)?;
    let command = RotationCommand {
        verb: Verb::Rollback,
        // The lifetime is that of a new token that has to be repaired because the old one has expired.
        options: rollback.rotation.options(Some(DEFAULT), None, rollback.force),
        flags: &rollback.rotation,
        global,
        context,
    };
    let (outcome, ended) = command.run(id).await?;
    exit(ended, outcome == "nothing-to-do", rollback.exit_code)
}
