//! The commands of the demo. Each is printed, and run by the real kubectl.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anstyle::Style;
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::environment::DemoEnvironment;
use crate::signals::{Signals, Stop};

/// How long an interrupted command may take to release its lock and exit.
const PATIENCE: Duration = Duration::from_secs(10);

const TITLE: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();

/// Prints and runs the commands.
pub(crate) struct Presenter<'a> {
    environment: &'a DemoEnvironment,
    signals: &'a mut Signals,
}

/// The user has stopped the demo. It is an error so that no command follows.
#[derive(Debug)]
pub(crate) struct Stopped(Stop);

impl Stopped {
    /// The exit code that goes with it.
    pub(crate) fn code(&self) -> ExitCode {
        self.0.code()
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

impl<'a> Presenter<'a> {
    pub(crate) fn new(environment: &'a DemoEnvironment, signals: &'a mut Signals) -> Self {
        Self { environment, signals }
    }

    /// The clusters and files.
    pub(crate) fn environment(&self) -> &'a DemoEnvironment {
        self.environment
    }

    /// Prints a title.
    pub(crate) fn title(text: &str) {
        anstream::println!("\n{TITLE}=== {text} ==={TITLE:#}");
    }

    /// Prints a remark.
    pub(crate) fn say(text: &str) {
        anstream::println!("\n{QUIET}# {text}{QUIET:#}");
    }

    /// Runs `kubectl LINE`, split at blanks. It must succeed. `why` is printed before it, unless it is empty.
    pub(crate) async fn kubectl(&mut self, why: &str, line: &str) -> Result<()> {
        self.run(why, line, None).await
    }

    /// `kubectl LINE > FILE`, in the directory that all commands run in.
    pub(crate) async fn kubectl_into(&mut self, why: &str, line: &str, file: &str) -> Result<PathBuf> {
        self.run(why, line, Some(file)).await?;
        Ok(self.environment.directory().join(file))
    }

    async fn run(&mut self, why: &str, line: &str, into: Option<&str>) -> Result<()> {
        let redirected = into.map(|file| format!(" > {file}")).unwrap_or_default();
        if !why.is_empty() {
            Self::say(why);
        }
        anstream::println!("{TITLE}$ kubectl {line}{redirected}{TITLE:#}");
        let mut command = self.environment.command("kubectl")?;
        command
            .args(line.split_whitespace())
            .current_dir(self.environment.directory());
        if let Some(file) = into {
            command.stdout(std::fs::File::create(self.environment.directory().join(file))?);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("start kubectl, {}", self.environment.kubectl()))?;
        tokio::select! {
            status = child.wait() => match status? {
                status if status.success() => Ok(()),
                status => bail!("`kubectl {line}` failed ({status})"),
            },
            stop = self.signals.next() => {
                let_end(&mut child, stop).await?;
                Err(Stopped(stop).into())
            }
        }
    }

    /// Runs the user's shell.
    pub(crate) async fn shell(&mut self) -> Result<ExitCode> {
        // Argo CD itself does not run. The plugin only needs its namespace.
        let namespace = ["--context", "management", "create", "namespace", "argocd"];
        self.environment
            .command("kubectl")?
            .args(namespace)
            .stdout(Stdio::null())
            .status()
            .await?;
        let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
        anstream::println!(
            "\n{TITLE}This is a shell with access to the demo's clusters.{TITLE:#} Exit it to stop everything. Try\n\
             \x20 kubectl crt list -o wide\n\
             \x20 kubectl crt rotate prod-eu --dry-run\n\
             \x20 kubectl crt rotate prod-us --settle 2s    and press Ctrl-C, then\n\
             \x20 kubectl crt status prod-us\n\
             \x20 kubectl bootstrap-token create --context management\n\
             \x20 kubectl argocd-rancher add prod-us --context management --rancher-context rancher\n\
             \x20 kubectl config get-contexts                contexts of Rancher and of each cluster\n\
             {QUIET}KUBECONFIG={}{QUIET:#}\n",
            self.environment.kubeconfig().display()
        );
        let mut shell = self
            .environment
            .command(&shell)?
            .spawn()
            .with_context(|| format!("start {shell}"))?;
        loop {
            // A Ctrl-C in the terminal is for the program in the shell.
            tokio::select! {
                status = shell.wait() => return Ok(like(status?)),
                stop = self.signals.next() => if !stop.is_from_terminal() {
                    let_end(&mut shell, stop).await?;
                    return Ok(stop.code());
                },
            }
        }
    }
}

/// Waits for the end of an interrupted command, and kills it if it takes too long.
async fn let_end(child: &mut Child, stop: Stop) -> Result<()> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid.filter(|_| !stop.is_from_terminal()) {
        // It was not reaped yet, so the process id is valid.
        kill_process(pid, Signal::TERM)?;
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

/// The exit code of an exit status.
fn like(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
