//! The steps that can lose a server. Only the checks in this file and in `gates.rs` build them.
//!
//! Outside a round, the next start of every server finds the token of the datastore. A round ends that for a second. These rules keep
//! it short, and make sure that it ends:
//!
//! - nothing else happens: no write is in flight, every server is up, none joins, and the encryption of Secrets allows it;
//! - a token that is new to the servers is sent only where every server has the same other one in its files;
//! - the order of the servers is that of the record, so the newest files are those of the server that the datastore has saved last.

#![expect(
    clippy::result_large_err,
    reason = "a stage returns once per look, and the step that it returns is sent at once"
)]

use std::fmt;

use client::secret::Fingerprint;
use engine::plan::Named;
use engine::rotation::{Proof, Timer};

use super::observed::{Clocks, Configured, Observed, RoundResult};
use super::record::RoundRecord;
use super::stages::{Look, Next, Placed};
use super::step::{SnapshotKind, Step};
use super::{blockers, gates, order};

/// PUTs of one token, one server after the other.
///
/// How it is sent: each server is asked with what it accepts now, in this order, at once, whatever signal arrives; only a lost lock
/// ends it. If a server answers 500 before any has carried it out, it ends there ([`RoundResult::Rejected`]). After that a failure
/// does not end it: the remaining servers get the token, then the failed ones once more, and the result is
/// [`RoundResult::Repeated`]. After a request without an answer the step fails with a transient error, and
/// [`Observed::may_be_in_flight`] is set. Without snapshots, what a server has in its files is known once it has carried the same token
/// out twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Round {
    value: Fingerprint,
    servers: Vec<String>,
    is_repeated: bool,
    /// Servers of which it is not proven that they have no other token in their configuration (`--force=unpin`).
    unproven: Vec<String>,
}

/// The PUT of the former token on the server that has rejected the first PUT of a round.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Heal {
    server: String,
    value: Fingerprint,
}

/// The restart of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Restart {
    server: String,
    by_hand: bool,
    /// An operator removes the token from its configuration first.
    unpins: bool,
}

impl Round {
    /// The first time that this token is sent: each server has the former one, and gets other files.
    ///
    /// | if | then |
    /// |---|---|
    /// | something else happens, or the clocks differ by 2 s or more, or that is not known | wait or refuse |
    /// | it is not known what a server has in its files | take snapshots |
    /// | a server does not have the former token in its files | refuse: `recover` |
    /// | forward, and the configuration of a server has a token, or may have one | refuse, unless forced |
    pub(super) fn begin(look: Look<'_>, round: &RoundRecord) -> Result<Self, Next> {
        ready_for_new_value(look, round.before)?;
        let mut unproven = Vec::new();
        if !look.direction().is_rollback() {
            for (name, server) in &look.seen.servers {
                match server.configured {
                    Configured::Nowhere => {}
                    Configured::Token(Some(value)) if value == round.value => {}
                    _ if look.seen.options.force_unpin => unproven.push(name.clone()),
                    _ => return Err(refuse_configuration(server.configured, name)),
                }
            }
        }
        Ok(Self {
            unproven,
            ..Self::of(look.seen, round, false)
        })
    }

    /// The same token once more on every server, in the same order: it is not known how far a round has come. Neither the files nor the
    /// configurations count: until it is complete, a server may not start again. Nor do the clocks: which files are the newest is not
    /// known after it anyway, and the round with a fresh token that follows waits for them.
    ///
    /// | if | then |
    /// |---|---|
    /// | something else happens | wait or refuse |
    pub(super) fn repeat(look: Look<'_>, round: &RoundRecord) -> Next {
        match gates::nothing_else_happens(look) {
            Ok(()) => Next::step(Step::Round(Self::of(look.seen, round, true))),
            Err(first) => first,
        }
    }

    fn of(seen: &Observed, round: &RoundRecord, is_repeated: bool) -> Self {
        Self {
            value: round.value,
            servers: order(seen, Some(round)),
            is_repeated,
            unproven: Vec::new(),
        }
    }

    pub fn value(&self) -> Fingerprint {
        self.value
    }

    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    pub fn is_repeated(&self) -> bool {
        self.is_repeated
    }
}

impl Heal {
    /// Nothing is checked before it: it only undoes, and a server with files of its own does not start again.
    ///
    /// | if | then |
    /// |---|---|
    /// | a server has rejected the first PUT of the round | PUT the former token there |
    pub(super) fn next(look: Look<'_>, round: &RoundRecord) -> Option<Next> {
        let RoundResult::Rejected(server) = &look.seen.round else {
            return None;
        };
        let (server, value) = (server.clone(), round.before);
        Some(Next::step(Step::Heal(Self { server, value })))
    }

