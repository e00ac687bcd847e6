//! `kubectl bootstrap-token server-token status`: shows each server, and what it answers to a token.

use std::collections::BTreeMap;

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::in_progress::RotationStatus;
use cli::rotation::leases::LeasedRotation;
use cli::rotation::{Commands, leases};
use cli::ui::Ui;
use client::access::Needed;
use client::error::Error;
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use node_access::{NodeState, ServiceOptions};
use supervisor::node::{self, ClusterNode};
use supervisor::{Credential, InvalidToken, Supervisor, ready, snapshot};

use crate::agent_token;
use crate::agent_token::rotation::AgentToken;
use crate::cluster::ClusterConnection;
use crate::report::target::CLUSTER;
use crate::rights::{AGENT_STATUS_BY_POD, SERVER_STATUS_BY_POD};
use crate::server_token::commands::node_flags::NodeFlags;
use crate::server_token::connections::{Access, ServerTarget, SupervisorFlags};
use crate::server_token::given_token::GivenToken;
use crate::server_token::lease;
use crate::server_token::node_way::{self, NodeWay};
use crate::server_token::probe::{self, Acceptance, Role};
use crate::server_token::report::server::ServerObservation;
use crate::server_token::report::status::ServerTokenStatus;
use crate::server_token::rotation::ServerToken;
use crate::server_token::session::RotatedToken;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    #[command(flatten)]
    supervisors: SupervisorFlags,

    #[command(flatten)]
    nodes: NodeFlags,

    /// Output format: wide, json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Show the servers, where their token is configured, and which snapshots there are
  kubectl bootstrap-token server-token status

  # Also show which servers accept a token, the state of secrets-encryption, and which snapshots need another token
  kubectl bootstrap-token server-token status --token-file token

  # Read where tokens are configured from the files of each node, instead of what its last start has shown
  kubectl bootstrap-token server-token status --node-exec 'ssh root@{address}'

  # Print the servers that reject a token
  kubectl bootstrap-token server-token status --token-file token \\
      -o jsonpath='{.servers[?(@.accepted==\"no\")].name}'

Without --node-exec or --via pod, where a token is configured is what the last start of the node has shown. An edit of a file is then shown after the next start.";

pub(crate) async fn run(status: Status, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let request = StatusRequest {
        of: RotatedToken::Server,
        supervisors: &status.supervisors,
        nodes: &status.nodes,
        output: status.output.clone(),
        agent_token: None,
    };
    request.run(global, context).await
}

/// What is shown of the servers.
pub(crate) struct StatusRequest<'a> {
    pub(crate) of: RotatedToken,
    pub(crate) supervisors: &'a SupervisorFlags,
    pub(crate) nodes: &'a NodeFlags,
    pub(crate) output: Option<String>,
    pub(crate) agent_token: Option<GivenToken>,
}

impl StatusRequest<'_> {
    pub(crate) async fn run(self, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
        let ui = &context.ui;
        let flags = OutputFlags {
            output: self.output.clone(),
            ..OutputFlags::default()
        };
        let format = flags.format()?;
        if matches!(format, OutputFormat::Name) {
            return Err(Error::usage(
                "status prints a page, wide, json, yaml, jsonpath or custom-columns",
            ));
        }
        let is_of_server = self.of == RotatedToken::Server;
        let way = self.nodes.way()?;
        let token = self.supervisors.token(ui).await?;
        if let Some(GivenToken::Bootstrap { .. }) = token {
            return Err(Error::usage(InvalidToken::BootstrapToken.to_string())
                .hint("`server-token verify` verifies bootstrap tokens too"));
        }
        let cluster = ClusterConnection::open(global, context)?;
        let tokens = [token.as_ref(), self.agent_token.as_ref()];
        let hash = tokens.into_iter().flatten().find_map(GivenToken::ca_hash);
        let access = tokens
            .iter()
            .any(Option::is_some)
            .then(|| Access::new(&self.supervisors.addresses, hash, &cluster, ui))
            .transpose()?;
        let nodes = node::list(cluster.client()).await?;
        let targets = self.supervisors.addresses.servers(&nodes)?;
        let servers = nodes.iter().filter(|node| node.supervisor().is_some()).zip(&targets);
        let kind = nodes.iter().find_map(ClusterNode::supervisor);
        let files = async {
            match kind {
                Some(kind) => read_nodes(&nodes, &way, self.of, &self.nodes.service(kind), ui, &cluster).await,
                None => Ok(BTreeMap::new()),
            }
        };
        let snapshots = async {
            match kind.filter(|_| is_of_server) {
                Some(kind) => snapshot::list(cluster.client(), kind).await,
                None => Ok(Vec::new()),
            }
        };
        let lease = lease::name();
        let (files, servers, snapshots, leased) = futures::join!(
            files,
            join_all(servers.map(|(node, target)| observe(node, target, &cluster, access.as_ref(), tokens))),
            snapshots,
            leases::of::<ServerToken>(&cluster.server, &lease)
        );
        let (mut files, mut servers) = (files?, servers);
        for server in &mut servers {
            server.files = files.remove(&server.node.name);
        }
        let now = cluster.server.clock.now();
        let rotation = self.rotation(leased?, global, now);
        let snapshots = match snapshots {
            Err(error) if error.is_forbidden() => None,
            snapshots => Some(snapshots?),
        };
        let document = ServerTokenStatus::new(self.of, &nodes, &servers, &files, snapshots, rotation, tokens, now);
        match format {
            OutputFormat::Table | OutputFormat::Wide => {
                let is_wide = matches!(format, OutputFormat::Wide);
                let rotation = document.rotation.page(ui, now).join("\n");
                ui.write_out(&(document.page(is_wide) + &rotation + "\n"));
                document.warnings.iter().for_each(|warning| ui.warn(warning));
                if token.is_none() && is_of_server {
                    ui.hint("pass the server token with --token-file or --token-stdin to see which servers accept it, the state of secrets-encryption, and which snapshots need another token");
                }
                if access.is_none() && !is_of_server {
                    ui.hint("pass the server token with --token-file and the agent token with --agent-token-file to see which of them the servers accept from agents");
                }
            }
            _ => output::print_value(ui, &flags, &document)?,
        }
        Ok(ExitCode::Done)
    }

    /// That of either token: they have the same Lease.
    fn rotation(
        &self,
        leased: Option<LeasedRotation<ServerToken>>,
        global: &GlobalFlags,
        now: Timestamp,
    ) -> RotationStatus {
        let commands = |group: &str| {
            let commands = Commands::new::<crate::cli::BootstrapToken>("", global).in_group(group);
            self.nodes.typed(self.supervisors.typed(commands))
        };
        let (of_server, of_agents) = (commands("server-token"), commands("agent-token"));
        match (self.of, leased) {
            (RotatedToken::Agent, Some(leased)) => {
                let commands = of_agents.or_of(super::other_kind(of_server));
                let leased = LeasedRotation::<AgentToken>::from(leased.record);
                RotationStatus::of(Some(&leased), &commands, now)
            }
            (_, leased) => {
                let commands = of_server.or_of(agent_token::commands::other_kind(of_agents));
                RotationStatus::of(leased.as_ref(), &commands, now)
            }
        }
    }
}

