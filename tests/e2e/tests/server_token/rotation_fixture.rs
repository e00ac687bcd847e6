//! A rotation of the server token on fake servers, and what has to be true at its end.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, Running, Shell};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use test_cluster::{FaultProxy, Kubeconfig, TestEnvironment, Upstream};

use crate::cluster::{ServerFixture, TOKEN, file};

/// The label of the pods on nodes and of their Secrets.
const POD_LABEL: &str = "kubectl-rotation/run";
/// In the names of the backup Secrets.
const BACKUP: &str = "-token-rotation-";

/// A cluster, and the files of its administrator.
pub(crate) struct RotationFixture {
    pub(crate) servers: ServerFixture,
    /// The file with the old token.
    old: String,
    /// The file that the new token is written to.
    new: String,
}

impl RotationFixture {
    /// `name` must be unique. `cluster`: the configuration of the fake, without the token.
    pub(crate) async fn start(name: &str, cluster: Value) -> Result<Self> {
        let servers = ServerFixture::start(name, cluster).await?;
        let token = format!("K10{}::server:{TOKEN}\n", servers.ca_hash());
        let old = file(&servers.shell, "old", &token, 0o600)?;
        let new = servers.shell.home().join("new");
        let new = new.to_str().context("the path is not UTF-8")?.to_owned();
        Ok(Self { servers, old, new })
    }

    /// Three servers whose token is configured in these places.
    pub(crate) async fn start_three(name: &str, pins: [&str; 3]) -> Result<Self> {
        let servers = [("s1", pins[0]), ("s2", pins[1]), ("s3", pins[2])];
        let servers = servers.map(|(name, pin)| json!({ "name": name, "pin": pin }));
        Self::start(name, json!({ "servers": servers })).await
    }

    /// The same with nodes that run pods.
    pub(crate) async fn start_with_pods(name: &str, pins: [&str; 3]) -> Result<Self> {
        let servers = [("s1", pins[0]), ("s2", pins[1]), ("s3", pins[2])];
        let servers = servers.map(|(name, pin)| json!({ "name": name, "pin": pin }));
        Self::start(name, json!({ "servers": servers, "kubelet": true })).await
    }

    /// The command line of `rotate` or `rollback` with the old token.
    pub(crate) fn args(&self, verb: &str, more: &[&str]) -> Vec<String> {
        self.args_with(verb, &self.old, more)
    }

    /// The same with the token in this file.
    pub(crate) fn args_with(&self, verb: &str, token_file: &str, more: &[&str]) -> Vec<String> {
        let common = ["server-token", verb, "--yes", "--token-file", token_file];
        let output = ["--write-token", self.new.as_str()];
        let output = if verb == "rotate" { &output[..] } else { &[] };
        let words = common.iter().chain(output).chain(more);
        words.map(|word| (*word).to_owned()).collect()
    }

    /// `--node-exec=…`
    pub(crate) fn node_exec(&self) -> Result<String> {
        Ok(format!("--node-exec={}", self.servers.cluster.node_exec()?))
    }

    /// Runs the command with access to the nodes.
    pub(crate) async fn run(&self, verb: &str, more: &[&str]) -> Result<CommandOutput> {
        let exec = self.node_exec()?;
        let more: Vec<&str> = [exec.as_str()].into_iter().chain(more.iter().copied()).collect();
        self.shell().bootstrap_token(self.args(verb, &more)).run().await
    }

    /// Runs it without access to the nodes.
    pub(crate) async fn run_by_hand(&self, verb: &str, more: &[&str]) -> Result<CommandOutput> {
        self.shell().bootstrap_token(self.args(verb, more)).run().await
    }

    /// Starts it in this shell.
    pub(crate) async fn spawn(&self, shell: &Shell, more: &[&str]) -> Result<Running> {
        shell.bootstrap_token(self.args("rotate", more)).start().await
    }

    pub(crate) fn shell(&self) -> &Shell {
        &self.servers.shell
    }

    /// The file with the old token.
    pub(crate) fn old_file(&self) -> &str {
        &self.old
    }

    /// The file with the new token.
    pub(crate) fn new_file(&self) -> &str {
        &self.new
    }

    /// The new token, without the hash of the CA.
    pub(crate) fn new_token(&self) -> Result<String> {
        let mode = std::fs::metadata(&self.new)?.permissions().mode() & 0o7777;
        ensure!(mode == 0o600, "others may read the new token: {mode:o}");
        let text = std::fs::read_to_string(&self.new)?;
        let prefix = format!("K10{}::server:", self.servers.ca_hash());
        let token = text.trim_end().strip_prefix(&prefix);
        token
            .map(str::to_owned)
            .context("the new token is not in the K10 form of this cluster")
    }

    /// A proxy in front of the API server of the kubeconfig, and a shell whose kubeconfig leads through it. It trusts the other
    /// servers too.
    pub(crate) async fn behind_proxy(&self) -> Result<(FaultProxy, Shell)> {
        let cluster = &self.servers.cluster;
        let upstream = Upstream {
            url: format!("https://{}:6443", cluster.address("s1")?),
            ca_pem: cluster.ca_pem().to_owned(),
            identity: None,
        };
        let proxy = FaultProxy::start([upstream]).await?;
        let kubeconfig = Kubeconfig::read(self.shell().kubeconfig())?.current("s1");
        let own = format!("https://{}:6443", cluster.address("s1")?);
        let both = format!("{}{}", proxy.ca_pem(), cluster.ca_pem());
        let kubeconfig = kubeconfig.moved(&own, proxy.url(), &both);
        let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
        Ok((proxy, shell))
    }