    pub fn value(&self) -> Fingerprint {
        self.value
    }

    pub fn server(&self) -> &str {
        &self.server
    }
}

impl Restart {
    /// A restart after which the server accepts the token. The proof says that the next start of every server finds it.
    ///
    /// | if | then |
    /// |---|---|
    /// | something else happens | wait or refuse |
    /// | the configuration of a server has another token, or may have one | refuse, unless forced and not known |
    /// | the pause between two restarts has not passed | wait |
    pub(super) fn next<'look>(
        look: Look<'look>,
        _: &Proof<'look, Placed>,
        server: &str,
        value: Fingerprint,
    ) -> Result<Next, Next> {
        gates::nothing_else_happens(look)?;
        let options = &look.seen.options;
        for (name, server) in &look.seen.servers {
            match server.configured {
                Configured::Nowhere => {}
                Configured::Token(Some(held)) if held == value => {}
                Configured::Token(None) | Configured::Unknown if options.force_unpin => {}
                _ => return Err(refuse_configuration(server.configured, name)),
            }
        }
        let has_restarted_one = look.seen.servers.values().any(|server| server.has_loaded(value));
        gates::pause(look, options, has_restarted_one)?;
        Ok(Self::step(look.seen, server, false))
    }

    /// A restart after an operator has removed the token from the configuration, which cannot be seen before. The server then starts
    /// from its files.
    ///
    /// | if | then |
    /// |---|---|
    /// | something else happens | wait or refuse |
    /// | a server does not have the token of the datastore in its files, or it is not known | take snapshots, or refuse: `recover` |
    pub(super) fn after_unpin(look: Look<'_>, server: &str, value: Fingerprint) -> Result<Next, Next> {
        gates::nothing_else_happens(look)?;
        every_file_has(look, value)?;
        Ok(Self::step(look.seen, server, true))
    }

    fn step(seen: &Observed, server: &str, unpins: bool) -> Next {
        let (server, by_hand) = (server.to_owned(), !seen.options.has_node_access);
        let restart = Self {
            server,
            by_hand,
            unpins,
        };
        Next::step(Step::Restart(restart)).stopping(Timer::Quiet)
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    pub fn by_hand(&self) -> bool {
        self.by_hand
    }

    pub fn unpins(&self) -> bool {
        self.unpins
    }
}

/// A round with a token that is new to the servers may begin.
pub(super) fn ready_for_new_value(look: Look<'_>, before: Fingerprint) -> Result<(), Next> {
    gates::nothing_else_happens(look)?;
    if look.seen.servers.len() > 1 {
        match &look.seen.clocks {
            Clocks::Close(_) => {}
            Clocks::Skewed => return Err(Next::Refuse(vec![blockers::clocks(true)])),
            Clocks::Unknown => return Err(Next::wait("the clock of every server")),
        }
    }
    every_file_has(look, before)
}

/// Without snapshots it cannot be known. A server with other files then rejects the first PUT.
fn every_file_has(look: Look<'_>, value: Fingerprint) -> Result<(), Next> {
    match look.seen.all_hold(value) {
        Some(false) => Err(Next::Refuse(vec![blockers::not_the_datastores(value)])),
        None if look.seen.has_snapshots() => Err(Next::step(Step::Snapshot(SnapshotKind::Checking))),
        Some(true) | None => Ok(()),
    }
}

fn refuse_configuration(configured: Configured, server: &str) -> Next {
    Next::Refuse(vec![match configured {
        Configured::Unknown => blockers::configuration_unknown(server),
        Configured::Nowhere | Configured::Token(_) => blockers::configured_again(server),
    }])
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let once_more = if self.is_repeated { " once more" } else { "" };
        write!(
            f,
            "set {} on {}{once_more}",
            Named(&self.value),
            self.servers.join(", ")
        )?;
        if !self.unproven.is_empty() {
            let servers = self.unproven.join(", ");
            write!(f, " (not proven that no other token is configured on {servers})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Heal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "set {} again on {}, which has rejected the new one",
            self.value, self.server
        )
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, .. } = self;
        let ask = if self.by_hand { "have an operator " } else { "" };
        if self.unpins {
            write!(
                f,
                "{ask}remove the token from the configuration of server {server}, and restart it"
            )
        } else {
            write!(f, "{ask}restart server {server}")
        }
    }
}
