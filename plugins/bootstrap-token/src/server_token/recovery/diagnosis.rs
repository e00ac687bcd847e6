//! The state of each server by name, with the evidence.

use std::collections::BTreeMap;

use supervisor::TokenHash;

use super::facts::{ConfiguredToken, FileToken, Presence, RecoveryFacts, RoundEnd, ServerFacts, StartFailure};

/// The states of all servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The token of the datastore. `None`: not known.
    pub datastore: Option<TokenHash>,
    /// Every PUT of every token is answered with 500: the datastore has a token that no server has in `cred/passwd`, as after one with
    /// white space at its end.
    pub is_stuck: bool,
    pub servers: BTreeMap<String, Finding>,
}

/// The state of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub state: ServerState,
    /// One sentence.
    pub evidence: String,
}

/// The states in which a server can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It has loaded the token of the datastore, and its next start finds it.
    Healthy,
    /// Its next start finds the token of the datastore. It accepts an older one until then.
    Placed,
    /// It runs, and its files have another token than the datastore: its next start fails.
    Poisoned,
    /// A PUT of this token has reached some servers, and this is not one of them: its next start fails. Or the PUT has failed on them.
    HalfRound(TokenHash),
    /// It is configured with another token than that of the datastore.
    ConfiguredOther {
        runs: bool,
    },
    /// It does not start: `cred/passwd` is newer than the datastore.
    TrapPasswd,
    /// It does not start: these files are newer than the datastore. None of them may be removed: with the files of the encryption of
    /// Secrets, the only copy of a key can be lost.
    TrapOther(Vec<String>),
    /// It does not start: its own copy of the datastore has another token than its files.
    StaleCopy,
    /// It does not start: its own copy is up to date, and its token is not that of the datastore.
    NotSaved,
    /// `server/token` is empty or missing.
    EmptyTokenFile,
    /// It was killed in a PUT: the datastore has its token, and may not have the files that belong to it.
    KeyWithoutFiles(TokenHash),
    /// It does not run, and no failed start is known.
    Stopped,
    Starting,
    /// No rule for it: it cannot be brought back by its token, or that was not measured.
    Damaged,
    /// Two states look the same.
    NotKnown {
        /// What tells them apart.
        distinguished_by: &'static str,
    },
}

const NODE_ACCESS: &str =
    "read its files and its log (--node-exec), or on the server: journalctl, server/token, server/cred/passwd";

/// Diagnoses all servers.
pub fn diagnose(facts: &RecoveryFacts) -> Diagnosis {
    let datastore = datastore_token(facts);
    let finding = |(name, server): (&String, &ServerFacts)| {
        let (state, evidence) = match server.presence() {
            _ if !server.is_full => (
                ServerState::Damaged,
                "it runs only a control plane or only etcd, for which nothing was measured".to_owned(),
            ),
            Presence::Ready => ready(facts, datastore, server),
            Presence::Starting => (
                ServerState::Starting,
                "it is starting, or waits for other members of etcd".to_owned(),
            ),
            Presence::Down => down(facts, datastore, server),
            Presence::NoResponse => {
                let distinguished_by = NODE_ACCESS;
                (
                    ServerState::NotKnown { distinguished_by },
                    "it does not answer, and its files are not known".to_owned(),
                )
            }
        };
        (name.clone(), Finding { state, evidence })
    };
    Diagnosis {
        datastore,
        is_stuck: is_stuck(facts),
        servers: facts.servers.iter().map(finding).collect(),
    }
}

