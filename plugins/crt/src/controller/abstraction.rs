//! The abstraction from the objects of one look to the observed state. It is pure: no request, no clock, no state of the process.
//!
//! The safety of a rotation depends on it as much as on the stages: which probe result counts as accepted, which Secret stands for
//! which value, which mark belongs to this run, and which time has passed.

use std::collections::{BTreeMap, BTreeSet};

use client::error::Error;
use client::secret::{Fingerprint, Secret};
use engine::credential::Acceptance;
use engine::direction::{self, Direction};
use engine::phase::Phase;
use engine::run::Run;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rancher::TokenStorage;
use rancher::agent::{Credentials, Deployment, Pod, StvAggregation};
use rancher::cluster::{Cluster, ClusterId, ClusterKind};
use rancher::credential_name::Formula;
use rancher::probe::ProbeResult;
use rancher::token::{RegistrationToken, SYSTEM, TokenSecret, Tokens};

use super::provisioned::ProvisionedObjects;
use crate::rotation::Crt;
use crate::rotation::observed::{
    self, Address, Age, AgentConnection, DownstreamAccess, DownstreamIdentity, GivenMark, Grace, Kind, Observed,
    Reactivated, SystemToken, Trigger,
};
use crate::rotation::record::{Mark, OtherMark, RolloutSettings, ServerAddress};
use crate::rotation::stages::{other, target};

/// The label of a temporary registration token.
pub(crate) const TEMPORARY_LABEL: &str = "kubectl-rotation.github.io/temporary";
/// Its value where the token makes a revoked value valid again, for a rescue.
pub(crate) const REACTIVATED_VALUE: &str = "reactivated";
/// The annotation of a token's Secret, with the fingerprint of its previous value: only a rescue has made it valid again.
pub(crate) const REACTIVATED: &str = "kubectl-rotation.github.io/reactivated";
/// The label or annotation with the run, on what it creates.
pub(super) const RUN: &str = "kubectl-rotation.github.io/run";
/// The annotation of the registration token `system`, or of its Secret, with the mark of the run that wrote its value.
pub(super) const MARK: &str = "kubectl-rotation.github.io/rotation";
/// The annotation of the Cluster that triggers Rancher: the time, and the token to apply.
pub(crate) const TRIGGERED: &str = "kubectl-rotation.github.io/triggered";
/// Rancher's apply ends with an update of the Cluster that conflicts with any change since its beginning, and then starts
/// again. It takes 2.5 to 12 s and longer on a loaded server (seen on Rancher 2.15.0).
const BETWEEN_TRIGGERS: SignedDuration = SignedDuration::from_secs(60);
/// Rancher's own writes postpone a trigger at most this long.
const LONGEST_BETWEEN_TRIGGERS: SignedDuration = SignedDuration::from_secs(180);

/// A grace period or an expiry that ends sooner may end while a rotation waits to be resumed.
const FAR: SignedDuration = SignedDuration::from_hours(3 * 24);
/// Each agent deletes other Secrets after an hour; this is much less.
const YOUNG: SignedDuration = SignedDuration::from_mins(15);
/// No manifest of Rancher sets `minReadySeconds`. From this many seconds on, an earlier run has left the rollout held.
pub(super) const SURELY_HELD: i32 = 300;

/// The longest `progressDeadlineSeconds` of a mark that is used: a day.
const LONGEST_DEADLINE: i32 = 24 * 3600;

/// For how long a rescue makes a value valid again.
pub(super) const REACTIVATION: SignedDuration = SignedDuration::from_mins(10);

/// An end that comes sooner is set anew before a value depends on it: it must not pass before the value is written.
const TIME_TO_WRITE: SignedDuration = SignedDuration::from_mins(5);

/// How often in a row Rancher is asked about a token: each replica has its own index.
pub(super) const PROBES: u32 = 2;

