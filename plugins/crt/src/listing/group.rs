//! The registration tokens of one cluster. What uses one of them depends on the others.

use std::collections::BTreeMap;

use client::secret::{Fingerprint, Secret};
use rancher::cluster::{Cluster, ClusterKind};
use rancher::token::{Batch, DEFAULT, RegistrationToken, SYSTEM, TokenSecret};

use crate::report::row::{ClusterName, Row, RowInputs};
use crate::report::token_state::{self, AgentToken, ClusterInputs};

/// All tokens in one namespace.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// The namespace, which is the cluster's id.
    pub(crate) namespace: String,
    pub(crate) tokens: Vec<RegistrationToken>,
    pub(crate) orphans: Vec<TokenSecret>,
}

/// What is kept of a cluster: a list of thousands must stay small.
#[derive(Clone, Debug)]
pub(crate) struct ListedCluster {
    pub(crate) display_name: String,
    pub(crate) kind: ClusterKind,
    pub(crate) applied: Option<Fingerprint>,
}

impl From<Cluster> for ListedCluster {
    fn from(cluster: Cluster) -> Self {
        Self {
            display_name: cluster.display_name,
            kind: cluster.kind,
            applied: cluster.applied_token,
        }
    }
}

impl Group {
    fn value_of(&self, name: &str) -> Option<Fingerprint> {
        let token = self.tokens.iter().find(|token| token.object.name == name)?;
        token.current().map(Secret::fingerprint)
    }

    /// What the states of the tokens depend on.
    pub(super) fn inputs(&self, cluster: Option<&ListedCluster>, clusters_known: bool) -> ClusterInputs {
        let kind = cluster.map(|cluster| &cluster.kind);
        let applied = cluster.and_then(|cluster| cluster.applied);
        let system = self.value_of(SYSTEM);
        let agent = match kind {
            Some(ClusterKind::Local) => AgentToken::NoAgent,
            None if clusters_known => AgentToken::NoAgent,
            _ => token_state::agent_token(applied, system, self.value_of(DEFAULT)),
        };
        ClusterInputs {
            gone: clusters_known && cluster.is_none(),
            provisioned: kind == Some(&ClusterKind::Provisioned),
            agent,
            system,
            applied,
            address: None,
        }
    }

    /// The names of the cluster.
    pub(super) fn cluster_name(&self, cluster: Option<&ListedCluster>) -> ClusterName {
        ClusterName {
            id: self.namespace.clone(),
            display_name: cluster.map(|cluster| cluster.display_name.clone()),
            kind: cluster.map(|cluster| cluster.kind.to_string()),
        }
    }

    /// Its rows: tokens by name, then orphans.
    pub(super) fn rows(&self, inputs: &RowInputs<'_>) -> Vec<Row> {
        let first = self.tokens.iter().map(|token| token.object.name.as_str()).min();
        let tokens = self
            .tokens
            .iter()
            .map(|token| Row::of_token(token, first == Some(token.object.name.as_str()), inputs));
        tokens
            .chain(self.orphans.iter().map(|secret| Row::of_orphan(secret, inputs)))
            .collect()
    }
}

/// Joins pages: a page may end in the middle of a cluster, so the last cluster waits for the next page.
#[derive(Debug, Default)]
pub(crate) struct Grouping {
    /// By the sort key of the API server, where `/` comes after `-`.
    waiting: BTreeMap<String, Group>,
}

impl Grouping {
    /// Adds a page, and returns the clusters that are complete. `None` is the end.
    pub(crate) fn add(&mut self, batch: Option<Batch>) -> Vec<Group> {
        let Some(batch) = batch else {
            return std::mem::take(&mut self.waiting).into_values().collect();
        };
        let last = batch.tokens.last().map(|token| key(&token.object.namespace));
        for token in batch.tokens {
            self.group(&token.object.namespace).tokens.push(token);
        }
        for orphan in batch.orphans {
            self.group(&orphan.object.namespace).orphans.push(orphan);
        }
        let Some(last) = last else { return Vec::new() };
        let later = self.waiting.split_off(&last);
        std::mem::replace(&mut self.waiting, later).into_values().collect()
    }

    fn group(&mut self, namespace: &str) -> &mut Group {
        let group = self.waiting.entry(key(namespace)).or_default();
        if group.namespace.is_empty() {
            namespace.clone_into(&mut group.namespace);
        }
        group
    }
}

fn key(namespace: &str) -> String {
    format!("{namespace}/")
}
