//! `cargo xtask bench`: what the plugin costs, beside what kubectl costs for the like.

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
    steps.run("build the plugin as it is shipped", &mut plugin)?;
    steps.run("build the bench", &mut cargo(PROGRAMS))?;

    let profile = target
        .as_ref()
        .map_or_else(|| "dist".to_owned(), |target| format!("{target}/dist"));
    let mut measure = Command::new(built("debug", "private-network")?);
    measure
        .arg(built("debug", "bench")?)
        .arg("--plugin")
        .arg(built(&profile, "kubectl-crt")?)
        .args(["--target", &target.map_or_else(host, Ok)?])
        .args(["--tokens", &bench.tokens.to_string()])
        .args(["--pairs", &bench.pairs.to_string()])
        .args(&bench.what)
        .current_dir(root());
    steps.become_one("bench", &mut measure)
}
