//! `kubectl crt list`: every registration token, who uses it and what state it is in.
//!
//! Without `--probe` only the management side is read. Tables and names are printed page by page, so that the first row
//! comes early and nothing is held; the other forms, and sorting, need all rows, which are small and hold no secret.

mod group;
mod probing;
mod source;

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{ListKind, ListPrinter, OutputFlags, Printable};
use client::error::Error;
use futures::stream::{self, StreamExt as _};
use k8s_openapi::jiff::Timestamp;

use self::group::Group;
use self::probing::Prober;
use self::source::Source;
use crate::report::API_VERSION;
use crate::report::row::{Probed, Row, Scene};
use crate::sides::Management;

/// What is typed after `kubectl crt list`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// Clusters by id, display name, or namespace/name of the provisioning cluster; all if none is named
    #[arg(value_name = "CLUSTER")]
    pub subjects: Vec<String>,

    /// Only clusters whose labels match, such as env=test,tier!=gold
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "subjects")]
    pub selector: Option<String>,

    /// Ask the agents which token they run with, and Rancher which tokens it accepts
    #[arg(long)]
    pub probe: bool,

    /// In which form.
    #[command(flatten)]
    pub output: OutputFlags,
}

const LIST: ListKind = ListKind {
    api_version: API_VERSION,
    kind: "RegistrationTokenList",
};

/// How many clusters are asked at once with `--probe`.
const AT_ONCE: usize = 8;

const EXAMPLES: &str = "\
Examples:
  # Every registration token of every cluster, by what the management side tells
  kubectl crt list

  # Those of two clusters, with all columns
  kubectl crt list c-x7k2p staging -o wide

  # Ask agents and Rancher, not only Rancher's objects
  kubectl crt list -l env=production --probe

  # Clusters with a token that Rancher has rotated and not pushed
  kubectl crt list -o json | jq -r '.items[] | select(.state == \"rotated-not-pushed\") | .cluster.id'

A token is shown by its fingerprint, the first ten hexadecimal digits of its SHA-256.";

/// Runs it.
pub(crate) async fn run(list: List, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    if list.probe {
        print::<Probed>(&list, global, context).await
    } else {
        print::<Row>(&list, global, context).await
    }
}

/// Prints the list with the columns of `T`.
async fn print<T: Printable + From<Row>>(
    list: &List,
    global: &GlobalFlags,
    context: &Context,
) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let mut printer = ListPrinter::<T>::new(ui, &list.output, LIST, "No registration tokens found.")?;
    let management = Management::open(global, &context.environment)?;
    let prober = if list.probe {
        Some(Prober::open(&management, ui).await?)
    } else {
        None
    };
    let mut source = Source::open(&management, &list.subjects, list.selector.as_deref()).await?;
    if source.rotations_unknown() {
        ui.warn("no right to list Leases: rotations under way and LAST ROTATED are unknown");
    }
    while let Some(groups) = source.next().await? {
        if source.secrets_unknown() {
            ui.warn(
                "no right to list Secrets: fingerprints are unknown where they stand in Secrets, and orphans are not listed",
            );
        }
        let now = management.server.clock.now();
        let rows: Vec<_> = groups
            .into_iter()
            .map(|group| rows(group, &source, prober.as_ref(), now))
            .collect();
        let mut rows = stream::iter(rows).buffered(AT_ONCE);
        while let Some(rows) = rows.next().await {
            printer.add(rows.into_iter().map(T::from));
        }
        printer.flush()?;
    }
    printer.finish()?;
    Ok(ExitCode::Done)
}

/// The rows of one cluster.
async fn rows(group: Group, source: &Source, prober: Option<&Prober<'_>>, now: Timestamp) -> Vec<Row> {
    let cluster = source.cluster_of(&group);
    let rotation = source.rotation_of(&group);
    let mut around = group.surroundings(cluster, source.clusters_known());
    if let Some(prober) = prober
        && let Some(seen) = prober.look_downstream(&group, cluster, source.lease_of(&group)).await
    {
        around.agent = seen.agent.unwrap_or(around.agent);
        around.address = seen.address;
    }
    let name = group.cluster_name(cluster);
    let scene = Scene {
        cluster: &name,
        around: &around,
        rotation,
        rotations_unknown: source.rotations_unknown(),
        now,
    };
    let rows = group.rows(&scene);
    match prober {
        Some(prober) => prober.ask(&group, rows).await,
        None => rows,
    }
}
