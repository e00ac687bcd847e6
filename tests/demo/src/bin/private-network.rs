//! `private-network COMMAND…`: builds the test control plane if need be (visibly), and becomes COMMAND in a network of
//! its own that has nothing but a loopback interface, so that no port of the test bed is open to anybody else.
//!
//! Without a COMMAND it builds everything that the tests run, Argo CD and krew too: inside, nothing can be downloaded.
//!
//! `cargo xtask` starts the demo and the bench by it, and it is cargo's runner for the tests on the control plane.

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
