//! The flags that `rotate` and `rollback` of every plugin have, and how their results are printed.

use std::time::Duration;

use crate::ExitCode;
use crate::app::DryRun;
use crate::output::{self, OutputFlags, OutputFormat};
use crate::ui::Ui;
use client::duration;
use client::error::Error;
use engine::controller::Controller;

use crate::rotation::job::Job;
use crate::rotation::outcome::{RotationResult, RotationResultList};
use crate::rotation::several::Parallelism;
use crate::rotation::target::Target;

/// The flags of both.
#[derive(clap::Args, Clone, Debug)]
pub struct RunFlags {
    /// Must be "none", "server", or "client". If client strategy, only print the plan, without changing anything. If server strategy, also submit each step that can be checked by itself as a server-side dry run
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value_t, value_name = "MODE")]
    pub dry_run: DryRun,

    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    pub yes: bool,

    /// Output format: json, yaml, name, jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

impl RunFlags {
    /// The flags of a document that these commands print.
    pub fn output_flags(&self) -> OutputFlags {
        OutputFlags {
            output: self.output.clone(),
            ..OutputFlags::default()
        }
    }
}

/// The flags of a command that rotates several targets.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct SeveralFlags {
    /// Maximum number of rotations at a time
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_parallel: u16,

    /// Delay each of several rotations by a random time up to this
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    pub jitter: Duration,
}

impl SeveralFlags {
    /// What they mean.
    pub fn parallelism(self, stop_on_failure: bool) -> Parallelism {
        Parallelism {
            max: self.max_parallel.into(),
            jitter: self.jitter,
            stop_on_failure,
        }
    }
}

/// Prints the result for each target as it ends, and the document at the end.
pub struct Results<'a> {
    ui: &'a Ui,
    flags: OutputFlags,
    format: OutputFormat,
    dry_run: DryRun,
    /// One target was named: its document is not a list.
    single: bool,
}

impl<'a> Results<'a> {
    /// By the flags of the command. `single`: one target was named.
    pub fn new(ui: &'a Ui, flags: &RunFlags, single: bool) -> Result<Self, Error> {
        let dry_run = flags.dry_run;
        let flags = flags.output_flags();
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

    /// Runs a job, and prints how it ended.
    pub async fn run_one<C: Controller>(&self, job: &Job<'_, C>) -> (RotationResult, Result<(), Error>) {
        let mut result = RotationResult::of(job.target);
        let ended = job.run(&mut result).await;
        self.print_one(job.target, &result, ended.is_ok());
        (result, ended)
    }

    /// One target has ended: the line that kubectl would print, and what else there is to know.
    pub fn print_one(&self, target: &Target, result: &RotationResult, succeeded: bool) {
        let object = &target.object;
        match (&self.format, self.dry_run) {
            (OutputFormat::Name, _) if succeeded => self.ui.out(object),
            (OutputFormat::Table, DryRun::None) if succeeded && result.outcome != "nothing-to-do" => {
                self.ui.out(format!("{object} {}", result.outcome.replace('-', " ")));
            }
            _ => {}
        }
        if ["rotated", "rescued", "set", "removed"].contains(&result.outcome)
            && let Some(last) = result.remarks.last()
        {
            self.ui.status(last);
        }
        if let (true, Some(message)) = (succeeded, &result.message) {
            self.ui.status(message);
        }
    }

    /// The document at the end. If it cannot be printed, the exit code is still that of the rotation.
    pub fn print(&self, results: &[RotationResult]) {
        let printed = match (&self.format, results) {
            (OutputFormat::Table | OutputFormat::Name, _) => Ok(()),
            (_, [only]) if self.single => output::print_value(self.ui, &self.flags, only),
            (_, all) => output::print_value(self.ui, &self.flags, &RotationResultList::from(all.to_vec())),
        };
        if let Err(error) = printed {
            self.ui.output_failed(error);
        }
    }
}

/// How a command ends whose only target has ended so. With `exit_code` (`--exit-code`), "nothing to do" has a code of
/// its own.
pub fn exit(ended: Result<(), Error>, nothing_to_do: bool, exit_code: bool) -> Result<ExitCode, Error> {
    ended?;
    Ok(if nothing_to_do && exit_code {
        ExitCode::NothingToDo
    } else {
        ExitCode::Done
    })
}
