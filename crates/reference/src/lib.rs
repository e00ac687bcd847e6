//! What is generated from a plugin's source: its reference, its man pages, the step table of its rotation, the table of its
//! permissions, and the manifests with the roles.
//!
//! Each plugin has a test `reference` that calls [`Plugin::check`] and finds outdated pages. Released binaries do not
//! depend on this crate. `cargo xtask docs` runs the same tests with [`UPDATE`] set, and they write the pages. The man
//! pages are not in the repository. They are written for a release, into the directory in [`MAN_PAGES`].

mod examples;
mod help;
mod man;
mod markdown;
mod permissions;
mod stages;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Command;
use client::permission::PermissionTable;

/// The environment variable that makes [`Plugin::check`] write the pages.
pub const UPDATE: &str = "UPDATE_DOCS";
/// The environment variable with the directory that [`Plugin::check`] writes the man pages to.
pub const MAN_PAGES: &str = "MAN_PAGES";

/// A plugin, as its test describes it.
#[derive(Debug)]
pub struct Plugin {
    /// The command after `kubectl`.
    pub name: &'static str,
    /// Its command line.
    pub command: Command,
    /// The pages of its rotations, each with the text of the file with the stages: `crt-rotation` is `docs/crt-rotation.md`.
    pub rotations: &'static [(&'static str, &'static str)],
    /// The permissions of its commands.
    pub permissions: PermissionTable,
}

/// A page and its expected text.
struct Page {
    path: PathBuf,
    text: String,
}

impl Plugin {
    /// Compares the pages of the plugin with its definitions; with [`UPDATE`] set, writes them.
    ///
    /// # Errors
    /// If pages differ. The error names them and the command that writes them.
    pub fn check(&self) -> Result<()> {
        let root = root();
        let pages = self.pages(&root)?;
        let update = std::env::var_os(UPDATE).is_some();
        let mut stale = Vec::new();
        for Page { path, text } in pages {
            if fs::read_to_string(&path).is_ok_and(|there| there == text) {
                continue;
            }
            if update {
                write(&path, &text)?;
            } else {
                stale.push(path.strip_prefix(&root).unwrap_or(&path).display().to_string());
            }
        }
        if let Some(folder) = std::env::var_os(MAN_PAGES) {
            for (file, page) in man::pages(&self.command)? {
                write(&Path::new(&folder).join(file), &page)?;
            }
        }
        if stale.is_empty() {
            Ok(())
        } else {
            bail!("out of date: {}. Run `cargo xtask docs`", stale.join(", "))
        }
    }

    /// Checks that the help follows the rules of the project, by what the program prints.
    ///
    /// # Errors
    /// If rules are broken. The error lists them. `long`: the commands whose help may be longer than one screen.
    pub fn check_help(&self, program: &str, long: &[&str]) -> Result<()> {
        help::check(&self.command, program, long)
    }

    /// Checks that the commands in the help and in the documentation are not usage errors.
    ///
    /// # Errors
    /// If some are. The error lists them, and where they are.
    pub fn check_examples(&self) -> Result<()> {
        examples::check(self.name, &self.command, &root())
    }

    fn pages(&self, root: &Path) -> Result<Vec<Page>> {
        let reference = Page {
            path: root.join(format!("docs/reference/{}.md", self.name)),
            text: markdown::reference(&self.command),
        };
        let mut pages = vec![reference];
        for (page, source) in self.rotations {
            let page = root.join(format!("docs/{page}.md"));
            pages.push(between_markers(page, "stages", &stages::table(source)?)?);
        }
        permissions::is_complete(&self.command, &self.permissions)?;
        let permissions = between_markers(
            root.join(format!("docs/{}.md", self.name)),
            permissions::MARKER,
            &permissions::markdown(&self.permissions),
        )?;
        let manifests = Page {
            path: root.join(format!("docs/rbac/{}.yaml", self.name)),
            text: permissions::manifests(self.name, &self.permissions),
        };
        pages.extend([permissions, manifests]);
        Ok(pages)
    }
}

