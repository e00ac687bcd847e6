//! The stages of the rotation. **All of its safety is in this file, in `dangerous.rs`, in `gates.rs` and in the abstraction of what is
//! read.**
//!
//! O is the old token, N the new one. T is the token that the run ends on: forward N, in a rollback O.

#![expect(
    clippy::result_large_err,
    reason = "a stage returns once per look, and the step that it returns is sent at once"
)]

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::rotation::{Blocker, Proof};

use super::dangerous::{self, Heal, Restart, Round};
use super::observed::{Configured, Files, Login, Needs, Observed, Output, Repin, RoundResult, Server};
use super::record::{Record, RoundRecord};
use super::step::{BackUp, Change, SnapshotKind, Step};
use super::{ServerToken, blockers, gates, order};

pub(super) type Look<'look> = engine::rotation::Look<'look, ServerToken>;
pub(super) type Next = engine::rotation::Next<ServerToken>;

/// How *make* is passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// The backup Secret holds O and N. This one may be placed.
    BackedUp(Fingerprint),
    /// A rollback before there was a backup Secret: no server was changed.
    NotCreated,
    /// The backup Secret was deleted after everything else. The run has ended on this token.
    Forgotten(Fingerprint),
}

/// How *place* is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The next start of every server finds this token. Servers may be restarted.
    Everywhere(Fingerprint),
    /// The last round is complete, and a server is down: what it has in its files cannot be read. It is waited for, and nothing else.
    Unread,
    /// A rollback before the first round: every server has O, and none needs a restart.
    Unchanged(Fingerprint),
    /// There is no backup Secret any more. No server needs a restart.
    Forgotten(Fingerprint),
    /// A rollback before there was a backup Secret.
    NotCreated,
}

/// How *prove* is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// Every server accepts this token and rejects the others. They are needed for older snapshots only.
    Loaded(Fingerprint),
    /// The same, and no server was changed: no snapshot is needed.
    Unchanged,
}

/// How *retire* is passed. There is nothing to revoke: what a server does not accept after its restart is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// The values of the backup Secret are not needed any more. A snapshot that needs this token must exist.
    Snapshot(Fingerprint),
    /// The same without a snapshot.
    NoSnapshot,
}

/// Nothing is written for a token that is not of this run, or in a state that only `recover` mends.
///
/// | if | then |
/// |---|---|
/// | a round was begun, there is no backup Secret, and nothing confirms that the run has ended | refuse |
/// | the given token is neither O nor N | refuse |
/// | nothing was changed, and what the run may do is to end | pass |
/// | a server accepts neither O nor N | refuse: `recover` |
/// | the files of a server are damaged, or have another token, and a round was begun | refuse: `recover` |
/// | a server that has rejected the new token rejects the former one too | refuse: `recover` |
pub(super) fn guard(look: Look<'_>) -> Result<(), Next> {
    let seen = look.seen;
    let record = seen.backup.as_ref().unwrap_or(look.record());
    let refuse = |blocker| Err(Next::Refuse(vec![blocker]));
    let has_begun = seen.backup.is_none() && record.round.is_some();
    if has_begun && ended(seen, record, look.direction().is_rollback()).is_none() {
        return refuse(blockers::backup_gone());
    }
    if !record.knows(seen.given) && !look.record().knows(seen.given) {
        return refuse(blockers::another_token(seen.given));
    }
    let is_unchanged = seen.backup.is_none() && look.record().round.is_none();
    if is_unchanged && look.direction().is_rollback() {
        return Ok(());
    }
    let knows = |value| record.knows(value) || look.record().knows(value);
    for (name, server) in &seen.servers {
        if server.accepts == Login::Another {
            let reason = format!("server {name} accepts neither the old token nor the new one");
            return refuse(blockers::recover(reason));
        }
        let damage = match server.files {
            // The first snapshots show it.
            _ if is_unchanged => continue,
            Files::Hold(value) if !knows(value) => "has another token in its files",
            Files::Damaged => "has files that contradict each other",
            Files::Hold(_) | Files::Unknown => continue,
        };
        return refuse(blockers::recover(format!("server {name} {damage}; restart nothing")));
    }
    if let RoundResult::NotHealed(name) = &seen.round {
        let reason = format!("server {name} rejects the new token and the former one; restart nothing");
        return refuse(blockers::recover(reason));
    }
    Ok(())
}

