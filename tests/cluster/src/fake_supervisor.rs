//! A fake cluster of K3s or RKE2 servers as processes of the test environment, and its control endpoints as methods.
//! Nodes, Secrets and snapshot objects are those of a control plane. Each server has its own API port in front of it,
//! which is away while that server is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::component::{Component, Launch};
use crate::control_plane::ControlPlane;
use crate::fake_rancher::{built, ready};
use crate::kubeconfig::{Identity, Kubeconfig};

/// The account of [`FakeSupervisor::kubeconfig`]. A client certificate would end at the servers' API ports.
const ACCOUNT: &str = "fake-supervisor-admin";
const API_PORT: u16 = 6443;
/// The last part of the address of the first agent.
const AGENTS: usize = 100;
const POLL: Duration = Duration::from_millis(50);

/// The parameters of a fake cluster.
pub struct FakeSupervisorOptions<'a> {
    /// The control plane of its Nodes. One control plane has at most one fake cluster.
    pub plane: &'a ControlPlane,
    /// The directory for its files. It is created if necessary.
    pub dir: &'a Path,
    /// `{"token", "servers": [{"name": "s1", "pin": "nowhere"}], "agents"?: [{"name": "a1", "pin": "env", "token": "…"}],
    /// "distribution"?, "timing"?, …}`; see `config.rs` of `fake-supervisor`. Addresses are added. A restart takes half a second, so that file times are too close for the
    /// rule of 3 s: where a test is about that rule, set `{"timing": {"writeGap": 4}}`, or call
    /// [`FakeSupervisor::time_passes`] between the steps.
    pub cluster: Value,
}

/// A running fake cluster. Dropping it ends its processes; the Nodes stay in the API server.
pub struct FakeSupervisor {
    dir: PathBuf,
    ca_pem: String,
    /// Names and addresses.
    servers: Vec<(String, String)>,
    prefix: String,
    bearer: String,
    control: Client,
    process: Component,
}

impl FakeSupervisor {
    /// Starts it, and returns when all servers are ready.
    pub async fn start(options: FakeSupervisorOptions<'_>) -> Result<Self> {
        let FakeSupervisorOptions {
            plane,
            dir,
            mut cluster,
        } = options;
        std::fs::create_dir_all(dir)?;
        let prefix = loopback();
        let mut servers = Vec::new();
        for server in cluster["servers"].as_array_mut().context("no servers")? {
            let name = server["name"].as_str().context("a server without a name")?.to_owned();
            let address = format!("{prefix}.{}", servers.len() + 1);
            server["address"] = json!(address);
            servers.push((name, address));
        }
        let agents = cluster.get_mut("agents").and_then(Value::as_array_mut);
        for (at, agent) in agents.into_iter().flatten().enumerate() {
            agent["address"] = json!(format!("{prefix}.{}", AGENTS + at));
        }
        cluster["kubeconfig"] = json!(plane.kubeconfig());
        std::fs::write(dir.join("cluster.json"), cluster.to_string())?;
        let launch = Launch {
            name: "fake-supervisor",
            argv: vec![
                built("fake-supervisor")?.into(),
                "manage".into(),
                "--dir".into(),
                dir.into(),
            ],
            env: Vec::new(),
            dir,
            log: dir.join("fake-supervisor.log"),
        };
        let (process, stdout) = Component::start_with_stdout(launch)?;
        let mut control = Config::new(ready(&process, stdout).await?.parse()?);
        control.default_retry = false;
        let cluster = Self {
            dir: dir.to_owned(),
            ca_pem: std::fs::read_to_string(dir.join("ca.pem"))?,
            servers,
            prefix,
            bearer: bearer(&plane.client().await?).await?,
            control: Client::try_from(control)?,
            process,
        };
        let are_ready = |state: &Value| {
            let servers = state["servers"].as_object();
            servers.is_some_and(|all| all.values().all(|server| server["phase"] == "ready"))
        };
        cluster.wait_for("all servers to be ready", are_ready).await?;
        Ok(cluster)
    }

