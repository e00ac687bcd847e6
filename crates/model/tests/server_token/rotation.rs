//! The rotation of the server token of K3s.
//!
//! O and N are passwords. A server accepts the one that it loaded when it started. It loads the one in its own files, and starts
//! only if that is the password of the datastore. A PUT changes the datastore, and the files of the one server that it is sent
//! to. So a *round* sends a PUT to every server within seconds, and afterwards the servers are restarted one at a time.
//!
//! No server can be lost, because outside a round the next start of every server finds the password of the datastore. After an
//! interrupted round it is observed first what each server has in its files (the annotation of a snapshot that is taken on it
//! shows it), and only the servers with another password get a PUT. A PUT cannot be conditional, so each process waits until what
//! a former holder has sent must have arrived.

use std::collections::BTreeSet;
use std::fmt;

use client::secret::Fingerprint;
use engine::rotation::{Blocker, Check, Credentials, Look, Next, Proof, Rotation, Timer};
use engine::run::{Draw, Run};
use serde::{Deserialize, Serialize};

use crate::dangerous::{Restart, Round};

/// The rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServerToken;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Observed {
    /// The password that the user has passed.
    pub(crate) given: Fingerprint,
    pub(crate) servers: Vec<Server>,
    /// The backup Secret of the run.
    pub(crate) backup: Option<Backup>,
    /// The passwords that open the etcd snapshots of this run.
    pub(crate) snapshots: BTreeSet<Fingerprint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    /// What it answers when it is asked with both passwords.
    pub(crate) live: Live,
    /// The password in its files, as far as this process knows: from a snapshot that it took on the server when no write was in
    /// flight, from a PUT that was answered since, or from a start that it has observed. Not known once the server has stopped by
    /// itself: an operator may repair it.
    pub(crate) next_start: Option<Fingerprint>,
    pub(crate) is_ready: bool,
    /// It is a voting member of etcd.
    pub(crate) is_voter: bool,
    /// Its configuration has a token, which it would load instead of the one in its files.
    pub(crate) is_pinned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Live {
    Accepts(Fingerprint),
    Other,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Backup {
    pub(crate) old: Fingerprint,
    pub(crate) new: Fingerprint,
    /// The passwords whose values it holds.
    pub(crate) holds: BTreeSet<Fingerprint>,
}

impl Server {
    pub(crate) fn is_up(&self) -> bool {
        self.is_ready && self.is_voter
    }

    pub(crate) fn stop(&mut self) {
        (self.is_ready, self.is_voter, self.live) = (false, false, Live::Unknown);
    }

    pub(crate) fn start(&mut self, password: Fingerprint) {
        (self.is_ready, self.is_voter) = (true, true);
        (self.live, self.next_start) = (Live::Accepts(password), Some(password));
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) old: Fingerprint,
    pub(crate) new: Option<Fingerprint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    BackUp,
    Snapshot,
    Round(Round),
    Restart(Restart),
    Forget(Fingerprint),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackUp => f.write_str("create a new password, and back up both in a Secret"),
            Self::Snapshot => f.write_str("take an etcd snapshot on every server"),
            Self::Round(round) => {
                let servers: Vec<_> = round.servers().iter().map(|at| name(*at)).collect();
                write!(f, "set {} on {}", round.value, servers.join(", "))
            }
            Self::Restart(restart) => write!(f, "restart server {}", name(restart.server())),
            Self::Forget(value) => write!(f, "delete {value} from the backup Secret"),
        }
    }
}

pub(crate) fn name(server: usize) -> String {
    format!("s{}", server + 1)
}

/// Why *make* is passed.
pub(crate) enum Made {
    /// Both passwords are backed up, and the run ends on this one.
    BackedUp(Fingerprint),
    /// A rollback before there was a backup: no password was created.
    NotCreated,
}

/// Why *place* is passed.
pub(crate) enum Placed {
    /// The next start of every server finds this password.
    Everywhere(Fingerprint),
    /// No password was created, and no server was changed.
    NotCreated,
}

