//! The real Argo CD as a reference: application controller, repo server, API server and a redis, as plain processes
//! beside a test cluster.
//!
//! It runs in one namespace, and uses the cluster Secrets there. All clients of argocd-server are admins, so it listens
//! only on the loopback interface.

mod api;
mod application;
mod binaries;
mod install;
mod oracle;
mod repository;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::{Client, Config};

use crate::component::{Component, Launch};
use crate::control_plane::ControlPlane;
use crate::ports;
use crate::programs::Programs;
pub(crate) use binaries::ARGOCD;
use binaries::Binaries;

pub use api::Connection;
pub use application::{Application, Content, GATE, Operation};

/// How long the start may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(50);
const NAMESPACE: &str = "argocd";

/// A running Argo CD. Dropping it ends its processes.
pub struct ArgoCd {
    dir: PathBuf,
    kubeconfig: PathBuf,
    binaries: Binaries,
    ports: Ports,
    controller: Component,
    // They end when this is dropped.
    others: Vec<Component>,
}

/// The ports of its components.
struct Ports {
    redis: u16,
    repo: u16,
    repo_metrics: u16,
    server: u16,
    server_metrics: u16,
    /// On all interfaces. No flag changes that (`controller/appcontroller.go`, 3.2.11).
    controller_metrics: u16,
}

impl Ports {
    fn pick() -> Result<Self> {
        Ok(Self {
            redis: ports::free()?,
            repo: ports::free()?,
            repo_metrics: ports::free()?,
            server: ports::free()?,
            server_metrics: ports::free()?,
            controller_metrics: ports::free()?,
        })
    }
}

impl ArgoCd {
    /// Installs Argo CD into the namespace `argocd` of a control plane, which must not have one yet, and returns when
    /// all components serve. Builds Argo CD the first time, which takes minutes. `dir` is for its files.
    pub async fn start(programs: &Programs, plane: &ControlPlane, dir: &Path) -> Result<Self> {
        let binaries = tokio::task::spawn_blocking(Binaries::ensure).await??;
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let ports = Ports::pick()?;
        install::install(&plane.client().await?, &binaries, NAMESPACE, ports.controller_metrics).await?;
        repository::make(dir)?;
        let launcher = Launcher {
            programs,
            binaries: &binaries,
            kubeconfig: plane.kubeconfig(),
            dir,
        };
        let redis = launcher.redis(&ports)?;
        let repo = launcher.repo_server(&ports)?;
        let server = launcher.server(&ports)?;
        let controller = launcher.controller(&ports)?;
        let argo = Self {
            dir: dir.to_owned(),
            kubeconfig: plane.kubeconfig().to_owned(),
            binaries,
            controller,
            others: vec![server, repo, redis],
            ports,
        };
        argo.wait_until_all_serve().await?;
        Ok(argo)
    }

    /// The namespace of its cluster Secrets and Applications.
    pub fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    /// Its application controller, for tests that stop it or read its log.
    pub fn controller(&self) -> &Component {
        &self.controller
    }

    /// A client of the control plane that it was installed into.
    async fn client(&self) -> Result<Client> {
        crate::kubeconfig::client(&self.kubeconfig).await
    }

    async fn wait_until_all_serve(&self) -> Result<()> {
        let Ports {
            repo_metrics,
            server,
            controller_metrics,
            ..
        } = self.ports;
        for (part, port) in [
            ("argocd-repo-server", repo_metrics),
            ("argocd-server", server),
            ("argocd-application-controller", controller_metrics),
        ] {
            let waiting = async {
                while get(port, "/healthz").await.is_err() {
                    let mut all = self.others.iter().chain([&self.controller]);
                    if let Some(dead) = all.find(|process| process.ended().is_some()) {
                        return Err(dead.death());
                    }
                    tokio::time::sleep(POLL).await;
                }
                Ok(())
            };
            match tokio::time::timeout(PATIENCE, waiting).await {
                Ok(outcome) => outcome?,
                Err(_) => bail!(
                    "{part} did not serve within {PATIENCE:?}; logs are in {}",
                    self.dir.display()
                ),
            }
        }
        Ok(())
    }
}

