//! The datastore: one file that all servers share under a lock, and each server's own copy, which follows while the
//! server is a working member. The content below a key can be read only with its password, which stands for AES.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files::Bundle;
use crate::node::{Node, seconds, time};
use crate::token::{hash12, normalize};

/// The reason of most failures.
pub(crate) const DIFFERENT_TOKEN: &str = "bootstrap data already found and encrypted with different token";

/// What is stored below `/bootstrap/<hash12>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sealed {
    pub(crate) password: String,
    pub(crate) files: Bundle,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The file of its own copy.
    copy: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) token_hash: String,
    /// Seconds since the epoch.
    pub(crate) created: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Contents {
    revision: u64,
    pub(crate) bootstrap: BTreeMap<String, Sealed>,
    /// The members of etcd, all of which vote.
    pub(crate) members: BTreeMap<String, Member>,
    /// Stage and hash of secrets-encryption, by server.
    pub(crate) encryption: BTreeMap<String, String>,
    /// The key that all Secrets are encrypted with.
    pub(crate) secrets_key: Option<String>,
    pub(crate) snapshots: Vec<Snapshot>,
}

impl Contents {
    /// What a password opens.
    pub(crate) fn open(&self, password: &str) -> Option<&Bundle> {
        let sealed = self.bootstrap.get(&hash12(password))?;
        (sealed.password == password).then_some(&sealed.files)
    }

    /// `RotateBootstrapToken` in `pkg/cluster/storage.go`: moves the content of the old key to the new one, if there is
    /// an old one. `old` is the text in `cred/passwd`, `new` the password in `server/token`, in whatever form.
    pub(crate) fn rotate_key(&mut self, old: &str, new: &str) -> Result<(), &'static str> {
        let old = normalize(old)?;
        if old != new && self.open(old).is_some() {
            let sealed = self.bootstrap.remove(&hash12(old)).map(|sealed| sealed.files);
            let files = sealed.unwrap_or_default();
            let password = new.to_owned();
            self.bootstrap.insert(hash12(new), Sealed { password, files });
        }
        self.open(new).map(drop).ok_or(DIFFERENT_TOKEN)
    }

    /// `Save` with `override`: replaces the content of the key by these files.
    pub(crate) fn save(&mut self, token: &str, files: Bundle) -> Result<(), &'static str> {
        let password = normalize(token)?.to_owned();
        if !self.bootstrap.is_empty() && self.open(&password).is_none() {
            return Err(DIFFERENT_TOKEN);
        }
        self.bootstrap.insert(hash12(&password), Sealed { password, files });
        Ok(())
    }
}

/// Access to the datastore of a cluster, for one server.
pub(crate) struct Datastore {
    dir: PathBuf,
}

/// The writes of the whole cluster.
#[derive(Default, Serialize, Deserialize)]
struct Writes {
    count: u64,
    last: i64,
    gap: u64,
}

