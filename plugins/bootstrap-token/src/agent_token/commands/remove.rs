//! `kubectl bootstrap-token agent-token remove`: agents use the server token again.

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
pub(crate) struct Remove {
    #[command(flatten)]
    old: AgentTokenFlag,

    #[command(flatten)]
    rotation: AgentRotationFlags,

    /// Override a preflight check by its name. Can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::parser::<AgentToken>())]
    force: Vec<Check>,
}

const EXAMPLES: &str = "\
Examples:
  # Remove the agent token, and restart the servers one at a time over ssh
  kubectl bootstrap-token agent-token remove --token-file server --node-exec 'ssh root@{address}'

  # Also write the server token into the configuration of agents
  kubectl bootstrap-token agent-token remove --token-file server --agents \\
      --node-exec 'ssh root@{address}'

Afterwards, machines join as agents with the server token, which also lets them join as servers. After its restart without the agent token, a server saves its files into the datastore, and only a server may ask for that. Otherwise its next start would fail.

Kill it at any point: run the same command again to resume. Until its end, `kubectl bootstrap-token agent-token rollback` restores the agent token.

Exit codes: 0 done, 1 failed, 2 usage, 4 pending (resumable), 5 held by another run, 130 interrupted";

pub(crate) async fn run(remove: Remove, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let command = AgentRotationCommand {
        purpose: Some(Purpose::Remove),
        flags: &remove.rotation,
        old: &remove.old,
        new: &NewAgentTokenFlags::default(),
        forced: remove.force,
        global,
        context,
    };
    let (_, ended) = command.run().await?;
    ended.map(|()| ExitCode::Done)
}
