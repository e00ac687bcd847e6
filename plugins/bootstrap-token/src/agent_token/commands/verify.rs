//! `kubectl bootstrap-token agent-token verify`: probes every server with an agent token.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::OutputFlags;
use client::error::Error;

use super::flags::AgentTokenFlag;
use crate::cluster::ClusterConnection;
use crate::server_token::commands::verify::{VerifyRequest, print};
use crate::server_token::connections::SupervisorFlags;
use crate::server_token::given_token::GivenToken;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    #[command(flatten)]
    agent_token: AgentTokenFlag,

    #[command(flatten)]
    supervisors: SupervisorFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Verify that every server accepts an agent token
  kubectl bootstrap-token agent-token verify --agent-token-file agent

  # Also report which servers accept the server token from agents
  kubectl bootstrap-token agent-token verify --agent-token-file agent --token-file server

The tokens are sent only to servers whose CA is verified. A server that is starting or does not respond is unknown, not rejecting.

Exit codes: 0 every server accepts the agent token; 1 a server rejects it, or its result is unknown.";

pub(crate) async fn run(verify: Verify, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let (flags, format) = OutputFlags::of_page(verify.output.as_ref(), "verify")?;
    let token = verify.agent_token.token()?.map(GivenToken::Server);
    let token = token.ok_or_else(|| Error::usage("pass the agent token with --agent-token-file"))?;
    let server_token = verify.supervisors.token(ui).await?;
    let cluster = ClusterConnection::open(global, context)?;
    let request = VerifyRequest {
        kind: "AgentTokenVerification",
        addresses: &verify.supervisors.addresses,
        token: &token,
        server_token: server_token.as_ref(),
    };
    let verification = request.run(ui, &cluster).await?;
    print(ui, &verification, &flags, &format)
}
