//! The fake Rancher as a process of the test environment, and its control endpoints as methods.

mod calls;
mod lost_agents;
mod registration;
mod report;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::component::{Component, Launch};
use crate::control_plane::ControlPlane;
use crate::environment::TokenStorage;
use crate::fault_proxy::{FaultProxy, Upstream};
use crate::kubeconfig::{Identity, Kubeconfig};
use crate::pki::{Authority, KeyPairPem};

pub use calls::Call;
pub use lost_agents::Backup;
pub use registration::{Registered, Registration, User};
pub use report::{Interval, Report, Session, Without};

/// How long the start may take. It lists both clusters and creates its kinds first.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running fake Rancher. Dropping it ends its process; the registered clusters stay in the API servers.
pub struct FakeRancher {
    storage: TokenStorage,
    url: String,
    authority: Authority,
    users: Vec<User>,
    management: (String, String, Identity),
    log: PathBuf,
    process: Component,
}

/// The parameters of a fake Rancher.
pub struct FakeRancherOptions<'a> {
    /// The initial token storage; [`FakeRancher::upgrade`] changes it.
    pub storage: TokenStorage,
    /// The cluster of Rancher's own objects.
    pub management: &'a ControlPlane,
    /// The cluster of the agents of all registered clusters.
    pub downstream: &'a ControlPlane,
    /// The directory for its files. It is created if necessary.
    pub dir: &'a Path,
    /// Overrides of its timing: `{"agentRetry": "10s"}`.
    pub timing: Value,
}

impl FakeRancher {
    /// Starts it, and returns when it serves.
    pub async fn start(options: FakeRancherOptions<'_>) -> Result<Self> {
        let FakeRancherOptions {
            storage,
            management,
            downstream,
            dir,
            timing,
        } = options;
        std::fs::create_dir_all(dir)?;
        let authority = Authority::new("fake Rancher CA")?;
        let serving = authority.server("rancher.test", &["rancher.test"])?;
        let (ca, certificate, key) = (dir.join("ca.crt"), dir.join("server.crt"), dir.join("server.key"));
        std::fs::write(&ca, authority.ca_pem())?;
        std::fs::write(&certificate, serving.certificate)?;
        std::fs::write(&key, serving.key)?;
        let users = vec![User::admin(), User::viewer()];
        let log = dir.join("log.jsonl");
        let config = json!({
            "storage": storage.word(), "listen": "127.0.0.1:0", "users": users, "timing": timing,
            "management": management.kubeconfig(), "downstream": downstream.kubeconfig(),
            "certificate": certificate, "key": key, "ca": ca, "log": log,
        });
        let file = dir.join("config.json");
        std::fs::write(&file, config.to_string())?;
        let argv = vec![built("fake-rancher")?.into(), "--config".into(), file.into()];
        let launch = Launch {
            name: "fake-rancher",
            argv,
            env: Vec::new(),
            dir,
            log: dir.join("fake-rancher.log"),
        };
        let (process, stdout) = Component::start_with_stdout(launch)?;
        let url = ready(&process, stdout).await?;
        let identity = Identity::Certificate(management.admin().clone());
        let management = (
            management.url().to_owned(),
            management.authority().ca_pem().to_owned(),
            identity,
        );
        Ok(Self {
            storage,
            url,
            authority,
            users,
            management,
            log,
            process,
        })
    }

    /// The initial token storage.
    pub fn storage(&self) -> TokenStorage {
        self.storage
    }

    /// Rancher's URL, which is also its `server-url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The CA that signed its certificate.
    pub fn ca_pem(&self) -> &str {
        self.authority.ca_pem()
    }

    /// Its process, for tests that stop or kill a separate Rancher.
    pub fn process(&self) -> &Component {
        &self.process
    }

    /// A kubeconfig of its admin with the usual contexts: `rancher` (the cluster `local` through the proxy), `bare`
    /// (the URL without a path), `management` (the admin of the management cluster itself).
    pub fn kubeconfig(&self) -> Kubeconfig {
        self.kubeconfig_of(&User::admin())
    }

    /// The same for another user. `management` is still that of the admin.
    pub fn kubeconfig_of(&self, user: &User) -> Kubeconfig {
        let token = Identity::Token(user.token.clone());
        let (management, management_ca, admin) = &self.management;
        Kubeconfig::new()
            .context(
                "rancher",
                &format!("{}/k8s/clusters/local", self.url),
                self.ca_pem(),
                &token,
            )
            .context("bare", &self.url, self.ca_pem(), &token)
            .context("management", management, management_ca, admin)
    }

