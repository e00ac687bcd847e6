//! The clusters of these tests, raw token Secrets, and whether the API server accepts a token. No code is shared with
//! the plugin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::{CommandOutput, Shell, until};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::{Api, PostParams};
use serde_json::Value;
use test_cluster::{ControlPlane, Identity, Kubeconfig, Shape, TestEnvironment};
use tokio::sync::OnceCell;

/// kubeadm's default group.
pub(crate) const KUBEADM_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

type Shared = OnceCell<Result<ControlPlane, String>>;

/// Starts a cluster. `name` must be no other's.
pub(crate) async fn start(name: &str) -> Result<ControlPlane> {
    let environment = TestEnvironment::shared().await?;
    ControlPlane::start(
        environment.programs(),
        &environment.dir().join(name),
        name,
        Shape::WithoutNodes,
    )
    .await
}

async fn shared(cell: &'static Shared, name: &str) -> Result<&'static ControlPlane> {
    let started = cell
        .get_or_init(async || start(name).await.map_err(|error| format!("{error:#}")))
        .await;
    started.as_ref().map_err(|error| anyhow!("{error}"))
}

/// A cluster that kubeadm has never seen: no cluster-info, no bindings for tokens.
pub(crate) async fn bare() -> Result<&'static ControlPlane> {
    static BARE: Shared = OnceCell::const_new();
    shared(&BARE, "bare").await
}

/// A cluster whose bootstrap phase kubeadm has done.
pub(crate) async fn by_kubeadm() -> Result<&'static ControlPlane> {
    static PLANE: Shared = OnceCell::const_new();
    static PREPARED: OnceCell<Result<(), String>> = OnceCell::const_new();
    let plane = shared(&PLANE, "by-kubeadm").await?;
    let prepared = PREPARED
        .get_or_init(async || prepare(plane).await.map_err(|error| format!("{error:#}")))
        .await;
    prepared.as_ref().map_err(|error| anyhow!("{error}"))?;
    Ok(plane)
}

/// What `kubeadm init` does about joining, after its control plane is up.
pub(crate) async fn prepare(plane: &ControlPlane) -> Result<()> {
    let shell = shell(plane).await?;
    let config = shell.home().join("init.yaml");
    let address = plane.url().trim_start_matches("https://");
    std::fs::write(
        &config,
        format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {{advertiseAddress: 10.9.8.7}}\n\
             nodeRegistration: {{name: first, criSocket: unix:///none.sock}}\n---\n\
             apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\n\
             controlPlaneEndpoint: {address}\n"
        ),
    )?;
    let config = config.to_string_lossy().into_owned();
    let kubeconfig = shell.kubeconfig().to_string_lossy().into_owned();
    for phase in [
        &["bootstrap-token", "--skip-token-print"][..],
        &["upload-config", "kubeadm"],
        &["upload-config", "kubelet"],
    ] {
        let init = ["init", "phase"].iter().chain(phase).copied();
        let args = init.chain(["--config", config.as_str(), "--kubeconfig", kubeconfig.as_str()]);
        shell.kubeadm(args).run().await?.expect(0)?;
    }
    Ok(())
}

/// The desk of its admin.
pub(crate) async fn shell(plane: &ControlPlane) -> Result<Shell> {
    Shell::new(TestEnvironment::shared().await?, &Kubeconfig::read(plane.kubeconfig())?)
}

/// The desk of a user whom nobody has given any right.
pub(crate) async fn shell_without_permissions(plane: &ControlPlane) -> Result<Shell> {
    let certificate = plane.authority().client("somebody", None)?;
    let identity = Identity::Certificate(certificate);
    let kubeconfig = Kubeconfig::new().context("here", plane.url(), plane.authority().ca_pem(), &identity);
    Shell::new(TestEnvironment::shared().await?, &kubeconfig)
}

/// A token as it was printed.
#[derive(Clone)]
pub(crate) struct Printed {
    pub(crate) id: String,
    pub(crate) text: String,
}

impl Printed {
    pub(crate) fn read(stdout: &str) -> Result<Self> {
        let text = stdout.strip_suffix('\n').context("no line")?.to_owned();
        let (id, secret) = text.split_once('.').context("no dot")?;
        let lower = |half: &str| half.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        ensure!(
            id.len() == 6 && secret.len() == 16 && lower(id) && lower(secret),
            "not a token"
        );
        Ok(Self {
            id: id.to_owned(),
            text,
        })
    }

    /// What nobody may see besides.
    pub(crate) fn secret(&self) -> &str {
        &self.text[7..]
    }
}

/// Makes a token.
pub(crate) async fn create(shell: &Shell, flags: &[&str]) -> Result<Printed> {
    let args = ["create"].iter().chain(flags);
    let outcome = shell.bootstrap_token(args).run().await?.expect(0)?;
    Printed::read(&outcome.stdout).with_context(|| format!("{outcome}"))
}

pub(crate) async fn secrets(plane: &ControlPlane, namespace: &str) -> Result<Api<Secret>> {
    Ok(Api::namespaced(plane.client().await?, namespace))
}

/// What the Secret of a token says.
pub(crate) async fn data_of(plane: &ControlPlane, id: &str) -> Result<BTreeMap<String, String>> {
    let secret = secrets(plane, "kube-system")
        .await?
        .get(&format!("bootstrap-token-{id}"))
        .await?;
    let data = secret.data.unwrap_or_default().into_iter();
    Ok(data
        .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
        .collect())
}

/// A Secret as it would be written by hand, with what makes a good token, and then with what is given here.
pub(crate) struct Raw {
    pub(crate) id: String,
    pub(crate) secret: Secret,
}

impl Raw {
    pub(crate) fn new(id: &str) -> Self {
        let mut secret = Secret {
            type_: Some("bootstrap.kubernetes.io/token".to_owned()),
            data: Some(BTreeMap::new()),
            ..Secret::default()
        };
        secret.metadata.name = Some(format!("bootstrap-token-{id}"));
        secret.metadata.namespace = Some("kube-system".to_owned());
        let raw = Self {
            id: id.to_owned(),
            secret,
        };
        raw.with("token-id", id)
            .with("token-secret", "0a1b2c3d4e5f6g7h")
            .with("usage-bootstrap-authentication", "true")
    }

    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        let data = self.secret.data.get_or_insert_default();
        data.insert(key.to_owned(), ByteString(value.into()));
        self
    }

    pub(crate) async fn create(&self, plane: &ControlPlane) -> Result<()> {
        let namespace = self.secret.metadata.namespace.as_deref().unwrap_or("kube-system");
        let api = secrets(plane, namespace).await?;
        api.create(&PostParams::default(), &self.secret).await?;
        Ok(())
    }
}

