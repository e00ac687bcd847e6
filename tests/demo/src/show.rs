//! The commands of the demo, each shown as it would be typed and run by the real kubectl, in the open.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anstyle::Style;
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::environment::DemoEnvironment;
use crate::signals::{Signals, Stop};

/// How long an interrupted command has to release its lock and say where it stopped.
const PATIENCE: Duration = Duration::from_secs(10);

const TITLE: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();

/// The player.
pub(crate) struct Presenter<'a> {
    environment: &'a DemoEnvironment,
    signals: &'a mut Signals,
}

/// The user has asked for the end. It is an error so that no scene comes after it.
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

    /// What it plays on.
    pub(crate) fn environment(&self) -> &'a DemoEnvironment {
        self.environment
    }

    /// Announces what the next scenes are about.
    pub(crate) fn title(text: &str) {
        anstream::println!("\n{TITLE}=== {text} ==={TITLE:#}");
    }

    /// A remark.
    pub(crate) fn say(text: &str) {
        anstream::println!("\n{QUIET}# {text}{QUIET:#}");
    }

    /// `kubectl LINE`, whose words have no blanks in them. It must succeed. No `why` for what follows from the last one.
    pub(crate) async fn kubectl(&mut self, why: &str, line: &str) -> Result<()> {
        self.scene(why, line, None).await
    }

    /// `kubectl LINE > FILE`, in the directory that all commands run in.
    pub(crate) async fn kubectl_into(&mut self, why: &str, line: &str, file: &str) -> Result<PathBuf> {
        self.scene(why, line, Some(file)).await?;
        Ok(self.environment.desk().join(file))
    }

    async fn scene(&mut self, why: &str, line: &str, into: Option<&str>) -> Result<()> {
        let redirected = into.map(|file| format!(" > {file}")).unwrap_or_default();
        if !why.is_empty() {
            Self::say(why);
        }
        anstream::println!("{TITLE}$ kubectl {line}{redirected}{TITLE:#}");
        let mut command = self.environment.command("kubectl")?;
        command
            .args(line.split_whitespace())
            .current_dir(self.environment.desk());
        if let Some(file) = into {
            command.stdout(std::fs::File::create(self.environment.desk().join(file))?);
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

    /// The user's shell, until it is left.
    pub(crate) async fn shell(&mut self) -> Result<ExitCode> {
        let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
        anstream::println!(
            "\n{TITLE}This is a shell on the demo's clusters.{TITLE:#} Leave it by `exit`: everything is ended then. Try\n\
             \x20 kubectl crt list -o wide\n\
             \x20 kubectl crt rotate prod-eu --dry-run\n\
             \x20 kubectl crt rotate prod-us --settle 2s    and Ctrl-C in the middle, then\n\
             \x20 kubectl crt status prod-us\n\
             \x20 kubectl bootstrap-token create --context management\n\
             \x20 kubectl argocd-rancher add prod-us --context management --rancher-context rancher\n\
             \x20 kubectl config get-contexts                Rancher, and each cluster through its tunnel or directly\n\
             {QUIET}KUBECONFIG={}{QUIET:#}\n",
            self.environment.kubeconfig().display()
        );
        let mut shell = self
            .environment
            .command(&shell)?
            .spawn()
            .with_context(|| format!("start {shell}"))?;
        loop {
            // Ctrl-C in the terminal is for what runs in the shell.
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

/// Lets an interrupted command end by itself; kills it if it does not.
async fn let_end(child: &mut Child, stop: Stop) -> Result<()> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid.filter(|_| !stop.is_from_terminal()) {
        // It has not been waited for yet, so the number is still its own.
        kill_process(pid, Signal::TERM)?;
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

/// To end as a program has ended.
fn like(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
