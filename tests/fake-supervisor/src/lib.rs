//! A fake of the K3s and RKE2 supervisor, for tests only: servers as far as their tokens are concerned. Each server is a
//! process with files and configuration in a directory that stands for its node. All share a datastore, and each has its
//! own copy of it. Nodes and snapshot objects are in the real API server of the test cluster. It shares no code with the
//! product that it tests. Behavior was seen on v1.36.3+k3s1 (and v1.33.3+k3s1 for the older line) unless a
//! comment says something else; file names in comments are those of github.com/k3s-io/k3s.
//!
//! ```text
//! fake-supervisor manage --dir DIR          the whole cluster of DIR/cluster.json, as systemd runs it
//! fake-supervisor serve --dir DIR …         one server; started by `manage`
//! fake-supervisor node-exec --dir DIR ADDRESS -- COMMAND…     instead of `ssh root@ADDRESS COMMAND…`
//! fake-supervisor systemctl --dir DIR --node NODE -- …        `systemctl` on a node; likewise `systemd-run`
//! ```

mod agent;
mod auth;
mod client;
mod config;
mod control;
mod datastore;
mod encryption;
mod exec;
mod faults;
mod files;
mod http_server;
mod journal;
mod kubelet;
mod kubernetes;
mod manager;
mod node;
mod passwd;
mod pki;
mod put;
mod serve;
mod settings;
mod snapshots;
mod start;
mod state;
mod systemctl;
mod token;
mod unit;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "A fake of K3s and RKE2 servers for tests")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the servers of a cluster and the control interface
    Manage {
        /// The directory with cluster.json
        #[arg(long)]
        dir: PathBuf,
    },
    /// Run one server
    Serve {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        node: String,
        /// The arguments of the unit
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run a command on a node
    NodeExec {
        #[arg(long)]
        dir: PathBuf,
        /// The address or name of a node, also as user@address
        address: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Control the unit of a node
    Systemctl {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        node: String,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run a command on a node later
    SystemdRun {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        node: String,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

/// Runs the program.
pub fn run() -> Result<ExitCode> {
    // Fails only if a provider is already installed, which is then used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    let code = match Arguments::parse().command {
        Command::Manage { dir } => runtime.block_on(manager::run(&dir)).map(|()| ExitCode::SUCCESS),
        Command::Serve { dir, node, arguments } => runtime.block_on(serve::run(&dir, &node, &arguments)),
        Command::NodeExec { dir, address, command } => exec::node_exec(&dir, &address, &command),
        Command::Systemctl { dir, node, arguments } => {
            runtime.block_on(exec::ask(&dir, &node, "systemctl", &arguments))
        }
        Command::SystemdRun { dir, node, arguments } => {
            runtime.block_on(exec::ask(&dir, &node, "systemd-run", &arguments))
        }
    };
    // The thread that reads stdin may be blocked forever, so it is not awaited.
    runtime.shutdown_background();
    code
}

/// 32 hex digits.
fn random_hex() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Returns true on SIGTERM and on Ctrl-C, and false when the parent process has ended and closed the pipe.
async fn asked_to_end() -> Result<bool> {
    use tokio::io::AsyncReadExt as _;
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let closed = async {
        let mut stdin = tokio::io::stdin();
        let mut buffer = [0; 64];
        while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    Ok(tokio::select! {
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
        () = closed => false,
    })
}
