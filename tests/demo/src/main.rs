//! The demo: a management cluster, a downstream cluster, the fake Rancher and three registered clusters. It runs the
//! plugins through the real kubectl. `cargo xtask demo` builds it and runs it.

mod argocd_rancher;
mod bootstrap_token;
mod crt;
mod environment;
mod presenter;
mod signals;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use test_cluster::TokenStorage;

use crate::environment::DemoEnvironment;
use crate::presenter::{Presenter, Stopped};
use crate::signals::Signals;

/// Run each plugin on a real control plane
#[derive(Parser)]
struct Demo {
    /// Where Rancher stores registration tokens
    #[arg(long, value_enum, default_value = "secret")]
    storage: StorageArgument,

    /// Show only this plugin
    #[arg(long, value_enum)]
    only: Option<Job>,

    /// Start a shell instead of the tour
    #[arg(long)]
    shell: bool,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum StorageArgument {
    Status,
    Secret,
}

/// A plugin.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Job {
    Crt,
    BootstrapToken,
    ArgocdRancher,
}

impl From<StorageArgument> for TokenStorage {
    fn from(word: StorageArgument) -> Self {
        match word {
            StorageArgument::Status => Self::Status,
            StorageArgument::Secret => Self::Secret,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(run(&Demo::parse())).await {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// All started processes have ended when this returns.
async fn run(demo: &Demo) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let environment = tokio::select! {
        environment = DemoEnvironment::build(demo.storage.into()) => environment?,
        // The processes that have started so far end with this one.
        stop = signals.next() => return Ok(stop.code()),
    };
    let mut show = Presenter::new(&environment, &mut signals);
    let outcome = if demo.shell {
        show.shell().await
    } else {
        tour(&mut show, demo.only).await
    };
    environment.end().await;
    match outcome {
        Err(error) => match error.downcast_ref::<Stopped>() {
            Some(stopped) => Ok(stopped.code()),
            None => Err(error),
        },
        ended => ended,
    }
}

/// The demos of the plugins, one after another.
async fn tour(show: &mut Presenter<'_>, only: Option<Job>) -> Result<ExitCode> {
    let began = Instant::now();
    let wanted = |job| only.is_none_or(|only| only == job);
    if wanted(Job::Crt) {
        crt::play(show).await?;
    }
    if wanted(Job::BootstrapToken) {
        bootstrap_token::play(show).await?;
    }
    if wanted(Job::ArgocdRancher) {
        argocd_rancher::play(show).await?;
    }
    anstream::println!(
        "\nThat took {:.0} s. Run `cargo xtask demo --shell` for a shell in which you can try it yourself.",
        began.elapsed().as_secs_f32()
    );
    Ok(ExitCode::SUCCESS)
}
