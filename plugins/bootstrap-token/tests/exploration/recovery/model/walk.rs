//! The recovery on the model: what it observes, what its actions do, and each state that it is tried on.

use std::collections::HashSet;

use supervisor::TokenHash;

use super::super::{PASSWD, brief, cluster, decide, node, ready, start};
use kubectl_bootstrap_token::server_token::recovery::facts::{
    FailedStarts, LastStart, RecoveryFacts, Response, RoundEnd, RoundFacts, ServerFacts,
};
use kubectl_bootstrap_token::server_token::recovery::plan::{Recovery, RecoveryAction, RecoveryRound, RoundValue};

use super::{Access, Event, FRESH, Kill, NEW, OLD, OTHER, Phase, Server, TRAP, Token, World, index, value};

impl World {
    fn facts(&self, access: &Access) -> RecoveryFacts {
        let fact = |server: &Server| Self::server_facts(server, access);
        let servers: Vec<ServerFacts> = self.servers.iter().map(fact).collect();
        let mut facts = cluster(&servers, &[]);
        facts.at_hand = access
            .given
            .iter()
            .copied()
            .chain(FRESH..self.drawn)
            .map(value)
            .collect();
        facts.proven = self.proven.map(value);
        facts.last_round = self.last_round.map(|(token, end, first)| RoundFacts {
            value: value(token),
            end: match end {
                0 => RoundEnd::InOrder,
                1 => RoundEnd::OutOfOrder,
                2 => RoundEnd::Unfinished,
                3 => RoundEnd::FirstRejected(format!("s{}", first + 1)),
                _ => RoundEnd::NoneAccepted,
            },
        });
        let is_up = self.servers.iter().all(|server| server.phase == Phase::Ready);
        facts.members_are_servers = is_up.then_some(true);
        facts
    }

    fn server_facts(server: &Server, access: &Access) -> ServerFacts {
        let is_ready = server.phase == Phase::Ready;
        let mut state = node(
            server.token.map(value),
            server.passwd.map(|it| value(it.token)),
            server.pin.map(value),
        );
        if let (Some(file), Some(passwd)) = (state.passwd.first_mut(), server.passwd) {
            file.file.modified = passwd.time.into();
            file.file.sha256 = passwd.written.to_string();
        }
        let service = &mut state.service;
        match server.phase {
            Phase::Ready | Phase::Waiting => {}
            Phase::Down if server.loops => {
                (service.active, service.sub) = ("activating".to_owned(), "auto-restart".to_owned());
            }
            Phase::Down => "failed".clone_into(&mut service.active),
        }
        if let Some(log) = server.log {
            let files = if log == TRAP { PASSWD } else { "" };
            state.log = vec![format!("level=fatal msg=\"{files}{log}\"")];
        }
        ServerFacts {
            response: if is_ready { Response::Ready } else { Response::None },
            loaded: is_ready.then(|| value(server.live)),
            snapshot: server.snapshot.map(value),
            placed: server.placed.map(value),
            start: start(server.pin.is_some()),
            node: access.has_nodes.then_some(state),
            starts: server.starts.clone(),
            starts_once: server.starts_once,
            needs_save: server.needs_save,
            ..ready("old", "old", None)
        }
    }

