//! A model of the servers, written from what was measured and from nothing of the diagnosis: how a PUT and a start change files, copies
//! and the datastore. From each state that some events lead to, the recovery reaches its end, and no action of it makes the next start
//! of a server fail that would have succeeded.

mod walk;

use supervisor::TokenHash;

use super::hash;
use kubectl_bootstrap_token::server_token::recovery::facts::FailedStarts;

pub(super) type Token = u8;
pub(super) const OLD: Token = 0;
pub(super) const NEW: Token = 1;
const OTHER: Token = 2;
const FRESH: Token = 3;

/// Of `s1`, `s2`, …
fn index(server: &str) -> usize {
    server[1..].parse::<usize>().expect("a number") - 1
}

fn value(token: Token) -> TokenHash {
    match token {
        OLD => hash("old"),
        NEW => hash("new"),
        OTHER => hash("other"),
        FRESH => hash("fresh"),
        later => hash(&format!("fresh {later}")),
    }
}

/// What the recovery can reach.
pub(super) struct Access {
    has_nodes: bool,
    given: Vec<Token>,
}

impl Access {
    pub(super) fn nodes(given: &[Token]) -> Self {
        let (has_nodes, given) = (true, given.to_vec());
        Self { has_nodes, given }
    }

    pub(super) fn none(given: &[Token]) -> Self {
        Self {
            has_nodes: false,
            ..Self::nodes(given)
        }
    }
}

/// `cred/passwd`. Its rows can be in another order each time that it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Passwd {
    token: Token,
    written: u32,
    time: u32,
}

/// The keys of the datastore, or of a server's own copy of it, each with the file that was saved with it.
type Contents = Vec<(Token, Passwd)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Ready,
    /// It waits for other members of etcd.
    Waiting,
    Down,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Server {
    phase: Phase,
    /// Its service starts it again and again.
    loops: bool,
    live: Token,
    token: Option<Token>,
    passwd: Option<Passwd>,
    pin: Option<Token>,
    copy: Contents,
    log: Option<&'static str>,
    // What the recovery has seen.
    snapshot: Option<Token>,
    placed: Option<Token>,
    starts: FailedStarts,
    starts_once: bool,
    needs_save: Option<usize>,
    started_with: Option<TokenHash>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    servers: Vec<Server>,
    store: Contents,
    time: u32,
    written: u32,
    drawn: Token,
    proven: Option<Token>,
    last_round: Option<(Token, u8, usize)>,
}

const TRAP: &str = " newer than datastore and could cause a cluster outage";
const SAVE: &str = "failed to save bootstrap data: bootstrap data already found and encrypted with different token";
const OWN_COPY: &str =
    "failed to reconcile with local datastore: bootstrap data already found and encrypted with different token";
const NO_TOKEN: &str = "failed to start cluster: bootstrap data already found and encrypted with different token";

/// Where a server can be killed in a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    AfterPasswd,
    InToken,
    AfterToken,
    AfterKey,
    /// The datastore has everything, and its own copy lacks the save.
    AfterSave,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Put(Token),
    Killed(Token, Kill),
    Restarts,
    Stops,
    Pinned(Option<Token>),
}

impl World {
    pub(super) fn new(servers: usize, is_pinned: bool) -> Self {
        let passwd = Passwd {
            token: OLD,
            written: 0,
            time: 0,
        };
        let server = Server {
            phase: Phase::Ready,
            loops: false,
            live: OLD,
            token: Some(OLD),
            passwd: Some(passwd),
            pin: is_pinned.then_some(OLD),
            copy: vec![(OLD, passwd)],
            log: None,
            snapshot: None,
            placed: None,
            starts: FailedStarts::default(),
            starts_once: false,
            needs_save: None,
            started_with: None,
        };
        Self {
            store: server.copy.clone(),
            servers: vec![server; servers],
            time: 100,
            written: 0,
            drawn: FRESH,
            proven: None,
            last_round: None,
        }
    }

    pub(super) fn is_ready(&self, server: usize) -> bool {
        self.servers[server].phase == Phase::Ready
    }

    pub(super) fn pass(&mut self) {
        self.time += 10;
    }

    fn has_quorum(&self) -> bool {
        let up = self.servers.iter().filter(|server| server.phase != Phase::Down).count();
        up * 2 > self.servers.len()
    }

    fn sync(&mut self) {
        let store = &self.store;
        let up = self.servers.iter_mut().filter(|server| server.phase != Phase::Down);
        up.for_each(|server| server.copy.clone_from(store));
    }

    fn write(&mut self, token: Token) -> Passwd {
        self.written += 1;
        let (written, time) = (self.written, self.time);
        Passwd { token, written, time }
    }

    /// §1 and §2: files first, then the key, then the save. True: 200.
    pub(super) fn put(&mut self, server: usize, token: Token) -> bool {
        self.put_until(server, token, None)
    }