/// The token of the datastore, as far as it is known.
///
/// | if | then |
/// |---|---|
/// | it was proven in this run | that one |
/// | the last round had the token of the files, and has not ended | not known |
/// | all ready servers have the same token in their files, one of them has loaded it, and no other server contradicts: in its files, in what it is configured with, or by a start with it that has failed | that one |
/// | all ready servers have the same token in their files, every server is ready, and the last round with it has ended | that one |
/// | anything else: also where no ready server has loaded it, since each PUT may have failed | not known |
fn datastore_token(facts: &RecoveryFacts) -> Option<TokenHash> {
    if facts.proven.is_some() {
        return facts.proven;
    }
    let all_known = facts
        .with(Presence::Ready)
        .all(|(_, server)| matches!(server.file(), FileToken::Holds(_)));
    let [token] = facts.file_tokens()[..] else {
        return None;
    };
    let is_loaded = facts
        .with(Presence::Ready)
        .any(|(_, server)| server.loaded == Some(token));
    let contradicts = |server: &ServerFacts| {
        failed_by_token(server.starts.failure()) || server.former().chain(server.next_token()).any(|it| it != token)
    };
    let mut others = facts
        .servers
        .values()
        .filter(|server| server.presence() != Presence::Ready);
    let last = facts.last_round.as_ref().filter(|round| round.value == token);
    let ended = last.map(|round| matches!(round.end, RoundEnd::InOrder | RoundEnd::OutOfOrder));
    if ended == Some(false) {
        return None;
    }
    let is_confirmed = match others.next() {
        None => is_loaded || ended.is_some(),
        Some(first) => is_loaded && !contradicts(first) && !others.any(contradicts),
    };
    (all_known && is_confirmed).then_some(token)
}

/// | if | then |
/// |---|---|
/// | no server has answered 200 to a token that each was asked with twice | stuck |
/// | the first server has rejected a token, and then the token of the others | stuck |
fn is_stuck(facts: &RecoveryFacts) -> bool {
    facts
        .last_round
        .as_ref()
        .is_some_and(|round| round.end == RoundEnd::NoneAccepted)
}

/// A server that runs.
///
/// | if | then |
/// |---|---|
/// | it is not known what its next start uses | not known |
/// | the token of the datastore is not known, and its files have a token that another ready server does not have | half-finished round |
/// | the token of the datastore is not known | not known: a PUT tells |
/// | its files have another token, or are empty or differ | poisoned; empty token file |
/// | it is configured with another token | configured with another token |
/// | it was brought back with a configured token, and the datastore does not have its files | placed |
/// | it has loaded the token of the datastore | healthy |
/// | it has loaded another one | placed |
fn ready(facts: &RecoveryFacts, datastore: Option<TokenHash>, server: &ServerFacts) -> (ServerState, String) {
    let file = server.file();
    let configured = server.configured();
    let Some(datastore) = datastore else {
        return of_half_round(facts, server);
    };
    match (file, configured) {
        (FileToken::Unknown, _) => unknown_files(),
        (FileToken::Empty, _) => empty_token_file(),
        (FileToken::PasswdDiffers(token), _) => (
            ServerState::Poisoned,
            format!("its server/token has token {token}, and its cred/passwd another one"),
        ),
        (FileToken::Holds(token), _) if token != datastore => (
            ServerState::Poisoned,
            format!("its files have token {token}, and the datastore has {datastore}"),
        ),
        (_, ConfiguredToken::Holds(token)) if token != datastore => (
            ServerState::ConfiguredOther { runs: true },
            format!(
                "it is configured with token {token}, and the datastore has {datastore}: it is one restart away from an outage"
            ),
        ),
        (_, ConfiguredToken::Some | ConfiguredToken::Unknown) => {
            let distinguished_by =
                "read its configuration (--node-exec), or give the token that it accepts (--token-file)";
            (
                ServerState::NotKnown { distinguished_by },
                "it is not known which token it is configured with".to_owned(),
            )
        }
        _ if facts.lacks_save(server) => (
            ServerState::Placed,
            format!(
                "it was started with token {datastore} configured, and its next start can fail: its cred/passwd is newer than the datastore"
            ),
        ),
        _ if server.loaded == Some(datastore) => (
            ServerState::Healthy,
            format!("it accepts token {datastore}, and its next start finds it"),
        ),
        _ => (
            ServerState::Placed,
            format!("its next start finds token {datastore}, which it does not accept yet"),
        ),
    }
}

