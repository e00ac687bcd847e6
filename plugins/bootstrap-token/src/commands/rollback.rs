//! `kubectl bootstrap-token rollback`: restores the original state of an unfinished rotation.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::results::exit;
use cli::rotation::{Verb, force};
use client::error::Error;
use engine::rotation::Check;

use super::work::{Command, Common};
use crate::controller::Options;
use crate::lifetime::DEFAULT;
use crate::rotation::blockers::{CLUSTER, TARGET};
use crate::side;

/// What is typed after `kubectl bootstrap-token rollback`.
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

    /// The flags of both commands.
    #[command(flatten)]
    pub common: Common,
}

const EXAMPLES: &str = "\
Examples:
  # Deliver the old token again, and revoke the new one
  kubectl bootstrap-token rollback 07401b

  # Print the plan without changing anything
  kubectl bootstrap-token rollback 07401b --dry-run

A rollback is possible until the old token is revoked; after that a rotation can only be finished. If the old token expires in the meantime, the new one is used instead.

Exit codes: 0 rolled back, or nothing to do (3 with --exit-code), 1 failed, 2 usage, 4 pending (resumable), 5 held by another run, 130 interrupted";

/// Runs it.
pub(crate) async fn run(rollback: Rollback, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let id = side::id(&rollback.id, &context.ui)?;
    let command = Command {
        verb: Verb::Rollback,
        options: Options {
            // Of a new token that is repaired, since the old one has expired.
            ttl: Some(DEFAULT),
            overlap: rollback.common.overlap,
            timeout: rollback.common.timeout,
            deliver: None,
            forced: rollback.force,
        },
        common: &rollback.common,
        global,
        context,
    };
    let (outcome, ended) = command.run(id).await?;
    exit(ended, outcome == "nothing-to-do", rollback.exit_code)
}
