//! What the Kubernetes API shows about the servers and agents of K3s and RKE2.
//!
//! A server writes its arguments and its environment in annotations of its Node when it starts. Secrets in them are masked. The file
//! of a configuration is merged into the arguments, so the two look the same, and an edit shows only after a restart.

use std::collections::BTreeMap;

use client::request::{self, Item, ListOptions, Metadata, Resource};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::distribution::{Distribution, SupervisorKind};

/// How soon after a Node was created its kubelet reports its conditions.
const FIRST_REPORT: SignedDuration = SignedDuration::from_secs(5);

const NODE: Resource = Resource::new("Node", "v1", "nodes");
const DEFINITION: Resource = Resource::new(
    "CustomResourceDefinition",
    "apiextensions.k8s.io/v1",
    "customresourcedefinitions",
);

/// A Node of K3s or RKE2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its name.
    pub name: String,
    /// Tells it from a later Node of the same name.
    pub uid: String,
    /// Its `/etc/machine-id`. Empty: not known.
    pub machine_id: String,
    /// Its distribution, by the version of its kubelet.
    pub distribution: Distribution,
    /// The version of its kubelet.
    pub version: String,
    /// It runs an API server.
    pub is_control_plane: bool,
    /// It runs etcd.
    pub is_etcd: bool,
    /// Whether it is a member of etcd.
    pub etcd_member: EtcdMember,
    /// Its condition `Ready`. `None`: unknown.
    pub is_ready: Option<bool>,
    /// Whether it has ever been ready. `Some(false)`: it has not been since it was created. `None`: not known.
    pub has_been_ready: Option<bool>,
    /// Its InternalIPs, unparsed ([`ServerAddress::of_node`](crate::ServerAddress::of_node)).
    pub internal_ips: Vec<String>,
    /// How it was started.
    pub start: StartConfiguration,
    /// What manages it.
    pub manager: Option<NodeManager>,
}

/// Whether a server is a member of etcd, by the condition `EtcdIsVoter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EtcdMember {
    /// It votes.
    Voter,
    /// It is a learner, or is joining.
    NotVoter,
    /// The condition is `Unknown`.
    Unknown,
    /// There is no such condition.
    Missing,
}

/// What configures a server or an agent, by what its last start has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartConfiguration {
    /// The annotations were read.
    Read {
        /// Where the token is configured, in the order in which K3s obeys them. Empty: nowhere, so a server uses its own file
        /// `server/token`.
        token: Vec<TokenSource>,
        /// Where a separate token for agents is configured.
        agent_token: Vec<TokenSource>,
        /// The datastore is not K3s' own.
        has_datastore_endpoint: bool,
        /// It was started with the address of another server.
        has_server: bool,
    },
    /// They are missing or malformed.
    Unknown(&'static str),
}

/// Where a token is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// In this file, by a flag, a configuration file or the environment.
    File(String),
    /// By the flag `--token` or in a configuration file.
    FlagOrConfig,
    /// In the environment.
    Environment,
}

/// What manages a Node, and with it the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeManager {
    /// Rancher has provisioned the cluster.
    Rancher,
    /// Harvester.
    Harvester,
}

impl ClusterNode {
    /// It is a server, with the supervisor that it has.
    pub fn supervisor(&self) -> Option<SupervisorKind> {
        let is_server = self.is_control_plane || self.is_etcd;
        self.distribution.supervisor().filter(|_| is_server)
    }
}

/// All Nodes.
pub async fn list(client: &kube::Client) -> request::Result<Vec<ClusterNode>> {
    let nodes: Vec<RawNode> = request::list_all(client, NODE, &ListOptions::default()).await?;
    Ok(nodes.into_iter().map(ClusterNode::from).collect())
}

/// Whether the cluster is a Harvester, by its settings.
pub async fn is_harvester(client: &kube::Client) -> request::Result<bool> {
    let definition = request::get_metadata(client, DEFINITION, None, "settings.harvesterhci.io").await?;
    Ok(definition.is_some())
}

