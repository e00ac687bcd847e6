//! `cargo xtask test`: everything that must hold before a change is taken in. CI runs this and nothing else.
//!
//! All of it is built by the same selection, `--workspace` with every target: another one would switch other features
//! of shared dependencies on, and compile most of the tree a second time.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{built, cargo, host, relative, root};
use crate::step::Steps;

/// Check the format, lint, and run all tests, those on the real control plane last
#[derive(clap::Args)]
pub(crate) struct Test {
    /// Only the end-to-end tests whose names contain one of these, and nothing else
    names: Vec<String>,

    /// Only one half
    #[arg(long, value_enum, conflicts_with = "names")]
    only: Option<Half>,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Half {
    /// Format, lints, and the tests that need nothing but this repository
    Unit,
    /// The tests on a real control plane
    E2e,
}

/// Runs it.
pub(crate) fn run(test: &Test) -> Result<()> {
    let steps = Steps::begin();
    let half = if test.names.is_empty() {
        test.only
    } else {
        Some(Half::E2e)
    };
    if half != Some(Half::E2e) {
        check(&steps)?;
    }
    // The programs that the tests run are among the targets.
    let build = ["build", "--workspace", "--all-targets"];
    steps.run("build", &mut cargo(build))?;
    if half != Some(Half::E2e) {
        unit(&steps)?;
    }
    if half != Some(Half::Unit) {
        on_the_control_plane(&steps, test)?;
    }
    Ok(())
}

fn check(steps: &Steps) -> Result<()> {
    steps.run("format", &mut cargo(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.run("lints", &mut cargo(clippy))
}

fn unit(steps: &Steps) -> Result<()> {
    let tests = [
        "test",
        "--workspace",
        "--exclude",
        "e2e",
        "--exclude",
        "testbed",
        "--all-targets",
    ];
    steps.run("unit tests", &mut cargo(tests))?;
    steps.run(
        "examples in the documentation",
        &mut cargo(["test", "--workspace", "--doc"]),
    )
}

fn on_the_control_plane(steps: &Steps, test: &Test) -> Result<()> {
    let private_network = built("debug", "private-network")?;
    // Builds the control plane, if need be, and says so.
    steps.run(
        "control plane",
        Command::new(&private_network).arg("true").current_dir(root()),
    )?;
    let mut vet = Command::new("go");
    vet.args(["-C", "tests/controlplane", "vet", "./..."])
        .envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local")])
        .current_dir(root());
    steps.run("lints of the control plane", &mut vet)?;

    let runner = format!(
        "CARGO_TARGET_{}_RUNNER",
        host()?.to_uppercase().replace(['-', '.'], "_")
    );
    let in_private_network = |args: &[&str]| {
        let mut tests = cargo(["test", "--workspace"]);
        tests.args(args).env(&runner, relative(&private_network));
        tests
    };
    if test.names.is_empty() {
        let tests = ["--test", "bed", "--test", "standin"];
        steps.run("tests of the test bed", &mut in_private_network(&tests))?;
    }
    let mut stories = vec!["--test", "stories", "--"];
    stories.extend(test.names.iter().map(String::as_str));
    steps.run("end-to-end tests", &mut in_private_network(&stories))
}
