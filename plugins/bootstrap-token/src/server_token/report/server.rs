//! One server of the cluster, and one agent, in `server-token status`.

use cli::table::Column;
use node_access::NodeState;
use serde::Serialize;
use supervisor::EncryptionStatus;
use supervisor::node::{ClusterNode, EtcdMember};
use supervisor::ready::ApiReadiness;

use super::configured::{self, Configured, ConfiguredSource};
use crate::server_token::probe::{Acceptance, Role};

/// What was observed of one server.
#[derive(Clone, Debug)]
pub(crate) struct ServerObservation<'a> {
    pub node: &'a ClusterNode,
    /// Of its supervisor. `None`: it has none, for the reason in `acceptance`.
    pub address: Option<String>,
    /// Of its own API server. `None`: it runs none, or has no address.
    pub readiness: Option<ApiReadiness>,
    /// `None`: no token was passed.
    pub acceptance: Option<Acceptance>,
    /// Of the agent token. `None`: none was passed.
    pub agent_acceptance: Option<Acceptance>,
    /// `None`: it was not asked, since it does not accept the token as a server.
    pub encryption: Option<Result<EncryptionStatus, String>>,
    /// Its files. `None`: they were not read.
    pub files: Option<Result<NodeState, String>>,
}

/// Its row, and its entry in the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerRow {
    pub name: String,
    address: Option<String>,
    version: String,
    /// `yes`, `no` or `unknown`.
    pub ready: &'static str,
    pub ready_reason: Option<String>,
    /// `None`: it does not run etcd.
    pub etcd: Option<&'static str>,
    /// Where its token is configured. `None`: unknown.
    configured: Option<Vec<ConfiguredSource>>,
    agent_token_configured: Option<Vec<ConfiguredSource>>,
    /// Why these are unknown.
    pub configured_unknown: Option<&'static str>,
    /// A token was added to its configuration, or removed, after its last start.
    pub edited: bool,
    /// Why its files could not be read.
    pub files_unknown: Option<String>,
    /// `None`: no token was passed.
    pub accepted: Option<&'static str>,
    accepted_as: Vec<Role>,
    pub accepted_unknown: Option<String>,
    /// What it accepts from agents, where that is asked: `agent-token`, `server-token`, `another` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_agents: Option<&'static str>,
    /// The stage of secrets-encryption, or `off`. `None`: unknown.
    encryption: Option<String>,
}

pub(crate) const COLUMNS: &[Column] = &[
    Column::new("NAME"),
    Column::new("ADDRESS"),
    Column::new("READY"),
    Column::new("ETCD"),
    Column::new("CONFIGURED"),
    Column::new("ACCEPTED"),
    Column::new("ENCRYPTION"),
    Column::wide("ACCEPTED-AS"),
    Column::wide("AGENT-TOKEN"),
    Column::wide("VERSION"),
];

/// Those of `agent-token status`.
pub(crate) const AGENT_TOKEN_COLUMNS: &[Column] = &[
    Column::new("NAME"),
    Column::new("ADDRESS"),
    Column::new("READY"),
    Column::new("ETCD"),
    Column::new("AGENT-TOKEN"),
    Column::new("FROM-AGENTS"),
    Column::wide("VERSION"),
];

/// By what it answers as an agent to the server token, and to the agent token.
fn from_agents(server: Option<&Acceptance>, agent: Option<&Acceptance>) -> Option<&'static str> {
    let accepts = |acceptance: &Acceptance| acceptance.roles().contains(&Role::Agent);
    let is_unknown = |acceptance: &Acceptance| acceptance.reason().is_some();
    match (server, agent) {
        (None, None) => None,
        (_, Some(agent)) if accepts(agent) => Some("agent-token"),
        (Some(server), _) if accepts(server) => Some("server-token"),
        (_, agent) if agent.or(server).is_some_and(is_unknown) => Some("unknown"),
        _ => Some("another"),
    }
}

impl ServerRow {
    pub(crate) fn new(observed: &ServerObservation<'_>) -> Self {
        let node = observed.node;
        let started = configured::of_start(&node.start);
        let files = observed.files.as_ref().and_then(|files| files.as_ref().ok());
        let (token, agent_token) =
            files.map_or_else(|| started.clone(), |files| configured::of_files(&files.configuration));
        let is_edited = matches!((&started.0, &token), (Ok(before), Ok(now)) if before.is_empty() != now.is_empty());
        let (ready, ready_reason) = ready(observed);
        let acceptance = observed.acceptance.as_ref();
        let encryption = observed.encryption.as_ref().and_then(|status| status.as_ref().ok());
        Self {
            name: node.name.clone(),
            address: observed.address.clone(),
            version: node.version.clone(),
            ready,
            ready_reason,
            etcd: node.is_etcd.then(|| member(node.etcd_member)),
            configured_unknown: token.as_ref().err().copied(),
            edited: is_edited,
            files_unknown: observed.files.as_ref().and_then(|files| files.as_ref().err().cloned()),
            configured: token.ok(),
            agent_token_configured: agent_token.ok(),
            accepted: acceptance.map(Acceptance::word),
            accepted_as: acceptance
                .map(|acceptance| acceptance.roles().to_vec())
                .unwrap_or_default(),
            accepted_unknown: acceptance.and_then(Acceptance::reason).map(str::to_owned),
            from_agents: None,
            encryption: encryption.map(encryption_text),
        }
    }

