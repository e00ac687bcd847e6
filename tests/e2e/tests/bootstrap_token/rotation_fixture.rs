//! A bootstrap token and the target that holds it, and checks of both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, Running, Shell, until};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, ListParams, PostParams};
use rustix::process::Signal;
use serde_json::{Value, json};
use test_cluster::{ControlPlane, FaultProxy, Identity, Kubeconfig, TestEnvironment, Upstream};
use tokio::sync::OnceCell;

use crate::cluster::{self, Printed, by_kubeadm, is_accepted, shell};

/// The key of the Secret that the token is delivered to.
const KEY: &str = "token";
/// The annotation of the Lease that holds the journal.
const JOURNAL: &str = "kubectl-rotation.github.io/journal";

/// A bootstrap token in a Secret or in a file, from which machines read it.
pub(crate) struct RotationFixture {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) shell: Shell,
    /// The token to rotate.
    pub(crate) old: Printed,
    /// The description of all its tokens.
    name: String,
    namespace: String,
    file: Option<PathBuf>,
    /// The token of an admin's service account, for clients that have no certificate.
    admin_token: OnceCell<String>,
}

impl RotationFixture {
    /// With a Secret as the target.
    pub(crate) async fn new(name: &str) -> Result<Self> {
        Self::on(by_kubeadm().await?, name).await
    }

    /// With a file as the target: a bootstrap kubeconfig.
    pub(crate) async fn with_file(name: &str) -> Result<Self> {
        let mut fixture = Self::new(name).await?;
        fixture.file = Some(fixture.kubeconfig_file()?);
        Ok(fixture)
    }

    /// With a Secret as the target, and a rotation that has delivered the new token and waits for its overlap to end. The
    /// overlap is longer than any test.
    pub(crate) async fn in_overlap(name: &str) -> Result<(Self, Running)> {
        let fixture = Self::new(name).await?;
        let run = fixture.start_and_deliver(&[]).await?;
        Ok((fixture, run))
    }

    /// With a Secret of this cluster as the target.
    pub(crate) async fn on(plane: &'static ControlPlane, name: &str) -> Result<Self> {
        let shell = shell(plane).await?;
        let old = cluster::create(&shell, &["--description", name, "-l", "rack=7"]).await?;
        let namespace = plane.namespace(name).await?;
        let secret = Secret {
            metadata: kube::core::ObjectMeta {
                name: Some("join".to_owned()),
                ..Default::default()
            },
            data: Some(BTreeMap::from([
                (KEY.to_owned(), ByteString(old.text.clone().into_bytes())),
                ("endpoint".to_owned(), ByteString(b"10.9.8.7:6443".to_vec())),
            ])),
            ..Default::default()
        };
        let secrets = cluster::secrets(plane, &namespace).await?;
        secrets.create(&PostParams::default(), &secret).await?;
        let fixture = Self {
            plane,
            shell,
            old,
            name: name.to_owned(),
            namespace,
            file: None,
            admin_token: OnceCell::new(),
        };
        fixture.becomes_accepted(&fixture.old.text).await?;
        Ok(fixture)
    }

    /// Starts a rotation with these flags, and waits until it has delivered the new token.
    pub(crate) async fn start_and_deliver(&self, flags: &[&str]) -> Result<Running> {
        let run = self.shell.bootstrap_token(self.rotate(flags)).start().await?;
        self.reaches("prove").await?;
        Ok(run)
    }

    /// Starts a rotation, and interrupts it when it has delivered the new token.
    pub(crate) async fn deliver_and_interrupt(&self) -> Result<CommandOutput> {
        let run = self.start_and_deliver(&[]).await?;
        run.signal(Signal::INT)?;
        run.finish().await?.expect(130)
    }

    /// The arguments that rotate the token.
    pub(crate) fn rotate(&self, flags: &[&str]) -> Vec<String> {
        let target = self.target();
        let args = ["rotate", &self.old.id, "--deliver", &target, "--yes"];
        args.iter().chain(flags).map(ToString::to_string).collect()
    }

    /// The arguments that roll the rotation back, without an overlap.
    pub(crate) fn rollback(&self, flags: &[&str]) -> Vec<String> {
        let args = ["rollback", &self.old.id, "--overlap", "0s", "--yes"];
        args.iter().chain(flags).map(ToString::to_string).collect()
    }

