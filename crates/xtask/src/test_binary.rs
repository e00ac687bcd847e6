//! The test executables of the workspace, as cargo reports them while it builds them.
//!
//! They run without cargo: `cargo test -p PACKAGE` would select other features of shared dependencies than the whole
//! workspace does, and compile most of them again. It would also hold the lock of the target directory meanwhile.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cargo::{cargo, relative, root};
use crate::step::Steps;

/// The end-to-end tests, and those of the test cluster itself.
const ON_THE_CONTROL_PLANE: [&str; 2] = ["tests/e2e", "tests/cluster"];

/// A test executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestBinary {
    /// The directory of its package, below the root of the repository.
    pub(crate) package: PathBuf,
    /// The name of the target.
    pub(crate) target: String,
    /// An integration test, not the unit tests of a library or a program.
    pub(crate) is_integration: bool,
    executable: PathBuf,
}

impl TestBinary {
    /// Builds everything, programs included, and returns the test executables.
    pub(crate) fn build_all(steps: &Steps) -> Result<Vec<Self>> {
        let mut build = cargo([
            "build",
            "--workspace",
            "--all-targets",
            "--message-format=json-render-diagnostics",
        ]);
        steps.announce("build", &build);
        let began = Instant::now();
        let mut child = build.stdout(Stdio::piped()).spawn().context("run cargo")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut binaries = Vec::new();
        for line in BufReader::new(stdout).lines() {
            binaries.extend(Self::from_message(&line?)?);
        }
        let status = child.wait()?;
        steps.record("build", began.elapsed());
        steps.check("build", status)?;
        binaries.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
        Ok(binaries)
    }

    /// The test executable that a line of cargo's output reports, if it reports one.
    fn from_message(line: &str) -> Result<Option<Self>> {
        let message: Value = serde_json::from_str(line).with_context(|| format!("parse cargo's output: {line}"))?;
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return Ok(None);
        }
        let (Some(executable), Some(manifest)) = (message["executable"].as_str(), message["manifest_path"].as_str())
        else {
            return Ok(None);
        };
        let package = Path::new(manifest).parent().unwrap_or(Path::new(""));
        let kinds = message["target"]["kind"].as_array();
        Ok(Some(Self {
            package: relative(package).to_owned(),
            target: message["target"]["name"].as_str().unwrap_or_default().to_owned(),
            is_integration: kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "test")),
            executable: executable.into(),
        }))
    }

    /// Whether it needs the real control plane.
    pub(crate) fn is_on_the_control_plane(&self) -> bool {
        self.is_integration
            && ON_THE_CONTROL_PLANE
                .iter()
                .any(|package| self.package == Path::new(package))
    }

    /// Whether it is the exploration of a model.
    pub(crate) fn is_exploration(&self) -> bool {
        self.is_integration && self.target == "exploration"
    }

    /// The command that runs its tests, in the environment that `cargo test` would give it.
    pub(crate) fn command(&self) -> Command {
        self.in_environment(Command::new(&self.executable))
    }

    /// The same by way of another program, which takes the command as its arguments.
    pub(crate) fn command_through(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg(&self.executable);
        self.in_environment(command)
    }

    fn in_environment(&self, mut command: Command) -> Command {
        let package = root().join(&self.package);
        command
            .env("CARGO_MANIFEST_DIR", &package)
            .env("CARGO", std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            // That of an asynchronous test names forty frames of its runtime, and hides the message.
            .env("RUST_BACKTRACE", "0")
            .current_dir(package);
        command
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_test_executables_are_read_from_the_messages() {
        let manifest = root().join("plugins/crt/Cargo.toml");
        let message = |kind: &str, test: bool, executable: Option<&str>| {
            json!({
                "reason": "compiler-artifact", "manifest_path": manifest, "executable": executable,
                "target": {"kind": [kind], "name": "exploration"}, "profile": {"test": test},
            })
            .to_string()
        };
        let binary = |line: &str| TestBinary::from_message(line).unwrap();
        assert_eq!(binary(&message("bin", false, Some("/target/kubectl-crt"))), None);
        assert_eq!(binary(&message("lib", true, None)), None);
        assert_eq!(binary(r#"{"reason":"build-finished","success":true}"#), None);
        let exploration = binary(&message("test", true, Some("/target/exploration-1"))).unwrap();
        assert_eq!(exploration.package, Path::new("plugins/crt"));
        assert!(exploration.is_exploration() && !exploration.is_on_the_control_plane());
        assert!(
            !binary(&message("lib", true, Some("/target/crt-1")))
                .unwrap()
                .is_integration
        );
    }
}
