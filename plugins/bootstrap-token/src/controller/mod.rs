//! The I/O of the rotation: [`TokenController`] reads the two tokens, `cluster-info` and the delivery, probes the API servers with
//! the tokens, and applies single steps.
//!
//! It decides nothing. What it reads becomes an [`Observed`] of ids and fingerprints ([`abstraction`]).

mod abstraction;
mod apply;
mod observe;
mod preflight;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bootstrap::{Token, TokenId};
use client::access::Needed;
use client::connection::Server;
use client::error::Error;
use client::secret::Fingerprint;
use engine::controller::{Controller, Failure, PlanOf, ServerCheck, Summary};
use engine::lock::Fence;
use engine::rotation::{Check, Timer};
use engine::run::Draw;
use tokio::time::Instant;

use self::abstraction::{Identity, Memory, Snapshot};
use crate::cluster::ClusterConnection;
use crate::delivery::{DeliveryTarget, file};
use crate::probe::CACHE_LIFETIME;
use crate::report::target;
use crate::rotation::BootstrapToken;
use crate::rotation::observed::Observed;
use crate::rotation::record::Place;
use crate::rotation::step::Step;
use crate::servers::Servers;
use crate::template::TokenTemplate;

type Run = engine::run::Run<BootstrapToken>;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The lifetime of the new token. `None`: it never expires.
    pub(crate) ttl: Option<Duration>,
    pub(crate) overlap: Duration,
    pub(crate) timeout: Duration,
    pub(crate) deliver: Option<DeliveryTarget>,
    pub(crate) forced: Vec<Check>,
}

#[derive(Debug)]
pub(crate) struct TokenController<'a> {
    cluster: &'a ClusterConnection,
    servers: Servers,
    id: TokenId,
    options: Options,
    state: Mutex<State>,
}

/// What an observation leaves for the next step and the next observation.
#[derive(Debug, Default)]
struct State {
    snapshot: Option<Snapshot>,
    memory: Memory,
    template: Option<TokenTemplate>,
    /// The id of the new token in the journal.
    new_id: Option<TokenId>,
    /// When a token was last accepted, and the version of its Secret at that time.
    accepted: BTreeMap<Fingerprint, (Instant, String)>,
    /// The lock of the delivery, if that is a file.
    lock: Option<file::Locked>,
    /// The revoked token that cannot be probed, in words.
    unproven: Option<String>,
    /// The results of the servers for each token on which they disagree.
    disagreements: Vec<String>,
    identity: Option<(Instant, Identity)>,
    abandoned: Option<Place>,
}

impl<'a> TokenController<'a> {
    pub(crate) fn new(cluster: &'a ClusterConnection, servers: Servers, id: TokenId, options: Options) -> Self {
        Self {
            cluster,
            servers,
            id,
            options,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_forced(&self, check: Check) -> bool {
        self.options.forced.contains(&check)
    }

    /// The last known value of the new token.
    fn new_token(&self) -> Option<Token> {
        self.state().memory.last_new.clone()
    }

    /// Whether the delivery held the new token in the last observation.
    fn is_delivered(&self) -> bool {
        let state = self.state();
        let token = state.snapshot.as_ref().and_then(|snapshot| snapshot.delivery.token());
        token.is_some() && token == state.memory.last_new
    }
}

impl Controller for TokenController<'_> {
    type Rotation = BootstrapToken;

    async fn observe(&self, run: Option<&Run>) -> Result<Observed, Failure> {
        Box::pin(self.observation(run)).await
    }

    fn needs(&self) -> Vec<Needed<'_>> {
        let state = self.state();
        let rights = state
            .snapshot
            .as_ref()
            .map(|snapshot| preflight::rights(&self.id, snapshot));
        vec![Needed {
            server: &self.cluster.server,
            side: target::CLUSTER,
            rights: rights.unwrap_or_default(),
        }]
    }

