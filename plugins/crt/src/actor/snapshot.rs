//! Everything that is read in one look at both sides, with the values and versions that writes need.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kubectl_core::secret::{Fingerprint, Secret};
use rancher::agent::{Credentials, Deployment, Pod, StvAggregation};
use rancher::cluster::{Cluster, ClusterId};
use rancher::credential_name::Formula;
use rancher::era::Era;
use rancher::probe::Verdict;
use rancher::token::{RegistrationToken, SYSTEM, TokenSecret, Tokens};

use crate::rotation::view::{Age, Grace, Holder, Notes, Pod as SeenPod, Rollout, View};

/// On a registration token: it is a bridge of a run.
pub(crate) const BRIDGE_LABEL: &str = "kubectl-rotation.github.io/bridge";
/// On an object that was written on the way back: the run.
pub(super) const BACK: &str = "kubectl-rotation.github.io/back";

/// A grace or an expiry that is nearer than this may end while a rotation waits for somebody to resume it.
const FAR: SignedDuration = SignedDuration::from_hours(3 * 24);
/// Each agent deletes foreign Secrets after an hour; this is well before.
const YOUNG: SignedDuration = SignedDuration::from_mins(15);
/// No Rancher sets `minReadySeconds`; from this many seconds on it is a hold that somebody left.
pub(super) const SURELY_A_HOLD: i32 = 300;

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
        View {
            era: self.era,
            obstacles: Vec::new(),
            system: self.system().and_then(|token| self.holder(token, going_back)),
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
            connected: self
                .stv
                .as_ref()
                .and_then(|stv| stv.token.filter(|token| stv.names(*token))),
            pushed: self.cluster.applied_token,
            answers: self.answers,
        }
    }

    fn holder(
        &self,
        token: &RegistrationToken,
        going_back: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> Option<Holder> {
        let value = token.current()?.fingerprint();
        let secret = token.secret.as_ref().filter(|_| self.era == Era::Secret);
        let far = |at: Option<Timestamp>| at.is_none_or(|at| self.now.saturating_add(FAR).is_ok_and(|far| at > far));
        Some(Holder {
            token: value,
            previous: secret
                .and_then(|secret| secret.previous.as_ref())
                .map(Secret::fingerprint),
            protected: secret.is_none_or(|secret| far(secret.grace_ends_at) && far(secret.expires_at)),
            going_back: going_back(secret.map_or(&token.annotations, |secret| &secret.annotations)),
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

fn is_bridge(token: &RegistrationToken) -> bool {
    token.labels.contains_key(BRIDGE_LABEL)
}

/// Which downstream Secret stands for which value.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<Fingerprint, String>);

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
        Self(names)
    }

    /// The name of the Secret for a value.
    pub(super) fn of(&self, token: Fingerprint) -> Option<&str> {
        self.0.get(&token).map(String::as_str)
    }

    /// All names.
    pub(super) fn all(&self) -> BTreeSet<&str> {
        self.0.values().map(String::as_str).collect()
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
        content.or_else(|| self.0.iter().find(|(_, known)| *known == name).map(|(token, _)| *token))
    }
}
