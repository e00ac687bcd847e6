//! Help as kubectl has it: a command shows its own flags and examples, and `options` lists the flags of all commands.

use std::fmt::Write as _;
use std::io;

use clap::builder::PossibleValue;
use clap::{Arg, Command};

/// A command with more flags than this lists them by heading.
const ONE_LIST: usize = 15;

/// The command that lists the flags of all commands.
pub(super) const OPTIONS: &str = "options";

/// It, in kubectl's words.
pub(super) fn options_command() -> Command {
    Command::new(OPTIONS).about("Print the list of flags inherited by all commands")
}

/// Prints the flags of all commands.
pub(super) fn print_options(root: &Command) -> io::Result<()> {
    Command::new(OPTIONS)
        .color(root.get_color())
        .args(root.get_arguments().filter(|flag| flag.is_global_set()))
        .disable_help_flag(true)
        .help_template("The following options can be passed to any command:\n\n{all-args}")
        .print_help()
}

/// The command line whose help leaves out the flags of all commands.
pub(super) fn concise(root: Command) -> Command {
    let name = root.get_bin_name().unwrap_or_default().to_owned();
    let root = root.mut_args(|flag| if flag.is_global_set() { flag.hide(true) } else { flag });
    let root = root.mut_subcommands(|command| concise_command(command, &name));
    let more = format!("Use \"{name} <command> --help\" for more information about a given command.\n");
    with_last_lines(root, &(more + &pointer(&name)))
}

/// kubectl's own sentence.
fn pointer(root: &str) -> String {
    format!("Use \"{root} {OPTIONS}\" for a list of global command-line options (applies to all commands).")
}

fn concise_command(command: Command, root: &str) -> Command {
    let command = command.mut_subcommands(|command| concise_command(command, root));
    let values: Vec<String> = command.get_arguments().filter_map(explained_values).collect();
    let flags = command.get_arguments().filter(|flag| !flag.is_positional()).count();
    // One list of flags. The meaning of their values is below it, to keep the list short.
    let command = command.mut_args(|mut flag| {
        let is_explained = flag.get_possible_values().iter().any(has_help);
        if flags <= ONE_LIST {
            flag = flag.help_heading(None::<&str>);
        }
        if is_explained {
            flag.hide_possible_values(true)
        } else {
            flag
        }
    });
    let lines = command.get_after_help().map(ToString::to_string);
    let lines: Vec<String> = values.into_iter().chain(lines).collect();
    let command = if lines.is_empty() {
        command
    } else {
        command.after_help(lines.join("\n\n"))
    };
    with_last_lines(command, &pointer(root))
}

/// The command with one more paragraph at the end of its help.
pub(super) fn with_last_lines(command: Command, lines: &str) -> Command {
    let before = command.get_after_help().map(|help| format!("{help}\n\n"));
    command.after_help(before.unwrap_or_default() + lines)
}

/// What each value of a flag means, unless the flag's own help names them all, as kubectl's does for `--dry-run`.
fn explained_values(flag: &Arg) -> Option<String> {
    let mut values = flag.get_possible_values();
    values.retain(|value| !value.is_hide_set());
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let is_named = |value: &PossibleValue| help.contains(&format!("\"{}\"", value.get_name()));
    if !values.iter().any(has_help) || values.iter().all(is_named) {
        return None;
    }
    let width = values.iter().map(|value| value.get_name().len()).max()?;
    let mut lines = format!("Values of --{}:", flag.get_long()?);
    for value in values {
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(lines, "\n  {:width$}  {help}", value.get_name());
    }
    Some(lines)
}