    /// The snapshots of a cluster, with a client of its API.
    pub fn snapshot_files(client: Client) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("k3s.cattle.io", "v1", "ETCDSnapshotFile");
        Api::all_with(client, &ApiResource::from_gvk(&kind))
    }

    /// What `/cacerts` of every server returns.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The manager of all servers.
    pub fn process(&self) -> &Component {
        &self.process
    }

    /// The address of a server's Node. Supervisor and API have their usual ports there.
    pub fn address(&self, server: &str) -> Result<&str> {
        let found = self.servers.iter().find(|(name, _)| name == server);
        Ok(&found.with_context(|| format!("server {server:?} not found"))?.1)
    }

    /// A kubeconfig of an administrator with one context for each server, which leads to that server's own API port.
    pub fn kubeconfig(&self) -> Kubeconfig {
        let token = Identity::Token(self.bearer.clone());
        self.servers
            .iter()
            .fold(Kubeconfig::new(), |kubeconfig, (name, address)| {
                let url = format!("https://{address}:{API_PORT}");
                kubeconfig.context(name, &url, &self.ca_pem, &token)
            })
    }

    /// The directory that stands for the root of the file system of a server, or of an agent.
    pub fn root(&self, server: &str) -> PathBuf {
        self.dir.join("nodes").join(server)
    }

    /// The value of `--node-exec`: it stands for `ssh root@{address}`.
    pub fn node_exec(&self) -> Result<String> {
        let program = built("fake-supervisor")?;
        Ok(format!(
            "'{}' node-exec --dir '{}' {{address}} --",
            program.display(),
            self.dir.display()
        ))
    }

    /// The log of a server, as `journalctl` prints it.
    pub fn log(&self, server: &str) -> Result<String> {
        let dir = self.root(server).join("log");
        for file in ["k3s.log", "rke2.log"] {
            if let Ok(text) = std::fs::read_to_string(dir.join(file)) {
                return Ok(text);
            }
        }
        bail!("no log in {}", dir.display())
    }

    /// All servers and the datastore: `servers.<name>.{phase, live, files, copy, configured, unit, faults, log}` and
    /// `datastore.{keys, files, members, quorum, snapshots}`. Passwords are fingerprints: 12 digits of the SHA-256.
    pub async fn state(&self) -> Result<Value> {
        self.send(Method::GET, "state", &Value::Null).await
    }

    /// Waits until a condition of the state holds.
    pub async fn wait_for(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let waiting = async {
            loop {
                let state = self.state().await?;
                if condition(&state) {
                    return Ok(state);
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(Duration::from_mins(1), waiting).await {
            Ok(state) => state,
            Err(_) => bail!("{what} did not come within a minute: {}", self.state().await?),
        }
    }

    /// How long servers were away, in sum, until the sender is dropped. Fails if two were at once.
    pub async fn watch_restarts(&self, mut until: oneshot::Receiver<()>) -> Result<Duration> {
        let (mut away, mut last) = (Duration::ZERO, Instant::now());
        loop {
            let state = self.state().await?;
            let servers = state["servers"].as_object().context("no servers")?;
            let is_up = |server: &Value| server["phase"] == "ready" && server["unit"]["active"] == "active";
            let names: Vec<&String> = servers
                .iter()
                .filter(|(_, it)| !is_up(it))
                .map(|(name, _)| name)
                .collect();
            ensure!(names.len() <= 1, "two servers are away: {names:?}");
            if !names.is_empty() {
                away += last.elapsed();
            }
            last = Instant::now();
            let ended = tokio::time::timeout(Duration::from_millis(20), &mut until).await;
            if ended.is_ok() {
                return Ok(away);
            }
        }
    }

    /// Every request that a server answered: `node`, `method`, `path`, `user`, `status`, `ms`, `at`.
    pub async fn requests(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_value(
            self.send(Method::GET, "requests", &Value::Null).await?,
        )?)
    }

    /// Starts a stopped server. Returns whether it became ready.
    pub async fn start_server(&self, server: &str) -> Result<bool> {
        Ok(self.on(server, "start", &json!({})).await?["ready"] == true)
    }

    /// Stops a server.
    pub async fn stop_server(&self, server: &str) -> Result<()> {
        self.on(server, "stop", &json!({})).await.map(drop)
    }

    /// Restarts a server. Returns whether it became ready at its first start.
    pub async fn restart_server(&self, server: &str) -> Result<bool> {
        Ok(self.on(server, "restart", &json!({})).await?["ready"] == true)
    }

    /// Kills a server. Its unit restarts it.
    pub async fn kill_server(&self, server: &str) -> Result<()> {
        self.on(server, "kill", &json!({})).await.map(drop)
    }

    /// The pods that the kubelet of a server has started: each with its name, its object and its log.
    pub fn pods(&self, server: &str) -> Result<Vec<(String, Value, String)>> {
        let mut pods = Vec::new();
        let Ok(entries) = std::fs::read_dir(self.root(server).join("log/pods")) else {
            return Ok(pods);
        };
        for entry in entries {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "json") {
                let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let object = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
                let log = std::fs::read_to_string(file.with_extension("log")).unwrap_or_default();
                pods.push((name, object, log));
            }
        }
        Ok(pods)
    }

    /// Changes the named faults of a server, or those of the network and of pods of an agent: `{"kill": "after-key", "delay": 2.5, "cut": true, "ahead": 5.0, "hold": "login",
    /// "staysDown": true, "leads": true, "podDelay": 20.0, "podWaits": "ImagePullBackOff", "podEvicted": true}`. A start does not get
    /// beyond the phase `hold`: `unavailable`, `login`, `etcd`, `api`.
    pub async fn faults(&self, server: &str, faults: &Value) -> Result<()> {
        self.on(server, "faults", faults).await.map(drop)
    }

    /// Writes the configuration of a server as configuration management does: `pin` is `nowhere`, `config`,
    /// `config-dir`, `env`, `flag` or `token-file`.
    pub async fn pin(&self, server: &str, pin: &str, token: Option<&str>) -> Result<()> {
        self.on(server, "pin", &json!({"pin": pin, "token": token}))
            .await
            .map(drop)
    }

    /// Advances secrets-encryption on a server: `prepare`, `rotate_keys`, or another name of a stage.
    pub async fn encryption(&self, server: &str, stage: &str) -> Result<()> {
        self.on(server, "encryption", &json!({"stage": stage})).await.map(drop)
    }

    /// How long everything takes from the next start of each server, as a part of that of real servers.
    pub fn slow_down(&self, scale: f64) -> Result<()> {
        let file = self.dir.join("cluster.json");
        let mut cluster: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        cluster["timing"]["scale"] = json!(scale);
        Ok(std::fs::write(file, cluster.to_string())?)
    }

    /// Another server joins with this token. Returns whether it became ready.
    pub async fn add_server(&mut self, name: &str, token: &str) -> Result<bool> {
        let address = format!("{}.{}", self.prefix, self.servers.len() + 1);
        self.servers.push((name.to_owned(), address.clone()));
        let body = json!({"name": name, "address": address, "token": token});
        Ok(self.send(Method::POST, "nodes", &body).await?["ready"] == true)
    }

    /// A node tries to join as an agent. Returns the error, if it cannot.
    pub async fn join_agent(&self, name: &str, token: &str) -> Result<Option<String>> {
        let answer = self
            .send(Method::POST, "agents", &json!({"name": name, "token": token}))
            .await?;
        Ok(answer["error"].as_str().map(str::to_owned))
    }

    /// Makes every file, and every time in the datastore, so much older. Rules about file times can then be tested
    /// without waiting.
    pub async fn time_passes(&self, by: Duration) -> Result<()> {
        self.send(Method::POST, "age", &json!({"seconds": by.as_secs()}))
            .await
            .map(drop)
    }

    async fn on(&self, server: &str, action: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, &format!("nodes/{server}/{action}"), body).await
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body)?
        };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("/{path}"))
            .body(body)?;
        let text = self.control.request_text(request).await;
        let text = text.with_context(|| format!("request {path} from the fake supervisor"))?;
        serde_json::from_str(&text).with_context(|| format!("the fake supervisor returned {text:?}"))
    }
}

/// Three octets of 127.0.0.0/8 that no other fake cluster of this machine uses.
fn loopback() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    format!(
        "127.{}.{}",
        1 + std::process::id() % 250,
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A bearer token of an administrator.
async fn bearer(client: &Client) -> Result<String> {
    let params = PatchParams::apply("test-cluster").force();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "kube-system");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}});
    accounts.patch(ACCOUNT, &params, &Patch::Apply(account)).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": ACCOUNT}],
    });
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    bindings.patch(ACCOUNT, &params, &Patch::Apply(binding)).await?;
    let request = accounts
        .create_token_request(ACCOUNT, &PostParams::default(), &TokenRequest::default())
        .await?;
    Ok(request.status.context("the API server issued no token")?.token)
}
