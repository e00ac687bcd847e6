//! Runs the built plugins in a clean home directory, without the environment of the tests. The tests are in
//! `tests/<plugin>/<command>.rs`.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use test_cluster::{Fault, Moment, On, TokenStorage};
//! let fixture = e2e::RancherFixture::begin(TokenStorage::Secret, "oslo").await?;
//! let (proxy, shell) = fixture.behind_proxy().await?;
//! proxy.plan(On::write().nth(3), Fault::Kill(Moment::After));
//! let rotate = shell.crt(["rotate", &fixture.cluster.id, "--context", "rancher", "--yes"]).start().await?;
//! proxy.victim(rotate.pid()?);
//! rotate.finish().await?.expect_killed()?;
//! shell.crt(["rotate", &fixture.cluster.id, "--context", "rancher", "--yes"]).run().await?.expect(0)?;
//! # Ok(()) }
//! ```

mod cost;
mod every_command;
mod kill_point;
mod mask;
mod permissions;
mod printed;
mod roles;
mod wait;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use test_cluster::{
    ControlPlane, FakeRancher, FaultProxy, Kubeconfig, On, Registered, Registration, TestEnvironment, TokenStorage,
    Upstream, User,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use cost::Cost;
pub use every_command::{PLUGINS, every_command, plugin_binary};
pub use kill_point::KillPoint;
pub use mask::mask_output;
pub use permissions::{everything, reading};
pub use printed::printed_commands;
pub use roles::{Roles, Unseen, make_member_of_local, run_until, succeeds};
pub use wait::{PATIENCE, until};

/// Longer than any command of a test. A command that hangs fails its test, with its output.
const LONGEST: Duration = Duration::from_mins(15);
/// The file names of the plugins.
const CRT: &str = "kubectl-crt";
const BOOTSTRAP_TOKEN: &str = "kubectl-bootstrap_token";
const ARGOCD_RANCHER: &str = "kubectl-argocd_rancher";

/// A registered cluster, and a user with a kubeconfig that leads to it.
pub struct RancherFixture {
    /// The fake Rancher with this token storage.
    pub rancher: &'static FakeRancher,
    /// The API server with Rancher's objects.
    pub management: &'static ControlPlane,
    /// The API server with all agents.
    pub downstream: &'static ControlPlane,
    /// The registered cluster.
    pub cluster: Registered,
    /// The shell of the admin.
    pub shell: Shell,
}

impl RancherFixture {
    /// A generic imported cluster with this name, connected, and its admin.
    pub async fn begin(storage: TokenStorage, name: &str) -> Result<Self> {
        Self::begin_with(storage, &Registration::imported(name).quick()).await
    }

    /// The same with any registration.
    pub async fn begin_with(storage: TokenStorage, registration: &Registration) -> Result<Self> {
        let environment = TestEnvironment::shared().await?;
        Self::in_rancher(
            environment.rancher(storage).await?,
            environment.management(storage).await?,
            registration,
        )
        .await
    }

    /// In a separate Rancher, which the test may upgrade or slow down. `name` must be unique.
    pub async fn begin_apart(storage: TokenStorage, name: &str) -> Result<Self> {
        Self::begin_apart_with(storage, name, &Registration::imported(name).quick()).await
    }

    /// The same with any registration.
    pub async fn begin_apart_with(storage: TokenStorage, name: &str, registration: &Registration) -> Result<Self> {
        let environment = TestEnvironment::shared().await?;
        let timing = serde_json::json!({});
        let (management, rancher) = environment.separate_rancher(name, storage, timing).await?;
        // They serve until the process ends, as the shared ones do.
        let (management, rancher) = (Box::leak(Box::new(management)), Box::leak(Box::new(rancher)));
        Self::in_rancher(rancher, management, registration).await
    }

    async fn in_rancher(
        rancher: &'static FakeRancher,
        management: &'static ControlPlane,
        registration: &Registration,
    ) -> Result<Self> {
        let environment = TestEnvironment::shared().await?;
        let downstream = environment.downstream().await?;
        let cluster = rancher.register_as(registration).await?;
        let kubeconfig = rancher.with_cluster(rancher.kubeconfig(), &cluster, &User::admin());
        let shell = Shell::new(environment, &kubeconfig)?;
        Ok(Self {
            rancher,
            management,
            downstream,
            cluster,
            shell,
        })
    }

    /// The shell of another user of the same Rancher.
    pub async fn shell_of(&self, user: &User) -> Result<Shell> {
        let kubeconfig = self
            .rancher
            .with_cluster(self.rancher.kubeconfig_of(user), &self.cluster, user);
        Shell::new(TestEnvironment::shared().await?, &kubeconfig)
    }

    /// A proxy in front of all servers of the kubeconfig, and a shell whose kubeconfig leads through it.
    pub async fn behind_proxy(&self) -> Result<(FaultProxy, Shell)> {
        self.behind([self.rancher.upstream(), Upstream::admin_of(self.management)])
            .await
    }

