//! The clusters of the demo, and a directory with a kubeconfig and the programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::Value;
use test_cluster::{ControlPlane, FakeRancher, Kubeconfig, Registered, Registration, TestEnvironment, TokenStorage};
use tokio::process::Command;

/// The file names of the plugins.
const PLUGINS: [&str; 3] = ["kubectl-crt", "kubectl-bootstrap_token", "kubectl-argocd_rancher"];
const CLUSTERS: [&str; 3] = ["prod-eu", "prod-us", "edge-7"];

/// The running clusters.
pub(crate) struct DemoEnvironment {
    environment: Box<TestEnvironment>,
    storage: TokenStorage,
    bin: PathBuf,
    directory: PathBuf,
    kubeconfig: PathBuf,
    kubectl: String,
}

impl DemoEnvironment {
    /// Starts everything, and prints what it starts.
    pub(crate) async fn build(storage: TokenStorage) -> Result<Self> {
        let environment = Box::new(TestEnvironment::new().await?);
        let [bin, directory] = ["bin", "home"].map(|name| environment.dir().join(name));
        for dir in [&bin, &directory] {
            std::fs::create_dir(dir)?;
        }
        for plugin in PLUGINS {
            std::os::unix::fs::symlink(test_cluster::built(plugin)?, bin.join(plugin))?;
        }
        let kubectl = find_kubectl(&environment, &bin).await?;

        let began = Instant::now();
        say("Starting a management and a downstream cluster: etcd, API server, controllers, scheduler, kubelet …");
        tokio::try_join!(environment.management(storage), environment.downstream())?;
        say(&format!(
            "… and a fake of Rancher's server side that stores registration tokens in {} …",
            match storage {
                TokenStorage::Status => "their status",
                TokenStorage::Secret => "Secrets",
            }
        ));
        let rancher = environment.rancher(storage).await?;
        let clusters = CLUSTERS.map(|name| register(rancher, name));
        let clusters = futures::future::try_join_all(clusters).await?;
        let ids: Vec<_> = clusters
            .iter()
            .map(|cluster| format!("{} ({})", cluster.display_name, cluster.id))
            .collect();
        say(&format!(
            "… and three registered clusters, each with an agent: {}.",
            ids.join(", ")
        ));
        say(&format!(
            "Ready after {:.0} s. kubectl is {kubectl}.",
            began.elapsed().as_secs_f32()
        ));

        let kubeconfig = kubeconfig(rancher, &clusters).write(environment.dir().join("kubeconfig"))?;
        Ok(Self {
            environment,
            storage,
            bin,
            directory,
            kubeconfig,
            kubectl,
        })
    }

    /// A command that finds kubectl, the plugins and the clusters, and writes nothing into the user's home directory.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        let mut path = vec![self.bin.clone()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let path: OsString = std::env::join_paths(path)?;
        // The program is found in our own PATH, not in the one of the command.
        let ours = self.bin.join(program);
        let mut command = Command::new(if ours.exists() { ours } else { program.into() });
        command
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.environment.dir().join("cache"))
            .env("KUBERC", "off");
        Ok(command)
    }

    /// The working directory of the commands.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The cluster of Rancher's objects, which nodes may join too.
    pub(crate) async fn management(&self) -> Result<&ControlPlane> {
        self.environment.management(self.storage).await
    }

    /// A description of the kubectl that runs the commands.
    pub(crate) fn kubectl(&self) -> &str {
        &self.kubectl
    }

    /// The kubeconfig with all contexts.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Ends everything.
    pub(crate) async fn end(self) {
        if let Ok(rancher) = self.environment.rancher(self.storage).await {
            rancher.process().end().await;
        }
        let planes = [
            self.environment.management(self.storage).await,
            self.environment.downstream().await,
        ];
        let ending = planes.iter().flatten().map(|plane| plane.stop());
        futures::future::join_all(ending).await;
    }
}

async fn register(rancher: &FakeRancher, name: &str) -> Result<Registered> {
    rancher.register_as(&Registration::imported(name).quick()).await
}

/// The contexts of Rancher itself and of the clusters.
fn kubeconfig(rancher: &FakeRancher, clusters: &[Registered]) -> Kubeconfig {
    let admin = test_cluster::User::admin();
    clusters.iter().fold(rancher.kubeconfig(), |kubeconfig, cluster| {
        rancher.with_cluster(kubeconfig, cluster, &admin)
    })
}

/// The user's own kubectl if it works, otherwise the one of the test control plane, linked into `bin`.
async fn find_kubectl(environment: &TestEnvironment, bin: &Path) -> Result<String> {
    if let Some(version) = version_of("kubectl".as_ref()).await {
        return Ok(format!("your own, {version}"));
    }
    let ours = environment.programs().link_kubectl(bin)?;
    let version = version_of(&ours)
        .await
        .context("the kubectl of the test control plane does not start")?;
    Ok(format!("the one of the test control plane, {version}"))
}

async fn version_of(kubectl: &Path) -> Option<String> {
    let mut command = Command::new(kubectl);
    command.args(["version", "--client", "-o", "json"]).stdin(Stdio::null());
    let answer: Value = serde_json::from_slice(&command.output().await.ok()?.stdout).ok()?;
    Some(answer["clientVersion"]["gitVersion"].as_str()?.to_owned())
}

fn say(text: &str) {
    anstream::println!("{text}");
}
