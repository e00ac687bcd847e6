//! The I/O of the rotation of the agent token: [`AgentTokenController`] applies single steps to the servers of a [`Session`].
//!
//! It decides nothing.

mod abstraction;
mod apply;
mod explain;
mod nodes;
mod observe;
mod starts;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cli::rotation::Commands;
use client::access::Needed;
use client::connection::Server;
use client::error::Error;
use client::secret::Fingerprint;
use engine::controller::{Controller, Failure, PlanOf, ServerCheck, Summary};
use engine::lock::Fence;
use engine::rotation::Timer;
use engine::run::Draw;
use supervisor::TokenValue;

use self::starts::Starts;
use super::rotation::AgentToken;
use super::rotation::observed::{Observed, Purpose, PutResult};
use super::rotation::record::Record;
use super::rotation::step::Step;
use crate::rights::AGENT_ROTATE;
use crate::server_token::session::Session;
use crate::server_token::session::backup::{BackedUp, Backup};
use crate::server_token::session::tokens::SystemRandom;

type Run = engine::run::Run<AgentToken>;

/// Who has the server token reads the old agent token and the new one.
impl BackedUp for Record {
    const KIND: &'static str = "agent-token";

    fn sealed(&self) -> Vec<(Fingerprint, Fingerprint)> {
        let tokens = [self.old, self.new].into_iter().flatten();
        let of_agents = tokens.filter(|token| *token != self.server);
        of_agents.map(|token| (token, self.server)).collect()
    }
}

/// What only this rotation is asked for.
pub(crate) struct AgentOptions {
    pub(crate) purpose: Purpose,
    /// The old agent token, which was passed, or those that were read from nodes.
    pub(crate) known: Vec<TokenValue>,
    /// The commands of the server token, for `recover`.
    pub(crate) of_server: Commands,
}

/// Observes the servers of one cluster, and applies steps to them.
pub(crate) struct AgentTokenController<'a> {
    session: Session<'a>,
    asked: AgentOptions,
    own: Mutex<OwnState>,
}

/// What only this rotation has read and sent.
#[derive(Default)]
struct OwnState {
    backup: Option<Backup<Record>>,
    seen: Option<Observed>,
    put: PutResult,
    /// The run cannot prove that the old token is rejected.
    is_old_unknown: bool,
    starts: Starts,
    /// When the servers had started as the last PUT was sent.
    starts_at_put: BTreeMap<String, i64>,
}

impl<'a> AgentTokenController<'a> {
    pub(crate) fn new(session: Session<'a>, asked: AgentOptions) -> Self {
        for token in &asked.known {
            session.state().tokens.insert(token.clone());
        }
        let own = Mutex::default();
        Self { session, asked, own }
    }

    fn own(&self) -> MutexGuard<'_, OwnState> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Deref for AgentTokenController<'a> {
    type Target = Session<'a>;

    fn deref(&self) -> &Session<'a> {
        &self.session
    }
}

impl Controller for AgentTokenController<'_> {
    type Rotation = AgentToken;

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
        vec![self.needed(AGENT_ROTATE)]
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
        "anyone who has the server token, and the permissions in kube-system that the rotation was started with"
            .to_owned()
    }

    fn explain(&self, error: Error) -> Error {
        self.explained(error)
    }

    async fn dry_run(&self, step: &Step) -> ServerCheck {
        self.check(step).await
    }

    async fn summary(&self, _: &Observed, _: Option<&PlanOf<Self>>) -> Summary {
        self.summarized()
    }
}
