//! `private-network COMMAND…`: builds the test control plane if necessary, with visible progress, and executes COMMAND
//! in its own network with only a loopback interface, so that no port of the test clusters is reachable from outside.
//!
//! Without a COMMAND, it builds all programs that the tests need, including Argo CD and krew: inside the network,
//! nothing can be downloaded.
//!
//! `cargo xtask` starts the demo, the benchmark and the end-to-end tests through it.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use test_cluster::Programs;

fn main() -> Result<()> {
    if std::env::args_os().len() < 2 {
        return test_cluster::build_all();
    }
    let programs = Programs::ensure()?;
    let error = Command::new(programs.controlplane())
        .arg("private-network")
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).with_context(|| format!("run {}", programs.controlplane().display()))
}
