//! Completion of a kubectl plugin, in Cobra's protocol.
//!
//! kubectl runs `kubectl_complete-<name>` with the words after the plugin's name, the last one possibly empty. The answer
//! is one candidate a line, `value<TAB>description`, and a last line `:<directive>`. The same program answers when its
//! own name begins so, or when its first word is `__complete` (what shims written for Go plugins call).
//! (spf13/cobra v1.9, `completions.go`; kubernetes/kubectl v0.33, `pkg/cmd/plugin_completion.go`.)

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode as ProcessExit;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, FromArgMatches};
use clap_complete::engine;
use client::connection::{Environment, user_agent};
use client::sanitize;

use super::{Context, GlobalFlags, Plugin};
use crate::ExitCode;
use crate::output::Printable;
use crate::table::Column;
use crate::ui::{Terminal, Ui, UiFlags};

/// The timeout of a completion.
const PATIENCE: Duration = Duration::from_secs(2);

/// Cobra's directives: no file names; and no blank after the word either.
const NO_FILES: u8 = 4;
const NO_FILES_NO_SPACE: u8 = 4 | 2;

/// A completion candidate.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The word.
    pub value: String,
    /// What it is, one line; may be empty.
    pub help: String,
    /// What `list` shows about it, where [`CompletionRequest::with_rows`] asks for it.
    pub(super) row: Option<Cells>,
}

/// A row of a table.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    pub(super) columns: &'static [Column],
    pub(super) cells: Vec<String>,
}

impl Candidate {
    /// A word and what it is.
    pub fn new(value: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            help: help.into(),
            row: None,
        }
    }

    /// With the row that `list` prints.
    #[must_use]
    pub fn with_row<T: Printable>(mut self, row: &T) -> Self {
        self.row = Some(Cells {
            columns: T::COLUMNS,
            cells: row.cells().into_iter().map(Into::into).collect(),
        });
        self
    }
}

/// What is to be completed, for [`Plugin::candidates`].
#[derive(Clone, Debug)]
pub struct CompletionRequest {
    /// The verbs typed so far, outermost first: `["rotate"]`.
    pub verbs: Vec<String>,
    /// The flag whose value is being typed (`context`, without dashes); `None` for a plain word.
    pub flag: Option<String>,
    /// Plain words typed before this one, the verbs not counted.
    pub words: Vec<String>,
    /// The beginning of the word under the cursor.
    pub current: String,
    /// The flags typed so far, as far as they make sense: `--context` and the namespace are here.
    pub global: GlobalFlags,
    /// A list to choose from is shown, with the row that `list` prints beside each name.
    pub with_rows: bool,
    /// Everything that was typed, as far as clap could make sense of it.
    typed: ArgMatches,
}

impl CompletionRequest {
    /// A group of flags of the verb, as far as they were typed; nothing is required of them here.
    pub fn flags<F: FromArgMatches + Default>(&self) -> F {
        F::from_arg_matches(&self.typed).unwrap_or_default()
    }
}

/// The words to complete, if this call is for completion at all.
pub(super) fn asked(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let (program, rest) = arguments.split_first()?;
    let name = Path::new(program).file_name()?.to_string_lossy();
    if name.starts_with("kubectl_complete-") {
        return Some(rest.to_vec());
    }
    let (first, words) = rest.split_first()?;
    (first == "__complete" || first == "__completeNoDesc").then(|| words.to_vec())
}

/// Prints the candidates. Errors are not printed: they would end up in the user's command line.
pub(super) fn answer<P: Plugin>(words: Vec<OsString>) -> ProcessExit {
    let mut words: Vec<String> = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if words.is_empty() {
        words.push(String::new());
    }
    std::panic::set_hook(Box::new(|_| {}));
    let command = super::command::<P>();
    let mut found = from_command(command.clone(), &words);
    found.extend(from_plugin::<P>(command, &words));
    let _ = std::io::stdout().write_all(lines(found).as_bytes());
    ExitCode::Done.into()
}

fn lines(mut found: Vec<Candidate>) -> String {
    let mut seen = std::collections::HashSet::new();
    found.retain(|candidate| seen.insert(candidate.value.clone()));
    let directive = match found.as_slice() {
        [only] if only.value.ends_with(['/', '=']) => NO_FILES_NO_SPACE,
        _ => NO_FILES,
    };
    let mut text = String::new();
    for Candidate { value, help, .. } in found {
        let help = help.lines().next().unwrap_or_default();
        text.push_str(&value);
        if !help.is_empty() {
            text.push('\t');
            text.push_str(&sanitize::line(help));
        }
        text.push('\n');
    }
    format!("{text}:{directive}\n")
}

