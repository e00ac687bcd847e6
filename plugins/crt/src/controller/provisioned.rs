//! What only a cluster that Rancher provisioned has: read at each look, and abstracted.

use std::collections::{BTreeMap, BTreeSet};

use client::error::Error;
use client::secret::{Fingerprint, Secret};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rancher::TokenStorage;
use rancher::cluster::ConditionStatus;
use rancher::provisioned::{self, Machine, MachinePlan, ProvisioningCluster};
use rancher::token::{RegistrationToken, SYSTEM, TokenSecret};

use super::CrtController;
use super::abstraction::{Snapshot, TRIGGERED};
use super::apply::GRACE;
use crate::connections::MANAGEMENT;
use crate::report::machines;
use crate::rotation::observed::{self, FirstToken, Plans, Provisioned, Reconfiguration};

/// How long a machine may take to apply a plan before it counts as silent. Seen on Rancher 2.15.0: at most 3.4 s.
const SILENT: SignedDuration = SignedDuration::from_secs(60);
/// A grace period that ends this much sooner than one that is set now is extended.
const AGED: SignedDuration = SignedDuration::from_hours(1);

/// The objects of one look.
#[derive(Debug)]
pub(super) struct ProvisionedObjects {
    pub(super) cluster: ProvisioningCluster,
    /// None: no permission to read them.
    pub(super) plans: Option<BTreeMap<String, MachinePlan>>,
    pub(super) machines: Vec<Machine>,
    /// `Ready` was seen not True since the trigger that the Cluster has now.
    pub(super) was_not_ready: bool,
    pub(super) machine_forced: bool,
    /// Since when this process waits for machines.
    pub(super) waiting_since: Timestamp,
}

impl CrtController<'_> {
    /// None: Rancher has not provisioned this cluster.
    pub(super) async fn read_provisioned(&self) -> Result<Option<ProvisionedObjects>, Error> {
        let Some(known) = &self.connections.provisioning else {
            return Ok(None);
        };
        let client = &self.connections.management.client;
        let plans = async {
            match provisioned::plans(client, known).await {
                Err(error) if error.is_forbidden() => Ok(None),
                read => read.map(Some),
            }
        };
        let machines = async {
            match provisioned::machines(client, known).await {
                Err(error) if error.is_forbidden() => Ok(Vec::new()),
                read => read,
            }
        };
        let cluster = provisioned::get(client, &known.namespace, &known.name);
        let (cluster, plans, machines) =
            futures::try_join!(cluster, plans, machines).map_err(|error| error.on(MANAGEMENT))?;
        let cluster = cluster.ok_or_else(|| {
            Error::failed(format!(
                "provisioning cluster {}/{} was deleted",
                known.namespace, known.name
            ))
        })?;
        Ok(Some(ProvisionedObjects {
            cluster,
            plans,
            machines,
            was_not_ready: false,
            machine_forced: self.forces(super::check::MACHINE),
            waiting_since: *self
                .state()
                .began
                .get_or_insert(self.connections.management.clock.now()),
        }))
    }

    /// The machines that may have joined with a leaked token.
    pub(super) fn after_a_leak(&self) -> Option<String> {
        let state = self.state();
        let snapshot = state.snapshot.as_ref()?;
        let provisioned = snapshot.provisioned.as_ref()?;
        let rows = machines::rows(&provisioned.machines);
        machines::after_a_leak(&provisioned.cluster, &rows, &self.connections.commands, snapshot.now)
    }

    /// Storage `secret`: until when the values are valid that a silent machine may bring back. `None`: there is no such machine, or no
    /// end.
    pub(super) fn kept_valid_until(&self) -> Option<Timestamp> {
        let state = self.state();
        let snapshot = state.snapshot.as_ref()?;
        let observed = snapshot.observed_provisioned()?;
        let Plans::Read(machines) = observed.plans else {
            return None;
        };
        let is_silent = machines.values().any(|machine| !machine.answers);
        let both = [snapshot.system(), snapshot.first_token()].into_iter().flatten();
        let with_previous = both.filter(|token| token.previous().is_some());
        with_previous
            .filter_map(RegistrationToken::grace_ends_at)
            .min()
            .filter(|_| is_silent)
    }

    /// Remembers that `Ready` was not True. Another trigger begins anew.
    pub(super) fn follow_ready(&self, snapshot: &mut Snapshot) {
        let triggered = snapshot.cluster.annotations.get(TRIGGERED).cloned();
        let triggered = triggered.unwrap_or_default();
        let Some(provisioned) = &mut snapshot.provisioned else {
            return;
        };
        let mut state = self.state();
        if provisioned.cluster.ready != ConditionStatus::True {
            state.not_ready = Some(triggered.clone());
        }
        provisioned.was_not_ready = state.not_ready == Some(triggered);
    }
}

