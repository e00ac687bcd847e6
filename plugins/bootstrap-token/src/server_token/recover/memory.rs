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

#[cfg(test)]
mod tests {
    use client::secret::Secret;
    use node_access::{ServerTokenFile, ServiceState};
    use supervisor::node::{EtcdMember, StartConfiguration};

    use super::*;

    const LIMIT: Duration = Duration::from_mins(5);
    const DIFFERENT: &str = "bootstrap data already found and encrypted with different token";

    fn hash(token: &str) -> TokenHash {
        TokenHash::of(&Secret::new(token))
    }

    fn own_copy(second: u32) -> String {
        format!("time={second} level=fatal msg=\"failed to reconcile with local datastore: {DIFFERENT}\"")
    }

    /// A server whose service is in this state, with this log.
    fn server(active: &str, log: &[String]) -> ServerFacts {
        let service = ServiceState {
            manager: ServiceManager::Systemd,
            active: active.to_owned(),
            restarts: Some(0),
            ..ServiceState::default()
        };
        ServerFacts {
            response: Response::None,
            is_full: true,
            member: EtcdMember::Unknown,
            loaded: None,
            snapshot: None,
            placed: None,
            start: StartConfiguration::Unknown("there is no API server"),
            node: Some(NodeState {
                service,
                server_token: Some(ServerTokenFile {
                    sha256: String::new(),
                    modified: 0,
                    user: None,
                    fingerprint: Some(hash("old")),
                }),
                log: log.to_vec(),
                ..NodeState::default()
            }),
            starts: FailedStarts::default(),
            starts_once: false,
            needs_save: None,
        }
    }

    fn ready(loaded: &str) -> ServerFacts {
        ServerFacts {
            response: Response::Ready,
            loaded: Some(hash(loaded)),
            ..server("active", &[])
        }
    }

    fn follow(memory: &mut ServerMemory, mut server: ServerFacts, at: Instant) -> (ServerFacts, bool) {
        let has_started = memory.follow(&mut server, at, LIMIT, 0);
        (server, has_started)
    }

    #[test]
    fn each_failed_start_is_counted_once() {
        let (mut memory, at) = (ServerMemory::default(), Instant::now());
        let first = server("failed", &[own_copy(1)]);
        for _ in 0..2 {
            let (facts, _) = follow(&mut memory, first.clone(), at);
            assert_eq!((facts.starts.count, facts.presence()), (1, Presence::Down));
            // With which token that start was is not known.
            assert_eq!(facts.starts.rejected, []);
        }
        memory.start_once(&first, 0);
        // systemd has accepted it, and has not begun.
        let (facts, _) = follow(&mut memory, first.clone(), at);
        assert_eq!((facts.starts.count, facts.presence()), (1, Presence::Starting));
        for _ in 0..2 {
            let again = server("failed", &[own_copy(1), own_copy(5)]);
            let (facts, has_started) = follow(&mut memory, again, at);
            assert_eq!(
                (facts.starts.count, facts.presence(), has_started),
                (2, Presence::Down, false)
            );
            assert_eq!(facts.starts.rejected, [hash("old")]);
            assert!(!facts.starts_once);
        }
    }

    #[test]
    fn a_log_that_shows_no_new_error_is_waited_for_and_then_counts_as_it_is() {
        let (mut memory, at) = (ServerMemory::default(), Instant::now());
        let first = server("failed", &[own_copy(1)]);
        follow(&mut memory, first.clone(), at);
        memory.start_once(&first, 0);
        let panic = server("failed", &[own_copy(1), "panic: nil".to_owned()]);
        let (facts, _) = follow(&mut memory, panic.clone(), at);
        assert_eq!(facts.presence(), Presence::Starting);
        let (facts, _) = follow(&mut memory, panic, at + LAG);
        let failure = facts.starts.last.map(|start| start.failure);
        // The error before it is of another start.
        assert_eq!(failure, Some(StartFailure::Other("panic: nil".to_owned())));
    }

    #[test]
    fn a_start_that_succeeds_proves_the_token_and_is_not_repeated() {
        let (mut memory, at) = (ServerMemory::default(), Instant::now());
        let down = server("failed", &[]);
        follow(&mut memory, down.clone(), at);
        memory.start_once(&down, 0);
        let (facts, has_started) = follow(&mut memory, ready("old"), at);
        assert!(has_started && facts.starts_once);
        assert_eq!(facts.needs_save, None, "nothing is configured");
        memory.end_once();
        let (facts, has_started) = follow(&mut memory, ready("old"), at);
        assert!(!has_started && !facts.starts_once);
    }

    #[test]
    fn a_restart_counts_as_starting_until_the_server_was_away_or_accepts_another_token() {
        for is_seen_away in [true, false] {
            let (mut memory, at) = (ServerMemory::default(), Instant::now());
            memory.restart(&ready("old"));
            let (facts, has_started) = follow(&mut memory, ready("old"), at);
            assert_eq!((facts.presence(), has_started), (Presence::Starting, false));
            if is_seen_away {
                let (facts, _) = follow(&mut memory, server("deactivating", &[]), at);
                assert_eq!(facts.presence(), Presence::Starting);
                assert!(follow(&mut memory, ready("old"), at).1);
            } else {
                assert!(follow(&mut memory, ready("new"), at).1);
            }
        }
    }

    #[test]
    fn without_node_access_a_restart_has_failed_after_the_limit() {
        let without_node = |mut server: ServerFacts| {
            server.node = None;
            server
        };
        let (mut memory, at) = (ServerMemory::default(), Instant::now());
        memory.restart(&without_node(ready("old")));
        let away = without_node(server("", &[]));
        let (facts, _) = follow(&mut memory, away.clone(), at);
        assert_eq!(facts.presence(), Presence::Starting);
        let (facts, _) = follow(&mut memory, away, at + LIMIT);
        assert_eq!(facts.presence(), Presence::NoResponse);
    }

    #[test]
    fn without_a_service_manager_the_commands_and_the_log_show_the_state() {
        let unmanaged = |log: &[String]| {
            let mut facts = server("", log);
            if let Some(node) = &mut facts.node {
                node.service = ServiceState::default();
            }
            facts
        };
        let (mut memory, at) = (ServerMemory::default(), Instant::now());
        let (facts, _) = follow(&mut memory, unmanaged(&[own_copy(1)]), at);
        assert!(facts.presence() == Presence::Down && !facts.is_stopped());
        memory.stopped();
        let (facts, _) = follow(&mut memory, unmanaged(&[own_copy(1)]), at);
        assert!(facts.presence() == Presence::Down && facts.is_stopped());
        memory.start_once(&facts, 0);
        let (facts, _) = follow(&mut memory, unmanaged(&[own_copy(1)]), at + LAG);
        assert_eq!(facts.presence(), Presence::Starting);
        let (facts, _) = follow(&mut memory, unmanaged(&[own_copy(1), own_copy(2)]), at + LAG);
        // The user's command may start it again.
        assert!(facts.presence() == Presence::Down && !facts.is_stopped());
        assert_eq!(facts.starts.count, 2);
    }
}
