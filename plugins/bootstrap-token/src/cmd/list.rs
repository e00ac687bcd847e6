//! `kubectl bootstrap-token list`: every token, and why it cannot work, if it cannot.

use bootstrap::client;
use kubectl_core::app::{Context, GlobalFlags};
use kubectl_core::error::{Error, ExitCode};
use kubectl_core::output::{self, ListKind, OutputFlags};

use crate::side::Side;
use crate::view::API_VERSION;
use crate::view::row::Row;

/// What is typed after `kubectl bootstrap-token list`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct List {
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
namespace or of another type, are listed too.";

/// Runs it.
pub async fn run(list: List, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    list.output.format()?;
    let side = Side::open(global, context)?;
    let selector = list.selector.as_deref().filter(|selector| !selector.is_empty());
    let mut listing = client::Listing::new(side.client(), selector);
    let strays = client::strays(side.client(), selector);
    let tokens = async {
        let mut rows = Vec::new();
        while let Some(page) = listing.next().await? {
            let now = side.server.clock.now();
            rows.extend(page.into_iter().map(|secret| Row::new(secret, now)));
        }
        Ok::<_, bootstrap::Error>(rows)
    };
    let (mut rows, strays) = futures::try_join!(tokens, strays)?;
    let now = side.server.clock.now();
    rows.extend(strays.into_iter().map(|secret| Row::new(secret, now)));
    output::print_list(&context.ui, &list.output, LIST, &rows, "No bootstrap tokens found.")?;
    Ok(ExitCode::Done)
}