    /// Recovers until the end. Returns the actions that tell something; an error with all of them if it does not end, or did harm.
    pub(in super::super) fn recover(&mut self, access: &Access) -> Result<Vec<Recovery>, String> {
        self.proven = None;
        self.last_round = None;
        for server in &mut self.servers {
            (server.starts, server.snapshot, server.placed) = (FailedStarts::default(), None, None);
        }
        let first = self.facts(access);
        for (server, facts) in self.servers.iter_mut().zip(first.servers.values()) {
            if let Some(start) = facts.start_of_log().filter(|_| server.phase == Phase::Down) {
                server.starts.add(start, server.token.map(value));
            }
        }
        let mut actions: Vec<Recovery> = Vec::new();
        let trace = |actions: &[Recovery], why: &str| {
            let trace: Vec<String> = actions.iter().map(brief).collect();
            format!("{why} after {}", trace.join(", "))
        };
        for _ in 0..100 {
            let facts = self.facts(access);
            let (_, next) = decide(&facts);
            let would_start: Vec<bool> = (0..self.servers.len()).map(|at| self.would_start(at)).collect();
            actions.push(next.clone());
            match &next {
                Recovery::Act(action) => self.apply(action, &facts).map_err(|why| trace(&actions, &why))?,
                Recovery::ByHand { instructions, .. } if instructions[0].steps[0].contains("recover.yaml") => {
                    self.configure_once(&instructions[0].node);
                }
                Recovery::Done => {
                    actions.pop();
                    let is_ended = |(at, server): (usize, &Server)| {
                        server.phase == Phase::Ready && server.live == self.store[0].0 && self.would_start(at)
                    };
                    let all = self.servers.iter().enumerate().all(is_ended);
                    return if all {
                        Ok(actions)
                    } else {
                        Err(trace(&actions, "a wrong end"))
                    };
                }
                _ => return Err(trace(&actions, "it stops")),
            }
            let fails = |at: &usize| would_start[*at] && !self.would_start(*at);
            if let Some(at) = (0..would_start.len()).find(fails) {
                return Err(trace(&actions, &format!("s{} would not start any more", at + 1)));
            }
        }
        Err(trace(&actions, "no end"))
    }

    /// The instruction for a server that was killed in a PUT, carried out.
    fn configure_once(&mut self, node: &str) {
        let at = index(node);
        let token = self.store[0].0;
        let server = &mut self.servers[at];
        (server.pin, server.passwd, server.needs_save) = (Some(token), None, Some(self.time as usize));
        self.start(at);
        self.settle(self.has_quorum());
        self.servers[at].pin = None;
    }

    fn apply(&mut self, action: &RecoveryAction, facts: &RecoveryFacts) -> Result<(), String> {
        let at = |name: &String| index(name);
        match action {
            RecoveryAction::Stop { server } => {
                let server = &mut self.servers[at(server)];
                if server.phase != Phase::Down {
                    return Err("stops a server that runs".to_owned());
                }
                server.loops = false;
            }
            RecoveryAction::Unpin { server } => {
                self.servers[at(server)].pin.take().ok_or("unpins twice")?;
            }
            RecoveryAction::WriteToken { server, value: written } => {
                let token = (0..self.drawn).find(|token| value(*token) == *written);
                self.servers[at(server)].token = token;
            }
            RecoveryAction::DeletePasswd { server } => {
                self.servers[at(server)].passwd.take().ok_or("deletes twice")?;
            }
            RecoveryAction::StartOnce { server } => self.start_once(at(server), facts.servers[server].next_token()),
            RecoveryAction::EndOnce { server } => self.servers[at(server)].starts_once = false,
            RecoveryAction::Snapshot => {
                let all = self.servers.iter_mut();
                all.for_each(|server| server.snapshot = server.token);
            }
            RecoveryAction::Round(round) => self.round(round, &at),
            RecoveryAction::Restart { server, unpins } => {
                let at = at(server);
                if self.servers.iter().any(|server| server.phase != Phase::Ready) {
                    return Err("restarts a server while another one is away".to_owned());
                }
                if *unpins {
                    self.servers[at].pin = None;
                }
                self.start(at);
                self.settle(self.has_quorum());
                if !self.is_ready(at) {
                    return Err(format!("s{} does not start again", at + 1));
                }
            }
        }
        Ok(())
    }

    fn start_once(&mut self, at: usize, with: Option<TokenHash>) {
        let down: Vec<usize> = (0..self.servers.len())
            .filter(|at| self.servers[*at].phase != Phase::Ready)
            .collect();
        self.servers[at].starts_once = true;
        self.servers[at].needs_save = self.servers[at].pin.map(|_| self.time as usize);
        self.servers[at].started_with = with;
        self.start(at);
        self.settle(self.has_quorum());
        for server in down {
            let server_at = &mut self.servers[server];
            if server_at.phase == Phase::Down && (server == at || server_at.starts_once) {
                server_at.starts_once = false;
                let log = server_at.log.expect("it has ended");
                let with = server_at.started_with;
                let line = format!("{}{log}", if log == TRAP { PASSWD } else { "" });
                let failure = kubectl_bootstrap_token::server_token::recovery::facts::StartFailure::of_log(&[line])
                    .expect("a line");
                server_at
                    .starts
                    .add(LastStart { with, failure }, server_at.token.map(value));
            }
        }
    }