fn has_help(value: &PossibleValue) -> bool {
    value.get_help().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{DryRun, GlobalFlags};

    /// Rotate tokens
    #[derive(clap::Parser)]
    #[command(name = "kubectl-demo", bin_name = "kubectl demo", subcommand_required = true)]
    struct Demo {
        #[command(flatten)]
        global: GlobalFlags,
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(clap::Subcommand)]
    enum Verb {
        /// Rotate a token
        #[command(after_help = "Examples:\n  # One\n  kubectl demo rotate a\n\nIt can be resumed.")]
        Rotate {
            /// Which one
            name: String,
            /// Must be "none", "server", or "client". If client strategy, only print the plan
            #[arg(long, value_enum, default_value_t)]
            dry_run: DryRun,
            /// Override a check
            #[arg(long, value_enum)]
            force: Option<Check>,
            /// Output format
            #[arg(short, long, help_heading = "Output options")]
            output: Option<String>,
        },
        /// Do nothing
        Nothing,
        /// Manage servers
        #[command(subcommand)]
        Server(ServerVerb),
    }

    #[derive(clap::Subcommand)]
    enum ServerVerb {
        /// Restart a server
        #[command(after_help = "Examples:\n  # One\n  kubectl demo server restart")]
        Restart {
            /// Override a check
            #[arg(long, value_enum)]
            force: Option<Check>,
            /// Output format
            #[arg(short, long, help_heading = "Output options")]
            output: Option<String>,
        },
    }

    #[derive(clap::ValueEnum, Clone)]
    enum Check {
        /// take the lock from a process that still renews it
        Lock,
        /// rotate an object that another owner writes
        Owner,
    }

    fn help(command: &str) -> String {
        let root = <Demo as clap::CommandFactory>::command().subcommand(options_command());
        let words = ["kubectl-demo"]
            .into_iter()
            .chain(command.split_whitespace())
            .chain(["--help"]);
        let shown = concise(root.term_width(100)).try_get_matches_from(words);
        shown.unwrap_err().to_string()
    }

    #[test]
    fn help_of_a_command_shows_its_own_flags_and_points_to_the_others() {
        insta::assert_snapshot!(help("rotate"), @r#"
        Rotate a token

        Usage: kubectl demo rotate [OPTIONS] <NAME>

        Arguments:
          <NAME>  Which one

        Options:
              --dry-run <DRY_RUN>  Must be "none", "server", or "client". If client strategy, only print the
                                   plan [default: none]
              --force <FORCE>      Override a check
          -o, --output <OUTPUT>    Output format
          -h, --help               Print help

        Values of --force:
          lock   take the lock from a process that still renews it
          owner  rotate an object that another owner writes

        Examples:
          # One
          kubectl demo rotate a

        It can be resumed.

        Use "kubectl demo options" for a list of global command-line options (applies to all commands).
        "#);
        insta::assert_snapshot!(help("nothing"), @r#"
        Do nothing

        Usage: kubectl demo nothing

        Options:
          -h, --help  Print help

        Use "kubectl demo options" for a list of global command-line options (applies to all commands).
        "#);
    }

    #[test]
    fn help_of_a_nested_command_is_like_that_of_the_others() {
        insta::assert_snapshot!(help("server restart"), @r#"
        Restart a server

        Usage: kubectl demo server restart [OPTIONS]

        Options:
              --force <FORCE>    Override a check
          -o, --output <OUTPUT>  Output format
          -h, --help             Print help

        Values of --force:
          lock   take the lock from a process that still renews it
          owner  rotate an object that another owner writes

        Examples:
          # One
          kubectl demo server restart

        Use "kubectl demo options" for a list of global command-line options (applies to all commands).
        "#);
    }

    /// A user looks for a flag there.
    #[test]
    fn a_long_list_of_flags_has_headings() {
        let flags = |count: usize| {
            let flag = |at: usize| {
                let name: &str = format!("flag-{at}").leak();
                Arg::new(name)
                    .long(name)
                    .help_heading((at % 2 == 1).then_some("Odd options"))
            };
            let command = Command::new("long").args((0..count).map(flag));
            let root = Command::new("demo").bin_name("demo").subcommand(command);
            let shown = concise(root).try_get_matches_from(["demo", "long", "--help"]);
            shown.unwrap_err().to_string()
        };
        assert!(!flags(ONE_LIST).contains("Odd options:"));
        let long = flags(ONE_LIST + 1);
        let (before, odd) = long.split_once("Odd options:").unwrap();
        assert!(before.contains("--flag-2") && odd.contains("--flag-3"), "{long}");
    }

    #[test]
    fn help_of_the_root_shows_commands() {
        insta::assert_snapshot!(help(""), @r#"
        Rotate tokens

        Usage: kubectl demo <COMMAND>

        Commands:
          rotate   Rotate a token
          nothing  Do nothing
          server   Manage servers
          options  Print the list of flags inherited by all commands
          help     Print this message or the help of the given subcommand(s)

        Options:
          -h, --help  Print help

        Use "kubectl demo <command> --help" for more information about a given command.
        Use "kubectl demo options" for a list of global command-line options (applies to all commands).
        "#);
    }
}