    fn put_until(&mut self, at: usize, token: Token, kill: Option<Kill>) -> bool {
        self.time += 1;
        if self.servers[at].phase != Phase::Ready {
            return false;
        }
        let former = self.servers[at].passwd.expect("a server that runs has it");
        let changed = if former.token == token {
            former
        } else {
            self.write(token)
        };
        self.servers[at].passwd = Some(changed);
        let before = self.store.clone();
        let ends = |world: &mut Self, here: Kill| {
            if kill == Some(here) {
                let server = &mut world.servers[at];
                (server.phase, server.loops) = (Phase::Down, true);
                match here {
                    Kill::InToken => server.token = None,
                    Kill::AfterKey | Kill::AfterSave => {
                        server.copy.clone_from(&before);
                        server.copy.push((token, before[0].1));
                    }
                    Kill::AfterPasswd | Kill::AfterToken => {}
                }
            }
            kill == Some(here)
        };
        if ends(self, Kill::AfterPasswd) || ends(self, Kill::InToken) {
            return false;
        }
        self.servers[at].token = Some(token);
        if ends(self, Kill::AfterToken) || !self.has_quorum() {
            return false;
        }
        if self.store.iter().all(|(key, _)| *key != token) {
            let Some((key, _)) = self.store.iter_mut().find(|(key, _)| *key == former.token) else {
                return false;
            };
            *key = token;
        }
        if ends(self, Kill::AfterKey) {
            self.sync();
            return false;
        }
        self.store = vec![(token, changed)];
        let killed = ends(self, Kill::AfterSave);
        self.sync();
        !killed
    }

    /// §3: what a start reads, compares and writes. It ends, or waits for etcd.
    fn start(&mut self, at: usize) {
        self.pass();
        let server = &self.servers[at];
        let join = &self.servers[0];
        let joins = at > 0 && join.phase == Phase::Ready && server.pin == Some(join.live);
        let bundle = if joins {
            Ok(self.store[0].1)
        } else {
            server.pin.or(server.token).ok_or(NO_TOKEN).and_then(|token| {
                let opened = server.copy.iter().find(|(key, _)| *key == token);
                opened.map(|(_, passwd)| *passwd).ok_or(OWN_COPY)
            })
        };
        let bundle = match bundle {
            Ok(bundle) => bundle,
            Err(log) => return self.ends(at, log),
        };
        let mut passwd = server.passwd.unwrap_or(bundle);
        if passwd.written != bundle.written {
            if passwd.time >= bundle.time + 3 {
                return self.ends(at, TRAP);
            }
            passwd = bundle;
        }
        let token = server.pin.unwrap_or(passwd.token);
        if passwd.token != token {
            passwd = self.write(token);
        }
        let server = &mut self.servers[at];
        (server.token, server.passwd, server.live) = (Some(token), Some(passwd), token);
        server.phase = Phase::Waiting;
    }

    fn ends(&mut self, at: usize, log: &'static str) {
        let server = &mut self.servers[at];
        (server.phase, server.log) = (Phase::Down, Some(log));
    }

    /// With enough members, those that wait join etcd and save.
    fn settle(&mut self, has_quorum: bool) {
        if !has_quorum {
            return;
        }
        self.sync();
        for at in 0..self.servers.len() {
            if self.servers[at].phase == Phase::Waiting {
                if self.store.iter().any(|(key, _)| *key == self.servers[at].live) {
                    self.servers[at].phase = Phase::Ready;
                    self.proven = Some(self.servers[at].live);
                } else {
                    self.ends(at, SAVE);
                }
            }
        }
    }

    /// Started by its service, up to four times.
    pub(super) fn crash_loop(&mut self, at: usize) {
        self.servers[at].phase = Phase::Down;
        for _ in 0..4 {
            if self.servers[at].phase == Phase::Down {
                self.start(at);
                self.settle(self.has_quorum());
            }
        }
        self.servers[at].loops = self.servers[at].phase == Phase::Down;
    }

    /// Whether its next two starts succeed, if etcd has a quorum.
    pub(super) fn would_start(&self, at: usize) -> bool {
        let mut later = self.clone();
        (0..2).all(|_| {
            later.servers[at].phase = Phase::Down;
            later.start(at);
            later.settle(true);
            later.servers[at].phase == Phase::Ready
        })
    }

    fn happens(&mut self, at: usize, event: Event) {
        match event {
            Event::Put(token) => {
                self.put(at, token);
            }
            Event::Killed(token, kill) => {
                self.put_until(at, token, Some(kill));
                self.pass();
                if !self.is_ready(at) {
                    self.crash_loop(at);
                }
            }
            Event::Restarts => self.crash_loop(at),
            Event::Stops => {
                let server = &mut self.servers[at];
                (server.phase, server.loops, server.log) = (Phase::Down, false, None);
            }
            Event::Pinned(token) => self.servers[at].pin = token,
        }
        self.pass();
    }
}
