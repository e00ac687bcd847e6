//! Which round mends the files of servers that are all ready, and the only function that builds one.

use supervisor::TokenHash;

use super::by_hand::stuck;
use super::diagnosis::{Diagnosis, value_to_finish};
use super::facts::{FileToken, Presence, RecoveryFacts, RoundEnd, ServerFacts};
use super::plan::{Recovery, RecoveryAction, RecoveryRound, RoundValue, encryption, quiet, refuse, unpin_before};
use crate::server_token::rotation::observed::Clocks;

/// The round that is needed, if any. Every server is ready.
///
/// | if | then |
/// |---|---|
/// | every PUT was answered with 500 | by hand: `cred/passwd` of one server, then repeat the command |
/// | the first server has rejected a fresh token | the token of the others there; refuse if they differ |
/// | a server was brought back with a configured token | that one there |
/// | a round is not finished | the same token on the servers that do not have it |
/// | the files of a server are not known, and one accepts none of the known tokens | refuse |
/// | the files of a server are not known, and snapshots can be taken | take them |
/// | they are not known otherwise | a token that is at hand and was not loaded, on every server; else a fresh one |
/// | all have the same one, which the last round has written in order | none |
/// | all have the same one, and the last round with it has not ended | that one on every server |
/// | all have the same one, none needs a restart or was brought back, and the files `cred/passwd` agree, or that is not known and no round was out of order | none |
/// | all have the same one, and the files `cred/passwd` agree | that one on one server, which proves and saves it; then none |
/// | all have the same one, and there is one server | that one |
/// | a round with another token follows, and a server is configured with the one that its files have | remove it first |
/// | all have the same one | a fresh token: which files are the newest is not known |
/// | they differ, and the value to finish with is at hand | that one, on the servers that do not have it |
/// | they differ, and no such value is at hand | a fresh token, begun on a server whose files have one that no server has loaded |
pub(super) fn next(facts: &RecoveryFacts, diagnosis: &Diagnosis) -> Option<Recovery> {
    if diagnosis.is_stuck {
        return Some(stuck(facts));
    }
    if let Some(RoundEnd::FirstRejected(server)) = facts.last_round.as_ref().map(|round| &round.end) {
        return Some(heal(facts, server));
    }
    if let Some(save) = save(facts) {
        return Some(save);
    }
    let files: Vec<FileToken> = facts.servers.values().map(ServerFacts::file).collect();
    if files.contains(&FileToken::Unknown) {
        return Some(unknown_files(facts));
    }
    let mut all: Vec<String> = facts.servers.keys().cloned().collect();
    let tokens = facts.file_tokens();
    let is_same = tokens.len() == 1 && files.iter().all(|file| matches!(file, FileToken::Holds(_)));
    if is_same {
        let token = tokens[0];
        let needs_restart = facts.servers.values().any(|server| server.loaded != Some(token));
        // Its copy may have been older than the datastore.
        let came_back = facts.servers.values().any(|server| server.starts.count > 0);
        let agree = facts.passwd_files_agree();
        let last = facts.last_round.as_ref().filter(|round| round.value == token);
        return match last.map(|round| &round.end) {
            Some(RoundEnd::InOrder) => None,
            Some(RoundEnd::OutOfOrder) if agree == Some(true) => None,
            Some(RoundEnd::Unfinished) if facts.is_at_hand(token) => {
                Some(send(facts, RoundValue::Existing(token), all, false))
            }
            end if !needs_restart && !came_back && agree != Some(false) && end != Some(&RoundEnd::OutOfOrder) => None,
            // The order does not matter, and the PUT proves the token.
            _ if agree == Some(true) && facts.is_at_hand(token) => {
                all.truncate(1);
                Some(send(facts, RoundValue::Existing(token), all, false))
            }
            // One server has the newest files.
            _ if all.len() == 1 && facts.is_at_hand(token) => {
                Some(send(facts, RoundValue::Existing(token), all, false))
            }
            _ => Some(fresh(facts, all)),
        };
    }
    match value_to_finish(facts).filter(|value| facts.is_at_hand(*value)) {
        Some(value) => {
            let lacks = |name: &String| facts.servers[name].file() != FileToken::Holds(value);
            let servers = all.into_iter().filter(lacks).collect();
            let before = unpin_before(facts, Some(value));
            Some(before.unwrap_or_else(|| send(facts, RoundValue::Existing(value), servers, false)))
        }
        None => Some(fresh(facts, newest_first(facts))),
    }
}

fn fresh(facts: &RecoveryFacts, servers: Vec<String>) -> Recovery {
    unpin_before(facts, None).unwrap_or_else(|| send(facts, RoundValue::Fresh, servers, true))
}

/// Its start has written its files, so they are the newest: before any other PUT, and in the order of the starts.
fn save(facts: &RecoveryFacts) -> Option<Recovery> {
    let servers = facts
        .with(Presence::Ready)
        .filter(|(_, server)| facts.lacks_save(server));
    let (name, server) = servers.min_by_key(|(_, server)| server.needs_save)?;
    let token: TokenHash = server.loaded?;
    Some(send(facts, RoundValue::Existing(token), vec![name.clone()], false))
}

