//! The stages of the rotation. **All of its safety is in this file, in `dangerous.rs`, in the gates of the server token and in the
//! abstraction of what is read.**
//!
//! O is what servers accepted as node at the start, N what they accept at the end. One of them may be the server token: then no agent
//! token is configured. T is the token that the run ends on: forward N, in a rollback O.

#![expect(
    clippy::result_large_err,
    reason = "a stage returns once per look, and the step that it returns is sent at once"
)]

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::Proof;
use engine::run::Run;

use super::dangerous::{Restart, Save};
use super::observed::{Agent, Configured, Login, Observed, Output, Server, as_node};
use super::record::{Record, Saved};
use super::step::{BackUp, Change, Step};
use super::{AgentToken, blockers};
use crate::server_token::rotation::gates;

pub(super) type Look<'look> = engine::rotation::Look<'look, AgentToken>;
pub(super) type Next = engine::rotation::Next<AgentToken>;

/// How *make* is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The backup Secret holds O and N. This one may be configured.
    BackedUp(Fingerprint),
    /// A rollback before there was a backup Secret: no server was changed.
    NotCreated,
    /// A rollback before any server was changed, and what they accept is not known.
    Unchanged,
    /// The backup Secret was deleted after everything else.
    Forgotten,
}

/// How *place* is passed. In each case the next start of every server succeeds, as far as its login and its files show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The configuration of every server has this token.
    Configured(Fingerprint),
    /// An operator writes it into a configuration when that server is restarted.
    ByHand(Fingerprint),
    /// No server was changed.
    Unchanged,
    /// There is no backup Secret any more, or there never was one.
    NoBackup,
}

/// How *prove* is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// Every server accepts T as node and rejects the other token.
    Loaded,
    /// Every server accepts T as node, or none was changed. The other token is not known, so that it is rejected is not proven.
    OtherUnknown,
    /// The run has ended, or nothing was changed.
    NoBackup,
}

/// How *retire* is passed. There is nothing to revoke: what a server does not accept after its restart is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// The values of the backup Secret are not needed any more.
    AtRestart,
    /// There are none.
    NoBackup,
}

/// The record that counts: a write of a former process may have arrived.
fn record(look: Look<'_>) -> &Record {
    look.seen.backup.as_ref().unwrap_or(look.record())
}

/// Nothing is written with another server token, or where a token is in use that is not of this run.
///
/// | if | then |
/// |---|---|
/// | a configuration was changed, there is no backup Secret, and nothing shows that the run has ended | refuse |
/// | the given server token is not that of the run | refuse |
/// | nothing was changed, and it is a rollback | pass |
/// | a server rejects the server token | refuse |
/// | a server accepts neither O nor N, and O is known | refuse |
pub(super) fn guard(look: Look<'_>) -> Result<(), Next> {
    let (seen, record) = (look.seen, record(look));
    let refuse = |blocker| Err(Next::Refuse(vec![blocker]));
    let has_backup = seen.backup.is_some();
    if !has_backup && look.run.phase >= Phase::Place && !ended(seen, look.run) {
        return refuse(blockers::backup_gone());
    }
    if seen.given != record.server {
        return refuse(blockers::another_token(seen.given));
    }
    if !has_backup && look.direction().is_rollback() {
        return Ok(());
    }
    for (name, server) in &seen.servers {
        if server.accepts == Login::Another {
            return refuse(blockers::rejects(&[name]));
        }
        let is_of_run = match as_node(server) {
            Some(None) => record.old.is_none(),
            Some(value) => [record.old, record.new].contains(&value),
            None => true,
        };
        if !is_of_run {
            return refuse(blockers::accepts_another(name));
        }
    }
    Ok(())
}

/// N is where the user gets it, and O and N are in the backup Secret.
///
/// | if | then |
/// |---|---|
/// | there is no backup Secret, this process has deleted it or was about to, and every server accepts T | pass |
/// | a rollback, and there is no backup Secret | pass: no server was changed |
/// | a rollback, O is not known, and a write of another process may be in flight | wait |
/// | a rollback, O is not known, and no server was changed | pass |
/// | a rollback, and O is not known | turn forward again: it cannot be restored |
/// | a rollback | pass |
/// | N is not drawn, or the user's file does not hold it, and it is not the server token | create it |
/// | the backup Secret does not hold N | back it up |
/// | N is to be printed, and no server accepts it | print it |
pub(super) fn make(look: Look<'_>) -> Result<Made, Next> {
    let (seen, record) = (look.seen, record(look));
    let is_rollback = look.direction().is_rollback();
    match &seen.backup {
        None if ended(seen, look.run) => return Ok(Made::Forgotten),
        None if is_rollback => return Ok(Made::NotCreated),
        Some(backup) if is_rollback => {
            return match backup.old {
                Some(old) => Ok(Made::BackedUp(old)),
                None => unchanged(look, backup),
            };
        }
        _ => {}
    }
    let value = created(look, record)?;
    if seen.backup.as_ref().and_then(|backup| backup.new) != Some(value) {
        return Err(back_up(record.clone(), Change::Token(value)));
    }
    let is_accepted = || seen.servers.values().any(|server| as_node(server) == Some(Some(value)));
    if let Output::Print { printed } = &seen.output
        && *printed != Some(value)
        && value != record.server
        && !is_accepted()
    {
        return Err(Next::step(Step::Print(value)));
    }
    Ok(Made::BackedUp(value))
}

