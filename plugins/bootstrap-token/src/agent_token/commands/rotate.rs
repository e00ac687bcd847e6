//! `kubectl bootstrap-token agent-token rotate`: replaces the agent token.

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
pub(crate) struct Rotate {
    #[command(flatten)]
    old: AgentTokenFlag,

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
  # Rotate, and restart the servers one at a time over ssh. The old agent token is read from a server
  kubectl bootstrap-token agent-token rotate --token-file server --write-token agent \\
      --node-exec 'ssh root@{address}'

  # Rotate, and have an operator configure and restart each server
  kubectl bootstrap-token agent-token rotate --token-file server --agent-token-file old \\
      --write-token agent

  # Also write the new token into the configuration of agents
  kubectl bootstrap-token agent-token rotate --token-file server --write-token agent \\
      --node-exec 'ssh root@{address}' --agents

The server token is needed too: after its restart with another agent token, a server saves its files into the datastore, and only a server may ask for that. Otherwise its next start would fail. Without the old agent token it is not proven that it is rejected, and a rollback cannot restore it.

Kill it at any point: run the same command again to resume. Until its end, `kubectl bootstrap-token agent-token rollback` restores the old token. In between, join no server, and pause autoscaling and configuration management.

Exit codes: 0 done, 1 failed, 2 usage, 4 pending (resumable), 5 held by another run, 130 interrupted";

pub(crate) async fn run(rotate: Rotate, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let command = AgentRotationCommand {
        purpose: Some(Purpose::Rotate),
        flags: &rotate.rotation,
        old: &rotate.old,
        new: &rotate.new,
        forced: rotate.force,
        global,
        context,
    };
    let (_, ended) = command.run().await?;
    ended.map(|()| ExitCode::Done)
}