    fn round(&mut self, round: &RecoveryRound, at: &dyn Fn(&String) -> usize) {
        self.pass();
        let token = match round.value {
            RoundValue::Existing(known) => (0..self.drawn)
                .find(|token| value(*token) == known)
                .expect("a known token"),
            RoundValue::Fresh => {
                self.drawn += 1;
                self.drawn - 1
            }
        };
        let servers: Vec<usize> = round.servers.iter().map(at).collect();
        let (mut failed, mut accepted) = (Vec::new(), 0);
        for server in &servers {
            if self.record_put(*server, token) {
                accepted += 1;
            } else {
                failed.push(*server);
                if round.ends_at_first_rejection && accepted == 0 {
                    self.last_round = Some((token, 3, *server));
                    return;
                }
            }
        }
        let in_order = failed.is_empty() && !round.is_repeated;
        failed.retain(|server| !self.record_put(*server, token));
        let none = failed.len() == servers.len();
        let end = if none {
            4
        } else if !failed.is_empty() {
            2
        } else {
            u8::from(!in_order)
        };
        self.last_round = Some((token, end, 0));
        self.pass();
    }

    fn record_put(&mut self, at: usize, token: Token) -> bool {
        let accepted = self.put(at, token);
        let server = &mut self.servers[at];
        (server.snapshot, server.placed) = (None, accepted.then_some(token));
        if accepted {
            server.needs_save = None;
            self.proven = Some(token);
        }
        accepted
    }
}

fn events() -> Vec<Event> {
    let kills = [
        Kill::AfterPasswd,
        Kill::InToken,
        Kill::AfterToken,
        Kill::AfterKey,
        Kill::AfterSave,
    ];
    let mut events = vec![Event::Restarts, Event::Stops];
    events.extend([OLD, NEW, OTHER].map(Event::Put));
    events.extend(kills.map(|kill| Event::Killed(NEW, kill)));
    events.extend([None, Some(OLD), Some(NEW)].map(Event::Pinned));
    events
}

/// Each state that so many events lead to, each once.
fn states(servers: usize, depth: usize) -> Vec<(World, Vec<(usize, Event)>)> {
    let mut known = HashSet::new();
    let mut all: Vec<(World, Vec<(usize, Event)>)> = Vec::new();
    for is_pinned in [true, false] {
        all.push((World::new(servers, is_pinned), Vec::new()));
    }
    let mut from = 0;
    for _ in 0..depth {
        let to = all.len();
        for index in std::mem::replace(&mut from, to)..to {
            for at in 0..servers {
                for event in events() {
                    let (mut world, mut trace) = all[index].clone();
                    world.happens(at, event);
                    trace.push((at, event));
                    if known.insert(world.clone()) {
                        all.push((world, trace));
                    }
                }
            }
        }
    }
    all
}

fn every_state_recovers(servers: usize, depth: usize) {
    let access = Access::nodes(&[NEW, OLD, OTHER]);
    let states = states(servers, depth);
    println!("{} states of {servers} servers", states.len());
    let mut failed = Vec::new();
    for (world, trace) in &states {
        if let Err(why) = world.clone().recover(&access) {
            failed.push(format!("{trace:?}: {why}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {}, such as\n{}",
        failed.len(),
        states.len(),
        failed[..failed.len().min(8)].join("\n")
    );
}

#[test]
fn each_state_of_one_server_recovers() {
    every_state_recovers(1, 4);
}

#[test]
fn each_state_of_two_servers_recovers() {
    every_state_recovers(2, 3);
}

#[test]
fn each_state_of_three_servers_recovers() {
    every_state_recovers(3, 2);
}

#[test]
fn each_state_of_three_servers_after_three_events_recovers() {
    every_state_recovers(3, 3);
}