    /// Waits until the API server accepts a token.
    pub(crate) async fn becomes_accepted(&self, token: &str) -> Result<()> {
        until("the token to be accepted", async || {
            Ok(is_accepted(self.plane, token).await?.then_some(()))
        })
        .await
    }

    /// Waits until the API server rejects a token. Only a run that has seen the value of a token waits for that itself.
    pub(crate) async fn becomes_rejected(&self, token: &str) -> Result<()> {
        until("the token to be rejected", async || {
            Ok((!is_accepted(self.plane, token).await?).then_some(()))
        })
        .await
    }

    /// The value of `--deliver`.
    pub(crate) fn target(&self) -> String {
        match &self.file {
            Some(path) => format!("file:{}", path.display()),
            None => format!("secret:{}/join/{KEY}", self.namespace),
        }
    }

    /// The target file.
    pub(crate) fn path(&self) -> Result<&Path> {
        self.file.as_deref().context("the target is a Secret")
    }

    /// The content of the target file.
    pub(crate) fn text(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.path()?)?)
    }

    /// The token that machines read now.
    pub(crate) async fn held(&self) -> Result<Printed> {
        if self.file.is_some() {
            let text = self.text()?;
            let token = text.lines().find_map(|line| line.trim().strip_prefix("token: "));
            let token = token.and_then(|rest| rest.split_whitespace().next());
            return Printed::read(&format!("{}\n", token.context("no token in the file")?));
        }
        let secret = self.secret().await?;
        let bytes = secret.data.unwrap_or_default().remove(KEY).context("no token there")?;
        Printed::read(&format!("{}\n", String::from_utf8(bytes.0)?))
    }

    /// The target Secret.
    pub(crate) async fn secret(&self) -> Result<Secret> {
        let secrets = cluster::secrets(self.plane, &self.namespace).await?;
        Ok(secrets.get("join").await?)
    }

    /// The ids of the existing tokens of this fixture, by their common description.
    pub(crate) async fn tokens(&self) -> Result<Vec<String>> {
        let secrets = cluster::secrets(self.plane, "kube-system").await?;
        let fields = ListParams::default().fields("type=bootstrap.kubernetes.io/token");
        let is_ours = |secret: &Secret| {
            let description = secret.data.as_ref().and_then(|data| data.get("description"));
            description.is_some_and(|text| text.0 == self.name.as_bytes())
        };
        let all = secrets.list(&fields).await?.items.into_iter().filter(is_ours);
        let id = |secret: Secret| Some(secret.metadata.name?.strip_prefix("bootstrap-token-")?.to_owned());
        Ok(all.filter_map(id).collect())
    }

    /// The Lease of the rotation, which is its lock and its journal.
    pub(crate) async fn lease(&self) -> Result<Option<Lease>> {
        Ok(self.leases().await?.get_opt(&self.lease_name()).await?)
    }

    async fn leases(&self) -> Result<Api<Lease>> {
        Ok(Api::namespaced(self.plane.client().await?, "kube-system"))
    }

    fn lease_name(&self) -> String {
        format!("bootstrap-token-{}", self.old.id)
    }

    /// Replaces the host in the record on the new token's Secret, as if the rotation had been started on another host.
    pub(crate) async fn was_started_on(&self, host: &str) -> Result<()> {
        let secrets = cluster::secrets(self.plane, "kube-system").await?;
        let name = format!("bootstrap-token-{}", self.held().await?.id);
        let mut secret = secrets.get(&name).await?;
        let texts = secret.metadata.annotations.iter_mut().flat_map(BTreeMap::values_mut);
        let mut moved = 0;
        for text in texts {
            if let Some((head, rest)) = text.split_once(r#""host":""#) {
                let (_, tail) = rest.split_once('"').context("no end of the host")?;
                *text = format!(r#"{head}"host":"{host}"{tail}"#);
                moved += 1;
            }
        }
        ensure!(moved == 1, "the record names no host");
        secrets.replace(&name, &PostParams::default(), &secret).await?;
        Ok(())
    }

    /// Writes a changed journal into the Lease, as anyone who may write Leases can.
    pub(crate) async fn forge(&self, mut lease: Lease, change: impl FnOnce(&mut Value)) -> Result<()> {
        let annotations = lease.metadata.annotations.as_mut().context("no annotations")?;
        let text = annotations.get_mut(JOURNAL).context("no journal")?;
        let mut journal: Value = serde_json::from_str(text)?;
        change(&mut journal);
        *text = journal.to_string();
        let leases = self.leases().await?;
        lease.metadata.resource_version = None;
        lease.metadata.uid = None;
        if let Some(now) = leases.get_opt(&self.lease_name()).await? {
            lease.metadata.resource_version = now.metadata.resource_version;
            leases
                .replace(&self.lease_name(), &PostParams::default(), &lease)
                .await?;
        } else {
            leases.create(&PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    /// Waits until the journal of a rotation in progress has reached a phase.
    pub(crate) async fn reaches(&self, phase: &str) -> Result<()> {
        let (leases, name) = (self.leases().await?, self.lease_name());
        until(&format!("phase {phase}"), async || {
            let annotations = leases
                .get_opt(&name)
                .await?
                .and_then(|lease| lease.metadata.annotations);
            let text = annotations.and_then(|mut all| all.remove(JOURNAL));
            let journal: Option<Value> = text.map(|text| serde_json::from_str(&text)).transpose()?;
            Ok(journal.filter(|journal| journal["phase"] == phase).map(drop))
        })
        .await
    }

    /// Checks the end of a rotation: only the new token is left, machines read it, and only it is accepted.
    pub(crate) async fn is_rotated(&self) -> Result<Printed> {
        let new = self.held().await?;
        ensure!(
            new.id != self.old.id && new.secret() != self.old.secret(),
            "the token is the same"
        );
        ensure!(self.tokens().await? == [new.id.clone()], "other tokens are left");
        ensure!(is_accepted(self.plane, &new.text).await?, "the new token is rejected");
        self.becomes_rejected(&self.old.text).await?;
        Ok(new)
    }

    /// Checks the end of a rollback: everything is as it was.
    pub(crate) async fn is_restored(&self) -> Result<()> {
        ensure!(
            self.held().await?.text == self.old.text,
            "the target holds another token"
        );
        ensure!(self.tokens().await? == [self.old.id.clone()], "other tokens are left");
        ensure!(
            is_accepted(self.plane, &self.old.text).await?,
            "the old token is rejected"
        );
        Ok(())
    }

    /// A proxy in front of the API server, and a shell whose kubeconfig leads through it. Its user has a token, not a
    /// certificate: the proxy has no client certificate either, so the API server sees the bootstrap tokens that the
    /// plugin probes.
    pub(crate) async fn behind_proxy(&self) -> Result<(FaultProxy, Shell)> {
        let token = self.admin_token.get_or_try_init(|| self.create_admin()).await?;
        let upstream = Upstream {
            identity: None,
            ..Upstream::admin_of(self.plane)
        };
        let proxy = FaultProxy::start([upstream]).await?;
        let identity = Identity::Token(token.clone());
        let kubeconfig = Kubeconfig::new().context("here", proxy.url(), proxy.ca_pem(), &identity);
        let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
        Ok((proxy, shell))
    }

    /// Creates a service account that is cluster admin, and returns a token of it.
    async fn create_admin(&self) -> Result<String> {
        let (client, params) = (self.plane.client().await?, PostParams::default());
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &self.namespace);
        let account = serde_json::from_value(json!({ "metadata": { "name": "admin" } }))?;
        accounts.create(&params, &account).await?;
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": { "name": format!("admin-{}", self.namespace) },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "kind": "ServiceAccount", "name": "admin", "namespace": self.namespace }],
        }))?;
        Api::all(client).create(&params, &binding).await?;
        let request = TokenRequest::default();
        let issued = accounts.create_token_request("admin", &params, &request).await?;
        Ok(issued.status.context("no token")?.token)
    }

    /// A kubeconfig with the old token in the home directory of the shell, as installers write one, with unknown fields.
    fn kubeconfig_file(&self) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let text = format!(
            "# for machines that boot\napiVersion: v1\nkind: Config\ncurrent-context: boot\nclusters:\n- name: c\n  \
             cluster: {{server: \"{}\"}}\ncontexts:\n- name: boot\n  context: {{cluster: c, user: boot}}\nusers:\n- name: \
             boot\n  user:\n    token: {} # until it has joined\nmine: [1, 2]\n",
            self.plane.url(),
            self.old.text
        );
        let path = cluster::file(&self.shell, "boot.conf", &text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }
}

/// A separate cluster for a test that stops its components. `name` must be unique.
pub(crate) async fn separate_cluster(name: &str) -> Result<&'static ControlPlane> {
    // It serves until the process ends, as the shared ones do.
    let plane = Box::leak(Box::new(cluster::start(name).await?));
    cluster::prepare(plane).await?;
    Ok(plane)
}
