//! What there is on both sides, as far as the next step depends on it: names and fingerprints, no secret, no time.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;
use engine::phase::Goal;
use engine::protocol::{Obstacle, Run};
pub use rancher::agent::Address as Home;
use rancher::era::Era;
use serde::{Deserialize, Serialize};

use super::Crt;

/// Both sides of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Which of Rancher's two kinds of tokens this server has.
    pub era: Era,
    /// What speaks against beginning a rotation. Once one is in progress it is not asked any more.
    pub obstacles: Vec<Obstacle>,
    /// Whether the downstream side is the cluster that the registration tokens belong to.
    pub downstream: Downstream,
    /// Values that Rancher accepts as tokens of another cluster. None of them is ever carried along here.
    pub foreign: BTreeSet<Fingerprint>,
    /// What a run has written down on the registration token `system`, in the same write as its value.
    pub record: Option<Record>,
    /// The registration token `system`, the one that Rancher deploys. `None` when it is absent.
    pub system: Option<Holder>,
    /// Era S: the end of grace in the status of `system`. Early builds read only this one, and drop the previous token by
    /// it (seen on Rancher 2.15.0).
    pub status_grace: Option<Grace>,
    /// What the bridges of this run hold.
    pub bridges: BTreeSet<Fingerprint>,
    /// The other registration tokens of the cluster, by name; orphaned token Secrets among them.
    pub others: BTreeMap<String, Fingerprint>,
    /// Which values Rancher accepted when it was asked just now.
    pub live: BTreeSet<Fingerprint>,
    /// The downstream Secrets that hold a token for an agent, by what they hold.
    pub credentials: BTreeMap<Fingerprint, Age>,
    /// Whether the other tokens shall stay as they are (`--only-agent`).
    pub only_agent: bool,
    /// Name of the Secret that the agent's Deployment names.
    pub named_secret: String,
    /// The Deployment's roll-out settings; those of Kubernetes where a hold was left behind.
    pub rollout: Rollout,
    /// What the Secret holds that the agent's Deployment names, or would hold if it were there.
    pub names: Option<Fingerprint>,
    /// Whether the roll-out of the agent is held.
    pub held: bool,
    /// The Deployment was written on the way back of this run, as with [`Holder::going_back`].
    pub deployment_going_back: bool,
    /// The restart mark in the Deployment's pod template.
    pub mark: Option<String>,
    /// Where the Deployment's pod template sends the agent.
    pub address: Address,
    /// The same, as it is written there.
    pub home: Home,
    /// Where Rancher's next push would send it, by Rancher's settings. `None` where they may not be read.
    pub pushes: Option<Address>,
    /// The next push may send the agent elsewhere (`--force=address`).
    pub may_move: bool,
    /// Who wrote the Deployment's pod template last, beside this program: in words, for messages.
    pub writer: String,
    /// The pods of the agent.
    pub pods: BTreeSet<Pod>,
    /// What the agent that connected last has written into `stv-aggregation`. Only an agent that Rancher has accepted
    /// writes it.
    pub connected: Option<Connection>,
    /// The last trigger of Rancher's deploy controller.
    pub trigger: Option<Trigger>,
    /// Era S: the token that Rancher says it has applied downstream, by the annotation on the cluster.
    pub pushed: Option<Fingerprint>,
    /// Whether a fresh call through Rancher's tunnel has just succeeded. `None` where we have no way to try.
    pub answers: Option<bool>,
}

/// Whether the downstream side is the right cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Downstream {
    /// It is: reached through Rancher, or shown to be the same by the uid of namespace kube-system or by the CA.
    Proven,
    /// It is another cluster. Nothing overrides that.
    Another,
    /// Neither is shown: there is no tunnel to compare with, and the CA that Rancher has noted is another one or none.
    Unproven,
}

/// Where an agent connects to: the URL of Rancher, and the checksum of the CA that it accepts there, as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(Fingerprint);

impl Address {
    /// By URL and checksum. A trailing slash makes no difference.
    pub fn of(url: Option<&str>, ca_checksum: Option<&str>) -> Self {
        let url = url.unwrap_or_default().trim_end_matches('/');
        Self(Fingerprint::of(&format!("{url} {}", ca_checksum.unwrap_or_default())))
    }
}

/// With what an agent has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Its token.
    pub token: Fingerprint,
    /// Where it connected to.
    pub address: Address,
}

/// An annotation that makes Rancher look at the Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trigger {
    /// The value of `system` at that moment.
    pub token: Fingerprint,
    /// Rancher has had the time to apply it. Whoever changes the Cluster before that makes Rancher's apply start again
    /// (seen on Rancher 2.15.0: it ends with an update that conflicts with every change since its beginning).
    pub overdue: bool,
}

/// What a run has written down on `system`: what it may do is read from there, never from the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The run.
    pub run: String,
    /// It was written on the way back: a late write of a former holder of the lock does not fit any more.
    #[serde(default)]
    pub back: bool,
    /// What the run knows.
    #[serde(flatten)]
    pub notes: Notes,
}

