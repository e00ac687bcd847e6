//! `kubectl argocd-rancher list`: every cluster that Argo CD reaches through Rancher, and its token.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, ListKind, OutputFlags, OutputFormat};
use client::error::Error;

use crate::connections::{Argo, RancherFlags};
use crate::hints::Hints;
use crate::inventory::Inventory;
use crate::leftovers::Claims;
use crate::mark::API_VERSION;
use crate::row::Row;

const LIST: ListKind = ListKind {
    api_version: API_VERSION,
    kind: "ArgoCDClusterList",
};

/// The flags of `kubectl argocd-rancher list`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// Call Rancher and the cluster with each token; counts as a use of the token
    #[arg(long)]
    pub probe: bool,

    /// How to reach Rancher.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// The output format.
    #[command(flatten)]
    pub output: OutputFlags,
}

const EXAMPLES: &str = "\
Examples:
  # List the clusters, with what Rancher reports about the tokens of this user
  kubectl argocd-rancher list --rancher-context rancher

  # Read the Secrets only, and check that each token reaches its cluster
  kubectl argocd-rancher list --probe

  # Print the reasons for each state, and the connection state that Argo CD reports
  kubectl argocd-rancher list --rancher-context rancher -o wide

Rancher lists a token only to its owner. The scope of other tokens is unknown.";

pub(crate) async fn run(list: List, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let format = list.output.format()?;
    let argo = Argo::open(global, &context.environment)?;
    let rancher = list.rancher.open(&argo, global, context).await?;
    let inventory = Inventory::read(&argo, rancher.as_ref(), context).await?;
    let probed = if list.probe {
        inventory.probe(&argo, rancher.as_ref()).await
    } else {
        vec![None; inventory.clusters.len()]
    };
    let now = argo.server.clock.now();
    let clusters = inventory.clusters.iter().zip(probed);
    let rows: Vec<Row> = clusters
        .filter_map(|(cluster, probed)| inventory.row(cluster, probed, now))
        .collect();
    let none = format!("No clusters of Rancher found in namespace {}.", argo.namespace);
    output::print_list(&context.ui, &list.output, LIST, &rows, &none)?;
    if matches!(format, OutputFormat::Table) && rows.iter().any(Row::is_wrong) {
        context.ui.hint("-o wide prints the reasons");
    }
    let identity = inventory.identity.as_deref();
    let claims = Claims::read(&argo, identity, &inventory.clusters).await?;
    if claims.rotations.unknown {
        context
            .ui
            .warn("no permission to list Leases: rotations in progress are unknown");
    }
    let hints = Hints::new(&list.rancher, global, &argo.namespace);
    for (hint, warnings) in claims.warnings(inventory.own_tokens(), now, &hints) {
        for warning in warnings {
            context.ui.warn(warning);
        }
        context.ui.hint(hint);
    }
    Ok(ExitCode::Done)
}