/// N is where the user gets it, and O and N are in the backup Secret. A snapshot of each server shows that O is the datastore's.
///
/// | if | then |
/// |---|---|
/// | there is no backup Secret, and this process has deleted it, or the run's snapshots and the servers show that all was done | pass |
/// | a rollback, and there is no backup Secret | pass: no server was changed |
/// | a rollback | pass |
/// | there is neither a backup Secret nor a first snapshot on each server | take them |
/// | there is no backup Secret, and a first snapshot needs another token than O | roll back: nothing was changed |
/// | N is not drawn, or the user's file does not hold it | create it |
/// | the backup Secret does not hold N | back it up |
/// | N is to be printed, and a round with N is not complete | print it |
pub(super) fn make(look: Look<'_>) -> Result<Made, Next> {
    let (seen, record) = (look.seen, look.record());
    let is_rollback = look.direction().is_rollback();
    let Some(backup) = &seen.backup else {
        if let Some(target) = ended(seen, record, is_rollback) {
            return Ok(Made::Forgotten(target));
        }
        if is_rollback {
            return Ok(Made::NotCreated);
        }
        first_snapshots(look)?;
        let value = created(look, record)?;
        return Err(back_up(record.clone(), Change::Token(value)));
    };
    if is_rollback {
        return Ok(Made::BackedUp(backup.old));
    }
    let value = created(look, record)?;
    if backup.new.last() != Some(&value) {
        let round = backup.round.clone();
        return Err(back_up(
            Record {
                round,
                ..record.clone()
            },
            Change::Token(value),
        ));
    }
    let is_placed = |round: &RoundRecord| round.value == value && round.is_complete;
    if let Output::Print { printed } = &seen.output
        && *printed != Some(value)
        && !backup.round.as_ref().is_some_and(is_placed)
    {
        return Err(Next::step(Step::Print(value)));
    }
    Ok(Made::BackedUp(value))
}

/// The token that a run has ended on whose backup Secret is deleted. The Lease alone is not believed: what the run has left on the
/// servers, or this process, confirms it.
pub(super) fn ended(seen: &Observed, record: &Record, is_rollback: bool) -> Option<Fingerprint> {
    let last = record.new.last().copied();
    if record.is_ended {
        return if is_rollback { Some(record.old) } else { last };
    }
    // The last one may have been drawn by a process that did not see that the run was about to end.
    let is_target = if is_rollback {
        seen.given == record.old
    } else {
        record.new.contains(&seen.given)
    };
    let target = seen.given;
    let all_accept = || seen.servers.values().all(|server| server.has_loaded(target));
    let has_backup = || seen.servers.values().any(|server| server.has_configuration_backup);
    let is_of_run =
        || record.round.is_some() && (seen.snapshots.first == Some(Needs::Token(record.old)) || has_backup());
    (is_target && is_of_run() && all_accept()).then_some(target)
}

fn first_snapshots(look: Look<'_>) -> Result<(), Next> {
    let (seen, old) = (look.seen, look.record().old);
    if !seen.has_snapshots() {
        return Ok(());
    }
    match seen.snapshots.first {
        Some(Needs::Token(value)) if value == old => Ok(()),
        Some(_) => {
            let Blocker { reason, hint, .. } = blockers::not_the_datastores(old);
            let (to, reason) = (Direction::Rollback, format!("{reason}; {hint}"));
            Err(Next::Turn { to, reason })
        }
        None => Err(Next::step(Step::Snapshot(SnapshotKind::First))),
    }
}

/// N, once it is drawn and the file of the user holds it. Who resumes a run whose round with N has begun need not say where N goes.
fn created(look: Look<'_>, record: &Record) -> Result<Fingerprint, Next> {
    let Some(value) = record.new.last().copied() else {
        return Err(create(look, None));
    };
    let backup = look.seen.backup.as_ref();
    let is_begun = backup
        .and_then(|backup| backup.round.as_ref())
        .is_some_and(|round| round.value == value);
    match &look.seen.output {
        Output::Nowhere if is_begun => Ok(value),
        Output::File { holds, .. } if *holds == Some(value) => Ok(value),
        Output::Print { .. } => Ok(value),
        Output::File { .. } | Output::Nowhere => Err(create(look, Some(value))),
    }
}

