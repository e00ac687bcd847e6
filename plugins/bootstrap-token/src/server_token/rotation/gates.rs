//! What both rotations of K3s' tokens check before a server is changed or restarted.

use std::collections::{BTreeMap, BTreeSet};

use engine::rotation::{Look, Next, Rotation, Timer};

use super::blockers;
use super::observed::{Clocks, Cluster, Datastore, Encryption, Login, Members, Options, Role, Server};

/// The servers, as far as it does not matter which token is rotated.
#[derive(Clone, Copy)]
pub(crate) struct Servers<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) by_name: &'a BTreeMap<String, Server>,
    pub(crate) members: Members,
    pub(crate) joining: &'a BTreeSet<String>,
    pub(crate) encryption: &'a Encryption,
    pub(crate) clocks: &'a Clocks,
    pub(crate) may_be_in_flight: bool,
}

/// A rotation that changes and restarts servers.
pub(crate) trait Gated: Rotation {
    fn servers(seen: &Self::Observed) -> Servers<'_>;
}

/// No write is in flight, every server is up, none joins, and the encryption of Secrets allows a round.
///
/// | if | then |
/// |---|---|
/// | a write of another process, or one without an answer, may be in flight | wait |
/// | the encryption of Secrets is not the same and complete on every server | refuse, and nothing forces it |
/// | a server is control-plane-only or etcd-only | refuse |
/// | a server is not ready, is not a voter, or does not answer | wait; after `--restart-timeout` refuse: `recover` |
/// | the encryption of Secrets is not known | wait; after `--restart-timeout` refuse: `recover` |
/// | a server joins, or the members of etcd are not the servers | wait; after `--restart-timeout` refuse: `recover` |
pub(crate) fn nothing_else_happens<R: Gated>(look: Look<'_, R>) -> Result<(), Next<R>> {
    nothing_else_happens_but(look, None)
}

/// The same. One server need only answer.
pub(crate) fn nothing_else_happens_but<R: Gated>(look: Look<'_, R>, starting: Option<&str>) -> Result<(), Next<R>> {
    let seen = R::servers(look.seen);
    nothing_in_flight(look)?;
    if let Encryption::Unsafe(reason) = seen.encryption {
        return Err(Next::Refuse(vec![blockers::encryption(reason)]));
    }
    if let Some((name, server)) = seen.by_name.iter().find(|(_, server)| server.role != Role::Full) {
        return Err(Next::Refuse(vec![blockers::role(name, server.role)]));
    }
    every_server_is_up_but(look, starting)?;
    if *seen.encryption != Encryption::Safe {
        return Err(wait_or_recover(look, "the encryption status of every server"));
    }
    no_server_joins(look)
}

/// | if | then |
/// |---|---|
/// | a server joins, or the members of etcd are not the servers | wait; after `--restart-timeout` refuse: `recover` |
pub(crate) fn no_server_joins<R: Gated>(look: Look<'_, R>) -> Result<(), Next<R>> {
    let seen = R::servers(look.seen);
    if let Some(server) = seen.joining.first() {
        return Err(wait_or_recover(look, &format!("server {server} to join")));
    }
    if seen.cluster.datastore == Datastore::Etcd && seen.members != Members::Same {
        return Err(wait_or_recover(look, "the members of etcd to be the servers"));
    }
    Ok(())
}

/// | if | then |
/// |---|---|
/// | a write of another process, or one without an answer, may be in flight | wait |
pub(crate) fn nothing_in_flight<R: Gated>(look: Look<'_, R>) -> Result<(), Next<R>> {
    if R::servers(look.seen).may_be_in_flight && !look.run.passed(Timer::InFlight) {
        return Err(Next::wait("writes in flight to arrive"));
    }
    Ok(())
}

/// | if | then |
/// |---|---|
/// | this process has asked for a restart, and the server has not stopped | wait |
/// | a server is not ready, is not a voter, or does not answer | wait; after `--restart-timeout` refuse: `recover` |
pub(crate) fn every_server_is_up<R: Gated>(look: Look<'_, R>) -> Result<(), Next<R>> {
    every_server_is_up_but(look, None)
}

fn every_server_is_up_but<R: Gated>(look: Look<'_, R>, starting: Option<&str>) -> Result<(), Next<R>> {
    let Servers { cluster, by_name, .. } = R::servers(look.seen);
    for (name, server) in by_name {
        if server.is_restarting && server.is_ready && server.accepts != Login::Unknown {
            return Err(Next::wait(format!("server {name} to restart")));
        }
        let is_enough = if starting == Some(name) {
            server.accepts != Login::Unknown && !server.is_restarting
        } else {
            server.is_up(cluster.datastore)
        };
        if !is_enough {
            return Err(wait_or_recover(look, &format!("server {name} to be ready")));
        }
    }
    Ok(())
}

/// | if | then |
/// |---|---|
/// | `--pause-between`, a server was restarted, and the pause has not passed | wait |
pub(crate) fn pause<R: Gated>(look: Look<'_, R>, options: &Options, has_restarted_one: bool) -> Result<(), Next<R>> {
    if options.pauses && has_restarted_one && !look.run.passed(Timer::Quiet) {
        return Err(Next::wait("the pause between two restarts (--pause-between)").starting(Timer::Quiet));
    }
    Ok(())
}

/// It never turns the run back: that would be a PUT or a restart while a server is down.
pub(crate) fn wait_or_recover<R: Gated>(look: Look<'_, R>, what: &str) -> Next<R> {
    if look.run.passed(Timer::Proof) {
        return Next::Refuse(vec![blockers::recover(format!(
            "still waiting for {what} when --restart-timeout expired; restart nothing"
        ))]);
    }
    Next::wait(what).starting(Timer::Proof)
}

/// The timers of both rotations: writes of another process, and `--restart-timeout`, which is about one wait. Once every server is up,
/// it has not begun.
pub(crate) fn timers(seen: Servers<'_>) -> Vec<Timer> {
    seen.may_be_in_flight.then_some(Timer::InFlight).into_iter().collect()
}

/// See [`timers`].
pub(crate) fn stale_timers(seen: Servers<'_>) -> Vec<Timer> {
    let datastore = seen.cluster.datastore;
    let are_up = seen.by_name.values().all(|server| server.is_up(datastore)) && seen.joining.is_empty();
    are_up.then_some(Timer::Proof).into_iter().collect()
}