    /// An operator who removes the token of each server from its configuration and restarts it, when the command asks for that.
    pub(crate) async fn operate(&self, running: &Running, servers: &[&str]) -> Result<()> {
        let cluster = &self.servers.cluster;
        let mut rest = servers.to_vec();
        while !rest.is_empty() {
            let is_asked = |text: &str, server: &str| text.contains(&format!("On server {server}:"));
            let find = |text: &str| rest.iter().copied().find(|server| is_asked(text, server));
            let server = running.until_stderr("an instruction for an operator", find).await?;
            cluster.pin(server, "nowhere", None).await?;
            ensure!(cluster.restart_server(server).await?, "{server} does not start");
            rest.retain(|other| *other != server);
        }
        Ok(())
    }

    /// How many changes of the token the servers have carried out or refused.
    pub(crate) async fn puts(&self) -> Result<usize> {
        let requests = self.servers.cluster.requests().await?;
        Ok(requests.iter().filter(|request| request["method"] == "PUT").count())
    }

    /// How often a server was started, which the fixture itself does too.
    pub(crate) async fn starts(&self, server: &str) -> Result<u64> {
        let state = self.servers.cluster.state().await?;
        let starts = state["servers"][server]["unit"]["starts"].as_u64();
        starts.with_context(|| format!("{server}: {state}"))
    }

    /// Every server has loaded the new token, has it in its files, and starts with it; nothing is left of the rotation.
    pub(crate) async fn is_rotated(&self) -> Result<()> {
        let new = self.new_token()?;
        ensure!(new != TOKEN, "the token was not changed");
        self.all_have(&new).await?;
        self.starts_again().await
    }

    /// The same with the old token.
    pub(crate) async fn is_restored(&self) -> Result<()> {
        self.all_have(TOKEN).await?;
        self.starts_again().await
    }

    /// The same with the token of this fingerprint.
    pub(crate) async fn all_accept(&self, fingerprint: &str) -> Result<()> {
        self.all_have_hash(fingerprint).await?;
        self.starts_again().await
    }

    async fn all_have(&self, token: &str) -> Result<()> {
        self.all_have_hash(&hash12(token)).await
    }

    async fn all_have_hash(&self, expected: &str) -> Result<()> {
        let state = self.servers.cluster.state().await?;
        for (name, server) in state["servers"].as_object().context("no servers")? {
            let has = (&server["live"]["server"], &server["files"]["token"]["fingerprint"]);
            ensure!(server["phase"] == "ready", "{name} is not ready: {server}");
            ensure!(
                has == (&json!(expected), &json!(expected)),
                "{name} has {has:?}, not {expected}"
            );
        }
        ensure!(
            state["datastore"]["keys"] == json!([expected]),
            "{}",
            state["datastore"]
        );
        self.has_left_nothing().await
    }

    /// The pods, and the Secrets with their scripts.
    pub(crate) async fn of_pods(&self) -> Result<String> {
        let get = [
            "-n",
            "kube-system",
            "get",
            "pods,secrets",
            "-l",
            POD_LABEL,
            "-o",
            "name",
        ];
        Ok(self.shell().kubectl(get).run().await?.expect(0)?.stdout)
    }

    /// No backup Secret, no journal, no snapshot that only checked files, no backup of a file, and no pod.
    pub(crate) async fn has_left_nothing(&self) -> Result<()> {
        let pods = self.of_pods().await?;
        ensure!(pods.is_empty(), "left: {pods}");
        let get = ["-n", "kube-system", "get", "secrets", "-o", "name"];
        let secrets = self.shell().kubectl(get).run().await?.expect(0)?;
        ensure!(!secrets.stdout.contains(BACKUP), "{secrets}");
        let get = ["-n", "kube-system", "get", "lease", "server-token", "-o", "json"];
        let lease = self.shell().kubectl(get).run().await?.expect(0)?;
        ensure!(!lease.stdout.contains("kubectl-rotation.github.io/journal"), "{lease}");
        let state = self.servers.cluster.state().await?;
        let snapshots = state["datastore"]["snapshots"].to_string();
        ensure!(!snapshots.contains("-check-"), "{snapshots}");
        // Of agents too.
        let left = backups(&self.servers.cluster.root("."))?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    }

    /// The rule about file times can only strike where time has passed.
    pub(crate) async fn starts_again(&self) -> Result<()> {
        let cluster = &self.servers.cluster;
        let state = cluster.state().await?;
        let names: Vec<&String> = state["servers"]
            .as_object()
            .into_iter()
            .flat_map(|all| all.keys())
            .collect();
        for _ in 0..2 {
            for name in &names {
                ensure!(
                    cluster.restart_server(name).await?,
                    "{name} does not start:\n{}",
                    cluster.log(name)?
                );
            }
        }
        Ok(())
    }

    /// Neither token is in the output.
    pub(crate) fn prints_no_token(&self, output: &CommandOutput) -> Result<()> {
        let text = output.to_string();
        ensure!(!text.contains(TOKEN), "the old token is printed:\n{text}");
        ensure!(!text.contains(&self.new_token()?), "the new token is printed:\n{text}");
        Ok(())
    }
}

/// What the fake calls a token.
pub(crate) fn hash12(token: &str) -> String {
    let digest = Sha256::digest(token);
    let first = digest.iter().take(6);
    first.fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// All files below a directory that are a backup of a run.
pub(crate) fn backups(dir: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        // A link may lead out of the node.
        if entry.file_type()?.is_dir() {
            found.extend(backups(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "bak") {
            found.push(path);
        }
    }
    Ok(found)
}
