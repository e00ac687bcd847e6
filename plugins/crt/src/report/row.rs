//! One registration token as a row of `kubectl crt list` and as a document. It has fingerprints, no value.

use std::borrow::Cow;

use cli::age;
use cli::output::Printable;
use cli::table::Column;
use client::ownership::Owner;
use client::secret::{Fingerprint, Secret};
use engine::lock::LeaseRecord;
use k8s_openapi::jiff::Timestamp;
use rancher::cluster::Cluster;
use rancher::token::{RegistrationToken, SYSTEM, TokenSecret, ValueError};
use rancher::{Observed, Problem, TokenStorage};
use serde::Serialize;

use super::API_VERSION;
use super::rotation::{ClusterRotation, changes};
use super::token_state::{self, AgentAddress, AgentToken, ClusterInputs, Consumer, State, TokenInputs};

/// A row.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    cluster: ClusterName,
    token_storage: Option<TokenStorage>,
    fingerprint: Option<Fingerprint>,
    previous_fingerprint: Option<Fingerprint>,
    expires_at: Option<Timestamp>,
    grace_ends_at: Option<Timestamp>,
    /// `None`: unknown.
    used_by: Option<Vec<Consumer>>,
    state: &'static str,
    reason: String,
    /// Whether Rancher accepts the value, with `--probe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<Accepted>,
    /// The owner of the token, which would restore its old state.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<String>,
    /// Where the cluster's agent connects to, with `--probe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<AgentAddress>,
    last_rotated: Option<Timestamp>,
    last_result: Option<String>,
    problems: Vec<String>,
    #[serde(skip)]
    text: TableText,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    /// `None`, as `uid`: there is no such object.
    name: Option<String>,
    namespace: String,
    uid: Option<String>,
    creation_timestamp: Option<Timestamp>,
}

/// The cluster of a row.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterName {
    /// Its id.
    pub(crate) id: String,
    /// Its display name. `None`: clusters cannot be read, or the cluster does not exist.
    pub(crate) display_name: Option<String>,
    /// What kind of cluster it is.
    pub(crate) kind: Option<String>,
}

impl ClusterName {
    /// Of a cluster.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self {
            id: cluster.id.to_string(),
            display_name: Some(cluster.display_name.clone()),
            kind: Some(cluster.kind.to_string()),
        }
    }
}

/// Whether Rancher accepts a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Accepted {
    /// It does.
    Yes,
    /// It rejects the value.
    No,
    /// It is unknown.
    Unknown,
}

/// The cells that only the table has.
#[derive(Clone, Debug, Default)]
struct TableText {
    orphan: bool,
    age: String,
    expires: String,
    state: String,
    last: String,
}

/// The inputs of a row besides the token.
#[derive(Clone, Debug)]
pub(crate) struct RowInputs<'a> {
    /// The names of the cluster.
    pub(crate) name: &'a ClusterName,
    /// What else is known of it.
    pub(crate) cluster: &'a ClusterInputs,
    /// Its Lease.
    pub(crate) rotation: Option<&'a ClusterRotation>,
    /// Leases cannot be read.
    pub(crate) rotations_unknown: bool,
    /// By the server's clock.
    pub(crate) now: Timestamp,
}

impl Row {
    /// Whether the agent uses the token.
    pub(crate) fn is_of_agent(&self) -> bool {
        let of_agent = |consumer: &Consumer| matches!(consumer, Consumer::Agent | Consumer::AgentInferred);
        self.used_by
            .as_ref()
            .is_some_and(|used_by| used_by.iter().any(of_agent))
    }

    /// The row of a registration token.
    pub(crate) fn of_token(token: &RegistrationToken, is_first: bool, inputs: &RowInputs<'_>) -> Self {
        let token_inputs = token_inputs(token, is_first, inputs.rotation);
        let problems = token.problems.iter();
        let row = Self::new(&token.object, token.created, &token_inputs, problems, inputs);
        let of_secret = || token.secret.as_ref().and_then(|secret| secret.managed_by.as_ref());
        row.managed_by(token.managed_by.as_ref().or_else(of_secret))
    }

    fn managed_by(mut self, owner: Option<&Owner>) -> Self {
        self.managed_by = owner.map(ToString::to_string);
        self
    }

