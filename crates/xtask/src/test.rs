//! `cargo xtask test`: everything that must hold before a change is taken in. CI runs this and nothing else.
//!
//! All of it is built by the same selection, `--workspace` with every target: another one would switch other features
//! of shared dependencies on, and compile most of the tree a second time.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{built, cargo, host, relative, root};
use crate::step::Steps;

/// The targets with tests on the control plane. They are named, since selecting their packages would be another selection.
const TEST_CLUSTER: [&str; 2] = ["control_plane", "fake_rancher"];
/// Stories wait more than they work.
const TEST_THREADS: &str = "--test-threads=4";
/// So many targets side by side, each on a control plane of its own (850 MB).
const TARGETS_AT_ONCE: usize = 2;
/// The longest come first, so that none is alone at the end.
const END_TO_END: [&str; 6] = [
    "crt",
    "bootstrap_token",
    "argocd_rancher",
    "argocd_rancher_live",
    "engine",
    "krew",
];

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
    let inner = ["test", "--workspace", "--lib", "--bins"];
    steps.run("unit tests", &mut cargo(inner))?;
    let outer = [
        "test",
        "--workspace",
        "--exclude",
        "e2e",
        "--exclude",
        "test-cluster",
        "--test",
        "*",
    ];
    steps.run("tests from the outside", &mut cargo(outer))?;
    steps.run(
        "examples in the documentation",
        &mut cargo(["test", "--workspace", "--doc"]),
    )
}

fn on_the_control_plane(steps: &Steps, test: &Test) -> Result<()> {
    let private_network = built("debug", "private-network")?;
    // Builds the control plane, Argo CD and krew, if need be, and says so.
    steps.run(
        "control plane, Argo CD and krew",
        Command::new(&private_network).current_dir(root()),
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
        steps.run(
            "tests of the test bed",
            &mut in_private_network(&targets(&TEST_CLUSTER)),
        )?;
    }
    if test.names.is_empty() {
        let alone = |name| in_private_network(&["--test", name, "--", TEST_THREADS]);
        let all = END_TO_END.map(|name| (format!("end-to-end tests: {name}"), alone(name)));
        return steps.run_beside(TARGETS_AT_ONCE, all.into());
    }
    // Few: they are watched, and the first failure is the one that was looked for.
    let mut stories: Vec<&str> = targets(&END_TO_END);
    stories.extend(["--", TEST_THREADS]);
    stories.extend(test.names.iter().map(String::as_str));
    steps.run("end-to-end tests", &mut in_private_network(&stories))
}

fn targets(names: &[&'static str]) -> Vec<&'static str> {
    names.iter().flat_map(|name| ["--test", name]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn no_test_on_the_control_plane_is_forgotten() {
        for (directory, named) in [("cluster", &TEST_CLUSTER[..]), ("e2e", &END_TO_END[..])] {
            let dir = root().join("tests").join(directory).join("tests");
            let there = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            let is_target =
                |path: &Path| path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").exists();
            let name = |path: std::path::PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
            let there: BTreeSet<String> = there.filter(|path| is_target(path)).map(name).collect();
            let named: BTreeSet<String> = named.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(there, named, "the test targets of tests/{directory}");
        }
    }
}
