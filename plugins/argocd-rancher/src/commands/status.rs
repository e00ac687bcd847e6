//! `kubectl argocd-rancher status`: one cluster on one page: its Secret, its token, and a rotation under way.

use argocd::ClusterSecret;
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::again::Again;
use cli::rotation::in_progress::Standing;
use cli::rotation::leases;
use cli::ui::Ui;
use client::error::Error;
use client::sanitize;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::list;
use super::verify;
use crate::mark::API_VERSION;
use crate::report::product::{self, PLUGIN, Rotation};
use crate::rotation::ArgocdRancher;
use crate::row::Row;
use crate::sides::{Argo, RancherFlags};

/// What is typed after `kubectl argocd-rancher status`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// The cluster by id, by the name that Argo CD calls it, or by the name of its Secret
    #[arg(value_name = "CLUSTER")]
    pub subject: String,

    /// The other side.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # What Argo CD has for this cluster, and what Rancher says of it
  kubectl argocd-rancher status staging --rancher-context rancher

  # Where its rotation stands, for a script
  kubectl argocd-rancher status staging -o jsonpath='{.rotation.phase}'

Nothing is called with the token: `kubectl argocd-rancher verify` does that.";

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterStatus {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    /// The row of `list`.
    cluster: Row,
    /// Of its rotation.
    #[serde(flatten)]
    standing: Standing,
}

#[derive(Debug, Serialize)]
struct Metadata {
    name: String,
    namespace: String,
}

/// Runs it.
pub(crate) async fn run(status: Status, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let (flags, format) = OutputFlags::of_page(status.output.as_ref(), "status")?;
    let argo = Argo::open(global, &context.environment)?;
    let rancher = status.rancher.open(&argo, global, context).await?;
    let seen = list::Seen::read(&argo, rancher.as_ref(), context).await?;
    let cluster = verify::find(&seen.clusters, &status.subject)?;
    let lease = product::lease(cluster);
    let rotation = leases::of::<ArgocdRancher>(&argo.server, &lease).await?;
    let again = Again::new(PLUGIN, cluster.object.name.as_str(), global);
    let again = again.with("--namespace", global.connection.namespace.as_deref());
    let again = status.rancher.repeated(again);
    let now = argo.server.clock.now();
    let row = seen.row(cluster, None, now);
    let row = row.ok_or_else(|| Error::failed(format!("{} does not lead through Rancher", cluster.server)))?;
    let document = ClusterStatus::of(cluster, row, rotation.as_ref(), &again, now);
    match format {
        OutputFormat::Table => ui.write_out(&page(ui, &document, now))?,
        _ => output::print_value(ui, &flags, &document)?,
    }
    Ok(ExitCode::Done)
}

impl ClusterStatus {
    fn of(cluster: &ClusterSecret, row: Row, rotation: Option<&Rotation>, again: &Again, now: Timestamp) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "ArgoCDClusterStatus",
            metadata: Metadata {
                name: cluster.object.name.clone(),
                namespace: cluster.object.namespace.clone(),
            },
            cluster: row,
            standing: Standing::of(rotation, again, now),
        }
    }
}

/// The page for people.
fn page(ui: &Ui, status: &ClusterStatus, now: Timestamp) -> String {
    let mut lines = vec![status.cluster.title()];
    let labelled = |(label, text): (&str, String)| format!("  {label:<10}{}", sanitize::cell(&text));
    lines.extend(status.cluster.facts().into_iter().map(labelled));
    lines.extend(status.standing.page(ui, now));
    lines.join("\n") + "\n"
}
