//! `kubectl argocd-rancher rollback`: undo an unfinished rotation.

use std::time::Duration;

use cli::ExitCode;
use cli::app::{Context, DryRun, GlobalFlags};
use cli::rotation::Verb;
use cli::rotation::results::{Results, exit};
use client::error::{Error, Kind};

use super::run::{Command, Common};
use crate::connections::Argo;
use crate::controller::ClusterController;
use crate::controller::fleet::Fleet;
use crate::hints::Hints;
use crate::{leftovers, report};

/// The flags of `kubectl argocd-rancher rollback`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// Cluster id, name in Argo CD, or name of the cluster Secret
    #[arg(value_name = "CLUSTER")]
    pub target: String,

    /// Exit with 3 if no rotation is in progress
    #[arg(long)]
    pub exit_code: bool,

    /// The common ones.
    #[command(flatten)]
    pub common: Common,
}

const EXAMPLES: &str = "\
Examples:
  # Restore the old token and revoke the new one
  kubectl argocd-rancher rollback staging --rancher-context rancher

  # Print the plan
  kubectl argocd-rancher rollback staging --rancher-context rancher --dry-run

A rollback is possible until the old token is revoked. After that a rotation can only be finished. If the old token expires before the rollback, the new one stays in use. If the cluster Secret was deleted, the rollback only revokes the new token.

Exit codes: 0 rolled back, or nothing to do (3 with --exit-code), 1 failed, 2 usage, 4 pending, 5 held, 130 interrupted.";

/// The validity of a token that a rollback issues because the old one cannot be restored; Rancher may grant less.
const LONGEST: Duration = Duration::from_hours(90 * 24);

pub(crate) async fn run(rollback: Rollback, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (ui, common) = (&context.ui, &rollback.common);
    let argo = Argo::open(global, &context.environment)?;
    let rancher = common.rancher.require(&argo, global, context).await?;
    let hints = Hints::new(&common.rancher, global, &argo.namespace);
    let fleet = Fleet::survey(argo, rancher).await?;
    let found = super::find_cluster(&fleet.clusters, &rollback.target, &hints);
    let deleted = match &found {
        Err(error) if error.kind == Kind::NotFound => fleet.deleted(&rollback.target).await?,
        _ => None,
    };
    let cluster = match &deleted {
        Some(deleted) => deleted,
        None => found?,
    };
    let longest = LONGEST.try_into().map_err(|error| Error::usage(format!("{error}")))?;
    let options = common.options(longest, hints.clone());
    let results = Results::new(ui, &common.run, true)?;
    let command = Command {
        verb: Verb::Rollback,
        common,
        ui,
        results: &results,
    };
    let controller = ClusterController::new(&fleet, cluster, &options);
    let target = report::target(cluster, common.rancher.commands(&cluster.object.name, global));
    let (result, ended) = Box::pin(command.on(&controller, &target)).await;
    let nothing_to_do = result.outcome == "nothing-to-do";
    results.print(&[result]);
    if deleted.is_some() && ended.is_ok() && !nothing_to_do && common.run.dry_run == DryRun::None {
        let remove = hints.with_flag("remove", &cluster.object.name, leftovers::FLAG);
        ui.warn("the cluster Secret was deleted, and the old token is still valid");
        ui.hint(format!("{remove} revokes it"));
    }
    exit(ended, nothing_to_do, rollback.exit_code)
}
