//! The half of a rescue that does I/O: that of the rotation ([`CrtController`]), with the stages of a rescue.

use std::collections::BTreeSet;
use std::time::Duration;

use client::access::Needed;
use client::connection::Server;
use client::error::Error;
use client::secret::Fingerprint;
use engine::controller::{Controller, Failure, PlanOf, ServerCheck, Summary};
use engine::lock::Fence;
use engine::rotation::Timer;
use engine::run::{Draw, Run};

use super::{CrtController, Options};
use crate::connections::Connections;
use crate::report;
use crate::rotation::observed::Observed;
use crate::rotation::rescue::{Rescue, as_rotation, lost, target};
use crate::rotation::step::Step;

/// The controller of the rescue of one cluster.
pub(crate) struct RescueController<'a>(CrtController<'a>);

impl<'a> RescueController<'a> {
    /// For a cluster with open connections.
    ///
    /// # Errors
    /// There is no route to the downstream cluster.
    pub(crate) fn new(connections: &'a Connections, options: Options) -> Result<Self, Error> {
        let controller = CrtController::new(connections, options)?;
        Ok(Self(CrtController {
            is_rescue: true,
            ..controller
        }))
    }
}

/// Which values to probe.
pub(super) fn values_to_probe(seen: &Observed) -> BTreeSet<Fingerprint> {
    let of_rescue = seen.reactivates.into_iter().chain(seen.reactivated.keys().copied());
    let values = target(seen).into_iter().chain(seen.deployed).chain(of_rescue);
    values.chain([lost(seen)]).collect()
}

impl Controller for RescueController<'_> {
    type Rotation = Rescue;

    async fn observe(&self, run: Option<&Run<Rescue>>) -> Result<Observed, Failure> {
        let run = run.map(as_rotation);
        Box::pin(self.0.look(run.as_ref())).await
    }

    fn needs(&self) -> Vec<Needed<'_>> {
        self.0.needs()
    }

    fn draw(&self) -> Box<dyn Draw + Send + '_> {
        self.0.draw()
    }

    async fn apply(&self, step: &Step, run: &Run<Rescue>, fence: &Fence) -> Result<(), Failure> {
        self.0.apply(step, &as_rotation(run), fence).await
    }

    fn lasts(&self, timer: Timer) -> Duration {
        self.0.lasts(timer)
    }

    fn server(&self) -> &Server {
        self.0.server()
    }

    fn resumable_by(&self) -> String {
        self.0.resumable_by()
    }

    fn reached(&self) -> String {
        self.0.reached()
    }

    fn explain(&self, error: Error) -> Error {
        self.0.explain(error)
    }

    async fn dry_run(&self, step: &Step) -> ServerCheck {
        self.0.dry_run(step).await
    }

    async fn summary(&self, before: &Observed, _: Option<&PlanOf<Self>>) -> Summary {
        let after = self.0.observe(None).await.ok();
        let seen = after.as_ref().unwrap_or(before);
        Summary {
            in_use: target(seen),
            message: report::rotation::summary_of_rescue(&self.0.connections.cluster),
        }
    }
}
