//! Everything that is read in one look at both sides, with the values and versions that writes need.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::{Fingerprint, Secret};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rancher::agent::{Credentials, Deployment, Pod, StvAggregation};
use rancher::cluster::{Cluster, ClusterId};
use rancher::credential_name::Formula;
use rancher::era::Era;
use rancher::probe::Verdict;
use rancher::token::{RegistrationToken, SYSTEM, TokenSecret, Tokens};

use crate::rotation::view::{
    Address, Age, Connection, Downstream, Grace, Holder, Home, Notes, Pod as SeenPod, Record, Rollout, Trigger, View,
};

/// On a registration token: it is a bridge of a run.
pub(crate) const BRIDGE_LABEL: &str = "kubectl-rotation.github.io/bridge";
/// On the agent's Deployment, where it was written on the way back: the run.
pub(super) const BACK: &str = "kubectl-rotation.github.io/back";
/// On the registration token `system`, or its Secret: what the run that wrote its value knows.
pub(super) const RECORD: &str = "kubectl-rotation.github.io/rotation";
/// On the Cluster: when Rancher was triggered last, and for which token.
pub(crate) const TRIGGERED: &str = "kubectl-rotation.github.io/triggered";
/// Rancher's apply ends with an update of the Cluster that conflicts with any change since its beginning, and then starts
/// again. It takes 2.5 to 12 s and longer on a loaded server (seen on Rancher 2.15.0).
const BETWEEN_TRIGGERS: SignedDuration = SignedDuration::from_secs(60);
/// Rancher's own writes postpone a trigger no longer than this.
const LONGEST_BETWEEN_TRIGGERS: SignedDuration = SignedDuration::from_secs(180);

/// A grace or an expiry that is nearer than this may end while a rotation waits for somebody to resume it.
const FAR: SignedDuration = SignedDuration::from_hours(3 * 24);
/// Each agent deletes foreign Secrets after an hour; this is well before.
const YOUNG: SignedDuration = SignedDuration::from_mins(15);
/// No Rancher sets `minReadySeconds`; from this many seconds on it is a hold that somebody left.
pub(super) const SURELY_A_HOLD: i32 = 300;

/// A day: nobody waits longer for an agent's rollout.
const LONGEST_DEADLINE: i32 = 24 * 3600;

/// One look.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) era: Era,
    pub(super) cluster: Cluster,
    pub(super) tokens: Tokens,
    pub(super) deployment: Deployment,
    pub(super) pods: Vec<Pod>,
    pub(super) credentials: Vec<Credentials>,
    pub(super) stv: Option<StvAggregation>,
    pub(super) verdicts: BTreeMap<Fingerprint, Verdict>,
    pub(super) answers: Option<bool>,
    pub(super) downstream: Downstream,
    /// Where Rancher's next push would send the agent.
    pub(super) pushes: Option<Address>,
    pub(super) may_move: bool,
    /// Who wrote the Deployment last.
    pub(super) writer: String,
    /// When the Cluster was last seen to change, by [`Self::now`].
    pub(super) cluster_changed: Timestamp,
    /// By the clock of the management cluster's API server.
    pub(super) now: Timestamp,
    /// By that of the downstream one.
    pub(super) downstream_now: Timestamp,
}

impl Snapshot {
    /// The token that Rancher deploys.
    pub(super) fn system(&self) -> Option<&RegistrationToken> {
        self.tokens.named(SYSTEM).filter(|token| !token.deleting)
    }

    /// The bridges of this run, and those that a lost one left.
    pub(super) fn bridges(&self) -> impl Iterator<Item = &RegistrationToken> {
        self.tokens
            .tokens
            .iter()
            .filter(|token| is_bridge(token) && !token.deleting)
    }

    /// The other registration tokens.
    pub(super) fn others(&self) -> impl Iterator<Item = &RegistrationToken> {
        let other = |token: &&RegistrationToken| token.object.name != SYSTEM && !is_bridge(token) && !token.deleting;
        self.tokens.tokens.iter().filter(other)
    }

