//! The registration tokens of one cluster. What uses one of them depends on the others.

use std::collections::BTreeMap;

use client::secret::{Fingerprint, Secret};
use rancher::cluster::{Cluster, ClusterKind};
use rancher::token::{Batch, DEFAULT, RegistrationToken, SYSTEM, TokenSecret, ValueError};

use crate::report::rescue;
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
    /// Its agent was connected, and is not.
    pub(crate) is_disconnected: bool,
}

impl From<Cluster> for ListedCluster {
    fn from(cluster: Cluster) -> Self {
        Self {
            is_disconnected: rescue::is_disconnected(&cluster),
            display_name: cluster.display_name,
            kind: cluster.kind,
            applied: cluster.applied_token,
        }
    }
}

impl Group {
    fn named(&self, name: &str) -> Option<&RegistrationToken> {
        self.tokens.iter().find(|token| token.object.name == name)
    }

    /// Whether one of the tokens has this value now or had it before. `None`: not every value can be read.
    fn has(&self, value: Fingerprint) -> Option<bool> {
        let of_tokens = self.tokens.iter().map(|token| (token.current(), token.previous()));
        let of_orphans = self
            .orphans
            .iter()
            .map(|secret| (secret.current.as_ref(), secret.previous.as_ref()));
        let mut values = of_tokens
            .chain(of_orphans)
            .flat_map(|(current, previous)| [current, previous]);
        let found = values.any(|held| held.is_some_and(|held| held.fingerprint() == value));
        let unreadable = |token: &RegistrationToken| token.value == Err(ValueError::NoPermission);
        (found || !self.tokens.iter().any(unreadable)).then_some(found)
    }

