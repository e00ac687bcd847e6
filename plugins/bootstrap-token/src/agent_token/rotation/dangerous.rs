//! The steps that can lose a server. Only the checks in this file and in the gates of the server token build them.
//!
//! The next start of a server that has changed what it accepts as node is fatal, until its files are saved into the datastore. So that
//! comes before everything else ([`Save::next`]), and only then another server may be restarted ([`Restart::next`]).

#![expect(
    clippy::result_large_err,
    reason = "a stage returns once per look, and the step that it returns is sent at once"
)]

use std::collections::BTreeSet;
use std::fmt;

use client::secret::Fingerprint;
use engine::rotation::{Proof, Timer};

use super::blockers;
use super::observed::{Observed, PutResult, as_node};
use super::record::{Record, Saved};
use super::stages::{self, Look, Next, Placed};
use super::step::{self, Step};
use crate::server_token::rotation::gates;

/// A PUT of the server token that the server has already. It changes no token, and saves the files of that server into the datastore.
///
/// How it is sent: with the server token as login and as new token, every 0.3 s from the first 405 until 200. An earlier 500 changes
/// nothing, since the value is the same. A signal takes effect after it, and a lost lock at once. After a request without an answer the
/// step fails with a transient error, and [`Observed::may_be_in_flight`] is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Save {
    login: Fingerprint,
    saved: Saved,
    server: String,
}

/// The restart of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Restart {
    server: String,
    /// An operator changes the configuration first: to this token, or to none.
    #[expect(
        clippy::option_option,
        reason = "the inner one is what the configuration has afterwards"
    )]
    by_hand: Option<Option<Fingerprint>>,
}

/// The servers that do not start again.
enum Armed {
    NoServer,
    /// This one has the newest file, with this token. Once the datastore has it, every other server starts: its file is older.
    Newest(String, Option<Fingerprint>),
    /// Which of these has the newest file is not known.
    OneOf(BTreeSet<String>),
    /// The file of one has not been read.
    NotRead,
}