/// All objects of one look, with the values and versions that steps need.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) storage: TokenStorage,
    pub(super) cluster: Cluster,
    pub(super) tokens: Tokens,
    /// None: Rancher has not provisioned the cluster.
    pub(super) provisioned: Option<ProvisionedObjects>,
    /// The agent's Deployment. Where it was not read, nothing else of the downstream cluster was either.
    pub(super) deployment: Result<Deployment, Unread>,
    pub(super) pods: Vec<Pod>,
    pub(super) credentials: Vec<Credentials>,
    /// The agent's Secrets that this run has created.
    pub(super) created: Vec<rancher::Observed>,
    pub(super) stv: Option<StvAggregation>,
    pub(super) probe_results: BTreeMap<Fingerprint, ProbeResult>,
    pub(super) tunnel_works: Option<bool>,
    pub(super) downstream: DownstreamIdentity,
    /// Where Rancher's next push would send the agent.
    pub(super) pushes: Option<Address>,
    pub(super) move_forced: bool,
    pub(super) weak_proof_forced: bool,
    /// The stages are those of a rescue.
    pub(super) is_rescue: bool,
    /// A rescue: the value that it may make valid again.
    pub(super) reactivates: Option<Fingerprint>,
    /// The last other writer of the Deployment.
    pub(super) writer: String,
    /// When the Cluster was observed to change last, by the clock of [`Self::now`].
    pub(super) cluster_changed: Timestamp,
    /// By the clock of the management cluster's API server.
    pub(super) now: Timestamp,
    /// By the clock of the downstream API server.
    pub(super) downstream_now: Timestamp,
}

/// Why nothing of the downstream cluster was read.
#[derive(Debug)]
pub(super) enum Unread {
    /// No permission to read the agent's Deployment, Secrets or pods there, and which one.
    Forbidden(Error),
    /// A rescue: Rancher has no tunnel to it.
    Unreachable,
}

impl Unread {
    fn access(&self) -> DownstreamAccess {
        match self {
            Self::Forbidden(_) => DownstreamAccess::None,
            Self::Unreachable => DownstreamAccess::Unreachable,
        }
    }
}

impl Snapshot {
    /// The agent's Deployment, if it was read.
    pub(super) fn deployment(&self) -> Option<&Deployment> {
        self.deployment.as_ref().ok()
    }

    /// The Secret that the agent's Deployment names.
    pub(super) fn named_secret(&self) -> Option<&str> {
        self.deployment()?.volume_secret.as_deref()
    }

    /// The token that Rancher deploys.
    pub(super) fn system(&self) -> Option<&RegistrationToken> {
        self.tokens.named(SYSTEM).filter(|token| !token.deleting)
    }

    /// The temporary tokens of this run, and those that an earlier one left behind.
    pub(super) fn temporary(&self) -> impl Iterator<Item = &RegistrationToken> {
        self.tokens
            .tokens
            .iter()
            .filter(|token| is_temporary(token) && !token.deleting)
    }

    /// The other registration tokens.
    pub(super) fn others(&self) -> impl Iterator<Item = &RegistrationToken> {
        let other = |token: &&RegistrationToken| token.object.name != SYSTEM && !is_temporary(token) && !token.deleting;
        self.tokens.tokens.iter().filter(other)
    }