impl Snapshot {
    /// F: the first registration token by name.
    fn first_token(&self) -> Option<&RegistrationToken> {
        let live = self.tokens.tokens.iter().filter(|token| !token.deleting);
        live.min_by(|a, b| a.object.name.cmp(&b.object.name))
    }

    /// Every token that a plan has, by its fingerprint.
    pub(super) fn planned_values(&self) -> impl Iterator<Item = &Secret> {
        let plans = self
            .provisioned
            .iter()
            .filter_map(|provisioned| provisioned.plans.as_ref());
        let plans = plans.flat_map(BTreeMap::values);
        plans.flat_map(|plan| plan.planned.iter().chain(&plan.applied))
    }

    pub(super) fn observed_provisioned(&self) -> Option<Provisioned> {
        let provisioned = self.provisioned.as_ref()?;
        let first = self.first_token().filter(|token| token.object.name != SYSTEM);
        Some(Provisioned {
            first: first.map(|token| FirstToken {
                name: token.object.name.clone(),
                protected: self.secret_in_use(token).is_none_or(|secret| self.is_protected(secret)),
                status_grace: self.status_grace_of(token),
            }),
            plans: match &provisioned.plans {
                Some(plans) => Plans::Read(
                    plans
                        .iter()
                        .map(|(name, plan)| (name.clone(), self.machine_plan(provisioned, name, plan)))
                        .collect(),
                ),
                None => Plans::Unreadable(self.reconfiguration(provisioned)),
            },
            machine_forced: provisioned.machine_forced,
            aging: self.aging(),
        })
    }

    fn machine_plan(&self, provisioned: &ProvisionedObjects, name: &str, plan: &MachinePlan) -> observed::MachinePlan {
        let machine = provisioned.machines.iter().find(|machine| machine.name == name);
        // A command that is run again waits again.
        let since = plan.updated.map(|updated| updated.max(provisioned.waiting_since));
        let is_late = since.is_some_and(|since| self.now.duration_since(since) > SILENT);
        let is_unhealthy = machine.is_some_and(|machine| machine.healthy == Some(ConditionStatus::False));
        let (planned, applied) = plan.fingerprints();
        observed::MachinePlan {
            planned,
            applied,
            is_applied: plan.is_applied,
            answers: plan.is_applied || !(is_late || is_unhealthy),
            has_node: machine.is_some_and(|machine| machine.node.is_some()),
        }
    }

    /// The times of `Ready` are whole seconds: one of the second of the trigger may be from before it.
    fn reconfiguration(&self, provisioned: &ProvisionedObjects) -> Reconfiguration {
        let cluster = &provisioned.cluster;
        if cluster.ready != ConditionStatus::True {
            return Reconfiguration::InProgress;
        }
        let triggered = self.triggered_at();
        let is_later = |since: Timestamp| triggered.is_some_and(|at| since.as_second() > at.as_second());
        if provisioned.was_not_ready || cluster.ready_since.is_some_and(is_later) {
            Reconfiguration::Finished
        } else {
            Reconfiguration::NotSeen
        }
    }

    /// Of `system` and F, those whose previous value is valid for less time than a run would give it now.
    fn aging(&self) -> BTreeSet<String> {
        let both = [self.system(), self.first_token()].into_iter().flatten();
        let is_aged = |secret: &TokenSecret| {
            let far = self.now.saturating_add(GRACE - AGED).unwrap_or(Timestamp::MAX);
            secret.previous.is_some() && secret.grace_ends_at.is_some_and(|ends| ends < far)
        };
        let aged = both.filter(|token| self.secret_in_use(token).is_some_and(is_aged));
        aged.map(|token| token.object.name.clone()).collect()
    }

    /// The Secret that holds the value of a token.
    fn secret_in_use<'t>(&self, token: &'t RegistrationToken) -> Option<&'t TokenSecret> {
        token.secret.as_ref().filter(|_| self.storage == TokenStorage::Secret)
    }

    /// What the planner renders at its next event: F by name and value.
    pub(super) fn planner_renders(&self) -> Option<Fingerprint> {
        self.provisioned.as_ref()?;
        let first = self.first_token().filter(|token| token.object.name != SYSTEM)?;
        let value = first.current()?.fingerprint();
        Some(observed::rendered(&first.object.name, value))
    }
}
