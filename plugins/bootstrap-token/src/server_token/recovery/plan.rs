//! The next action. It is decided from what is there now, one action at a time: an action that was carried out is not remembered, but
//! seen.
//!
//! No action makes the next start of a server fail that would have succeeded:
//!
//! - no PUT is sent while a server is down, with one exception that was measured: the token of a server that was killed in a PUT;
//! - no server is stopped while it runs, but to restart it, and then every other server is ready;
//! - `cred/passwd` is deleted only where the log names it and no other file, and `server/token` has the token to start with.

use node_access::Instruction;
use supervisor::TokenHash;

use super::by_hand::{agent_token, configure_once, no_response, not_full};
use super::diagnosis::{Diagnosis, ServerState};
use super::facts::{ConfiguredToken, FileToken, LastStart, Presence, RecoveryFacts, ServerFacts};
use super::round;
use crate::server_token::rotation::observed::Encryption;

/// How many failed starts of one server are enough.
const MAX_STARTS: usize = 12;

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    Act(RecoveryAction),
    /// An operator does this on the node. It is done once it is seen.
    ByHand {
        reason: String,
        instructions: Vec<Instruction>,
    },
    Wait(String),
    Refuse {
        reason: String,
        hint: String,
    },
    /// The next start of every server succeeds, and all accept the same token.
    Done,
}

/// One action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryAction {
    /// Stops a service that starts a failing server again and again: such starts arm the trap.
    Stop { server: String },
    /// Removes the configured token that its next start obeys (`ServerFacts::place`).
    Unpin { server: String },
    /// Writes the password part of `server/token`.
    WriteToken { server: String, value: TokenHash },
    /// Deletes `cred/passwd`, of which a backup is kept. No other file is ever deleted.
    DeletePasswd { server: String },
    /// Starts a stopped server once.
    StartOnce { server: String },
    /// Lets the service manager start it again if it fails.
    EndOnce { server: String },
    /// Takes an etcd snapshot on every server, to see what the files have.
    Snapshot,
    /// PUTs of one token, each with what the server accepts now, one after the other at once.
    Round(RecoveryRound),
    /// Restarts a server while all others are ready. `unpins`: an operator removes the configured token first.
    Restart { server: String, unpins: bool },
}

/// A round of the recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryRound {
    pub value: RoundValue,
    /// In this order.
    pub servers: Vec<String>,
    /// Whether nothing is sent to the others if the first server answers 500. Otherwise all are asked, and the failed ones once more.
    pub ends_at_first_rejection: bool,
    /// A server has the token in its files already, so its PUT saves files that can be older than those of another one.
    pub is_repeated: bool,
}

/// The token of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundValue {
    /// One whose value is at hand.
    Existing(TokenHash),
    /// A new one, which no server has: each server gets other files, in order.
    Fresh,
}

pub(super) fn refuse(reason: impl Into<String>, hint: impl Into<String>) -> Recovery {
    let (reason, hint) = (reason.into(), hint.into());
    Recovery::Refuse { reason, hint }
}

/// The next action.
///
/// | if | then |
/// |---|---|
/// | a write of another process may be in flight | wait |
/// | a server has a role that was not measured | refuse |
/// | a start names any other file than `cred/passwd` | refuse: report it, and remove nothing |
/// | a server that was started once is ready | let the service manager start it again |
/// | a service starts a failing server again and again | stop it |
/// | a server starts, and the servers that run are enough for etcd, or none is down | wait |
/// | a server is down | bring it back: one server at a time |
/// | a server does not answer, and there is no node access | by hand: configuration, `server/token`, one start |
/// | the agent token was changed in the configuration alone | refuse: how that is completed |
/// | every PUT is answered with 500 | by hand: the rows of `cred/passwd` of one server |
/// | it is not known, or not so, that the members of etcd are the servers | wait |
/// | the files of servers differ, are not known, or their order is not known and a server needs a restart | snapshots, or a round |
/// | a server is configured with another token | remove it; without node access together with its restart |
/// | a server has not loaded the token of the datastore | restart it |
/// | every server is healthy, and answers about its encryption | done |
/// | anything else | wait, or refuse: not known |
pub fn next_action(facts: &RecoveryFacts, diagnosis: &Diagnosis) -> Recovery {
    let blocked = in_flight(facts)
        .or_else(|| not_full(facts))
        .or_else(|| not_measured(diagnosis))
        .or_else(|| other_files(diagnosis));
    blocked
        .or_else(|| end_once(facts))
        .or_else(|| stop(facts))
        .or_else(|| starting(facts))
        .or_else(|| bring_back(facts, diagnosis))
        .or_else(|| no_response(facts))
        .or_else(|| agent_token(facts))
        .or_else(|| round::next(facts, diagnosis))
        .or_else(|| unpin(facts, diagnosis))
        .or_else(|| restart(facts, diagnosis))
        .unwrap_or_else(|| done(facts, diagnosis))
}

