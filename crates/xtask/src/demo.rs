//! `cargo xtask demo`: what the plugins do, before your eyes, on a real control plane, with nothing to prepare.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{PROGRAMS, built, cargo, root};
use crate::step::Steps;

/// See each plugin do its job, on a real control plane started for it
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// Where Rancher stores registration tokens: in a Secret (2.13.8, 2.14.4, 2.15.0 and later) or in the status (earlier)
    #[arg(long, value_enum, default_value_t = Storage::Secret)]
    storage: Storage,

    /// The only plugin to show
    #[arg(long, value_parser = ["crt", "bootstrap-token", "argocd-rancher"])]
    only: Option<String>,

    /// Leave me in a shell where all of them work, instead of showing the tour
    #[arg(long, conflicts_with = "only")]
    shell: bool,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum Storage {
    Secret,
    #[value(alias = "plain")]
    Status,
}

impl Storage {
    fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Status => "status",
        }
    }
}

/// Runs the demo.
pub(crate) fn run(demo: &Demo) -> Result<()> {
    let steps = Steps::begin();
    steps.run("build", &mut cargo(PROGRAMS))?;
    let mut show = Command::new(built("debug", "private-network")?);
    show.arg(built("debug", "demo")?)
        .args(["--storage", demo.storage.word()])
        .current_dir(root());
    if let Some(only) = &demo.only {
        show.args(["--only", only]);
    }
    if demo.shell {
        show.arg("--shell");
    }
    steps.become_one("demo", &mut show)
}