fn unknown_files() -> (ServerState, String) {
    let distinguished_by = "take an etcd snapshot on it: its annotation has the hash of server/token";
    (
        ServerState::NotKnown { distinguished_by },
        "it is not known which token its files have".to_owned(),
    )
}

fn empty_token_file() -> (ServerState, String) {
    (
        ServerState::EmptyTokenFile,
        "it runs, and its server/token is empty or missing".to_owned(),
    )
}

fn of_half_round(facts: &RecoveryFacts, server: &ServerFacts) -> (ServerState, String) {
    let tokens = facts.file_tokens();
    let distinguished_by = "a PUT of the same token on another server, which is also what mends either";
    match (server.file(), &tokens[..]) {
        (FileToken::Unknown, _) => unknown_files(),
        (FileToken::Empty, _) => empty_token_file(),
        (FileToken::Holds(own) | FileToken::PasswdDiffers(own), [_, _, ..]) => match value_to_finish(facts) {
            Some(value) if value != own => (
                ServerState::HalfRound(value),
                format!(
                    "its files have token {own}, and those of another server have {value}, which this one may need at its next start"
                ),
            ),
            _ => (
                ServerState::NotKnown { distinguished_by },
                format!(
                    "only some servers have token {own} in their files: a round is half finished, or a PUT has failed there"
                ),
            ),
        },
        (FileToken::Holds(own) | FileToken::PasswdDiffers(own), _) => (
            ServerState::NotKnown { distinguished_by },
            format!("its files have token {own}, and nothing proves that the datastore has it too"),
        ),
    }
}

/// The token with which a half-finished round is finished: one that is proven, else one
/// that a server was configured with since it has started, else the one in the newest `cred/passwd`, else one that a
/// PUT has written since the servers have started, else another one in the files of a server. Its value is at hand.
///
/// With the same token on every server each order of events ends well: it is the datastore's, or it becomes the datastore's on the first
/// server whose files are the datastore's.
pub(super) fn value_to_finish(facts: &RecoveryFacts) -> Option<TokenHash> {
    if let Some(round) = &facts.last_round
        && round.end == RoundEnd::Unfinished
    {
        return Some(round.value);
    }
    let tokens = facts.file_tokens();
    if facts.proven.is_some() {
        return facts.proven;
    }
    // An operator has configured it since the server has started.
    let configured = facts
        .with(Presence::Ready)
        .find_map(|(_, server)| match server.configured() {
            ConfiguredToken::Holds(token) if server.loaded != Some(token) && tokens.contains(&token) => Some(token),
            _ => None,
        });
    if let Some(configured) = configured.filter(|token| facts.is_at_hand(*token)) {
        return Some(configured);
    }
    if let Some(newest) = facts.newest_file() {
        return Some(newest).filter(|value| facts.is_at_hand(*value));
    }
    let written = facts.written_since();
    let by_preference = |tokens: &[TokenHash]| facts.at_hand.iter().find(|value| tokens.contains(value)).copied();
    // If a token was written that is not at hand, an older one may not turn it round: it was the last.
    if written.is_empty() {
        by_preference(&tokens)
    } else {
        by_preference(&written)
    }
}

