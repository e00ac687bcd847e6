//! `cargo xtask demo`: what the plugins do, before your eyes, on a real control plane, with nothing to prepare.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{PROGRAMS, built, cargo, root};
use crate::step::Steps;

/// See each plugin do its job, on a real control plane started for it
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// Which kind of Rancher: tokens in Secrets (2.13.8, 2.14.4, 2.15.0 and later), or plain in their objects (before)
    #[arg(long, value_parser = ["secret", "plain"], default_value = "secret")]
    era: String,

    /// The only plugin to show
    #[arg(long, value_parser = ["crt", "bootstrap-token", "argocd-rancher"])]
    only: Option<String>,

    /// Leave me in a shell where all of them work, instead of showing the tour
    #[arg(long, conflicts_with = "only")]
    shell: bool,
}

/// Runs it.
pub(crate) fn run(demo: &Demo) -> Result<()> {
    let steps = Steps::begin();
    steps.run("build", &mut cargo(PROGRAMS))?;
    let mut show = Command::new(built("debug", "private-network")?);
    show.arg(built("debug", "demo")?)
        .args(["--era", &demo.era])
        .current_dir(root());
    if let Some(only) = &demo.only {
        show.args(["--only", only]);
    }
    if demo.shell {
        show.arg("--shell");
    }
    steps.become_one("demo", &mut show)
}