#[derive(Deserialize)]
struct RawNode {
    metadata: Metadata,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    conditions: Vec<RawCondition>,
    addresses: Vec<RawAddress>,
    node_info: RawInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCondition {
    r#type: String,
    status: String,
    last_transition_time: Option<String>,
}

#[derive(Deserialize)]
struct RawAddress {
    r#type: String,
    address: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawInfo {
    kubelet_version: String,
    #[serde(rename = "machineID")]
    machine_id: String,
}

/// The API server checks Nodes, so none is malformed.
impl Item for RawNode {}

impl RawNode {
    fn has_label(&self, name: &str) -> bool {
        self.metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(name))
    }

    fn condition(&self, name: &str) -> Option<&str> {
        let condition = self.status.conditions.iter().find(|condition| condition.r#type == name);
        condition.map(|condition| condition.status.as_str())
    }

    /// Not ready since it was created: its first kubelet says so within seconds.
    fn has_been_ready(&self) -> Option<bool> {
        let mut conditions = self.status.conditions.iter();
        let ready = conditions.find(|condition| condition.r#type == "Ready")?;
        match ready.status.as_str() {
            "True" => Some(true),
            "False" => {
                let since: Timestamp = ready.last_transition_time.as_deref()?.parse().ok()?;
                let age = since.duration_since(self.metadata.created()?);
                (age < FIRST_REPORT).then_some(false)
            }
            _ => None,
        }
    }

    fn manager(&self) -> Option<NodeManager> {
        // A node of Harvester has the marks of both.
        if self.has_label("harvesterhci.io/managed") {
            Some(NodeManager::Harvester)
        } else if self.metadata.annotation("cluster.x-k8s.io/machine").is_some()
            || self.has_label("rke.cattle.io/machine")
        {
            Some(NodeManager::Rancher)
        } else {
            None
        }
    }
}

impl From<RawNode> for ClusterNode {
    fn from(node: RawNode) -> Self {
        let has_role = |role: &str| node.has_label(&format!("node-role.kubernetes.io/{role}"));
        let distribution = Distribution::of_version(&node.status.node_info.kubelet_version);
        let internal = node
            .status
            .addresses
            .iter()
            .filter(|address| address.r#type == "InternalIP");
        Self {
            distribution,
            is_control_plane: has_role("control-plane") || has_role("master"),
            is_etcd: has_role("etcd"),
            etcd_member: match node.condition("EtcdIsVoter") {
                Some("True") => EtcdMember::Voter,
                Some("False") => EtcdMember::NotVoter,
                Some(_) => EtcdMember::Unknown,
                None => EtcdMember::Missing,
            },
            is_ready: match node.condition("Ready") {
                Some("True") => Some(true),
                Some("False") => Some(false),
                _ => None,
            },
            has_been_ready: node.has_been_ready(),
            internal_ips: internal.map(|address| address.address.clone()).collect(),
            start: match distribution.supervisor() {
                Some(kind) => StartConfiguration::of(&node.metadata, kind),
                None => StartConfiguration::Unknown("the node is neither of K3s nor of RKE2"),
            },
            manager: node.manager(),
            machine_id: node.status.node_info.machine_id,
            version: node.status.node_info.kubelet_version,
            name: node.metadata.name,
            uid: node.metadata.uid,
        }
    }
}

impl StartConfiguration {
    fn of(node: &Metadata, kind: SupervisorKind) -> Self {
        let annotation = |name: &str| node.annotation(&format!("{}.io/{name}", kind.program()));
        let Some(arguments) = annotation("node-args") else {
            return Self::Unknown("the node does not show its arguments");
        };
        let Ok(arguments) = serde_json::from_str::<Vec<String>>(arguments) else {
            return Self::Unknown("the arguments that the node shows are malformed");
        };
        let Ok(environment) = serde_json::from_str(annotation("node-env").unwrap_or("{}")) else {
            return Self::Unknown("the environment that the node shows is malformed");
        };
        Configured {
            arguments,
            environment,
            kind,
        }
        .read()
    }
}

struct Configured {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    kind: SupervisorKind,
}

impl Configured {
    fn read(&self) -> StartConfiguration {
        StartConfiguration::Read {
            token: self.sources(&["--token", "-t"], &["--token-file"], "TOKEN"),
            agent_token: self.sources(&["--agent-token"], &["--agent-token-file"], "AGENT_TOKEN"),
            has_datastore_endpoint: self.flag(&["--datastore-endpoint"]).is_some()
                || self.variable("DATASTORE_ENDPOINT").is_some(),
            has_server: self.flag(&["--server", "-s"]).is_some() || self.variable("URL").is_some(),
        }
    }

    /// The value of a flag, which follows it or is behind `=`.
    fn flag(&self, names: &[&str]) -> Option<&str> {
        let mut arguments = self.arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument.as_str(), None),
            };
            if names.contains(&name) {
                return value.or_else(|| arguments.next().map(String::as_str)).or(Some(""));
            }
        }
        None
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let prefix = self.kind.program().to_ascii_uppercase();
        self.environment.get(&format!("{prefix}_{name}")).map(String::as_str)
    }

