//! `kubectl bootstrap-token agent-token status`: shows each server, and what it accepts from agents.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use client::error::Error;

use super::flags::AgentTokenFlag;
use crate::server_token::commands::node_flags::NodeFlags;
use crate::server_token::commands::status::StatusRequest;
use crate::server_token::connections::SupervisorFlags;
use crate::server_token::given_token::GivenToken;
use crate::server_token::session::RotatedToken;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    #[command(flatten)]
    supervisors: SupervisorFlags,

    #[command(flatten)]
    agent_token: AgentTokenFlag,

    #[command(flatten)]
    nodes: NodeFlags,

    /// Output format: wide, json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Show where the agent token is configured, and whether servers accept it or the server token from agents
  kubectl bootstrap-token agent-token status --token-file server --agent-token-file agent

  # Read where it is configured from the files of each node, instead of what its last start has shown
  kubectl bootstrap-token agent-token status --node-exec 'ssh root@{address}'

The column FROM-AGENTS shows the token that a server accepts from agents: agent-token, server-token, another, or unknown.";

pub(crate) async fn run(status: Status, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let agent_token = status.agent_token.token()?.map(GivenToken::Server);
    let request = StatusRequest {
        of: RotatedToken::Agent,
        supervisors: &status.supervisors,
        nodes: &status.nodes,
        output: status.output.clone(),
        agent_token,
    };
    request.run(global, context).await
}
