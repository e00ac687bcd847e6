//! The observed state of both clusters, as far as the next step depends on it: names and fingerprints, no secret, no time.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;
use engine::credential::Acceptance;
use engine::direction::Direction;
use engine::rotation::Blocker;
use rancher::TokenStorage;
use serde::{Deserialize, Serialize};

use super::record::{Mark, RolloutSettings, ServerAddress};

/// The state of one cluster, in Rancher and downstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    /// Where this Rancher keeps the values of registration tokens.
    pub storage: TokenStorage,
    /// The failed preflight checks. Once a rotation is in progress they do not count.
    pub blockers: Vec<Blocker>,
    /// Whether the downstream cluster is the one that the registration tokens belong to.
    pub downstream: DownstreamIdentity,
    /// Values that Rancher accepts as tokens of another cluster. None of them is ever written into this one.
    pub foreign: BTreeSet<Fingerprint>,
    /// The mark that a run has set on the registration token `system`, in the same write as its value.
    pub mark: Option<Mark>,
    /// The registration token `system`, the one that Rancher deploys. `None` when it is absent.
    pub system: Option<SystemToken>,
    /// Storage `secret`: the end of the grace period in the status of `system`. Early builds read only this one, and drop the
    /// previous token by it (seen on Rancher 2.15.0).
    pub status_grace: Option<Grace>,
    /// The values of the temporary registration tokens of this run.
    pub temporary: BTreeSet<Fingerprint>,
    /// The other registration tokens of the cluster, by name; orphaned token Secrets among them.
    pub others: BTreeMap<String, Fingerprint>,
    /// Storage `secret`: the previous values of those, which Rancher accepts until their grace periods end.
    pub others_previous: BTreeMap<String, Fingerprint>,
    /// What Rancher answers to the values that matter now.
    pub acceptance: BTreeMap<Fingerprint, Acceptance>,
    /// The downstream Secrets with a token for an agent, by its value.
    pub credentials: BTreeMap<Fingerprint, Age>,
    /// The values whose downstream Secret cannot be created, and its name: a Secret with another content has it.
    pub occupied: BTreeMap<Fingerprint, String>,
    /// *Retire* and later: the downstream Secrets that this run has created, and that neither the Deployment nor a pod nor O or N
    /// has a use for, by name. Their values were replaced during the run, or their names follow from another address.
    pub leftovers: BTreeSet<String>,
    /// The other tokens are left unchanged (`--only-agent`).
    pub only_agent: bool,
    /// Name of the Secret that the agent's Deployment names.
    pub named_secret: String,
    /// The Deployment's rollout settings; the defaults of Kubernetes where a rollout was left held.
    pub rollout: RolloutSettings,
    /// The value of the Secret that the agent's Deployment names, or that this Secret would have if it existed.
    pub deployed: Option<Fingerprint>,
    /// Whether the rollout of the agent is held.
    pub held: bool,
    /// The direction in which this run marked the Deployment.
    pub deployment_direction: Option<Direction>,
    /// The restart mark in the Deployment's pod template.
    pub restarted_at: Option<String>,
    /// Where the Deployment's pod template sends the agent.
    pub address: Address,
    /// The same, as the template has it.
    pub server_address: ServerAddress,
    /// Where Rancher's next push would send it, by Rancher's settings. `None` where they cannot be read.
    pub pushes: Option<Address>,
    /// The next push may send the agent elsewhere (`--force=address`).
    pub move_forced: bool,
    /// The last other writer of the Deployment's pod template, for messages.
    pub writer: String,
    /// The pods of the agent.
    pub pods: BTreeSet<Pod>,
    /// What the agent that connected last has written into `stv-aggregation`. Only an agent that Rancher has accepted writes it.
    pub connected: Option<AgentConnection>,
    /// The last trigger of Rancher's deploy controller.
    pub trigger: Option<Trigger>,
    /// Storage `secret`: the token that Rancher applied last on the downstream cluster, by the annotation on the Cluster.
    pub applied: Option<Fingerprint>,
    /// Whether a call through Rancher's tunnel has just succeeded. `None` where it cannot be tried.
    pub tunnel_works: Option<bool>,
}

/// Whether the downstream cluster is the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownstreamIdentity {
    /// It is: reached through Rancher, or proven to be the same by the uid of namespace kube-system or by the CA.
    Proven,
    /// It is another cluster. Nothing overrides that.
    Another,
    /// Neither is proven: there is no tunnel to compare with, and Rancher has recorded another CA or none.
    Unproven,
}

/// Where an agent connects to: a fingerprint of Rancher's URL and of the checksum of the CA that the agent trusts.
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

