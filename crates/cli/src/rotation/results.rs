//! The flags that `rotate` and `rollback` of every plugin have, and how their results are printed.

use client::error::Error;

use crate::ExitCode;
use crate::app::DryRun;
use crate::output::{self, OutputFlags, OutputFormat};
use crate::rotation::outcome::{RotationResult, RotationResultList};
use crate::rotation::subject::Subject;
use crate::ui::Ui;

/// What is typed after each of them.
#[derive(clap::Args, Clone, Debug)]
pub struct RunFlags {
    /// Print the plan and change nothing; with "server" the servers check what can be checked alone
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value_t, value_name = "MODE")]
    pub dry_run: DryRun,

    /// Do not ask before the first change
    #[arg(short = 'y', long)]
    pub yes: bool,

    /// Output format: json, yaml, name, jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

/// Prints the result of each subject as it ends, and the document at the end.
pub struct Results<'a> {
    ui: &'a Ui,
    flags: OutputFlags,
    format: OutputFormat,
    dry_run: DryRun,
    /// One subject was named: its document stands alone.
    single: bool,
}

impl<'a> Results<'a> {
    /// By the flags of the command. `single`: one subject was named.
    pub fn new(ui: &'a Ui, flags: &RunFlags, single: bool) -> Result<Self, Error> {
        let dry_run = flags.dry_run;
        let flags = OutputFlags {
            output: flags.output.clone(),
            ..OutputFlags::default()
        };
        let format = flags.format()?;
        if matches!(format, OutputFormat::Wide) {
            return Err(Error::usage(
                "the result is printed as text, json, yaml, name, jsonpath or custom-columns",
            ));
        }
        Ok(Self {
            ui,
            flags,
            format,
            dry_run,
            single,
        })
    }

    /// Whether the plan of a dry run is what stdout is for.
    pub fn plan_is_data(&self) -> bool {
        self.dry_run != DryRun::None && matches!(self.format, OutputFormat::Table)
    }

    /// One subject has ended: the line that kubectl would print, and what is to be known besides.
    pub fn tell(&self, subject: &Subject, result: &RotationResult, well: bool) -> Result<(), Error> {
        let object = &subject.object;
        match (&self.format, self.dry_run) {
            (OutputFormat::Name, _) if well => self.ui.out(object)?,
            (OutputFormat::Table, DryRun::None) if well && result.outcome != "nothing-to-do" => {
                self.ui.out(format!("{object} {}", result.outcome))?;
            }
            _ => {}
        }
        if result.outcome == "rotated"
            && let Some(last) = result.remarks.last()
        {
            self.ui.status(last);
        }
        if let (true, Some(message)) = (well, &result.message) {
            self.ui.status(message);
        }
        Ok(())
    }

    /// The document at the end.
    pub fn print(&self, results: &[RotationResult]) -> Result<(), Error> {
        match (&self.format, results) {
            (OutputFormat::Table | OutputFormat::Name, _) => Ok(()),
            (_, [only]) if self.single => output::print_value(self.ui, &self.flags, only),
            (_, all) => output::print_value(self.ui, &self.flags, &RotationResultList::from(all.to_vec())),
        }
    }
}

/// How a command ends whose only subject has ended so. With `exit_code` (`--exit-code`), "nothing to do" has a code of
/// its own.
pub fn exit(ended: Result<(), Error>, nothing_to_do: bool, exit_code: bool) -> Result<ExitCode, Error> {
    ended?;
    Ok(if nothing_to_do && exit_code {
        ExitCode::NothingToDo
    } else {
        ExitCode::Done
    })
}
