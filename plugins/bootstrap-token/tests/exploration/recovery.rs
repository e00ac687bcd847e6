//! The recovery of servers: its states, the story that it is for, and a model of the servers on which each state is mended. The facts
//! of invented servers are here.

mod model;
mod states;
mod story;

use client::secret::Secret;
use node_access::{
    Configuration, NodeState, PasswdFile, PlaceKind, ServerTokenFile, ServiceState, StateFile, TokenKey, TokenPlace,
};
use supervisor::node::{EtcdMember, StartConfiguration, TokenSource};
use supervisor::{SupervisorKind, TokenHash};

use kubectl_bootstrap_token::server_token::recovery::diagnosis::{Diagnosis, diagnose};
use kubectl_bootstrap_token::server_token::recovery::facts::{FailedStarts, RecoveryFacts, Response, ServerFacts};
use kubectl_bootstrap_token::server_token::recovery::plan::{Recovery, RecoveryAction, next_action};
use kubectl_bootstrap_token::server_token::rotation::observed::{Clocks, Encryption};

pub(super) const PASSWD: &str = "/var/lib/rancher/k3s/server/cred/passwd";

pub(super) fn hash(token: &str) -> TokenHash {
    TokenHash::of(&Secret::new(token))
}

pub(super) fn place(token: Option<TokenHash>) -> TokenPlace {
    TokenPlace {
        kind: PlaceKind::Yaml,
        file: "/etc/rancher/k3s/config.yaml".to_owned(),
        line: 1,
        lines: 1,
        name: "token".to_owned(),
        key: TokenKey::Token,
        fingerprint: token,
        user: None,
        sha256: String::new(),
        target: None,
        target_sha256: String::new(),
        blocker: None,
    }
}

/// A node whose files have these tokens.
pub(super) fn node(token: Option<TokenHash>, passwd: Option<TokenHash>, configured: Option<TokenHash>) -> NodeState {
    let rows = |value: TokenHash| vec![("node".to_owned(), Some(value)), ("server".to_owned(), Some(value))];
    let file = StateFile {
        file: PASSWD.to_owned(),
        sha256: String::new(),
        modified: 0,
    };
    NodeState {
        configuration: Configuration {
            places: configured.into_iter().map(|token| place(Some(token))).collect(),
            ..Configuration::default()
        },
        server_token: Some(ServerTokenFile {
            sha256: String::new(),
            modified: 0,
            user: Some("server".to_owned()),
            fingerprint: token,
        }),
        passwd: passwd
            .into_iter()
            .map(|value| PasswdFile {
                file: file.clone(),
                rows: rows(value),
            })
            .collect(),
        service: ServiceState {
            active: "active".to_owned(),
            ..ServiceState::default()
        },
        ..NodeState::default()
    }
}

/// A ready server that has loaded the first token, with the second one in its files.
pub(super) fn ready(loaded: &str, file: &str, configured: Option<&str>) -> ServerFacts {
    let (file, configured) = (Some(hash(file)), configured.map(hash));
    ServerFacts {
        response: Response::Ready,
        is_full: true,
        member: EtcdMember::Voter,
        loaded: Some(hash(loaded)),
        snapshot: file,
        placed: None,
        start: start(configured.is_some()),
        node: Some(node(file, file, configured)),
        starts: FailedStarts::default(),
        starts_once: false,
        needs_save: None,
    }
}

pub(super) fn start(is_configured: bool) -> StartConfiguration {
    StartConfiguration::Read {
        token: is_configured.then_some(TokenSource::FlagOrConfig).into_iter().collect(),
        agent_token: Vec::new(),
        has_datastore_endpoint: false,
        has_server: false,
    }
}

/// A server that does not start, with the last line of its log.
pub(super) fn down(token: Option<&str>, passwd: Option<&str>, configured: Option<&str>, log: &str) -> ServerFacts {
    let mut state = node(token.map(hash), passwd.map(hash), configured.map(hash));
    "failed".clone_into(&mut state.service.active);
    state.log = if log.is_empty() {
        Vec::new()
    } else {
        vec![log.to_owned()]
    };
    let mut server = ServerFacts {
        response: Response::None,
        loaded: None,
        snapshot: None,
        start: StartConfiguration::Unknown("no API"),
        node: Some(state),
        ..ready("old", "old", None)
    };
    if let Some(mut start) = server.start_of_log() {
        start.with = server.next_token();
        server.starts.add(start, token.map(hash));
    }
    server
}

pub(super) fn without_access(mut server: ServerFacts) -> ServerFacts {
    server.node = None;
    server
}

/// Servers `s1`, `s2`, …, and the tokens whose values are at hand.
pub(super) fn cluster(servers: &[ServerFacts], at_hand: &[&str]) -> RecoveryFacts {
    let named = |(n, server): (usize, &ServerFacts)| (format!("s{}", n + 1), server.clone());
    RecoveryFacts {
        supervisor: SupervisorKind::K3s,
        servers: servers.iter().enumerate().map(named).collect(),
        members_are_servers: Some(true),
        encryption: Encryption::Safe,
        at_hand: at_hand.iter().map(|token| hash(token)).collect(),
        proven: None,
        last_round: None,
        may_be_in_flight: false,
        has_snapshots: true,
        clocks: Clocks::Close(None),
    }
}

pub(super) fn decide(facts: &RecoveryFacts) -> (Diagnosis, Recovery) {
    let diagnosis = diagnose(facts);
    let next = next_action(facts, &diagnosis);
    (diagnosis, next)
}

/// The action in a few words.
pub(super) fn brief(next: &Recovery) -> String {
    let name = |value: &TokenHash| {
        let known = ["old", "new", "other", "fresh"];
        let known = known.into_iter().find(|token| hash(token) == *value);
        known.map_or_else(|| value.to_string(), str::to_owned)
    };
    match next {
        Recovery::Act(action) => match action {
            RecoveryAction::Stop { server } => format!("stop {server}"),
            RecoveryAction::Unpin { server } => format!("unpin {server}"),
            RecoveryAction::WriteToken { server, value } => format!("write {} on {server}", name(value)),
            RecoveryAction::DeletePasswd { server } => format!("delete passwd on {server}"),
            RecoveryAction::StartOnce { server } => format!("start {server} once"),
            RecoveryAction::EndOnce { server } => format!("end once on {server}"),
            RecoveryAction::Snapshot => "snapshot".to_owned(),
            RecoveryAction::Round(round) => {
                let value = match &round.value {
                    kubectl_bootstrap_token::server_token::recovery::plan::RoundValue::Existing(value) => name(value),
                    kubectl_bootstrap_token::server_token::recovery::plan::RoundValue::Fresh => "fresh".to_owned(),
                };
                format!("put {value} on {}", round.servers.join(" "))
            }
            RecoveryAction::Restart { server, unpins: false } => format!("restart {server}"),
            RecoveryAction::Restart { server, unpins: true } => format!("unpin and restart {server}"),
        },
        Recovery::ByHand { instructions, .. } => format!("by hand on {}", instructions[0].node),
        Recovery::Wait(what) => format!("wait: {what}"),
        Recovery::Refuse { reason, .. } => format!("refuse: {reason}"),
        Recovery::Done => "done".to_owned(),
    }
}