/// The candidates from clap: commands, flags, fixed values. Three things are adapted to kubectl's shell scripts.
fn from_command(mut command: clap::Command, words: &[String]) -> Vec<Candidate> {
    let current = words.last().map(String::as_str).unwrap_or_default();
    let arguments = std::iter::once("kubectl".into())
        .chain(words.iter().map(OsString::from))
        .collect();
    let here = std::env::current_dir().ok();
    let found = engine::complete(&mut command, arguments, words.len(), here.as_deref()).unwrap_or_default();
    let found = found
        .into_iter()
        .filter(|candidate| !candidate.is_hide_set())
        .filter_map(|candidate| {
            let value = candidate.get_value().to_str()?;
            // clap offers flags where kubectl offers words.
            if value.starts_with('-') && !current.starts_with('-') {
                return None;
            }
            // For `--output=j` the scripts expect `json`, not `--output=json`.
            let value = match (current.starts_with('-') && current.contains('='), value.split_once('=')) {
                (true, Some((_, value))) => value,
                _ => value,
            };
            Some(Candidate::new(
                value,
                candidate.get_help().map(ToString::to_string).unwrap_or_default(),
            ))
        });
    let mut found: Vec<Candidate> = found.collect();
    if current == "-" {
        // clap lists only the short forms here.
        let mut long = words.to_vec();
        long.pop();
        long.push("--".into());
        found.extend(from_command(command, &long));
    }
    found
}

/// The candidates from the kubeconfig and the server.
fn from_plugin<P: Plugin>(command: clap::Command, words: &[String]) -> Vec<Candidate> {
    let Some(request) = request(command, words) else {
        return Vec::new();
    };
    // stdin is not a terminal here, so no credential plugin that needs one can be started from a TAB.
    let quiet = UiFlags {
        quiet: true,
        ..UiFlags::default()
    };
    let (ui, _) = Ui::buffered(Terminal::default(), quiet, "");
    let agent = user_agent(&format!("kubectl-{}", P::NAME), env!("CARGO_PKG_VERSION"));
    let environment = Environment::of_process(Arc::new(ui.clone()), agent).without_plugin_messages();
    let flag = request.flag.as_deref().unwrap_or_default();
    let current = request.current.clone();
    let mut found = match request.global.connection.options().names_for(flag, &environment) {
        Some(names) => names.into_iter().map(|name| Candidate::new(name, "")).collect(),
        None => ask::<P>(request, Context { ui, environment }),
    };
    found.retain(|candidate| candidate.value.starts_with(&current) && !sanitize::has_shell_syntax(&candidate.value));
    found.sort_by(|a, b| (&a.value, &a.help).cmp(&(&b.value, &b.help)));
    found
}

fn ask<P: Plugin>(request: CompletionRequest, context: Context) -> Vec<Candidate> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Vec::new();
    };
    let answer = async { tokio::time::timeout(PATIENCE, P::candidates(request, context)).await };
    let found = runtime.block_on(answer);
    runtime.shutdown_background();
    found.ok().and_then(Result::ok).unwrap_or_default()
}

/// Reads again, with errors ignored, what has been typed: the completers of clap see only the current word.
fn request(command: clap::Command, words: &[String]) -> Option<CompletionRequest> {
    let (current, before) = words.split_last()?;
    let (flag, current) = match current.strip_prefix("--").and_then(|flag| flag.split_once('=')) {
        Some((flag, value)) => (Some(flag.to_owned()), value.to_owned()),
        None if current.starts_with('-') => return None,
        None => (
            before.last().and_then(|last| takes_value(&command, before, last)),
            current.clone(),
        ),
    };
    let typed = std::iter::once("kubectl".to_owned()).chain(before.iter().cloned());
    let matches = lenient(command.clone()).try_get_matches_from(typed).ok()?;
    let (verbs, words, deepest) = verbs_and_words(command, &matches);
    let global = GlobalFlags::from_arg_matches(deepest).unwrap_or_default();
    Some(CompletionRequest {
        verbs,
        flag,
        words,
        current,
        global,
        with_rows: false,
        typed: deepest.clone(),
    })
}