/// A working member. It ends with its process, however that ends.
pub(crate) struct WorkingMember(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Datastore {
    pub(crate) fn of(node: &Node) -> Self {
        Self {
            dir: node.cluster.join("datastore"),
        }
    }

    /// Creates the directory for a new cluster.
    pub(crate) fn create(node: &Node) -> Result<Self> {
        let store = Self::of(node);
        std::fs::create_dir_all(store.dir.join("working"))?;
        let writes = Writes {
            gap: node.config.timing.write_gap,
            last: seconds(SystemTime::now()),
            ..Writes::default()
        };
        replace(&store.dir.join("writes.json"), &writes)?;
        Ok(store)
    }

    fn lock(&self) -> Result<File> {
        let file = File::create(self.dir.join("lock")).context("open the lock of the datastore")?;
        file.lock()?;
        Ok(file)
    }

    pub(crate) fn read(&self) -> Contents {
        read(&self.dir.join("contents.json")).unwrap_or_default()
    }

    /// Changes the datastore. The copies of all working members follow at once, except that of `behind`.
    pub(crate) fn change<T>(
        &self,
        nodes: &[Node],
        behind: Option<&str>,
        change: impl FnOnce(&mut Contents) -> T,
    ) -> Result<T> {
        let _lock = self.lock()?;
        let mut contents = self.read();
        let result = change(&mut contents);
        contents.revision += 1;
        replace(&self.dir.join("contents.json"), &contents)?;
        for node in nodes {
            let name = node.server.name.as_str();
            if let Some(member) = contents.members.get(name)
                && behind != Some(name)
                && self.is_working(node)
            {
                replace(&member.copy, &contents)?;
            }
        }
        Ok(result)
    }

    /// Brings a server's own copy up to date, if this is still true when it is its turn.
    pub(crate) fn sync(&self, copy: &Path, follows: impl FnOnce() -> bool) -> Result<()> {
        let _lock = self.lock()?;
        if !follows() {
            return Ok(());
        }
        let contents = self.read();
        if Self::read_copy(copy).is_none_or(|mine| mine.revision < contents.revision) {
            replace(copy, &contents)?;
        }
        Ok(())
    }

    /// Makes an own copy contain what `contents` says, without the latest changes.
    pub(crate) fn set_back(&self, copy: &Path, contents: &Contents) -> Result<()> {
        let _lock = self.lock()?;
        replace(copy, contents)
    }

    /// A server's own copy, `None` if it never had one.
    pub(crate) fn read_copy(copy: &Path) -> Option<Contents> {
        read(copy)
    }

    /// Adds a member.
    pub(crate) fn join(&self, node: &Node, copy: &Path) -> Result<()> {
        let member = Member { copy: copy.to_owned() };
        self.change(&[], None, |contents| {
            contents.members.insert(node.server.name.clone(), member);
        })
    }

    /// Declares a server to be a working member until its process ends.
    pub(crate) fn declare_working(&self, node: &Node) -> Result<WorkingMember> {
        let file = File::create(self.working_file(&node.server.name))?;
        file.lock()?;
        Ok(WorkingMember(file))
    }

    fn working_file(&self, name: &str) -> PathBuf {
        self.dir.join("working").join(name)
    }

    pub(crate) fn is_working(&self, node: &Node) -> bool {
        let held = File::open(self.working_file(&node.server.name)).is_ok_and(|file| file.try_lock_shared().is_err());
        held && !node.faults().cut
    }

    /// Whether more than half of the members work.
    pub(crate) fn has_quorum(&self, nodes: &[Node]) -> bool {
        let members = self.read().members;
        let working = nodes
            .iter()
            .filter(|node| members.contains_key(&node.server.name) && self.is_working(node))
            .count();
        working * 2 > members.len()
    }

    /// Counts a write of a file, and returns its number and its time.
    pub(crate) fn count_write(&self, now: Option<SystemTime>) -> Result<(u64, SystemTime)> {
        let _lock = self.lock()?;
        let path = self.dir.join("writes.json");
        let mut writes: Writes = read(&path).unwrap_or_default();
        writes.count += 1;
        let Some(now) = now else {
            replace(&path, &writes)?;
            return Ok((writes.count, SystemTime::now()));
        };
        let real = SystemTime::now();
        let mut moment = now;
        if writes.gap > 0 {
            writes.last = seconds(real).max(writes.last.saturating_add_unsigned(writes.gap));
            // The difference between the node's clock and ours stays.
            let later = time(writes.last);
            moment = match now.duration_since(real) {
                Ok(ahead) => later + ahead,
                Err(behind) => later - behind.duration(),
            };
        }
        replace(&path, &writes)?;
        Ok((writes.count, moment))
    }

    /// Makes everything that is recorded older.
    pub(crate) fn age(&self, nodes: &[Node], by: Duration) -> Result<()> {
        let seconds = by.as_secs() as i64;
        let older = |contents: &mut Contents| {
            for copy in contents
                .bootstrap
                .values_mut()
                .flat_map(|sealed| sealed.files.values_mut())
            {
                copy.modified -= seconds;
            }
        };
        self.change(nodes, None, older)?;
        let _lock = self.lock()?;
        let path = self.dir.join("writes.json");
        let mut writes: Writes = read(&path).unwrap_or_default();
        writes.last -= seconds;
        replace(&path, &writes)?;
        // The copies of servers that are down age too.
        for (name, member) in self.read().members {
            let down = nodes
                .iter()
                .any(|node| node.server.name == name && !self.is_working(node));
            if down && let Some(mut copy) = Self::read_copy(&member.copy) {
                older(&mut copy);
                replace(&member.copy, &copy)?;
            }
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// Writes beside and renames, so that a reader never sees half a file.
fn replace<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let beside = path.with_extension("new");
    std::fs::write(&beside, serde_json::to_string(value)?)?;
    std::fs::rename(&beside, path).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(password: &str) -> Contents {
        let mut contents = Contents::default();
        contents.save(password, Bundle::new()).unwrap();
        contents
    }

    #[test]
    fn the_key_moves_from_the_old_password_to_the_new_one() {
        let mut contents = contents("old");
        assert_eq!(contents.rotate_key("old", "new"), Ok(()));
        assert!(contents.open("old").is_none() && contents.open("new").is_some());
        // The same value on another server, whose file still has the old one.
        assert_eq!(contents.rotate_key("old", "new"), Ok(()));
        assert_eq!(contents.rotate_key("old", "other"), Err(DIFFERENT_TOKEN));
        assert_eq!(contents.save("other", Bundle::new()), Err(DIFFERENT_TOKEN));
    }

    #[test]
    fn a_newline_at_the_end_moves_the_key_but_cannot_be_saved() {
        let mut contents = contents("old");
        // `server/token` is read back trimmed.
        assert_eq!(contents.rotate_key("old", "x"), Ok(()));
        assert_eq!(contents.save("x\n", Bundle::new()), Err(DIFFERENT_TOKEN));
        assert_eq!(contents.rotate_key("x\n", "good"), Err(DIFFERENT_TOKEN));
    }
}