    fn sources(&self, flags: &[&str], file_flags: &[&str], variable: &str) -> Vec<TokenSource> {
        let file = self
            .flag(file_flags)
            .or_else(|| self.variable(&format!("{variable}_FILE")));
        let value = self.flag(flags).map(|_| TokenSource::FlagOrConfig);
        let environment = self.variable(variable).map(|_| TokenSource::Environment);
        let file = file.map(|path| TokenSource::File(path.to_owned()));
        [file, value, environment].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn node(version: &str, metadata: &Value, conditions: &Value) -> ClusterNode {
        let addresses = json!([
            { "type": "InternalIP", "address": "10.0.0.1" },
            { "type": "Hostname", "address": "s1" },
            { "type": "InternalIP", "address": "fd00::1" },
        ]);
        let mut metadata = metadata.clone();
        metadata["name"] = "s1".into();
        let status =
            json!({ "conditions": conditions, "addresses": addresses, "nodeInfo": { "kubeletVersion": version } });
        let raw: RawNode = serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap();
        raw.into()
    }

    fn start(program: &str, arguments: &Value, environment: &Value) -> StartConfiguration {
        let annotations = json!({
            format!("{program}.io/node-args"): arguments.to_string(),
            format!("{program}.io/node-env"): environment.to_string(),
        });
        let version = format!("v1.36.3+{program}1");
        node(&version, &json!({ "annotations": annotations }), &json!([])).start
    }

    fn token_of(start: &StartConfiguration) -> &[TokenSource] {
        match start {
            StartConfiguration::Read { token, .. } => token,
            StartConfiguration::Unknown(reason) => panic!("{reason}"),
        }
    }

    #[rstest]
    #[case::nowhere(json!(["server", "--cluster-init"]), json!({}), vec![])]
    #[case::flag(json!(["server", "--token", "********"]), json!({}), vec![TokenSource::FlagOrConfig])]
    #[case::flag_with_value(json!(["server", "--token=********"]), json!({}), vec![TokenSource::FlagOrConfig])]
    #[case::short_flag(json!(["agent", "-t", "********"]), json!({}), vec![TokenSource::FlagOrConfig])]
    #[case::at_the_end(json!(["server", "--token"]), json!({}), vec![TokenSource::FlagOrConfig])]
    #[case::environment(json!(["server"]), json!({ "K3S_TOKEN": "********" }), vec![TokenSource::Environment])]
    #[case::other_program(json!(["server"]), json!({ "RKE2_TOKEN": "********" }), vec![])]
    #[case::file(json!(["server", "--token-file", "/t"]), json!({}), vec![TokenSource::File("/t".into())])]
    #[case::file_by_variable(json!(["server"]), json!({ "K3S_TOKEN_FILE": "/t" }), vec![TokenSource::File("/t".into())])]
    #[case::several(
        json!(["server", "--token", "********", "--token-file=/t"]),
        json!({ "K3S_TOKEN": "********" }),
        vec![TokenSource::File("/t".into()), TokenSource::FlagOrConfig, TokenSource::Environment]
    )]
    #[case::agents_only(json!(["server", "--agent-token", "********"]), json!({}), vec![])]
    fn a_configured_token_is_found(
        #[case] arguments: Value,
        #[case] environment: Value,
        #[case] expected: Vec<TokenSource>,
    ) {
        assert_eq!(token_of(&start("k3s", &arguments, &environment)), expected);
    }