    /// Orphaned token Secrets, which Rancher accepts all the same.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &TokenSecret> {
        self.tokens.orphans.iter().filter(|secret| !secret.deleting)
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
        let all = of_tokens.chain(of_orphans).chain(of_agents);
        all.map(|value| (value.fingerprint(), value.clone())).collect()
    }

    /// The Secret that the agent's Deployment names, if it is there.
    pub(super) fn named_credentials(&self) -> Option<&Credentials> {
        let name = self.deployment.volume_secret.as_deref()?;
        self.credentials
            .iter()
            .find(|credentials| credentials.object.name == name)
    }

    /// What decides see of it.
    pub(super) fn view(&self, names: &Names, notes: Option<&Notes>, run: Option<&str>) -> View {
        let rollout = notes.map_or_else(|| self.own_rollout(), |notes| notes.rollout);
        let going_back =
            |annotations: &BTreeMap<String, String>| run.is_some() && annotations.get(BACK).map(String::as_str) == run;
        let ca_checksum = self.deployment.ca_checksum.as_deref();
        View {
            downstream: self.downstream,
            foreign: BTreeSet::new(),
            record: self.record(),
            address: Address::of(
                self.url_of(
                    self.deployment.volume_secret.as_deref(),
                    self.deployment.server_url.as_deref(),
                ),
                ca_checksum,
            ),
            home: self.home(),
            pushes: self.pushes,
            may_move: self.may_move,
            writer: self.writer.clone(),
            trigger: self.trigger(),
            era: self.era,
            obstacles: Vec::new(),
            system: self.system().and_then(|token| self.holder(token)),
            status_grace: self.status_grace(),
            bridges: self
                .bridges()
                .filter_map(|token| token.current())
                .map(Secret::fingerprint)
                .collect(),
            others: self.other_values(),
            live: self
                .verdicts
                .iter()
                .filter(|(_, verdict)| verdict.is_live())
                .map(|(token, _)| *token)
                .collect(),
            credentials: self.credentials_by_value(names),
            only_agent: false,
            named_secret: self.deployment.volume_secret.clone().unwrap_or_default(),
            rollout,
            names: self
                .deployment
                .volume_secret
                .as_deref()
                .and_then(|name| names.value(self, name)),
            held: self.deployment.hold.min_ready_seconds != rollout.min_ready_seconds,
            deployment_going_back: going_back(&self.deployment.annotations),
            mark: self.deployment.restarted_at.clone(),
            pods: self
                .pods
                .iter()
                .filter(|pod| !pod.finished)
                .map(|pod| self.seen_pod(names, pod))
                .collect(),
            connected: self.stv.as_ref().and_then(|stv| {
                let token = stv.token.filter(|token| stv.names(*token))?;
                let address = Address::of(stv.server_url.as_deref(), stv.ca_checksum.as_deref());
                Some(Connection { token, address })
            }),
            pushed: self.cluster.applied_token,
            answers: self.answers,
        }
    }

    /// By its own Secret's URL where the agent has read it from: that is the one that its tunnel uses (seen on Rancher 2.15.0).
    fn url_of<'a>(&'a self, secret: Option<&str>, otherwise: Option<&'a str>) -> Option<&'a str> {
        let mut found = self.credentials.iter();
        let found = found.find(|credentials| Some(credentials.object.name.as_str()) == secret);
        found.and_then(|credentials| credentials.url.as_deref()).or(otherwise)
    }

    /// What the run that wrote `system` last has written down. Where a registration token was migrated into a Secret, the
    /// record is still on the token.
    fn record(&self) -> Option<Record> {
        let token = self.system()?;
        let of_secret = token.secret.as_ref().and_then(|secret| secret.annotations.get(RECORD));
        let text = of_secret.or_else(|| token.annotations.get(RECORD))?;
        let mut record: Record = serde_json::from_str(text).ok()?;
        record.notes.rollout = bounded(record.notes.rollout);
        Some(record)
    }

    /// Where the Deployment's template sends the agent.
    pub(super) fn home(&self) -> Home {
        Home {
            server: self.deployment.server_url.clone().unwrap_or_default(),
            ca_checksum: self.deployment.ca_checksum.clone().unwrap_or_default(),
        }
    }

    fn trigger(&self) -> Option<Trigger> {
        let (at, token) = self.cluster.annotations.get(TRIGGERED)?.split_once(' ')?;
        let (at, token) = (at.parse::<Timestamp>().ok()?, token.parse().ok()?);
        let since = self.now.duration_since(at);
        let quiet = self.now.duration_since(self.cluster_changed.max(at));
        // One of the future was written by another clock, or by another hand.
        let overdue = since.is_negative() || quiet >= BETWEEN_TRIGGERS || since >= LONGEST_BETWEEN_TRIGGERS;
        Some(Trigger { token, overdue })
    }

    fn holder(&self, token: &RegistrationToken) -> Option<Holder> {
        let value = token.current()?.fingerprint();
        let secret = token.secret.as_ref().filter(|_| self.era == Era::Secret);
        let far = |at: Option<Timestamp>| at.is_none_or(|at| self.now.saturating_add(FAR).is_ok_and(|far| at > far));
        Some(Holder {
            token: value,
            previous: secret
                .and_then(|secret| secret.previous.as_ref())
                .map(Secret::fingerprint),
            protected: secret.is_none_or(|secret| far(secret.grace_ends_at) && far(secret.expires_at)),
        })
    }

    fn status_grace(&self) -> Option<Grace> {
        let at = self
            .system()
            .filter(|_| self.era == Era::Secret)?
            .status_grace_ends_at?;
        let far = self.now.saturating_add(FAR).is_ok_and(|far| at > far);
        Some(if far { Grace::Far } else { Grace::Near })
    }

    fn other_values(&self) -> BTreeMap<String, Fingerprint> {
        let tokens = self
            .others()
            .filter_map(|token| Some((token.object.name.clone(), token.current()?.fingerprint())));
        let orphan = |secret: &TokenSecret| Some((secret.object.name.clone(), secret.current.as_ref()?.fingerprint()));
        tokens.chain(self.orphans().filter_map(orphan)).collect()
    }

    fn credentials_by_value(&self, names: &Names) -> BTreeMap<Fingerprint, Age> {
        let mut found = BTreeMap::new();
        for credentials in self.credentials.iter().filter(|credentials| !credentials.deleting) {
            let Some(token) = credentials.token.as_ref().map(Secret::fingerprint) else {
                continue;
            };
            // Two Secrets may hold the same value; the one that counts is the one that a Deployment would be pointed at.
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

    fn seen_pod(&self, names: &Names, pod: &Pod) -> SeenPod {
        SeenPod {
            token: pod.secret.as_deref().and_then(|name| names.value(self, name)),
            mark: pod.restarted_at.clone(),
            address: Address::of(
                self.url_of(pod.secret.as_deref(), pod.server_url.as_deref()),
                pod.ca_checksum.as_deref(),
            ),
            ready: pod.ready,
            leaving: pod.terminating,
        }
    }

    fn own_rollout(&self) -> Rollout {
        let hold = self.deployment.hold;
        if hold.min_ready_seconds >= SURELY_A_HOLD {
            return Rollout::default();
        }
        Rollout {
            min_ready_seconds: hold.min_ready_seconds,
            progress_deadline_seconds: hold.progress_deadline_seconds,
        }
    }
}

/// The settings of a record, which are written into the Deployment again: a hold that was left behind is none.
fn bounded(rollout: Rollout) -> Rollout {
    let usual = Rollout::default();
    let sensible = (0..SURELY_A_HOLD).contains(&rollout.min_ready_seconds)
        && (rollout.min_ready_seconds + 1..=LONGEST_DEADLINE).contains(&rollout.progress_deadline_seconds);
    if sensible { rollout } else { usual }
}

fn is_bridge(token: &RegistrationToken) -> bool {
    token.labels.contains_key(BRIDGE_LABEL)
}

/// Which downstream Secret stands for which value.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_value: BTreeMap<Fingerprint, String>,
    /// The values that a name stands for also where the Secret of that name is gone.
    surely: BTreeSet<Fingerprint>,
}

impl Names {
    /// By the formula that Rancher itself uses here; the value that the agent started with keeps the Secret that it had.
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
            surely: names.keys().copied().collect(),
            by_value: names,
        }
    }

    /// Where a Secret is gone its name stands only for a value that is held somewhere: the Lease may claim any other.
    pub(super) fn by_name_only_if(mut self, is_held: impl Fn(Fingerprint) -> bool) -> Self {
        self.surely.retain(|token| is_held(*token));
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

    /// The value that a Secret of this name holds: by its content, or by its name where it is gone.
    fn value(&self, snapshot: &Snapshot, name: &str) -> Option<Fingerprint> {
        let there = snapshot
            .credentials
            .iter()
            .find(|credentials| credentials.object.name == name);
        let content = there
            .and_then(|credentials| credentials.token.as_ref())
            .map(Secret::fingerprint);
        let by_name = || {
            let mut named = self.by_value.iter().filter(|(_, known)| *known == name);
            named
                .find(|(token, _)| self.surely.contains(token))
                .map(|(token, _)| *token)
        };
        content.or_else(by_name)
    }
}
