//! The I/O of the rotation of the server token: [`ServerTokenController`] applies single steps to the servers of a [`Session`].
//!
//! It decides nothing.

mod apply;
mod explain;
mod nodes;
mod observe;
mod round;

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::access::Needed;
use client::connection::Server;
use client::error::Error;
use engine::controller::{Controller, Failure, PlanOf, ServerCheck, Summary};
use engine::lock::Fence;
use engine::rotation::Timer;
use engine::run::Draw;
use supervisor::snapshot::SnapshotFile;

use crate::rights::SERVER_ROTATE;
use crate::server_token::rotation::ServerToken;
use crate::server_token::rotation::observed::Observed;
use crate::server_token::rotation::step::Step;
use crate::server_token::session::Session;
use crate::server_token::session::backup::Backup;
use crate::server_token::session::tokens::SystemRandom;

type Run = engine::run::Run<ServerToken>;

/// Observes the servers of one cluster, and applies steps to them.
pub(crate) struct ServerTokenController<'a> {
    session: Session<'a>,
    own: Mutex<OwnState>,
}

/// What only this rotation has read.
#[derive(Default)]
struct OwnState {
    backup: Option<Backup>,
    /// `None`: they have to be read.
    snapshots: Option<Vec<SnapshotFile>>,
    /// Why PUTs of the last round failed.
    reasons: Vec<String>,
}

impl<'a> ServerTokenController<'a> {
    pub(crate) fn new(session: Session<'a>) -> Self {
        let own = Mutex::default();
        Self { session, own }
    }

    fn own(&self) -> MutexGuard<'_, OwnState> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Deref for ServerTokenController<'a> {
    type Target = Session<'a>;

    fn deref(&self) -> &Session<'a> {
        &self.session
    }
}

impl Controller for ServerTokenController<'_> {
    type Rotation = ServerToken;

    async fn observe(&self, run: Option<&Run>) -> Result<Observed, Failure> {
        Box::pin(self.observation(run, None)).await
    }

    fn longest_observation(&self) -> Duration {
        self.session.longest_observation()
    }

    fn draw(&self) -> Box<dyn Draw + Send + '_> {
        Box::new(SystemRandom(&self.session))
    }

    fn needs(&self) -> Vec<Needed<'_>> {
        vec![self.needed(SERVER_ROTATE)]
    }

    async fn apply(&self, step: &Step, run: &Run, fence: &Fence) -> Result<(), Failure> {
        Box::pin(self.send(step, run, fence)).await
    }

    fn longest(&self, step: &Step) -> Duration {
        self.longest_step(step)
    }

    fn lasts(&self, timer: Timer) -> Duration {
        self.session.lasts(timer)
    }

    fn server(&self) -> &Server {
        &self.cluster.server
    }

    fn resumable_by(&self) -> String {
        "anyone who has the old or the new token, and the permissions in kube-system that the rotation was started with"
            .to_owned()
    }

    fn explain(&self, error: Error) -> Error {
        self.explained(error)
    }

    async fn dry_run(&self, step: &Step) -> ServerCheck {
        self.check(step).await
    }

    fn unproven(&self) -> Vec<String> {
        self.not_proven()
    }

    async fn summary(&self, _: &Observed, _: Option<&PlanOf<Self>>) -> Summary {
        self.summarized()
    }
}
