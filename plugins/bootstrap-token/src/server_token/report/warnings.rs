//! What `server-token status` warns about.

use std::collections::BTreeMap;

use supervisor::EncryptionStatus;
use supervisor::node::EtcdMember;

use super::configured;
use super::joined;
use super::server::{ServerObservation, ServerRow};
use crate::snapshots::needs::Needs;
use crate::snapshots::row::Snapshots;

/// What the warnings follow from.
pub(super) struct Inputs<'a> {
    pub(super) servers: &'a [ServerObservation<'a>],
    pub(super) rows: &'a [ServerRow],
    /// `None`: they may not be listed.
    pub(super) snapshots: Option<&'a Snapshots>,
    /// A token was passed, and a dictionary may find it by its hash.
    pub(super) is_guessable: bool,
}

pub(super) fn warnings(inputs: &Inputs<'_>) -> Vec<String> {
    let mut warnings: Vec<String> = inputs.rows.iter().filter_map(not_ready).collect();
    warnings.extend(not_voting(inputs.servers));
    warnings.extend(configuration(inputs.rows));
    warnings.extend(acceptance(inputs.rows));
    warnings.extend(encryption(inputs.servers));
    warnings.extend(versions(inputs.servers));
    warnings.extend(inputs.snapshots.map_or_else(
        || Some("no permission to list ETCDSnapshotFiles: which token the snapshots need is unknown".to_owned()),
        snapshots,
    ));
    if inputs.is_guessable {
        warnings.push(
            "the token looks like one that a person made up: anyone who can list ETCDSnapshotFiles can guess it offline by the hash in them"
                .to_owned(),
        );
    }
    warnings
}

/// Those of `agent-token status`.
pub(super) fn of_agent_token(servers: &[ServerObservation<'_>], rows: &[ServerRow]) -> Vec<String> {
    let mut warnings: Vec<String> = rows.iter().filter_map(not_ready).collect();
    warnings.extend(not_voting(servers));
    warnings.extend(rows.iter().filter_map(files_unknown));
    let mut accepted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        if let Some(token) = row.from_agents {
            accepted.entry(token).or_default().push(&row.name);
        }
    }
    if accepted.len() > 1 {
        let each = accepted
            .iter()
            .map(|(token, names)| format!("{token}: {}", joined(names)));
        warnings.push(format!(
            "the servers accept different tokens from agents ({}): one that has changed may not start again until its files are saved",
            each.collect::<Vec<_>>().join("; ")
        ));
    }
    warnings
}

fn not_ready(row: &ServerRow) -> Option<String> {
    let reason = row.ready_reason.as_deref().unwrap_or_default();
    (row.ready == "no").then(|| format!("server {} is not ready: {reason}", row.name))
}

fn files_unknown(row: &ServerRow) -> Option<String> {
    let reason = row.files_unknown.as_ref()?;
    Some(format!(
        "the files of server {} could not be read, so its configuration is that of its last start: {reason}",
        row.name
    ))
}

