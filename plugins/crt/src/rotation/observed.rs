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
    /// Who writes the agent's Deployment, and what proves the agent.
    pub kind: Kind,
    /// Where this Rancher keeps the values of registration tokens.
    pub storage: TokenStorage,
    /// The failed preflight checks. Once a rotation is in progress they do not count.
    pub blockers: Vec<Blocker>,
    /// Whether the downstream cluster is the one that the registration tokens belong to.
    pub downstream: DownstreamIdentity,
    /// Whether the run may read and write the downstream cluster.
    pub access: DownstreamAccess,
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
    /// The other registration tokens that this run has given a value, by name, with the mark that it has set in the same write.
    /// After a migration into a Secret the mark is still on the token.
    pub given: BTreeMap<String, GivenMark>,
    /// What Rancher answers to the values that matter now.
    pub acceptance: BTreeMap<Fingerprint, Acceptance>,
    /// The downstream Secrets with a token for an agent, by its value.
    pub credentials: BTreeMap<Fingerprint, Age>,
    /// The values whose downstream Secret cannot be created, and its name: a Secret with another content has it.
    pub occupied: BTreeMap<Fingerprint, String>,
    /// *Retire* and later: the downstream Secrets that this run has created, and that neither the Deployment nor a pod nor O or N
    /// has a use for, by name. Their values were replaced during the run, or their names follow from another address.
    pub leftovers: BTreeSet<String>,
    /// The values that only a rescue has made valid again. None of them outlasts it.
    pub reactivated: BTreeMap<Fingerprint, Reactivated>,
    /// The value that this command may make valid again (`--reactivate-old-token`).
    pub reactivates: Option<Fingerprint>,
    /// Storage `secret`: the tokens in whose status the grace period ends within ten minutes, and not before a value can be written.
    pub ending: BTreeSet<String>,
    /// Rancher was asked to redeploy the agent, and has not done it yet.
    pub redeploys: bool,
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
    /// The run continues with the proofs that remain where the downstream cluster or the plans cannot be read (`--force=weak-proof`).
    pub weak_proof_forced: bool,
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
    /// Whether a call through the agent's tunnel has just succeeded. `None` where it cannot be tried. Hosted: a proxied call that
    /// Rancher answers without an agent does not count (seen on Rancher 2.15.0).
    pub tunnel_works: Option<bool>,
}

/// Whether the run may read and write the downstream cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownstreamAccess {
    /// Its agent's Deployment, Secrets and pods.
    Full,
    /// No permissions there: Rancher pushes the token by itself. Everything that is read downstream is empty, and any value may be in
    /// use.
    None,
    /// A rescue: its agent is not connected, and there is no other way to it. Everything that is read downstream is empty, and any
    /// value may be in use.
    Unreachable,
}

/// Who writes the agent's Deployment, and what proves the agent. Local clusters and RKE1 are refused before a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only Rancher's deploy controller, with the value of `system`. Also an imported Harvester.
    Imported,
    /// The deploy controller, and the planner through the files of the control-plane machines. By `rkeConfig` of the provisioning
    /// cluster: `status.driver` says `imported` (seen on Rancher 2.15.0).
    Provisioned(Provisioned),
    /// The deploy controller. Rancher reaches the API server without an agent, so that neither the applied manifest nor a proxied
    /// call proves one.
    Hosted,
}

/// What only a cluster that Rancher provisioned has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Provisioned {
    /// F: the first registration token of the cluster by name at this look, which the planner deploys. `None` where it is `system`
    /// itself, or where there is no token.
    pub first: Option<FirstToken>,
    /// The plans of the control-plane machines.
    pub plans: Plans,
    /// The old value is revoked although a control-plane machine has not applied the new one (`--force=machine`).
    pub machine_forced: bool,
    /// Storage `secret`: those of `system` and F whose previous token has a grace period that ends an hour sooner, or more, than one
    /// that is set now would. A run that ends pending extends them first.
    pub aging: BTreeSet<String>,
}

/// F. Its value is in [`Observed::others`]; without one the planner writes no plan (seen on Rancher 2.15.0). Its previous one in [`Observed::others_previous`], the mark of this run in
/// [`Observed::given`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FirstToken {
    /// Its name.
    pub name: String,
    /// As [`SystemToken::protected`].
    pub protected: bool,
    /// As [`Observed::status_grace`].
    pub status_grace: Option<Grace>,
}

/// The plans of the control-plane machines: Secrets of type `rke.cattle.io/machine-plan` with the label
/// `rke.cattle.io/control-plane-role`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Plans {
    /// By the machine's name. A machine that is being deleted is left out once its plan Secret is gone.
    Read(BTreeMap<String, MachinePlan>),
    /// No permission to read them: they hold the cluster's join token.
    Unreadable(Reconfiguration),
}

