//! `kubectl argocd-rancher rollback`: an unfinished rotation is undone.

use std::time::Duration;

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::Asked;
use cli::rotation::results::exit;
use client::error::Error;

use super::verify;
use super::work::{Common, Work};
use crate::controller::fleet::Fleet;
use crate::controller::{Check, Options};
use crate::sides::Argo;

/// What is typed after `kubectl argocd-rancher rollback`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// The cluster by id, by the name that Argo CD calls it, or by the name of its Secret
    #[arg(value_name = "CLUSTER")]
    pub subject: String,

    /// End with exit code 3 where no rotation is under way
    #[arg(long)]
    pub exit_code: bool,

    /// Override a check by its name; can be repeated
    #[arg(long, value_enum, value_name = "CHECK", value_delimiter = ',')]
    pub force: Vec<Check>,

    /// What both verbs have.
    #[command(flatten)]
    pub common: Common,
}

const EXAMPLES: &str = "\
Examples:
  # Give Argo CD the old token again, and end the new one
  kubectl argocd-rancher rollback staging --rancher-context rancher

  # What that would do
  kubectl argocd-rancher rollback staging --rancher-context rancher --dry-run

It is possible until the old token is retired; after that a rotation can only be finished. If the old token dies meanwhile,
there is no way back to it, and the new one stays.

Exit codes: 0 undone, or nothing to undo (3 with --exit-code), 1 failed, 2 usage, 4 pending, 5 held, 130 interrupted.";

/// A token that is made on the way back, because the old one has died, lives as long as Rancher grants.
const LONGEST: Duration = Duration::from_hours(90 * 24);

/// Runs it.
pub(crate) async fn run(rollback: Rollback, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let common = &rollback.common;
    let argo = Argo::open(global, &context.environment)?;
    let rancher = common.rancher.require(&argo, global, context).await?;
    let fleet = Fleet::survey(argo, rancher).await?;
    let cluster = verify::find(&fleet.clusters, &rollback.subject)?;
    let options = Options {
        ttl: LONGEST.try_into().map_err(|error| Error::usage(format!("{error}")))?,
        grace: common.grace,
        timeout: common.timeout,
        keep_old: false,
        unscoped: false,
        forced: rollback.force.iter().copied().collect(),
    };
    let work = Work::new(&fleet, cluster, &options, common.again(cluster, global));
    let (outcome, ended) = Box::pin(work.alone(&context.ui, Asked::Rollback, &common.run)).await?;
    exit(ended, outcome == "nothing-to-do", rollback.exit_code)
}
