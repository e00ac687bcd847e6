//! The commands of the demo, each shown as it would be typed and run by the real kubectl, in the open.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anstyle::Style;
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::signals::{Signals, Stop};
use crate::stage::Stage;

/// How long an interrupted command has to release its lock and say where it stopped.
const PATIENCE: Duration = Duration::from_secs(10);

const TITLE: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();

/// The player.
pub(crate) struct Show<'a> {
    stage: &'a Stage,
    signals: &'a mut Signals,
    began: Instant,
}

/// What comes after a command.
enum Then {
    GoOn,
    End(ExitCode),
}

impl<'a> Show<'a> {
    pub(crate) fn new(stage: &'a Stage, signals: &'a mut Signals) -> Self {
        let began = Instant::now();
        Self { stage, signals, began }
    }

    /// A rotation from the first look to the last.
    pub(crate) async fn tour(&mut self) -> Result<ExitCode> {
        let scenes: [(&str, &[&str]); 4] = [
            (
                "Every registration token, by its fingerprint, and who uses it:",
                &["list"],
            ),
            (
                "One cluster: its agent, the Secret, the token and the tunnels:",
                &["status", "prod-eu"],
            ),
            (
                "A new token. It settles for 2 s here; in earnest one waits the usual 45 s, because a redeploy that \
                 Rancher began just before may still render the old token for half a minute:",
                &["rotate", "prod-eu", "--yes", "--settle", "2s"],
            ),
            ("Afterwards:", &["list"]),
        ];
        for (why, verb) in scenes {
            if let Then::End(code) = self.kubectl_crt(why, verb).await? {
                return Ok(code);
            }
        }
        anstream::println!(
            "\nThat took {:.0} s. `cargo xtask demo --shell` leaves you in a shell to try it yourself.",
            self.began.elapsed().as_secs_f32()
        );
        Ok(ExitCode::SUCCESS)
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
             \x20 kubectl config get-contexts                Rancher, and each cluster through its tunnel or directly\n\
             {QUIET}KUBECONFIG={}{QUIET:#}\n",
            self.stage.kubeconfig().display()
        );
        let mut shell = self
            .stage
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

    async fn kubectl_crt(&mut self, why: &str, verb: &[&str]) -> Result<Then> {
        anstream::println!(
            "\n{QUIET}# {why}{QUIET:#}\n{TITLE}$ kubectl crt {}{TITLE:#}",
            verb.join(" ")
        );
        let mut command = self.stage.command("kubectl")?;
        command.arg("crt").args(verb);
        let mut child = command
            .spawn()
            .with_context(|| format!("start kubectl, {}", self.stage.kubectl()))?;
        tokio::select! {
            status = child.wait() => match status? {
                status if status.success() => Ok(Then::GoOn),
                status => bail!("`kubectl crt {}` failed ({status})", verb.join(" ")),
            },
            stop = self.signals.next() => {
                let_end(&mut child, stop).await?;
                Ok(Then::End(stop.code()))
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
