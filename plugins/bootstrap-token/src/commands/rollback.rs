//! `kubectl bootstrap-token rollback`: an unfinished rotation is undone.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::Asked;
use cli::rotation::results::exit;
use client::error::Error;

use super::work::{Command, Common};
use crate::controller::{Check, Options};
use crate::lifetime::DEFAULT;
use crate::side;

/// What is typed after `kubectl bootstrap-token rollback`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// The id of the token that is being rotated
    #[arg(value_name = "ID")]
    pub id: String,

    /// End with exit code 3 where no rotation is under way
    #[arg(long)]
    pub exit_code: bool,

    /// Override a check by its name; can be repeated. "target" leaves a file on a host that is lost for good as it is: whoever
    /// reads it may find a token that is revoked
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = Check::parser(Check::OF_A_RUN))]
    pub force: Vec<Check>,

    /// What both verbs have.
    #[command(flatten)]
    pub common: Common,
}

const EXAMPLES: &str = "\
Examples:
  # Put the old token back where it was delivered, and revoke the new one
  kubectl bootstrap-token rollback 07401b

  # What that would do
  kubectl bootstrap-token rollback 07401b --dry-run

It is possible until the old token is retired; after that a rotation can only be finished. If the old token ends meanwhile,
there is no way back to it, and the new one stays.

Exit codes: 0 undone, or nothing to undo (3 with --exit-code), 1 failed, 2 usage, 4 pending, 5 held, 130 interrupted.";

/// Runs it.
pub(crate) async fn run(rollback: Rollback, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let id = side::id(&rollback.id, &context.ui)?;
    let command = Command {
        asked: Asked::Rollback,
        options: Options {
            // Of a new token that stays, since the old one is out of reach.
            ttl: Some(DEFAULT),
            overlap: rollback.common.overlap,
            timeout: rollback.common.timeout,
            deliver: None,
            forced: rollback.force.into_iter().collect(),
        },
        common: &rollback.common,
        global,
        context,
    };
    let (outcome, ended) = command.on(id).await?;
    exit(ended, outcome == "nothing-to-do", rollback.exit_code)
}
