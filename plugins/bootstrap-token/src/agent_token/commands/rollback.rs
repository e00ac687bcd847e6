//! `kubectl bootstrap-token agent-token rollback`: restores the state before an unfinished change.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::force;
use cli::rotation::results::exit;
use client::error::Error;
use engine::rotation::Check;

use super::flags::{AgentTokenFlag, NewAgentTokenFlags};
use super::rotation_command::{AgentRotationCommand, AgentRotationFlags};
use crate::agent_token::rotation::AgentToken;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// Exit with code 3 if no rotation is in progress
    #[arg(long)]
    exit_code: bool,

    /// Override a check by its name. Can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::parser::<AgentToken>())]
    force: Vec<Check>,

    #[command(flatten)]
    old: AgentTokenFlag,

    #[command(flatten)]
    rotation: AgentRotationFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Restore the configurations, and restart the servers that have loaded the new token
  kubectl bootstrap-token agent-token rollback --token-file server --node-exec 'ssh root@{address}'

Pass the server token. The old agent token is in the backup Secret of the run. A server whose last start has changed its agent token saves its files first: it would not start again otherwise.

Exit codes: 0 rolled back, or nothing to do (3 with --exit-code), 1 failed, 2 usage, 4 pending (resumable), 5 held by another run, 130 interrupted";

pub(crate) async fn run(rollback: Rollback, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let command = AgentRotationCommand {
        purpose: None,
        flags: &rollback.rotation,
        old: &rollback.old,
        new: &NewAgentTokenFlags::default(),
        forced: rollback.force,
        global,
        context,
    };
    let (outcome, ended) = command.run().await?;
    exit(ended, outcome == "nothing-to-do", rollback.exit_code)
}