    #[test]
    fn rke2_has_its_own_names() {
        let start = start(
            "rke2",
            &json!([
                "server",
                "--server",
                "https://s1:9345",
                "--datastore-endpoint",
                "********"
            ]),
            &json!({ "RKE2_TOKEN": "********", "RKE2_AGENT_TOKEN": "********" }),
        );
        let expected = StartConfiguration::Read {
            token: vec![TokenSource::Environment],
            agent_token: vec![TokenSource::Environment],
            has_datastore_endpoint: true,
            has_server: true,
        };
        assert_eq!(start, expected);
    }

    #[rstest]
    #[case(json!({}), "the node does not show its arguments")]
    #[case(json!({ "k3s.io/node-args": "x" }), "the arguments that the node shows are malformed")]
    #[case(json!({ "k3s.io/node-args": "[]", "k3s.io/node-env": "[]" }), "the environment that the node shows is malformed")]
    fn what_is_not_shown_is_unknown(#[case] annotations: Value, #[case] reason: &'static str) {
        let node = node("v1.36.3+k3s1", &json!({ "annotations": annotations }), &json!([]));
        assert_eq!(node.start, StartConfiguration::Unknown(reason));
    }

    #[test]
    fn roles_and_conditions_are_read() {
        let labels = json!({ "labels": { "node-role.kubernetes.io/control-plane": "true", "node-role.kubernetes.io/etcd": "true" } });
        let conditions = json!([{ "type": "EtcdIsVoter", "status": "True" }, { "type": "Ready", "status": "Unknown" }]);
        let server = node("v1.36.3+rke2r1", &labels, &conditions);
        assert_eq!(server.supervisor(), Some(SupervisorKind::Rke2));
        assert!(server.is_control_plane && server.is_etcd);
        assert_eq!((server.etcd_member, server.is_ready), (EtcdMember::Voter, None));
        assert_eq!(server.internal_ips, ["10.0.0.1", "fd00::1"]);
        let learner = json!([{ "type": "EtcdIsVoter", "status": "False" }, { "type": "Ready", "status": "True" }]);
        let agent = node("v1.36.3+k3s1", &json!({}), &learner);
        assert_eq!(
            (agent.supervisor(), agent.etcd_member, agent.is_ready),
            (None, EtcdMember::NotVoter, Some(true))
        );
        assert_eq!(node("v1.36.3", &labels, &json!([])).supervisor(), None);
    }

    #[rstest]
    #[case(json!({}), None)]
    #[case(json!({ "annotations": { "cluster.x-k8s.io/machine": "m" } }), Some(NodeManager::Rancher))]
    #[case(json!({ "labels": { "rke.cattle.io/machine": "m" } }), Some(NodeManager::Rancher))]
    #[case(
        json!({ "labels": { "harvesterhci.io/managed": "true", "rke.cattle.io/machine": "m" } }),
        Some(NodeManager::Harvester)
    )]
    fn a_manager_is_recognized(#[case] metadata: Value, #[case] expected: Option<NodeManager>) {
        assert_eq!(node("v1.36.3+rke2r1", &metadata, &json!([])).manager, expected);
    }
}
