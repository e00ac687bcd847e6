//! `kubectl crt rollback`: rolls back an unfinished rotation.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::Verb;
use cli::rotation::results::{Results, exit};
use client::error::Error;

use super::rotate::{Command, Common, Opened};
use crate::connections::Management;

/// The flags of `kubectl crt rollback`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// Cluster id, display name, or namespace/name of the provisioning cluster
    #[arg(value_name = "CLUSTER")]
    target: String,

    /// Exit with 3 if no rotation is in progress
    #[arg(long)]
    exit_code: bool,

    /// What both commands have.
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  # Restore the agent's old token and revoke the new one
  kubectl crt rollback staging

  # Print the plan
  kubectl crt rollback staging --dry-run

A rollback is possible until the old token is revoked. After that, a rotation can only be finished. \
The new token is revoked only after the agent is proven to run with the old one.

Exit codes: 0 rolled back or nothing to do, 1 failed, 2 usage, 4 pending, 5 held, 130 interrupted.";

/// Runs it.
pub(crate) async fn run(rollback: Rollback, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let results = Results::new(&context.ui, &rollback.common.run, true)?;
    let management = Management::open(global, &context.environment)?;
    let cluster = management.cluster(&rollback.target).await?;
    let command = Command {
        verb: Verb::Rollback,
        only_agent: false,
        common: &rollback.common,
        context,
        results: &results,
    };
    let opened = Opened::open(cluster, &rollback.common, &management, global, context).await;
    let (result, ended) = command.on(&opened).await;
    let nothing_to_do = result.outcome == "nothing-to-do";
    results.print(&[result]);
    exit(ended, nothing_to_do, rollback.exit_code)
}
