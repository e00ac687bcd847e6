//! The I/O of the rotation: [`ClusterController`] reads the cluster Secret, the backup Secret and the user's tokens in Rancher, probes
//! the tokens as Argo CD would use them, and applies single steps.
//!
//! It makes no decisions. What it reads becomes an [`Observed`] of names and fingerprints (`abstraction`). It sends each [`Step`] with
//! the versions of the Secrets that it read last (`apply`).

mod abstraction;
mod apply;
pub(crate) mod check;
pub(crate) mod fleet;
mod observe;
mod preflight;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argocd::ClusterSecret;
use client::access::Needed;
use client::connection::Server;
use client::secret::{Fingerprint, Secret};
use engine::controller::{Controller, Failure, PlanOf, ServerCheck, Summary};
use engine::lock::Fence;
use engine::rotation::{Check, Timer};
use engine::run::{Draw, Run};
use rancher::api_token::{ApiToken, Lifetime, TokenName};
use tokio::time::Instant;

use self::abstraction::Snapshot;
pub(crate) use self::abstraction::WrittenDetails;
use self::fleet::Fleet;
use crate::backup::BackupSecret;
use crate::connections::{ARGOCD, Argo};
use crate::hints::Hints;
use crate::mark;
use crate::report;
use crate::rotation::ArgocdRancher;
use crate::rotation::observed::{ClusterSync, Observed};
use crate::rotation::step::Step;
use crate::token_check::TokenResults;

/// Argo CD's metrics are read at most this often: with many clusters they are long.
const SCRAPE: Duration = Duration::from_secs(2);

/// With `resource.respectRBAC`, after a token was rejected at a bad moment (seen on Argo CD 3.5.1).
pub(crate) const BLIND: &str = "Argo CD reports that it is connected, but watches nothing in the cluster; to refresh it, \
    set annotation argocd.argoproj.io/refresh on the Secret to the current time (RFC 3339)";
/// Argo CD reports that it is not connected.
pub(crate) const SYNC_FAILED: &str = "Argo CD's last sync of the cluster failed";

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The commands that hints print.
    pub(crate) hints: Hints,
    /// How long a new token is to be valid; Rancher may grant less.
    pub(crate) ttl: Lifetime,
    /// How long the cluster Secret is watched before the old token is revoked.
    pub(crate) grace: Duration,
    /// How long the new token may take to be proven.
    pub(crate) timeout: Duration,
    /// The old token stays valid.
    pub(crate) keep_old: bool,
    /// The new token is not limited to one cluster.
    pub(crate) unscoped: bool,
    /// The checks that are overridden.
    pub(crate) forced: BTreeSet<Check>,
}

pub(crate) struct ClusterController<'a> {
    fleet: &'a Fleet,
    /// The cluster Secret when the command began.
    cluster: &'a ClusterSecret,
    options: &'a Options,
    backup: BackupSecret,
    state: Mutex<State>,
}

/// What one observation leaves for the next step and the next observation.
struct State {
    snapshot: Option<Snapshot>,
    /// Every value that this process has read or issued.
    known: BTreeMap<Fingerprint, Secret>,
    /// The values that this process has issued. They are stored nowhere until they are backed up.
    issued: BTreeMap<TokenName, Secret>,
    /// The last token that was issued here, as Rancher granted it.
    granted: Option<ApiToken>,
    /// What was read from Rancher is not older than this.
    rancher_since: Instant,
    /// When the new token was probed last.
    called: Instant,
    /// The new tokens that were accepted, and when.
    accepted: BTreeMap<Fingerprint, Instant>,
    /// The last check of the old token before a run.
    surveyed: Option<Surveyed>,
    /// The value that should be rejected by now, but cannot be probed because it is lost.
    unproven: Option<Fingerprint>,
    /// The last state from Argo CD's metrics, and when they were read.
    sync: Option<(Instant, ClusterSync)>,
    /// Something was written since the last observation.
    has_written: bool,
}

/// The results of a check of the old token.
struct Surveyed {
    value: Fingerprint,
    at: Instant,
    results: TokenResults,
}

impl<'a> ClusterController<'a> {
    /// For the cluster of this Secret.
    pub(crate) fn new(fleet: &'a Fleet, cluster: &'a ClusterSecret, options: &'a Options) -> Self {
        let now = Instant::now();
        let object = &cluster.object;
        Self {
            backup: BackupSecret::of(&fleet.argo.server.client, &object.namespace, &object.name),
            state: Mutex::new(State {
                snapshot: None,
                known: BTreeMap::new(),
                issued: BTreeMap::new(),
                granted: None,
                rancher_since: now,
                called: now,
                accepted: BTreeMap::new(),
                surveyed: None,
                unproven: None,
                sync: None,
                has_written: false,
            }),
            fleet,
            cluster,
            options,
        }
    }