    /// A proxy in front of the management cluster only, for programs that know Rancher's CA by other means.
    pub async fn behind_management_proxy(&self) -> Result<(FaultProxy, Shell)> {
        self.behind([Upstream::admin_of(self.management)]).await
    }

    async fn behind<const N: usize>(&self, servers: [Upstream; N]) -> Result<(FaultProxy, Shell)> {
        let proxy = FaultProxy::start(servers).await?;
        let kubeconfig = proxy.redirect(Kubeconfig::read(self.shell.kubeconfig())?);
        let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
        Ok((proxy, shell))
    }

    /// The same with a delay of each request and each response. Rancher has the same delay to the cluster, so one apply of the
    /// agent takes as long as was seen on Rancher 2.15.0 and 2.12.0: 2.5 to 4 s without delay, 5.5 to 8.6 s at 40 ms each way,
    /// 9.7 to 11.9 s at 100 ms.
    pub async fn behind_slow_link(&self, each_way: Duration) -> Result<(FaultProxy, Shell)> {
        let redeploy = Duration::from_millis(3200) + each_way * 76;
        self.rancher.redeploy_takes(&self.cluster, redeploy).await?;
        let (proxy, shell) = self.behind_proxy().await?;
        proxy.delay(On::request(), each_way);
        Ok((proxy, shell))
    }
}

/// The shell of a user: a home directory, a kubeconfig, and a `PATH` with only kubectl, kubeadm and the plugins.
pub struct Shell {
    home: TempDir,
    kubeconfig: PathBuf,
}

impl Shell {
    /// A shell with this kubeconfig.
    pub fn new(environment: &TestEnvironment, kubeconfig: &Kubeconfig) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin)?;
        environment.programs().link_kubectl(&bin)?;
        environment.programs().link_kubeadm(&bin)?;
        for plugin in [CRT, BOOTSTRAP_TOKEN, ARGOCD_RANCHER] {
            std::os::unix::fs::symlink(test_cluster::built(plugin)?, bin.join(plugin))?;
        }
        let kubeconfig = kubeconfig.write(home.path().join("kubeconfig"))?;
        Ok(Self { home, kubeconfig })
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `kubectl-crt ARGS`, the plugin alone.
    pub fn crt(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Invocation {
        Invocation::new(self, CRT, args)
    }

    /// `kubectl-bootstrap_token ARGS`, the plugin alone.
    pub fn bootstrap_token(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Invocation {
        Invocation::new(self, BOOTSTRAP_TOKEN, args)
    }

    /// `kubectl-argocd_rancher ARGS`, the plugin alone.
    pub fn argocd_rancher(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Invocation {
        Invocation::new(self, ARGOCD_RANCHER, args)
    }

    /// `kubeadm ARGS`, the real one.
    pub fn kubeadm(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Invocation {
        Invocation::new(self, "kubeadm", args)
    }

    /// `kubectl ARGS`, the real one.
    pub fn kubectl(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Invocation {
        Invocation::new(self, "kubectl", args)
    }
}

/// A command line that is not started yet.
pub struct Invocation {
    command: std::process::Command,
    stdin: Vec<u8>,
}

impl Invocation {
    fn new(shell: &Shell, program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let bin = shell.home().join("bin");
        let mut command = std::process::Command::new(bin.join(program));
        command
            .args(args)
            .current_dir(shell.home())
            .env_clear()
            .env("HOME", shell.home())
            .env("PATH", &bin)
            .env("KUBECONFIG", &shell.kubeconfig)
            .env("TZ", "UTC")
            // The delays of the fake servers are shorter than that.
            .env("KUBECTL_ROTATION_TEST_IN_FLIGHT", "10s")
            // The machines of the fake Rancher read a changed file within 0.8 s.
            .env("KUBECTL_ROTATION_TEST_FILE_IS_READ", "3s");
        Self {
            command,
            stdin: Vec::new(),
        }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets standard input, which is empty by default.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    /// Runs it to its end.
    pub async fn run(self) -> Result<CommandOutput> {
        self.start().await?.finish().await
    }

    /// Runs it with a standard output without a reader, as with `| head -0`.
    pub async fn run_with_closed_stdout(self) -> Result<CommandOutput> {
        self.start_with(unread()?, Stdio::piped()).await?.finish().await
    }

    /// Runs it with a standard output and a standard error without a reader.
    pub async fn run_with_closed_output(self) -> Result<CommandOutput> {
        self.start_with(unread()?, unread()?).await?.finish().await
    }

    /// Starts it. It is killed when the handle is dropped.
    pub async fn start(self) -> Result<Running> {
        self.start_with(Stdio::piped(), Stdio::piped()).await
    }

    async fn start_with(self, stdout: Stdio, stderr: Stdio) -> Result<Running> {
        let line = self.line();
        let mut command = Command::from(self.command);
        command
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .kill_on_drop(true);
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start `{line}`"))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        // It may end without reading.
        let _ = stdin.write_all(&self.stdin).await;
        // What is not read fills the pipe, and a command with `-v=9` stops there.
        let [stdout, stderr] = [child.stdout.take().map(whole), child.stderr.take().map(whole)];
        Ok(Running {
            line,
            child,
            began,
            stdout,
            stderr,
        })
    }

    /// Starts it on its own terminal, where it prompts and shows progress.
    pub fn on_terminal(mut self) -> Result<expectrl::session::OsSession> {
        if self.command.get_envs().all(|(name, _)| name != "TERM") {
            self.command.env("TERM", "xterm-256color");
        }
        let mut session = expectrl::Session::spawn(self.command)?;
        session.set_expect_timeout(Some(Duration::from_mins(2)));
        Ok(session)
    }

    /// The command line as a user would type it.
    fn line(&self) -> String {
        let program = Path::new(self.command.get_program()).file_name().unwrap_or_default();
        let words = std::iter::once(program).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// The end of a pipe whose other end is closed.
fn unread() -> Result<Stdio> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    Ok(writer.into())
}

/// What a command has printed so far.
struct Whole {
    bytes: watch::Receiver<Vec<u8>>,
    reading: JoinHandle<std::io::Result<()>>,
}

/// Reads an output while the command runs.
fn whole(mut output: impl AsyncRead + Unpin + Send + 'static) -> Whole {
    let (sender, bytes) = watch::channel(Vec::new());
    let reading = tokio::spawn(async move {
        let mut chunk = [0; 8192];
        loop {
            match output.read(&mut chunk).await? {
                0 => return Ok(()),
                count => sender.send_modify(|bytes| bytes.extend_from_slice(&chunk[..count])),
            }
        }
    });
    Whole { bytes, reading }
}

/// A running command.
pub struct Running {
    line: String,
    child: Child,
    began: Instant,
    stdout: Option<Whole>,
    stderr: Option<Whole>,
}

impl Running {
    /// Its process id, for signals and for [`FaultProxy::victim`].
    pub fn pid(&self) -> Result<u32> {
        self.child
            .id()
            .with_context(|| format!("`{}` has already ended", self.line))
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until it has printed something to stderr: `find` gets all of it so far.
    pub async fn until_stderr<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let stderr = self.stderr.as_ref().context("stderr is not read")?;
        let mut bytes = stderr.bytes.clone();
        let found = |bytes: &Vec<u8>| find(&String::from_utf8_lossy(bytes));
        let printed = tokio::time::timeout(PATIENCE, bytes.wait_for(|bytes| found(bytes).is_some())).await;
        let printed = printed.with_context(|| format!("timed out after {PATIENCE:?} waiting for {what}"))?;
        let bytes = printed.with_context(|| format!("`{}` has ended without {what}", self.line))?;
        found(&bytes).with_context(|| format!("{what} is gone"))
    }

    /// Waits for its end.
    pub async fn finish(self) -> Result<CommandOutput> {
        let Self {
            line,
            mut child,
            began,
            stdout,
            stderr,
        } = self;
        let ended = tokio::time::timeout(LONGEST, child.wait()).await;
        let hangs = ended.is_err();
        if hangs {
            child.start_kill()?;
        }
        let status = child.wait().await?;
        let read = async |output: Option<Whole>| match output {
            Some(output) => {
                output.reading.await??;
                anyhow::Ok(String::from_utf8(output.bytes.borrow().clone())?)
            }
            None => Ok(String::new()),
        };
        let outcome = CommandOutput {
            line,
            stdout: read(stdout).await?,
            stderr: read(stderr).await?,
            status,
            took: began.elapsed(),
        };
        ensure!(!hangs, "no end within {LONGEST:?} of\n{outcome}");
        Ok(outcome)
    }
}

/// The output and the exit status of a command.
#[derive(Debug)]
pub struct CommandOutput {
    line: String,
    /// Data.
    pub stdout: String,
    /// Messages.
    pub stderr: String,
    /// The exit code or the signal.
    pub status: ExitStatus,
    /// The duration.
    pub took: Duration,
}

impl CommandOutput {
    /// The exit code, unless a signal ended the command.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Fails with the whole output unless this is the exit code.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(self.code() == Some(code), "expected exit code {code} of\n{self}");
        Ok(self)
    }

    /// Fails with the whole output unless SIGKILL ended the command.
    pub fn expect_killed(self) -> Result<Self> {
        use std::os::unix::process::ExitStatusExt as _;
        ensure!(self.status.signal() == Some(9), "expected it to be killed:\n{self}");
        Ok(self)
    }
}

impl std::fmt::Display for CommandOutput {
    /// The command line, both streams and the exit status, as in snapshots.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            line,
            stdout,
            stderr,
            status,
            ..
        } = self;
        write!(f, "$ {line}\n{stdout}----- stderr -----\n{stderr}----- {status} -----")
    }
}
