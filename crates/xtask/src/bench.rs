//! `cargo xtask bench`: what the plugin costs, beside what kubectl costs for the like.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cargo::{PROGRAMS, built, cargo, has_target, host, root};
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
    // As it is shipped: static where that target is installed, else for this machine.
    let target = [format!("{}-unknown-linux-musl", std::env::consts::ARCH)]
        .into_iter()
        .find(|target| has_target(target));
    let mut plugin = cargo(["build", "--profile", "dist", "-p", "kubectl-crt"]);
    plugin.args(target.iter().flat_map(|target| ["--target", target]));
    let named = target.clone().map_or_else(host, Ok)?;
    steps.run(&format!("build the plugin as it is shipped, for {named}"), &mut plugin)?;
    steps.run("build the bench", &mut cargo(PROGRAMS))?;
    let kubectl = built("debug", "bench")?.with_file_name("plain-kubectl");
    steps.run("build a plain kubectl to compare with", &mut go_build(&kubectl))?;

    let profile = target
        .as_ref()
        .map_or_else(|| "dist".to_owned(), |target| format!("{target}/dist"));
    let mut measure = Command::new(built("debug", "private-network")?);
    measure
        .arg(built("debug", "bench")?)
        .arg("--plugin")
        .arg(built(&profile, "kubectl-crt")?)
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
