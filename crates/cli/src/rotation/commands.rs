//! The commands that messages and documents name, as the user would type them, with the contexts of this command.
//!
//! Every command in a hint is composed here. A debug build, which all tests run, parses it again with the command line of the
//! plugin, so a hint that is a usage error cannot be printed unnoticed.

use std::fmt::Write as _;

use client::sanitize::shell_word;
use engine::rotation::Check;

use crate::app::{self, GlobalFlags, Plugin};
use crate::flags::append;

/// The commands about one target, with what of this command line belongs to every later one too.
#[derive(Clone, Debug)]
pub struct Commands {
    plugin: &'static str,
    /// The command line of the plugin.
    parse: fn(&[String]) -> Result<(), clap::Error>,
    /// The words before the verb, with a space after them.
    group: String,
    target: String,
    /// The connection flags that kubectl has too.
    of_kubectl: String,
    flags: String,
    /// Flags that only `rotate` and `rollback` have.
    to_run: String,
    /// Flags that only `rotate` has.
    to_rotate: String,
    /// Flags that only `recover` has.
    to_recover: String,
    /// The verb that resumes a rotation.
    verb: &'static str,
    /// Those about other kinds of rotation that have the same Lease.
    others: Vec<OtherKind>,
}

/// Another kind of rotation that has the same Lease.
#[derive(Clone, Debug)]
pub struct OtherKind {
    /// Its kind.
    pub kind: &'static str,
    /// What it is, in a sentence: `a rotation of the agent token`.
    pub display: &'static str,
    /// The commands about it.
    pub commands: Commands,
}

impl Commands {
    /// `kubectl PLUGIN VERB TARGET` with the connection flags of this command.
    pub fn new<P: Plugin>(target: impl Into<String>, global: &GlobalFlags) -> Self {
        Self {
            plugin: P::NAME,
            parse: parse::<P>,
            group: String::new(),
            target: target.into(),
            of_kubectl: global.connection.typed_for_kubectl(),
            flags: global.connection.typed(),
            to_run: String::new(),
            to_rotate: String::new(),
            to_recover: String::new(),
            verb: "rotate",
            others: Vec::new(),
        }
    }

    /// A rotation is resumed with this verb.
    #[must_use]
    pub fn resumed_with(mut self, verb: &'static str) -> Self {
        self.verb = verb;
        self
    }

    /// Where the Lease can be that of another kind of rotation.
    #[must_use]
    pub fn or_of(mut self, other: OtherKind) -> Self {
        self.others.push(other);
        self
    }

    /// The other rotation of this kind.
    pub fn other(&self, kind: &str) -> Option<&OtherKind> {
        self.others.iter().find(|other| other.kind == kind)
    }

