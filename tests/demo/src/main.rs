//! The demo: a management cluster, a downstream cluster, Rancher's stand-in and three registered clusters, and the jobs
//! of the plugins, done by the real kubectl before the user's eyes. `cargo xtask demo` builds what it needs and runs it.

mod argocd_rancher;
mod bootstrap_token;
mod crt;
mod environment;
mod show;
mod signals;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use test_cluster::TokenStorage;

use crate::environment::DemoEnvironment;
use crate::show::{Presenter, Stopped};
use crate::signals::Signals;

/// See each plugin do its job
#[derive(Parser)]
struct Demo {
    /// Which kind of Rancher
    #[arg(long, value_enum, default_value = "secret")]
    storage: StorageArgument,

    /// The only plugin to show
    #[arg(long, value_enum)]
    only: Option<Job>,

    /// Leave me in a shell instead of showing the tour
    #[arg(long)]
    shell: bool,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum StorageArgument {
    Status,
    Secret,
}

/// What a plugin is for.
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

/// Whatever happens, what was started is ended before this returns.
async fn run(demo: &Demo) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let environment = tokio::select! {
        environment = DemoEnvironment::build(demo.storage.into()) => environment?,
        // What has been started so far ends with this process.
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

/// The jobs, one after another.
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
        "\nThat took {:.0} s. `cargo xtask demo --shell` leaves you in a shell to try it yourself.",
        began.elapsed().as_secs_f32()
    );
    Ok(ExitCode::SUCCESS)
}
