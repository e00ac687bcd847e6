//! The one command that goes on: as the user would have to type it, with the same contexts as now.

use std::fmt::Write as _;

use crate::app::GlobalFlags;

/// A command about one subject, and what of the command line belongs to every later one too.
#[derive(Clone, Debug)]
pub struct Again {
    plugin: &'static str,
    subject: String,
    flags: String,
    /// Flags that only `rotate` has.
    to_rotate: String,
}

impl Again {
    /// `kubectl PLUGIN VERB SUBJECT` with the connection flags of this command.
    pub fn new(plugin: &'static str, subject: impl Into<String>, global: &GlobalFlags) -> Self {
        let connection = &global.connection;
        let kubeconfig = connection
            .kubeconfig
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned());
        let again = Self {
            plugin,
            subject: subject.into(),
            flags: String::new(),
            to_rotate: String::new(),
        };
        let again = again
            .with("--kubeconfig", kubeconfig.as_deref())
            .with("--context", connection.context.as_deref());
        match connection.insecure_skip_tls_verify {
            Some(true) => again.switched_on("--insecure-skip-tls-verify"),
            _ => again,
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

    /// Goes on with a rotation.
    pub fn rotate(&self) -> String {
        self.verb("rotate") + &self.to_rotate
    }

    /// Undoes one.
    pub fn rollback(&self) -> String {
        self.verb("rollback")
    }

    /// Shows where one stands.
    pub fn status(&self) -> String {
        self.verb("status")
    }

    fn verb(&self, verb: &str) -> String {
        let Self {
            plugin, subject, flags, ..
        } = self;
        format!("kubectl {plugin} {verb} {subject}{flags}")
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
    fn the_command_can_be_pasted_as_it_stands() {
        let mut global = GlobalFlags::default();
        global.connection.context = Some("rancher prod".into());
        let again = Again::new("crt", "c-x7k2p", &global).with("--downstream-context", Some("it's-mine"));
        assert_eq!(
            again.rotate(),
            r"kubectl crt rotate c-x7k2p --context 'rancher prod' --downstream-context 'it'\''s-mine'"
        );
        assert_eq!(
            Again::new("crt", "c-x7k2p", &GlobalFlags::default()).rollback(),
            "kubectl crt rollback c-x7k2p"
        );
    }
}
