//! `kubectl bootstrap-token server-token verify`: probes every server with a token.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::ui::Ui;
use client::error::Error;
use futures::future::join_all;
use supervisor::{ProbeResult, node};

use crate::cluster::ClusterConnection;
use crate::server_token::connections::{Access, ServerFlags, ServerTarget, SupervisorFlags};
use crate::server_token::given_token::GivenToken;
use crate::server_token::probe::{self, Acceptance, Role};
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
    let request = VerifyRequest {
        kind: "ServerTokenVerification",
        addresses: &verify.supervisors.addresses,
        token: &token,
        server_token: None,
    };
    let verification = request.run(ui, &cluster).await?;
    print(ui, &verification, &flags, &format)
}

/// What is asked of each server.
pub(crate) struct VerifyRequest<'a> {
    /// Of the document.
    pub(crate) kind: &'static str,
    pub(crate) addresses: &'a ServerFlags,
    pub(crate) token: &'a GivenToken,
    /// Where it is accepted from agents, that is said.
    pub(crate) server_token: Option<&'a GivenToken>,
}

impl VerifyRequest<'_> {
    pub(crate) async fn run(&self, ui: &Ui, cluster: &ClusterConnection) -> Result<ServerTokenVerification, Error> {
        let hash = self.token.ca_hash().or(self.server_token.and_then(GivenToken::ca_hash));
        let access = Access::new(self.addresses, hash, cluster, ui)?;
        let servers = match node::list(cluster.client()).await {
            Ok(nodes) => self.addresses.servers(&nodes)?,
            Err(error) if self.addresses.names_servers() => {
                let error = Error::from(error);
                ui.warn(format!(
                    "cannot list Nodes, so only the servers of --server-address are verified: {}",
                    error.message
                ));
                self.addresses.named_servers()?
            }
            Err(error) => {
                return Err(Error::from(error).hint(
                    "to verify servers without the Kubernetes API, pass --server-address NODE=HOST for each of them",
                ));
            }
        };
        let results = join_all(servers.iter().map(|server| self.verify(server, &access))).await;
        Ok(ServerTokenVerification::new(self.kind, self.token, results))
    }

    async fn verify(&self, server: &ServerTarget, access: &Access) -> ServerResult {
        let mut result = ServerResult {
            name: server.name.clone(),
            address: server.address().map(ToString::to_string),
            acceptance: Acceptance::Rejected,
            accepts_server_token: false,
        };
        match server.connect(access).await {
            Ok(supervisor) => {
                result.address = Some(supervisor.address().to_string());
                result.acceptance = probe::probe(&supervisor, self.token, server.version.as_deref()).await;
                if let Some(token) = self.server_token {
                    let as_agent = supervisor.probe(token.credential(Role::Agent)).await;
                    result.accepts_server_token = as_agent == ProbeResult::Accepted;
                }
            }
            Err(error) => result.acceptance = Acceptance::from(error),
        }
        result
    }
}

pub(crate) fn print(
    ui: &Ui,
    verification: &ServerTokenVerification,
    flags: &OutputFlags,
    format: &OutputFormat,
) -> Result<ExitCode, Error> {
    match format {
        OutputFormat::Table => {
            ui.write_out(&verification.page(ui));
            verification.hints.iter().for_each(|hint| ui.hint(hint));
        }
        _ => output::print_value(ui, flags, verification)?,
    }
    Ok(verification.exit_code())
}
