//! What was measured on K3s: what a PUT changes, and when a server starts.
//!
//! Of what was not measured, or happens by chance, the worst is assumed: each write of a file gives it other bytes (the rows have a
//! random order), and each is later than all before it.

use std::collections::BTreeSet;

use client::secret::Fingerprint;

use super::Memory;

/// `server/cred/passwd`. Two of them are equal only if they come from the same write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct File {
    pub(crate) value: Fingerprint,
    /// A rank.
    pub(crate) time: u8,
}

/// The datastore's bootstrap data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Data {
    /// The token that encrypts it.
    pub(crate) key: Fingerprint,
    pub(crate) passwd: File,
    /// The generation of the encryption files.
    pub(crate) encryption: u8,
}

/// What only the node of a server shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) passwd: File,
    /// `server/token`. `None`: empty.
    pub(crate) token: Option<Fingerprint>,
    pub(crate) configured: Option<Fingerprint>,
    /// Its own copy of the datastore, as it was when the server stopped.
    pub(crate) copy: Data,
    pub(crate) encryption: u8,
    /// What it accepts.
    pub(crate) live: Fingerprint,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Up,
    /// It answers 405 to the right token, and is not ready.
    Starting,
    Stopped {
        by_tool: bool,
    },
    /// Its start has failed, or it does not come back.
    Down,
}

/// Where a server is killed within a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Point {
    /// `cred/passwd` is written.
    Passwd,
    /// `server/token` is being written: it is empty.
    Token,
    /// Both files are written, and the datastore has the former key.
    Files,
    /// The datastore has the new key, and the former `passwd` inside.
    Key,
    /// All is saved.
    Saved,
}

impl Memory {
    /// What the next start of a server leads to.
    pub(crate) fn start(&self, name: &str) -> Result<Disk, Disk> {
        let mut disk = self.disks[name];
        let copy = if disk.state == State::Up {
            self.datastore
        } else {
            disk.copy
        };
        let first = self.disks.keys().next().map(String::as_str);
        let join = first.filter(|first| *first != name).map(|first| &self.disks[first]);
        let joins_with = |token: Fingerprint| join.is_some_and(|it| it.state == State::Up && it.live == token);
        let Some(token) = disk.configured.or(disk.token) else {
            return Err(disk);
        };
        let data = if disk.configured.is_some() && joins_with(token) {
            // It gets the data from its join server, which has the datastore's. Its files get the configured token.
            disk.token = Some(token);
            if self.datastore.key != token {
                let time = self.latest() + 1;
                disk.passwd = File { value: token, time };
                return Err(disk);
            }
            self.datastore
        } else if copy.key == token {
            copy
        } else {
            return Err(disk);
        };
        if disk.passwd != data.passwd && disk.passwd.time > data.passwd.time {
            return Err(disk);
        }
        disk.passwd = data.passwd;
        disk.token = Some(token);
        // It has joined etcd: its copy is the datastore's from here on.
        disk.copy = self.datastore;
        if self.datastore.key != token || data.passwd.value != token {
            return Err(disk);
        }
        if disk.encryption > self.datastore.encryption {
            return Err(disk);
        }
        disk.passwd = self.datastore.passwd;
        disk.encryption = self.datastore.encryption;
        disk.live = token;
        disk.state = State::Starting;
        Ok(disk)
    }

    pub(crate) fn stop(&mut self, name: &str, by_tool: bool) {
        let copy = self.datastore;
        let disk = self.disks.get_mut(name).expect("it is there");
        disk.copy = copy;
        disk.state = State::Stopped { by_tool };
    }

    pub(crate) fn latest(&self) -> u8 {
        let times = self.disks.values().map(|disk| disk.passwd.time);
        times.fold(self.datastore.passwd.time, u8::max)
    }

    /// A PUT by itself: later than everything before.
    pub(crate) fn put(&mut self, name: &str, value: Fingerprint, ahead: Option<&String>) -> bool {
        let (accepted, _) = self.put_all(&[name.to_owned()], value, ahead);
        accepted
    }

    /// PUTs within a few seconds. The file of a server whose clock is ahead is newer than those that are written after it.
    pub(crate) fn put_all(&mut self, servers: &[String], value: Fingerprint, ahead: Option<&String>) -> (bool, u8) {
        let base = self.latest() + 1;
        let mut all = true;
        for (at, name) in servers.iter().enumerate() {
            let at = if Some(name) == ahead { servers.len() } else { at };
            all &= self.put_at(name, value, base + at as u8);
        }
        self.rank();
        (all, base)
    }

    /// Whether it is answered with 200. A server that is not ready, or whose `passwd` does not have the datastore's key, rejects another
    /// token after it has overwritten its files.
    pub(crate) fn put_at(&mut self, name: &str, value: Fingerprint, time: u8) -> bool {
        // A late one may be for a server that was removed.
        let Some(disk) = self.disks.get_mut(name) else {
            return false;
        };
        match disk.state {
            State::Up | State::Starting => {}
            State::Stopped { .. } | State::Down => return false,
        }
        let is_ready = disk.state == State::Up;
        let is_accepted = is_ready && (value == self.datastore.key || disk.passwd.value == self.datastore.key);
        if disk.passwd.value != value {
            disk.passwd = File { value, time };
        }
        disk.token = Some(value);
        if is_accepted {
            self.datastore = Data {
                key: value,
                passwd: disk.passwd,
                encryption: disk.encryption,
            };
        }
        is_accepted
    }

    /// The files are written, and the datastore is not.
    pub(crate) fn put_fails_at(&mut self, name: &str, value: Fingerprint, time: u8) {
        let data = self.datastore;
        self.put_at(name, value, time);
        self.datastore = data;
    }

    /// The server is killed in the PUT.
    pub(crate) fn killed_in_put(&mut self, name: &str, value: Fingerprint, time: u8, point: Point) {
        let before = (self.datastore, self.disks[name]);
        let is_accepted = self.put_at(name, value, time);
        let disk = self.disks.get_mut(name).expect("it is there");
        match point {
            Point::Passwd => disk.token = before.1.token,
            Point::Token => disk.token = None,
            Point::Files | Point::Key | Point::Saved => {}
        }
        match point {
            Point::Passwd | Point::Token | Point::Files => self.datastore = before.0,
            Point::Key if is_accepted => self.datastore.passwd = before.0.passwd,
            Point::Key | Point::Saved => {}
        }
        // Measured within 3 s of the last save: `passwd` is then replaced from the datastore. Later it is the trap.
        self.stop(name, false);
    }

    pub(crate) fn rank(&mut self) {
        for disk in self.disks.values_mut().filter(|disk| disk.state == State::Up) {
            disk.copy = self.datastore;
        }
        let disks = self
            .disks
            .values()
            .flat_map(|disk| [disk.passwd.time, disk.copy.passwd.time]);
        let times: BTreeSet<u8> = disks.chain([self.datastore.passwd.time]).collect();
        let rank = |time: &mut u8| *time = times.range(..*time).count() as u8;
        rank(&mut self.datastore.passwd.time);
        for disk in self.disks.values_mut() {
            rank(&mut disk.copy.passwd.time);
            rank(&mut disk.passwd.time);
        }
    }
}