    /// For `agent-token status`.
    pub(crate) fn of_agent_token(observed: &ServerObservation<'_>) -> Self {
        Self {
            from_agents: from_agents(observed.acceptance.as_ref(), observed.agent_acceptance.as_ref()),
            ..Self::new(observed)
        }
    }

    /// Where the agent token is configured.
    pub(crate) fn agent_token_configured(&self) -> Configured {
        of_field(self.agent_token_configured.as_ref())
    }

    pub(crate) fn agent_token_cells(&self) -> Vec<String> {
        let text = |text: Option<&str>, missing: &str| text.unwrap_or(missing).to_owned();
        vec![
            self.name.clone(),
            text(self.address.as_deref(), "<unknown>"),
            self.ready.to_owned(),
            text(self.etcd, "<none>"),
            configured::text(&self.agent_token_configured()),
            text(self.from_agents, "<none>"),
            self.version.clone(),
        ]
    }

    /// Where its token is configured.
    pub(crate) fn configured(&self) -> Configured {
        of_field(self.configured.as_ref())
    }

    pub(crate) fn cells(&self) -> Vec<String> {
        let text = |text: Option<&str>, missing: &str| text.unwrap_or(missing).to_owned();
        vec![
            self.name.clone(),
            text(self.address.as_deref(), "<unknown>"),
            self.ready.to_owned(),
            text(self.etcd, "<none>"),
            configured::text(&self.configured()),
            text(self.accepted, "<none>"),
            text(self.encryption.as_deref(), "unknown"),
            names(&self.accepted_as),
            configured::text(&of_field(self.agent_token_configured.as_ref())),
            self.version.clone(),
        ]
    }
}

fn of_field(field: Option<&Vec<ConfiguredSource>>) -> Configured {
    field.cloned().ok_or("unknown")
}

/// Roles in a table.
pub(crate) fn names(roles: &[Role]) -> String {
    let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    if names.is_empty() {
        "<none>".to_owned()
    } else {
        names.join(", ")
    }
}

fn ready(observed: &ServerObservation<'_>) -> (&'static str, Option<String>) {
    // The route that accepts an agent answers 503 until the server is ready.
    let serves_agents = observed
        .acceptance
        .as_ref()
        .is_some_and(|acceptance| acceptance.roles().contains(&Role::Agent));
    match &observed.readiness {
        Some(ApiReadiness::Ready) => ("yes", None),
        Some(ApiReadiness::NotReady(reason)) => ("no", Some(reason.clone())),
        _ if serves_agents => ("yes", None),
        Some(ApiReadiness::NotUsable(reason)) => ("unknown", Some(reason.clone())),
        None if observed.node.is_control_plane => ("unknown", Some("its address is not known".to_owned())),
        None => ("unknown", Some("it runs no API server".to_owned())),
    }
}

fn member(member: EtcdMember) -> &'static str {
    match member {
        EtcdMember::Voter => "voter",
        EtcdMember::NotVoter => "learner",
        EtcdMember::Unknown => "unknown",
        EtcdMember::Missing => "missing",
    }
}

