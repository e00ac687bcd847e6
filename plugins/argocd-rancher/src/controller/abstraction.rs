//! The abstraction: turns everything that was read in one observation into the observed state. It is a pure function of its inputs.
//!
//! The safety of a rotation depends on it as much as on the stages. It decides which result of a probe counts as accepted, which token
//! is probed and how, how old a result may be, which mark belongs to this run, and when a token is about to expire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use argocd::ClusterSecret;
use argocd::connection::Connection;
use client::ownership::Owner;
use client::secret::{Fingerprint, Secret};
use engine::credential::{Acceptance, Validity};
use engine::direction::{self, Direction};
use engine::phase::Phase;
use engine::rotation::{Check, Timer};
use engine::run::Run;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rancher::api_token::proof::CallResult;
use rancher::api_token::{ApiToken, Credential, TokenName};
use serde::{Deserialize, Serialize};

use super::{BLIND, check};
use crate::backup::StoredBackup;
use crate::mark::{self, TOOL};
use crate::rotation::ArgocdRancher;
use crate::rotation::observed::{
    Backup, ClusterSync, ConfigWriter, Issued, MarkDetails, Name, Observed, RunMark, SecretState, TokenRef,
};
use crate::token_check::TokenResults;

/// In the quiet time, what was read from Rancher may be this old, because nothing is revoked. The cluster Secret is always read.
const FRESH: Duration = Duration::from_secs(10);
/// Rancher records the last use of a token to the second: an earlier call of ours could be taken for one of Argo CD's.
const RECORDED: Duration = Duration::from_millis(1500);
/// A token that expires sooner than this could expire while a write is in flight.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_mins(5);
/// The number of connections over which a revoked token is probed: behind a load balancer, each replica of Rancher learns of a
/// deletion by itself.
pub(super) const CONNECTIONS: usize = 3;

/// The field managers of Argo CD's application controller and API server, which write a cluster Secret from their own copy (seen on
/// Argo CD 3.5.1).
const ARGOCD_ITSELF: [&str; 2] = ["argocd-application-controller", "argocd-server"];

/// On the cluster Secret: [`WrittenDetails`], as JSON. The run and its direction are in [`direction::ANNOTATION`].
pub(super) const DETAILS: &str = "kubectl-rotation.github.io/argocd-rancher-run";

/// What a run leaves on the cluster Secret for a process that resumes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WrittenDetails {
    #[serde(flatten)]
    pub(crate) details: MarkDetails,
    /// When the token that is there was written, by the clock of Argo CD's API server.
    pub(super) placed_at: Option<Timestamp>,
}

impl WrittenDetails {
    /// Those on the cluster Secret, of whatever run.
    pub(crate) fn read(cluster: &ClusterSecret) -> Option<Self> {
        serde_json::from_str(cluster.annotations.get(DETAILS)?).ok()
    }
}

/// Everything that is read in one observation, with the values and versions that steps need.
pub(super) struct Snapshot {
    pub(super) cluster: Option<ClusterSecret>,
    pub(super) backup: Option<StoredBackup>,
    pub(super) tokens: Vec<ApiToken>,
}

impl Snapshot {
    /// Every value that was read.
    pub(super) fn values(&self) -> impl Iterator<Item = Secret> {
        let held = self.cluster.as_ref().and_then(ClusterSecret::token);
        let backup = self.backup.iter().flat_map(|backup| [&backup.old, &backup.new]);
        backup.flatten().cloned().chain(held)
    }

    /// The token of this name, among the user's.
    pub(super) fn token(&self, name: &Name) -> Option<&ApiToken> {
        self.tokens.iter().find(|token| token.name.as_str() == name.0)
    }
}

pub(super) struct Inputs<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) run: Option<&'a Run<ArgocdRancher>>,
    /// By the clock of Argo CD's API server.
    pub(super) now: Timestamp,
    pub(super) user: &'a str,
    /// `namespace/name` of the cluster Secret, as in the marks of tokens.
    pub(super) subject: &'a str,
    /// The identity of Argo CD, as in the marks of tokens.
    pub(super) argocd: Option<&'a str>,
    /// The values that this process has issued. They are stored nowhere until they are backed up.
    pub(super) issued_here: &'a BTreeMap<TokenName, Secret>,
    pub(super) same_rancher: bool,
    pub(super) watched: bool,
    pub(super) use_forced: bool,
    pub(super) keep_old: bool,
    pub(super) discard: bool,
}

