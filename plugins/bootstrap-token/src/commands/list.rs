//! `kubectl bootstrap-token list`: lists tokens and why they are invalid. Tables are printed page by page.

use bootstrap::{TokenSecret, secret, tokens};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{ListKind, ListPrinter, OutputFlags};
use cli::rotation::leases::LeasedRotations;
use client::error::Error;

use crate::cluster::ClusterConnection;
use crate::report::API_VERSION;
use crate::report::row::TokenRow;
use crate::report::target::{CLUSTER, RotationRole};
use crate::rotation::BootstrapToken;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.(e.g. -l key1=value1,key2=value2,key3 in (value3)). Matching objects must satisfy all of the specified label constraints.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    #[command(flatten)]
    pub output: OutputFlags,
}

const LIST: ListKind = ListKind {
    api_version: API_VERSION,
    kind: "BootstrapTokenList",
};

const EXAMPLES: &str = "\
Examples:
  # List all tokens, and why they are invalid
  kubectl bootstrap-token list

  # List the tokens that expire first at the top
  kubectl bootstrap-token list --sort-by '{.expiresAt}'

  # Print the ids of invalid tokens
  kubectl bootstrap-token list -o json | jq -r '.items[] | select(.state == \"broken\") | .id'

No secret is printed. The list includes Secrets that Kubernetes ignores, since they are in another namespace or of another type. The state names a rotation in progress.";

pub(crate) async fn run(list: List, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let none = "No bootstrap tokens found.";
    let mut printer = ListPrinter::new(&context.ui, &list.output, LIST, none)?;
    let cluster = ClusterConnection::open(global, context)?;
    let selector = list.selector.as_deref().filter(|selector| !selector.is_empty());
    let rotations = LeasedRotations::<BootstrapToken>::read(&cluster.server, Some(secret::NAMESPACE), CLUSTER).await?;
    let rows = |page: Vec<TokenSecret>| {
        let now = cluster.server.clock.now();
        let rotations = &rotations;
        page.into_iter().map(move |secret| {
            let id = secret.id.as_ref().filter(|_| secret.namespace == secret::NAMESPACE);
            let role = id.and_then(|id| RotationRole::of(rotations, id));
            TokenRow::new(secret, now).with_rotation(role)
        })
    };
    let (first, mut next) = tokens::page(cluster.client(), selector, None).await?;
    printer.add(rows(first));
    printer.flush()?;
    let rest = async {
        while let Some(from) = next {
            let (page, rest) = tokens::page(cluster.client(), selector, Some(&from)).await?;
            printer.add(rows(page));
            printer.flush()?;
            next = rest;
        }
        Ok::<_, Error>(())
    };
    // With many Secrets, the API server takes long to find the misplaced ones.
    let (rest, misplaced) = tokio::join!(rest, tokens::misplaced(cluster.client(), selector));
    rest?;
    let misplaced = misplaced?;
    printer.add(rows(misplaced.secrets));
    printer.finish()?;
    if rotations.unknown {
        context
            .ui
            .warn("no permission to list Leases: rotations in progress are unknown");
    }
    if misplaced.elsewhere_unknown {
        context.ui.warn(
            "no permission to list Secrets in all namespaces: misplaced tokens in other namespaces are not listed",
        );
    }
    Ok(ExitCode::Done)
}
