//! `kubectl bootstrap-token list`: every token, and why it cannot work, if it cannot.

use bootstrap::{TokenSecret, client, secret};
use kubectl_core::app::{Context, GlobalFlags};
use kubectl_core::error::{Error, ExitCode};
use kubectl_core::output::{self, ListKind, OutputFlags};
use verbs::leases::Rotations;

use crate::rotation::BootstrapToken;
use crate::side::Side;
use crate::view::API_VERSION;
use crate::view::product::{CLUSTER, Part};
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
namespace or of another type, are listed too. A token that is being rotated says so, and so does the one that takes its place.";

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
            rows.extend(page);
        }
        Ok::<_, bootstrap::Error>(rows)
    };
    let rotations = Rotations::<BootstrapToken>::read(&side.server, Some(secret::NAMESPACE), CLUSTER);
    let read = async { futures::try_join!(tokens, strays).map_err(Error::from) };
    let ((tokens, strays), rotations) = futures::try_join!(read, rotations)?;
    let now = side.server.clock.now();
    let with_rotation = |secret: TokenSecret| {
        let part = secret.id.as_ref().and_then(|id| Part::of(&rotations, id));
        Row::new(secret, now).with_rotation(part)
    };
    let mut rows: Vec<Row> = tokens.into_iter().map(with_rotation).collect();
    rows.extend(strays.into_iter().map(|secret| Row::new(secret, now)));
    output::print_list(&context.ui, &list.output, LIST, &rows, "No bootstrap tokens found.")?;
    Ok(ExitCode::Done)
}
