//! The document and the page of `server-token status`.

use std::collections::BTreeMap;

use cli::rotation::in_progress::RotationStatus;
use cli::table::{Column, Look, Table};
use client::secret::Fingerprint;
use k8s_openapi::jiff::Timestamp;
use node_access::NodeState;
use serde::Serialize;
use supervisor::node::{ClusterNode, NodeManager};
use supervisor::snapshot::SnapshotFile;

use super::server::{AGENT_COLUMNS, AGENT_TOKEN_COLUMNS, AgentRow, COLUMNS, ServerObservation, ServerRow};
use super::warnings::{Inputs, of_agent_token, warnings};
use crate::report::API_VERSION;
use crate::server_token::given_token::GivenToken;
use crate::server_token::session::RotatedToken;
use crate::snapshots::needs::PassedToken;
use crate::snapshots::row::{SnapshotRow, Snapshots};

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerTokenStatus {
    #[serde(skip)]
    of: RotatedToken,
    api_version: &'static str,
    kind: &'static str,
    /// Of the given token. `None`: there is none, or it is guessable.
    fingerprint: Option<Fingerprint>,
    /// What manages the token, if it is not the user: `rancher` or `harvester`.
    owner: Option<&'static str>,
    servers: Vec<ServerRow>,
    agents: Vec<AgentRow>,
    /// `None`: they may not be listed, or are not asked for.
    snapshots: Option<Vec<SnapshotRow>>,
    #[serde(flatten)]
    pub rotation: RotationStatus,
    pub warnings: Vec<String>,
    #[serde(skip)]
    snapshot_line: String,
}