/// Whether everything was done. The Lease alone is not believed: this process, or what every server accepts, confirms it.
pub(super) fn ended(seen: &Observed, run: &Run<AgentToken>) -> bool {
    let is_rollback = run.direction.is_rollback();
    let target = run.record.target(is_rollback);
    let is_known = is_rollback || target.is_some();
    run.record.is_ended || run.phase == Phase::Confirm && is_known && seen.all_accept(target)
}

/// A rollback to a token that is not known.
fn unchanged(look: Look<'_>, backup: &Record) -> Result<Made, Next> {
    let seen = look.seen;
    gates::nothing_in_flight(look)?;
    gates::every_server_is_up(look)?;
    let is_configured = |server: &Server| server.has_configuration_backup;
    let is_saved = backup.saved.by.is_some() || !backup.saving.is_empty();
    if !is_saved && seen.all_accept(None) && !seen.servers.values().any(is_configured) {
        return Ok(Made::Unchanged);
    }
    let to = Direction::RollForward;
    let reason = "the old agent token is not known, so it cannot be restored".to_owned();
    Err(Next::Turn { to, reason })
}

/// N, once it is drawn and the file of the user holds it. Who resumes a run need not say where N goes: it was there before.
fn created(look: Look<'_>, record: &Record) -> Result<Fingerprint, Next> {
    let seen = look.seen;
    let path = match (&seen.output, record.new) {
        (_, Some(value)) if value == record.server => return Ok(value),
        (Output::Nowhere, Some(value)) if seen.backup.is_some() => return Ok(value),
        (Output::Nowhere, _) => return Err(Next::Refuse(vec![blockers::no_output()])),
        (Output::File { holds, .. }, Some(value)) if *holds == Some(value) => return Ok(value),
        (Output::Print { .. }, Some(value)) => return Ok(value),
        (Output::File { path, .. }, _) => Some(path.clone()),
        (Output::Print { .. }, None) => None,
    };
    let value = record.new;
    Err(Next::step(Step::Create { value, path }))
}

fn back_up(record: Record, change: Change) -> Next {
    Next::step(Step::BackUp(BackUp { record, change }))
}

/// Records that a PUT begins.
pub(super) fn saves(backup: &Record, server: String) -> Next {
    let mut record = backup.clone();
    record.saving.insert(server.clone());
    back_up(record, Change::Saves(server))
}

/// Records a PUT that was carried out.
pub(super) fn saved(backup: &Record, put: &Saved) -> Next {
    let record = Record {
        saved: put.clone(),
        saving: BTreeSet::new(),
        ..backup.clone()
    };
    back_up(record, Change::Saved(put.by.clone().unwrap_or_default()))
}

/// The next start of every server succeeds, and finds T.
///
/// | if | then |
/// |---|---|
/// | there is no backup Secret, or no server was changed and it is a rollback to a token that is not known | pass |
/// | a PUT was carried out, and is not recorded | record it |
/// | the next start of a server is fatal, and another server is not up, or something else happens | wait or refuse |
/// | with node access, and the files of a server cannot be read yet | wait; after `--restart-timeout` refuse: `recover` |
/// | the next start of a server is fatal, and which server has the newest file is not known | refuse |
/// | the next start of a server is fatal, and it is not recorded that the PUT begins | record it |
/// | the next start of a server is fatal | PUT the same server token on the server that has the newest file |
/// | without node access | pass: an operator configures T before each restart |
/// | it is not known which agent token a configuration has | refuse |
/// | a configuration has another agent token than T, and a write of another process may be in flight | wait |
/// | a configuration has another agent token than T | write T there |
pub(super) fn place(look: Look<'_>, made: &Proof<'_, Made>) -> Result<Placed, Next> {
    let seen = look.seen;
    let (Made::BackedUp(target), Some(backup)) = (**made, &seen.backup) else {
        let is_unchanged = **made == Made::Unchanged;
        return Ok(if is_unchanged {
            Placed::Unchanged
        } else {
            Placed::NoBackup
        });
    };
    Save::next(look, backup)?;
    if !seen.options.has_node_access {
        return Ok(Placed::ByHand(target));
    }
    for (name, server) in &seen.servers {
        let Some(held) = seen.would_accept(server.configured) else {
            return Err(Next::Refuse(vec![blockers::configuration_unknown(name)]));
        };
        if held == target {
            continue;
        }
        gates::nothing_in_flight(look)?;
        let step = Next::step(Step::Configure {
            server: name.clone(),
            value: Some(target).filter(|target| *target != backup.server),
        });
        return Err(if server.has_configuration_backup {
            look.reapply(step, "configuration management")
        } else {
            step
        });
    }
    Ok(Placed::Configured(target))
}