    /// Orphaned token Secrets, which Rancher accepts too.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &TokenSecret> {
        self.tokens.orphans.iter().filter(|secret| !secret.deleting)
    }

    /// The Secret of one of the other tokens, or an orphaned one, by its name.
    pub(super) fn secret_of_other(&self, name: &str) -> Option<&TokenSecret> {
        match self.others().find(|token| token.object.name == name) {
            Some(token) => token.secret.as_ref(),
            None => self.orphans().find(|secret| secret.object.name == name),
        }
    }

    /// Every value that was read, by its fingerprint.
    pub(super) fn values(&self) -> BTreeMap<Fingerprint, Secret> {
        let of_tokens = self
            .tokens
            .tokens
            .iter()
            .flat_map(|token| token.current().into_iter().chain(token.previous()));
        let of_orphans = self.orphans().filter_map(|secret| secret.current.as_ref());
        let of_agents = self
            .credentials
            .iter()
            .filter_map(|credentials| credentials.token.as_ref());
        let all = of_tokens
            .chain(of_orphans)
            .chain(of_agents)
            .chain(self.planned_values());
        all.map(|value| (value.fingerprint(), value.clone())).collect()
    }

    /// The Secret that the agent's Deployment names, if it is there.
    pub(super) fn named_credentials(&self) -> Option<&Credentials> {
        let name = self.named_secret()?;
        self.credentials
            .iter()
            .find(|credentials| credentials.object.name == name)
    }

    /// The observed state, without probe results, which [`Self::add_probe_results`] adds.
    pub(super) fn observed(&self, names: &Names, run: Option<&Run<Crt>>) -> Observed {
        let rollout = run.map_or_else(|| self.own_rollout(), |run| run.record.rollout);
        let deployment = self.deployment();
        let deployed = self.named_secret();
        let url = self.url_of(deployed, deployment.and_then(|found| found.server_url.as_deref()));
        let marked = deployment.and_then(|found| found.annotations.get(direction::ANNOTATION));
        Observed {
            kind: self.kind(),
            storage: self.storage,
            blockers: Vec::new(),
            downstream: self.downstream,
            access: self
                .deployment
                .as_ref()
                .map_or_else(Unread::access, |_| DownstreamAccess::Full),
            foreign: BTreeSet::new(),
            mark: self.mark(),
            system: self.system().and_then(|token| self.system_token(token)),
            status_grace: self.system().and_then(|token| self.status_grace_of(token)),
            temporary: self
                .temporary()
                .filter_map(|token| token.current())
                .map(Secret::fingerprint)
                .collect(),
            others: self.other_values(),
            others_previous: self.others_previous(),
            given: run.map_or_else(BTreeMap::new, |run| self.given(run)),
            acceptance: BTreeMap::new(),
            credentials: self.credentials_by_value(names),
            occupied: self.occupied(names),
            leftovers: self.leftovers(names),
            reactivated: self.reactivated(),
            reactivates: self.reactivates,
            ending: self.ending(),
            redeploys: self.cluster.force_deploy,
            only_agent: false,
            named_secret: deployed.unwrap_or_default().to_owned(),
            rollout,
            deployed: deployed.and_then(|name| names.value(self, name)),
            held: deployment.is_some_and(|found| found.rollout.min_ready_seconds != rollout.min_ready_seconds),
            deployment_direction: marked
                .zip(run)
                .and_then(|(mark, run)| Direction::in_mark(mark, &run.id.to_string())),
            restarted_at: deployment.and_then(|found| found.restarted_at.clone()),
            address: Address::of(url, deployment.and_then(|found| found.ca_checksum.as_deref())),
            server_address: self.server_address(),
            // There is nothing to compare it with.
            pushes: self.pushes.filter(|_| deployment.is_some()),
            move_forced: self.move_forced,
            weak_proof_forced: self.weak_proof_forced,
            writer: self.writer.clone(),
            pods: self
                .pods
                .iter()
                .filter(|pod| !pod.finished)
                .map(|pod| self.observed_pod(names, pod))
                .collect(),
            connected: self.stv.as_ref().and_then(|stv| {
                let token = stv.token.filter(|token| stv.names(*token))?;
                let address = Address::of(stv.server_url.as_deref(), stv.ca_checksum.as_deref());
                Some(AgentConnection { token, address })
            }),
            trigger: self.trigger(),
            applied: self.cluster.applied_token,
            tunnel_works: self.tunnel_works,
        }
    }

    /// Adds the probe results, and which values belong to another cluster.
    pub(super) fn add_probe_results(&self, seen: &mut Observed, owners: &BTreeMap<Fingerprint, ClusterId>) {
        let acceptance = self
            .probe_results
            .iter()
            .map(|(token, result)| (*token, acceptance(result)));
        seen.acceptance = acceptance.collect();
        let foreign = owners.iter().filter(|(_, cluster)| **cluster != self.cluster.id);
        seen.foreign = foreign.map(|(token, _)| *token).collect();
    }

    /// The versions of all tokens: while they stay the same, the probe result of an accepted value stays valid.
    pub(super) fn versions(&self) -> Vec<String> {
        let tokens = &self.tokens;
        let of_tokens = tokens.tokens.iter().map(|token| token.object.resource_version.clone());
        let of_secrets = tokens
            .tokens
            .iter()
            .filter_map(|token| token.secret.as_ref())
            .chain(&tokens.orphans);
        of_tokens
            .chain(of_secrets.map(|secret| secret.object.resource_version.clone()))
            .collect()
    }

    /// The formula for the names of the downstream Secrets.
    pub(super) fn formula(&self) -> Formula {
        let recognized = self.named_credentials().and_then(Credentials::formula);
        recognized
            .unwrap_or_else(|| Formula::of_manifest(self.deployment().is_none_or(|found| !found.variables.is_empty())))
    }

    /// Where the agent is to connect to: by its Secret, else where one connected last, else by Rancher's setting. The URL of a
    /// Secret with which no agent worked at the start does not count if both others say otherwise.
    pub(super) fn server_url(&self, setting: Option<&str>, run: Option<&Run<Crt>>) -> String {
        let named = self.named_credentials().and_then(|named| named.url.as_deref());
        let last = self.stv.as_ref().and_then(|stv| stv.server_url.as_deref());
        let failed = run.is_some_and(|run| !run.record.worked);
        let differs = |from: Option<&str>, url: &str| {
            from.is_some_and(|from| from.trim_end_matches('/') != url.trim_end_matches('/'))
        };
        let own = named.filter(|own| !(failed && differs(last, own) && differs(setting, own)));
        own.or(last).or(setting).unwrap_or_default().to_owned()
    }

    /// The Secrets that the agent's Deployment names or may be pointed at.
    pub(super) fn names(&self, run: Option<&Run<Crt>>, url: &str) -> Names {
        let values = self.values();
        let record = run.map(|run| &run.record);
        // A run that began without permissions there has recorded none.
        let recorded = record.filter(|record| !record.old_secret.is_empty() && !self.is_rescue);
        let old = match (recorded, self.named_credentials()) {
            (Some(record), _) => Some((record.old, record.old_secret.as_str())),
            (None, Some(named)) if record.is_none() || self.is_rescue => named
                .token
                .as_ref()
                .map(|token| (token.fingerprint(), named.object.name.as_str())),
            (None, _) => None,
        };
        if self.is_rescue {
            // Which of the tokens it gives the agent, it decides anew in each look.
            let current = self.tokens.tokens.iter().filter_map(RegistrationToken::current);
            let names = Names::new(current, self.formula(), url, &self.cluster.id, old);
            return names
                .or_by_content(&self.credentials)
                .by_name_only_if(|token| values.contains_key(&token));
        }
        // Before a run only the named Secret matters; during one, those of its two tokens.
        let of_run = record
            .into_iter()
            .flat_map(|record| record.new.into_iter().chain([record.old]));
        let of_run: Vec<&Secret> = of_run.filter_map(|token| values.get(&token)).collect();
        let names = Names::new(of_run, self.formula(), url, &self.cluster.id, old);
        names.by_name_only_if(|token| values.contains_key(&token))
    }

    /// Whether a call through the tunnel proves the token of the named Secret: only if no pod uses another Secret.
    pub(super) fn tunnel_is_of_named_secret(&self) -> bool {
        let named = self.named_secret();
        let mut pods = self.pods.iter().filter(|pod| !pod.finished);
        pods.all(|pod| pod.secret.as_deref() == named)
    }

    /// The URL of a Secret, which the agent's tunnel uses (seen on Rancher 2.15.0).
    fn url_of<'a>(&'a self, secret: Option<&str>, otherwise: Option<&'a str>) -> Option<&'a str> {
        let mut found = self.credentials.iter();
        let found = found.find(|credentials| Some(credentials.object.name.as_str()) == secret);
        found.and_then(|credentials| credentials.url.as_deref()).or(otherwise)
    }

    /// The mark of the run that wrote `system` last. After a migration into a Secret it is still on the token.
    fn mark(&self) -> Option<Mark> {
        let token = self.system()?;
        let of_secret = token.secret.as_ref().and_then(|secret| secret.annotations.get(MARK));
        let text = of_secret.or_else(|| token.annotations.get(MARK))?;
        let mut mark: Mark = serde_json::from_str(text).ok()?;
        mark.record.rollout = bounded(mark.record.rollout);
        Some(mark)
    }

    /// What this run has given to other tokens. After a migration into a Secret the mark is still on the token.
    fn given(&self, run: &Run<Crt>) -> BTreeMap<String, GivenMark> {
        let run = run.id.to_string();
        let marks = self.others().filter_map(|token| {
            let of_secret = token.secret.as_ref().and_then(|secret| secret.annotations.get(MARK));
            let text = of_secret.or_else(|| token.annotations.get(MARK))?;
            let OtherMark {
                run: by,
                direction,
                before,
            } = serde_json::from_str(text).ok()?;
            (by == run).then(|| (token.object.name.clone(), GivenMark { direction, before }))
        });
        marks.collect()
    }

    fn kind(&self) -> Kind {
        match (self.observed_provisioned(), &self.cluster.kind) {
            (Some(provisioned), _) => Kind::Provisioned(provisioned),
            (None, ClusterKind::Hosted(_)) => Kind::Hosted,
            (None, _) => Kind::Imported,
        }
    }

    /// Where the Deployment's template sends the agent.
    pub(super) fn server_address(&self) -> ServerAddress {
        let deployment = self.deployment();
        let text = |text: fn(&Deployment) -> &Option<String>| deployment.and_then(|found| text(found).clone());
        ServerAddress {
            server: text(|found| &found.server_url).unwrap_or_default(),
            ca_checksum: text(|found| &found.ca_checksum).unwrap_or_default(),
        }
    }

    /// When a run has triggered Rancher last.
    pub(super) fn triggered_at(&self) -> Option<Timestamp> {
        let text = self.cluster.annotations.get(TRIGGERED)?;
        text.split(' ').next()?.parse().ok()
    }

    /// A trigger is overdue once Rancher has not applied it in time.
    fn trigger(&self) -> Option<Trigger> {
        let at = self.triggered_at()?;
        let mut words = self.cluster.annotations.get(TRIGGERED)?.split(' ').skip(1);
        let token = words.next()?.parse().ok()?;
        let first = words.next().map(str::parse).transpose().ok()?;
        if words.next().is_some() {
            return None;
        }
        let since = self.now.duration_since(at);
        let quiet = self.now.duration_since(self.cluster_changed.max(at));
        // A time in the future comes from another clock or another writer.
        let overdue = since.is_negative() || quiet >= BETWEEN_TRIGGERS || since >= LONGEST_BETWEEN_TRIGGERS;
        Some(Trigger { token, first, overdue })
    }

    fn system_token(&self, token: &RegistrationToken) -> Option<SystemToken> {
        let value = token.current()?.fingerprint();
        let secret = token.secret.as_ref().filter(|_| self.storage == TokenStorage::Secret);
        Some(SystemToken {
            token: value,
            previous: secret
                .and_then(|secret| secret.previous.as_ref())
                .map(Secret::fingerprint),
            protected: secret.is_none_or(|secret| self.is_protected(secret)),
        })
    }

    /// Neither the end of the grace period nor an expiry drops the previous value soon.
    pub(super) fn is_protected(&self, secret: &TokenSecret) -> bool {
        [secret.grace_ends_at, secret.expires_at]
            .into_iter()
            .flatten()
            .all(|at| self.is_far(at))
    }

    fn is_far(&self, at: Timestamp) -> bool {
        self.now.saturating_add(FAR).is_ok_and(|far| at > far)
    }

    /// Storage `secret`: the end of the grace period in the status of a token.
    pub(super) fn status_grace_of(&self, token: &RegistrationToken) -> Option<Grace> {
        let at = token
            .status_grace_ends_at
            .filter(|_| self.storage == TokenStorage::Secret)?;
        Some(if self.is_far(at) { Grace::Far } else { Grace::Near })
    }

    fn other_values(&self) -> BTreeMap<String, Fingerprint> {
        let tokens = self
            .others()
            .filter_map(|token| Some((token.object.name.clone(), token.current()?.fingerprint())));
        let orphan = |secret: &TokenSecret| Some((secret.object.name.clone(), secret.current.as_ref()?.fingerprint()));
        tokens.chain(self.orphans().filter_map(orphan)).collect()
    }

    fn others_previous(&self) -> BTreeMap<String, Fingerprint> {
        let of_secret =
            |name: &str, secret: &TokenSecret| Some((name.to_owned(), secret.previous.as_ref()?.fingerprint()));
        let tokens = self.others().filter(|_| self.storage == TokenStorage::Secret);
        let tokens = tokens.filter_map(|token| of_secret(&token.object.name, token.secret.as_ref()?));
        let orphans = self
            .orphans()
            .filter_map(|secret| of_secret(&secret.object.name, secret));
        tokens.chain(orphans).collect()
    }

    /// What a rescue has made valid again, and nothing else keeps valid.
    fn reactivated(&self) -> BTreeMap<Fingerprint, Reactivated> {
        let found = self.tokens.tokens.iter().filter_map(|token| {
            let (value, by) = reactivation(token)?;
            let counts = match by {
                Reactivated::Temporary => !token.deleting,
                Reactivated::Previous(_) => self.storage == TokenStorage::Secret,
            };
            counts.then_some((value, by))
        });
        found.collect()
    }

    /// The end that a rescue has set for what it makes valid again.
    fn ending(&self) -> BTreeSet<String> {
        let is_soon = |at: Timestamp| {
            let left = at.duration_since(self.now);
            left > TIME_TO_WRITE && left <= REACTIVATION
        };
        let tokens = self.tokens.tokens.iter().filter(|token| !token.deleting);
        let ending = tokens.filter(|token| token.status_grace_ends_at.is_some_and(is_soon));
        ending.map(|token| token.object.name.clone()).collect()
    }

    fn credentials_by_value(&self, names: &Names) -> BTreeMap<Fingerprint, Age> {
        let mut found = BTreeMap::new();
        for credentials in self.credentials.iter().filter(|credentials| !credentials.deleting) {
            let Some(token) = credentials.token.as_ref().map(Secret::fingerprint) else {
                continue;
            };
            // Two Secrets may have the same value. The one that counts is the one that the Deployment would be pointed at.
            if names.of(token).is_some_and(|name| name == credentials.object.name) {
                let since = credentials
                    .created
                    .map(|created| self.downstream_now.duration_since(created));
                let young = since.is_some_and(|since| since < YOUNG);
                found.insert(token, if young { Age::Young } else { Age::Old });
            }
        }
        found
    }

    fn occupied(&self, names: &Names) -> BTreeMap<Fingerprint, String> {
        let is_another = |(token, name): &(&Fingerprint, &String)| {
            let mut existing = self.credentials.iter().filter(|credentials| !credentials.deleting);
            let found = existing.find(|credentials| credentials.object.name == **name);
            found.is_some_and(|found| found.token.as_ref().map(Secret::fingerprint) != Some(**token))
        };
        let occupied = names.by_value.iter().filter(is_another);
        occupied.map(|(token, name)| (*token, name.clone())).collect()
    }

    fn leftovers(&self, names: &Names) -> BTreeSet<String> {
        let pods = self.pods.iter().filter(|pod| !pod.finished);
        let mounted = pods.filter_map(|pod| pod.secret.as_deref());
        let variables = self.deployment().into_iter().flat_map(|found| &found.variables);
        let variables = variables.map(|variable| variable.secret.as_str());
        let mut used = names.all();
        used.extend(mounted.chain(variables).chain(self.named_secret()));
        let created = self.created.iter().map(|secret| secret.name.as_str());
        created.filter(|name| !used.contains(name)).map(str::to_owned).collect()
    }

    fn observed_pod(&self, names: &Names, pod: &Pod) -> observed::Pod {
        observed::Pod {
            token: pod.secret.as_deref().and_then(|name| names.value(self, name)),
            restarted_at: pod.restarted_at.clone(),
            address: Address::of(
                self.url_of(pod.secret.as_deref(), pod.server_url.as_deref()),
                pod.ca_checksum.as_deref(),
            ),
            ready: pod.ready,
            leaving: pod.terminating,
        }
    }

    /// The Deployment's own settings, or the defaults if an earlier run has left the rollout held.
    fn own_rollout(&self) -> RolloutSettings {
        let rollout = self.deployment().map(|found| found.rollout).unwrap_or_default();
        if rollout.min_ready_seconds >= SURELY_HELD {
            RolloutSettings::default()
        } else {
            rollout
        }
    }
}

