//! `kubectl argocd-rancher status`: show one cluster: its Secret, its token, and a rotation in progress.

use argocd::ClusterSecret;
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::Commands;
use cli::rotation::in_progress::RotationStatus;
use cli::rotation::leases;
use cli::ui::Ui;
use client::error::Error;
use client::sanitize;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::connections::{Argo, RancherFlags};
use crate::hints::Hints;
use crate::inventory::Inventory;
use crate::mark::API_VERSION;
use crate::report::{self, LeasedRotation};
use crate::rotation::ArgocdRancher;
use crate::row::Row;

/// The flags of `kubectl argocd-rancher status`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// Cluster id, name in Argo CD, or name of the cluster Secret
    #[arg(value_name = "CLUSTER")]
    pub target: String,

    /// How to reach Rancher.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Show the token that Argo CD has for this cluster, and what Rancher says about it
  kubectl argocd-rancher status staging --rancher-context rancher

  # Print the phase of its rotation, for a script
  kubectl argocd-rancher status staging -o jsonpath='{.rotation.phase}'

The token is not used: `kubectl argocd-rancher verify` calls Rancher with it.";

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterStatus {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    /// The row of `list`.
    cluster: Row,
    /// The rotation of its token.
    #[serde(flatten)]
    rotation: RotationStatus,
}

#[derive(Debug, Serialize)]
struct Metadata {
    name: String,
    namespace: String,
}

pub(crate) async fn run(status: Status, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let (flags, format) = OutputFlags::of_page(status.output.as_ref(), "status")?;
    let argo = Argo::open(global, &context.environment)?;
    let rancher = status.rancher.open(&argo, global, context).await?;
    let inventory = Inventory::read(&argo, rancher.as_ref(), context).await?;
    let hints = Hints::new(&status.rancher, global, &argo.namespace);
    let cluster = super::find_cluster(&inventory.clusters, &status.target, &hints)?;
    let lease = report::lease(&cluster.object.namespace, &cluster.object.name);
    let rotation = leases::of::<ArgocdRancher>(&argo.server, &lease).await?;
    let commands = status.rancher.commands(&cluster.object.name, global);
    let now = argo.server.clock.now();
    let row = inventory.row(cluster, None, now);
    let row = row.ok_or_else(|| Error::failed(format!("{} does not lead through Rancher", cluster.server)))?;
    let document = ClusterStatus::of(cluster, row, rotation.as_ref(), &commands, now);
    match format {
        OutputFormat::Table => ui.write_out(&page(ui, &document, now)),
        _ => output::print_value(ui, &flags, &document)?,
    }
    Ok(ExitCode::Done)
}

impl ClusterStatus {
    fn of(
        cluster: &ClusterSecret,
        row: Row,
        rotation: Option<&LeasedRotation>,
        commands: &Commands,
        now: Timestamp,
    ) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "ArgoCDClusterStatus",
            metadata: Metadata {
                name: cluster.object.name.clone(),
                namespace: cluster.object.namespace.clone(),
            },
            cluster: row,
            rotation: RotationStatus::of(rotation, commands, now),
        }
    }
}

fn page(ui: &Ui, status: &ClusterStatus, now: Timestamp) -> String {
    let mut lines = vec![status.cluster.title()];
    let labelled = |(label, text): (&str, String)| format!("  {label:<12}{}", sanitize::cell(&text));
    lines.extend(status.cluster.facts().into_iter().map(labelled));
    lines.extend(status.rotation.page(ui, now));
    lines.join("\n") + "\n"
}
