//! The parts of the process environment that determine how to connect: variables, the home directory, the mounted
//! service account.
//!
//! It is a value, so that a test can have an environment of its own. Nothing else reads the variables of the process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::console::{Console, Silent};

/// Where the service account of a pod is mounted.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The environment of a connection.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: HashMap<String, String>,
    home: Option<PathBuf>,
    service_account: PathBuf,
    /// What a credential plugin writes to stderr is discarded.
    pub(super) plugin_messages_suppressed: bool,
    /// `kubectl-crt/v0.1.0 (linux/amd64)`
    pub(super) user_agent: String,
    pub(super) console: Arc<dyn Console>,
}

impl Environment {
    /// This process' environment. `user_agent` is made by [`user_agent`].
    pub fn of_process(console: Arc<dyn Console>, user_agent: String) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            variables: std::env::vars_os().filter_map(text).collect(),
            home: std::env::home_dir(),
            service_account: SERVICE_ACCOUNT.into(),
            plugin_messages_suppressed: false,
            user_agent,
            console,
        }
    }

    /// An environment without anything in it, for tests.
    pub fn empty(console: Arc<dyn Console>) -> Self {
        Self {
            variables: HashMap::new(),
            home: None,
            service_account: "/nonexistent".into(),
            plugin_messages_suppressed: false,
            user_agent: user_agent("kubectl-test", "0.0.0"),
            console,
        }
    }

    /// An empty environment that shows no message, for tests that only want a connection.
    pub fn silent() -> Self {
        Self::empty(Arc::new(Silent))
    }

    /// With a variable set.
    #[cfg(test)]
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// With another home directory.
    #[cfg(test)]
    pub(crate) fn with_home(mut self, home: &Path) -> Self {
        self.home = Some(home.to_owned());
        self
    }

    /// With another place for the mounted service account.
    #[cfg(test)]
    pub(crate) fn with_service_account(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.service_account);
        self
    }

    /// Discards what a credential plugin writes to stderr: during completion it would end up in the user's command line.
    #[must_use]
    pub fn without_plugin_messages(mut self) -> Self {
        self.plugin_messages_suppressed = true;
        self
    }

    /// The value of a variable. An empty one counts as absent.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(super) fn variables(&self) -> &HashMap<String, String> {
        &self.variables
    }

    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    pub(super) fn service_account(&self) -> &Path {
        &self.service_account
    }
}

/// The `User-Agent` header in kubectl's form: `kubectl-crt/v0.1.0 (linux/amd64)`, with Go's names of system and processor.
pub fn user_agent(name: &str, version: &str) -> String {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let processor = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    format!("{name}/v{version} ({system}/{processor})")
}
