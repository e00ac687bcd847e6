//! `kubectl bootstrap-token rotate`: another token takes the place of one, and nobody is left at the door.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::Asked;
use client::error::Error;

use super::work::{Command, Common};
use crate::controller::{Check, Options};
use crate::delivery::Target;
use crate::lifetime::{DEFAULT, LifetimeFlags};
use crate::side;

/// What is typed after `kubectl bootstrap-token rotate`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rotate {
    /// The id of the token
    #[arg(value_name = "ID")]
    pub id: String,

    /// How long the new one lives; an hour where nothing is said, and a quarter of an hour at least.
    #[command(flatten)]
    pub lifetime: LifetimeFlags,

    /// Where the token is kept for those who join, alone or in a kubeconfig: secret:NAMESPACE/NAME/KEY or file:PATH; the new
    /// one is put there in its place
    #[arg(long, value_name = "TARGET")]
    pub deliver: Option<Target>,

    /// Override a check by its name; can be repeated. "target" leaves a file on a host that is lost for good as it is: whoever
    /// reads it may find a token that is revoked
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = Check::parser(Check::ALL))]
    pub force: Vec<Check>,

    /// What both verbs have.
    #[command(flatten)]
    pub common: Common,
}

const EXAMPLES: &str = "\
Examples:
  # See what would be done
  kubectl bootstrap-token rotate 07401b --dry-run

  # The token in a bootstrap kubeconfig, kept there for machines that boot
  kubectl bootstrap-token rotate 07401b --deliver file:/srv/pxe/bootstrap-kubelet.conf --ttl 12h

  # One that an autoscaler reads from a Secret, for a script
  kubectl bootstrap-token rotate 07401b --deliver secret:kube-system/join/token --yes -o json

  # Ask each of the API servers behind a load balancer, not whichever it picks
  kubectl bootstrap-token rotate 07401b --api-server https://10.0.0.1:6443 --api-server https://10.0.0.2:6443

  # Finish one that had delivered to a file whose host is lost for good
  kubectl bootstrap-token rotate 07401b --force=target

It may be stopped or killed at any moment: the old token works until the new one is proven and the overlap has passed.
The same command goes on where it was, and `kubectl bootstrap-token rollback` restores the start until the old token is
retired. The new one has the usages, groups, labels and description of the old one.

Exit codes: 0 done, 1 failed or undone, 2 usage, 4 pending (run it again), 5 held by another run, 130 interrupted.";

/// Runs it.
pub(crate) async fn run(rotate: Rotate, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let id = side::id(&rotate.id, &context.ui)?;
    let command = Command {
        asked: Asked::Rotate,
        options: Options {
            ttl: rotate.lifetime.wanted(Some(DEFAULT))?,
            overlap: rotate.common.overlap,
            timeout: rotate.common.timeout,
            deliver: rotate.deliver,
            forced: rotate.force.into_iter().collect(),
        },
        common: &rotate.common,
        global,
        context,
    };
    let (_, ended) = command.on(id).await?;
    ended.map(|()| ExitCode::Done)
}