    /// The name of the cluster in Argo CD.
    pub(crate) fn name(&self) -> &'a str {
        &self.cluster.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn argo(&self) -> &'a Argo {
        &self.fleet.argo
    }

    fn forces(&self, check: Check) -> bool {
        self.options.forced.contains(&check)
    }

    /// The token in the cluster Secret, as it was read last.
    fn in_use(&self) -> Option<Secret> {
        self.state().snapshot.as_ref()?.cluster.as_ref()?.token()
    }
}

impl Controller for ClusterController<'_> {
    type Rotation = ArgocdRancher;

    async fn observe(&self, run: Option<&Run<ArgocdRancher>>) -> Result<Observed, Failure> {
        self.look(run).await
    }

    fn needs(&self) -> Vec<Needed<'_>> {
        vec![Needed {
            server: &self.argo().server,
            side: ARGOCD,
            rights: self.rights(),
        }]
    }

    fn draw(&self) -> Box<dyn Draw + Send + '_> {
        Box::new(NothingToDraw)
    }

    async fn apply(&self, step: &Step, run: &Run<ArgocdRancher>, fence: &Fence) -> Result<(), Failure> {
        let sent = self.send(step, run, fence).await;
        // Whether it succeeded or not, everything is read again.
        let mut state = self.state();
        state.rancher_since = Instant::now();
        state.accepted.clear();
        state.sync = None;
        state.has_written = true;
        drop(state);
        sent
    }

    fn lasts(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Proof => self.options.timeout,
            Timer::Quiet => self.options.grace,
            Timer::Retry | Timer::Cache | Timer::InFlight => Duration::ZERO,
        }
    }

    fn server(&self) -> &Server {
        &self.argo().server
    }

    fn resumable_by(&self) -> String {
        let (user, namespace) = (&self.fleet.user.id, &self.cluster.object.namespace);
        format!(
            "user {user} of Rancher, with permissions on Secrets and Leases in namespace {namespace} of Argo CD's cluster"
        )
    }

    async fn dry_run(&self, step: &Step) -> ServerCheck {
        self.check(step).await
    }

    fn unproven(&self) -> Vec<String> {
        let unproven = |value| {
            format!(
                "Not verified: that Rancher rejects {value}. The backup was lost, so it cannot be probed. Rancher has deleted \
                 the token."
            )
        };
        self.state().unproven.into_iter().map(unproven).collect()
    }

    async fn summary(&self, _: &Observed, plan: Option<&PlanOf<Self>>) -> Summary {
        // A resumed run keeps its own options.
        let keep_old = plan.map_or(self.options.keep_old, |plan| plan.record.keep_old);
        let Some(token) = self.in_use() else {
            return Summary {
                in_use: None,
                message: "The cluster Secret does not hold a token any more.".to_owned(),
            };
        };
        let granted = self.state().granted.clone();
        let until = granted.as_ref().and_then(|token| token.expiry.at());
        let until = until.map_or_else(String::new, |at| format!(", valid until {at}"));
        let now = self.argo().server.clock.now();
        let shortened = granted.and_then(|token| mark::shortened(&token, self.options.ttl, now));
        let shortened = shortened.map_or_else(String::new, |text| format!(" {text}."));
        let kept = if keep_old {
            " The old token is still valid, as requested."
        } else {
            ""
        };
        let (cluster, name) = (report::display(self.cluster), mark::token_name(&token));
        Summary {
            in_use: Some(token.fingerprint()),
            message: format!("Argo CD reaches {cluster} with {name}{until}.{shortened}{kept}"),
        }
    }

    fn rolled_forward(&self) -> Summary {
        let token = self.in_use();
        let name = token.as_ref().map_or_else(|| "no token".to_owned(), mark::token_name);
        Summary {
            in_use: token.as_ref().map(Secret::fingerprint),
            message: format!("Argo CD has {name} now, and the old token was not revoked"),
        }
    }
}

/// Rancher generates names and values, so no step needs one of ours.
struct NothingToDraw;

impl Draw for NothingToDraw {
    fn credential(&mut self) -> Fingerprint {
        Fingerprint::of("")
    }

    fn mark(&mut self) -> String {
        String::new()
    }
}
