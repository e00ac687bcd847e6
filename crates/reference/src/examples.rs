//! The commands in help texts and in the documentation are commands of the plugin.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Command;

/// Checks the examples in the help of every command, and the commands in the documentation.
pub(crate) fn check(plugin: &str, root: &Command, folder: &Path) -> Result<()> {
    let mut texts = vec![("--help".to_owned(), help(root))];
    for path in pages(folder)? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        texts.push((path.strip_prefix(folder).unwrap_or(&path).display().to_string(), text));
    }
    let start = format!("kubectl {plugin}");
    let (mut count, mut broken) = (0, Vec::new());
    for (place, text) in &texts {
        for line in code(text, &start) {
            count += 1;
            if let Err(error) = parse(root, &start, &line) {
                let error = error.to_string();
                let error = error.lines().next().unwrap_or_default();
                broken.push(format!("{place}: `{line}`: {error}"));
            }
        }
        broken.extend(unknown_mentions(root, text, &start).map(|words| format!("{place}: there is no `{words}`")));
    }
    ensure!(count > 0, "no example of {start} was found");
    if broken.is_empty() {
        Ok(())
    } else {
        bail!("{}", broken.join("\n"))
    }
}

/// The texts after the options of all commands.
fn help(command: &Command) -> String {
    let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    command
        .get_subcommands()
        .fold(own, |text, command| text + "\n\n" + &help(command))
}

/// The pages that are written by hand. Those in `docs/reference` are generated.
fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [root.to_owned(), root.join("docs")] {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let is_page = path.extension().is_some_and(|end| end == "md");
            if is_page && path.file_name().is_some_and(|name| name != "CHANGELOG.md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The command lines of a plugin in a text, with the lines that continue them. A command begins a line, after a prompt or a pipe.
fn code(text: &str, start: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut line = line.to_owned();
        while line.ends_with('\\') {
            line.pop();
            line += lines.next().unwrap_or_default().trim_start();
        }
        let is_code = line.starts_with("  ") || line.starts_with("$ ") || line.starts_with(start);
        let commands = line
            .trim_start()
            .trim_start_matches("$ ")
            .split(" | ")
            .map(str::trim_start);
        found.extend(
            commands
                .filter(|_| is_code)
                .filter(|command| is_of(command, start))
                .map(described),
        );
    }
    found
}

/// Whether a command is of this plugin, and not of another whose name begins with its name.
fn is_of(command: &str, start: &str) -> bool {
    let rest = command.strip_prefix(start);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// A command without the description beside it.
fn described(command: &str) -> String {
    command.split("   ").next().unwrap_or_default().trim_end().to_owned()
}

fn parse(root: &Command, start: &str, line: &str) -> Result<()> {
    let words = shlex::split(&line[start.len()..]).context("the quotes are not closed")?;
    let is_redirection = |word: &String| word == "<" || word == ">";
    let words = words.into_iter().take_while(|word| !is_redirection(word));
    root.clone()
        .try_get_matches_from(std::iter::once(start.to_owned()).chain(words))?;
    Ok(())
}

/// The commands that running text names, and that do not exist.
fn unknown_mentions<'a>(root: &'a Command, text: &'a str, start: &'a str) -> impl Iterator<Item = String> + 'a {
    let words = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(move |code| is_of(code, start));
    let verbs = words.filter_map(move |code| code[start.len()..].split_whitespace().next());
    let unknown = verbs.filter(|verb| root.find_subcommand(verb).is_none() && !verb.starts_with('-'));
    unknown.map(move |verb| format!("{start} {verb}"))
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn root() -> Command {
        let rotate = Command::new("rotate")
            .arg(Arg::new("target").required(true))
            .arg(Arg::new("all").long("all"));
        Command::new("x").subcommand(rotate).subcommand(Command::new("list"))
    }

    #[test]
    fn commands_are_found_in_blocks_of_code() {
        let text = "Run kubectl x list here.\n\n    kubectl x list            print all\n    pass show a | kubectl x rotate a \\\n      \
                    --all b > file\n    kubectl x-y list\n\n```console\n$ kubectl x list | head\nkubectl x list -o wide\n```\n";
        assert_eq!(
            code(text, "kubectl x"),
            [
                "kubectl x list",
                "kubectl x rotate a --all b > file",
                "kubectl x list",
                "kubectl x list -o wide"
            ]
        );
    }

    #[test]
    fn a_usage_error_is_found() {
        let parse = |line| parse(&root(), "kubectl x", line);
        assert!(parse("kubectl x rotate 'a b' --all c > file").is_ok());
        assert!(parse("kubectl x rotate").is_err());
        assert!(parse("kubectl x rotate a --none").is_err());
        assert!(parse("kubectl x rotate 'a").is_err());
    }

    #[test]
    fn a_mention_of_an_unknown_command_is_found() {
        let text = "`kubectl x list` and `kubectl x` print, `kubectl x revoke A…` does not exist, nor `kubectl y a`.";
        let found: Vec<String> = unknown_mentions(&root(), text, "kubectl x").collect();
        assert_eq!(found, ["kubectl x revoke"]);
    }
}