impl ServerTokenStatus {
    /// `agents`: the files of those that were read. `snapshots`: `None` if they may not be listed. The tokens: of servers, and of agents.
    #[expect(clippy::too_many_arguments, reason = "each is what one request has read")]
    pub(crate) fn new(
        of: RotatedToken,
        nodes: &[ClusterNode],
        servers: &[ServerObservation<'_>],
        agents: &BTreeMap<String, Result<NodeState, String>>,
        snapshots: Option<Vec<SnapshotFile>>,
        rotation: RotationStatus,
        [token, agent_token]: [Option<&GivenToken>; 2],
        now: Timestamp,
    ) -> Self {
        let given = token.and_then(GivenToken::server_hash);
        let given: Vec<PassedToken> = given
            .map(|hash| ("the given token".to_owned(), hash))
            .into_iter()
            .collect();
        let snapshots = snapshots.map(|files| Snapshots::new(files, &given, None, now));
        let is_of_server = of == RotatedToken::Server;
        let row = if is_of_server {
            ServerRow::new
        } else {
            ServerRow::of_agent_token
        };
        let rows: Vec<ServerRow> = servers.iter().map(row).collect();
        let owner = owner(nodes);
        let mut all: Vec<String> = owner.map(|(_, text)| text.to_owned()).into_iter().collect();
        all.extend(if is_of_server {
            warnings(&Inputs {
                servers,
                rows: &rows,
                snapshots: snapshots.as_ref(),
                is_guessable: token.is_some_and(GivenToken::is_guessable),
            })
        } else {
            of_agent_token(servers, &rows)
        });
        let shown = if is_of_server { token } else { agent_token };
        let is_agent = |node: &&ClusterNode| node.distribution.supervisor().is_some() && node.supervisor().is_none();
        Self {
            of,
            api_version: API_VERSION,
            kind: if is_of_server {
                "ServerTokenStatus"
            } else {
                "AgentTokenStatus"
            },
            fingerprint: shown.and_then(GivenToken::fingerprint),
            owner: owner.map(|(name, _)| name),
            servers: rows,
            agents: nodes
                .iter()
                .filter(is_agent)
                .map(|node| AgentRow::new(node, agents.get(&node.name)))
                .collect(),
            snapshot_line: snapshots.as_ref().map_or_else(
                || "Snapshots: unknown (no permission to list ETCDSnapshotFiles)".to_owned(),
                Snapshots::line,
            ),
            snapshots: snapshots.filter(|_| is_of_server).map(|snapshots| snapshots.rows),
            rotation,
            warnings: all,
        }
    }

    /// The human-readable page, without the rotation.
    pub(crate) fn page(&self, wide: bool) -> String {
        let is_of_server = self.of == RotatedToken::Server;
        let mut page = if is_of_server {
            table(COLUMNS, self.servers.iter().map(ServerRow::cells), wide)
        } else {
            let rows = self.servers.iter().map(ServerRow::agent_token_cells);
            table(AGENT_TOKEN_COLUMNS, rows, wide)
        };
        page.push('\n');
        if wide && !self.agents.is_empty() {
            page += &table(AGENT_COLUMNS, self.agents.iter().map(AgentRow::cells), wide);
            page.push('\n');
        } else {
            page = page + "Agents: " + &self.agents_in_words() + "\n";
        }
        if is_of_server {
            page = page + &self.snapshot_line + "\n";
        }
        page
    }

    /// How many have their token where: `12 (token from: 2 environment, 10 flag or config file)`.
    fn agents_in_words(&self) -> String {
        let mut counts = BTreeMap::<String, usize>::new();
        for agent in &self.agents {
            *counts.entry(agent.configured()).or_default() += 1;
        }
        if counts.is_empty() {
            return "<none>".to_owned();
        }
        let counts = counts.iter().map(|(place, count)| format!("{count} {place}"));
        let places = client::sanitize::cell(&counts.collect::<Vec<_>>().join(", "));
        format!("{} (token from: {places})", self.agents.len())
    }
}

fn table(columns: &[Column], rows: impl Iterator<Item = Vec<String>>, wide: bool) -> String {
    let mut table = Table::new(columns);
    for row in rows {
        table.row(row);
    }
    table.render(Look {
        wide,
        no_headers: false,
    })
}

/// What manages the token, and the warning about it. A node of Harvester may be recognized as Rancher's, but not the other way round.
fn owner(nodes: &[ClusterNode]) -> Option<(&'static str, &'static str)> {
    let managers: Vec<NodeManager> = nodes.iter().filter_map(|node| node.manager).collect();
    if managers.contains(&NodeManager::Harvester) {
        Some((
            "harvester",
            "Harvester owns the server token: it keeps it in Secret fleet-local/local-rke-state, configures it on the nodes, and does not support changing it",
        ))
    } else if managers.contains(&NodeManager::Rancher) {
        Some((
            "rancher",
            "Rancher provisioned the cluster and owns its server token: it keeps it in Secret fleet-default/CLUSTER-rke-state of the management cluster, and configures it on the nodes",
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use cli::app::GlobalFlags;
    use cli::rotation::Commands;
    use engine::journal::Journal;
    use engine::lock::LeaseRecord;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};
    use supervisor::node::{StartConfiguration, TokenSource};

    use super::super::server::tests::{observed, server};
    use super::*;
    use crate::server_token::rotation::ServerToken;
    use crate::server_token::rotation::record::Record;
    use crate::snapshots::needs::tests::taken_with;

    fn agent(name: &str, source: TokenSource) -> ClusterNode {
        let mut node = server(name, &[]);
        (node.is_control_plane, node.is_etcd) = (false, false);
        node.start = StartConfiguration::Read {
            token: vec![source],
            agent_token: Vec::new(),
            has_datastore_endpoint: false,
            has_server: true,
        };
        node
    }

    fn nodes() -> Vec<ClusterNode> {
        vec![
            server("s1", &["--token"]),
            agent("a1", TokenSource::FlagOrConfig),
            agent("a2", TokenSource::Environment),
            agent("a3", TokenSource::FlagOrConfig),
        ]
    }

    fn none() -> RotationStatus {
        RotationStatus {
            rotation: None,
            rotation_unknown: false,
            last_rotated: None,
            last_result: None,
        }
    }

    fn status(nodes: &[ClusterNode], snapshots: Option<Vec<SnapshotFile>>) -> ServerTokenStatus {
        ServerTokenStatus::new(
            RotatedToken::Server,
            nodes,
            &[observed(&nodes[0])],
            &BTreeMap::new(),
            snapshots,
            none(),
            [None, None],
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn the_page_has_a_row_for_each_server_and_a_summary() {
        let nodes = nodes();
        let status = status(&nodes, Some(taken_with(&[Some("one"), None])));
        insta::assert_snapshot!(status.page(false), @r"
        NAME   ADDRESS         READY   ETCD    CONFIGURED            ACCEPTED   ENCRYPTION
        s1     10.0.0.1:6443   yes     voter   flag or config file   <none>     unknown

        Agents: 3 (token from: 1 environment, 2 flag or config file)
        Snapshots: 2
        ");
        insta::assert_snapshot!(status.page(true), @r"
        NAME   ADDRESS         READY   ETCD    CONFIGURED            ACCEPTED   ENCRYPTION   ACCEPTED-AS   AGENT-TOKEN   VERSION
        s1     10.0.0.1:6443   yes     voter   flag or config file   <none>     unknown      <none>        nowhere       v1.36.3+k3s1

        AGENT   READY   CONFIGURED            VERSION
        a1      yes     flag or config file   v1.36.3+k3s1
        a2      yes     environment           v1.36.3+k3s1
        a3      yes     flag or config file   v1.36.3+k3s1

        Snapshots: 2
        ");
    }

    #[test]
    fn the_page_about_the_agent_token_shows_what_each_server_accepts_from_agents() {
        use super::super::server::tests::accepted;
        use crate::server_token::probe::{Acceptance, Role};

        let nodes = ["s1", "s2", "s3", "s4"].map(|name| server(name, &[]));
        let as_server = || Some(Acceptance::Accepted(vec![Role::Server]));
        let unknown = || client::error::Error::failed("the server is starting").into();
        let results = [
            (as_server(), Acceptance::Accepted(vec![Role::Agent])),
            (Some(accepted()), Acceptance::Rejected),
            (as_server(), Acceptance::Rejected),
            (as_server(), unknown()),
        ];
        let servers: Vec<ServerObservation<'_>> = nodes
            .iter()
            .zip(results)
            .map(|(node, (acceptance, agent))| ServerObservation {
                acceptance,
                agent_acceptance: Some(agent),
                ..observed(node)
            })
            .collect();
        let (of, now) = (RotatedToken::Agent, Timestamp::UNIX_EPOCH);
        let status = ServerTokenStatus::new(of, &nodes, &servers, &BTreeMap::new(), None, none(), [None, None], now);
        insta::assert_snapshot!(status.page(false), @r"
        NAME   ADDRESS         READY   ETCD    AGENT-TOKEN   FROM-AGENTS
        s1     10.0.0.1:6443   yes     voter   nowhere       agent-token
        s2     10.0.0.1:6443   yes     voter   nowhere       server-token
        s3     10.0.0.1:6443   yes     voter   nowhere       another
        s4     10.0.0.1:6443   yes     voter   nowhere       unknown

        Agents: <none>
        ");
        assert!(
            status.warnings[0].starts_with("the servers accept different tokens from agents"),
            "{:?}",
            status.warnings
        );
        let document = serde_json::to_value(&status).unwrap();
        assert_eq!(document["servers"][0]["fromAgents"], json!("agent-token"));
        assert!(include_str!("../../../../../docs/output.md").contains("`servers[].fromAgents`"));
    }

    #[test]
    fn the_document_has_the_documented_fields() {
        let document = serde_json::to_value(status(&nodes(), None)).unwrap();
        let fields: Vec<&String> = document.as_object().unwrap().keys().collect();
        let page = include_str!("../../../../../docs/output.md");
        let (_, section) = page.split_once("## ServerTokenStatus").unwrap();
        let section = section.split("\n## ").next().unwrap();
        for field in fields
            .into_iter()
            .filter(|field| !["apiVersion", "kind"].contains(&field.as_str()))
        {
            assert!(section.contains(&format!("`{field}")), "{field} is not documented");
        }
        for part in ["servers", "agents"] {
            for field in document[part][0].as_object().unwrap().keys() {
                assert!(
                    section.contains(&format!(".{field}`")),
                    "{part}[].{field} is not documented"
                );
            }
        }
        assert_eq!(
            (&document["snapshots"], &document["rotationUnknown"]),
            (&json!(null), &json!(false))
        );
    }

    #[test]
    fn the_owner_of_the_token_is_named() {
        let of = |manager| {
            let mut nodes = nodes();
            nodes[0].manager = Some(NodeManager::Rancher);
            nodes[1].manager = manager;
            let status = status(&nodes, Some(Vec::new()));
            (status.owner, status.warnings[0].clone())
        };
        let (owner, warning) = of(None);
        assert!(
            owner == Some("rancher") && warning.starts_with("Rancher provisioned"),
            "{warning}"
        );
        let (owner, warning) = of(Some(NodeManager::Harvester));
        assert!(
            owner == Some("harvester") && warning.starts_with("Harvester owns"),
            "{warning}"
        );
    }

    /// Who resumes it sets its own.
    #[test]
    fn a_rotation_that_no_process_holds_has_no_deadlines() {
        let record = Record {
            old: Fingerprint::of("old"),
            new: Vec::new(),
            is_given: false,
            is_ended: false,
            round: None,
        };
        let journal = Journal::<ServerToken>::begin(record, "anyone", Timestamp::UNIX_EPOCH);
        let mut journal: Value = serde_json::from_str(&journal.to_text().unwrap()).unwrap();
        journal["deadlines"]["proof"] = json!("2026-08-14T12:00:00Z");
        let commands =
            Commands::new::<crate::cli::BootstrapToken>("", &GlobalFlags::default()).in_group("server-token");
        let deadlines = |holder: Option<&str>| {
            let lease = LeaseRecord {
                holder: holder.map(str::to_owned),
                journal: Some(journal.to_string()),
                ..LeaseRecord::default()
            };
            let rotation = RotationStatus::of::<ServerToken>(Some(&lease.into()), &commands, Timestamp::UNIX_EPOCH);
            rotation.rotation.unwrap().run.unwrap().deadlines.len()
        };
        assert_eq!(deadlines(Some("another-host/1/x")), 1);
        assert_eq!(deadlines(None), 0);
    }
}
