//! What a recovery says: the state of each server, and the next action.

use std::collections::BTreeMap;

use cli::table::{Column, Look, Table};
use serde::Serialize;
use supervisor::TokenHash;

use crate::report::API_VERSION;
use crate::server_token::recovery::diagnosis::{Diagnosis, ServerState};
use crate::server_token::recovery::plan::{Recovery, RecoveryAction, RoundValue};

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerTokenRecovery {
    api_version: &'static str,
    kind: &'static str,
    /// `planned`, `recovered`, `nothing-to-do`, `refused` or `failed`.
    pub(crate) outcome: &'static str,
    /// The token of the datastore.
    token: Option<TokenHash>,
    servers: BTreeMap<String, DiagnosedServer>,
    /// The next action. `None`: there is none.
    pub(crate) next: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiagnosedServer {
    state: &'static str,
    evidence: String,
}

const COLUMNS: &[Column] = &[Column::new("NAME"), Column::new("STATE"), Column::new("EVIDENCE")];

impl ServerTokenRecovery {
    pub(crate) fn new(outcome: &'static str, diagnosis: &Diagnosis, next: &Recovery) -> Self {
        let servers = diagnosis.servers.iter().map(|(name, finding)| {
            let (state, evidence) = (state(&finding.state), finding.evidence.clone());
            (name.clone(), DiagnosedServer { state, evidence })
        });
        Self {
            api_version: API_VERSION,
            kind: "ServerTokenRecovery",
            outcome,
            token: diagnosis.datastore,
            servers: servers.collect(),
            next: (*next != Recovery::Done).then(|| describe(next)),
        }
    }
}

/// One line for each server, and one for the datastore.
pub(super) fn page(diagnosis: &Diagnosis) -> String {
    let mut table = Table::new(COLUMNS);
    for (name, finding) in &diagnosis.servers {
        table.row([name.as_str(), state(&finding.state), &finding.evidence]);
    }
    let datastore = diagnosis
        .datastore
        .map_or_else(|| "unknown".to_owned(), |token| token.to_string());
    format!(
        "{}\nToken of the datastore: {datastore}\n",
        table.render(Look::default())
    )
}

fn state(state: &ServerState) -> &'static str {
    match state {
        ServerState::Healthy => "healthy",
        ServerState::Placed => "placed",
        ServerState::Poisoned => "poisoned",
        ServerState::HalfRound(_) => "half-finished-round",
        ServerState::ConfiguredOther { runs: true } => "configured-with-another-token",
        ServerState::ConfiguredOther { runs: false } => "down-configured-with-another-token",
        ServerState::TrapPasswd => "trap-passwd",
        ServerState::TrapOther(_) => "trap-other-files",
        ServerState::StaleCopy => "stale-copy",
        ServerState::NotSaved => "not-saved",
        ServerState::EmptyTokenFile => "empty-token-file",
        ServerState::KeyWithoutFiles(_) => "key-without-files",
        ServerState::Stopped => "stopped",
        ServerState::Starting => "starting",
        ServerState::Damaged => "damaged",
        ServerState::NotKnown { .. } => "unknown",
    }
}

/// What comes next, as a sentence without its end.
pub(super) fn describe(next: &Recovery) -> String {
    match next {
        Recovery::Act(action) => describe_action(action),
        Recovery::ByHand { reason, .. } => format!("by hand: {reason}"),
        Recovery::Wait(what) => format!("wait for {what}"),
        Recovery::Refuse { reason, .. } => format!("refuse: {reason}"),
        Recovery::Done => "every server accepts the same token, and starts with it".to_owned(),
    }
}

fn describe_action(action: &RecoveryAction) -> String {
    match action {
        RecoveryAction::Stop { server } => {
            format!("stop the service on {server}, which starts and fails again and again")
        }
        RecoveryAction::Unpin { server } => format!("remove the token from the configuration of {server}"),
        RecoveryAction::WriteToken { server, value } => format!("write token {value} into server/token on {server}"),
        RecoveryAction::DeletePasswd { server } => format!("delete cred/passwd on {server}, with a backup"),
        RecoveryAction::StartOnce { server } => format!("start the service on {server} once"),
        RecoveryAction::EndOnce { server } => format!("let the service manager restart the service on {server} again"),
        RecoveryAction::Snapshot => "take a snapshot on every server, to see which token its files have".to_owned(),
        RecoveryAction::Round(round) => {
            let value = match round.value {
                RoundValue::Existing(value) => format!("token {value}"),
                RoundValue::Fresh => "a new token".to_owned(),
            };
            format!("set {value} on {}", round.servers.join(", "))
        }
        RecoveryAction::Restart { server, unpins: false } => format!("restart {server}"),
        RecoveryAction::Restart { server, unpins: true } => {
            format!("remove the token from the configuration of {server}, and restart it")
        }
    }
}