    /// Adds the two routes to a registered cluster: `<id>` (through Rancher and its tunnel) and `<id>-direct` (its own
    /// API server, without a tunnel).
    pub fn with_cluster(&self, kubeconfig: Kubeconfig, cluster: &Registered, user: &User) -> Kubeconfig {
        let (id, token) = (&cluster.id, Identity::Token(user.token.clone()));
        kubeconfig
            .context(id, &format!("{}/k8s/clusters/{id}", self.url), self.ca_pem(), &token)
            .context(
                &format!("{id}-direct"),
                &format!("{}/direct/{id}", self.url),
                self.ca_pem(),
                &token,
            )
    }

    /// The cluster's own API server under an address that Rancher does not know, with a certificate of the cluster's own CA; and the same
    /// kubeconfig with a context of this name for it. It serves until the proxy is dropped.
    pub async fn with_own_address(
        &self,
        kubeconfig: Kubeconfig,
        (name, cluster, user): (&str, &Registered, &User),
    ) -> Result<(FaultProxy, Kubeconfig)> {
        let path = format!("clusters/{}/serving-certificate", cluster.id);
        let answer = self.control(Method::GET, &path, &Value::Null).await?;
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        let pair = KeyPairPem {
            certificate: text("certificate"),
            key: text("key"),
        };
        let proxy = FaultProxy::start_as(&pair, &text("ca"), [self.upstream()]).await?;
        let url = format!("{}/direct/{}", proxy.url(), cluster.id);
        let kubeconfig = kubeconfig.context(name, &url, proxy.ca_pem(), &Identity::Token(user.token.clone()));
        Ok((proxy, kubeconfig))
    }

    /// The upstream for a fault proxy in front of it.
    pub fn upstream(&self) -> Upstream {
        Upstream {
            url: self.url.clone(),
            ca_pem: self.ca_pem().to_owned(),
            identity: None,
        }
    }

    /// Its users.
    pub fn users(&self) -> &[User] {
        &self.users
    }

    /// Registers a generic imported cluster, and returns when its agent is connected.
    pub async fn register(&self, display_name: &str) -> Result<Registered> {
        self.register_as(&Registration::imported(display_name)).await
    }

    /// Registers a cluster, and returns when its agent is connected.
    pub async fn register_as(&self, registration: &Registration) -> Result<Registered> {
        let answer = self
            .control(Method::POST, "clusters", &serde_json::to_value(registration)?)
            .await?;
        let id = answer["id"]
            .as_str()
            .with_context(|| format!("the fake Rancher returned no id: {answer}"))?
            .to_owned();
        Ok(Registered {
            id,
            display_name: registration.display_name.clone(),
        })
    }

    /// Removes a cluster on both sides.
    pub async fn remove(&self, cluster: &Registered) -> Result<()> {
        self.control(Method::DELETE, &format!("clusters/{}", cluster.id), &Value::Null)
            .await
            .map(drop)
    }

    /// Requests another deployment of the agent, like `force.deploy`, and returns at once.
    pub async fn request_redeploy(&self, cluster: &Registered) -> Result<()> {
        self.of(cluster, "redeploy", &json!({})).await.map(drop)
    }

    /// Deploys the agent again, like `force.deploy`, and returns when the Cluster shows it. Fails if it never does,
    /// because the agent is lost by it.
    pub async fn redeploy(&self, cluster: &Registered) -> Result<()> {
        self.of(cluster, "redeploy", &json!({ "wait": true })).await.map(drop)
    }

    /// Starts a racing redeploy: it is applied after `lands_after`, with the token of that moment or, with
    /// `rendered_now`, of this moment. Returns at once.
    pub async fn redeploy_later(&self, cluster: &Registered, rendered_now: bool, lands_after: Duration) -> Result<()> {
        let body = json!({ "renderedNow": rendered_now, "landsAfter": go_duration(lands_after) });
        self.of(cluster, "redeploy", &body).await.map(drop)
    }

    /// Sets the duration of an apply of this cluster's agent, from reading the Cluster to updating it. Seen on Rancher
    /// 2.15.0 and 2.12.0: 2.5 to 4 s without latency, 5.5 to 8.6 s at 80 ms of round trip, 9.7 to 11.9 s at 200 ms.
    pub async fn redeploy_takes(&self, cluster: &Registered, takes: Duration) -> Result<()> {
        self.of(cluster, "timing", &json!({ "redeploy": go_duration(takes) }))
            .await
            .map(drop)
    }

