//! The test environment of a test process. Its parts start on first use and end with the process.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::argocd::ArgoCd;
use crate::control_plane::{ControlPlane, Shape};
use crate::fake_rancher::{FakeRancher, FakeRancherOptions};
use crate::programs::Programs;

/// Where Rancher stores a registration token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenStorage {
    /// In the status of the ClusterRegistrationToken.
    Status,
    /// In a Secret, with a TTL and a grace period.
    Secret,
}

impl TokenStorage {
    /// Both, for tests that use both.
    pub const ALL: [Self; 2] = [Self::Status, Self::Secret];

    /// The value on command lines and in configurations.
    pub fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Secret => "secret",
        }
    }
}

/// The shared test environment. Its parts start in parallel on first use, and serve all tests of the process. Each test
/// has its own namespaces and registered clusters.
pub struct TestEnvironment {
    programs: Programs,
    dir: PathBuf,
    downstream: Part<ControlPlane>,
    management: [Part<ControlPlane>; 2],
    rancher: [Part<FakeRancher>; 2],
    argocd: Part<ArgoCd>,
    // Its pipe closes with this process. Then the janitor removes the directory.
    _janitor: Option<ChildStdin>,
}

/// A part that starts at most once. All tests see the same failure.
type Part<T> = OnceCell<Result<T, String>>;

async fn once<T>(part: &Part<T>, start: impl Future<Output = Result<T>> + Send) -> Result<&T> {
    let outcome = part
        .get_or_init(async || start.await.map_err(|error| format!("{error:#}")))
        .await;
    outcome.as_ref().map_err(|error| anyhow!("{error}"))
}

impl TestEnvironment {
    /// The test environment of this process. Builds the control plane the first time, which takes minutes. Starts
    /// nothing else yet.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: Part<TestEnvironment> = OnceCell::const_new();
        once(&SHARED, Self::new()).await
    }

    /// A separate environment, for the demo and for tests that break theirs. It ends when it is dropped.
    pub async fn new() -> Result<Self> {
        let programs = tokio::task::spawn_blocking(Programs::ensure).await??;
        let dir = tempfile::Builder::new()
            .prefix("test-cluster-")
            .tempdir()
            .context("make the directory of the test environment")?
            .keep();
        let janitor = if std::env::var_os("TEST_CLUSTER_KEEP").is_some() {
            writeln!(
                std::io::stderr(),
                "The test environment keeps its directory: {}",
                dir.display()
            )?;
            None
        } else {
            Some(start_janitor(&dir)?)
        };
        Ok(Self {
            programs,
            dir,
            downstream: OnceCell::new(),
            management: Default::default(),
            rancher: Default::default(),
            argocd: OnceCell::new(),
            _janitor: janitor,
        })
    }

    /// The programs of the control plane.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The directory of the environment, which is removed with it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cluster of the agents, with a scheduler and a node.
    pub async fn downstream(&self) -> Result<&ControlPlane> {
        let dir = self.dir.join("downstream");
        let start = ControlPlane::start(&self.programs, &dir, "downstream", Shape::Full);
        once(&self.downstream, start).await
    }

    /// The cluster of Rancher's objects, one for each token storage.
    pub async fn management(&self, storage: TokenStorage) -> Result<&ControlPlane> {
        let name = format!("management-{}", storage.word());
        let dir = self.dir.join(&name);
        let start = ControlPlane::start(&self.programs, &dir, &name, Shape::WithoutNodes);
        once(&self.management[storage as usize], start).await
    }

    /// The fake Rancher with this token storage, and the downstream cluster for its agents.
    pub async fn rancher(&self, storage: TokenStorage) -> Result<&FakeRancher> {
        let start = async {
            let (management, downstream) = tokio::try_join!(self.management(storage), self.downstream())?;
            let dir = self.dir.join(format!("rancher-{}", storage.word()));
            FakeRancher::start(FakeRancherOptions {
                storage,
                management,
                downstream,
                dir: &dir,
                timing: json!({}),
            })
            .await
        };
        once(&self.rancher[storage as usize], Box::pin(start)).await
    }

    /// The real Argo CD, in the management cluster of [`TokenStorage::Secret`]. Builds it the first time, which takes
    /// minutes.
    pub async fn argocd(&self) -> Result<&ArgoCd> {
        let start = async {
            let management = self.management(TokenStorage::Secret).await?;
            ArgoCd::start(&self.programs, management, &self.dir.join("argocd")).await
        };
        once(&self.argocd, Box::pin(start)).await
    }

    /// A separate Rancher on its own management cluster, for a test that upgrades or stops it. `name` is that of its
    /// directory. The downstream cluster is the shared one.
    pub async fn separate_rancher(
        &self,
        name: &str,
        storage: TokenStorage,
        timing: serde_json::Value,
    ) -> Result<(ControlPlane, FakeRancher)> {
        let (dir, downstream) = (self.dir.join(name), self.downstream());
        let own = Box::pin(ControlPlane::start(&self.programs, &dir, name, Shape::WithoutNodes));
        let (management, downstream) = tokio::try_join!(own, downstream)?;
        let dir = dir.join("rancher");
        let options = FakeRancherOptions {
            storage,
            management: &management,
            downstream,
            dir: &dir,
            timing,
        };
        let fake_rancher = FakeRancher::start(options).await?;
        Ok((management, fake_rancher))
    }
}

/// Starts a shell that removes the directory after this process has ended in any way. The components end at the same
/// time and may still write, so it retries until the directory is gone.
fn start_janitor(dir: &Path) -> Result<ChildStdin> {
    const SCRIPT: &str = r#"trap "" INT TERM HUP; cat >/dev/null; until rm -rf "$1" 2>/dev/null; do sleep 0.1; done"#;
    let mut janitor = Command::new("sh")
        .args(["-c", SCRIPT, "janitor"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start the janitor of the directory of the test environment")?;
    janitor.stdin.take().context("the janitor has no input")
}