/// The plan of one control-plane machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MachinePlan {
    /// The token in the agent's manifest in `plan`. `None` where the plan has no such file.
    pub planned: Option<Fingerprint>,
    /// The same in `appliedPlan`: the file that the machine has, and that RKE2 and K3s apply at every start of the server.
    pub applied: Option<Fingerprint>,
    /// `applied-checksum` is the SHA-256 of `plan`: the machine has written the files of its plan.
    pub is_applied: bool,
    /// Its system-agent answers. `false` where the plan has waited for it for a minute (`plan-last-updated`, and the clock of the
    /// API server), or the Machine is reported as not healthy; never where the plan is applied.
    pub answers: bool,
    /// A Node of the cluster belongs to it.
    pub has_node: bool,
}

/// The condition `Ready` of the provisioning cluster since the last trigger of this run: by its `lastUpdateTime`, or as this process
/// has seen it change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reconfiguration {
    /// It was not seen to leave True. It stays True for a moment after the trigger (seen on Rancher 2.15.0: 0.3 s).
    NotSeen,
    /// It is not True.
    InProgress,
    /// It was not True, and is True again: every machine has applied its plan.
    Finished,
}

/// The mark of a run on another registration token than `system`, written in the same request as its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GivenMark {
    /// The direction in which it was written.
    pub direction: Direction,
    /// The value that the token had before this run. A rollback restores it.
    pub before: Fingerprint,
}

/// Whether the downstream cluster is the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownstreamIdentity {
    /// It is: reached through Rancher, or proven to be the same by the uid of namespace kube-system or by the CA.
    Proven,
    /// Neither is proven, and the user says that it is (`--force=context`).
    Trusted,
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

/// How a value was made valid again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reactivated {
    /// By a temporary registration token, which has a label that says so.
    Temporary,
    /// Storage `secret`: as the previous token of this one, with an annotation that says so. It ends with a grace period of ten
    /// minutes.
    Previous(String),
}

/// An annotation that makes Rancher reconcile the Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trigger {
    /// The value of `system` at that time; that of an empty token if there was none.
    pub token: Fingerprint,
    /// F at that time, by a fingerprint of its name and value: its planner has rendered this one, or a later one.
    pub first: Option<Fingerprint>,
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

/// A token that the planner renders, by a fingerprint of its name and value.
pub(crate) fn rendered(name: &str, value: Fingerprint) -> Fingerprint {
    Fingerprint::of(&format!("{name} {value}"))
}

/// What stands for a token where there is none.
pub fn no_token() -> Fingerprint {
    Fingerprint::of("")
}

impl Observed {
    /// Whether the downstream cluster can be read and written.
    pub fn is_downstream_readable(&self) -> bool {
        self.access == DownstreamAccess::Full
    }

    /// What a cluster has that Rancher provisioned.
    pub fn provisioned(&self) -> Option<&Provisioned> {
        match &self.kind {
            Kind::Provisioned(provisioned) => Some(provisioned),
            Kind::Imported | Kind::Hosted => None,
        }
    }

    /// F, if it is another token than `system` and has a value.
    pub fn first(&self) -> Option<(&FirstToken, Fingerprint)> {
        let first = self.provisioned()?.first.as_ref()?;
        Some((first, *self.others.get(&first.name)?))
    }

    /// Whether Rancher keeps accepting this value if this other token is given another one.
    pub fn is_held_beside(&self, name: &str, token: Fingerprint) -> bool {
        let mut others = self.others.iter().filter(|(other, _)| *other != name);
        let system = self.system.as_ref();
        self.temporary.contains(&token)
            || system.is_some_and(|system| system.token == token || system.previous == Some(token))
            || others.any(|(_, value)| *value == token)
    }

    /// What the planner renders at its next event: F by name and value.
    pub fn planner_renders(&self) -> Option<Fingerprint> {
        let (first, token) = self.first()?;
        Some(rendered(&first.name, token))
    }

    /// The plans of the control-plane machines. None where there is no planner, or where they cannot be read.
    pub fn machines(&self) -> impl Iterator<Item = (&String, &MachinePlan)> {
        let plans = self.provisioned().map(|provisioned| &provisioned.plans);
        let read = plans.and_then(|plans| match plans {
            Plans::Read(machines) => Some(machines),
            Plans::Unreadable(_) => None,
        });
        read.into_iter().flatten()
    }

    /// Whether a control-plane machine has this value in its plan or in its files, and may bring it to the agent at any moment.
    pub fn is_planned(&self, token: Fingerprint) -> bool {
        let mut machines = self.machines();
        machines.any(|(_, machine)| machine.planned == Some(token) || machine.applied == Some(token))
    }

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
        !self.is_downstream_readable()
            || self.is_placed(token)
            || self.is_planned(token)
            || self.connected.is_some_and(|connected| connected.token == token)
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
