//! `kubectl bootstrap-token kubeconfig`: what a kubelet needs to join by TLS bootstrap.

use bootstrap::{Token, judge, tokens};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use client::error::Error;

use crate::endpoint::{self, EndpointFlags};
use crate::report::kubeconfig;
use crate::side::{self, Side};

/// What is typed after `kubectl bootstrap-token kubeconfig`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Kubeconfig {
    /// The id of the token
    #[arg(
        value_name = "ID",
        required_unless_present = "token_stdin",
        conflicts_with = "token_stdin"
    )]
    pub id: Option<String>,

    /// Take the token from standard input; no right to read Secrets is needed
    #[arg(long)]
    pub token_stdin: bool,

    /// Where the API server is.
    #[command(flatten)]
    pub endpoint: EndpointFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Let a kubelet join: --bootstrap-kubeconfig bootstrap-kubelet.conf --kubeconfig kubelet.conf
  kubectl bootstrap-token kubeconfig 07401b > bootstrap-kubelet.conf

  # With the address that the cluster publishes, though we reach it by another
  kubectl bootstrap-token kubeconfig 07401b --endpoint-from cluster-info

The file holds the token: it belongs into a file that only root may read. Address and certificate authority come from
ConfigMap kube-public/cluster-info, where there is one, and must be those of the kubeconfig in use unless --endpoint-from
says whose word counts.";

/// Runs it.
pub(crate) async fn run(kubeconfig: Kubeconfig, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let given = side::token_from_stdin(ui, kubeconfig.token_stdin).await?;
    let named = kubeconfig.id.as_deref().map(|id| side::id(id, ui)).transpose()?;
    let side = Side::open(global, context)?;
    let token: Token = match (given, named) {
        (Some(token), _) => token,
        (None, Some(id)) => working(&side, &id).await?,
        (None, None) => return Err(Error::usage("name a token by its id, or give one with --token-stdin")),
    };
    let endpoint = endpoint::find(&side, kubeconfig.endpoint, ui).await?;
    ui.write_out(&kubeconfig::of(&token, &endpoint)?)?;
    Ok(ExitCode::Done)
}

/// The token of a Secret that works: a kubelet with any other would try for ever.
async fn working(side: &Side, id: &bootstrap::TokenId) -> Result<Token, Error> {
    let secret = tokens::require(side.client(), id).await?;
    let flaws = judge::why_not(&secret, side.server.clock.now());
    match (secret.token, flaws.first()) {
        (Some(token), None) => Ok(token),
        (_, Some(flaw)) => Err(Error::failed(format!("the API server would refuse token {id}: {flaw}"))),
        (None, None) => Err(Error::failed(format!("the Secret of token {id} holds no token"))),
    }
}