fn create(look: Look<'_>, value: Option<Fingerprint>) -> Next {
    match &look.seen.output {
        Output::Nowhere => Next::Refuse(vec![blockers::no_output()]),
        Output::File { path, .. } => {
            let path = Some(path.clone());
            Next::step(Step::Create { value, path })
        }
        Output::Print { .. } => Next::step(Step::Create { value, path: None }),
    }
}

fn back_up(record: Record, change: Change) -> Next {
    Next::step(Step::BackUp(BackUp { record, change }))
}

/// The next start of every server finds T.
///
/// | if | then |
/// |---|---|
/// | there is no backup Secret | pass |
/// | a rollback, and no round was begun | pass |
/// | no round was begun | begin a round with N |
/// | a round is complete, with another token than T | begin a round with T |
/// | a round with T is complete, and a server has joined since | begin a round with a fresh token |
/// | a round with T is complete, it is not known what a server has in its files, and one is down | pass: nothing is restarted |
/// | a round with T is complete, and it is not known what a server has in its files | take snapshots |
/// | a round with T is complete | pass |
/// | a round was recorded, and it is not known what a server has in its files | take snapshots |
/// | a round was recorded, every server has its former token, that is T, and the order of the files before it is certain | record that the round with T is complete |
/// | a round was recorded, and every server has its former token | send it |
/// | a round was recorded, and a server has its token | the same round once more |
/// | a server has rejected it before any had carried it out | PUT the former token there, then begin it again |
/// | a round was sent, and it is not known what a server has in its files | take snapshots, or without snapshots the same round once more |
/// | a round was sent, and a server has another token in its files | the same round once more |
/// | a round was sent, every server has its token, and which files are the newest is not known | begin a round with a fresh token |
/// | a round was sent, and every server has its token | record that it is complete |
pub(super) fn place(look: Look<'_>, made: &Proof<'_, Made>) -> Result<Placed, Next> {
    let target = match **made {
        Made::BackedUp(target) => target,
        Made::NotCreated => return Ok(Placed::NotCreated),
        Made::Forgotten(target) if look.record().round.is_none() => return Ok(Placed::Unchanged(target)),
        Made::Forgotten(target) => return Ok(Placed::Forgotten(target)),
    };
    let Some(backup) = &look.seen.backup else {
        return Ok(Placed::NotCreated);
    };
    let Some(round) = &backup.round else {
        if look.direction().is_rollback() {
            return Ok(Placed::Unchanged(backup.old));
        }
        return Err(begin(look, backup, backup.old, target, false));
    };
    if !round.is_complete {
        return Err(in_progress(look, backup, round, target));
    }
    if round.value != target {
        return Err(begin(look, backup, round.value, target, false));
    }
    let has_joined = |name: &String| !round.order.contains(name);
    if look.seen.servers.keys().any(has_joined) {
        return Err(fresh(look, backup, round));
    }
    match look.seen.all_hold(target) {
        Some(false) => Err(Next::Refuse(vec![blockers::not_the_datastores(target)])),
        None if gates::every_server_is_up(look).is_err() => Ok(Placed::Unread),
        None if look.seen.has_snapshots() => Err(check_files(look)),
        Some(true) | None => Ok(Placed::Everywhere(target)),
    }
}

/// A round that was begun and is not known to be complete. It is completed with its own token before another token begins.
fn in_progress(look: Look<'_>, backup: &Record, round: &RoundRecord, target: Fingerprint) -> Next {
    match &look.seen.round {
        RoundResult::Unknown | RoundResult::Healed if !look.seen.has_snapshots() => Round::repeat(look, round),
        RoundResult::Unknown | RoundResult::Recorded | RoundResult::Healed => match look.seen.all_hold(round.before) {
            // Nothing was carried out, or that was undone.
            Some(true) if target == round.before && !round.mends => {
                back_up(backup.with(round.undone()), Change::RoundEnds(target))
            }
            Some(false) => Round::repeat(look, round),
            Some(true) | None => match ready(look, round) {
                Ok(begins) => Next::step(Step::Round(begins)),
                Err(first) => first,
            },
        },
        RoundResult::Rejected(_) | RoundResult::NotHealed(_) => {
            Heal::next(look, round).unwrap_or_else(|| Round::repeat(look, round))
        }
        RoundResult::Complete | RoundResult::Repeated => match look.seen.all_hold(round.value) {
            None if look.seen.has_snapshots() => check_files(look),
            Some(false) | None => Round::repeat(look, round),
            Some(true) => sent(look, backup, round),
        },
    }
}