/// The connection of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AgentConnection {
    /// Its token.
    pub token: Fingerprint,
    /// Where it connected to.
    pub address: Address,
}

/// An annotation that makes Rancher reconcile the Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trigger {
    /// The value of `system` at that time.
    pub token: Fingerprint,
    /// Rancher has had the time to apply it. A change of the Cluster before that makes Rancher's apply start again (seen on
    /// Rancher 2.15.0: it ends with an update that conflicts with every change since its beginning).
    pub overdue: bool,
}

/// The registration token `system`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SystemToken {
    /// Its value.
    pub token: Fingerprint,
    /// Storage `secret`: the previous value, which Rancher still accepts.
    pub previous: Option<Fingerprint>,
    /// Storage `secret`: neither the end of the grace period nor an expiry drops the previous value within the next days.
    pub protected: bool,
}

/// When a grace period ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grace {
    /// Within days, or in the past.
    Near,
    /// Later than any rotation takes.
    Far,
}

/// The age of a downstream Secret. Each agent deletes foreign ones after an hour, once an hour
/// (rancher/rancher `pkg/agent/clean/credentials.go`, since 2.9.9, 2.10.5 and 2.11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Age {
    /// It outlasts any rollout.
    Young,
    /// Older than a quarter of an hour: it is recreated before a Deployment is pointed at it.
    Old,
}

/// One pod of the agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pod {
    /// The value of the Secret that it mounts. An agent reads it once, at its start
    /// (rancher/rancher `cmd/agent/main.go`).
    pub token: Option<Fingerprint>,
    /// The restart mark of the template that it was created from.
    pub restarted_at: Option<String>,
    /// Where its template sends it.
    pub address: Address,
    /// Whether its containers are ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub leaving: bool,
}

impl Observed {
    /// Whether Rancher keeps accepting this value if `system` is given another one.
    pub fn is_held_beside_system(&self, token: Fingerprint) -> bool {
        self.temporary.contains(&token) || self.others.values().any(|value| *value == token)
    }

    /// Whether an object of Rancher holds this value, so that it is, or soon will be, accepted.
    pub fn is_held(&self, token: Fingerprint) -> bool {
        let by_system = |system: &SystemToken| system.token == token || system.previous == Some(token);
        self.system.as_ref().is_some_and(by_system) || self.is_held_beside_system(token)
    }

    /// Whether an agent may need this value: to keep running, or to start again.
    pub fn is_in_use(&self, token: Fingerprint) -> bool {
        self.is_placed(token) || self.connected.is_some_and(|connected| connected.token == token)
    }

    /// Whether the Deployment or a pod has this value.
    pub fn is_placed(&self, token: Fingerprint) -> bool {
        self.deployed == Some(token) || self.pods.iter().any(|pod| pod.token == Some(token))
    }

    /// Whether an agent runs with this value and is not being deleted.
    pub fn runs(&self, token: Fingerprint) -> bool {
        self.running(token).next().is_some()
    }

    /// Whether a pod of the very template that the Deployment has now runs with this value.
    pub fn runs_as_deployed(&self, token: Fingerprint) -> bool {
        self.running(token)
            .any(|pod| pod.restarted_at == self.restarted_at && pod.address == self.address)
    }

    /// The pods that run with this value and are not being deleted.
    pub fn running(&self, token: Fingerprint) -> impl Iterator<Item = &Pod> {
        let runs = move |pod: &&Pod| pod.token == Some(token) && pod.ready && !pod.leaving;
        self.pods.iter().filter(runs)
    }

    /// Whether the agent that connected last used this value, and the address of the Deployment's template.
    pub fn is_connected(&self, token: Fingerprint) -> bool {
        let address = self.address;
        self.connected == Some(AgentConnection { token, address })
    }

    /// Whether the value itself can be read anywhere.
    pub fn has_value(&self, token: Fingerprint) -> bool {
        self.held_values().contains(&token) || self.credentials.contains_key(&token)
    }

    /// All values of Rancher's objects.
    pub fn held_values(&self) -> Vec<Fingerprint> {
        let of_system = self
            .system
            .iter()
            .flat_map(|system| std::iter::once(system.token).chain(system.previous));
        of_system
            .chain(self.temporary.iter().copied())
            .chain(self.others.values().copied())
            .chain(self.others_previous.values().copied())
            .collect()
    }

    /// What Rancher answers to this value.
    pub fn acceptance_of(&self, token: Fingerprint) -> &Acceptance {
        self.acceptance.get(&token).unwrap_or(&Acceptance::NotAsked)
    }

    /// The mark of this run on `system`.
    pub fn mark_of(&self, run: &str) -> Option<&Mark> {
        self.mark.as_ref().filter(|mark| mark.run == run)
    }
}
