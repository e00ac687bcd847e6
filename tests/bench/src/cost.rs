//! Measures a command, or a pair of commands.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::figures::median;

/// A command to measure.
#[derive(Clone)]
pub(crate) struct MeasuredCommand {
    /// Its name in the table.
    pub(crate) name: String,
    argv: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    code: i32,
}

impl MeasuredCommand {
    /// A program with arguments. It must succeed.
    pub(crate) fn new(name: impl Into<String>, program: &Path, args: &[&str]) -> Self {
        let argv = std::iter::once(program.into()).chain(args.iter().map(OsString::from));
        Self {
            name: name.into(),
            argv: argv.collect(),
            env: Vec::new(),
            code: 0,
        }
    }

    /// Sets the expected exit code.
    pub(crate) fn exits(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Runs it once without measuring, and returns its standard output. A failure shows its messages.
    pub(crate) fn output(&self) -> Result<String> {
        let mut command = Command::new(&self.argv[0]);
        let out = command.args(&self.argv[1..]).envs(self.env.iter().cloned()).output()?;
        let stderr = String::from_utf8_lossy(&out.stderr);
        ensure!(
            out.status.code() == Some(self.code),
            "{}: {}\n{stderr}",
            self.name,
            out.status
        );
        Ok(String::from_utf8(out.stdout)?)
    }

    /// Runs it once and measures it, for commands that cannot run twice.
    pub(crate) fn once(&self) -> Result<Cost> {
        Ok(Cost::of(&[self.measure()?]))
    }

    fn measure(&self) -> Result<Sample> {
        let mut command = Command::new(test_cluster::built("cost")?);
        let out = command.args(&self.argv).envs(self.env.iter().cloned()).output()?;
        let sample: Sample = serde_json::from_slice(&out.stdout).with_context(|| format!("measure {}", self.name))?;
        ensure!(sample.code == self.code, "{} exited with {}", self.name, sample.code);
        Ok(sample)
    }
}

#[derive(Clone, Copy, Deserialize)]
struct Sample {
    wall_us: u64,
    cpu_us: u64,
    peak_kib: u64,
    code: i32,
}

/// The medians of a command.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// The duration.
    pub(crate) wall_ms: f64,
    /// CPU time in user and system mode of all threads.
    pub(crate) cpu_ms: f64,
    /// Largest resident set.
    pub(crate) peak_mib: f64,
}

impl Cost {
    fn of(samples: &[Sample]) -> Self {
        let of = |figure: fn(&Sample) -> u64| median(samples.iter().map(figure));
        Self {
            wall_ms: of(|sample| sample.wall_us) / 1e3,
            cpu_ms: of(|sample| sample.cpu_us) / 1e3,
            peak_mib: of(|sample| sample.peak_kib) / 1024.0,
        }
    }
}

/// Measures two commands alternately, so that the load of the machine affects both. The first run of each is not
/// counted.
pub(crate) fn pairs(a: &MeasuredCommand, b: &MeasuredCommand, count: u32) -> Result<(Cost, Cost)> {
    for command in [a, b] {
        command.measure()?;
    }
    let mut samples = (Vec::new(), Vec::new());
    for _ in 0..count {
        samples.0.push(a.measure()?);
        samples.1.push(b.measure()?);
    }
    Ok((Cost::of(&samples.0), Cost::of(&samples.1)))
}
