//! What was measured on K3s: what a PUT of the same server token changes, and when a server starts.
//!
//! Of what happens by chance, the worst is assumed: each write of a file gives it other bytes (the rows have a random order), and each
//! is later than all before it.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;

use super::environment::{Budget, server_token};

/// `server/cred/passwd`, as far as agents are concerned. Two of them are equal only if they come from the same write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct File {
    pub(crate) value: Fingerprint,
    /// A rank.
    pub(crate) time: u8,
}

/// What only the node of a server shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) file: File,
    /// `None`: no agent token, so agents use the server token.
    pub(crate) configured: Option<Fingerprint>,
    /// What it accepts as node.
    pub(crate) live: Fingerprint,
    /// The generation of its encryption files.
    pub(crate) encryption: u8,
    pub(crate) state: State,
    /// Its last start has changed what it accepts, and it has not saved its files since.
    pub(crate) is_in_window: bool,
}

/// The configuration of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AgentFile {
    pub(crate) value: Fingerprint,
    /// The one before the run.
    pub(crate) first: Fingerprint,
    pub(crate) has_backup: bool,
    pub(crate) is_edited_by_others: bool,
    pub(crate) is_lost: bool,
}

impl AgentFile {
    pub(crate) fn of(value: Fingerprint) -> Self {
        Self {
            value,
            first: value,
            has_backup: false,
            is_edited_by_others: false,
            is_lost: false,
        }
    }

    pub(crate) fn write(&mut self, value: Fingerprint) {
        if !self.is_lost {
            (self.value, self.has_backup) = (value, true);
        }
    }

    pub(crate) fn forget(&mut self) {
        self.has_backup &= self.is_lost;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Up,
    /// It answers 405 to the server token, and is not ready.
    Starting,
    Stopped {
        by_tool: bool,
    },
    /// Its start has failed, or it does not come back.
    Down,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    /// The datastore's copy of the file, and its generation of the encryption files.
    pub(crate) data: File,
    pub(crate) encryption: u8,
    pub(crate) disks: BTreeMap<String, Disk>,
    /// The servers that have started since the last PUT, recorded or not.
    pub(crate) since_put: BTreeSet<String>,
    pub(crate) agents: BTreeMap<String, AgentFile>,
    /// The token with which a server is joining. The outer `None`: there is none.
    #[expect(clippy::option_option, reason = "the inner one is its configuration")]
    pub(crate) joining: Option<Option<Fingerprint>>,
    /// The operator does not change the configuration before the next restart.
    pub(crate) forgets: bool,
    pub(crate) budget: Budget,
    pub(crate) fault: Option<&'static str>,
}

impl Memory {
    /// What the next start of a server leads to.
    pub(crate) fn start(&self, name: &str) -> Option<Disk> {
        let mut disk = self.disks[name];
        let is_fatal = disk.file != self.data && disk.file.time > self.data.time || disk.encryption > self.encryption;
        if is_fatal {
            return None;
        }
        (disk.file, disk.encryption) = (self.data, self.encryption);
        let token = disk.configured.unwrap_or_else(server_token);
        disk.is_in_window = disk.file.value != token;
        if disk.is_in_window {
            let time = self.latest() + 1;
            disk.file = File { value: token, time };
        }
        disk.live = token;
        disk.state = State::Starting;
        Some(disk)
    }

    pub(crate) fn latest(&self) -> u8 {
        let times = self.disks.values().map(|disk| disk.file.time);
        times.fold(self.data.time, u8::max)
    }

    pub(crate) fn stop(&mut self, name: &str, by_tool: bool) {
        self.disk(name).state = State::Stopped { by_tool };
    }

    pub(crate) fn agent(&mut self, name: &str) -> &mut AgentFile {
        self.agents.get_mut(name).expect("it is there")
    }

    pub(crate) fn disk(&mut self, name: &str) -> &mut Disk {
        self.disks.get_mut(name).expect("it is there")
    }

    /// A PUT of the server token that the server has already. It saves all files of that server. Says whether it is answered with 200.
    pub(crate) fn put(&mut self, name: &str, login: Fingerprint) -> bool {
        let is_up = |disk: &&mut Disk| matches!(disk.state, State::Up | State::Starting);
        let Some(disk) = self.disks.get_mut(name).filter(is_up) else {
            return false;
        };
        if login != server_token() {
            return false;
        }
        disk.is_in_window = false;
        (self.data, self.encryption) = (disk.file, disk.encryption);
        self.since_put.clear();
        true
    }

    pub(crate) fn newest(&self) -> BTreeSet<String> {
        let times = self.disks.values().map(|disk| disk.file.time);
        let latest = times.max();
        let newest = self.disks.iter().filter(|(_, disk)| Some(disk.file.time) == latest);
        newest.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn rank(&mut self) {
        let times: BTreeSet<u8> = self
            .disks
            .values()
            .map(|disk| disk.file.time)
            .chain([self.data.time])
            .collect();
        let rank = |time: &mut u8| *time = times.range(..*time).count() as u8;
        rank(&mut self.data.time);
        self.disks.values_mut().for_each(|disk| rank(&mut disk.file.time));
    }
}