fn encryption_text(status: &EncryptionStatus) -> String {
    match (status.enable, status.stage.as_str()) {
        (Some(true), "") => "on".to_owned(),
        (_, "") => "off".to_owned(),
        (Some(true), stage) => client::sanitize::line(stage),
        (_, stage) => format!("disabled ({})", client::sanitize::line(stage)),
    }
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentRow {
    name: String,
    version: String,
    /// By its Node. `None`: unknown.
    ready: Option<bool>,
    configured: Option<Vec<ConfiguredSource>>,
}

pub(crate) const AGENT_COLUMNS: &[Column] = &[
    Column::new("AGENT"),
    Column::new("READY"),
    Column::new("CONFIGURED"),
    Column::new("VERSION"),
];

impl AgentRow {
    pub(crate) fn new(node: &ClusterNode, files: Option<&Result<NodeState, String>>) -> Self {
        let files = files.and_then(|files| files.as_ref().ok());
        let configured = files.map_or_else(
            || configured::of_start(&node.start).0,
            |files| configured::of_files(&files.configuration).0,
        );
        Self {
            name: node.name.clone(),
            version: node.version.clone(),
            ready: node.is_ready,
            configured: configured.ok(),
        }
    }

    /// Where its token is configured, in words.
    pub(crate) fn configured(&self) -> String {
        configured::text(&of_field(self.configured.as_ref()))
    }

    pub(crate) fn cells(&self) -> Vec<String> {
        let ready = match self.ready {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        vec![
            self.name.clone(),
            ready.to_owned(),
            self.configured(),
            self.version.clone(),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rstest::rstest;
    use serde_json::json;
    use supervisor::Distribution;
    use supervisor::node::{StartConfiguration, TokenSource};

    use super::*;

    /// A server that was started with a flag for the token, or without.
    pub(crate) fn server(name: &str, arguments: &[&str]) -> ClusterNode {
        let has_token = arguments.contains(&"--token");
        ClusterNode {
            name: name.to_owned(),
            uid: String::new(),
            machine_id: String::new(),
            distribution: Distribution::K3s,
            version: "v1.36.3+k3s1".to_owned(),
            is_control_plane: true,
            is_etcd: true,
            etcd_member: EtcdMember::Voter,
            is_ready: Some(true),
            has_been_ready: Some(true),
            internal_ips: vec!["10.0.0.1".to_owned()],
            start: StartConfiguration::Read {
                token: if has_token {
                    vec![TokenSource::FlagOrConfig]
                } else {
                    Vec::new()
                },
                agent_token: Vec::new(),
                has_datastore_endpoint: false,
                has_server: arguments.contains(&"--server"),
            },
            manager: None,
        }
    }

    /// A ready server; no token was passed.
    pub(crate) fn observed(node: &ClusterNode) -> ServerObservation<'_> {
        ServerObservation {
            node,
            address: Some("10.0.0.1:6443".to_owned()),
            readiness: Some(ApiReadiness::Ready),
            acceptance: None,
            agent_acceptance: None,
            encryption: None,
            files: None,
        }
    }

    pub(crate) fn accepted() -> Acceptance {
        Acceptance::Accepted(vec![Role::Server, Role::Agent])
    }

    pub(crate) fn encryption_of(status: &str) -> EncryptionStatus {
        serde_json::from_str(status).unwrap()
    }

    #[test]
    fn a_row_has_what_the_kubernetes_api_shows_and_what_the_server_answers() {
        let node = server("s1", &["--token"]);
        let without = ServerRow::new(&observed(&node));
        assert_eq!(
            without.cells(),
            [
                "s1",
                "10.0.0.1:6443",
                "yes",
                "voter",
                "flag or config file",
                "<none>",
                "unknown",
                "<none>",
                "nowhere",
                "v1.36.3+k3s1"
            ]
        );
        let with = ServerRow::new(&ServerObservation {
            acceptance: Some(accepted()),
            encryption: Some(Ok(encryption_of(r#"{"stage":"","activekey":""}"#))),
            ..observed(&node)
        });
        assert_eq!(with.cells()[5..8], ["yes", "off", "server, agent"]);
        assert_eq!(
            serde_json::to_value(&with).unwrap(),
            json!({
                "name": "s1", "address": "10.0.0.1:6443", "version": "v1.36.3+k3s1",
                "ready": "yes", "readyReason": null, "etcd": "voter",
                "configured": [{ "source": "flag-or-config" }], "agentTokenConfigured": [], "configuredUnknown": null, "edited": false, "filesUnknown": null,
                "accepted": "yes", "acceptedAs": ["server", "agent"], "acceptedUnknown": null, "encryption": "off",
            })
        );
    }

    #[rstest]
    #[case::ready(Some(ApiReadiness::Ready), None, "yes")]
    #[case::starting(Some(ApiReadiness::NotReady("503".into())), Some(accepted()), "no")]
    #[case::through_rancher(Some(ApiReadiness::NotUsable("tls".into())), Some(accepted()), "yes")]
    #[case::as_server_only(Some(ApiReadiness::NotUsable("tls".into())), Some(Acceptance::Accepted(vec![Role::Server])), "unknown")]
    #[case::without_token(Some(ApiReadiness::NotUsable("tls".into())), None, "unknown")]
    #[case::without_address(None, None, "unknown")]
    fn a_server_is_ready_by_its_api_or_as_an_agent_sees_it(
        #[case] readiness: Option<ApiReadiness>,
        #[case] acceptance: Option<Acceptance>,
        #[case] expected: &str,
    ) {
        let node = server("s1", &[]);
        let row = ServerRow::new(&ServerObservation {
            readiness,
            acceptance,
            ..observed(&node)
        });
        assert_eq!((row.ready, row.ready_reason.is_none()), (expected, expected == "yes"));
    }

    #[rstest]
    #[case(r#"{"stage":"","activekey":""}"#, "off")]
    #[case(r#"{"stage":"start","activekey":"a","enable":true}"#, "start")]
    #[case(r#"{"stage":"start","activekey":"a","enable":false}"#, "disabled (start)")]
    fn the_stage_of_the_encryption_is_shown(#[case] status: &str, #[case] text: &str) {
        assert_eq!(encryption_text(&encryption_of(status)), text);
    }
}
