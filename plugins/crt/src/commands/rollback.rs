//! `kubectl crt rollback`: rolls back an unfinished rotation or rescue.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::results::{Results, exit};
use cli::rotation::{Verb, leases};
use client::error::Error;
use engine::rotation::Rotation as _;

use super::rotate::{Command, Common, Opened};
use crate::connections::{DownstreamFlags, Management};
use crate::controller::{Reactivation, RescueController};
use crate::report;
use crate::report::rotation::ClusterRotation;
use crate::rotation::rescue::Rescue;

/// The flags of `kubectl crt rollback`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// Cluster id, display name, or namespace/name of the provisioning cluster
    #[arg(value_name = "CLUSTER")]
    target: String,

    /// Exit with 3 if no rotation is in progress
    #[arg(long)]
    exit_code: bool,

    /// What both commands have.
    #[command(flatten)]
    common: Common,

    /// How to reach the downstream cluster.
    #[command(flatten)]
    downstream: DownstreamFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Restore the agent's old token and revoke the new one
  kubectl crt rollback staging

  # Print the plan
  kubectl crt rollback staging --dry-run

A rollback is possible until the old token is revoked. After that, a rotation can only be finished. \
The new token is revoked only after the agent is proven to run with the old one.

Exit codes: 0 rolled back or nothing to do, 1 failed, 2 usage, 4 pending, 5 held, 130 interrupted.";

/// Runs it.
pub(crate) async fn run(rollback: Rollback, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let results = Results::new(&context.ui, &rollback.common.run, true)?;
    let management = Management::open(global, &context.environment)?;
    let cluster = management.cluster(&rollback.target).await?;
    let command = Command {
        verb: Verb::Rollback,
        only_agent: false,
        common: &rollback.common,
        context,
        results: &results,
    };
    let lease = report::rotation::lease(&cluster.id);
    let rotation: Option<ClusterRotation> = leases::of(&management.server, &lease).await?;
    let opened = Opened::open(
        cluster,
        &rollback.common,
        &rollback.downstream,
        &management,
        global,
        context,
    )
    .await;
    let (result, ended) = if rotation.is_some_and(|rotation| rotation.is_of(Rescue::KIND)) {
        let options = rollback.common.options(false, Some(Reactivation::default()));
        let opened = Opened {
            target: report::rotation::target_of_rescue(&opened.target),
            ..opened
        };
        let connections = opened.connections.as_ref().map_err(Clone::clone);
        let controller = connections.and_then(|connections| RescueController::new(connections, options));
        command.with(&opened, controller).await
    } else {
        command.on(&opened).await
    };
    let nothing_to_do = result.outcome == "nothing-to-do";
    results.print(&[result]);
    exit(ended, nothing_to_do, rollback.exit_code)
}