impl Inputs<'_> {
    /// The observed state, without the results of requests: blockers, acceptance, sync, and what else needs O.
    pub(super) fn observed(&self) -> Observed {
        let secret = self.secret();
        let old = self.run.map(|run| &run.record.old).or_else(|| secret.held());
        let old = old.and_then(|old| self.snapshot.token(old.name.as_ref()?));
        Observed {
            blockers: Vec::new(),
            user: self.user.to_owned(),
            same_rancher: self.same_rancher,
            old: old.map(|token| validity(token, self.now)),
            backup: self.backup(),
            old_accepted: Acceptance::NotAsked,
            old_needed_by: None,
            issued: self.issued(),
            new_accepted: Acceptance::NotAsked,
            watched: self.watched,
            use_forced: self.use_forced,
            sync: ClusterSync::default(),
            own_calls_recorded: false,
            keep_old: self.keep_old,
            discard: self.discard,
            secret,
        }
    }

    fn run_id(&self) -> Option<String> {
        self.run.map(|run| run.id.to_string())
    }

    fn secret(&self) -> SecretState {
        let Some(cluster) = self.snapshot.cluster.as_ref().filter(|cluster| !cluster.deleting) else {
            return SecretState::Missing;
        };
        SecretState::Holds {
            held: cluster.token().as_ref().map(token_ref),
            mark: self.run_id().and_then(|run| run_mark(cluster, &run)),
            writer: config_writer(cluster),
        }
    }

    /// The backup of another run does not count.
    fn backup(&self) -> Option<Backup> {
        let run = self.run_id()?;
        let backup = self.snapshot.backup.as_ref().filter(|backup| backup.mark.run == run)?;
        Some(Backup {
            user: backup.mark.user.clone(),
            keep_old: backup.mark.keep_old,
            old: backup.old.as_ref().map(token_ref),
            new: backup.new.as_ref().map(token_ref),
        })
    }

    fn issued(&self) -> BTreeMap<Name, Issued> {
        let Some(run) = self.run_id() else {
            return BTreeMap::new();
        };
        let named = |value: Secret| Some((Credential::of(&value).api_token()?.clone(), value));
        let stored: BTreeMap<TokenName, Secret> = self.snapshot.values().filter_map(named).collect();
        let of_run = |token: &ApiToken| {
            let value = stored.get(&token.name).or_else(|| self.issued_here.get(&token.name));
            let mark = mark::of_ours(token, self.argocd, value.is_some())?;
            let issued = Issued {
                validity: validity(token, self.now),
                value: value.map(Secret::fingerprint),
                replaces: mark.replaces.map(Name),
                used: token.last_used.map(|at| at.to_string()),
            };
            let is_of_run = mark.run == run && mark.subject == self.subject;
            is_of_run.then(|| (Name(token.name.to_string()), issued))
        };
        self.snapshot.tokens.iter().filter_map(of_run).collect()
    }
}

/// A value by its name and fingerprint.
pub(super) fn token_ref(value: &Secret) -> TokenRef {
    TokenRef {
        name: Credential::of(value).api_token().map(|name| Name(name.to_string())),
        value: value.fingerprint(),
    }
}

/// What this run has left on the cluster Secret.
fn run_mark(cluster: &ClusterSecret, run: &str) -> Option<RunMark> {
    Some(RunMark {
        direction: Direction::in_mark(cluster.annotations.get(direction::ANNOTATION)?, run)?,
        details: WrittenDetails::read(cluster).map(|written| written.details),
    })
}

/// The last writer of the config. Argo CD writes the Secret from its copy whenever it invalidates a cache. Where it applies the Secret
/// as part of an Application, it counts as another writer.
fn config_writer(cluster: &ClusterSecret) -> ConfigWriter {
    let of_application = matches!(cluster.owner(), Some(Owner::ArgocdApplication(_)));
    match cluster.config_writer() {
        Some(writer) if writer.manager == TOOL => ConfigWriter::Ours,
        Some(writer) if !of_application && ARGOCD_ITSELF.contains(&writer.manager.as_str()) => ConfigWriter::ArgoCd,
        Some(writer) => ConfigWriter::Other(writer.to_string()),
        None => ConfigWriter::Ours,
    }
}

/// The validity of a token by the clock of Argo CD's API server, which differs from Rancher's by less than the margin.
fn validity(token: &ApiToken, now: Timestamp) -> Validity {
    let soon = now.saturating_add(EXPIRES_SOON).unwrap_or(Timestamp::MAX);
    if !token.is_valid(now) {
        Validity::Invalid
    } else if token.is_valid(soon) {
        Validity::Valid
    } else {
        Validity::Expiring
    }
}

/// How a token is probed in one observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Whether Rancher accepts it, by one call.
    Once(Fingerprint),
    /// Whether all of Rancher rejects it, by a call over each of [`CONNECTIONS`].
    Everywhere(Fingerprint),
    /// Whether it does everything that Argo CD needs it for.
    Fully(Fingerprint),
}

/// How O is probed. In its first observation a process needs to know whether O worked at the start.
pub(super) fn probe_of_old(seen: &Observed, run: &Run<ArgocdRancher>, is_first: bool) -> Option<Probe> {
    let old = run.record.old.value;
    let is_retired = run.phase >= Phase::Retire;
    let needed = is_first || run.direction.is_rollback() || is_retired && run.direction == Direction::Forward;
    needed.then_some(if is_retired && seen.old.is_none() {
        Probe::Everywhere(old)
    } else {
        Probe::Once(old)
    })
}