/// Of one server the files are the newest, whatever was repeated.
fn sent(look: Look<'_>, backup: &Record, round: &RoundRecord) -> Next {
    let is_ordered = look.seen.round == RoundResult::Complete || look.seen.servers.len() == 1;
    if is_ordered {
        let is_complete = true;
        let ended = RoundRecord {
            is_complete,
            ..round.clone()
        };
        back_up(backup.with(ended), Change::RoundEnds(round.value))
    } else {
        fresh(look, backup, round)
    }
}

/// Snapshots that nothing else disturbs.
fn check_files(look: Look<'_>) -> Next {
    match gates::nothing_else_happens(look) {
        Ok(()) => Next::step(Step::Snapshot(SnapshotKind::Checking)),
        Err(first) => first,
    }
}

/// A round with a token that no server has in its files: it gives each server other files, in order. Every server has the token of the
/// last round in its files, so the first one has the datastore's.
///
/// A given token and O are not replaced by another one. There, O and N are each other's fresh token, and a second round follows.
///
/// | if | then |
/// |---|---|
/// | the round was with another token than the last new one | begin a round with that |
/// | a rollback, or the new token was given | begin a round with O |
/// | there is another new token, from an earlier disturbance | use that: it becomes the last one |
/// | | create a new token, back it up, and begin a round with it |
fn fresh(look: Look<'_>, backup: &Record, round: &RoundRecord) -> Next {
    let last = backup.new.last().copied();
    if let Some(last) = last.filter(|last| *last != round.value) {
        return begin(look, backup, round.value, last, true);
    }
    if look.direction().is_rollback() || backup.is_given {
        return begin(look, backup, round.value, backup.old, true);
    }
    create(look, backup.new.iter().copied().find(|value| *value != round.value))
}

/// Records that a round begins, once it may be sent.
///
/// | if | then |
/// |---|---|
/// | something else happens, a server has another token in its files, or that is not known | wait, refuse, or take snapshots |
/// | forward, and the configuration of a server has another token | remove it; without node access have it removed, and restart |
/// | | record the round |
fn begin(look: Look<'_>, backup: &Record, before: Fingerprint, value: Fingerprint, mends: bool) -> Next {
    let round = RoundRecord {
        before,
        value,
        order: order(look.seen, backup.round.as_ref()),
        mends,
        is_complete: false,
    };
    match ready(look, &round) {
        Ok(_) => back_up(backup.with(round), Change::RoundBegins(value)),
        Err(first) => first,
    }
}

/// The round, once it may be sent for the first time.
fn ready(look: Look<'_>, round: &RoundRecord) -> Result<Round, Next> {
    dangerous::ready_for_new_value(look, round.before)?;
    unpin(look, round.before, round.value)?;
    Round::begin(look, round)
}

fn unpin(look: Look<'_>, before: Fingerprint, value: Fingerprint) -> Result<(), Next> {
    let options = &look.seen.options;
    if look.direction().is_rollback() {
        return Ok(());
    }
    let is_pinned = |server: &Server| matches!(server.configured, Configured::Token(held) if held != Some(value));
    for (name, server) in &look.seen.servers {
        if !is_pinned(server) {
            continue;
        }
        if !options.has_node_access {
            if options.force_unpin {
                continue;
            }
            return Err(Restart::after_unpin(look, name, before).unwrap_or_else(|first| first));
        }
        let step = Next::step(Step::Unpin { server: name.clone() });
        return Err(if server.has_configuration_backup {
            look.reapply(step, "configuration management")
        } else {
            step
        });
    }
    Ok(())
}

