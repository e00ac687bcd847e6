//! The Rancher stand-in as a process of the bed, and its control endpoints as methods.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bed::Era;
use crate::component::{Component, Launch};
use crate::control_plane::ControlPlane;
use crate::fault_proxy::Upstream;
use crate::kubeconfig::{Identity, Kubeconfig};
use crate::pki::Authority;

/// How long the stand-in may take until it serves; it lists both clusters and creates its kinds first.
const PATIENCE: Duration = Duration::from_mins(1);

/// A user of the stand-in's Rancher.
#[derive(Clone, Serialize)]
pub struct User {
    /// The Rancher user id: `u-abcde`.
    pub name: String,
    /// The whole bearer value, `token-…:…`.
    pub token: String,
    /// Groups on both sides.
    pub groups: Vec<String>,
}

impl User {
    /// One who may do everything, on both sides.
    pub fn admin() -> Self {
        Self {
            name: "user-admin".into(),
            token: "token-admin:8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf4mgsp6x".into(),
            groups: vec!["system:masters".into()],
        }
    }

    /// One who may do nothing but what a test binds to the group `viewers`.
    pub fn viewer() -> Self {
        Self {
            name: "u-viewer".into(),
            token: "token-viewer:5bj7hd9lcf4mgsp6x8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz".into(),
            groups: vec!["viewers".into()],
        }
    }
}

/// A cluster to be registered. The default is a generic imported one as Rancher 2.13 and later deploy it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// The name that people see.
    pub display_name: String,
    /// The id, if the test cares: `c-abcde`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `imported`, `k3s`, `rke2`, `eks`, `harvester`, `rke2-provisioned`, `local`.
    pub kind: String,
    /// How the downstream Secret is named: `sha256`, `md5`, `import`.
    pub name_pattern: String,
}

impl Registration {
    /// A generic imported cluster of this name.
    pub fn imported(display_name: &str) -> Self {
        Self {
            display_name: display_name.into(),
            id: None,
            kind: "imported".into(),
            name_pattern: "sha256".into(),
        }
    }

    /// The same of another kind.
    #[must_use]
    pub fn kind(mut self, kind: &str) -> Self {
        kind.clone_into(&mut self.kind);
        self
    }

    /// The same with another rule for the downstream Secret's name.
    #[must_use]
    pub fn name_pattern(mut self, pattern: &str) -> Self {
        pattern.clone_into(&mut self.name_pattern);
        self
    }
}

/// A cluster that is registered and connected.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The id: `c-abcde`.
    pub id: String,
    /// The name that people see.
    pub display_name: String,
}

impl Registered {
    /// The namespace in the shared downstream API server that this cluster's `cattle-system` really is.
    pub fn agent_namespace(&self) -> String {
        format!("cattle-system-{}", self.id)
    }
}

/// A running stand-in. Dropping it ends it; the clusters that it registered stay in the API servers.
pub struct Standin {
    era: Era,
    url: String,
    authority: Authority,
    users: Vec<User>,
    management: (String, String, Identity),
    log: PathBuf,
    process: Component,
}

/// What a stand-in is started with.
pub struct StandinOptions<'a> {
    /// Where tokens are kept at first; [`Standin::upgrade`] changes it.
    pub era: Era,
    /// Holds Rancher's own objects.
    pub management: &'a ControlPlane,
    /// Holds the agents of all registered clusters.
    pub downstream: &'a ControlPlane,
    /// For its files; made if need be.
    pub dir: &'a Path,
    /// Overrides of its timing: `{"agentRetry": "10s"}`.
    pub timing: Value,
}

