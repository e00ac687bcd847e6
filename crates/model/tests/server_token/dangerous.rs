//! The two steps that can lose a server. Only the checks in this file build them.

use client::secret::Fingerprint;
use engine::rotation::{Look, Next, Proof, Timer};

use crate::rotation::{Live, Placed, ServerToken, Step, name};

/// PUTs of one password, one after the other, on the servers that have another one in their files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Round {
    pub(crate) value: Fingerprint,
    servers: Vec<usize>,
}

/// The restart of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Restart {
    server: usize,
}

impl Round {
    /// A round with this password. A server that has it already is left out: a PUT that does not change its files gives the
    /// datastore their older time, and then a server with newer files does not start.
    ///
    /// | if | then |
    /// |---|---|
    /// | a write may be in flight, or a server is not up | wait |
    /// | it is not known what the next start of a server finds | take an etcd snapshot on every server |
    pub(crate) fn next(look: Look<'_, ServerToken>, value: Fingerprint) -> Next<ServerToken> {
        if let Err(first) = nothing_else_happens(look) {
            return first;
        }
        let servers = look.seen.servers.iter();
        let found: Option<Vec<Fingerprint>> = servers.map(|server| server.next_start).collect();
        let Some(found) = found else {
            return Next::step(Step::Snapshot);
        };
        let servers = (0..found.len()).filter(|at| found[*at] != value).collect();
        Next::step(Step::Round(Self { value, servers }))
    }

    pub(crate) fn servers(&self) -> &[usize] {
        &self.servers
    }
}

impl Restart {
    /// A restart of this server. The proof says that the next start of every server finds the same password.
    ///
    /// | if | then |
    /// |---|---|
    /// | a write may be in flight, or a server is not up | wait |
    pub(crate) fn next<'look>(
        look: Look<'look, ServerToken>,
        _: &Proof<'look, Placed>,
        server: usize,
    ) -> Next<ServerToken> {
        match nothing_else_happens(look) {
            Ok(()) => Next::step(Step::Restart(Self { server })),
            Err(first) => first,
        }
    }

    pub(crate) fn server(&self) -> usize {
        self.server
    }
}

/// No write is in flight, and every server is up.
///
/// | if | then |
/// |---|---|
/// | a PUT or a restart may be in flight | wait |
/// | a server is not ready, not a voter, or does not answer | wait |
/// | a server accepts neither password | refuse |
/// | the configuration of a server has a token | refuse |
fn nothing_else_happens(look: Look<'_, ServerToken>) -> Result<(), Next<ServerToken>> {
    if !look.run.passed(Timer::InFlight) {
        return Err(Next::wait("writes in flight to arrive"));
    }
    for (at, server) in look.seen.servers.iter().enumerate() {
        let name = name(at);
        if !server.is_up() || server.live == Live::Unknown {
            return Err(look.wait(format!("server {name} to be ready")));
        }
        if server.live == Live::Other {
            let reason = format!("server {name} accepts neither the old password nor the new one");
            return Err(Next::refuse(reason, "find out what else changes the server token"));
        }
        if server.is_pinned {
            let reason = format!("the configuration of server {name} has a token");
            return Err(Next::refuse(reason, "remove the token from it"));
        }
    }
    Ok(())
}