/// Why *prove* is passed.
pub(crate) enum Proven {
    /// Every server has loaded this password, and rejects the other one. Only older snapshots need that.
    Loaded(Fingerprint),
    /// No password was created: there is none to forget.
    NotCreated,
}

/// Why *retire* is passed.
pub(crate) enum Retired {
    /// The backup holds this password only. A snapshot that it opens must exist.
    Forgotten(Fingerprint),
    /// No password was created, and no snapshot is needed.
    NotCreated,
}

impl Rotation for ServerToken {
    const KIND: &'static str = "server-token";
    const FIELD_MANAGER: &'static str = "kubectl-server-token";
    const QUIET_FLAG: &'static str = "settle";
    const CHECKS: &'static [Check] = &[];

    type Observed = Observed;
    type Record = Record;
    type Step = Step;
    type Made = Made;
    type Placed = Placed;
    type Proven = Proven;
    type Retired = Retired;

    fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
        let mut blockers = Vec::new();
        for (at, server) in seen.servers.iter().enumerate() {
            let mut block = |what: &str, hint| blockers.push(Blocker::new(format!("server {} {what}", name(at)), hint));
            if !server.is_up() {
                block("is not a ready voting member", "wait until all servers are ready");
            } else if server.live != Live::Accepts(seen.given) {
                block("rejects the password", "pass the password that all servers accept");
            }
            if server.is_pinned {
                block("has a token in its configuration", "remove it; no restart is needed");
            }
        }
        let (old, new) = (seen.given, None);
        blockers.is_empty().then_some(Record { old, new }).ok_or(blockers)
    }

    /// The controller talks only to servers whose CA is pinned.
    fn guard(_: Look<'_, Self>) -> Result<(), Next<Self>> {
        Ok(())
    }

    /// Both passwords are in the backup Secret.
    ///
    /// | if | then |
    /// |---|---|
    /// | in a rollback, there is no backup Secret | pass: no password was created |
    /// | there is no backup Secret | create a new password, and back up both |
    fn make(look: Look<'_, Self>) -> Result<Made, Next<Self>> {
        let is_rollback = look.direction().is_rollback();
        match &look.seen.backup {
            Some(backup) => Ok(Made::BackedUp(if is_rollback { backup.old } else { backup.new })),
            None if is_rollback => Ok(Made::NotCreated),
            None => Err(Next::step(Step::BackUp).starting(Timer::Proof)),
        }
    }

    /// The next start of every server finds the password.
    ///
    /// | if | then |
    /// |---|---|
    /// | no password was created | pass |
    /// | it is not known what a server has in its files | take an etcd snapshot on every server |
    /// | a server has another password in its files | set the password on it, in a round |
    fn place<'look>(look: Look<'look, Self>, made: &Proof<'look, Made>) -> Result<Placed, Next<Self>> {
        let Made::BackedUp(target) = **made else {
            return Ok(Placed::NotCreated);
        };
        if look.seen.servers.iter().any(|server| server.next_start != Some(target)) {
            return Err(Round::next(look, target));
        }
        Ok(Placed::Everywhere(target))
    }

    /// Every server has loaded the password. The first server is restarted last: if its clock is ahead of the others, its files are
    /// the newest.
    ///
    /// | if | then |
    /// |---|---|
    /// | no password was created | pass |
    /// | a server has not loaded the password | restart it, if nothing else happens |
    /// | a server is not ready, or not a voter | wait |
    fn prove<'look>(look: Look<'look, Self>, placed: &Proof<'look, Placed>) -> Result<Proven, Next<Self>> {
        let Placed::Everywhere(target) = **placed else {
            return Ok(Proven::NotCreated);
        };
        let mut servers = look.seen.servers.iter();
        if let Some(at) = servers.clone().rposition(|server| server.live != Live::Accepts(target)) {
            return Err(Restart::next(look, placed, at));
        }
        if let Some(at) = servers.position(|server| !server.is_up()) {
            return Err(look.wait(format!("server {} to be ready", name(at))));
        }
        Ok(Proven::Loaded(target))
    }

    /// The backup Secret holds one password only. A rollback is no longer possible.
    ///
    /// | if | then |
    /// |---|---|
    /// | the backup Secret holds the other password | delete it from the backup Secret |
    fn retire<'look>(look: Look<'look, Self>, proven: &Proof<'look, Proven>) -> Result<Retired, Next<Self>> {
        let Proven::Loaded(target) = **proven else {
            return Ok(Retired::NotCreated);
        };
        let holds = look.seen.backup.iter().flat_map(|backup| &backup.holds);
        if let Some(value) = holds.copied().find(|value| *value != target) {
            return Err(Next::step(Step::Forget(value)));
        }
        Ok(Retired::Forgotten(target))
    }

    /// An etcd snapshot exists that the password in use opens.
    ///
    /// | if | then |
    /// |---|---|
    /// | no snapshot is opened by the password in use | take an etcd snapshot on every server |
    fn confirm<'look>(look: Look<'look, Self>, retired: &Proof<'look, Retired>) -> Result<(), Next<Self>> {
        match **retired {
            Retired::Forgotten(value) if !look.seen.snapshots.contains(&value) => Err(Next::step(Step::Snapshot)),
            Retired::Forgotten(_) | Retired::NotCreated => Ok(()),
        }
    }

    fn is_restorable(look: Look<'_, Self>) -> bool {
        let backup = look.seen.backup.as_ref();
        backup.is_none_or(|backup| backup.holds.contains(&backup.old))
    }

    fn takes_away(look: Look<'_, Self>) -> bool {
        look.seen.backup.as_ref().is_some_and(|backup| backup.holds.len() > 1)
    }

    /// A former holder may have sent a PUT or a restart right before this process began.
    fn timers(_: &Observed, _: &Run<Self>) -> Vec<Timer> {
        vec![Timer::InFlight]
    }

    fn recall(seen: &Observed, _: &Run<Self>) -> Option<Record> {
        let backup = seen.backup.as_ref()?;
        let (old, new) = (backup.old, Some(backup.new));
        Some(Record { old, new })
    }

    fn intend(step: &Step, run: &Run<Self>, draw: &mut dyn Draw) -> Record {
        let mut record = run.record.clone();
        if *step == Step::BackUp {
            record.new = Some(draw.credential());
        }
        record
    }

    fn predict(seen: &mut Observed, run: &Run<Self>, step: &Step) {
        match step {
            Step::BackUp => {
                let (old, new) = (run.record.old, run.record.new.unwrap_or(run.record.old));
                let holds = [old, new].into();
                seen.backup = Some(Backup { old, new, holds });
            }
            Step::Snapshot => {
                for server in &mut seen.servers {
                    if let Live::Accepts(password) = server.live {
                        seen.snapshots.insert(*server.next_start.get_or_insert(password));
                    }
                }
            }
            Step::Round(round) => {
                for at in round.servers() {
                    seen.servers[*at].next_start = Some(round.value);
                }
            }
            Step::Restart(restart) => seen.servers[restart.server()].stop(),
            Step::Forget(value) => {
                if let Some(backup) = &mut seen.backup {
                    backup.holds.remove(value);
                }
            }
        }
    }

    fn settle(seen: &mut Observed, _: &Run<Self>) {
        for server in seen.servers.iter_mut().filter(|server| !server.is_up()) {
            if let Some(password) = server.next_start {
                server.start(password);
            }
        }
    }

    fn credentials(record: &Record) -> Credentials {
        let Record { old, new } = *record;
        Credentials { old, new }
    }

    fn start(seen: &Observed, record: &Record) -> String {
        format!("{} servers accept {}", seen.servers.len(), record.old)
    }
}
