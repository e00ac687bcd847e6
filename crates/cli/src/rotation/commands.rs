//! The command that resumes a rotation, as the user would type it, with the contexts of this command.

use std::fmt::Write as _;

use client::sanitize::shell_word;

use crate::app::GlobalFlags;
use crate::flags::append;

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
        Self {
            plugin,
            target: target.into(),
            flags: global.connection.typed(),
            to_run: String::new(),
            to_rotate: String::new(),
        }
    }

    /// With another flag, where it has a value.
    #[must_use]
    pub fn with(mut self, flag: &str, value: Option<&str>) -> Self {
        append(&mut self.flags, flag, value);
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
        append(&mut self.to_run, flag, value);
        self
    }

    /// With a flag that only `rotate` has, where it has a value.
    #[must_use]
    pub fn with_to_rotate(mut self, flag: &str, value: Option<&str>) -> Self {
        append(&mut self.to_rotate, flag, value);
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
        self.on(verb, &self.target)
    }

    /// A command about another target, or about none.
    pub fn on(&self, verb: &str, target: &str) -> String {
        let Self { plugin, flags, .. } = self;
        let target = if target.is_empty() {
            String::new()
        } else {
            format!(" {}", shell_word(target))
        };
        format!("kubectl {plugin} {verb}{target}{flags}")
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
        global.connection.allow_plain_http = true;
        assert_eq!(
            Commands::new("crt", "$(reboot)", &global).status(),
            "kubectl crt status '$(reboot)' --context 'rancher prod' --allow-plain-http"
        );
        assert_eq!(
            commands.on("list", ""),
            r"kubectl crt list --context 'rancher prod' --downstream-context 'it'\''s-mine'"
        );
        assert!(
            commands
                .on("verify", "my cluster")
                .starts_with("kubectl crt verify 'my cluster' ")
        );
        let plain = Commands::new("crt", "c-x7k2p", &GlobalFlags::default());
        assert_eq!(plain.rollback(), "kubectl crt rollback c-x7k2p");
        let commands = plain
            .with_to_run("--force", Some("context"))
            .with_to_rotate("--ttl", Some("2h"));
        assert_eq!(commands.rotate(), "kubectl crt rotate c-x7k2p --force context --ttl 2h");
        assert_eq!(commands.rollback(), "kubectl crt rollback c-x7k2p --force context");
        assert_eq!(commands.status(), "kubectl crt status c-x7k2p");
    }
}
