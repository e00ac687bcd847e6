//! What `rotate` and `rollback` share: their flags, and a run for one cluster.

use std::time::Duration;

use cli::rotation::results::{Results, RunFlags};
use cli::rotation::{Job, RotationResult, Target, Verb, force};
use cli::ui::Ui;
use client::duration;
use client::error::Error;
use engine::rotation::Check;
use rancher::api_token::Lifetime;

use crate::connections::RancherFlags;
use crate::controller::check;
use crate::controller::{ClusterController, Options};
use crate::hints::Hints;
use crate::rotation::ArgocdRancher;

/// The flags of both.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Common {
    /// The common ones.
    #[command(flatten)]
    pub run: RunFlags,

    /// Override a check; can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::parser::<ArgocdRancher>())]
    pub force: Vec<Check>,

    /// Wait this long before revoking a token, until Argo CD can no longer write back a stale copy or use the token in a running sync
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    pub grace: Duration,

    /// Restore the old token if the new one is not proven within this time
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    pub timeout: Duration,

    /// How to reach Rancher.
    #[command(flatten)]
    pub rancher: RancherFlags,
}

impl Common {
    /// The options of a run with a new token of this lifetime.
    pub(super) fn options(&self, ttl: Lifetime, hints: Hints) -> Options {
        Options {
            hints,
            ttl,
            grace: self.grace,
            timeout: self.timeout,
            keep_old: false,
            unscoped: false,
            forced: self.force.iter().copied().collect(),
        }
    }
}

/// What is the same for every cluster of one command.
pub(super) struct Command<'a> {
    pub(super) verb: Verb,
    pub(super) common: &'a Common,
    pub(super) ui: &'a Ui,
    pub(super) results: &'a Results<'a>,
}

impl Command<'_> {
    /// Runs it for one cluster, and prints how it ended.
    pub(super) async fn on(
        &self,
        controller: &ClusterController<'_>,
        target: &Target,
    ) -> (RotationResult, Result<(), Error>) {
        self.results.run_one(&self.job(controller, target, None)).await
    }

    /// `among`: its name, where it is one of several.
    pub(super) fn job<'j, 'c>(
        &'j self,
        controller: &'j ClusterController<'c>,
        target: &'j Target,
        among: Option<&'j str>,
    ) -> Job<'j, ClusterController<'c>> {
        let forces = |check| self.common.force.contains(&check);
        Job {
            ui: self.ui,
            controller,
            target,
            verb: self.verb,
            yes: self.common.run.yes,
            dry_run: self.common.run.dry_run,
            plan_is_data: self.results.plan_is_data(),
            among,
            force_lock: forces(Check::LOCK),
            force_journal: forces(check::JOURNAL),
        }
    }
}
