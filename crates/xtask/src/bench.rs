//! `cargo xtask bench`: what the plugin costs, beside what kubectl costs for the like.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cargo::{PROGRAMS, built, cargo, root};
use crate::dist::Shipped;
use crate::step::Steps;

/// Measure start, listing and rotation against kubectl on a real control plane
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// What to measure; everything if nothing is named
    #[arg(value_parser = ["size", "start", "list", "rotation"])]
    what: Vec<String>,

    /// How many registration tokens there are for the listing, ten to a namespace
    #[arg(long, default_value_t = 10_000)]
    tokens: u32,

    /// How many pairs of runs each comparison takes
    #[arg(long, default_value_t = 10)]
    pairs: u32,
}

/// Runs it.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    let steps = Steps::begin();
    let shipped = Shipped::here()?;
    let title = format!("build the plugin as it is shipped, for {}", shipped.target);
    steps.run(&title, &mut shipped.build("kubectl-crt"))?;
    steps.run("build the bench", &mut cargo(PROGRAMS))?;
    let kubectl = built("debug", "bench")?.with_file_name("plain-kubectl");
    steps.run("build a plain kubectl to compare with", &mut go_build(&kubectl))?;

    let mut measure = Command::new(built("debug", "private-network")?);
    measure
        .arg(built("debug", "bench")?)
        .arg("--plugin")
        .arg(built(&shipped.profile(), "kubectl-crt")?)
        .arg("--kubectl")
        .arg(kubectl)
        .args(["--tokens", &bench.tokens.to_string()])
        .args(["--pairs", &bench.pairs.to_string()])
        .args(&bench.what)
        .current_dir(root());
    steps.become_one("bench", &mut measure)
}

/// kubectl alone, of the version that the control plane has: the multi-call binary would start more slowly than one does.
fn go_build(kubectl: &Path) -> Command {
    let mut build = Command::new("go");
    build
        .args(["-C", "tests/controlplane", "build", "-ldflags", "-s -w", "-o"])
        .arg(kubectl)
        .arg("k8s.io/kubernetes/cmd/kubectl")
        .envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local")])
        .current_dir(root());
    build
}
