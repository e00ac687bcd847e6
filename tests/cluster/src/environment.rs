//! One bed for a whole test process: started on first use, part by part, and gone with the process.

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

/// The two kinds of Rancher: where a registration token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenStorage {
    /// In the status of the ClusterRegistrationToken.
    Status,
    /// In a Secret, with a time to live and a grace time.
    Secret,
}

impl TokenStorage {
    /// Both, for tests that walk through both.
    pub const ALL: [Self; 2] = [Self::Status, Self::Secret];

    /// The word for it on command lines and in configurations.
    pub fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Secret => "secret",
        }
    }
}

/// The shared bed. Its parts start when they are first asked for, side by side, and serve every test of the process;
/// tests keep apart by namespaces and by clusters of their own.
pub struct TestEnvironment {
    programs: Programs,
    dir: PathBuf,
    downstream: Part<ControlPlane>,
    management: [Part<ControlPlane>; 2],
    rancher: [Part<FakeRancher>; 2],
    argocd: Part<ArgoCd>,
    // Held, not used: when it closes, the janitor removes the directory.
    _janitor: Option<ChildStdin>,
}

/// A part that is started at most once; a failure is remembered, so that every test says the same at once.
type Part<T> = OnceCell<Result<T, String>>;

async fn once<T>(part: &Part<T>, start: impl Future<Output = Result<T>> + Send) -> Result<&T> {
    let outcome = part
        .get_or_init(async || start.await.map_err(|error| format!("{error:#}")))
        .await;
    outcome.as_ref().map_err(|error| anyhow!("{error}"))
}

impl TestEnvironment {
    /// The bed of this process. Builds the control plane's binary the first time (minutes); starts nothing else yet.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: Part<TestEnvironment> = OnceCell::const_new();
        once(&SHARED, Self::new()).await
    }

    /// A bed of one's own, for the demo and for tests that break theirs. Ends when it is dropped.
    pub async fn new() -> Result<Self> {
        let programs = tokio::task::spawn_blocking(Programs::ensure).await??;
        let dir = tempfile::Builder::new()
            .prefix("test-cluster-")
            .tempdir()
            .context("make the bed's directory")?
            .keep();
        let janitor = if std::env::var_os("TEST_CLUSTER_KEEP").is_some() {
            writeln!(std::io::stderr(), "The test bed keeps its directory: {}", dir.display())?;
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

    /// Where the binaries are.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The bed's directory, for files that shall go with it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cluster where agents run: with a scheduler and a node.
    pub async fn downstream(&self) -> Result<&ControlPlane> {
        let dir = self.dir.join("downstream");
        let start = ControlPlane::start(&self.programs, &dir, "downstream", Shape::Full);
        once(&self.downstream, start).await
    }

    /// The cluster where Rancher's objects are, one for each era.
    pub async fn management(&self, storage: TokenStorage) -> Result<&ControlPlane> {
        let name = format!("management-{}", storage.word());
        let dir = self.dir.join(&name);
        let start = ControlPlane::start(&self.programs, &dir, &name, Shape::WithoutNodes);
        once(&self.management[storage as usize], start).await
    }

    /// Rancher of one era, with the downstream cluster for its agents.
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

    /// The real Argo CD, beside Rancher's objects of [`TokenStorage::Secret`]. Builds it the first time (minutes).
    pub async fn argocd(&self) -> Result<&ArgoCd> {
        let start = async {
            let management = self.management(TokenStorage::Secret).await?;
            ArgoCd::start(&self.programs, management, &self.dir.join("argocd")).await
        };
        once(&self.argocd, Box::pin(start)).await
    }

    /// A Rancher of one's own, on a management cluster of its own, for a test that upgrades it or takes it away. `name`
    /// is its directory's. The downstream cluster is the shared one.
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

/// Starts a small shell that outlives us by a moment and removes the directory, however we ended. The components end
/// at the same time as we do and may still write a last line, hence "until it is gone".
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
        .context("start the janitor of the bed's directory")?;
    janitor.stdin.take().context("the janitor has no input")
}