/// The settings of a mark, which are written into the Deployment: the defaults replace those of a held rollout, and invalid ones.
fn bounded(rollout: RolloutSettings) -> RolloutSettings {
    let valid = (0..SURELY_HELD).contains(&rollout.min_ready_seconds)
        && (rollout.min_ready_seconds + 1..=LONGEST_DEADLINE).contains(&rollout.progress_deadline_seconds);
    if valid { rollout } else { RolloutSettings::default() }
}

/// A probe result as acceptance. An unknown result is neither: a value to be used must be accepted, and a value to be rejected counts
/// as accepted until it is rejected.
fn acceptance(result: &ProbeResult) -> Acceptance {
    match result {
        ProbeResult::Accepted { .. } => Acceptance::Accepted,
        ProbeResult::Rejected => Acceptance::Rejected,
        ProbeResult::Unknown(reason) => Acceptance::Unknown(reason.to_string()),
    }
}

/// The token of the agent. Where the agent cannot be looked at, the one that Rancher has deployed last.
pub(super) fn of_agent(seen: &Observed) -> Option<Fingerprint> {
    let deployed = || seen.applied.or(seen.system.as_ref().map(|system| system.token));
    if seen.is_downstream_readable() {
        seen.deployed
    } else {
        deployed()
    }
}