/// The files of every node, or why they could not be read. Empty: there is no access to nodes.
async fn read_nodes(
    nodes: &[ClusterNode],
    way: &NodeWay,
    of: RotatedToken,
    service: &ServiceOptions,
    ui: &Ui,
    cluster: &ClusterConnection,
) -> Result<BTreeMap<String, Result<NodeState, String>>, Error> {
    let needed = Needed {
        server: &cluster.server,
        side: CLUSTER,
        rights: match of {
            RotatedToken::Server => way.rights(SERVER_STATUS_BY_POD, false),
            RotatedToken::Agent => way.rights(AGENT_STATUS_BY_POD, false),
        },
    };
    way.prepare(ui, &cluster.server, needed).await?;
    let with = (ui, cluster.client());
    let is_theirs = |node: &&ClusterNode| node.distribution.supervisor().is_some();
    let all = nodes.iter().filter(is_theirs).map(async |node| {
        let read = node_way::read(way, node, with, service).await;
        let read = read.map_err(|error| error.message).transpose()?;
        Some((node.name.clone(), read))
    });
    Ok(join_all(all).await.into_iter().flatten().collect())
}

/// One request after the other. The tokens: of servers, and of agents.
async fn observe<'a>(
    node: &'a ClusterNode,
    target: &ServerTarget,
    cluster: &ClusterConnection,
    access: Option<&Access>,
    [token, agent_token]: [Option<&GivenToken>; 2],
) -> ServerObservation<'a> {
    let readiness = match target.address().filter(|_| node.is_control_plane) {
        Some(address) => Some(ready::api_ready(&cluster.connection, address).await),
        None => None,
    };
    let mut observation = ServerObservation {
        node,
        address: target.address().map(ToString::to_string),
        readiness,
        acceptance: None,
        agent_acceptance: None,
        encryption: None,
        files: None,
    };
    let Some(access) = access else {
        return observation;
    };
    match target.connect(access).await {
        Err(error) => {
            let acceptance = Acceptance::from(error);
            observation.acceptance = token.map(|_| acceptance.clone());
            observation.agent_acceptance = agent_token.map(|_| acceptance);
        }
        Ok(supervisor) => {
            let version = target.version.as_deref();
            if let Some(token) = token {
                let acceptance = probe::probe(&supervisor, token, version).await;
                observation.encryption = encryption(&supervisor, token, &acceptance).await;
                observation.acceptance = Some(acceptance);
            }
            if let Some(token) = agent_token {
                observation.agent_acceptance = Some(probe::probe(&supervisor, token, version).await);
            }
        }
    }
    observation
}

/// Only a server may ask for the status of the encryption.
async fn encryption(
    supervisor: &Supervisor,
    token: &GivenToken,
    acceptance: &Acceptance,
) -> Option<Result<supervisor::EncryptionStatus, String>> {
    let Credential::Server(password) = token.credential(Role::Server) else {
        return None;
    };
    if !acceptance.roles().contains(&Role::Server) {
        return None;
    }
    let status = supervisor.encryption(password).await;
    Some(status.map_err(|error| error.to_string()))
}
