//! `kubectl bootstrap-token snapshots`: lists the snapshots of etcd, and prints how one is restored.

use std::path::PathBuf;

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, ListKind, OutputFlags};
use cli::rotation::leases;
use cli::ui::Ui;
use client::error::Error;
use supervisor::node::{self, ClusterNode};
use supervisor::snapshot::{self, SnapshotFile};

use super::needs::PassedToken;
use super::restore;
use super::row::Snapshots as SnapshotRows;
use crate::cluster::ClusterConnection;
use crate::report::API_VERSION;
use crate::server_token::given_token::GivenToken;
use crate::server_token::lease;
use crate::server_token::rotation::ServerToken;

#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Snapshots {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    tokens: TokenFlags,

    #[command(flatten)]
    output: OutputFlags,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// Print the commands that restore a snapshot, for all servers
    RestorePlan(RestorePlan),
}

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
struct RestorePlan {
    /// The name of the snapshot, or of its object where several have that name
    name: String,

    #[command(flatten)]
    tokens: TokenFlags,
}

/// The server tokens that the user has.
#[derive(clap::Args, Clone, Debug)]
struct TokenFlags {
    /// A server token, which snapshots are compared with. The file may be accessible only to its owner (0600). Can be repeated
    #[arg(long = "token-file", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    token_files: Vec<PathBuf>,

    /// Read a server token from standard input
    #[arg(long)]
    token_stdin: bool,
}

const LIST: ListKind = ListKind {
    api_version: API_VERSION,
    kind: "SnapshotList",
};

const EXAMPLES: &str = "\
Examples:
  # List the snapshots, and which of them need another token than the newest one
  kubectl bootstrap-token snapshots

  # See which of two tokens restores which snapshot. Those that neither of them restores come first
  kubectl bootstrap-token snapshots --token-file token --token-file token.1

  # Print the commands that restore a snapshot, in their order
  kubectl bootstrap-token snapshots restore-plan etcd-snapshot-s1-1764504000

A snapshot can be restored only with the server token of its time. The column TOKEN shows the file that has it, or whether it is that of the newest snapshot (current), the one before (previous), or an older one. A question mark: it may need the next one.";

pub(crate) async fn run(snapshots: Snapshots, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    match snapshots.command {
        Some(Command::RestorePlan(plan)) => restore_plan(plan, global, context).await,
        None => list(snapshots, global, context).await,
    }
}

async fn list(snapshots: Snapshots, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    snapshots.output.format()?;
    let given = snapshots.tokens.read(ui).await?;
    let cluster = ClusterConnection::open(global, context)?;
    let found = Found::read(&cluster).await?;
    let rows = found.rows(&cluster, &given);
    output::print_list(ui, &snapshots.output, LIST, &rows.rows, found.none())?;
    found.warnings().iter().for_each(|warning| ui.warn(warning));
    if rows.rows.iter().any(|row| row.uncertain) {
        ui.hint("a snapshot with ? was taken after one that needs a later token, or during a rotation: if its token does not restore it, use the next one");
    }
    Ok(ExitCode::Done)
}

async fn restore_plan(plan: RestorePlan, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let given = plan.tokens.read(&context.ui).await?;
    let cluster = ClusterConnection::open(global, context)?;
    let found = Found::read(&cluster).await?;
    let file = found.named(&plan.name, &cluster)?;
    if let Some(error) = &file.error {
        return Err(Error::failed(format!(
            "snapshot {:?} cannot be restored: it was not taken: {error}",
            plan.name
        )));
    }
    let rows = found.rows(&cluster, &given);
    let row = rows.rows.iter().find(|row| row.object() == file.object);
    let token = row.map(super::row::SnapshotRow::token_in_words).unwrap_or_default();
    let status = cluster.command("server-token status", "");
    context
        .ui
        .write_out(&restore::plan(file, &token, &found.nodes, &status));
    found.warnings().iter().for_each(|warning| context.ui.warn(warning));
    Ok(ExitCode::Done)
}

/// What the cluster shows.
struct Found {
    nodes: Vec<ClusterNode>,
    files: Vec<SnapshotFile>,
    /// When the rotation in progress began.
    began: Option<k8s_openapi::jiff::Timestamp>,
    /// There is no permission to read its Lease.
    rotation_unknown: bool,
}

impl Found {
    async fn read(cluster: &ClusterConnection) -> Result<Self, Error> {
        let nodes = node::list(cluster.client()).await?;
        let Some(kind) = nodes.iter().find_map(ClusterNode::supervisor) else {
            return Err(Error::failed(
                "no server of K3s or RKE2 has a Node, so there are no snapshots of theirs",
            ));
        };
        let lease = lease::name();
        let (files, rotation) = futures::join!(
            snapshot::list(cluster.client(), kind),
            leases::of::<ServerToken>(&cluster.server, &lease)
        );
        let rotation = rotation?;
        Ok(Self {
            nodes,
            files: files?,
            began: rotation.as_ref().and_then(|rotation| Some(rotation.journal()?.started)),
            rotation_unknown: rotation.is_none(),
        })
    }

    fn rows(&self, cluster: &ClusterConnection, given: &[PassedToken]) -> SnapshotRows {
        SnapshotRows::new(self.files.clone(), given, self.began, cluster.server.clock.now())
    }

    /// By the name of the snapshot, or of its object.
    fn named(&self, name: &str, cluster: &ClusterConnection) -> Result<&SnapshotFile, Error> {
        let is_it = |file: &&SnapshotFile| file.name == name || file.object == name;
        let found: Vec<&SnapshotFile> = self.files.iter().filter(is_it).collect();
        match found[..] {
            [only] => Ok(only),
            [] => {
                let list = cluster.command("snapshots", "");
                Err(Error::failed(format!("snapshot {name:?} not found")).hint(format!("`{list}` lists the snapshots")))
            }
            _ => {
                let objects: Vec<&str> = found.iter().map(|file| file.object.as_str()).collect();
                Err(
                    Error::failed(format!("{} snapshots have the name {name:?}", found.len()))
                        .hint(format!("name one of the objects: {}", objects.join(", "))),
                )
            }
        }
    }

    fn none(&self) -> &'static str {
        if self.nodes.iter().any(|node| node.is_etcd) {
            "No snapshots found."
        } else {
            "No snapshots found: the datastore is not embedded etcd."
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let is_kept = |file: &SnapshotFile| file.node == "s3" && file.location.starts_with("file:");
        if self.nodes.iter().any(|node| node.name == "s3") && !self.files.iter().any(is_kept) {
            warnings.push(
                "a Node is named s3, which is also the name that K3s gives to S3 storage: K3s deletes the objects of that node's snapshots, so \
                 they are missing here. Look into its directory server/db/snapshots"
                    .to_owned(),
            );
        }
        if self.began.is_some() {
            warnings.push(
                "a rotation of the server token is in progress: a snapshot that was taken since may need the new token"
                    .to_owned(),
            );
        }
        if self.rotation_unknown {
            warnings.push(
                "no permission to read Leases: whether a rotation of the server token is in progress is unknown"
                    .to_owned(),
            );
        }
        warnings
    }
}

impl TokenFlags {
    async fn read(&self, ui: &Ui) -> Result<Vec<PassedToken>, Error> {
        let given = GivenToken::server_tokens(&self.token_files, self.token_stdin, ui).await?;
        Ok(given.into_iter().map(|(place, token)| (place, token.hash())).collect())
    }
}