fn not_voting(servers: &[ServerObservation<'_>]) -> Option<String> {
    let is_not = |server: &&ServerObservation<'_>| server.node.is_etcd && server.node.etcd_member != EtcdMember::Voter;
    let names: Vec<&str> = servers
        .iter()
        .filter(is_not)
        .map(|server| server.node.name.as_str())
        .collect();
    (!names.is_empty()).then(|| format!("not a voting member of etcd: {}", joined(&names)))
}

/// A token that is configured on some servers only, and what is unknown.
fn configuration(rows: &[ServerRow]) -> Vec<String> {
    let mut warnings = Vec::new();
    for row in rows {
        warnings.extend(files_unknown(row));
        if row.edited {
            warnings.push(format!(
                "the configuration of server {} was edited after its last start: its next start takes the token from {}",
                row.name,
                match configured::text(&row.configured()).as_str() {
                    "nowhere" => "its file server/token".to_owned(),
                    place => place.to_owned(),
                }
            ));
        }
        if let Some(reason) = row.configured_unknown {
            warnings.push(format!(
                "where the token of server {} is configured is unknown: {reason}",
                row.name
            ));
        }
    }
    let mut places: BTreeMap<bool, Vec<String>> = BTreeMap::new();
    for row in rows {
        if let Ok(sources) = row.configured() {
            let place = format!("{} ({})", row.name, configured::text(&Ok(sources.clone())));
            let name = if sources.is_empty() { row.name.clone() } else { place };
            places.entry(sources.is_empty()).or_default().push(name);
        }
    }
    if let (Some(configured), Some(nowhere)) = (places.get(&false), places.get(&true)) {
        let names = |names: &[String]| joined(&names.iter().map(String::as_str).collect::<Vec<_>>());
        warnings.push(format!(
            "a token is configured on {}, but not on {}: once the token is rotated, a server on which the old one is configured does not start",
            names(configured),
            names(nowhere)
        ));
    }
    warnings
}

/// Servers that disagree, or whose result is unknown.
fn acceptance(rows: &[ServerRow]) -> Vec<String> {
    let names = |word: &str| -> Vec<&str> {
        let rows = rows.iter().filter(|row| row.accepted == Some(word));
        rows.map(|row| row.name.as_str()).collect()
    };
    let (yes, no) = (names("yes"), names("no"));
    let mut warnings = Vec::new();
    match (yes.is_empty(), no.is_empty()) {
        (false, false) => warnings.push(format!(
            "the servers accept different tokens: the given one is accepted by {}, and rejected by {}",
            joined(&yes),
            joined(&no)
        )),
        (true, false) => warnings.push(format!("the given token is rejected by {}", joined(&no))),
        (_, true) => {}
    }
    for row in rows {
        if let Some(reason) = &row.accepted_unknown {
            warnings.push(format!(
                "whether server {} accepts the token is unknown: {reason}",
                row.name
            ));
        }
    }
    warnings
}

/// A change of the token overwrites the encryption configuration of the datastore with that of one server.
fn encryption(servers: &[ServerObservation<'_>]) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut known: Vec<(&str, &EncryptionStatus)> = Vec::new();
    for server in servers {
        let name = server.node.name.as_str();
        match &server.encryption {
            Some(Ok(status)) => known.push((name, status)),
            Some(Err(reason)) => warnings.push(format!("secrets-encryption of server {name} is unknown: {reason}")),
            None => {}
        }
    }
    if let (false, Err(blocker)) = (known.is_empty(), EncryptionStatus::safe_for_round(known)) {
        warnings.push(format!(
            "{blocker}: changing the token now can lose every Secret of the cluster"
        ));
    }
    warnings
}

fn versions(servers: &[ServerObservation<'_>]) -> Option<String> {
    let is_too_old = |server: &&ServerObservation<'_>| {
        let kind = server.node.supervisor();
        kind.is_some_and(|kind| kind.can_change_token(&server.node.version) == Some(false))
    };
    let names: Vec<&str> = servers
        .iter()
        .filter(is_too_old)
        .map(|server| server.node.name.as_str())
        .collect();
    (!names.is_empty()).then(|| format!("the version of {} cannot change its server token", joined(&names)))
}

fn snapshots(snapshots: &Snapshots) -> Option<String> {
    let all = snapshots.count(|_| true);
    let given = snapshots.count(|needs| needs == Needs::Given);
    let another = all - given - snapshots.count(|needs| needs == Needs::Unknown);
    if snapshots.has_given && another > 0 {
        return Some(format!(
            "{another} of {all} snapshots can be restored only with another token: keep it until they are deleted"
        ));
    }
    let tokens = snapshots.tokens;
    (tokens > 1).then(|| {
        format!("the {all} snapshots need {tokens} different tokens: keep each until its snapshots are deleted")
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use supervisor::ready::ApiReadiness;

    use super::super::server::tests::{accepted, encryption_of, observed, server};
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::server_token::probe::Acceptance;
    use crate::snapshots::needs::PassedToken;
    use crate::snapshots::needs::tests::{hash, taken_with};

    fn of(servers: &[ServerObservation<'_>]) -> Vec<String> {
        let rows: Vec<ServerRow> = servers.iter().map(ServerRow::new).collect();
        let snapshots = Snapshots::new(Vec::new(), &[], None, Timestamp::UNIX_EPOCH);
        warnings(&Inputs {
            servers,
            rows: &rows,
            snapshots: Some(&snapshots),
            is_guessable: false,
        })
    }

    #[test]
    fn three_equal_servers_give_no_warning() {
        let nodes = ["s1", "s2", "s3"].map(|name| server(name, &[]));
        let servers = nodes.each_ref().map(|node| ServerObservation {
            acceptance: Some(accepted()),
            encryption: Some(Ok(encryption_of(r#"{"stage":"","activekey":""}"#))),
            ..observed(node)
        });
        assert_eq!(of(&servers), [""; 0]);
    }

    #[test]
    fn a_token_that_is_configured_on_some_servers_is_reported() {
        let nodes = [
            server("s1", &["--token", "********"]),
            server("s2", &[]),
            server("s3", &[]),
        ];
        let servers = nodes.each_ref().map(observed);
        assert_eq!(
            of(&servers),
            [
                "a token is configured on s1 (flag or config file), but not on s2 and s3: once the token is rotated, a server on which the old one is configured does not start"
            ]
        );
        assert_eq!(of(&servers[..1]), [""; 0]);
    }

    #[rstest]
    #[case::disagree([accepted(), accepted(), Acceptance::Rejected], "the servers accept different tokens: the given one is accepted by s1 and s2, and rejected by s3")]
    #[case::rejected([Acceptance::Rejected, Acceptance::Rejected, Acceptance::Rejected], "the given token is rejected by s1, s2 and s3")]
    fn servers_that_disagree_are_named(#[case] results: [Acceptance; 3], #[case] warning: &str) {
        let nodes = ["s1", "s2", "s3"].map(|name| server(name, &[]));
        let servers: Vec<_> = nodes
            .iter()
            .zip(results)
            .map(|(node, result)| ServerObservation {
                acceptance: Some(result),
                ..observed(node)
            })
            .collect();
        assert_eq!(of(&servers), [warning]);
    }

    #[test]
    fn what_a_server_does_not_show_is_reported() {
        let mut node = server("s1", &[]);
        node.etcd_member = EtcdMember::NotVoter;
        node.version = "v1.24.1+k3s1".to_owned();
        node.start = supervisor::node::StartConfiguration::Unknown("the node does not show its arguments");
        let observation = ServerObservation {
            readiness: Some(ApiReadiness::NotReady("connection refused".to_owned())),
            acceptance: Some(client::error::Error::failed("the server is starting").into()),
            encryption: Some(Err("unexpected response 500".to_owned())),
            ..observed(&node)
        };
        assert_eq!(
            of(&[observation]),
            [
                "server s1 is not ready: connection refused",
                "not a voting member of etcd: s1",
                "where the token of server s1 is configured is unknown: the node does not show its arguments",
                "whether server s1 accepts the token is unknown: the server is starting",
                "secrets-encryption of server s1 is unknown: unexpected response 500",
                "the version of s1 cannot change its server token",
            ]
        );
    }

    #[test]
    fn encryption_that_differs_is_reported() {
        let nodes = ["s1", "s2"].map(|name| server(name, &[]));
        let statuses = [
            r#"{"stage":"","activekey":""}"#,
            r#"{"stage":"start","activekey":"AES-CBC a","enable":true,"hashmatch":true}"#,
        ];
        let servers: Vec<_> = nodes
            .iter()
            .zip(statuses)
            .map(|(node, status)| ServerObservation {
                encryption: Some(Ok(encryption_of(status))),
                ..observed(node)
            })
            .collect();
        assert_eq!(
            of(&servers),
            [
                "the encryption of servers s1 and s2 differs: changing the token now can lose every Secret of the cluster"
            ]
        );
    }

    #[test]
    fn snapshots_and_a_weak_token_are_reported() {
        let of = |files, given: &[PassedToken]| Snapshots::new(files, given, None, Timestamp::UNIX_EPOCH);
        let warnings_of = |snapshots: Option<&Snapshots>, is_guessable| {
            warnings(&Inputs {
                servers: &[],
                rows: &[],
                snapshots,
                is_guessable,
            })
        };
        let given = [("given".to_owned(), hash("new"))];
        let files = || taken_with(&[Some("old"), Some("new"), Some("new")]);
        assert_eq!(
            warnings_of(Some(&of(files(), &given)), false),
            ["1 of 3 snapshots can be restored only with another token: keep it until they are deleted"]
        );
        assert_eq!(
            warnings_of(Some(&of(files(), &[])), false),
            ["the 3 snapshots need 2 different tokens: keep each until its snapshots are deleted"]
        );
        assert!(warnings_of(None, false)[0].starts_with("no permission to list ETCDSnapshotFiles"));
        assert!(warnings_of(Some(&of(Vec::new(), &[])), true)[0].contains("a person made up"));
    }
}
