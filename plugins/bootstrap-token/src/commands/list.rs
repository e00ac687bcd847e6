//! `kubectl bootstrap-token list`: every token, and why it cannot work, if it cannot. Tables are printed page by page.

use bootstrap::{TokenSecret, secret, tokens};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{ListKind, ListPrinter, OutputFlags};
use cli::rotation::leases::LeasedRotations;
use client::error::Error;

use crate::report::API_VERSION;
use crate::report::product::{CLUSTER, Part};
use crate::report::row::Row;
use crate::rotation::BootstrapToken;
use crate::side::Side;

/// What is typed after `kubectl bootstrap-token list`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// Only tokens whose Secret's labels match, such as env=test,tier!=gold
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// In which form.
    #[command(flatten)]
    pub output: OutputFlags,
}

const LIST: ListKind = ListKind {
    api_version: API_VERSION,
    kind: "BootstrapTokenList",
};

const EXAMPLES: &str = "\
Examples:
  # Every token, and why it cannot work, if it cannot
  kubectl bootstrap-token list

  # Those that end first come first
  kubectl bootstrap-token list --sort-by '{.expiresAt}'

  # The ids of those that never work
  kubectl bootstrap-token list -o json | jq -r '.items[] | select(.state == \"broken\") | .id'

No secret is ever shown. Secrets that were meant to be tokens and stand where Kubernetes does not look, in another
namespace or of another type, are listed too. A token that is being rotated says so, and
so does the one that takes its place.";

/// Runs it.
pub(crate) async fn run(list: List, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let none = "No bootstrap tokens found.";
    let mut printer = ListPrinter::new(&context.ui, &list.output, LIST, none)?;
    let side = Side::open(global, context)?;
    let selector = list.selector.as_deref().filter(|selector| !selector.is_empty());
    let rotations = LeasedRotations::<BootstrapToken>::read(&side.server, Some(secret::NAMESPACE), CLUSTER).await?;
    let rows = |page: Vec<TokenSecret>| {
        let now = side.server.clock.now();
        let rotations = &rotations;
        page.into_iter().map(move |secret| {
            let in_its_place = secret.id.as_ref().filter(|_| secret.namespace == secret::NAMESPACE);
            let part = in_its_place.and_then(|id| Part::of(rotations, id));
            Row::new(secret, now).with_rotation(part)
        })
    };
    let mut listing = tokens::Listing::new(side.client(), selector);
    if let Some(first) = listing.next().await? {
        printer.add(rows(first));
        printer.flush()?;
    }
    let rest = async {
        while let Some(page) = listing.next().await? {
            printer.add(rows(page));
            printer.flush()?;
        }
        Ok::<_, Error>(())
    };
    // Where one page is not all, the API server has many Secrets to go through to find the strays.
    let (rest, strays) = tokio::join!(rest, tokens::strays(side.client(), selector));
    rest?;
    printer.add(rows(strays?));
    printer.finish()?;
    Ok(ExitCode::Done)
}
