//! A process of the test environment, with its output in a log file. It never outlives the test process.
//!
//! Its standard input is a pipe whose writing end we hold. However this process ends, the kernel closes the pipe, and
//! the component ends too: it runs under the control plane's `guard`, or does the same itself.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::watch;

/// How long a released component may take to clean up and end. All of them end at once unless they are paused.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running or ended process of the test environment.
pub struct Component {
    name: String,
    log: PathBuf,
    pid: Pid,
    child: Arc<Mutex<Child>>,
    ended: watch::Receiver<Option<ExitStatus>>,
    // Dropping it ends the component.
    leash: Mutex<Option<ChildStdin>>,
}

/// The parameters of a component.
pub(crate) struct Launch<'a> {
    pub(crate) name: &'a str,
    pub(crate) argv: Vec<OsString>,
    /// In addition to the few variables that every component has.
    pub(crate) env: Vec<(&'static str, OsString)>,
    /// Working and temporary directory, and home.
    pub(crate) dir: &'a Path,
    /// The file for standard error, and for standard output unless it is taken.
    pub(crate) log: PathBuf,
}

impl Component {
    /// Starts it. Output is appended to the log, so that a restart keeps earlier output.
    pub(crate) fn start(launch: Launch<'_>) -> Result<Self> {
        let (component, _) = Self::spawn(launch, false)?;
        Ok(component)
    }

    /// Starts it, and returns its standard output.
    pub(crate) fn start_with_stdout(launch: Launch<'_>) -> Result<(Self, std::process::ChildStdout)> {
        let (component, stdout) = Self::spawn(launch, true)?;
        Ok((component, stdout.context("standard output was asked for")?))
    }

    fn spawn(launch: Launch<'_>, take_stdout: bool) -> Result<(Self, Option<std::process::ChildStdout>)> {
        let Launch {
            name,
            argv,
            env,
            dir,
            log,
        } = launch;
        let [program, args @ ..] = argv.as_slice() else {
            bail!("{name}: nothing to run")
        };
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut child = Command::new(program)
            .args(args)
            .current_dir(dir)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", dir)
            .env("TMPDIR", dir)
            .envs(env)
            // Its own process group: a Ctrl-C is for this process, which ends the components in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(if take_stdout {
                Stdio::piped()
            } else {
                Stdio::from(file.try_clone()?)
            })
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name} ({})", program.display()))?;
        let pid = Pid::from_child(&child);
        let (leash, stdout) = (child.stdin.take(), child.stdout.take());
        let child = Arc::new(Mutex::new(child));
        let ended = watch_for_end(pid, Arc::clone(&child));
        Ok((
            Self {
                name: name.to_owned(),
                log,
                pid,
                child,
                ended,
                leash: Mutex::new(leash),
            },
            stdout,
        ))
    }

    /// Its name: `kube-apiserver`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The exit status, if it has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }

    /// Returns when it has ended.
    pub async fn wait_ended(&self) {
        // An error would mean that the watching thread has ended, which it does only after it has sent the status.
        let _ = self.ended.clone().wait_for(Option::is_some).await;
    }

    /// The error of a component that ended unexpectedly: its exit status and its last output.
    pub(crate) fn death(&self) -> anyhow::Error {
        let how = self
            .ended()
            .map_or_else(|| "is running".to_owned(), |status| format!("ended ({status})"));
        anyhow!(
            "{} {how}; the end of {}:\n{}",
            self.name,
            self.log.display(),
            tail(&self.log, 15)
        )
    }

    /// Sends a signal, unless the component has ended.
    pub fn signal(&self, which: Signal) {
        signal(self.pid, &self.child, &self.ended, which);
    }

    /// Sends SIGTERM, and SIGKILL after `patience`.
    pub async fn terminate(&self, patience: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(patience, self.wait_ended()).await.is_err() {
            self.kill().await;
        }
    }

    /// Closes its standard input, like the end of this process, and returns when it has ended.
    pub async fn end(&self) {
        self.let_go();
        if tokio::time::timeout(PATIENCE, self.wait_ended()).await.is_err() {
            self.kill().await;
        }
    }

    fn let_go(&self) {
        drop(self.leash.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Sends SIGKILL, and returns when it has ended.
    pub async fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait_ended().await;
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.let_go();
        let (pid, child, ended) = (self.pid, Arc::clone(&self.child), self.ended.clone());
        std::thread::spawn(move || {
            std::thread::sleep(PATIENCE);
            signal(pid, &child, &ended, Signal::KILL);
        });
    }
}

fn signal(pid: Pid, child: &Mutex<Child>, ended: &watch::Receiver<Option<ExitStatus>>, signal: Signal) {
    // The lock keeps the watching thread from reaping the process meanwhile, so the process id is still valid.
    let _held = child.lock().unwrap_or_else(PoisonError::into_inner);
    if ended.borrow().is_none() {
        let _ = kill_process(pid, signal);
    }
}

/// Sends the exit status to the channel. The thread waits without reaping first, so that a signal sent under the lock
/// never reaches another process with the same id.
fn watch_for_end(pid: Pid, child: Arc<Mutex<Child>>) -> watch::Receiver<Option<ExitStatus>> {
    let (sender, receiver) = watch::channel(None);
    std::thread::spawn(move || {
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {
        }
        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send_replace(child.wait().ok());
    });
    receiver
}

/// The last `lines` lines of a file, or the error.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("(unreadable: {error})"),
    }
}