/// Starts the processes.
struct Launcher<'a> {
    programs: &'a Programs,
    binaries: &'a Binaries,
    kubeconfig: &'a Path,
    dir: &'a Path,
}

impl Launcher<'_> {
    fn redis(&self, ports: &Ports) -> Result<Component> {
        let mut argv = self.programs.guarded_file(&self.binaries.redis);
        argv.push(format!("127.0.0.1:{}", ports.redis).into());
        Component::start(Launch {
            name: "redis",
            argv,
            env: Vec::new(),
            dir: self.dir,
            log: self.dir.join("redis.log"),
        })
    }

    fn repo_server(&self, ports: &Ports) -> Result<Component> {
        let flags = [
            "--address=127.0.0.1".to_owned(),
            format!("--port={}", ports.repo),
            "--metrics-address=127.0.0.1".to_owned(),
            format!("--metrics-port={}", ports.repo_metrics),
            "--disable-tls".to_owned(),
        ];
        self.launch("argocd-repo-server", ports, flags)
    }

    fn server(&self, ports: &Ports) -> Result<Component> {
        let flags = [
            "--address=127.0.0.1".to_owned(),
            format!("--port={}", ports.server),
            "--metrics-address=127.0.0.1".to_owned(),
            format!("--metrics-port={}", ports.server_metrics),
            "--insecure".to_owned(),
            "--disable-auth".to_owned(),
        ];
        self.launch("argocd-server", ports, self.connected(ports).into_iter().chain(flags))
    }

    fn controller(&self, ports: &Ports) -> Result<Component> {
        let port = ports.controller_metrics;
        ports::warn_if_open(&format!("port {port} of argocd-application-controller is"))?;
        let flags = [format!("--metrics-port={port}")];
        let flags = self.connected(ports).into_iter().chain(flags);
        self.launch("argocd-application-controller", ports, flags)
    }

    /// The flags of the two components that work on clusters.
    fn connected(&self, ports: &Ports) -> [String; 4] {
        [
            format!("--kubeconfig={}", self.kubeconfig.display()),
            format!("--namespace={NAMESPACE}"),
            format!("--repo-server=127.0.0.1:{}", ports.repo),
            "--repo-server-plaintext".to_owned(),
        ]
    }

    fn launch(&self, name: &'static str, ports: &Ports, flags: impl IntoIterator<Item = String>) -> Result<Component> {
        // As in Argo CD's image. The name of the file is the user agent of its calls to clusters.
        let program = self.dir.join(name);
        std::os::unix::fs::symlink(&self.binaries.argocd, &program)?;
        let mut argv = self.programs.guarded_file(program);
        argv.push(format!("--redis=127.0.0.1:{}", ports.redis).into());
        argv.extend(flags.into_iter().map(OsString::from));
        Component::start(Launch {
            name,
            argv,
            env: environment(name, self.dir),
            dir: self.dir,
            log: self.dir.join(format!("{name}.log")),
        })
    }
}

/// The environment that selects this program of the binary, and keeps its files in `dir`.
fn environment(name: &str, dir: &Path) -> Vec<(&'static str, OsString)> {
    vec![
        ("ARGOCD_BINARY_NAME", name.into()),
        // Its own cluster is that of its kubeconfig.
        ("ARGOCD_FAKE_IN_CLUSTER", "true".into()),
        ("ARGOCD_TLS_DATA_PATH", dir.join("tls").into()),
        ("ARGOCD_SSH_DATA_PATH", dir.join("ssh").into()),
        ("ARGOCD_PLUGINSOCKFILEPATH", dir.join("plugins").into()),
        ("ARGOCD_ASK_PASS_SOCK", dir.join("ask-pass.sock").into()),
        // Signatures are not tested, and GnuPG would have to be installed.
        ("ARGOCD_GPG_ENABLED", "false".into()),
    ]
}

/// Sends a request to a component that serves plain HTTP.
async fn get(port: u16, path: &str) -> Result<String> {
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(plain(port)?.request_text(request).await?)
}

fn plain(port: u16) -> Result<Client> {
    let mut config = Config::new(format!("http://127.0.0.1:{port}").parse()?);
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