    /// Closes every tunnel of the cluster. The agents reconnect by themselves. The steve tunnels reopen one after
    /// another, so that the oldest pod (or the youngest, without `oldest_last`) records its token last.
    pub async fn drop_tunnels(&self, cluster: &Registered, oldest_last: bool) -> Result<()> {
        self.of(cluster, "drop-tunnels", &json!({ "oldestLast": oldest_last }))
            .await
            .map(drop)
    }

    /// Prevents the agents of the cluster from connecting for a while.
    pub async fn offline(&self, cluster: &Registered, lasts: Duration) -> Result<()> {
        self.of(cluster, "offline", &json!({ "for": go_duration(lasts) }))
            .await
            .map(drop)
    }

    /// Lets the agents connect again.
    pub async fn online(&self, cluster: &Registered) -> Result<()> {
        self.of(cluster, "online", &json!({})).await.map(drop)
    }

    /// Makes the agents delete other credential Secrets, as they do once an hour, and pretends that all are old enough.
    /// Returns the names of the deleted ones.
    pub async fn agent_cleanup(&self, cluster: &Registered) -> Result<Vec<String>> {
        let answer = self.of(cluster, "agent-cleanup", &json!({})).await?;
        serde_json::from_value(answer["deleted"].clone()).with_context(|| format!("the fake Rancher returned {answer}"))
    }

    /// Wakes Rancher's controllers for this cluster, like any write to it.
    pub async fn cluster_event(&self, cluster: &Registered) -> Result<()> {
        self.of(cluster, "cluster-event", &json!({})).await.map(drop)
    }

    /// Sets `status.caCert` of the Cluster to an outdated CA until its agent connects again, or to the right one. The
    /// change is an event of the Cluster.
    pub async fn stale_ca_cert(&self, cluster: &Registered, stale: bool) -> Result<()> {
        self.of(cluster, "ca-cert", &json!({ "stale": stale })).await.map(drop)
    }

    /// Changes a control-plane machine of a provisioned cluster: `{"running": false}` stops its system-agent, `{"restart": true}` starts its
    /// server, which applies the file that it has, `{"delete": true}` deletes the Machine.
    pub async fn change_machine(&self, cluster: &Registered, machine: &str, change: &Value) -> Result<()> {
        self.of(cluster, &format!("machines/{machine}"), change).await.map(drop)
    }

    /// Clears the recorded interruptions.
    pub async fn reset(&self, cluster: &Registered) -> Result<()> {
        self.of(cluster, "reset", &json!({})).await.map(drop)
    }

    /// Makes Rancher itself fail: `{"replicaLag": "2s", "replicas": 2, "leaderGap": "5s", "refuse": [fingerprint],
    /// "refuseNewTokens": [cluster], "admit": ["*"]}`, or changes its timing.
    pub async fn fault(&self, fault: &Value) -> Result<()> {
        self.control(Method::POST, "faults", fault).await.map(drop)
    }

    /// Another URL at which it serves, with a valid certificate. No setting names it yet.
    pub fn other_url(&self) -> String {
        self.url.replace("127.0.0.1", "localhost")
    }

    /// Changes the setting `server-url`, and whether agents can reach Rancher there. The next deployment of an agent
    /// renders the new URL; nothing is pushed before. The setting is that of all clusters of this Rancher.
    pub async fn change_server_url(&self, url: &str, reachable: bool) -> Result<()> {
        let body = json!({ "serverUrl": url, "reachable": reachable });
        self.control(Method::POST, "settings", &body).await.map(drop)
    }

    /// Changes the setting `cacerts`, but not the certificate of the server, which stays signed by
    /// [`ca_pem`](Self::ca_pem). Nothing is pushed, but an agent that starts with the old checksum exits.
    pub async fn change_cacerts(&self, pem: &str) -> Result<()> {
        self.control(Method::POST, "settings", &json!({ "cacerts": pem }))
            .await
            .map(drop)
    }

    /// Sets whether agents can reach Rancher at a URL. If not, their tunnels to it break.
    pub async fn reachable(&self, url: &str, reachable: bool) -> Result<()> {
        let body = json!({ "url": url, "reachable": reachable });
        self.control(Method::POST, "addresses", &body).await.map(drop)
    }