impl Save {
    /// Comes first, in every phase.
    ///
    /// With node access the times of the files decide: a PUT on the server with the newest file is always right. So after a PUT that may
    /// have arrived and is not recorded, it is sent once more. Mostly the file is the same, and nothing changes.
    ///
    /// By hand, a server that accepts another token than the datastore has may have an older file, which is harmless, or have started
    /// since. There, a PUT on the wrong server would make the datastore's file older than that of another server.
    ///
    /// | if | then |
    /// |---|---|
    /// | a PUT was carried out, and is not recorded | record it |
    /// | with node access, the newest file is not the one that was saved last, or a PUT that was begun is not recorded | PUT on its server |
    /// | by hand, nothing was saved, and one server accepts another token than O | PUT on it |
    /// | by hand, one server has started since the last PUT, and accepts another token than the datastore has | PUT on it |
    /// | by hand, a PUT that was begun is not recorded, and no other server has started since | PUT on it |
    /// | with node access, the files of a server cannot be read yet | wait; after `--restart-timeout` refuse: `recover` |
    /// | by hand, there are several such servers, or it is not known which have started | refuse |
    /// | it is not recorded that the PUT begins | record it |
    /// | before the PUT, another server is not up, or something else happens | wait or refuse |
    pub(super) fn next(look: Look<'_>, backup: &Record) -> Result<(), Next> {
        let seen = look.seen;
        if let PutResult::Done(put) = &seen.put
            && (*put != backup.saved || !backup.saving.is_empty())
        {
            return Err(stages::saved(backup, put));
        }
        match armed(seen, backup) {
            Armed::NoServer => Ok(()),
            Armed::NotRead => Err(gates::wait_or_recover(look, "the files of every server to be readable")),
            Armed::Newest(server, token) => {
                gates::nothing_else_happens_but(look, Some(&server))?;
                if !backup.saving.contains(&server) {
                    return Err(stages::saves(backup, server));
                }
                let by = Some(server.clone());
                Err(Next::step(Step::Save(Self {
                    login: backup.server,
                    saved: Saved { token, by },
                    server,
                })))
            }
            Armed::OneOf(servers) => {
                // A server that restarts may be seen better in a moment, and a former process may still restart one.
                gates::nothing_in_flight(look)?;
                let servers: Vec<String> = servers.into_iter().collect();
                Err(Next::Refuse(vec![blockers::order_unknown(&servers.join(", "))]))
            }
        }
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    /// The server token.
    pub fn login(&self) -> Fingerprint {
        self.login
    }

    /// What the datastore has afterwards.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }
}

fn armed(seen: &Observed, backup: &Record) -> Armed {
    let saved = &backup.saved;
    let accepted = |name: &String| seen.servers.get(name).and_then(as_node);
    let differs = |name: &&String| accepted(name).is_some_and(|token| token != saved.token);
    let others: BTreeSet<String> = seen.servers.keys().filter(differs).cloned().collect();
    // A PUT may have arrived, and a server that has started since then may have changed back what it accepts.
    let is_recorded_only = seen.put == PutResult::Recorded && backup.saving.len() == 1;
    let is_uncertain = !backup.saving.is_empty() && !is_recorded_only;
    if let Some(newest) = &seen.newest {
        if newest.is_empty() {
            return Armed::NotRead;
        }
        let is_saved = match &saved.by {
            _ if is_uncertain => false,
            Some(by) => newest.contains(by) && newest.is_disjoint(&others),
            None => others.is_empty(),
        };
        let known = newest.iter().filter_map(|name| Some((name, accepted(name)?)));
        // Of files of the same second, one that the datastore does not have.
        let first = known.min_by_key(|(name, _)| !others.contains(*name));
        return match first {
            Some((name, token)) if !is_saved => Armed::Newest(name.clone(), token),
            // It is waited for, before anything is restarted.
            _ => Armed::NoServer,
        };
    }
    let suspects: BTreeSet<String> = match (&seen.started, &saved.by) {
        (None, _) if is_uncertain => seen.servers.keys().cloned().collect(),
        (Some(started), by) if is_uncertain => {
            let others = others.into_iter().filter(|_| by.is_none());
            others.chain(started.iter().chain(&backup.saving).cloned()).collect()
        }
        (_, None) => others,
        (Some(started), Some(_)) => others.intersection(started).cloned().collect(),
        // The one that was saved last has started since, and any other may have.
        (None, Some(by)) if others.iter().all(|name| name == by) => others,
        (None, Some(_)) => return Armed::OneOf(others),
    };
    match suspects.first().map(|name| (name, accepted(name))) {
        _ if suspects.len() > 1 => Armed::OneOf(suspects),
        Some((name, Some(token))) => Armed::Newest(name.clone(), token),
        // It is waited for, before anything is restarted.
        Some((_, None)) | None => Armed::NoServer,
    }
}

impl Restart {
    /// A restart after which the server accepts the token as node. The proof says that the next start of every server succeeds.
    ///
    /// | if | then |
    /// |---|---|
    /// | something else happens | wait or refuse |
    /// | the pause between two restarts has not passed | wait |
    pub(super) fn next<'look>(
        look: Look<'look>,
        _: &Proof<'look, Placed>,
        server: &str,
        value: Fingerprint,
    ) -> Result<Next, Next> {
        gates::nothing_else_happens(look)?;
        let (seen, options) = (look.seen, &look.seen.options);
        let mut servers = seen.servers.values();
        let has_restarted_one = servers.any(|server| as_node(server) == Some(Some(value)));
        gates::pause(look, options, has_restarted_one)?;
        let asked = Some(value).filter(|value| *value != seen.given);
        let restart = Self {
            server: server.to_owned(),
            by_hand: (!options.has_node_access).then_some(asked),
        };
        Ok(Next::step(Step::Restart(restart)).stopping(Timer::Quiet))
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    /// What an operator puts into the configuration first, if it is by hand. The inner `None`: no agent token.
    pub fn by_hand(&self) -> Option<Option<Fingerprint>> {
        self.by_hand
    }
}

impl fmt::Display for Save {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "set the same server token again on {}, which saves its files into the datastore",
            self.server
        )
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by_hand {
            Some(value) => {
                f.write_str("have an operator ")?;
                step::configure(f, value, &self.server)?;
                f.write_str(", and restart it")
            }
            None => write!(f, "restart server {}", self.server),
        }
    }
}
