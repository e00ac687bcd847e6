//! `kubectl bootstrap-token server-token status`: shows each server, and what it answers to a token.

use std::collections::BTreeMap;

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::in_progress::RotationStatus;
use cli::rotation::{Commands, leases};
use cli::ui::Ui;
use client::access::Needed;
use client::error::Error;
use futures::future::join_all;
use node_access::{NodeState, ServiceOptions};
use supervisor::node::{self, ClusterNode};
use supervisor::{Credential, InvalidToken, Supervisor, ready, snapshot};

use crate::cluster::ClusterConnection;
use crate::report::target::CLUSTER;
use crate::rights::SERVER_STATUS_BY_POD;
use crate::server_token::commands::node_flags::NodeFlags;
use crate::server_token::connections::{Access, ServerTarget, SupervisorFlags};
use crate::server_token::given_token::GivenToken;
use crate::server_token::lease;
use crate::server_token::node_way::{self, NodeWay};
use crate::server_token::probe::{self, Acceptance, Role};
use crate::server_token::report::server::ServerObservation;
use crate::server_token::report::status::ServerTokenStatus;
use crate::server_token::rotation::ServerToken;

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
    let ui = &context.ui;
    let flags = OutputFlags {
        output: status.output.clone(),
        ..OutputFlags::default()
    };
    let format = flags.format()?;
    if matches!(format, OutputFormat::Name) {
        return Err(Error::usage(
            "status prints a page, wide, json, yaml, jsonpath or custom-columns",
        ));
    }
    let way = status.nodes.way()?;
    let token = status.supervisors.token(ui).await?;
    if let Some(GivenToken::Bootstrap { .. }) = token {
        return Err(Error::usage(InvalidToken::BootstrapToken.to_string())
            .hint("`server-token verify` verifies bootstrap tokens too"));
    }
    let cluster = ClusterConnection::open(global, context)?;
    let access = token
        .as_ref()
        .map(|token| Access::new(&status.supervisors.addresses, token.ca_hash(), &cluster, ui))
        .transpose()?;
    let with_token = token.as_ref().zip(access.as_ref());
    let nodes = node::list(cluster.client()).await?;
    let targets = status.supervisors.addresses.servers(&nodes)?;
    let servers = nodes.iter().filter(|node| node.supervisor().is_some()).zip(&targets);
    let kind = nodes.iter().find_map(ClusterNode::supervisor);
    let files = async {
        match kind {
            Some(kind) => read_nodes(&nodes, &way, &status.nodes.service(kind), ui, &cluster).await,
            None => Ok(BTreeMap::new()),
        }
    };
    let snapshots = async {
        match kind {
            Some(kind) => snapshot::list(cluster.client(), kind).await,
            None => Ok(Vec::new()),
        }
    };
    let lease = lease::name();
    let (files, servers, snapshots, rotation) = futures::join!(
        files,
        join_all(servers.map(|(node, target)| observe(node, target, &cluster, with_token))),
        snapshots,
        leases::of::<ServerToken>(&cluster.server, &lease)
    );
    let (mut files, mut servers) = (files?, servers);
    for server in &mut servers {
        server.files = files.remove(&server.node.name);
    }
    let now = cluster.server.clock.now();
    let commands = Commands::new::<crate::cli::BootstrapToken>("", global).in_group("server-token");
    let commands = status.nodes.typed(status.supervisors.typed(commands));
    let rotation = RotationStatus::of(rotation?.as_ref(), &commands, now);
    let snapshots = match snapshots {
        Err(error) if error.is_forbidden() => None,
        snapshots => Some(snapshots?),
    };
    let document = ServerTokenStatus::new(&nodes, &servers, &files, snapshots, rotation, token.as_ref(), now);
    match format {
        OutputFormat::Table | OutputFormat::Wide => {
            let is_wide = matches!(format, OutputFormat::Wide);
            let rotation = document.rotation.page(ui, now).join("\n");
            ui.write_out(&(document.page(is_wide) + &rotation + "\n"));
            document.warnings.iter().for_each(|warning| ui.warn(warning));
            if token.is_none() {
                ui.hint("pass the server token with --token-file or --token-stdin to see which servers accept it, the state of secrets-encryption, and which snapshots need another token");
            }
        }
        _ => output::print_value(ui, &flags, &document)?,
    }
    Ok(ExitCode::Done)
}

/// The files of every node, or why they could not be read. Empty: there is no access to nodes.
async fn read_nodes(
    nodes: &[ClusterNode],
    way: &NodeWay,
    service: &ServiceOptions,
    ui: &Ui,
    cluster: &ClusterConnection,
) -> Result<BTreeMap<String, Result<NodeState, String>>, Error> {
    let needed = Needed {
        server: &cluster.server,
        side: CLUSTER,
        rights: way.rights(SERVER_STATUS_BY_POD, false),
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

/// One request after the other.
async fn observe<'a>(
    node: &'a ClusterNode,
    target: &ServerTarget,
    cluster: &ClusterConnection,
    with_token: Option<(&GivenToken, &Access)>,
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
        encryption: None,
        files: None,
    };
    let Some((token, access)) = with_token else {
        return observation;
    };
    match target.connect(access).await {
        Err(error) => observation.acceptance = Some(error.into()),
        Ok(supervisor) => {
            let acceptance = probe::probe(&supervisor, token, target.version.as_deref()).await;
            observation.encryption = encryption(&supervisor, token, &acceptance).await;
            observation.acceptance = Some(acceptance);
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