    /// The row of a Secret that has no registration token.
    pub(crate) fn of_orphan(secret: &TokenSecret, inputs: &RowInputs<'_>) -> Self {
        let value = secret.current.as_ref().map(Secret::fingerprint);
        let token_inputs = TokenInputs {
            storage: TokenStorage::Secret,
            value: value.ok_or(ValueError::NotYet),
            previous: secret.previous.as_ref().map(Secret::fingerprint),
            grace_ends_at: secret.grace_ends_at,
            expires_at: secret.expires_at,
            deleting: secret.deleting,
            orphan: true,
            is_system: false,
            temporary: false,
            is_first: false,
            rotating: inputs
                .rotation
                .is_some_and(|rotation| changes(rotation, &secret.object.name)),
        };
        let row = Self::new(
            &secret.object,
            secret.created,
            &token_inputs,
            secret.problems.iter(),
            inputs,
        );
        row.managed_by(secret.managed_by.as_ref())
    }

    /// The row of a cluster without registration tokens, or of an agent whose token none of them has.
    pub(crate) fn without_token(inputs: &RowInputs<'_>) -> Self {
        let agent = inputs.cluster.agent;
        Self {
            fingerprint: agent.fingerprint(),
            used_by: match agent {
                AgentToken::Unknown => None,
                AgentToken::NoAgent => Some(Vec::new()),
                agent => Some(vec![agent.consumer()]),
            },
            ..Self::of_cluster(&token_state::missing(agent), inputs)
        }
    }

    fn new<'p>(
        object: &Observed,
        created: Option<Timestamp>,
        token: &TokenInputs,
        problems: impl Iterator<Item = &'p Problem>,
        inputs: &RowInputs<'_>,
    ) -> Self {
        let row = Self::of_cluster(&token_state::state(token, inputs.cluster, inputs.now), inputs);
        Self {
            metadata: Metadata {
                name: Some(object.name.clone()),
                namespace: object.namespace.clone(),
                uid: Some(object.uid.clone()),
                creation_timestamp: created,
            },
            token_storage: Some(token.storage),
            fingerprint: token.value.as_ref().ok().copied(),
            previous_fingerprint: token.previous,
            expires_at: token.expires_at,
            grace_ends_at: token.grace_ends_at,
            used_by: token_state::consumers(token, inputs.cluster),
            problems: problems.map(ToString::to_string).collect(),
            text: TableText {
                orphan: token.orphan,
                age: age::since(inputs.now, created),
                expires: age::until(inputs.now, token.expires_at),
                ..row.text
            },
            ..row
        }
    }

    /// What is known without a token.
    fn of_cluster(state: &State, inputs: &RowInputs<'_>) -> Self {
        let record = inputs.rotation.map(|rotation| &rotation.record);
        Self {
            api_version: API_VERSION,
            kind: "RegistrationToken",
            metadata: Metadata {
                name: None,
                namespace: inputs.name.id.clone(),
                uid: None,
                creation_timestamp: None,
            },
            cluster: inputs.name.clone(),
            token_storage: None,
            fingerprint: None,
            previous_fingerprint: None,
            expires_at: None,
            grace_ends_at: None,
            used_by: None,
            state: state.word(),
            reason: state.reason(),
            accepted: None,
            managed_by: None,
            address: inputs.cluster.address.clone(),
            last_rotated: record.and_then(|record| record.last_run),
            last_result: record.and_then(|record| record.last_result.clone()),
            problems: Vec::new(),
            text: TableText {
                orphan: false,
                age: age::since(inputs.now, None),
                expires: age::until(inputs.now, None),
                state: state_cell(state),
                last: last_rotated(record, inputs),
            },
        }
    }

    /// The row with whether Rancher accepts the value.
    #[must_use]
    pub(crate) fn with_acceptance(mut self, accepted: Accepted) -> Self {
        self.accepted = Some(accepted);
        self
    }

    /// The cells of the table, with or without those that `--probe` adds.
    fn cells_with(&self, probed: bool) -> Vec<Cow<'_, str>> {
        let print = |value: &Option<Fingerprint>, none: &'static str| match value {
            Some(value) => Cow::from(value.to_string()),
            None => Cow::from(none),
        };
        let used_by = match self.used_by.as_deref() {
            None => Cow::from("<unknown>"),
            Some([]) => Cow::from("<none>"),
            Some(consumers) => Cow::from(consumers.iter().map(Consumer::to_string).collect::<Vec<_>>().join(",")),
        };
        let mut cells = vec![
            self.cluster.display_name.as_deref().unwrap_or("<unknown>").into(),
            self.cluster.id.as_str().into(),
            self.metadata.name.as_deref().unwrap_or("<none>").into(),
            print(&self.fingerprint, "<unknown>"),
            self.text.age.as_str().into(),
            self.text.expires.as_str().into(),
            used_by,
            self.text.state.as_str().into(),
        ];
        if probed {
            cells.push(self.accepted_cell().into());
        }
        cells.extend([
            self.text.last.as_str().into(),
            print(&self.previous_fingerprint, "<none>"),
            self.cluster.kind.as_deref().unwrap_or("<unknown>").into(),
            self.token_storage
                .map_or(Cow::from("<unknown>"), |storage| storage.to_string().into()),
            self.managed_by.as_deref().unwrap_or("<none>").into(),
        ]);
        if probed {
            let address = self.address.as_ref();
            cells.push(address.map_or(Cow::from("<unknown>"), |address| address.to_string().into()));
        }
        cells.push(if self.problems.is_empty() {
            "<none>".into()
        } else {
            self.problems.join("; ").into()
        });
        cells
    }

    fn accepted_cell(&self) -> &'static str {
        match self.accepted {
            Some(Accepted::Yes) => "yes",
            Some(Accepted::No) => "no",
            _ => "<unknown>",
        }
    }
}

