//! `kubectl bootstrap-token kubeconfig`: prints what a kubelet needs for TLS bootstrapping.

use bootstrap::{Token, TokenId};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use client::error::Error;

use crate::cluster::{ClusterConnection, TokenArgument, TokenFlags};
use crate::endpoint::{self, EndpointFlags};
use crate::private_file::WriteFlags;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Kubeconfig {
    #[command(flatten)]
    pub token: TokenFlags,

    #[command(flatten)]
    pub endpoint: EndpointFlags,

    #[command(flatten)]
    pub write: WriteFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Write the file for the kubelet's flag --bootstrap-kubeconfig
  kubectl bootstrap-token kubeconfig 07401b --write bootstrap-kubelet.conf

  # Use the address that the cluster publishes
  kubectl bootstrap-token kubeconfig 07401b --endpoint-from cluster-info

The file contains the token: only root should be able to read it. --write makes it with mode 0600.

The address and the certificate authority are read from ConfigMap kube-public/cluster-info, if it exists. They must be those of the kubeconfig in use, unless --endpoint-from selects a source.";

pub(crate) async fn run(kubeconfig: Kubeconfig, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let file = kubeconfig.write.open()?;
    let token = kubeconfig.token.read(ui, global).await?;
    let cluster = ClusterConnection::open(global, context)?;
    let token = match token {
        TokenArgument::Given(token) => token,
        TokenArgument::Id(id) => valid_token(&cluster, &id).await?,
    };
    let endpoint = endpoint::find(&cluster, kubeconfig.endpoint, ui).await?;
    let text = endpoint.kubeconfig(&token)?;
    match file {
        Some(file) => file.write(&text)?,
        None => ui.write_out(&text),
    }
    Ok(ExitCode::Done)
}

/// A kubelet with an invalid token would retry indefinitely.
async fn valid_token(cluster: &ClusterConnection, id: &TokenId) -> Result<Token, Error> {
    let secret = cluster.require(id).await?;
    let flaws = secret.flaws(cluster.server.clock.now());
    match (secret.token, flaws.first()) {
        (Some(token), None) => Ok(token),
        (_, Some(flaw)) => Err(Error::failed(format!("the API server would reject token {id}: {flaw}"))),
        (None, None) => Err(Error::failed(format!(
            "the Secret of token {id} contains no valid token"
        ))),
    }
}