impl Standin {
    /// Starts one and returns when it serves.
    pub async fn start(options: StandinOptions<'_>) -> Result<Self> {
        let StandinOptions {
            era,
            management,
            downstream,
            dir,
            timing,
        } = options;
        std::fs::create_dir_all(dir)?;
        let authority = Authority::new("stand-in CA")?;
        let serving = authority.server("rancher.test", &["rancher.test"])?;
        let (ca, certificate, key) = (dir.join("ca.crt"), dir.join("server.crt"), dir.join("server.key"));
        std::fs::write(&ca, authority.ca_pem())?;
        std::fs::write(&certificate, serving.certificate)?;
        std::fs::write(&key, serving.key)?;
        let users = vec![User::admin(), User::viewer()];
        let log = dir.join("log.jsonl");
        let config = json!({
            "era": era.word(), "listen": "127.0.0.1:0", "users": users, "timing": timing,
            "management": management.kubeconfig(), "downstream": downstream.kubeconfig(),
            "certificate": certificate, "key": key, "ca": ca, "log": log,
        });
        let file = dir.join("config.json");
        std::fs::write(&file, config.to_string())?;
        let argv = vec![built("rancher-standin")?.into(), "--config".into(), file.into()];
        let launch = Launch {
            name: "rancher-standin",
            argv,
            dir,
            log: dir.join("rancher-standin.log"),
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
            era,
            url,
            authority,
            users,
            management,
            log,
            process,
        })
    }

    /// The era that it was started in.
    pub fn era(&self) -> Era {
        self.era
    }

    /// Rancher's address, which is also its `server-url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The CA that signed its certificate.
    pub fn ca_pem(&self) -> &str {
        self.authority.ca_pem()
    }

    /// Its process, to be stopped and killed by tests that have a stand-in of their own.
    pub fn process(&self) -> &Component {
        &self.process
    }

    /// A kubeconfig of its admin with the contexts that people have: `rancher` (the cluster `local` through the proxy),
    /// `bare` (the host alone), `management` (the management cluster's own admin).
    pub fn kubeconfig(&self) -> Kubeconfig {
        self.kubeconfig_of(&User::admin())
    }

    /// The same for another user, but for `management`, which is still the admin's.
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

    /// Adds the two ways to a registered cluster: `<id>` (through Rancher and its tunnel) and `<id>-direct` (its own API
    /// server, no tunnel).
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

    /// What a fault proxy in front of it needs to know.
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
            .with_context(|| format!("the stand-in gave no id: {answer}"))?
            .to_owned();
        Ok(Registered {
            id,
            display_name: registration.display_name.clone(),
        })
    }

    /// Lets Rancher render the agent's manifest, now or at the end, and apply it after `lands_after`.
    pub async fn redeploy(&self, cluster: &Registered, rendered_now: bool, lands_after: Duration) -> Result<()> {
        let body = json!({ "renderedNow": rendered_now, "landsAfter": go_duration(lands_after) });
        self.of(cluster, "redeploy", &body).await
    }

    /// Breaks every tunnel of the cluster; its agents come back by themselves.
    pub async fn drop_tunnels(&self, cluster: &Registered) -> Result<()> {
        self.of(cluster, "drop-tunnels", &json!({})).await
    }

    /// Lets no agent of the cluster connect for a while.
    pub async fn offline(&self, cluster: &Registered, lasts: Duration) -> Result<()> {
        self.of(cluster, "offline", &json!({ "for": go_duration(lasts) })).await
    }

    /// Lets the agents delete foreign credential Secrets, as they do once an hour.
    pub async fn agent_cleanup(&self, cluster: &Registered) -> Result<()> {
        self.of(cluster, "agent-cleanup", &json!({})).await
    }

    /// Wakes Rancher's controllers for this cluster, as any write to it does.
    pub async fn cluster_event(&self, cluster: &Registered) -> Result<()> {
        self.of(cluster, "cluster-event", &json!({})).await
    }

    /// Makes Rancher itself misbehave; the stand-in's own documentation says what it knows.
    pub async fn fault(&self, fault: &Value) -> Result<Value> {
        self.control(Method::POST, "faults", fault).await
    }

    /// Upgrades Rancher from [`Era::Plain`] to [`Era::Secret`]. Only for a stand-in of one's own.
    pub async fn upgrade(&self) -> Result<()> {
        self.control(Method::POST, "upgrade", &json!({})).await.map(drop)
    }

    /// What it knows of a cluster's tunnels and tokens.
    pub async fn report(&self, cluster: &Registered) -> Result<Report> {
        let answer = self
            .control(Method::GET, &format!("clusters/{}", cluster.id), &Value::Null)
            .await?;
        serde_json::from_value(answer.clone()).with_context(|| format!("understand the stand-in's report: {answer}"))
    }

    /// Everything that it has logged so far: requests, tunnels, rotations, by fingerprint.
    pub fn log(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.log)?;
        // The last line may be half written at this moment.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("log line {line}")))
            .collect()
    }

    /// The lines of the log that are about one cluster.
    pub fn log_of(&self, cluster: &Registered) -> Result<Vec<Value>> {
        let mut lines = self.log()?;
        lines.retain(|line| line["cluster"] == json!(cluster.id));
        Ok(lines)
    }

    /// A client of the user at a path of the stand-in: `/k8s/clusters/local`, `/direct/c-abcde`.
    pub fn client(&self, path: &str, user: Option<&User>) -> Result<Client> {
        let mut config = Config::new(format!("{}{path}", self.url).parse()?);
        config.root_cert = Some(vec![CertificateDer::from_pem_slice(self.ca_pem().as_bytes())?.to_vec()]);
        config.auth_info.token = user.map(|user| user.token.clone().into());
        Ok(Client::try_from(config)?)
    }

    async fn of(&self, cluster: &Registered, action: &str, body: &Value) -> Result<()> {
        self.control(Method::POST, &format!("clusters/{}/{action}", cluster.id), body)
            .await
            .map(drop)
    }

    async fn control(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let uri = format!("/standin/{path}");
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
                "ask the stand-in for {uri}; its log is {}",
                self.process.log().display()
            )
        })?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("the stand-in answered {text:?}"))
    }
}