fn token_inputs(token: &RegistrationToken, is_first: bool, rotation: Option<&ClusterRotation>) -> TokenInputs {
    let temporary = token.labels.contains_key(crate::controller::TEMPORARY_LABEL);
    let of_this_run = temporary && rotation.is_some_and(ClusterRotation::in_progress);
    let in_secret = token.secret_name.is_some() || token.secret.is_some();
    TokenInputs {
        storage: if in_secret {
            TokenStorage::Secret
        } else {
            TokenStorage::Status
        },
        value: token.value.as_ref().map(Secret::fingerprint).map_err(|why| *why),
        previous: token.previous().map(Secret::fingerprint),
        grace_ends_at: token.grace_ends_at(),
        expires_at: token.expires_at(),
        deleting: token.deleting,
        orphan: false,
        is_system: token.object.name == SYSTEM,
        temporary,
        is_first,
        rotating: of_this_run || rotation.is_some_and(|rotation| changes(rotation, &token.object.name)),
    }
}

/// The cell of the column STATE.
fn state_cell(state: &State) -> String {
    match state {
        State::NotPushed => "rotated, not pushed".to_owned(),
        other => other.to_string(),
    }
}

fn last_rotated(record: Option<&LeaseRecord>, inputs: &RowInputs<'_>) -> String {
    let rolled_back = |record: &LeaseRecord| {
        let result = record.last_result.as_deref();
        result.is_some_and(|result| result.starts_with("rolled back"))
    };
    match record {
        _ if inputs.rotations_unknown => "<unknown>".to_owned(),
        Some(record) if record.last_run.is_some() => {
            let ago = age::since(inputs.now, record.last_run);
            if rolled_back(record) {
                format!("{ago} (rolled back)")
            } else {
                ago
            }
        }
        _ => "<never>".to_owned(),
    }
}

impl Printable for Row {
    const COLUMNS: &'static [Column] = &[
        Column::new("CLUSTER"),
        Column::new("ID"),
        Column::new("NAME"),
        Column::new("FINGERPRINT"),
        Column::new("AGE"),
        Column::new("EXPIRES"),
        Column::new("USED BY"),
        Column::new("STATE"),
        Column::new("LAST ROTATED"),
        Column::wide("PREVIOUS"),
        Column::wide("KIND"),
        Column::wide("STORAGE"),
        Column::wide("MANAGED BY"),
        Column::wide("PROBLEMS"),
    ];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        self.cells_with(false)
    }

    fn name(&self) -> String {
        match &self.metadata.name {
            None => format!("cluster.management.cattle.io/{}", self.cluster.id),
            Some(name) if self.text.orphan => format!("secret/{name}"),
            Some(name) => format!("clusterregistrationtoken.management.cattle.io/{name}"),
        }
    }
}

/// A row of `list --probe`, which has more columns.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Probed(pub(crate) Row);

impl From<Row> for Probed {
    fn from(row: Row) -> Self {
        Self(row)
    }
}

impl Printable for Probed {
    const COLUMNS: &'static [Column] = &[
        Column::new("CLUSTER"),
        Column::new("ID"),
        Column::new("NAME"),
        Column::new("FINGERPRINT"),
        Column::new("AGE"),
        Column::new("EXPIRES"),
        Column::new("USED BY"),
        Column::new("STATE"),
        Column::new("ACCEPTED"),
        Column::new("LAST ROTATED"),
        Column::wide("PREVIOUS"),
        Column::wide("KIND"),
        Column::wide("STORAGE"),
        Column::wide("MANAGED BY"),
        Column::wide("ADDRESS"),
        Column::wide("PROBLEMS"),
    ];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        self.0.cells_with(true)
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

#[cfg(test)]
mod tests;