/// | if | then |
/// |---|---|
/// After a start, the API server is ready a few seconds before the rest of the server, which answers about its encryption.
///
/// | if | then |
/// |---|---|
/// | every server is healthy, and the encryption of all is known | done |
/// | every server is healthy | wait |
/// | it is not known of one | refuse: what tells |
fn done(facts: &RecoveryFacts, diagnosis: &Diagnosis) -> Recovery {
    let mut servers = diagnosis.servers.iter();
    match servers.find(|(_, finding)| finding.state != ServerState::Healthy) {
        None if facts.encryption == Encryption::Unknown => encryption_known(),
        None => Recovery::Done,
        Some((name, finding)) => {
            let hint = match finding.state {
                ServerState::NotKnown { distinguished_by } => distinguished_by,
                _ => "run the same command again",
            };
            refuse(
                format!("the state of server {name} is not known: {}", finding.evidence),
                hint,
            )
        }
    }
}

fn in_flight(facts: &RecoveryFacts) -> Option<Recovery> {
    let wait = || Recovery::Wait("writes of another process to arrive".to_owned());
    facts.may_be_in_flight.then(wait)
}

fn not_measured(diagnosis: &Diagnosis) -> Option<Recovery> {
    let mut servers = diagnosis.servers.iter();
    let (name, finding) = servers.find(|(_, finding)| finding.state == ServerState::Damaged)?;
    Some(refuse(
        format!(
            "server {name} cannot be brought back by its token: {}",
            finding.evidence
        ),
        "restore a snapshot with its token, or delete the Node and join the server again",
    ))
}

fn other_files(diagnosis: &Diagnosis) -> Option<Recovery> {
    diagnosis.servers.iter().find_map(|(name, finding)| {
        let ServerState::TrapOther(files) = &finding.state else {
            return None;
        };
        Some(refuse(
            format!("server {name} reports files that are newer than the datastore: {}", files.join(", ")),
            "remove none of them, although its message says so: they can be the only copy of a key; copy the directory server/cred first, \
             and compare them with those of the other servers",
        ))
    })
}

fn end_once(facts: &RecoveryFacts) -> Option<Recovery> {
    let (name, _) = facts.with(Presence::Ready).find(|(_, server)| server.starts_once)?;
    let server = name.clone();
    Some(Recovery::Act(RecoveryAction::EndOnce { server }))
}

fn stop(facts: &RecoveryFacts) -> Option<Recovery> {
    let (name, _) = facts.with(Presence::Down).find(|(_, server)| !server.is_stopped())?;
    let server = name.clone();
    Some(Recovery::Act(RecoveryAction::Stop { server }))
}

fn starting(facts: &RecoveryFacts) -> Option<Recovery> {
    let (name, _) = facts.with(Presence::Starting).next()?;
    let is_down = facts.with(Presence::Down).next().is_some();
    let wait = || Recovery::Wait(format!("server {name} to be ready or to end"));
    // Without a quorum it waits for the next server.
    (facts.has_quorum() || !is_down).then(wait)
}

/// The first server that can be brought back. If none can, the reason of the first.
fn bring_back(facts: &RecoveryFacts, diagnosis: &Diagnosis) -> Option<Recovery> {
    let mut first = None;
    for (name, server) in facts.with(Presence::Down) {
        let next = bring_back_one(facts, &diagnosis.servers[name].state, name, server);
        if !matches!(next, Recovery::Refuse { .. }) {
            return Some(next);
        }
        first.get_or_insert(next);
    }
    first
}