    /// The commands of a group: `kubectl PLUGIN GROUP VERB`.
    #[must_use]
    pub fn in_group(mut self, group: &str) -> Self {
        self.group = format!("{group} ");
        self
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

    /// With a flag that only `rotate` and `rollback` have, and that has no value.
    #[must_use]
    pub fn switched_on_to_run(mut self, flag: &str) -> Self {
        let _ = write!(self.to_run, " {flag}");
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

    /// With a flag that only `recover` has, where it has a value.
    #[must_use]
    pub fn with_to_recover(mut self, flag: &str, value: Option<&str>) -> Self {
        append(&mut self.to_recover, flag, value);
        self
    }

    /// With a flag that only `recover` has, and that has no value.
    #[must_use]
    pub fn switched_on_to_recover(mut self, flag: &str) -> Self {
        let _ = write!(self.to_recover, " {flag}");
        self
    }

    /// Resumes a rotation.
    pub fn rotate(&self) -> String {
        self.composed(self.verb, &self.target, &[&self.to_run, &self.to_rotate])
    }

    /// Resumes a rotation, or starts one, and overrides a check.
    pub fn rotate_forced(&self, check: Check) -> String {
        let force = format!(" --force={}", check.name);
        self.composed(self.verb, &self.target, &[&self.to_run, &self.to_rotate, &force])
    }

    /// The flag that overrides these checks of a refused command.
    pub(crate) fn force(&self, verb: &str, checks: &[&str]) -> String {
        let flag = format!("--force={}", checks.join(","));
        // The flag is valid as a part of the whole command.
        self.composed(verb, &self.target, &[" ", &flag]);
        flag
    }

    /// Rolls one back.
    pub fn rollback(&self) -> String {
        self.composed("rollback", &self.target, &[&self.to_run])
    }

    /// Mends what no rotation can resume.
    pub fn recover(&self) -> String {
        self.composed("recover", &self.target, &[&self.to_recover])
    }

    /// Shows the status of one.
    pub fn status(&self) -> String {
        self.on("status", &self.target)
    }

    /// A command about another target, or about none.
    pub fn on(&self, verb: &str, target: &str) -> String {
        self.composed(verb, target, &[])
    }

    /// A command of kubectl itself, with the connection flags that it has too.
    pub fn kubectl(&self, words: &str) -> String {
        format!("kubectl {words}{}", self.of_kubectl)
    }

    fn composed(&self, verb: &str, target: &str, more: &[&str]) -> String {
        let Self {
            plugin, group, flags, ..
        } = self;
        let target = if target.is_empty() {
            String::new()
        } else {
            format!(" {}", shell_word(target))
        };
        let words = format!("{group}{verb}{target}{flags}{}", more.concat());
        debug_assert!(self.is_valid(&words), "not a command of kubectl {plugin}: {words}");
        format!("kubectl {plugin} {words}")
    }

    fn is_valid(&self, words: &str) -> bool {
        let words = shlex::split(&format!("kubectl-{} {words}", self.plugin));
        words.is_some_and(|words| (self.parse)(&words).is_ok())
    }
}

fn parse<P: Plugin>(words: &[String]) -> Result<(), clap::Error> {
    let matches = app::command::<P>().try_get_matches_from(words)?;
    P::from_arg_matches(&matches).map(drop)
}

/// A command line for the tests of this crate.
#[cfg(test)]
pub(crate) mod fixture {
    use crate::ExitCode;
    use crate::app::{Context, GlobalFlags, Plugin};
    use client::error::Error;

    /// Rotate tokens
    #[derive(clap::Parser)]
    pub(crate) struct Demo {
        #[command(flatten)]
        global: GlobalFlags,
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(clap::Subcommand)]
    enum Verb {
        List(Flags),
        Rotate(Flags),
        Rollback(Flags),
        Status(Flags),
        Verify(Flags),
    }

    #[derive(clap::Args)]
    #[allow(dead_code, reason = "only parsed")]
    struct Flags {
        target: Option<String>,
        #[arg(long)]
        downstream_context: Option<String>,
        #[arg(long, value_delimiter = ',')]
        force: Vec<String>,
        #[arg(long)]
        ttl: Option<String>,
    }

    impl Plugin for Demo {
        const NAME: &'static str = "crt";

        fn global(&self) -> &GlobalFlags {
            &self.global
        }

        async fn run(self, _: Context) -> Result<ExitCode, Error> {
            Ok(ExitCode::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::Demo;
    use super::*;

    #[test]
    fn the_command_can_be_pasted_into_a_shell() {
        let mut global = GlobalFlags::default();
        global.connection.context = Some("rancher prod".into());
        let commands = Commands::new::<Demo>("c-x7k2p", &global).with("--downstream-context", Some("it's-mine"));
        assert_eq!(
            commands.rotate(),
            r"kubectl crt rotate c-x7k2p --context 'rancher prod' --downstream-context 'it'\''s-mine'"
        );
        global.connection.allow_plain_http = true;
        assert_eq!(
            Commands::new::<Demo>("$(reboot)", &global).status(),
            "kubectl crt status '$(reboot)' --context 'rancher prod' --allow-plain-http"
        );
        assert_eq!(
            Commands::new::<Demo>("", &global).kubectl("get secrets"),
            "kubectl get secrets --context 'rancher prod'"
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
        let plain = Commands::new::<Demo>("c-x7k2p", &GlobalFlags::default());
        assert_eq!(plain.rollback(), "kubectl crt rollback c-x7k2p");
        let commands = plain
            .with_to_run("--force", Some("context"))
            .with_to_rotate("--ttl", Some("2h"));
        assert_eq!(commands.rotate(), "kubectl crt rotate c-x7k2p --force context --ttl 2h");
        assert_eq!(commands.rollback(), "kubectl crt rollback c-x7k2p --force context");
        assert_eq!(
            commands.rotate_forced(Check::JOURNAL),
            "kubectl crt rotate c-x7k2p --force context --ttl 2h --force=journal"
        );
        assert_eq!(commands.status(), "kubectl crt status c-x7k2p");
    }

    #[test]
    fn a_name_that_looks_like_a_flag_is_its_value() {
        let mut global = GlobalFlags::default();
        global.connection.context = Some("-prod".into());
        let commands = Commands::new::<Demo>("c-x7k2p", &global);
        assert_eq!(commands.status(), "kubectl crt status c-x7k2p --context=-prod");
    }

    #[test]
    #[should_panic(expected = "not a command of kubectl crt: revoke c-x7k2p")]
    fn a_usage_error_is_found() {
        let commands = Commands::new::<Demo>("", &GlobalFlags::default());
        commands.on("revoke", "c-x7k2p");
    }
}