/// The request for the target that `words` lack, and the argument that it is.
pub(super) fn request_for_target(
    mut command: clap::Command,
    words: &[String],
) -> Option<(CompletionRequest, clap::Arg)> {
    let request = request(command.clone(), words)?;
    command.build();
    let mut at = &command;
    for verb in &request.verbs {
        at = at.find_subcommand(verb)?;
    }
    let target = at.get_positionals().next()?.clone();
    let request = CompletionRequest {
        with_rows: true,
        ..request
    };
    (request.flag.is_none() && request.words.is_empty()).then_some((request, target))
}

/// The same command line, of which nothing is required.
fn lenient(command: clap::Command) -> clap::Command {
    let command = command
        .ignore_errors(true)
        .disable_help_flag(true)
        .disable_version_flag(true);
    let command = command.mut_args(|argument| argument.required(false));
    command.mut_subcommands(lenient)
}

fn verbs_and_words(mut command: clap::Command, matches: &ArgMatches) -> (Vec<String>, Vec<String>, &ArgMatches) {
    command.build();
    let (mut verbs, mut at, mut deepest) = (Vec::new(), &command, matches);
    while let Some((verb, inner)) = deepest.subcommand() {
        verbs.push(verb.to_owned());
        deepest = inner;
        at = at.find_subcommand(verb).unwrap_or(at);
    }
    let typed = |id: &str| deepest.try_get_raw(id).ok().flatten();
    let words = at
        .get_positionals()
        .filter_map(|argument| typed(argument.get_id().as_str()))
        .flatten();
    let words = words.map(|word| word.to_string_lossy().into_owned()).collect();
    (verbs, words, deepest)
}

/// The value-taking flag that `word` is, among those of the verb that has been typed.
fn takes_value(command: &clap::Command, before: &[String], word: &str) -> Option<String> {
    let mut at = command.clone();
    at.build();
    let mut at = &at;
    for word in before {
        at = at.find_subcommand(word).unwrap_or(at);
    }
    let flag = at.get_arguments().find(|argument| match word.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => word
            .strip_prefix('-')
            .is_some_and(|short| argument.get_short().map(String::from).as_deref() == Some(short)),
    })?;
    let always = flag.get_action().takes_values() && !flag.is_require_equals_set();
    always.then(|| flag.get_long().map(str::to_owned)).flatten()
}

/// The command that prints the script.
pub(super) const COMMAND: &str = "completion";

/// It, for a plugin of this name.
pub(super) fn command(plugin: &str) -> clap::Command {
    let file = file_name(plugin);
    let examples = format!(
        "Examples:\n  # Install the script on the PATH, where kubectl 1.26 and later finds it\n  kubectl {plugin} {COMMAND} > \
         ~/.local/bin/{file}\n  chmod +x ~/.local/bin/{file}\n\nIt needs kubectl's own completion in the shell: see `kubectl \
         completion --help`."
    );
    clap::Command::new(COMMAND)
        .about("Print the kubectl completion script")
        .after_help(examples)
}

fn file_name(plugin: &str) -> String {
    format!("kubectl_complete-{}", plugin.replace('-', "_"))
}

/// Prints the script that a user puts on the `PATH`, where the program itself cannot be linked.
pub(super) fn print_script<P: Plugin>() -> std::io::Result<()> {
    std::io::stdout().write_all(script(P::NAME)?.as_bytes())
}

fn script(plugin: &str) -> std::io::Result<String> {
    let program = std::env::current_exe()?;
    let link = std::env::args_os().next().and_then(|name| link_to(&program, &name));
    let quoted = link.unwrap_or(program).to_string_lossy().replace('\'', r"'\''");
    let file = file_name(plugin);
    Ok(format!(
        "#!/bin/sh\n# Save this as {file}, executable, in a directory of your PATH.\nexec '{quoted}' __complete \"$@\"\n"
    ))
}

/// The path by which this program was called, if it leads to it. krew points its link at the directory of another version
/// when it upgrades, and deletes the one that the program itself is in (v0.5.0, internal/installation/upgrade.go).
///
/// kubectl calls a plugin by the whole path that it has found (1.36, pkg/cmd/plugin.go), a shell by what was typed.
fn link_to(program: &Path, called: &OsStr) -> Option<PathBuf> {
    let called = Path::new(called);
    let candidates: Vec<PathBuf> = if called.components().nth(1).is_some() {
        vec![called.to_owned()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(called)).collect()
    };
    let program = program.canonicalize().ok()?;
    let leads_here = |path: &PathBuf| path.canonicalize().is_ok_and(|file| file == program);
    std::path::absolute(candidates.into_iter().find(leads_here)?).ok()
}

#[cfg(test)]
mod tests {
    use client::error::Error;

    use super::*;