/// Every server accepts T as node. One at a time is restarted.
///
/// | if | then |
/// |---|---|
/// | there is no backup Secret, or no server was changed and it is a rollback to a token that is not known | pass |
/// | a server is not up, or does not say what it accepts as node | wait; after `--restart-timeout` refuse: `recover` |
/// | a write of another process may be in flight, such as that of a configuration | wait |
/// | a server does not accept T as node, and another thing happens | wait or refuse |
/// | a server does not accept T as node, and the pause between two restarts has not passed | wait |
/// | a server does not accept T as node | restart it; without node access an operator configures T first |
/// | `--only` names another server | stop: the rest is restarted later |
/// | a server joins, or the members of etcd are not the servers | wait; after `--restart-timeout` refuse: `recover` |
/// | forward, `--agents`, and an agent has O in its configuration | record that it gets N |
/// | such an agent has the other one of O and N in its configuration | put T there |
pub(super) fn prove<'look>(look: Look<'look>, placed: &Proof<'look, Placed>) -> Result<Proven, Next> {
    let seen = look.seen;
    let target = match **placed {
        Placed::Configured(target) | Placed::ByHand(target) => target,
        Placed::Unchanged => return Ok(Proven::OtherUnknown),
        Placed::NoBackup => return Ok(Proven::NoBackup),
    };
    gates::every_server_is_up(look)?;
    gates::nothing_in_flight(look)?;
    let is_silent = |server: &&String| as_node(&seen.servers[*server]).is_none();
    if let Some(name) = seen.servers.keys().find(is_silent) {
        return Err(gates::wait_or_recover(look, &format!("server {name} to answer agents")));
    }
    let accepts = |name: &&String| as_node(&seen.servers[*name]) == Some(Some(target));
    let others: Vec<&String> = seen.servers.keys().filter(|name| !accepts(name)).collect();
    let only = |name: &&&String| seen.options.only.as_ref().is_none_or(|only| only == **name);
    if let Some(name) = others.iter().find(only) {
        return Err(Restart::next(look, placed, name, target).unwrap_or_else(|first| first));
    }
    if !others.is_empty() {
        let rest: Vec<&str> = others.iter().map(|name| name.as_str()).collect();
        return Err(Next::Pause(blockers::only(&rest.join(", "))));
    }
    gates::no_server_joins(look)?;
    let Some(other) = record(look).target(!look.direction().is_rollback()) else {
        return Ok(Proven::OtherUnknown);
    };
    agents(look, target, other)?;
    Ok(Proven::Loaded)
}

/// An agent that has a third token is left as it is. So is one that had N before the run wrote it anywhere.
fn agents(look: Look<'_>, target: Fingerprint, other: Fingerprint) -> Result<(), Next> {
    let (seen, record) = (look.seen, record(look));
    let has_other = |(_, agent): &(&String, &Agent)| agent.configured == Configured::Token(Some(other));
    let due: BTreeSet<&String> = seen.agents.iter().filter(has_other).map(|(name, _)| name).collect();
    let is_recorded = |name: &&&String| record.agents.contains(**name);
    if seen.writes_agents && !look.direction().is_rollback() && !due.iter().all(|name| is_recorded(&name)) {
        let mut record = record.clone();
        record.agents.extend(due.into_iter().cloned());
        let agents = record.agents.clone();
        return Err(back_up(record, Change::Agents(agents)));
    }
    let Some(agent) = due.iter().find(is_recorded) else {
        return Ok(());
    };
    Err(Next::step(Step::ConfigureAgent {
        agent: (*agent).clone(),
        value: target,
    }))
}

/// Nothing is called: each server rejects what it has not loaded.
///
/// | if | then |
/// |---|---|
/// | every server accepts T as node | pass |
pub(super) fn retire(proven: &Proof<'_, Proven>) -> Retired {
    match **proven {
        Proven::Loaded | Proven::OtherUnknown => Retired::AtRestart,
        Proven::NoBackup => Retired::NoBackup,
    }
}

/// Nothing is left over. The first step ends the possibility of a rollback.
///
/// | if | then |
/// |---|---|
/// | there is a backup of a configuration, which no rollback needs any more | delete it |
/// | there is the backup Secret | delete it |
pub(super) fn confirm(look: Look<'_>, retired: &Proof<'_, Retired>) -> Result<(), Next> {
    if **retired == Retired::NoBackup {
        return Ok(());
    }
    let seen = look.seen;
    let mut agents = seen.agents.values();
    if seen.servers.values().any(|server| server.has_configuration_backup)
        || agents.any(|agent| agent.has_configuration_backup)
    {
        return Err(Next::step(Step::DeleteConfigurationBackups));
    }
    if seen.backup.is_some() {
        return Err(Next::step(Step::Forget));
    }
    Ok(())
}