/// A server that is down, and stopped.
///
/// | if | then |
/// |---|---|
/// | it has failed to start too often | refuse |
/// | it is configured with the token to start with | keep it |
/// | it is configured with another one | remove it; refuse where it cannot be edited |
/// | it was killed in a PUT, other servers run, and the datastore's token is not known to be its own | the same PUT on the others |
/// | the same, and a start has shown that the datastore lacks its files: without a quorum, or although the others have it | by hand: configure the token for one start |
/// | no token is left to try | refuse |
/// | `server/token` has another one | write it |
/// | the last start with this token ended in the trap, it names only `cred/passwd`, and that exists | delete it |
/// | | start it once |
fn bring_back_one(facts: &RecoveryFacts, state: &ServerState, name: &str, server: &ServerFacts) -> Recovery {
    if server.starts.count >= MAX_STARTS {
        let reason = format!("server {name} has failed to start {MAX_STARTS} times");
        return refuse(reason, "read its log, and restore a snapshot or join the server again");
    }
    let own = server.next_token();
    let value = match state {
        ServerState::KeyWithoutFiles(value) => {
            if let Some(first) = complete_put(facts, name, *value) {
                return first;
            }
            Some(*value)
        }
        _ => token_to_try(facts, server),
    };
    let Some(value) = value else {
        return refuse(
            format!("none of the known tokens starts server {name}"),
            format!(
                "give the tokens that the cluster has had with --token-file, or run `kubectl delete node {name}` and join the server again"
            ),
        );
    };
    let server_name = name.to_owned();
    let act = Recovery::Act;
    match server.configured() {
        ConfiguredToken::Nowhere => {}
        ConfiguredToken::Holds(token) if token == value => {}
        _ => return unpin_one(name, server),
    }
    let file_has = match server.file() {
        FileToken::Holds(token) | FileToken::PasswdDiffers(token) => Some(token),
        FileToken::Empty | FileToken::Unknown => None,
    };
    // A configured token is written there by the start.
    if server.configured() == ConfiguredToken::Nowhere && file_has != Some(value) {
        if !facts.is_at_hand(value) && own != Some(value) {
            return refuse(
                format!("server {name} needs the value of token {value}"),
                "give it with --token-file, or use --node-exec, which can read it from a server",
            );
        }
        return act(RecoveryAction::WriteToken {
            server: server_name,
            value,
        });
    }
    let is_last = |start: &LastStart| start.with == Some(value) && start.failure.names_only_passwd();
    let is_trap = server.starts.last.as_ref().is_some_and(is_last);
    if is_trap && server.passwd().is_some() {
        return act(RecoveryAction::DeletePasswd { server: server_name });
    }
    act(RecoveryAction::StartOnce { server: server_name })
}

/// The token for the next start. Those that do not help are left out ([`FailedStarts`](super::facts::FailedStarts)): a wrong one
/// costs a failed start, which tells.
///
/// | if | then |
/// |---|---|
/// | none is configured, or no failed start is known | the one that it has |
/// | the datastore's token is proven | that one |
/// | a PUT has written a token on a ready server that none has loaded | that one |
/// | it has a token | that one |
/// | other servers have one in their files | that one |
/// | its `cred/passwd` or a backup has one, or one is at hand | that one |
fn token_to_try(facts: &RecoveryFacts, server: &ServerFacts) -> Option<TokenHash> {
    let own_file = match server.file() {
        FileToken::Holds(token) | FileToken::PasswdDiffers(token) => Some(token),
        FileToken::Empty | FileToken::Unknown => None,
    };
    let own = || server.next_token().into_iter().chain(own_file);
    let is_usable = |value: &TokenHash| {
        let has = facts.is_at_hand(*value) || server.next_token() == Some(*value) || own_file == Some(*value);
        has && !server.starts.rejected.contains(value)
    };
    let is_unpinned = server.configured() == ConfiguredToken::Nowhere;
    let own_first = is_unpinned || server.starts.last.is_none();
    own()
        .filter(|_| own_first)
        .chain(facts.proven)
        .chain(facts.written_since())
        .chain(own())
        .chain(facts.file_tokens())
        .chain(server.former())
        .chain(facts.at_hand.iter().copied())
        .find(is_usable)
}

