//! The log that tests assert on: one JSON object per line, flushed at once, with the fingerprints of tokens.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

/// An open log file.
pub(crate) struct Log(Mutex<File>);

impl Log {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Writes one line. `fields` is a JSON object; `at` and `kind` are put in front of it.
    pub(crate) fn line(&self, kind: &str, fields: Value) {
        let mut line = Map::new();
        line.insert("at".into(), now_ms().into());
        line.insert("kind".into(), kind.into());
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        if let Ok(mut file) = self.0.lock() {
            // A full disk must not end the fake Rancher during a test. The test will miss the line.
            let _ = file.write_all(text.as_bytes());
        }
    }
}

/// Now, RFC 3339 with milliseconds.
pub(crate) fn now_ms() -> String {
    format!("{:.3}", Timestamp::now())
}