/// A server whose files have a token that no server has loaded is the one that the last PUT was sent to: its file equals the datastore,
/// unless the PUT has failed there.
fn newest_first(facts: &RecoveryFacts) -> Vec<String> {
    let written = facts
        .newest_file()
        .map_or_else(|| facts.written_since(), |newest| vec![newest]);
    let is_newest =
        |name: &String| matches!(facts.servers[name].file(), FileToken::Holds(token) if written.contains(&token));
    let (mut servers, others): (Vec<_>, Vec<_>) = facts.servers.keys().cloned().partition(is_newest);
    servers.extend(others);
    servers
}

/// The first server had files of its own. Its PUT has not changed the datastore, so the token of the others is the datastore's.
fn heal(facts: &RecoveryFacts, server: &str) -> Recovery {
    let mut others = facts
        .servers
        .iter()
        .filter(|(name, _)| *name != server)
        .map(|(_, server)| server.file());
    let Some(FileToken::Holds(token)) = others.next() else {
        return unknown_files(facts);
    };
    if others.any(|file| file != FileToken::Holds(token)) {
        return refuse(
            format!("server {server} has rejected a new token, and the files of the other servers differ"),
            "give the tokens that the cluster has had with --token-file, and run the same command again",
        );
    }
    send(facts, RoundValue::Existing(token), vec![server.to_owned()], false)
}

fn unknown_files(facts: &RecoveryFacts) -> Recovery {
    if let Some(refused) = no_login(facts, facts.servers.keys()) {
        return refused;
    }
    if facts.has_snapshots {
        return Recovery::Act(RecoveryAction::Snapshot);
    }
    let all: Vec<String> = facts.servers.keys().cloned().collect();
    let is_loaded = |token| facts.servers.values().any(|server| server.loaded == Some(token));
    match facts.at_hand.iter().find(|token| !is_loaded(**token)) {
        Some(token) => send(facts, RoundValue::Existing(*token), all, false),
        None => send(facts, RoundValue::Fresh, all, true),
    }
}

/// The only place where a round is built.
///
/// | if | then |
/// |---|---|
/// | the encryption of Secrets does not allow it | refuse or wait |
/// | every server is ready, and the members of etcd are not the servers | wait |
/// | a server is down, and the token is not that of a server that was killed in a PUT | never asked: see [`next`] and `complete_put` |
/// | a server accepts none of the known tokens | refuse |
/// | the value is not at hand | refuse |
/// | the clocks of several servers differ by 2 s or more | refuse |
/// | they cannot be compared yet | wait |
/// | | the round; the server whose clock is furthest ahead is the last, unless a fresh token begins there |
pub(super) fn send(facts: &RecoveryFacts, value: RoundValue, mut servers: Vec<String>, careful: bool) -> Recovery {
    let all_ready = facts.with(Presence::Ready).count() == facts.servers.len();
    let blocked = if all_ready { quiet(facts) } else { encryption(facts) };
    if let Some(blocked) = blocked {
        return blocked;
    }
    if let Some(refused) = no_login(facts, servers.iter()) {
        return refused;
    }
    if let RoundValue::Existing(token) = value
        && !facts.is_at_hand(token)
    {
        return refuse(
            format!("the value of token {token} is not known"),
            "give it with --token-file, or use --node-exec, which can read it from a server",
        );
    }
    let begins_there = value == RoundValue::Fresh && facts.file_tokens().len() > 1;
    match &facts.clocks {
        Clocks::Skewed if facts.servers.len() > 1 => {
            let reason =
                "the clocks of the servers differ by 2 s or more: which files are the newest would not be known";
            return refuse(reason, "synchronize the clocks, and run the same command again");
        }
        Clocks::Unknown if facts.servers.len() > 1 => {
            return Recovery::Wait("the clocks of the servers to be known".to_owned());
        }
        Clocks::Close(Some(ahead)) => {
            let at = servers.iter().position(|name| name == ahead);
            if let Some(at) = at.filter(|at| *at > 0 || !begins_there) {
                let ahead = servers.remove(at);
                servers.push(ahead);
            }
        }
        Clocks::Close(None) | Clocks::Skewed | Clocks::Unknown => {}
    }
    let has = |name: &String| matches!(value, RoundValue::Existing(token) if facts.servers[name].file() == FileToken::Holds(token));
    let is_repeated = facts.servers.len() > 1 && servers.iter().any(has);
    Recovery::Act(RecoveryAction::Round(RecoveryRound {
        value,
        servers,
        ends_at_first_rejection: careful,
        is_repeated,
    }))
}

/// A PUT and a snapshot need what the server accepts now.
fn no_login<'s>(facts: &RecoveryFacts, mut servers: impl Iterator<Item = &'s String>) -> Option<Recovery> {
    let name = servers.find(|name| facts.servers[*name].loaded.is_none())?;
    Some(refuse(
        format!("server {name} accepts none of the known tokens"),
        "give the token that it was started with by --token-file",
    ))
}
