//! The rules for the help of a command.

use std::collections::BTreeMap;
use std::process;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Arg, Command};

use crate::{flags, subcommands, words};

/// The lines of a screen.
const SCREEN: usize = 48;
/// The maximum length of a short description, so that each command has one line in the list.
const SHORT: usize = 70;
/// The columns that help is wrapped to without a terminal.
const WIDTH: usize = 100;
/// Commands that need no example.
const PLAIN: [&str; 1] = ["options"];

/// Checks every command of a plugin. `long`: those whose help may be longer than a screen.
pub(crate) fn check(root: &Command, program: &str, long: &[&str]) -> Result<()> {
    let mut broken = texts(root);
    let mut root = root.clone().disable_help_subcommand(true);
    root.build();
    broken.extend(headings(&root));
    for command in all(&root) {
        let words = words(&root, command);
        let name = words.join(" ");
        let printed = printed(program, &words)?;
        let lines = printed.lines().count();
        if long.contains(&name.as_str()) {
            ensure!(
                lines > SCREEN,
                "the help of {name} fits on a screen: take it off the list"
            );
        } else if lines > SCREEN {
            broken.push(format!("{name}: the help has {lines} lines, and a screen has {SCREEN}"));
        }
        let pointer = "options\" for a list of global command-line options (applies to all commands).";
        let words: Vec<&str> = printed.split_whitespace().collect();
        if !words.join(" ").ends_with(pointer) {
            broken.push(format!("{name}: the help does not point to `options`"));
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        bail!("{}", broken.join("\n"))
    }
}

fn all(root: &Command) -> impl Iterator<Item = &Command> {
    std::iter::once(root).chain(subcommands(root))
}

/// The flags that have another heading in another command. The root was built. clap puts a flag under the heading of the struct before it, if it has none.
fn headings(root: &Command) -> Vec<String> {
    let mut known: BTreeMap<&str, (&str, Option<&str>)> = BTreeMap::new();
    let mut broken = Vec::new();
    for command in all(root) {
        for flag in flags(command) {
            let (name, heading) = (command.get_name(), flag.get_help_heading());
            let (first, expected) = *known.entry(flag.get_id().as_str()).or_insert((name, heading));
            if heading != expected {
                broken.push(format!(
                    "{flag} is under {heading:?} in {name}, and under {expected:?} in {first}"
                ));
            }
        }
    }
    broken
}

/// The help without a terminal, in 100 columns.
fn printed(program: &str, words: &[&str]) -> Result<String> {
    let mut command = process::Command::new(program);
    let out = command.args(words).arg("--help").env_remove("COLUMNS").output();
    let out = out.with_context(|| format!("run {program}"))?;
    ensure!(out.status.success(), "{program} {words:?}: {}", out.status);
    Ok(String::from_utf8(out.stdout)?)
}

/// The broken rules of the texts in the definitions.
fn texts(root: &Command) -> Vec<String> {
    let mut broken = Vec::new();
    for command in all(root) {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        if about.chars().count() >= SHORT || about.ends_with('.') || about.is_empty() {
            broken.push(format!(
                "{name}: describe it in fewer than {SHORT} characters, without a full stop: {about}"
            ));
        }
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        if !after.starts_with("Examples:\n  # ") && !PLAIN.contains(&name) {
            broken.push(format!("{name}: the help has no examples"));
        }
        // A command that is wrapped cannot be copied.
        for line in after
            .lines()
            .filter(|line| line.starts_with("  kubectl ") && line.chars().count() > WIDTH)
        {
            broken.push(format!("{name}: an example is wider than {WIDTH} columns: {line}"));
        }
        let of_flag = |flag: &Arg| flag.get_long_help().or(flag.get_help()).map(ToString::to_string);
        let texts = command.get_arguments().filter_map(of_flag).chain([after]);
        for line in texts.filter_map(|text| wrapped(&text)) {
            broken.push(format!(
                "{name}: wrapped in the source, where clap has to wrap it: {line}"
            ));
        }
    }
    broken
}

/// The first line of prose that continues on the next line.
fn wrapped(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':');
    let pairs = lines.windows(2).find(|pair| is_prose(pair[0]) && is_prose(pair[1]))?;
    Some(pairs[0].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_not_wrapped_in_the_source() {
        assert_eq!(
            wrapped("Examples:\n  # One\n  kubectl a\n\nOne line.\n\nAnother."),
            None
        );
        assert_eq!(
            wrapped("A rollback is possible until\nthe old token is revoked."),
            Some("A rollback is possible until".to_owned())
        );
    }

    #[test]
    fn a_flag_has_the_same_heading_in_every_command() {
        let flag = |name: &'static str| Arg::new(name).long(name);
        let one = Command::new("one")
            .arg(flag("yes"))
            .arg(flag("node").help_heading("Node options"));
        let leaks = Command::new("two").next_help_heading("Node options");
        let leaks = leaks.arg(flag("node")).arg(flag("yes"));
        let broken = |mut root: Command| {
            root.build();
            headings(&root)
        };
        let root = Command::new("root").subcommand(one);
        assert_eq!(broken(root.clone()), [""; 0]);
        let broken = broken(root.subcommand(Command::new("group").subcommand(leaks)));
        assert_eq!(
            broken,
            [r#"--yes <yes> is under Some("Node options") in two, and under None in one"#]
        );
    }

    #[test]
    fn a_command_has_a_short_description_and_examples() {
        let good = Command::new("good")
            .about("Do it")
            .after_help("Examples:\n  # One\n  kubectl good");
        let long = format!("Examples:\n  # One\n  kubectl {}", "x".repeat(100));
        let bad = Command::new("bad").about("x".repeat(70));
        let wide = Command::new("bad").about("Do it").after_help(long);
        let root = Command::new("root")
            .about("Do all")
            .after_help("Examples:\n  # One\n  kubectl root");
        let broken = texts(&root.subcommand(good).subcommand(bad).subcommand(wide.name("wide")));
        assert_eq!(broken.len(), 3, "{broken:?}");
        let broken = &broken[..2];
        assert!(broken.iter().all(|line| line.starts_with("bad: ")), "{broken:?}");
    }
}
