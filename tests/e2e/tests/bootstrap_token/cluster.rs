//! The clusters of these tests, raw token Secrets, and whether the API server accepts a token. No code is shared with
//! the plugin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::{CommandOutput, Shell, until};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::{Api, PostParams};
use serde_json::Value;
use test_cluster::{ControlPlane, Identity, Kubeconfig, Shape, TestEnvironment};
use tokio::sync::OnceCell;

/// kubeadm's default group.
pub(crate) const KUBEADM_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

type Shared = OnceCell<Result<ControlPlane, String>>;

/// Starts a cluster. `name` must be unique.
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

/// A cluster without `kubeadm init`: no cluster-info, no bindings for tokens.
pub(crate) async fn bare() -> Result<&'static ControlPlane> {
    static BARE: Shared = OnceCell::const_new();
    shared(&BARE, "bare").await
}

/// A cluster after the bootstrap phase of `kubeadm init`.
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

/// Runs the phases of `kubeadm init` that nodes need to join.
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

/// The shell of its admin.
pub(crate) async fn shell(plane: &ControlPlane) -> Result<Shell> {
    Shell::new(TestEnvironment::shared().await?, &Kubeconfig::read(plane.kubeconfig())?)
}

/// The shell of a user without any permission.
pub(crate) async fn shell_without_permissions(plane: &ControlPlane) -> Result<Shell> {
    let certificate = plane.authority().client("unprivileged", None)?;
    let identity = Identity::Certificate(certificate);
    let kubeconfig = Kubeconfig::new().context("here", plane.url(), plane.authority().ca_pem(), &identity);
    Shell::new(TestEnvironment::shared().await?, &kubeconfig)
}

/// A token as a command printed it.
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

    /// The secret half.
    pub(crate) fn secret(&self) -> &str {
        &self.text[7..]
    }
}

/// Creates a token.
pub(crate) async fn create(shell: &Shell, flags: &[&str]) -> Result<Printed> {
    let args = ["create"].iter().chain(flags);
    let outcome = shell.bootstrap_token(args).run().await?.expect(0)?;
    Printed::read(&outcome.stdout).with_context(|| format!("{outcome}"))
}

pub(crate) async fn secrets(plane: &ControlPlane, namespace: &str) -> Result<Api<Secret>> {
    Ok(Api::namespaced(plane.client().await?, namespace))
}

/// The data of a token Secret.
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

/// A token Secret written by hand: a valid token, with changes.
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

/// Whether the API server accepts this token.
pub(crate) async fn is_accepted(plane: &ControlPlane, token: &str) -> Result<bool> {
    is_accepted_at(plane, plane.url(), token).await
}

/// Whether one of several API servers accepts this token.
pub(crate) async fn is_accepted_at(plane: &ControlPlane, url: &str, token: &str) -> Result<bool> {
    let reviews: Api<SelfSubjectReview> = Api::all(plane.client_with_token(url, token)?);
    match reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
    {
        Ok(review) => {
            let user = review.status.and_then(|status| status.user_info?.username);
            Ok(user.is_some_and(|user| user.starts_with("system:bootstrap:")))
        }
        Err(kube::Error::Api(status)) if status.code == 401 => Ok(false),
        Err(error) => Err(error.into()),
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

/// Writes a file into the home directory of a shell.
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

/// Fails if a command has printed the secret.
pub(crate) fn prints_nothing_of(outcome: &CommandOutput, secret: &str) -> Result<()> {
    ensure!(!outcome.stderr.contains(secret), "the secret is on stderr");
    ensure!(!outcome.stdout.contains(secret), "the secret is on stdout");
    Ok(())
}