/// What the stand-in knows of one cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Since when an agent tunnel is open (RFC 3339), if one is.
    #[serde(default)]
    pub connected_since: Option<String>,
    /// The tunnels that are open.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// When no agent tunnel was open, since the registration was done.
    #[serde(default)]
    pub disconnected: Vec<Interval>,
    /// When something else was missing.
    #[serde(default)]
    pub without: Without,
    /// Whatever else it says.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// One open tunnel.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// `agent` or `steve`.
    pub tunnel: String,
    /// The pod that opened it.
    pub pod: String,
    /// Of the token that it was opened with.
    pub fingerprint: String,
    /// RFC 3339, milliseconds.
    pub since: String,
}

/// From when to when something was missing.
#[derive(Clone, Debug, Deserialize)]
pub struct Interval {
    /// RFC 3339, milliseconds.
    pub from: String,
    /// Nothing while it still is.
    pub to: Option<String>,
    /// So far.
    pub ms: u64,
}

/// What a cluster was without, and when.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Without {
    /// No agent tunnel was open.
    pub tunnel: Vec<Interval>,
    /// No steve tunnel was open.
    pub steve: Vec<Interval>,
    /// No running agent held a token that would have been let in.
    pub way_back: Vec<Interval>,
    /// An agent that had started then, from the Secret that the Deployment named, would not have been let in.
    pub restart_safety: Vec<Interval>,
}

/// Waits for the line that says where it serves.
async fn ready(process: &Component, stdout: std::process::ChildStdout) -> Result<String> {
    #[derive(Deserialize)]
    struct Ready {
        url: String,
    }
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map(|_| line)
    });
    // Its end closes the pipe, and so ends the reading.
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

/// A program of this workspace, beside the test that is running.
pub fn built(program: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // Test executables are in `deps`, one below.
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