    fn draw(&self) -> Box<dyn Draw + Send + '_> {
        Box::new(SystemRandom {
            id: self.state().new_id.clone(),
            state: &self.state,
        })
    }

    async fn apply(&self, step: &Step, run: &Run, fence: &Fence) -> Result<(), Failure> {
        Box::pin(self.send(step, run, fence)).await
    }

    fn lasts(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Proof => self.options.timeout,
            Timer::Quiet => self.options.overlap,
            Timer::Retry => self.options.timeout / 4,
            Timer::Cache => CACHE_LIFETIME,
            Timer::InFlight => Duration::ZERO,
        }
    }

    fn server(&self) -> &Server {
        &self.cluster.server
    }

    fn resumable_by(&self) -> String {
        let file = self.options.deliver.as_ref().and_then(DeliveryTarget::file);
        let only = file.map_or_else(String::new, |path| format!(", on the host of {}", path.display()));
        format!("anyone with the permissions in kube-system that the rotation was started with{only}")
    }

    /// Adds the result of each API server, if they disagree.
    fn explain(&self, error: Error) -> Error {
        let disagreements = self.state().disagreements.clone();
        disagreements.into_iter().fold(error, Error::hint)
    }

    async fn dry_run(&self, step: &Step) -> ServerCheck {
        self.check(step).await
    }

    fn unproven(&self) -> Vec<String> {
        let sentence = |token: &String| {
            format!(
                "Not proven by a probe: that the API server rejects {token}. Its value is unknown, but its Secret has been gone for \
                 longer than a server caches an accepted token."
            )
        };
        self.state().unproven.iter().map(sentence).collect()
    }

    async fn summary(&self, _: &Observed, plan: Option<&PlanOf<Self>>) -> Summary {
        let Some(new) = self.new_token() else {
            return Summary {
                in_use: None,
                message: "The new token no longer exists.".to_owned(),
            };
        };
        // The old token is gone for good.
        let lease = target::lease(&self.id);
        lease.delete_unused::<BootstrapToken>(&self.cluster.server).await;
        let abandoned = self.state().abandoned.clone();
        let place = plan.and_then(|plan| plan.record.place.as_ref());
        let id = &new.id;
        let last = match place.filter(|_| abandoned.is_none()) {
            Some(place) if self.is_delivered() => format!("The new token is {id}, delivered to {}.", place.at),
            Some(place) => {
                let at = &place.at;
                format!("The new token is {id}, but another writer has changed {at}: it does not hold the new token.")
            }
            None => {
                let kubeconfig = self.cluster.command("kubeconfig", id.as_str());
                format!("The new token is {id}. `{kubeconfig}` prints a bootstrap kubeconfig with it.")
            }
        };
        let old = &self.id;
        let abandoned =
            abandoned.map(|place| format!("{place} was left as it is: nodes that read {old} there are rejected."));
        let sentences = self.unproven().into_iter().chain(abandoned).chain([last]);
        Summary {
            in_use: Some(new.fingerprint()),
            message: sentences.collect::<Vec<_>>().join(" "),
        }
    }

    fn rolled_forward(&self) -> Summary {
        let new = self.new_token();
        let name = new.as_ref().map_or_else(
            || "the new token".to_owned(),
            |new| format!("bootstrap token {}", new.id),
        );
        Summary {
            in_use: new.as_ref().map(Token::fingerprint),
            message: format!("{name} is used instead"),
        }
    }
}

/// Draws tokens from the operating system's random source, and keeps them for the step.
struct SystemRandom<'a> {
    state: &'a Mutex<State>,
    /// The id that the next value belongs to.
    id: Option<TokenId>,
}

impl Draw for SystemRandom<'_> {
    fn credential(&mut self) -> Fingerprint {
        // Without random bytes no value is kept, and the step fails.
        let half = Token::generate().ok().map(|token| token.secret().clone());
        let token = self
            .id
            .clone()
            .zip(half)
            .and_then(|(id, half)| Token::new(id, half).ok());
        let Some(token) = token else {
            return Fingerprint::of("");
        };
        let value = token.fingerprint();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.memory.tokens.insert(value, token);
        value
    }

    fn mark(&mut self) -> String {
        self.id = Token::generate().ok().map(|token| token.id);
        self.id.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

fn of_file(path: &std::path::Path, error: &std::io::Error) -> Error {
    Error::failed(format!("cannot read or replace {}: {error}", path.display()))
}
