//! The files of a server in its data directory, with their times: `server/token`, and those that the datastore has a
//! copy of.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::datastore::Datastore;
use crate::node::{Node, seconds, time};
use crate::passwd::Passwd;
use crate::token::parse_full;

pub(crate) const PASSWD: &str = "cred/passwd";
pub(crate) const ENCRYPTION_CONFIG: &str = "cred/encryption-config.json";
pub(crate) const ENCRYPTION_STATE: &str = "cred/encryption-state.json";
const KEPT: [&str; 3] = [PASSWD, ENCRYPTION_CONFIG, ENCRYPTION_STATE];

/// The datastore's copy of a file: its bytes, and its time in whole seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copy {
    pub(crate) content: String,
    pub(crate) modified: i64,
}

/// The datastore's copies, by path below `server/`.
pub(crate) type Bundle = BTreeMap<String, Copy>;

/// The directory `server` of a data directory.
#[derive(Clone)]
pub(crate) struct ServerFiles {
    pub(crate) dir: PathBuf,
    node: Node,
}

/// What a bundle means for the files on disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Differ, and are 3 s later or more. The server does not start.
    pub(crate) newer: Vec<String>,
    /// Differ otherwise, or do not exist. The server replaces them.
    pub(crate) outdated: Vec<String>,
}

impl ServerFiles {
    pub(crate) fn new(node: &Node, data_dir: &Path) -> Self {
        Self {
            dir: data_dir.join("server"),
            node: node.clone(),
        }
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// Its own copy of the datastore.
    pub(crate) fn own_copy(&self) -> PathBuf {
        self.dir.join("db/etcd/copy.json")
    }

    /// The password in `server/token`: `None` without the file, empty if the file is.
    pub(crate) fn token(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.token_file()).ok()?;
        let text = text.trim();
        Some(parse_full(text).map_or(text, |(_, password)| password).to_owned())
    }

    /// Writes `server/token` in the K10 form, and the links that K3s keeps beside it.
    pub(crate) fn write_token(&self, ca_hash: &str, password: &str, agent_token: Option<&str>) -> Result<()> {
        self.write("token", &format!("K10{ca_hash}::server:{password}\n"))?;
        self.link("node-token")?;
        match agent_token {
            Some(agent) => {
                let _ = std::fs::remove_file(self.dir.join("agent-token"));
                self.write("agent-token", &format!("K10{ca_hash}::node:{agent}\n"))
            }
            None => self.link("agent-token"),
        }
    }

    fn link(&self, name: &str) -> Result<()> {
        let link = self.dir.join(name);
        let _ = std::fs::remove_file(&link);
        Ok(std::os::unix::fs::symlink(self.token_file(), link)?)
    }

    /// Truncates `server/token`, which is the middle of its write.
    pub(crate) fn truncate_token(&self) -> Result<()> {
        Ok(std::fs::write(self.token_file(), "")?)
    }

    /// The logins in `cred/passwd`, none without the file.
    pub(crate) fn passwd(&self) -> Passwd {
        Passwd::parse(&std::fs::read_to_string(self.dir.join(PASSWD)).unwrap_or_default())
    }

    /// Writes `cred/passwd` if it was changed.
    pub(crate) fn write_passwd(&self, passwd: &Passwd) -> Result<()> {
        if !passwd.changed {
            return Ok(());
        }
        let write = Datastore::of(&self.node).count_write(None)?.0;
        self.write(PASSWD, &passwd.render(self.node.config.timing.rows, write))
    }

    /// Writes a file with mode 0600 and the time of this node.
    pub(crate) fn write(&self, path: &str, content: &str) -> Result<()> {
        let modified = Datastore::of(&self.node).count_write(Some(self.node.now()))?.1;
        self.write_at(path, content, modified)
    }

    fn write_at(&self, path: &str, content: &str, modified: std::time::SystemTime) -> Result<()> {
        let path = self.dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(content.as_bytes())?;
        Ok(file.set_modified(modified)?)
    }

    /// The files as they are, for the datastore.
    pub(crate) fn bundle(&self) -> Bundle {
        let read = |name: &str| {
            let path = self.dir.join(name);
            let content = std::fs::read_to_string(&path).ok()?;
            let modified = seconds(path.metadata().ok()?.modified().ok()?);
            Some((name.to_owned(), Copy { content, modified }))
        };
        KEPT.into_iter().filter_map(read).collect()
    }

    /// `ReconcileBootstrapData` in `pkg/cluster/bootstrap.go`: bytes first, then whole seconds.
    pub(crate) fn compare(&self, bundle: &Bundle) -> Comparison {
        let (mine, mut comparison) = (self.bundle(), Comparison::default());
        for (name, copy) in bundle {
            match mine.get(name) {
                Some(file) if file.content == copy.content => {}
                Some(file) if file.modified - copy.modified >= 3 => comparison.newer.push(name.clone()),
                _ => comparison.outdated.push(name.clone()),
            }
        }
        comparison
    }

    /// Replaces files by the datastore's copies, with the datastore's times.
    pub(crate) fn replace(&self, bundle: &Bundle, names: &[String]) -> Result<()> {
        for name in names {
            if let Some(copy) = bundle.get(name) {
                self.write_at(name, &copy.content, time(copy.modified))?;
            }
        }
        Ok(())
    }

    /// Makes all files older.
    pub(crate) fn age(&self, by: std::time::Duration) -> Result<()> {
        for name in KEPT.into_iter().chain(["token"]) {
            if let Ok(file) = File::options().write(true).open(self.dir.join(name)) {
                file.set_modified(file.metadata()?.modified()? - by)?;
            }
        }
        Ok(())
    }
}
