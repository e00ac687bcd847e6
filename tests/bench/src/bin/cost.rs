//! `cost COMMAND…`: runs a command without its output, and prints its cost as JSON.
//!
//! It is a separate program, because Linux reports the usage of ended children only as a sum, and because the peak
//! memory of a child starts with that of its parent. This program is small and starts a single child.

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