/// Whether the API server lets this token in, by curl's means: the status of a question that everybody may ask.
pub(crate) async fn is_let_in(plane: &ControlPlane, token: &str) -> Result<bool> {
    is_let_in_at(plane, plane.url(), token).await
}

/// The same of one of several API servers.
pub(crate) async fn is_let_in_at(plane: &ControlPlane, url: &str, token: &str) -> Result<bool> {
    let kubeconfig = Kubeconfig::new().context(
        "token",
        url,
        plane.authority().ca_pem(),
        &Identity::Token(token.to_owned()),
    );
    let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
    let outcome = shell.kubectl(["auth", "whoami", "-o", "json"]).run().await?;
    match outcome.code() {
        Some(0) => Ok(outcome.stdout.contains("system:bootstrap:")),
        _ if outcome.stderr.contains("Unauthorized") => Ok(false),
        _ => Err(anyhow!("neither let in nor refused:\n{outcome}")),
    }
}

/// The row of one token in `list -o json`.
pub(crate) async fn row(shell: &Shell, id: &str) -> Result<Value> {
    let list = shell.bootstrap_token(["list", "-o", "json"]).run().await?.expect(0)?;
    let list: Value = serde_json::from_str(&list.stdout)?;
    let items = list["items"].as_array().context("no items")?;
    let row = items.iter().find(|item| item["id"] == id);
    row.cloned().with_context(|| format!("{id} is not listed"))
}

/// Where a file stands in a desk's home, written for its owner alone.
pub(crate) fn file(shell: &Shell, name: &str, text: &str) -> Result<PathBuf> {
    let path = shell.home().join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Waits until a node is Ready.
pub(crate) async fn ready(plane: &ControlPlane, node: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(plane.client().await?);
    until(&format!("node {node} to be Ready"), async || {
        let found = nodes.get_opt(node).await?;
        let conditions = found.and_then(|node| node.status).and_then(|status| status.conditions);
        let is_ready = conditions
            .unwrap_or_default()
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        Ok(is_ready.then_some(()))
    })
    .await
}

/// Fails if the text holds any of these.
pub(crate) fn shows_nothing_of(outcome: &CommandOutput, secret: &str) -> Result<()> {
    ensure!(!outcome.stderr.contains(secret), "stderr shows the secret");
    ensure!(!outcome.stdout.contains(secret), "stdout shows the secret");
    Ok(())
}