/// The page with this table between the markers of its name.
fn between_markers(path: PathBuf, name: &str, table: &str) -> Result<Page> {
    let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let text = replaced(&page, name, table).with_context(|| path.display().to_string())?;
    Ok(Page { path, text })
}

fn replaced(page: &str, name: &str, table: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let markers = || format!("no markers {} and {end}", begin.trim());
    let (before, rest) = page.split_once(&begin).with_context(markers)?;
    let (_, after) = rest.split_once(&end).with_context(markers)?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// The paragraphs of a help text: the examples, which are kept as they are, and prose.
fn paragraphs(text: &str) -> Vec<Paragraph> {
    let mut found: Vec<Paragraph> = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let lines: Vec<&str> = block.lines().collect();
        let is_code = |line: &&str| line.starts_with("  ");
        let (title, code) = match lines.split_first() {
            Some((title, code)) if title.ends_with(':') && !code.is_empty() && code.iter().all(is_code) => {
                (Some(*title), code)
            }
            _ if lines.iter().all(is_code) => (None, lines.as_slice()),
            _ => {
                found.push(Paragraph::Prose(block.trim().to_owned()));
                continue;
            }
        };
        found.extend(title.map(|title| Paragraph::Prose(title.to_owned())));
        let code: Vec<&str> = code.iter().map(|line| &line[2..]).collect();
        match (found.last_mut(), title) {
            (Some(Paragraph::Code(before)), None) => {
                *before += "\n\n";
                *before += &code.join("\n");
            }
            _ => found.push(Paragraph::Code(code.join("\n"))),
        }
    }
    found
}

/// A paragraph of a help text.
#[derive(Debug, PartialEq, Eq)]
enum Paragraph {
    /// Running text.
    Prose(String),
    /// Commands, without their indentation.
    Code(String),
}

/// The commands below a command, each followed by those below it.
fn subcommands(command: &Command) -> Vec<&Command> {
    let each = command.get_subcommands();
    each.flat_map(|command| std::iter::once(command).chain(subcommands(command)))
        .collect()
}

/// The words after those of the root with which a command is run. The root was built.
fn words<'c>(root: &Command, command: &'c Command) -> Vec<&'c str> {
    let name = |command: &'c Command| command.get_bin_name().unwrap_or_else(|| command.get_name());
    let before = root.get_bin_name().unwrap_or_else(|| root.get_name());
    name(command)
        .strip_prefix(before)
        .unwrap_or_default()
        .split_whitespace()
        .collect()
}

/// The flags, in the order of their definition, without `--help` and `--version`.
fn flags(command: &Command) -> impl Iterator<Item = &clap::Arg> {
    let own = |flag: &&clap::Arg| !matches!(flag.get_id().as_str(), "help" | "version");
    command.get_arguments().filter(|flag| !flag.is_positional()).filter(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let page = "# Title\n\n<!-- stages -->\nold\n<!-- /stages -->\n\nMore.\n";
        let expected = "# Title\n\n<!-- stages -->\nnew\n<!-- /stages -->\n\nMore.\n";
        assert_eq!(replaced(page, "stages", "new\n").unwrap(), expected);
        assert!(replaced("# Title\n", "stages", "new\n").is_err());
    }

    #[test]
    fn examples_are_distinguished_from_prose() {
        let text =
            "Examples:\n  # One\n  kubectl a\n\n  # Two\n  kubectl b\n\nIt can be resumed.\n\nExit codes: 0 done.";
        let code = "# One\nkubectl a\n\n# Two\nkubectl b".to_owned();
        assert_eq!(
            paragraphs(text),
            [
                Paragraph::Prose("Examples:".to_owned()),
                Paragraph::Code(code),
                Paragraph::Prose("It can be resumed.".to_owned()),
                Paragraph::Prose("Exit codes: 0 done.".to_owned()),
            ]
        );
    }
}