/// The token of a server that was killed in a PUT, on the others: it completes the PUT from each point at which it can have been killed,
/// and re-encrypts nothing where it is complete. This is the only PUT while a server is down.
fn complete_put(facts: &RecoveryFacts, name: &str, value: TokenHash) -> Option<Recovery> {
    let starts = &facts.servers[name].starts;
    let has = |server: &ServerFacts| server.file() == FileToken::Holds(value);
    let is_complete = facts.has_quorum() && facts.with(Presence::Ready).all(|(_, server)| has(server));
    if is_complete && starts.without_files < 2 {
        return None;
    }
    if is_complete || !facts.has_quorum() {
        // Its own start writes the datastore's older cred/passwd, unless the token is configured.
        return (starts.without_files > 0).then(|| Recovery::ByHand {
            reason: format!("the datastore has token {value}, and not the files of server {name} that belong to it"),
            instructions: vec![configure_once(facts, name, value)],
        });
    }
    // A server whose start has written its files is first.
    let mut servers: Vec<_> = facts
        .with(Presence::Ready)
        .filter(|(_, server)| !has(server) || facts.lacks_save(server))
        .collect();
    servers.sort_by_key(|(_, server)| (!facts.lacks_save(server), server.needs_save));
    let servers = servers.into_iter().map(|(name, _)| name.clone()).collect();
    Some(round::send(facts, RoundValue::Existing(value), servers, false))
}

fn not_editable(name: &str, server: &ServerFacts) -> Option<Recovery> {
    let Some(place) = server.place() else {
        return Some(refuse(
            format!("it is not known where the token of server {name} is configured"),
            "use --node-exec or --via pod, or remove it by hand",
        ));
    };
    let blocker = place.blocker.as_ref()?;
    let reason = format!("the token of server {name} cannot be removed from its configuration: {blocker}");
    Some(refuse(reason, place.by_hand(true)))
}

/// With node access, before a round with another token than the configured one, where it changes nothing: the files have that one too.
pub(super) fn unpin_before(facts: &RecoveryFacts, value: Option<TokenHash>) -> Option<Recovery> {
    let is_same = |server: &ServerFacts| match (server.configured(), server.file()) {
        (ConfiguredToken::Holds(token), FileToken::Holds(file)) => token == file && Some(token) != value,
        _ => false,
    };
    let (name, server) = facts
        .with(Presence::Ready)
        .find(|(_, server)| server.node.is_some() && is_same(server))?;
    Some(unpin_one(name, server))
}

fn unpin_one(name: &str, server: &ServerFacts) -> Recovery {
    let server_name = name.to_owned();
    let unpin = || Recovery::Act(RecoveryAction::Unpin { server: server_name });
    not_editable(name, server).unwrap_or_else(unpin)
}

/// With node access, before any restart: a server that restarts by itself meanwhile needs it as well.
fn unpin(facts: &RecoveryFacts, diagnosis: &Diagnosis) -> Option<Recovery> {
    let datastore = diagnosis.datastore?;
    let (name, server) = facts
        .with(Presence::Ready)
        .find(|(_, server)| server.node.is_some() && is_other(server, datastore))?;
    Some(unpin_one(name, server))
}

fn is_other(server: &ServerFacts, datastore: TokenHash) -> bool {
    !matches!(server.configured(), ConfiguredToken::Nowhere) && server.configured() != ConfiguredToken::Holds(datastore)
}

/// One server at a time, while all are ready.
fn restart(facts: &RecoveryFacts, diagnosis: &Diagnosis) -> Option<Recovery> {
    let datastore = diagnosis.datastore?;
    let (name, server) = facts
        .with(Presence::Ready)
        .find(|(_, server)| server.loaded != Some(datastore))?;
    let (server, unpins) = (name.clone(), is_other(server, datastore));
    let act = || Recovery::Act(RecoveryAction::Restart { server, unpins });
    Some(quiet(facts).unwrap_or_else(act))
}

/// Why no PUT and no restart may be sent now.
///
/// | if | then |
/// |---|---|
/// | the encryption of Secrets is not complete and the same on every server | refuse, and nothing forces it |
/// | it is not known | wait |
/// | the members of etcd are not the servers, or that is not known | wait |
pub(super) fn quiet(facts: &RecoveryFacts) -> Option<Recovery> {
    encryption(facts).or_else(|| {
        let what = "the members of etcd to be the servers, and all of them to vote";
        (facts.members_are_servers != Some(true)).then(|| Recovery::Wait(what.to_owned()))
    })
}

pub(super) fn encryption(facts: &RecoveryFacts) -> Option<Recovery> {
    match &facts.encryption {
        Encryption::Safe => None,
        Encryption::Unsafe(reason) => Some(refuse(
            format!("a change of the token or a restart can lose every Secret: {reason}"),
            format!(
                "complete the rotation of the encryption keys first: `{} secrets-encrypt status` on every server",
                facts.supervisor.program()
            ),
        )),
        Encryption::Unknown => Some(encryption_known()),
    }
}

fn encryption_known() -> Recovery {
    Recovery::Wait("the encryption status of every server".to_owned())
}
