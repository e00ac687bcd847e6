//! A home directory with kubectl, krew and git on its PATH and nothing else.

use std::fmt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use test_cluster::{KREW, Kubeconfig, Programs};

/// Built by the first test that needs it. All tests see the same failure.
fn krew() -> Result<&'static Path> {
    static KREW_DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = KREW_DIR.get_or_init(|| KREW.ensure().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// The home directory. krew's own directory is in it, and the programs that krew links are on the PATH.
pub(crate) struct KrewHome {
    dir: TempDir,
}

impl KrewHome {
    /// With krew installed, and no plugin.
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin)?;
        Programs::ensure()?.link_kubectl(&bin)?;
        // Not in krew's own directory: with a link but no receipt there, krew v0.5.0 wants to migrate from v0.2.
        symlink(krew()?.join("krew"), bin.join("kubectl-krew"))?;
        symlink(
            krew()?.join("validate-krew-manifest"),
            bin.join("validate-krew-manifest"),
        )?;
        symlink(on_path("git")?, bin.join("git"))?;
        Ok(Self { dir })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a program to the PATH, like `command > file; chmod +x file`.
    pub(crate) fn save_program(&self, name: &str, text: &str) -> Result<()> {
        let file = self.path().join("bin").join(name);
        std::fs::write(&file, text)?;
        Ok(std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?)
    }

    /// Writes the default kubeconfig.
    pub(crate) fn save_kubeconfig(&self, kubeconfig: &Kubeconfig) -> Result<()> {
        let dir = self.path().join(".kube");
        std::fs::create_dir_all(&dir)?;
        kubeconfig.write(dir.join("config")).map(drop)
    }

    /// `kubectl krew ARGS`
    pub(crate) fn krew(&self, args: &[&str]) -> Result<CommandResult> {
        self.run("kubectl", &[&["krew"], args].concat())
    }

    /// `kubectl ARGS`
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<CommandResult> {
        self.run("kubectl", args)
    }

    /// Any of the programs on the PATH.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Result<CommandResult> {
        let bin = self.path().join("bin");
        let krew = self.path().join("krew");
        let out = Command::new(bin.join(program))
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env("KREW_ROOT", &krew)
            .env("KREW_NO_UPGRADE_CHECK", "1")
            .env("PATH", std::env::join_paths([bin, krew.join("bin")])?)
            .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "Ada")))
            .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "ada@example.com")))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {program}"))?;
        Ok(CommandResult {
            line: format!("{program} {}", args.join(" ")),
            code: out.status.code(),
            stdout: String::from_utf8(out.stdout)?,
            stderr: String::from_utf8(out.stderr)?,
        })
    }
}

fn on_path(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|dir| dir.join(program));
    found
        .find(|file| file.is_file())
        .with_context(|| format!("{program} is not on the PATH; krew needs it for an index"))
}

/// The output and the exit code of a command.
#[derive(Debug)]
pub(crate) struct CommandResult {
    line: String,
    code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl CommandResult {
    /// Fails with the whole output unless the command succeeded.
    pub(crate) fn success(self) -> Result<Self> {
        ensure!(self.code == Some(0), "expected success of\n{self}");
        Ok(self)
    }

    /// Fails with the whole output unless the command failed with this message.
    pub(crate) fn failure(self, because: &str) -> Result<()> {
        ensure!(self.code.is_some_and(|code| code != 0), "expected a failure of\n{self}");
        ensure!(self.stderr.contains(because), "expected {because:?} of\n{self}");
        Ok(())
    }
}

impl fmt::Display for CommandResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            code,
            stdout,
            stderr,
        } = self;
        write!(f, "$ {line}\n{stdout}----- stderr -----\n{stderr}----- {code:?} -----")
    }
}
