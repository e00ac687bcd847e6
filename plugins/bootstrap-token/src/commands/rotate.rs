//! `kubectl bootstrap-token rotate`: replaces a token without breaking nodes that are joining.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::{Verb, force};
use client::error::Error;
use engine::rotation::Check;

use super::rotation_command::{RotationCommand, RotationFlags};
use crate::cluster;
use crate::delivery::DeliveryTarget;
use crate::lifetime::{DEFAULT, LifetimeFlags};
use crate::rotation::BootstrapToken;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rotate {
    /// The id of the token
    #[arg(value_name = "ID")]
    pub id: String,

    #[command(flatten)]
    pub lifetime: LifetimeFlags,

    /// Replace the token also where nodes read it, bare or in a kubeconfig: secret:NAMESPACE/NAME/KEY or file:PATH
    #[arg(long, value_name = "TARGET")]
    pub deliver: Option<DeliveryTarget>,

    /// Override a preflight check by its name. Can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::parser::<BootstrapToken>())]
    pub force: Vec<Check>,

    #[command(flatten)]
    pub rotation: RotationFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Print the plan without changing anything
  kubectl bootstrap-token rotate 07401b --dry-run

  # Also replace the token in a bootstrap kubeconfig that machines boot with
  kubectl bootstrap-token rotate 07401b --deliver file:/srv/pxe/bootstrap-kubelet.conf --ttl 12h

  # Also replace it in the Secret that an autoscaler reads, from a script
  kubectl bootstrap-token rotate 07401b --deliver secret:kube-system/join/token --yes -o json

  # Check the token on each API server behind a load balancer
  kubectl bootstrap-token rotate 07401b --api-server https://10.0.0.1:6443 \\
      --api-server https://10.0.0.2:6443

  # Finish a rotation that delivered to a file on a host that is lost for good
  kubectl bootstrap-token rotate 07401b --force=target

Kill it at any point: the old token stays valid until the new one is proven and the overlap has passed. Run the same command again to resume. Until the old token is revoked, `kubectl bootstrap-token rollback` restores the original state.

The new token gets the usages, groups, labels and description of the old one. Its --ttl must be at least 15m.

Exit codes: 0 done, 1 failed or rolled back, 2 usage, 4 pending (resumable), 5 held by another run, 130 interrupted";

pub(crate) async fn run(rotate: Rotate, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let id = cluster::id(&rotate.id, &context.ui, global)?;
    let ttl = rotate.lifetime.checked(Some(DEFAULT))?;
    let command = RotationCommand {
        verb: Verb::Rotate,
        options: rotate.rotation.options(ttl, rotate.deliver, rotate.force),
        flags: &rotate.rotation,
        global,
        context,
    };
    let (_, ended) = command.run(id).await?;
    ended.map(|()| ExitCode::Done)
}
