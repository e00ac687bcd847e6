//! A fake of Rancher's server side, for tests only: real controllers on a real Kubernetes API server, an HTTPS server
//! with Rancher's endpoints, and an agent for each real pod of a downstream cluster's agent Deployment. It shares no
//! code with the product that it tests. File names in comments are those of github.com/rancher/rancher at the named
//! version.

mod address;
mod agent;
mod api;
mod api_token;
mod apply;
mod clusters;
mod conditions;
mod config;
mod control;
mod crds;
mod deploy;
mod filter;
mod identity;
mod index;
mod joining;
mod log;
mod manifest;
mod norman;
mod planner;
mod probes;
mod proxy;
mod registration;
mod rewrite;
mod server;
mod sessions;
mod store;
mod token;
mod ttl;
mod upgrade;
mod world;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::io::AsyncReadExt;

use crate::api::Api;
use crate::config::Config;
use crate::world::{Parts, World};

#[derive(Parser)]
#[command(version, about = "Stands in for Rancher's server side in tests")]
struct Arguments {
    /// The JSON configuration file
    #[arg(long)]
    config: PathBuf,
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("FAKE_RANCHER_LOG")
                .unwrap_or_else(|_| "fake_rancher=warn".into()),
        )
        .init();
    let config = Config::read(&Arguments::parse().config)?;
    // Fails only if a provider is already installed, which is then used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = run(config) => result,
            result = asked_to_end() => result,
        }
    });
    // The thread that reads stdin may be blocked forever, so it is not awaited.
    runtime.shutdown_background();
    result
}

async fn run(config: Config) -> Result<()> {
    let listener = server::Listener::bind(&config).await?;
    let url = listener.url()?;
    let cacerts = std::fs::read_to_string(&config.ca).with_context(|| format!("read {}", config.ca.display()))?;
    let management = connect(&config.management).await?;
    let downstream = connect(&config.downstream).await?;
    crds::install(&management, config.storage)
        .await
        .context("install Rancher's kinds")?;
    let default_only = config.server_version_in_default_only;
    crds::configure(&management, config.storage, &url, &cacerts, default_only)
        .await
        .context("write Rancher's settings")?;
    let shared = identity::Shared::read(&downstream)
        .await
        .context("read the identity of the downstream cluster")?;
    let log = log::Log::create(&config.log)?;
    let world = World::start(Parts {
        config,
        url: url.clone(),
        served_ca: cacerts,
        management,
        downstream,
        shared,
        log,
    })
    .await;
    tokio::spawn(conditions::keep_conditions(world.clone()));
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::json!({"url": url}))
        .and_then(|()| stdout.flush())
        .context("say where it listens")?;
    drop(stdout);
    listener.serve(world).await;
    Ok(())
}

async fn connect(kubeconfig: &Path) -> Result<Api> {
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Api {
        client: kube::Client::try_from(config)?,
    })
}

/// Returns on SIGTERM, on Ctrl-C, and when the parent process has ended and closed the pipe.
async fn asked_to_end() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let closed = async {
        let mut stdin = tokio::io::stdin();
        let mut buffer = [0; 64];
        while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = closed => {}
    }
    Ok(())
}
