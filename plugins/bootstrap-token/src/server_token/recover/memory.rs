//! What one process keeps about a server between two observations. It is pure, and what follows from it is in the docs of
//! [`ServerFacts`].

use std::time::Duration;

use node_access::{NodeState, ServiceManager};
use supervisor::TokenHash;
use tokio::time::Instant;

use crate::server_token::recovery::facts::{
    ConfiguredToken, FailedStarts, LastStart, Presence, Response, ServerFacts, StartFailure,
};

/// How long the log may take to show why a start has failed, and a service manager to begin a start that it has accepted.
const LAG: Duration = Duration::from_secs(3);

/// One server.
#[derive(Debug, Default)]
pub(super) struct ServerMemory {
    starts: FailedStarts,
    /// A start that this process has asked for, and whose end it has not seen.
    started: Option<Started>,
    restarting: Option<Restarting>,
    starts_once: bool,
    needs_save: Option<usize>,
    snapshot: Option<TokenHash>,
    placed: Option<TokenHash>,
    /// Stopped by the user's command.
    is_stopped: bool,
    was_away: bool,
    /// The end that its log shows is among the failed starts.
    is_counted: bool,
}

#[derive(Debug)]
struct Started {
    with: Option<TokenHash>,
    /// The log before it.
    log: Vec<String>,
    /// When it was first seen to have ended.
    ended: Option<Instant>,
}

#[derive(Debug)]
struct Restarting {
    /// What the server accepted before.
    loaded: Option<TokenHash>,
    away_since: Option<Instant>,
}

impl ServerMemory {
    /// Completes what was read with what is known from before. Returns whether a start of this process has succeeded. `number`: that of
    /// the next start.
    pub(super) fn follow(&mut self, server: &mut ServerFacts, at: Instant, limit: Duration, number: usize) -> bool {
        let is_restarted = self.follow_restart(server, at, limit);
        self.without_manager(server);
        let mut has_started = is_restarted;
        match server.presence() {
            Presence::Ready => {
                has_started |= self.started.take().is_some();
                let is_configured = server.configured() != ConfiguredToken::Nowhere;
                // An operator has brought it back.
                if self.was_away && !has_started && is_configured {
                    self.needs_save = Some(number);
                }
                (self.was_away, self.is_counted) = (false, false);
            }
            Presence::Starting => {
                if let Some(started) = &mut self.started {
                    started.ended = None;
                }
            }
            Presence::Down => {
                self.was_away = true;
                self.ended(server, at);
            }
            Presence::NoResponse => self.was_away = true,
        }
        server.starts.clone_from(&self.starts);
        server.starts_once = self.starts_once;
        server.needs_save = self.needs_save;
        (server.snapshot, server.placed) = (self.snapshot, self.placed);
        has_started
    }

    /// A restart that was asked for has happened if the server was away or accepts another token, and is back. Until then it counts as
    /// starting.
    fn follow_restart(&mut self, server: &mut ServerFacts, at: Instant, limit: Duration) -> bool {
        let Some(restart) = &mut self.restarting else {
            return false;
        };
        if server.response == Response::Ready {
            let has_happened = restart.away_since.is_some() || server.loaded != restart.loaded;
            if has_happened && server.loaded.is_some() {
                self.restarting = None;
                return true;
            }
            server.response = Response::NotReady;
            return false;
        }
        let since = *restart.away_since.get_or_insert(at);
        // Without node access it is not known whether it has ended.
        if server.node.is_none() && at.duration_since(since) < limit {
            server.response = Response::NotReady;
        }
        false
    }

    /// Where no service manager is known, the commands of the user and the log show the state of the service.
    fn without_manager(&self, server: &mut ServerFacts) {
        let response = server.response;
        let Some(node) = server
            .node
            .as_mut()
            .filter(|node| node.service.manager == ServiceManager::Unknown)
        else {
            return;
        };
        let shows_end = |started: &Started| of_new_lines(started, node).is_some_and(|failure| !is_other(&failure));
        let has_ended = |started: &Started| response == Response::None && shows_end(started);
        let active = match &self.started {
            _ if self.is_stopped => "inactive",
            Some(started) if !has_ended(started) => "activating",
            _ => "",
        };
        active.clone_into(&mut node.service.active);
    }

    /// It does not run: why its last start has failed.
    fn ended(&mut self, server: &mut ServerFacts, at: Instant) {
        let Some(started) = &mut self.started else {
            if !std::mem::replace(&mut self.is_counted, true)
                && let Some(start) = server.start_of_log()
            {
                self.starts.add(start, token_file(server));
            }
            return;
        };
        let Some(node) = &mut server.node else { return };
        let since = *started.ended.get_or_insert(at);
        let failure = of_new_lines(started, node);
        let is_known = matches!(failure, Some(ref failure) if !is_other(failure));
        if !is_known && at.duration_since(since) < LAG {
            // It has not begun, or its log is not complete yet.
            starting(node);
            return;
        }
        // The same error within the same second is the same line.
        let failure = failure.or_else(|| StartFailure::of_log(&node.log));
        let failure = failure.unwrap_or_else(|| StartFailure::Other("its log has no error".to_owned()));
        let with = started.with;
        (self.started, self.restarting) = (None, None);
        (self.starts_once, self.is_counted) = (false, true);
        self.starts.add(LastStart { with, failure }, token_file(server));
    }

    /// Before a start. `number` counts the starts of this process.
    pub(super) fn start_once(&mut self, server: &ServerFacts, number: usize) {
        self.begin(server);
        self.starts_once = true;
        let is_configured = server.configured() != ConfiguredToken::Nowhere;
        self.needs_save = is_configured.then_some(number);
    }

    /// Before a restart.
    pub(super) fn restart(&mut self, server: &ServerFacts) {
        self.begin(server);
        self.restarting = Some(Restarting {
            loaded: server.loaded,
            away_since: None,
        });
    }

    fn begin(&mut self, server: &ServerFacts) {
        let log = server.node.as_ref().map(|node| node.log.clone());
        self.is_stopped = false;
        self.started = Some(Started {
            with: server.next_token(),
            log: log.unwrap_or_default(),
            ended: None,
        });
    }

    /// Nothing was asked for after all.
    pub(super) fn not_begun(&mut self) {
        (self.started, self.restarting, self.starts_once) = (None, None, false);
    }

    pub(super) fn stopped(&mut self) {
        self.is_stopped = true;
    }

    pub(super) fn end_once(&mut self) {
        self.starts_once = false;
    }

    /// A PUT was sent to it.
    pub(super) fn put(&mut self, value: TokenHash, is_accepted: bool) {
        self.snapshot = None;
        self.placed = is_accepted.then_some(value);
        if is_accepted {
            self.needs_save = None;
        }
    }

    pub(super) fn snapshot(&mut self, token: TokenHash) {
        self.snapshot = Some(token);
    }
}

fn token_file(server: &ServerFacts) -> Option<TokenHash> {
    server.node.as_ref()?.server_token.as_ref()?.fingerprint
}

/// By what the log has now and had not before.
fn of_new_lines(started: &Started, node: &NodeState) -> Option<StartFailure> {
    let new = node.log.iter().filter(|line| !started.log.contains(line));
    let new: Vec<String> = new.cloned().collect();
    StartFailure::of_log(&new)
}

fn is_other(failure: &StartFailure) -> bool {
    matches!(failure, StartFailure::Other(_))
}

/// It is starting for the first time.
fn starting(node: &mut NodeState) {
    let service = &mut node.service;
    "activating".clone_into(&mut service.active);
    "start".clone_into(&mut service.sub);
    service.restarts = Some(0);
}
