//! The command that resumes a rotation, as the user would type it, with the contexts of this command.

use std::fmt::Write as _;

use crate::app::GlobalFlags;

/// The commands about one target, with what of this command line belongs to every later one too.
#[derive(Clone, Debug)]
pub struct Commands {
    plugin: &'static str,
    target: String,
    flags: String,
    /// Flags that only `rotate` and `rollback` have.
    to_run: String,
    /// Flags that only `rotate` has.
    to_rotate: String,
}

impl Commands {
    /// `kubectl PLUGIN VERB TARGET` with the connection flags of this command.
    pub fn new(plugin: &'static str, target: impl Into<String>, global: &GlobalFlags) -> Self {
        let connection = &global.connection;
        let kubeconfig = connection
            .kubeconfig
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned());
        let commands = Self {
            plugin,
            target: target.into(),
            flags: String::new(),
            to_run: String::new(),
            to_rotate: String::new(),
        };
        let commands = commands
            .with("--kubeconfig", kubeconfig.as_deref())
            .with("--context", connection.context.as_deref());
        match connection.insecure_skip_tls_verify {
            Some(true) => commands.switched_on("--insecure-skip-tls-verify"),
            _ => commands,
        }
    }

    /// With another flag, where it has a value.
    #[must_use]
    pub fn with(mut self, flag: &str, value: Option<&str>) -> Self {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = write!(self.flags, " {flag} {}", quoted(value));
        }
        self
    }

    /// With a flag that has no value.
    #[must_use]
    pub fn switched_on(mut self, flag: &str) -> Self {
        let _ = write!(self.flags, " {flag}");
        self
    }

    /// With a flag that only `rotate` and `rollback` have, where it has a value.
    #[must_use]
    pub fn with_to_run(mut self, flag: &str, value: Option<&str>) -> Self {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = write!(self.to_run, " {flag} {}", quoted(value));
        }
        self
    }

    /// With a flag that only `rotate` has, where it has a value.
    #[must_use]
    pub fn with_to_rotate(mut self, flag: &str, value: Option<&str>) -> Self {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = write!(self.to_rotate, " {flag} {}", quoted(value));
        }
        self
    }

    /// With a flag that only `rotate` has, and that has no value.
    #[must_use]
    pub fn switched_on_to_rotate(mut self, flag: &str) -> Self {
        let _ = write!(self.to_rotate, " {flag}");
        self
    }

    /// Resumes a rotation.
    pub fn rotate(&self) -> String {
        self.verb("rotate") + &self.to_run + &self.to_rotate
    }

    /// Rolls one back.
    pub fn rollback(&self) -> String {
        self.verb("rollback") + &self.to_run
    }

    /// Shows the status of one.
    pub fn status(&self) -> String {
        self.verb("status")
    }

    fn verb(&self, verb: &str) -> String {
        let Self {
            plugin, target, flags, ..
        } = self;
        format!("kubectl {plugin} {verb} {target}{flags}")
    }
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_pasted_into_a_shell() {
        let mut global = GlobalFlags::default();
        global.connection.context = Some("rancher prod".into());
        let commands = Commands::new("crt", "c-x7k2p", &global).with("--downstream-context", Some("it's-mine"));
        assert_eq!(
            commands.rotate(),
            r"kubectl crt rotate c-x7k2p --context 'rancher prod' --downstream-context 'it'\''s-mine'"
        );
        let plain = Commands::new("crt", "c-x7k2p", &GlobalFlags::default());
        assert_eq!(plain.rollback(), "kubectl crt rollback c-x7k2p");
        let forced = plain.with_to_run("--force", Some("context"));
        assert_eq!(forced.rotate(), "kubectl crt rotate c-x7k2p --force context");
        assert_eq!(forced.rollback(), "kubectl crt rollback c-x7k2p --force context");
        assert_eq!(forced.status(), "kubectl crt status c-x7k2p");
    }
}