/// Which values to probe, and how often in a row.
pub(super) fn values_to_probe(
    seen: &Observed,
    run: Option<&Run<Crt>>,
    owners: &BTreeMap<Fingerprint, ClusterId>,
) -> (BTreeSet<Fingerprint>, u32) {
    let Some(run) = run else {
        return (of_agent(seen).into_iter().collect(), 1);
    };
    let mut values: BTreeSet<_> = target(run).into_iter().collect();
    let retired = run.phase >= Phase::Retire;
    values.extend(other(run).filter(|other| retired || !seen.is_held(*other)));
    if retired && !run.direction.is_rollback() {
        values.extend(run.record.others.values());
        values.extend(seen.given.values().map(|mark| mark.before));
    }
    // The cluster of the old token must be known in every direction.
    let old = run.record.old;
    if !owners.contains_key(&old) && seen.is_in_use(old) {
        values.insert(old);
    }
    (values, PROBES)
}

/// Whether an earlier result is still valid while the tokens are the same: an accepted value that is still held stays accepted. A
/// value that is to be rejected is probed until it is.
pub(super) fn is_still_valid(seen: &Observed, token: Fingerprint, before: Option<&ProbeResult>) -> bool {
    seen.is_held(token) && before.is_some_and(ProbeResult::is_accepted)
}

