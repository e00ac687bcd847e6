//! The two logs of a server: the lines that `journalctl` prints, in the format of K3s, and the requests as JSON.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// A file that lines are appended to.
pub(crate) struct Journal(Mutex<File>);

impl Journal {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(Mutex::new(
            file.with_context(|| format!("open {}", path.display()))?,
        )))
    }

    /// `level` is `info`, `warning`, `error` or `fatal`.
    pub(crate) fn line(&self, level: &str, message: &str) {
        let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        self.write(&format!("time=\"{time}\" level={level} msg={}\n", Value::from(message)));
    }

    /// Text as it is, like a panic.
    pub(crate) fn raw(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// One JSON object with the time in front.
    pub(crate) fn object(&self, mut fields: Value) {
        fields["at"] = format!("{:.3}", Timestamp::now()).into();
        self.write(&format!("{fields}\n"));
    }

    fn write(&self, text: &str) {
        if let Ok(mut file) = self.0.lock() {
            // A full disk must not end the server. The test will miss the line.
            let _ = file.write_all(text.as_bytes());
        }
    }
}