/// How N is probed: not at all while the run waits for Argo CD to use it, because our own call would count as the last use.
pub(super) fn probe_of_new(seen: &Observed, run: &Run<ArgocdRancher>) -> Option<Probe> {
    let new = run.record.new.as_ref()?;
    let is_listed = new.name.as_ref().is_some_and(|name| seen.issued.contains_key(name));
    let is_waited_for = seen.secret.holds(new.value) && !run.passed(Timer::Quiet);
    match run.direction {
        Direction::Rollback if run.phase < Phase::Retire => None,
        Direction::Rollback if is_listed => Some(Probe::Once(new.value)),
        Direction::Rollback => Some(Probe::Everywhere(new.value)),
        Direction::Forward | Direction::RollForward => (is_listed && !is_waited_for).then_some(Probe::Fully(new.value)),
    }
}

/// O, if it should be rejected by now but cannot be probed because its value is lost.
pub(super) fn unproven(run: &Run<ArgocdRancher>, is_known: bool) -> Option<Fingerprint> {
    let is_to_go = run.direction == Direction::Forward && !run.record.keep_old;
    (is_to_go && run.phase >= Phase::Retire && !is_known).then_some(run.record.old.value)
}

/// By the result of one call. An accepted token may still lack permissions.
pub(super) fn acceptance(result: &CallResult) -> Acceptance {
    if result.is_rejected() {
        Acceptance::Rejected
    } else if result.is_valid() {
        Acceptance::Accepted
    } else {
        Acceptance::Unknown(result.to_string())
    }
}

/// By the results over several connections: a token is rejected only if each of them rejects it.
pub(super) fn acceptance_everywhere(results: &[CallResult]) -> Acceptance {
    let mut all = results.iter().map(acceptance);
    let other = all.find(|acceptance| *acceptance != Acceptance::Rejected);
    match other {
        None if results.len() < CONNECTIONS => Acceptance::Unknown("not every call was made".to_owned()),
        other => other.unwrap_or(Acceptance::Rejected),
    }
}

/// By the results of all calls as Argo CD makes them. `forced`: the checks that are overridden.
pub(super) fn full_acceptance(results: &TokenResults, forced: &BTreeSet<Check>) -> Acceptance {
    if results.all_passed() || are_overridden(results, forced) {
        Acceptance::Accepted
    } else if results.rancher.is_rejected() {
        Acceptance::Rejected
    } else {
        Acceptance::Unknown(results.failures())
    }
}

/// Whether all failures are overridden.
pub(super) fn are_overridden(results: &TokenResults, forced: &BTreeSet<Check>) -> bool {
    results.are_overridden(forced.contains(&check::OFFLINE), forced.contains(&check::RIGHTS))
}

/// Whether a result of this age still counts: that a token was accepted, or what Rancher listed in the quiet time.
pub(super) fn is_fresh(age: Duration) -> bool {
    age < FRESH
}

/// Whether Rancher has recorded a call of ours from this long ago.
pub(super) fn is_recorded(age: Duration) -> bool {
    age >= RECORDED
}

/// By Argo CD's metrics for the cluster, or the reason why they are missing. The age of its cache tells whether it has read the
/// cluster since the token was written to the Secret, without comparing two clocks. The age is rounded down to seconds.
pub(super) fn cluster_sync(
    metrics: Result<Connection, String>,
    placed_at: Option<Timestamp>,
    now: Timestamp,
) -> ClusterSync {
    let connection = match metrics {
        Ok(connection) => connection,
        Err(why) => return ClusterSync::Unknown(why),
    };
    let elapsed = placed_at.map(|at| now.duration_since(at).as_secs());
    let has_read = connection
        .age
        .zip(elapsed)
        .is_some_and(|(age, elapsed)| i64::try_from(age).is_ok_and(|age| age < elapsed));
    match connection.connected {
        None => ClusterSync::Unknown("its metrics do not contain the connection state of the cluster".to_owned()),
        Some(false) => ClusterSync::Failed,
        Some(true) if connection.kinds == Some(0) => ClusterSync::Unknown(BLIND.to_owned()),
        Some(true) if has_read => ClusterSync::Since,
        Some(true) => ClusterSync::Before,
    }
}

/// Whether all cluster Secrets must be searched for O: right before it is revoked.
pub(super) fn asks_who_shares(run: Option<&Run<ArgocdRancher>>) -> bool {
    run.is_some_and(|run| run.passed(Timer::Quiet) && run.direction == Direction::Forward)
}

/// The other cluster Secrets that hold a token of this name.
pub(super) fn sharing<'a>(clusters: &'a [ClusterSecret], secret: &str, name: &Name) -> Vec<&'a str> {
    let holds = |other: &&ClusterSecret| {
        let held = other.token().map(|value| token_ref(&value));
        held.is_some_and(|held| held.name.as_ref() == Some(name))
    };
    let others = clusters.iter().filter(|other| other.object.name != secret);
    others.filter(holds).map(|other| other.object.name.as_str()).collect()
}

#[cfg(test)]
mod tests;
