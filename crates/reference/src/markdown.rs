//! The reference page of a plugin, in Markdown.

use std::fmt::Write as _;

use clap::{Arg, Command};

use crate::{Paragraph, flags, paragraphs, subcommands, words};

/// The page.
pub(crate) fn reference(root: &Command) -> String {
    let mut root = root.clone().disable_help_subcommand(true);
    root.build();
    let mut page =
        "<!-- Written by `cargo xtask docs` from the definitions of the commands. Do not edit. -->\n".to_owned();
    section(&mut page, "#", &root);
    for command in subcommands(&root) {
        let level = "#".repeat(1 + words(&root, command).len());
        section(&mut page, &level, command);
    }
    page += "\n## Options of all commands\n";
    let global: Vec<&Arg> = flags(&root).filter(|flag| flag.is_global_set()).collect();
    let mut headings: Vec<&str> = global.iter().filter_map(|flag| flag.get_help_heading()).collect();
    headings.dedup();
    for heading in headings {
        let _ = writeln!(page, "\n### {heading}");
        let under = global.iter().filter(|flag| flag.get_help_heading() == Some(heading));
        flag_table(&mut page, under.copied());
    }
    page
}

// Writing to a string cannot fail.
fn section(page: &mut String, level: &str, command: &Command) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let _ = writeln!(page, "\n{level} {name}");
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        let _ = writeln!(page, "\n{}", prose(&about.to_string()));
    }
    let aliases: Vec<String> = command
        .get_visible_aliases()
        .map(|alias| format!("`{alias}`"))
        .collect();
    if !aliases.is_empty() {
        let _ = writeln!(page, "\nAlias: {}", aliases.join(", "));
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let _ = writeln!(page, "\n```console\n{usage}\n```");
    let subcommands: Vec<&Command> = command.get_subcommands().collect();
    if !subcommands.is_empty() {
        page.push_str("\n| command | what it does |\n|---|---|\n");
        for sub in subcommands {
            let anchor = sub.get_bin_name().unwrap_or_default().replace(' ', "-");
            let about = sub.get_about().map(|about| cell(&about.to_string()));
            let _ = writeln!(
                page,
                "| [`{}`](#{anchor}) | {} |",
                sub.get_name(),
                about.unwrap_or_default()
            );
        }
    }
    let mut positionals = command.get_positionals().peekable();
    if positionals.peek().is_some() {
        page.push_str("\n| argument | meaning |\n|---|---|\n");
        for argument in positionals {
            let _ = writeln!(page, "| `{argument}` | {} |", meaning(argument));
        }
    }
    flag_table(page, flags(command).filter(|flag| !flag.is_global_set()));
    if let Some(after) = command.get_after_help() {
        for paragraph in paragraphs(&after.to_string()) {
            let _ = match paragraph {
                Paragraph::Prose(text) => writeln!(page, "\n{}", prose(&text)),
                Paragraph::Code(text) => writeln!(page, "\n```console\n{text}\n```"),
            };
        }
    }
}

fn flag_table<'flag>(page: &mut String, flags: impl Iterator<Item = &'flag Arg>) {
    let mut flags = flags.peekable();
    if flags.peek().is_none() {
        return;
    }
    page.push_str("\n| flag | default | meaning |\n|---|---|---|\n");
    for flag in flags {
        let short = flag
            .get_short()
            .map(|short| format!("`-{short}`, "))
            .unwrap_or_default();
        let defaults = flag.get_default_values().iter();
        let defaults: Vec<String> = defaults.map(|value| format!("`{}`", value.to_string_lossy())).collect();
        let has_default = flag.get_action().takes_values();
        let defaults = if has_default {
            defaults.join(", ")
        } else {
            String::new()
        };
        let _ = writeln!(page, "| {short}`{flag}` | {defaults} | {} |", meaning(flag));
    }
}

/// What an argument means, and what its values mean.
fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut meaning = help.map(|help| cell(&help.to_string())).unwrap_or_default();
    let values = argument.get_possible_values();
    let values: Vec<_> = values.iter().filter(|value| !value.is_hide_set()).collect();
    if !argument.get_action().takes_values() || values.is_empty() {
        return meaning;
    }
    if values.iter().any(|value| value.get_help().is_some()) {
        for value in values {
            let help = value.get_help().map(|help| cell(&help.to_string())).unwrap_or_default();
            let _ = write!(meaning, "<br>`{}`: {help}", value.get_name());
        }
    } else {
        let names: Vec<String> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        let _ = write!(meaning, " (one of {})", names.join(", "));
    }
    meaning
}

fn prose(text: &str) -> String {
    let text = text.replace('<', "&lt;");
    text.strip_suffix(':')
        .map_or_else(|| with_full_stop(&text), |title| format!("{title}:"))
}

fn with_full_stop(text: &str) -> String {
    if text.ends_with(['.', '!', '?']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

fn cell(text: &str) -> String {
    let text = text.replace("\n\n", "<br>").replace('\n', " ");
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_command_has_a_section_with_its_flags() {
        let rotate = Command::new("rotate")
            .about("Rotate it")
            .arg(Arg::new("all").long("all").help("All of them"));
        let group = Command::new("server").about("Manage servers").subcommand(rotate);
        let root = Command::new("demo").bin_name("kubectl demo").subcommand(group);
        let page = reference(&root.subcommand(Command::new("list").about("List them")));
        let sections: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
        let expected = [
            "# kubectl demo",
            "## kubectl demo server",
            "### kubectl demo server rotate",
            "## kubectl demo list",
            "## Options of all commands",
        ];
        assert_eq!(sections, expected);
        assert!(page.contains("(#kubectl-demo-server-rotate)"), "{page}");
        assert!(page.contains("| `--all <all>` |  | All of them |"), "{page}");
    }
}
