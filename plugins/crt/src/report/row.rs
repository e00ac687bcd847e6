//! One registration token as a row of `kubectl crt list`, for people and for machines. It holds fingerprints, no value.

use std::borrow::Cow;

use cli::age;
use cli::output::Printable;
use cli::table::Column;
use client::ownership::Owner;
use client::secret::Fingerprint;
use engine::lock::Record;
use k8s_openapi::jiff::Timestamp;
use rancher::cluster::Cluster;
use rancher::token_storage::TokenStorage;
use rancher::token::{RegistrationToken, SYSTEM, TokenSecret};
use rancher::{Observed, Problem};
use serde::Serialize;

use super::API_VERSION;
use super::judge::{self, AgentAddress, Facts, State, Surroundings, User};
use super::product::{Rotation, changes};

/// A row.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    cluster: ClusterName,
    era: TokenStorage,
    fingerprint: Option<Fingerprint>,
    previous_fingerprint: Option<Fingerprint>,
    expires_at: Option<Timestamp>,
    grace_ends_at: Option<Timestamp>,
    /// `None`: it cannot be told.
    used_by: Option<Vec<User>>,
    state: &'static str,
    reason: String,
    /// What Rancher said of the value when it was asked just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<Accepted>,
    /// What else writes the token, and would write its old state back.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<String>,
    /// Where the cluster's agent connects to, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<AgentAddress>,
    last_rotated: Option<Timestamp>,
    last_result: Option<String>,
    problems: Vec<String>,
    #[serde(skip)]
    shown: Shown,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    creation_timestamp: Option<Timestamp>,
}

/// The cluster of a row.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterName {
    /// Its id.
    pub id: String,
    /// What the user calls it; `None` where clusters may not be read, or there is no such cluster.
    pub display_name: Option<String>,
    /// What sort of cluster it is.
    pub kind: Option<String>,
}

impl ClusterName {
    /// Of a cluster that was found.
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            id: cluster.id.to_string(),
            display_name: Some(cluster.display_name.clone()),
            kind: Some(cluster.kind.to_string()),
        }
    }
}

/// What Rancher says of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accepted {
    /// It is accepted.
    Yes,
    /// It is refused.
    No,
    /// Rancher did not say.
    Unknown,
}

/// What only the table shows.
#[derive(Clone, Debug, Default)]
struct Shown {
    orphan: bool,
    age: String,
    expires: String,
    state: String,
    last: String,
}

/// What a row needs to know besides the token.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// What else is known of it.
    pub around: &'a Surroundings,
    /// Its Lease.
    pub rotation: Option<&'a Rotation>,
    /// Leases may not be read.
    pub rotations_unknown: bool,
    /// By the server's clock.
    pub now: Timestamp,
}

impl Row {
    /// The row of a registration token.
    pub fn of_token(token: &RegistrationToken, is_first: bool, scene: &Scene<'_>) -> Self {
        let facts = facts(token, is_first, scene.rotation);
        let problems = token.problems.iter();
        let row = Self::new(&token.object, token.created, &facts, problems, scene);
        let of_secret = || token.secret.as_ref().and_then(|secret| secret.managed_by.as_ref());
        row.managed_by(token.managed_by.as_ref().or_else(of_secret))
    }

    fn managed_by(mut self, owner: Option<&Owner>) -> Self {
        self.managed_by = owner.map(ToString::to_string);
        self
    }

    /// The row of a Secret that has no registration token.
    pub fn of_orphan(secret: &TokenSecret, scene: &Scene<'_>) -> Self {
        let value = secret.current.as_ref().map(client::secret::Secret::fingerprint);
        let facts = Facts {
            era: TokenStorage::Secret,
            value: value.ok_or(rancher::token::ValueError::NotYet),
            previous: secret.previous.as_ref().map(client::secret::Secret::fingerprint),
            grace_ends_at: secret.grace_ends_at,
            expires_at: secret.expires_at,
            deleting: secret.deleting,
            orphan: true,
            is_system: false,
            bridge: false,
            is_first: false,
            rotating: scene
                .rotation
                .is_some_and(|rotation| changes(rotation, &secret.object.name)),
        };
        let row = Self::new(&secret.object, secret.created, &facts, secret.problems.iter(), scene);
        row.managed_by(secret.managed_by.as_ref())
    }