/// Every server has loaded T. One at a time is restarted.
///
/// | if | then |
/// |---|---|
/// | a rollback, and no server was changed | pass |
/// | a server is down, and what it has in its files cannot be read | wait; after `--restart-timeout` refuse: `recover` |
/// | a server has not loaded T, and another thing happens | wait or refuse |
/// | a server has not loaded T | restart it |
/// | `--only` names another server | stop: the rest is restarted later |
/// | a server is not up | wait; after `--restart-timeout` refuse: `recover` |
/// | a write of another process may be in flight, such as the removal of a token from a configuration | wait |
/// | the run has removed a token from a configuration, and it is a rollback or `--repin` | put T there |
/// | `--repin --agents`, and an agent has another token in its configuration | put T there |
pub(super) fn prove<'look>(look: Look<'look>, placed: &Proof<'look, Placed>) -> Result<Proven, Next> {
    let seen = look.seen;
    let (target, is_changed) = match **placed {
        Placed::Everywhere(target) | Placed::Forgotten(target) => (target, true),
        Placed::Unchanged(target) => (target, false),
        Placed::NotCreated => return Ok(Proven::Unchanged),
        Placed::Unread => {
            gates::every_server_is_up(look)?;
            return Err(Next::wait("the files of every server"));
        }
    };
    gates::every_server_is_up(look)?;
    gates::nothing_in_flight(look)?;
    let others: Vec<String> = order(seen, seen.backup.as_ref().and_then(|backup| backup.round.as_ref()));
    let others: Vec<String> = others
        .into_iter()
        .filter(|name| seen.servers.get(name).is_some_and(|server| !server.has_loaded(target)))
        .collect();
    let only = |name: &&String| seen.options.only.as_ref().is_none_or(|only| only == *name);
    if let (Some(name), Placed::Everywhere(_)) = (others.iter().find(only), &**placed) {
        return Err(Restart::next(look, placed, name, target).unwrap_or_else(|first| first));
    }
    if let Some(name) = others.first() {
        return Err(match **placed {
            Placed::Everywhere(_) => Next::Pause(blockers::only(&others.join(", "))),
            _ => Next::Refuse(vec![blockers::recover(format!(
                "server {name} does not accept {target}, although nothing was changed"
            ))]),
        });
    }
    repin(look, target)?;
    Ok(if is_changed {
        Proven::Loaded(target)
    } else {
        Proven::Unchanged
    })
}

fn repin(look: Look<'_>, target: Fingerprint) -> Result<(), Next> {
    let (seen, options) = (look.seen, &look.seen.options);
    let repins = options.repin != Repin::Nowhere || look.direction().is_rollback();
    if !repins || !options.has_node_access {
        return Ok(());
    }
    let differs = |configured: Configured| configured != Configured::Token(Some(target));
    let mut servers = seen.servers.iter();
    let server = servers.find(|(_, it)| it.has_configuration_backup && differs(it.configured));
    let mut agents = seen.agents.iter();
    let agent = agents.find(|(_, it)| matches!(it, Configured::Token(_)) && differs(**it));
    let agent = agent.filter(|_| options.repin == Repin::ServersAndAgents);
    let node = server.map(|(name, _)| name).or(agent.map(|(name, _)| name));
    match node.cloned() {
        Some(node) => Err(Next::step(Step::Repin { node, value: target })),
        None => Ok(()),
    }
}

/// Nothing is called: each server rejects what it has not loaded.
///
/// | if | then |
/// |---|---|
/// | every server has loaded T | pass |
pub(super) fn retire(proven: &Proof<'_, Proven>) -> Retired {
    match **proven {
        Proven::Loaded(target) => Retired::Snapshot(target),
        Proven::Unchanged => Retired::NoSnapshot,
    }
}

/// Nothing is left over, and a last snapshot needs T. The first step ends the possibility of a rollback.
///
/// | if | then |
/// |---|---|
/// | there is a snapshot that was taken to check files | delete it |
/// | there is the backup Secret | delete it |
/// | there is a backup of a configuration, which no rollback needs any more | delete it |
/// | a server was changed, and there is no last snapshot on each server | take them |
/// | a last snapshot needs another token than T | refuse: `recover` |
pub(super) fn confirm(look: Look<'_>, retired: &Proof<'_, Retired>) -> Result<(), Next> {
    let seen = look.seen;
    if seen.snapshots.has_checking {
        return Err(Next::step(Step::DeleteSnapshots));
    }
    if seen.backup.is_some() {
        return Err(Next::step(Step::Forget));
    }
    if seen.servers.values().any(|server| server.has_configuration_backup) {
        return Err(Next::step(Step::DeleteConfigurationBackups));
    }
    let Retired::Snapshot(target) = **retired else {
        return Ok(());
    };
    match seen.snapshots.last {
        _ if !seen.has_snapshots() => Ok(()),
        None => Err(Next::step(Step::Snapshot(SnapshotKind::Last))),
        Some(Needs::Token(value)) if value == target => Ok(()),
        Some(_) => Err(Next::Refuse(vec![blockers::recover(format!(
            "a server has another token than {target} in its files"
        ))])),
    }
}