    /// Adds a user, or changes the token of one.
    pub async fn add_user(&self, user: &User) -> Result<()> {
        self.control(Method::POST, "users", &serde_json::to_value(user)?)
            .await
            .map(drop)
    }

    /// Removes a user. Their tokens are invalid from now on.
    pub async fn remove_user(&self, name: &str) -> Result<()> {
        self.control(Method::DELETE, &format!("users/{name}"), &json!({}))
            .await
            .map(drop)
    }

    /// All issued API tokens of all users: `name`, `user`, `clusterId`, `valid`, `lastUsedAt`, `description`.
    pub async fn tokens(&self) -> Result<Vec<Value>> {
        let answer = self.control(Method::GET, "tokens", &Value::Null).await?;
        serde_json::from_value(answer).context("understand the tokens of the fake Rancher")
    }

    /// Changes an API token as an administrator or time does: `{"enabled": false}`, `{"expired": true}`.
    pub async fn change_token(&self, name: &str, change: &Value) -> Result<()> {
        self.control(Method::POST, &format!("tokens/{name}"), change)
            .await
            .map(drop)
    }

    /// Upgrades Rancher from [`TokenStorage::Status`] to [`TokenStorage::Secret`]. Only for a separate Rancher.
    pub async fn upgrade(&self) -> Result<()> {
        self.control(Method::POST, "upgrade", &json!({})).await.map(drop)
    }

    /// The tunnels and tokens of a cluster.
    pub async fn report(&self, cluster: &Registered) -> Result<Report> {
        let answer = self
            .control(Method::GET, &format!("clusters/{}", cluster.id), &Value::Null)
            .await?;
        serde_json::from_value(answer.clone())
            .with_context(|| format!("understand the report of the fake Rancher: {answer}"))
    }

    /// All log entries so far: requests, tunnels, rotations, with fingerprints.
    pub fn log(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.log)?;
        // The last line may be incomplete.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("log line {line}")))
            .collect()
    }

    /// The log entries of a cluster.
    pub fn log_of(&self, cluster: &Registered) -> Result<Vec<Value>> {
        let mut lines = self.log()?;
        lines.retain(|line| line["cluster"] == json!(cluster.id));
        Ok(lines)
    }

    /// A client of the user for a path of the fake Rancher: `/k8s/clusters/local`, `/direct/c-abcde`.
    pub fn client(&self, path: &str, user: Option<&User>) -> Result<Client> {
        let mut config = Config::new(format!("{}{path}", self.url).parse()?);
        config.root_cert = Some(vec![CertificateDer::from_pem_slice(self.ca_pem().as_bytes())?.to_vec()]);
        // Tests need the first response.
        config.default_retry = false;
        config.auth_info.token = user.map(|user| user.token.clone().into());
        Ok(Client::try_from(config)?)
    }

    async fn of(&self, cluster: &Registered, action: &str, body: &Value) -> Result<Value> {
        self.control(Method::POST, &format!("clusters/{}/{action}", cluster.id), body)
            .await
    }

    async fn control(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let uri = format!("/control/{path}");
        let request = http::Request::builder()
            .method(method)
            .uri(&uri)
            .header("content-type", "application/json");
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body)?
        };
        let answer = self.client("", None)?.request_text(request.body(body)?).await;
        let text = answer.with_context(|| {
            format!(
                "request {uri} from the fake Rancher; its log is {}",
                self.process.log().display()
            )
        })?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("the fake Rancher returned {text:?}"))
    }
}

/// Waits for the line with its URL.
pub(crate) async fn ready(process: &Component, stdout: std::process::ChildStdout) -> Result<String> {
    #[derive(Deserialize)]
    struct Ready {
        url: String,
    }
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map(|_| line)
    });
    // The end of the process closes the pipe and ends the read.
    let Ok(line) = tokio::time::timeout(PATIENCE, line).await else {
        process.kill().await;
        bail!(
            process
                .death()
                .context("it did not say within a minute where it serves")
        )
    };
    let line = line??;
    if line.is_empty() {
        process.wait_ended().await;
        return Err(process.death());
    }
    Ok(serde_json::from_str::<Ready>(&line)
        .with_context(|| format!("its first line was {line:?}"))?
        .url)
}

/// A program of this workspace, in the directory of the running test.
pub fn built(program: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // Test executables are in `deps`, one level below.
    let found = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file());
    found.with_context(|| format!("{program} is not built; do it by `cargo build -p {program}`"))
}

fn go_duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