/// A server that does not run, and whose files are known.
///
/// | if | then |
/// |---|---|
/// | the trap names any other file than `cred/passwd` | trap: other files |
/// | a start failed to save after its `server/token` had another token | key without files |
/// | the trap names only `cred/passwd`, its files agree, none is configured, the last start was with them, no ready server has their token, and no newer `cred/passwd` has another one: it opened its own copy | key without files |
/// | the trap names only `cred/passwd` | trap |
/// | it is configured with another token than the datastore's, or its start failed by its token | configured with another token |
/// | its token file is empty or missing, and none is configured | empty token file |
/// | its token does not open its own copy | stale copy |
/// | it failed to save | not saved |
/// | no failed start is known, it ended without a quorum of etcd, or its log has an error without a rule and it was not started since | stopped |
/// | anything else | damaged |
fn down(facts: &RecoveryFacts, datastore: Option<TokenHash>, server: &ServerFacts) -> (ServerState, String) {
    let failure = server.starts.failure();
    if failure.is_some_and(StartFailure::names_only_passwd) {
        return trap(facts, server);
    }
    if let Some(StartFailure::Newer(files)) = failure {
        let evidence = format!(
            "its start reports files that are newer than the datastore: {}",
            files.join(", ")
        );
        return (ServerState::TrapOther(files.clone()), evidence);
    }
    if let (true, Some(value)) = (server.starts.without_files > 0, with(server)) {
        let evidence = format!("its start with token {value} replaced that by an older one, and then failed to save");
        return (ServerState::KeyWithoutFiles(value), evidence);
    }
    if let ConfiguredToken::Holds(token) = server.configured()
        && (datastore.is_some_and(|datastore| datastore != token) || failed_by_token(failure))
    {
        let evidence = format!("it is configured with token {token}, and does not start with it");
        return (ServerState::ConfiguredOther { runs: false }, evidence);
    }
    if server.file() == FileToken::Empty && server.configured() == ConfiguredToken::Nowhere {
        let evidence = "its server/token is empty or missing, and no token is configured".to_owned();
        return (ServerState::EmptyTokenFile, evidence);
    }
    let token = with(server).map_or_else(|| "its token".to_owned(), |token| format!("token {token}"));
    match failure {
        None | Some(StartFailure::Newer(_)) => (
            ServerState::Stopped,
            "it does not run, and its log has no error".to_owned(),
        ),
        Some(StartFailure::NoQuorum) => (
            ServerState::Stopped,
            "it ended when too few members of etcd were running".to_owned(),
        ),
        Some(StartFailure::OwnCopy | StartFailure::NoToken) => (
            ServerState::StaleCopy,
            format!("its start with {token} failed: its own copy of the datastore has another one"),
        ),
        Some(StartFailure::Save) => (
            ServerState::NotSaved,
            format!("its start with {token} failed when it saved: the datastore has another one"),
        ),
        Some(StartFailure::NotAuthorized) => (
            ServerState::Damaged,
            "its join server rejects its token, and it has no data of its own".to_owned(),
        ),
        // A server that runs logs errors too.
        Some(StartFailure::Other(line)) if server.starts.count < 2 => (
            ServerState::Stopped,
            format!("it does not run, and the last error in its log is not about a token: {line}"),
        ),
        Some(StartFailure::Other(line)) => (
            ServerState::Damaged,
            format!("the recovery does not know its last error: {line}"),
        ),
    }
}

fn trap(facts: &RecoveryFacts, server: &ServerFacts) -> (ServerState, String) {
    let others = facts.file_tokens();
    let is_own = server.configured() == ConfiguredToken::Nowhere && !facts.is_overtaken(server);
    match server.file() {
        FileToken::Holds(token)
            if is_own
                && with(server) == Some(token)
                && server.passwd().is_some()
                && !others.contains(&token)
                && !others.is_empty() =>
        {
            (
                ServerState::KeyWithoutFiles(token),
                format!(
                    "its files have token {token}, which no ready server has, and its start reports cred/passwd as newer than the datastore"
                ),
            )
        }
        _ => (
            ServerState::TrapPasswd,
            "its start reports that cred/passwd, and no other file, is newer than the datastore".to_owned(),
        ),
    }
}

fn failed_by_token(failure: Option<&StartFailure>) -> bool {
    matches!(failure, Some(StartFailure::OwnCopy | StartFailure::Save))
}

/// The token of its last start.
fn with(server: &ServerFacts) -> Option<TokenHash> {
    server.starts.last.as_ref().and_then(|start| start.with)
}
