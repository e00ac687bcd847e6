//! `cargo xtask test`: everything that must pass before a change is accepted. CI runs this and nothing else.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cargo::{built, cargo, root};
use crate::dependencies;
use crate::step::Steps;
use crate::test_binary::TestBinary;
use crate::voice;

/// End-to-end tests wait more than they compute, and those of the server token most of all: each resumed run waits for writes in flight.
fn test_threads(binary: &TestBinary) -> &'static str {
    match binary.target.as_str() {
        "server_token" => "--test-threads=8",
        "crt" => "--test-threads=6",
        _ => "--test-threads=4",
    }
}

/// So many test executables side by side, each with its own control plane (850 MB).
const AT_ONCE: usize = 2;
/// The longest end-to-end tests start first, so that none runs alone at the end. Others start before these.
const LONGEST_FIRST: [&str; 7] = [
    "crt",
    "server_token",
    "bootstrap_token",
    "argocd_rancher",
    "argocd_rancher_live",
    "engine",
    "krew",
];

/// Check the format, lint, and run all tests
#[derive(clap::Args)]
pub(crate) struct Test {
    /// Run only the end-to-end tests whose names contain one of these
    names: Vec<String>,

    /// Run only one part of the tests
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// kubectl crt: unit tests, exploration, end-to-end tests
    Crt,
    /// kubectl bootstrap-token: unit tests, exploration, end-to-end tests
    BootstrapToken,
    /// kubectl argocd-rancher: unit tests, exploration, end-to-end tests
    ArgocdRancher,
    /// The rotation engine: unit tests, exploration, end-to-end tests
    Engine,
    /// Format, lints, and the tests that need no control plane
    Unit,
    /// The tests on the real control plane
    E2e,
}

impl Part {
    fn contains(self, binary: &TestBinary) -> bool {
        let packages: &[&str] = match self {
            Self::Crt => &["plugins/crt"],
            Self::BootstrapToken => &["plugins/bootstrap-token"],
            Self::ArgocdRancher => &["plugins/argocd-rancher"],
            Self::Engine => &["crates/engine", "crates/model"],
            Self::Unit => return !binary.is_on_the_control_plane(),
            Self::E2e => return binary.is_on_the_control_plane(),
        };
        let end_to_end: &[&str] = match self {
            Self::Crt => &["crt"],
            Self::BootstrapToken => &["bootstrap_token"],
            Self::ArgocdRancher => &["argocd_rancher", "argocd_rancher_live"],
            _ => &["engine"],
        };
        if binary.is_on_the_control_plane() {
            binary.package == Path::new("tests/e2e") && end_to_end.contains(&binary.target.as_str())
        } else {
            packages.iter().any(|package| binary.package == Path::new(package))
        }
    }
}

/// Runs the tests, and prints the time of each part and the messages of the tests that failed.
pub(crate) fn run(test: &Test) -> Result<()> {
    let steps = Steps::begin();
    let outcome = run_parts(&steps, test);
    steps.print_summary();
    outcome
}

fn run_parts(steps: &Steps, test: &Test) -> Result<()> {
    let is_filtered = !test.names.is_empty();
    let has_lints = !is_filtered && matches!(test.only, None | Some(Part::Unit));
    if has_lints {
        steps.run("format", &mut cargo(["fmt", "--all", "--check"]))?;
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        steps.run("lints", &mut cargo(clippy))?;
        dependencies::check(steps)?;
        voice::check(true)?;
    }
    let mut binaries = TestBinary::build_all(steps)?;
    binaries.retain(|binary| test.only.is_none_or(|part| part.contains(binary)));
    let (on_the_control_plane, others): (Vec<_>, Vec<_>) =
        binaries.into_iter().partition(TestBinary::is_on_the_control_plane);
    if is_filtered {
        let private_network = prepare_control_plane(steps)?;
        // They are few and watched, and the first failure is the one that was looked for.
        return on_the_control_plane.iter().try_for_each(|binary| {
            let mut command = binary.command_through(&private_network);
            command.arg(test_threads(binary)).args(&test.names);
            steps.run(&title(binary), &mut command)
        });
    }
    let (explorations, others): (Vec<_>, Vec<_>) = others.into_iter().partition(TestBinary::is_exploration);
    steps.run_in_turn("unit and integration tests", others.iter().map(TestBinary::command))?;
    let mut parallel: Vec<(String, Command)> = Vec::new();
    if !on_the_control_plane.is_empty() {
        let private_network = prepare_control_plane(steps)?;
        parallel.extend(longest_first(on_the_control_plane).iter().map(|binary| {
            let mut command = binary.command_through(&private_network);
            command.arg(test_threads(binary));
            (title(binary), command)
        }));
    }
    parallel.extend(explorations.iter().map(|binary| (title(binary), binary.command())));
    if has_lints {
        let examples = cargo(["test", "--workspace", "--doc"]);
        parallel.push(("examples in the documentation".to_owned(), examples));
    }
    steps.run_parallel(AT_ONCE, parallel)
}

/// Builds the control plane, Argo CD and krew unless they are cached. Returns the program that runs tests in a private
/// network.
fn prepare_control_plane(steps: &Steps) -> Result<std::path::PathBuf> {
    let private_network = built("debug", "private-network")?;
    steps.run(
        "control plane, Argo CD and krew",
        Command::new(&private_network).current_dir(root()),
    )?;
    let mut vet = Command::new("go");
    vet.args(["-C", "tests/controlplane", "vet", "./..."])
        .envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local")])
        .current_dir(root());
    steps.run("lints of the control plane", &mut vet)?;
    Ok(private_network)
}

fn longest_first(mut binaries: Vec<TestBinary>) -> Vec<TestBinary> {
    binaries.sort_by_key(|binary| LONGEST_FIRST.iter().position(|target| *target == binary.target));
    binaries
}

/// What a test executable is called in the table of durations.
fn title(binary: &TestBinary) -> String {
    let package = binary.package.file_name().unwrap_or_default().display();
    if binary.is_exploration() {
        format!("exploration: {package}")
    } else if binary.package == Path::new("tests/e2e") {
        format!("end-to-end tests: {}", binary.target)
    } else {
        format!("tests of {package}: {}", binary.target)
    }
}