impl Record {
    /// Of a run as it is now. What changes later is seen at the objects themselves.
    pub fn of(run: &Run<Crt>) -> Self {
        Self {
            run: run.id.to_string(),
            back: run.goal == Goal::Back,
            notes: Notes {
                mark: None,
                ..run.notes.clone()
            },
        }
    }
}

/// What a registration token holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Its value.
    pub token: Fingerprint,
    /// Era S: the value before, which Rancher still accepts.
    pub previous: Option<Fingerprint>,
    /// Era S: neither the end of grace nor an expiry will drop the previous value within the next days.
    pub protected: bool,
}

/// When a grace ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grace {
    /// Within days, or in the past.
    Near,
    /// Later than any rotation takes.
    Far,
}

/// How old a downstream Secret is. Each agent deletes foreign ones after an hour, once an hour
/// (rancher/rancher `pkg/agent/clean/credentials.go`, since 2.9.9, 2.10.5 and 2.11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Age {
    /// Surely there for longer than a roll-out may take.
    Young,
    /// Older than a quarter of an hour: made again before a Deployment is pointed at it.
    Old,
}

/// One pod of the agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pod {
    /// What the Secret holds that it mounts. An agent reads it once, at its start
    /// (rancher/rancher `cmd/agent/main.go`).
    pub token: Option<Fingerprint>,
    /// The restart mark of the template that it was made from.
    pub mark: Option<String>,
    /// Where its template sends it.
    pub address: Address,
    /// Whether its containers run.
    pub ready: bool,
    /// Whether it is being deleted.
    pub leaving: bool,
}

/// What a run knows: in the record on `system`, and in the journal for whoever looks at the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    /// The token that the agent ran with when the rotation began.
    pub old: Fingerprint,
    /// The token that it shall run with. `None` until it is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Fingerprint>,
    /// What `system` held when the rotation began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Fingerprint>,
    /// The other registration tokens that get a new value, with the one that they had.
    #[serde(default)]
    pub others: BTreeMap<String, Fingerprint>,
    /// The restart mark that was drawn last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// At the start the agent was connected with the old token.
    #[serde(default)]
    pub worked: bool,
    /// Where the Deployment's pod template sent the agent at the start.
    #[serde(default)]
    pub home: Home,
    /// Name of the downstream Secret that the Deployment named at the start.
    pub old_secret: String,
    /// The Deployment's own roll-out settings, to be put back.
    pub rollout: Rollout,
}

/// The two roll-out settings that a hold changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// `spec.progressDeadlineSeconds`.
    pub progress_deadline_seconds: i32,
}

impl Default for Rollout {
    /// What Kubernetes sets where nothing is said, which is what Rancher's agent comes with.
    fn default() -> Self {
        Self {
            min_ready_seconds: 0,
            progress_deadline_seconds: 600,
        }
    }
}

impl View {
    /// Whether Rancher keeps accepting this value if `system` is given another one.
    pub fn is_held_beside_system(&self, token: Fingerprint) -> bool {
        self.bridges.contains(&token) || self.others.values().any(|held| *held == token)
    }

    /// Whether Rancher's objects hold this value anywhere, so that it is, or soon will be, accepted.
    pub fn is_held(&self, token: Fingerprint) -> bool {
        let by_system = |holder: &Holder| holder.token == token || holder.previous == Some(token);
        self.system.as_ref().is_some_and(by_system) || self.is_held_beside_system(token)
    }

    /// Whether an agent may need this value: to go on, or to start again.
    pub fn is_in_use(&self, token: Fingerprint) -> bool {
        let connected = self.connected.is_some_and(|connected| connected.token == token);
        let token = Some(token);
        self.names == token || connected || self.pods.iter().any(|pod| pod.token == token)
    }

    /// Whether an agent with this value runs and will go on running.
    pub fn runs(&self, token: Fingerprint) -> bool {
        self.pods
            .iter()
            .any(|pod| pod.token == Some(token) && pod.ready && !pod.leaving)
    }

    /// Whether a pod of the very template that the Deployment has now runs with this value.
    pub fn runs_as_deployed(&self, token: Fingerprint) -> bool {
        let of_template = |pod: &Pod| pod.mark == self.mark && pod.address == self.address;
        self.pods
            .iter()
            .any(|pod| pod.token == Some(token) && of_template(pod) && pod.ready && !pod.leaving)
    }

    /// Whether the agent that connected last did so with this value, and to where the Deployment's template sends it.
    pub fn is_connected(&self, token: Fingerprint) -> bool {
        let address = self.address;
        self.connected == Some(Connection { token, address })
    }

    /// Whether the value itself can be read anywhere.
    pub fn has_value(&self, token: Fingerprint) -> bool {
        self.is_held(token) || self.credentials.contains_key(&token)
    }

    /// What this run has written down, if anything.
    pub fn record_of(&self, run: &str) -> Option<&Record> {
        self.record.as_ref().filter(|record| record.run == run)
    }
}