    fn new<'p>(
        object: &Observed,
        created: Option<Timestamp>,
        facts: &Facts,
        problems: impl Iterator<Item = &'p Problem>,
        scene: &Scene<'_>,
    ) -> Self {
        let state = judge::state(facts, scene.around, scene.now);
        let record = scene.rotation.map(|rotation| &rotation.record);
        Self {
            api_version: API_VERSION,
            kind: "RegistrationToken",
            metadata: Metadata {
                name: object.name.clone(),
                namespace: object.namespace.clone(),
                uid: object.uid.clone(),
                creation_timestamp: created,
            },
            cluster: scene.cluster.clone(),
            era: facts.era,
            fingerprint: facts.value.as_ref().ok().copied(),
            previous_fingerprint: facts.previous,
            expires_at: facts.expires_at,
            grace_ends_at: facts.grace_ends_at,
            used_by: judge::users(facts, scene.around),
            state: state.word(),
            reason: state.reason(),
            accepted: None,
            managed_by: None,
            address: scene.around.address.clone(),
            last_rotated: record.and_then(|record| record.last_run),
            last_result: record.and_then(|record| record.last_result.clone()),
            problems: problems.map(ToString::to_string).collect(),
            shown: Shown {
                orphan: facts.orphan,
                age: age::since(scene.now, created),
                expires: age::until(scene.now, facts.expires_at),
                state: shown_state(&state),
                last: last_rotated(record, scene),
            },
        }
    }

    /// With what Rancher said of the value.
    #[must_use]
    pub fn asked(mut self, accepted: Accepted) -> Self {
        self.accepted = Some(accepted);
        self
    }

    /// The cells of the table, with or without the one that `--probe` adds.
    fn cells_with(&self, probed: bool) -> Vec<Cow<'_, str>> {
        let print = |value: &Option<Fingerprint>, none: &'static str| match value {
            Some(value) => Cow::from(value.to_string()),
            None => Cow::from(none),
        };
        let users = match self.used_by.as_deref() {
            None => Cow::from("<unknown>"),
            Some([]) => Cow::from("nobody"),
            Some(users) => Cow::from(users.iter().map(User::to_string).collect::<Vec<_>>().join(",")),
        };
        let mut cells = vec![
            self.cluster.display_name.as_deref().unwrap_or("<unknown>").into(),
            self.cluster.id.as_str().into(),
            self.metadata.name.as_str().into(),
            print(&self.fingerprint, "<unknown>"),
            self.shown.age.as_str().into(),
            self.shown.expires.as_str().into(),
            users,
            self.shown.state.as_str().into(),
        ];
        if probed {
            cells.push(self.accepted_cell().into());
        }
        cells.extend([
            self.shown.last.as_str().into(),
            print(&self.previous_fingerprint, "<none>"),
            self.cluster.kind.as_deref().unwrap_or("<unknown>").into(),
            self.era.to_string().into(),
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

/// The judge's view of a token.
pub fn facts(token: &RegistrationToken, is_first: bool, rotation: Option<&Rotation>) -> Facts {
    let bridge = token.labels.contains_key(crate::controller::TEMPORARY_LABEL);
    let of_this_run = bridge && rotation.is_some_and(Rotation::in_progress);
    let in_secret = token.secret_name.is_some() || token.secret.is_some();
    Facts {
        era: if in_secret { TokenStorage::Secret } else { TokenStorage::Status },
        value: token
            .value
            .as_ref()
            .map(client::secret::Secret::fingerprint)
            .map_err(|why| *why),
        previous: token.previous().map(client::secret::Secret::fingerprint),
        grace_ends_at: token.grace_ends_at(),
        expires_at: token.expires_at(),
        deleting: token.deleting,
        orphan: false,
        is_system: token.object.name == SYSTEM,
        bridge,
        is_first,
        rotating: of_this_run || rotation.is_some_and(|rotation| changes(rotation, &token.object.name)),
    }
}

/// A word for the column; `rotated, not pushed` reads better there than with dashes.
fn shown_state(state: &State) -> String {
    match state {
        State::NotPushed => "rotated, not pushed".to_owned(),
        other => other.to_string(),
    }
}

fn last_rotated(record: Option<&Record>, scene: &Scene<'_>) -> String {
    let undone = |record: &Record| {
        record
            .last_result
            .as_deref()
            .is_some_and(|result| result.starts_with("undone"))
    };
    match record {
        _ if scene.rotations_unknown => "<unknown>".to_owned(),
        Some(record) if record.last_run.is_some() => {
            let ago = age::since(scene.now, record.last_run);
            if undone(record) { format!("{ago} (undone)") } else { ago }
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
        Column::wide("ERA"),
        Column::wide("MANAGED BY"),
        Column::wide("PROBLEMS"),
    ];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        self.cells_with(false)
    }

    fn name(&self) -> String {
        let name = &self.metadata.name;
        if self.shown.orphan {
            format!("secret/{name}")
        } else {
            format!("clusterregistrationtoken.management.cattle.io/{name}")
        }
    }
}

/// A row of `list --probe`, which has one column more.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Probed(pub Row);

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
        Column::wide("ERA"),
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
mod tests {
    use cli::table::{Look, Table};
    use client::secret::Secret;
    use rancher::token::Unknown;

    use super::*;
    use crate::report::judge::Agent;

    fn token(name: &str, value: Result<Secret, Unknown>) -> RegistrationToken {
        RegistrationToken {
            object: Observed {
                namespace: "c-x7k2p".into(),
                name: name.into(),
                uid: "u".into(),
                resource_version: "1".into(),
            },
            cluster_name: "c-x7k2p".into(),
            labels: [].into(),
            annotations: [].into(),
            created: "2026-11-20T09:00:00Z".parse().ok(),
            deleting: false,
            managed_by: None,
            value,
            secret: None,
            secret_name: Some(format!("crt-token-{name}")),
            leftover: None,
            status_expires_at: "2026-12-20T09:00:00Z".parse().ok(),
            status_grace_ends_at: None,
            has_commands: true,
            problems: Vec::new(),
        }
    }

    fn rows(rotation: Option<&Rotation>) -> Vec<Row> {
        let value = Secret::new("throw-away");
        let around = Surroundings {
            agent: Agent::Told(value.fingerprint()),
            system: Some(value.fingerprint()),
            applied: Some(value.fingerprint()),
            ..Surroundings::default()
        };
        let cluster = ClusterName {
            id: "c-x7k2p".into(),
            display_name: Some("oslo".into()),
            kind: Some("imported".into()),
        };
        let now = "2026-11-22T09:00:00Z".parse().unwrap();
        let scene = Scene {
            cluster: &cluster,
            around: &around,
            rotation,
            rotations_unknown: false,
            now,
        };
        vec![
            Row::of_token(&token("default-token", Err(ValueError::NoPermission)), true, &scene),
            Row::of_token(&token("system", Ok(value)), false, &scene),
        ]
    }

    fn table<T: Printable>(rows: impl IntoIterator<Item = T>, wide: bool) -> String {
        let mut table = Table::new(T::COLUMNS);
        for row in rows {
            table.row(row.cells());
        }
        table.render(Look {
            wide,
            no_headers: false,
        })
    }

    #[test]
    fn a_table_that_kubectl_could_have_printed() {
        insta::assert_snapshot!(table(rows(None), false), @r"
        CLUSTER   ID        NAME            FINGERPRINT   AGE   EXPIRES   USED BY        STATE       LAST ROTATED
        oslo      c-x7k2p   default-token   <unknown>     2d    28d       <unknown>      <unknown>   <never>
        oslo      c-x7k2p   system          34a6910fab    2d    28d       agent,system   current     <never>
        ");
    }

    #[test]
    fn the_wide_table_and_the_one_of_a_probe_have_a_cell_for_each_column() {
        for row in rows(None) {
            assert_eq!(row.cells().len(), Row::COLUMNS.len());
            let probed = Probed(row.asked(Accepted::Yes));
            assert_eq!(probed.cells().len(), Probed::COLUMNS.len());
        }
    }

    #[test]
    fn the_last_rotation_is_that_of_the_cluster_and_one_that_was_undone_says_so() {
        let record = Record {
            last_run: "2026-11-22T08:00:00Z".parse().ok(),
            last_result: Some("undone: no proof in time".into()),
            ..Record::default()
        };
        let rotation = Rotation::from(record);
        assert!(
            table(rows(Some(&rotation)), false).ends_with("current     60m (undone)\n"),
            "{}",
            table(rows(Some(&rotation)), false)
        );
    }

    #[test]
    fn the_machine_form_has_no_value_in_it() {
        let text = serde_json::to_string(&rows(None)).unwrap();
        assert!(!text.contains("throw-away"), "{text}");
        assert!(text.contains(r#""usedBy":["agent","system"]"#), "{text}");
    }
}