    /// What the states of the tokens depend on.
    pub(super) fn inputs(&self, cluster: Option<&ListedCluster>, clusters_known: bool) -> ClusterInputs {
        let kind = cluster.map(|cluster| &cluster.kind);
        let applied = cluster.and_then(|cluster| cluster.applied);
        let (system, default) = (self.named(SYSTEM), self.named(DEFAULT));
        let value = |token: Option<&RegistrationToken>| token?.current().map(Secret::fingerprint);
        let previous = system.and_then(RegistrationToken::previous).map(Secret::fingerprint);
        let system = value(system);
        let agent = match kind {
            Some(ClusterKind::Local) => AgentToken::NoAgent,
            None if clusters_known => AgentToken::NoAgent,
            // Its nodes apply another token than the one that Rancher has recorded (seen on Rancher 2.15.0).
            Some(ClusterKind::Provisioned) => AgentToken::Unknown,
            _ => token_state::agent_token(applied, system, previous, value(default)),
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

    /// Its rows: tokens by name, then orphans, then the agent's token if none of them has it. Never empty.
    pub(super) fn rows(&self, inputs: &RowInputs<'_>) -> Vec<Row> {
        let first = self.tokens.iter().map(|token| token.object.name.as_str()).min();
        let tokens = self
            .tokens
            .iter()
            .map(|token| Row::of_token(token, first == Some(token.object.name.as_str()), inputs));
        let mut rows: Vec<Row> = tokens
            .chain(self.orphans.iter().map(|secret| Row::of_orphan(secret, inputs)))
            .collect();
        let agent = inputs.cluster.agent.fingerprint();
        if rows.is_empty() || agent.is_some_and(|agent| self.has(agent) == Some(false)) {
            rows.push(Row::without_token(inputs));
        }
        rows
    }
}

/// Joins pages: a page may end in the middle of a cluster, so the last cluster waits for the next page.
#[derive(Debug, Default)]
pub(crate) struct Grouping {
    /// By the sort key of the API server, where `/` comes after `-`.
    waiting: BTreeMap<String, Group>,
}

impl Grouping {
    /// With these clusters from the beginning, which may have no tokens.
    pub(crate) fn of<'a>(clusters: impl IntoIterator<Item = &'a String>) -> Self {
        let mut grouping = Self::default();
        for id in clusters {
            grouping.group(id);
        }
        grouping
    }

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

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use rstest::rstest;

    use super::*;
    use crate::fixtures::{cluster, print, system, token, token_secret};

    fn batch(tokens: &[&str]) -> Batch {
        let of = |namespace: &&str| {
            let mut token = system("O");
            (*namespace).clone_into(&mut token.object.namespace);
            token
        };
        Batch {
            tokens: tokens.iter().map(of).collect(),
            orphans: Vec::new(),
        }
    }

    #[test]
    fn a_cluster_without_tokens_is_listed_in_its_place() {
        let mut grouping = Grouping::of(&["c-a".to_owned(), "c-b".to_owned(), "c-c".to_owned(), "c-d".to_owned()]);
        let ids = |groups: Vec<Group>| groups.into_iter().map(|group| group.namespace).collect::<Vec<_>>();
        assert_eq!(ids(grouping.add(Some(batch(&["c-a", "c-c"])))), ["c-a", "c-b"]);
        assert_eq!(ids(grouping.add(Some(batch(&["c-c"])))), [""; 0]);
        assert_eq!(ids(grouping.add(None)), ["c-c", "c-d"]);
    }

    /// NAME, FINGERPRINT, USED BY and the reason of the state of each row.
    fn rows(group: &Group, agent: Option<AgentToken>) -> Vec<String> {
        let cluster = ListedCluster::from(cluster("X"));
        let mut inputs = group.inputs(Some(&cluster), true);
        inputs.agent = agent.unwrap_or(inputs.agent);
        let rows = group.rows(&RowInputs {
            name: &group.cluster_name(Some(&cluster)),
            cluster: &inputs,
            rotation: None,
            rotations_unknown: false,
            now: Timestamp::UNIX_EPOCH,
        });
        let text = |row: &Row| {
            let row = serde_json::to_value(row).unwrap();
            format!(
                "{} {} {} {}",
                row["metadata"]["name"], row["fingerprint"], row["usedBy"], row["reason"]
            )
        };
        rows.iter().map(text).collect()
    }

    fn group(tokens: Vec<RegistrationToken>) -> Group {
        Group {
            namespace: "c-x7k2p".into(),
            tokens,
            orphans: Vec::new(),
        }
    }

    #[test]
    fn a_token_that_rancher_applied_and_no_object_has_gets_a_row() {
        let (x, n) = (print("X"), print("N"));
        let found = rows(&group(vec![token("default-token", "D"), system("N")]), None);
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(
            found[0].contains(" null "),
            "whether the agent uses it is unknown: {found:#?}"
        );
        assert!(
            found[1].starts_with(&format!("\"system\" \"{n}\" [\"system\"]")),
            "{found:#?}"
        );
        assert!(
            found[2].starts_with(&format!("null \"{x}\" [\"agent-inferred\"] \"no registration token")),
            "{found:#?}"
        );
    }

    #[rstest]
    #[case::current(system("X"))]
    #[case::previous(RegistrationToken { secret: Some(token_secret("N", Some("X"))), ..system("N") })]
    #[case::of_another_token(token("default-token", "X"))]
    #[case::unreadable(RegistrationToken { value: Err(ValueError::NoPermission), ..system("") })]
    fn a_token_that_an_object_has_or_may_have_gets_no_further_row(#[case] token: RegistrationToken) {
        let found = rows(&group(vec![token]), None);
        assert_eq!(found.len(), 1, "{found:#?}");
    }

    #[rstest]
    #[case::reported(AgentToken::Reported(print("R")), "[\"agent\"]")]
    #[case::unknown(AgentToken::Unknown, "null")]
    #[case::no_agent(AgentToken::NoAgent, "[]")]
    fn a_cluster_without_tokens_has_a_row(#[case] agent: AgentToken, #[case] used_by: &str) {
        let found = rows(&group(Vec::new()), Some(agent));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(&format!(" {used_by} ")), "{found:#?}");
    }
}