fn is_temporary(token: &RegistrationToken) -> bool {
    token.labels.contains_key(TEMPORARY_LABEL)
}

/// The value of this token that only a rescue has made valid again, and how.
pub(crate) fn reactivation(token: &RegistrationToken) -> Option<(Fingerprint, Reactivated)> {
    if token
        .labels
        .get(TEMPORARY_LABEL)
        .is_some_and(|value| value == REACTIVATED_VALUE)
    {
        return Some((token.current()?.fingerprint(), Reactivated::Temporary));
    }
    let secret = token.secret.as_ref()?;
    let previous = secret.previous.as_ref()?.fingerprint();
    let by = || Reactivated::Previous(token.object.name.clone());
    (secret.annotations.get(REACTIVATED) == Some(&previous.to_string())).then(|| (previous, by()))
}

/// Which downstream Secret belongs to which value.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_value: BTreeMap<Fingerprint, String>,
    /// The values that a name stands for even if the Secret does not exist.
    by_name: BTreeSet<Fingerprint>,
}

impl Names {
    /// By the formula of this Rancher. The value at the start keeps the Secret that it had.
    pub(super) fn new<'a>(
        values: impl IntoIterator<Item = &'a Secret>,
        formula: Formula,
        url: &str,
        cluster: &ClusterId,
        old: Option<(Fingerprint, &str)>,
    ) -> Self {
        let by_formula = |value: &Secret| (value.fingerprint(), formula.name_for(url, value, cluster));
        let mut names: BTreeMap<_, _> = values.into_iter().map(by_formula).collect();
        names.extend(old.map(|(token, name)| (token, name.to_owned())));
        Self {
            by_name: names.keys().copied().collect(),
            by_value: names,
        }
    }

    /// The name of a missing Secret stands only for a value that some object has: the Lease may claim any other.
    pub(super) fn by_name_only_if(mut self, is_held: impl Fn(Fingerprint) -> bool) -> Self {
        self.by_name.retain(|token| is_held(*token));
        self
    }

    /// The name of the Secret for a value.
    pub(super) fn of(&self, token: Fingerprint) -> Option<&str> {
        self.by_value.get(&token).map(String::as_str)
    }

    /// All names.
    pub(super) fn all(&self) -> BTreeSet<&str> {
        self.by_value.values().map(String::as_str).collect()
    }

    /// Those of Secrets that exist, for values that have none by the formula.
    fn or_by_content(mut self, existing: &[Credentials]) -> Self {
        for credentials in existing {
            if let Some(token) = &credentials.token {
                let name = || credentials.object.name.clone();
                self.by_value.entry(token.fingerprint()).or_insert_with(name);
            }
        }
        self
    }

    /// The value of the Secret with this name: by its content, or by its name if it does not exist.
    fn value(&self, snapshot: &Snapshot, name: &str) -> Option<Fingerprint> {
        let existing = snapshot
            .credentials
            .iter()
            .find(|credentials| credentials.object.name == name);
        let content = existing
            .and_then(|credentials| credentials.token.as_ref())
            .map(Secret::fingerprint);
        let by_name = || {
            let mut named = self.by_value.iter().filter(|(_, candidate)| *candidate == name);
            named
                .find(|(token, _)| self.by_name.contains(token))
                .map(|(token, _)| *token)
        };
        content.or_else(by_name)
    }
}

#[cfg(test)]
mod tests;
