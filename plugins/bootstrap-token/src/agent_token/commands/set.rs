//! `kubectl bootstrap-token agent-token set`: sets the first agent token.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::force;
use client::error::Error;
use engine::rotation::Check;

use super::flags::{AgentTokenFlag, NewAgentTokenFlags};
use super::rotation_command::{AgentRotationCommand, AgentRotationFlags};
use crate::agent_token::rotation::AgentToken;
use crate::agent_token::rotation::observed::Purpose;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Set {
    #[command(flatten)]
    new: NewAgentTokenFlags,

    #[command(flatten)]
    rotation: AgentRotationFlags,

    /// Override a preflight check by its name. Can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::parser::<AgentToken>())]
    force: Vec<Check>,
}

const EXAMPLES: &str = "\
Examples:
  # Print the plan without changing anything
  kubectl bootstrap-token agent-token set --token-file server --write-token agent --dry-run

  # Set it, and restart the servers one at a time over ssh
  kubectl bootstrap-token agent-token set --token-file server --write-token agent \\
      --node-exec 'ssh root@{address}'

The server token is needed too: after its restart with another agent token, a server saves its files into the datastore, and only a server may ask for that. Otherwise its next start would fail.

Kill it at any point: run the same command again to resume. Until its end, `kubectl bootstrap-token agent-token rollback` restores the former state.

Exit codes: 0 done, 1 failed, 2 usage, 4 pending (resumable), 5 held by another run, 130 interrupted";

pub(crate) async fn run(set: Set, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let command = AgentRotationCommand {
        purpose: Some(Purpose::Set),
        flags: &set.rotation,
        old: &AgentTokenFlag::default(),
        new: &set.new,
        forced: set.force,
        global,
        context,
    };
    let (_, ended) = command.run().await?;
    ended.map(|()| ExitCode::Done)
}
