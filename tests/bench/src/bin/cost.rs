//! `cost COMMAND…`: runs a command with its output thrown away, and prints as JSON what it has cost.
//!
//! A program of its own because of two habits of Linux: the usage of ended children is only known as one sum, and the
//! peak memory of a child begins with that of the process that started it. So this one starts a single child, and is
//! small.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

fn main() -> Result<()> {
    let argv: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (program, args) = argv.split_first().context("name the command")?;
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = Instant::now();
    let status = command.status().with_context(|| format!("run {}", program.display()))?;
    let wall = began.elapsed().as_micros();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = (usage.user_time() + usage.system_time()).num_microseconds();
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    writeln!(
        std::io::stdout(),
        r#"{{"wall_us":{wall},"cpu_us":{cpu},"peak_kib":{},"code":{}}}"#,
        usage.max_rss(),
        code.unwrap_or(-1)
    )?;
    Ok(())
}
