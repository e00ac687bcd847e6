//! `cargo xtask`: the tasks of a developer, each as one command.

mod bench;
mod cargo;
mod demo;
mod dependencies;
mod dist;
mod docs;
mod parallel;
#[cfg(test)]
mod rules;
mod step;
mod test;
mod test_binary;
mod voice;

use std::process::ExitCode;

use clap::Parser as _;

use crate::step::Failed;

/// Developer tasks
#[derive(clap::Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    Test(test::Test),
    Demo(demo::Demo),
    Bench(bench::Bench),
    Dist(dist::Dist),
    /// Write the pages that are generated from the source: docs/reference, and the step table of each rotation
    Docs,
    /// List the words in docs, help, comments and names that the field does not use
    Words,
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse() {
        Xtask::Test(test) => test::run(&test),
        Xtask::Demo(demo) => demo::run(&demo),
        Xtask::Bench(bench) => bench::run(&bench),
        Xtask::Dist(dist) => dist::run(&dist),
        Xtask::Docs => docs::run(),
        Xtask::Words => voice::check(false),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            // The exit code is that of the failed step.
            ExitCode::from(error.downcast_ref::<Failed>().map_or(1, Failed::code))
        }
    }
}
