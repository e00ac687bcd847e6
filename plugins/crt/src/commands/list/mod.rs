//! `kubectl crt list`: every registration token, what uses it, and its state.
//!
//! Without `--probe` only the management cluster is read. Tables and names are printed in pages, so that the first row comes
//! early and memory stays small. The other formats, and sorting, need all rows, which are small and contain no secret.

mod probing;

use cli::app::{Context, GlobalFlags};
use cli::output::{ListKind, ListPrinter, OutputFlags, Printable};
use cli::rotation::Commands;
use cli::{ExitCode, Failures};
use client::error::Error;
use futures::stream::{self, StreamExt as _};
use k8s_openapi::jiff::Timestamp;

use self::probing::Prober;
use crate::connections::Management;
use crate::listing::{Group, Source};
use crate::report::API_VERSION;
use crate::report::rescue::{self, ReactivatedToken};
use crate::report::row::{Probed, Row};

/// The flags of `kubectl crt list`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// Cluster ids, display names, or namespace/name of provisioning clusters; all clusters if none is named
    #[arg(value_name = "CLUSTER")]
    targets: Vec<String>,

    /// Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.(e.g. -l key1=value1,key2=value2,key3 in (value3)). Matching objects must satisfy all of the specified label constraints.
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "targets")]
    selector: Option<String>,

    /// Ask each agent for its token, and Rancher which tokens it accepts
    #[arg(long)]
    probe: bool,

    /// The output format.
    #[command(flatten)]
    output: OutputFlags,
}

const LIST: ListKind = ListKind {
    api_version: API_VERSION,
    kind: "RegistrationTokenList",
};

/// How many clusters are probed in parallel.
const PARALLEL: usize = 8;

const EXAMPLES: &str = "\
Examples:
  # List the registration tokens of all clusters
  kubectl crt list

  # List those of two clusters, with all columns
  kubectl crt list c-x7k2p staging -o wide

  # Ask the agents and Rancher as well
  kubectl crt list -l env=production --probe

  # List clusters with a token that Rancher has rotated and not pushed
  kubectl crt list -o json |
      jq -r '.items[] | select(.state == \"rotated-not-pushed\") | .cluster.id'

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
        Some(Prober::open(&management, ui, global).await?)
    } else {
        None
    };
    let mut unknown = Failures::of(ui, "clusters", list.targets.len());
    let mut source = Source::open(&management, &list.targets, list.selector.as_deref(), &mut unknown).await?;
    if source.rotations_unknown() {
        ui.warn("no permission to list Leases: rotations in progress and LAST ROTATED are unknown");
    }
    while let Some(groups) = source.next().await? {
        if source.secrets_unknown() {
            ui.warn(
                "no permission to list Secrets: fingerprints of tokens in Secrets are unknown, and orphaned Secrets are not listed",
            );
        }
        for (group, token) in reactivated(&groups) {
            let commands = Commands::new::<crate::cli::Crt>(group.namespace.as_str(), global);
            let alarm = token.alarm(source.lease_of(group).ok().flatten(), &commands);
            ui.warn(format!("cluster {}: {alarm}", group.namespace));
        }
        let now = management.server.clock.now();
        let rows: Vec<_> = groups
            .into_iter()
            .map(|group| rows(group, &source, prober.as_ref(), now))
            .collect();
        let mut rows = stream::iter(rows).buffered(PARALLEL);
        while let Some(rows) = rows.next().await {
            printer.add(rows.into_iter().map(T::from));
        }
        printer.flush()?;
    }
    printer.finish()?;
    let disconnected = source.disconnected();
    if disconnected > 0 {
        let (count, are) = if disconnected == 1 {
            ("1 cluster".to_owned(), "is")
        } else {
            (format!("{disconnected} clusters"), "are")
        };
        let rescue = Commands::new::<crate::cli::Crt>("", global).on("rescue --disconnected --dry-run", "");
        ui.status(format!("{count} {are} not connected: {rescue}"));
    }
    unknown.end("listed")?;
    Ok(ExitCode::Done)
}

/// The tokens that a rescue has made valid again.
fn reactivated(groups: &[Group]) -> Vec<(&Group, ReactivatedToken)> {
    let mut found = Vec::new();
    for group in groups {
        found.extend(
            rescue::reactivated(&group.tokens)
                .into_iter()
                .map(|token| (group, token)),
        );
    }
    found
}

/// The rows of one cluster.
async fn rows(group: Group, source: &Source, prober: Option<&Prober<'_>>, now: Timestamp) -> Vec<Row> {
    let cluster = source.cluster_of(&group);
    let mut inputs = source.inputs(&group);
    if let Some(prober) = prober
        && let Some(report) = prober.agent_report(&group, cluster, source.lease_of(&group)).await
    {
        inputs.agent = report.token.unwrap_or(inputs.agent);
        inputs.address = report.address;
    }
    let rows = source.rows(&group, &inputs, now);
    match prober {
        Some(prober) => prober.add_acceptance(&group, rows).await,
        None => rows,
    }
}
