//! `kubectl bootstrap-token server-token verify`: probes every server with a token.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use client::error::Error;
use futures::future::join_all;
use supervisor::node;

use crate::cluster::ClusterConnection;
use crate::server_token::connections::{Access, ServerTarget, SupervisorFlags};
use crate::server_token::given_token::GivenToken;
use crate::server_token::probe::{self, Acceptance};
use crate::server_token::report::verification::{ServerResult, ServerTokenVerification};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    #[command(flatten)]
    supervisors: SupervisorFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Verify that every server accepts a token, and print as what: server, agent or bootstrap token
  kubectl bootstrap-token server-token verify --token-file token

  # Verify the token of a password manager
  kubectl bootstrap-token server-token verify --token-stdin < token

  # Verify two servers while the Kubernetes API is not available
  kubectl bootstrap-token server-token verify --token-file token \\
      --server-address s1=10.0.0.1 --server-address s2=10.0.0.2

The token is sent only to servers whose CA is verified. A server that is starting or does not respond is unknown, not rejecting.

Exit codes: 0 every server accepts it, in the same role; 1 a server rejects it, or its result is unknown.";

pub(crate) async fn run(verify: Verify, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let (flags, format) = OutputFlags::of_page(verify.output.as_ref(), "verify")?;
    let token = verify.supervisors.token(ui).await?;
    let token = token.ok_or_else(|| Error::usage("pass the token with --token-file or --token-stdin"))?;
    let cluster = ClusterConnection::open(global, context)?;
    let access = Access::new(&verify.supervisors.addresses, token.ca_hash(), &cluster, ui)?;
    let servers = match node::list(cluster.client()).await {
        Ok(nodes) => verify.supervisors.addresses.servers(&nodes)?,
        Err(error) if verify.supervisors.addresses.names_servers() => {
            let error = Error::from(error);
            ui.warn(format!(
                "cannot list Nodes, so only the servers of --server-address are verified: {}",
                error.message
            ));
            verify.supervisors.addresses.named_servers()?
        }
        Err(error) => {
            return Err(Error::from(error).hint(
                "to verify servers without the Kubernetes API, pass --server-address NODE=HOST for each of them",
            ));
        }
    };
    let results = join_all(servers.iter().map(|server| verify_server(server, &access, &token))).await;
    let verification = ServerTokenVerification::new(&token, results);
    match format {
        OutputFormat::Table => {
            ui.write_out(&verification.page(ui));
            verification.hints.iter().for_each(|hint| ui.hint(hint));
        }
        _ => output::print_value(ui, &flags, &verification)?,
    }
    Ok(verification.exit_code())
}

async fn verify_server(server: &ServerTarget, access: &Access, token: &GivenToken) -> ServerResult {
    let (address, acceptance) = match server.connect(access).await {
        Ok(supervisor) => {
            let acceptance = probe::probe(&supervisor, token, server.version.as_deref()).await;
            (Some(supervisor.address().to_string()), acceptance)
        }
        Err(error) => (server.address().map(ToString::to_string), Acceptance::from(error)),
    };
    ServerResult {
        name: server.name.clone(),
        address,
        acceptance,
    }
}
