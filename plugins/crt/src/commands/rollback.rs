//! `kubectl crt rollback`: an unfinished rotation is undone.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::Asked;
use cli::rotation::results::{Results, exit};
use client::error::Error;

use super::rotate::{Command, Common};
use crate::sides::Management;

/// What is typed after `kubectl crt rollback`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// The cluster by id, display name, or namespace/name of the provisioning cluster
    #[arg(value_name = "CLUSTER")]
    pub subject: String,

    /// End with exit code 3 where no rotation is under way
    #[arg(long)]
    pub exit_code: bool,

    /// What both verbs have.
    #[command(flatten)]
    pub common: Common,
}

const EXAMPLES: &str = "\
Examples:
  # Give the agent its old token back, and revoke the new one
  kubectl crt rollback staging

  # What that would do
  kubectl crt rollback staging --dry-run

It is possible until the old token is retired; after that a rotation can only be finished. While it goes back, nothing
is taken away before the agent is proven to run with the old token.

Exit codes: 0 undone, or nothing to undo (3 with --exit-code), 1 failed, 2 usage, 4 pending, 5 held, 130 interrupted.";

/// Runs it.
pub(crate) async fn run(rollback: Rollback, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let results = Results::new(&context.ui, &rollback.common.run, true)?;
    let management = Management::open(global, &context.environment)?;
    let cluster = management.cluster(&rollback.subject).await?;
    let command = Command {
        asked: Asked::Rollback,
        only_agent: false,
        common: &rollback.common,
        global,
        context,
        results: &results,
    };
    let (result, ended) = command.on(&management, cluster).await?;
    let nothing_to_do = result.outcome == "nothing-to-do";
    results.print(&[result])?;
    exit(ended, nothing_to_do, rollback.exit_code)
}
