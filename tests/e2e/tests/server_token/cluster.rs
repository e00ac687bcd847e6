//! The clusters of these tests, and requests to supervisors. No code is shared with the plugin.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{CommandOutput, Shell};
use http::Method;
use kube::client::Body;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use test_cluster::{FakeSupervisor, FakeSupervisorOptions, Kubeconfig, TestEnvironment};
use tokio::sync::OnceCell;

use crate::planes::Borrowed;

/// The server token at the start.
pub(crate) const TOKEN: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// A token that no server has.
pub(crate) const OTHER: &str = "5d41402abc4b2a76b9719d911017c592";

/// A cluster of fake servers on a control plane of its own, and the shell of its admin.
pub(crate) struct ServerFixture {
    pub(crate) cluster: FakeSupervisor,
    pub(crate) shell: Shell,
    /// `k3s` or `rke2`.
    pub(crate) program: &'static str,
    /// The Nodes are in its API server. It is dropped last.
    _plane: Borrowed,
}

impl ServerFixture {
    /// `name` must be unique. `cluster`: the configuration of the fake, without the token.
    pub(crate) async fn start(name: &str, mut cluster: Value) -> Result<Self> {
        let environment = TestEnvironment::shared().await?;
        let dir = environment.dir().join(name);
        let servers = dir.join("servers");
        let plane = Borrowed::take(&servers).await?;
        cluster["token"] = json!(TOKEN);
        let program = if cluster["distribution"] == "rke2" {
            "rke2"
        } else {
            "k3s"
        };
        let options = FakeSupervisorOptions {
            plane: plane.plane()?,
            dir: &servers,
            cluster,
        };
        let cluster = FakeSupervisor::start(options).await?;
        let shell = Shell::new(environment, &cluster.kubeconfig())?;
        Ok(Self {
            cluster,
            shell,
            program,
            _plane: plane,
        })
    }

    /// Three servers whose token is configured nowhere.
    pub(crate) async fn start_three(name: &str, encryption: bool) -> Result<Self> {
        let server = |name: &str| json!({ "name": name, "pin": "nowhere" });
        let servers = ["s1", "s2", "s3"].map(server);
        Self::start(name, json!({ "servers": servers, "encryption": encryption })).await
    }

    /// Three servers with different configurations, and an agent. Tests only read them.
    pub(crate) async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Result<ServerFixture, String>> = OnceCell::const_new();
        let start = async || {
            let servers = [("s1", "nowhere"), ("s2", "config"), ("s3", "env")];
            let servers = servers.map(|(name, pin)| json!({ "name": name, "pin": pin }));
            let fixture = Self::start("server-token", json!({ "servers": servers })).await?;
            let refused = fixture.cluster.join_agent("a1", TOKEN).await?;
            ensure!(refused.is_none(), "the agent did not join: {refused:?}");
            Ok(fixture)
        };
        let started = SHARED
            .get_or_init(async || start().await.map_err(|error| format!("{error:#}")))
            .await;
        started.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// `kubectl bootstrap-token server-token ARGS` with a token on standard input, if it is not empty.
    pub(crate) async fn run(&self, args: &[&str], token: &str) -> Result<CommandOutput> {
        run(&self.shell, args, token).await
    }

    /// The document that it prints.
    pub(crate) async fn json(&self, args: &[&str], token: &str, code: i32) -> Result<Value> {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        Ok(serde_json::from_str(
            &self.run(&args, token).await?.expect(code)?.stdout,
        )?)
    }

    /// The hash of the CA in the `K10` form of a token: of one certificate, that of the file.
    pub(crate) fn ca_hash(&self) -> String {
        let digest = Sha256::digest(self.cluster.ca_pem());
        let digits: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat()
    }

    /// The flags that name each server, for a command without the Kubernetes API.
    pub(crate) fn addresses(&self, servers: &[&str]) -> Result<Vec<String>> {
        let flag = |server: &&str| Ok(format!("--server-address={server}={}", self.cluster.address(server)?));
        servers.iter().map(flag).collect()
    }

    /// The shell of a kubeconfig that leads to this URL instead of the API server of `server`.
    pub(crate) async fn shell_at(&self, server: &str, url: &str) -> Result<Shell> {
        let kubeconfig = Kubeconfig::read(self.shell.kubeconfig())?.current(server);
        let own = format!("https://{}:6443", self.cluster.address(server)?);
        let kubeconfig = kubeconfig.moved(&own, url, self.cluster.ca_pem());
        Shell::new(TestEnvironment::shared().await?, &kubeconfig)
    }

    /// Changes the token on one server, as `k3s token rotate` does. `login`: the token that the server accepts.
    pub(crate) async fn put(&self, server: &str, login: &str, new: &str) -> Result<()> {
        let body = json!({ "newToken": new });
        let path = format!("/v1-{}/token", self.program);
        self.request(server, login, Method::PUT, &path, &body).await
    }

    /// The directory `server` of a server's data directory.
    pub(crate) fn server_dir(&self, server: &str) -> std::path::PathBuf {
        let data = format!("var/lib/rancher/{}/server", self.program);
        self.cluster.root(server).join(data)
    }

    /// Takes a snapshot on one server.
    pub(crate) async fn snapshot(&self, server: &str, login: &str, name: &str) -> Result<()> {
        let body = json!({ "operation": "save", "name": [name] });
        self.request(server, login, Method::POST, "/db/snapshot", &body).await
    }

    async fn request(&self, server: &str, login: &str, method: Method, path: &str, body: &Value) -> Result<()> {
        let port = if self.program == "rke2" { 9345 } else { 6443 };
        let mut config = kube::Config::new(format!("https://{}:{port}", self.cluster.address(server)?).parse()?);
        config.accept_invalid_certs = true;
        config.default_retry = false;
        let login = STANDARD.encode(format!("server:{login}"));
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Basic {login}"));
        let request = request.body(Body::from(body.to_string().into_bytes()))?;
        let response = kube::Client::try_from(config)?.send(request).await?;
        ensure!(response.status() == 200, "{path} on {server}: {}", response.status());
        Ok(())
    }
}

/// Runs a command in another shell.
pub(crate) async fn run(shell: &Shell, args: &[&str], token: &str) -> Result<CommandOutput> {
    let stdin: &[&str] = if token.is_empty() { &[] } else { &["--token-stdin"] };
    let args = ["server-token"].iter().chain(args).chain(stdin);
    shell.bootstrap_token(args).stdin(token).run().await
}

/// Writes a file with this mode into the home directory.
pub(crate) fn file(shell: &Shell, name: &str, text: &str, mode: u32) -> Result<String> {
    let path = shell.home().join(name);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    Ok(path.to_str().context("the path is not UTF-8")?.to_owned())
}