    #[derive(clap::Parser)]
    #[command(name = "kubectl-demo", version)]
    struct Demo {
        #[command(flatten)]
        global: GlobalFlags,
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(clap::Subcommand)]
    enum Verb {
        /// Rotates
        Rotate {
            clusters: Vec<String>,
            #[arg(long)]
            storage: String,
        },
        /// Lists
        List {
            #[command(flatten)]
            output: crate::output::OutputFlags,
        },
    }

    impl Plugin for Demo {
        const NAME: &'static str = "demo";

        fn global(&self) -> &GlobalFlags {
            let _ = &self.verb;
            &self.global
        }

        async fn run(self, _: Context) -> Result<ExitCode, Error> {
            Ok(ExitCode::Done)
        }

        async fn candidates(request: CompletionRequest, _: Context) -> Result<Vec<Candidate>, Error> {
            let context = request.global.connection.context.unwrap_or_default();
            Ok(match (request.flag.as_deref(), request.verbs.as_slice()) {
                (None, [verb]) if verb == "rotate" && !request.words.contains(&"c-1".to_owned()) => {
                    vec![Candidate::new("c-1", format!("in {context}"))]
                }
                (Some("storage"), _) => vec![Candidate::new("secret", "")],
                _ => Vec::new(),
            })
        }
    }

    fn complete(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let command = super::super::command::<Demo>();
        let mut found = from_command(command.clone(), &words);
        found.extend(from_plugin::<Demo>(command, &words));
        lines(found)
    }

    #[test]
    fn a_completion_call_has_the_shims_name_or_first_word() {
        let arguments = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(
            asked(&arguments(&["/x/kubectl_complete-crt", "a", ""])),
            Some(arguments(&["a", ""]))
        );
        assert_eq!(
            asked(&arguments(&["/x/kubectl-crt", "__complete", "a"])),
            Some(arguments(&["a"]))
        );
        assert_eq!(asked(&arguments(&["/x/kubectl-crt", "a"])), None);
    }

    #[test]
    fn verbs_are_offered_without_the_flags() {
        assert_eq!(
            complete(&[""]),
            "rotate\tRotates\nlist\tLists\ncompletion\tPrint the kubectl completion script\noptions\tPrint the list of flags inherited by all commands\nhelp\tPrint this message or the help of the given subcommand(s)\n:4\n"
        );
        assert_eq!(complete(&["ro"]), "rotate\tRotates\n:4\n");
    }

    #[test]
    fn a_dash_offers_the_long_flags_too() {
        let shown = complete(&["list", "-"]);
        assert!(shown.contains("--namespace\t") && shown.contains("-n\t"), "{shown}");
    }

    #[test]
    fn a_value_after_an_equals_sign_comes_without_its_flag() {
        assert_eq!(
            complete(&["list", "--output=js"]),
            "json\njsonpath=\njsonpath-file=\n:4\n"
        );
        assert_eq!(complete(&["list", "--output=jsonpath-"]), "jsonpath-file=\n:6\n");
        assert_eq!(complete(&["list", "-o", "ya"]), "yaml\n:4\n");
    }

    #[test]
    fn candidates_depend_on_the_words_typed_before() {
        assert_eq!(complete(&["--context", "prod", "rotate", "c"]), "c-1\tin prod\n:4\n");
        assert_eq!(complete(&["rotate", "--context=prod", ""]), "c-1\tin prod\n:4\n");
        assert_eq!(complete(&["rotate", "c-1", ""]), ":4\n");
        assert_eq!(complete(&["rotate", "--storage", ""]), "secret\n:4\n");
        assert_eq!(complete(&["rotate", "--storage=s"]), "secret\n:4\n");
    }

    #[test]
    fn the_shim_calls_this_program_under_the_name_that_kubectl_looks_for() {
        let text = script("demo").unwrap();
        assert!(
            text.starts_with("#!/bin/sh\n# Save this as kubectl_complete-demo,"),
            "{text}"
        );
        assert!(text.ends_with("' __complete \"$@\"\n"), "{text}");
    }
    #[test]
    fn the_shim_goes_by_the_link_that_an_upgrade_keeps() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["store", "other"] {
            std::fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink(at("store"), at("link")).unwrap();
        let link = |called: PathBuf| link_to(&at("store"), called.as_os_str());
        assert_eq!(link(at("link")), Some(at("link")));
        assert_eq!(link(at("other")), None, "another program");
        assert_eq!(link(at("nowhere")), None);
        assert_eq!(link("not-on-the-path".into()), None);
    }
}
