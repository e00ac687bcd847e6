//! A bootstrap token and the target that holds it, and checks of both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, Running, Shell, until};
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PostParams};
use rustix::process::Signal;
use serde_json::Value;
use test_cluster::{ControlPlane, FaultProxy, Identity, Kubeconfig, TestEnvironment, Upstream};

use crate::cluster::{self, Printed, by_kubeadm, is_let_in, shell};

/// The key that the token is delivered to.
const KEY: &str = "token";

/// A token in a Secret, or in a file, from which machines take it.
pub(crate) struct RotationFixture {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) shell: Shell,
    pub(crate) old: Printed,
    /// The description that its tokens share.
    name: String,
    namespace: String,
    file: Option<PathBuf>,
}

impl RotationFixture {
    /// In a Secret.
    pub(crate) async fn new(name: &str) -> Result<Self> {
        Self::on(by_kubeadm().await?, name).await
    }

    /// In a file: a bootstrap kubeconfig.
    pub(crate) async fn with_file(name: &str) -> Result<Self> {
        let mut fixture = Self::new(name).await?;
        fixture.file = Some(fixture.kubeconfig_file()?);
        Ok(fixture)
    }

    /// In a Secret, with a rotation that has delivered the new token and waits for an overlap which is longer than any story.
    pub(crate) async fn in_overlap(name: &str) -> Result<(Self, Running)> {
        let fixture = Self::new(name).await?;
        let run = fixture.delivers(&[]).await?;
        Ok((fixture, run))
    }

    /// In a Secret of this cluster.
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
        };
        fixture.is_let_in_soon(&fixture.old.text).await?;
        Ok(fixture)
    }

    /// Begins a rotation with these flags, and waits until it has delivered the new token.
    pub(crate) async fn delivers(&self, flags: &[&str]) -> Result<Running> {
        let run = self.shell.bootstrap_token(self.rotate(flags)).start().await?;
        self.comes_to("prove").await?;
        Ok(run)
    }

    /// The same, and stops it there.
    pub(crate) async fn delivers_and_stops(&self) -> Result<CommandOutput> {
        let run = self.delivers(&[]).await?;
        run.signal(Signal::INT)?;
        run.finish().await?.expect(130)
    }

    /// What is typed to rotate the token.
    pub(crate) fn rotate(&self, flags: &[&str]) -> Vec<String> {
        let target = self.target();
        let args = ["rotate", &self.old.id, "--deliver", &target, "--yes"];
        args.iter().chain(flags).map(ToString::to_string).collect()
    }

    /// What is typed to undo that, without waiting for anybody.
    pub(crate) fn rollback(&self, flags: &[&str]) -> Vec<String> {
        let args = ["rollback", &self.old.id, "--overlap", "0s", "--yes"];
        args.iter().chain(flags).map(ToString::to_string).collect()
    }

    pub(crate) async fn is_let_in_soon(&self, token: &str) -> Result<()> {
        until("the token to be let in", async || {
            Ok(is_let_in(self.plane, token).await?.then_some(()))
        })
        .await
    }

    /// What `--deliver` names.
    pub(crate) fn target(&self) -> String {
        match &self.file {
            Some(path) => format!("file:{}", path.display()),
            None => format!("secret:{}/join/{KEY}", self.namespace),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> Result<&Path> {
        self.file.as_deref().context("it is in a Secret")
    }

    /// All that is in the file.
    pub(crate) fn text(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.path()?)?)
    }

    /// What machines read now.
    pub(crate) async fn held(&self) -> Result<Printed> {
        if self.file.is_some() {
            let text = self.text()?;
            let token = text.lines().find_map(|line| line.trim().strip_prefix("token: "));
            let token = token.and_then(|rest| rest.split_whitespace().next());
            return Printed::read(&format!("{}\n", token.context("no token there")?));
        }
        let secret = self.secret().await?;
        let bytes = secret.data.unwrap_or_default().remove(KEY).context("no token there")?;
        Printed::read(&format!("{}\n", String::from_utf8(bytes.0)?))
    }

    pub(crate) async fn secret(&self) -> Result<Secret> {
        let secrets = cluster::secrets(self.plane, &self.namespace).await?;
        Ok(secrets.get("join").await?)
    }

    /// The tokens of this story that there are, by the description that they share.
    pub(crate) async fn tokens(&self) -> Result<Vec<String>> {
        let secrets = cluster::secrets(self.plane, "kube-system").await?;
        let fields = ListParams::default().fields("type=bootstrap.kubernetes.io/token");
        let of_story = |secret: &Secret| {
            let description = secret.data.as_ref().and_then(|data| data.get("description"));
            description.is_some_and(|text| text.0 == self.name.as_bytes())
        };
        let all = secrets.list(&fields).await?.items.into_iter().filter(of_story);
        let id = |secret: Secret| Some(secret.metadata.name?.strip_prefix("bootstrap-token-")?.to_owned());
        Ok(all.filter_map(id).collect())
    }

    /// The journal of the rotation under way, as it stands in the Lease.
    pub(crate) async fn lease(&self) -> Result<Option<Lease>> {
        Ok(self.leases().await?.get_opt(&self.lease_name()).await?)
    }

    async fn leases(&self) -> Result<Api<Lease>> {
        Ok(Api::namespaced(self.plane.client().await?, "kube-system"))
    }

    fn lease_name(&self) -> String {
        format!("bootstrap-token-{}", self.old.id)
    }

    /// Lets the rotation that was stopped have been begun on another host: what tells the hosts apart is the name of its
    /// host in the record on the new token's Secret.
    pub(crate) async fn was_begun_on(&self, host: &str) -> Result<()> {
        let secrets = cluster::secrets(self.plane, "kube-system").await?;
        let name = format!("bootstrap-token-{}", self.held().await?.id);
        let mut secret = secrets.get(&name).await?;
        let texts = secret.metadata.annotations.iter_mut().flat_map(BTreeMap::values_mut);
        let mut moved = 0;
        for text in texts {
            if let Some((head, rest)) = text.split_once(r#""host":""#) {
                let (_, tail) = rest.split_once('"').context("no end")?;
                *text = format!(r#"{head}"host":"{host}"{tail}"#);
                moved += 1;
            }
        }
        ensure!(moved == 1, "the record names no host");
        secrets.replace(&name, &PostParams::default(), &secret).await?;
        Ok(())
    }

    /// Puts another journal into the Lease, as whoever may write Leases can. `forge` changes it.
    pub(crate) async fn forge(&self, mut lease: Lease, forge: impl FnOnce(&mut Value)) -> Result<()> {
        let texts = lease.metadata.annotations.iter_mut().flat_map(BTreeMap::values_mut);
        let mut journals = texts.filter(|text| text.contains("\"notes\""));
        let text = journals.next().context("no journal")?;
        let mut journal: Value = serde_json::from_str(text)?;
        forge(&mut journal);
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

    /// The phase by `status`; none where nothing is under way.
    pub(crate) async fn phase(&self) -> Result<Option<String>> {
        let status = self
            .shell
            .bootstrap_token(["status", &self.old.id, "-o", "json"])
            .run()
            .await?;
        if status.code() != Some(0) {
            return Ok(None);
        }
        let status: Value = serde_json::from_str(&status.stdout)?;
        Ok(status["rotation"]["phase"].as_str().map(str::to_owned))
    }

    /// Waits until a rotation under way has come to a phase.
    pub(crate) async fn comes_to(&self, phase: &str) -> Result<()> {
        until(&format!("phase {phase}"), async || {
            Ok((self.phase().await?.as_deref() == Some(phase)).then_some(()))
        })
        .await
    }

    /// The end of a rotation: one token is left, it is what machines read, it works, and the old one does not.
    pub(crate) async fn is_rotated(&self) -> Result<Printed> {
        let new = self.held().await?;
        ensure!(
            new.id != self.old.id && new.secret() != self.old.secret(),
            "it is the same"
        );
        ensure!(self.tokens().await? == [new.id.clone()], "others are left");
        ensure!(is_let_in(self.plane, &new.text).await?, "the new one is refused");
        // Where a killed run took its value along, it was not asked about.
        until("the old one to be refused", async || {
            Ok((!is_let_in(self.plane, &self.old.text).await?).then_some(()))
        })
        .await?;
        Ok(new)
    }

    /// The end of a rollback: everything is as it was.
    pub(crate) async fn is_restored(&self) -> Result<()> {
        ensure!(self.held().await?.text == self.old.text, "another token is there");
        ensure!(self.tokens().await? == [self.old.id.clone()], "others are left");
        ensure!(is_let_in(self.plane, &self.old.text).await?, "the old one is refused");
        Ok(())
    }

    /// A proxy in front of the API server, and a desk that goes through it. Whoever comes through shows a token of his own, so
    /// that the API server can tell a bootstrap token from the admin's.
    pub(crate) async fn behind_proxy(&self) -> Result<(FaultProxy, Shell)> {
        let account = ["-n", &self.namespace, "create", "serviceaccount", "admin"];
        let made = self.shell.kubectl(account).run().await?;
        ensure!(
            made.code() == Some(0) || made.stderr.contains("AlreadyExists"),
            "{made}"
        );
        let name = format!("admin-{}", self.namespace);
        let user = format!("--serviceaccount={}:admin", self.namespace);
        let binding = [
            "create",
            "clusterrolebinding",
            &name,
            "--clusterrole=cluster-admin",
            &user,
        ];
        let made = self.shell.kubectl(binding).run().await?;
        ensure!(
            made.code() == Some(0) || made.stderr.contains("AlreadyExists"),
            "{made}"
        );
        let token = self
            .shell
            .kubectl(["-n", &self.namespace, "create", "token", "admin"])
            .run()
            .await?;
        let token = Identity::Token(token.expect(0)?.stdout.trim().to_owned());
        let upstream = Upstream {
            identity: None,
            ..Upstream::admin_of(self.plane)
        };
        let proxy = FaultProxy::start([upstream]).await?;
        let kubeconfig = Kubeconfig::new().context("here", proxy.url(), proxy.ca_pem(), &token);
        let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
        Ok((proxy, shell))
    }

    /// A kubeconfig with the old token in a desk's home, as installers write one, with what nobody knows in it.
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

/// Another cluster like the one that they share, for a story that takes its parts away. `name` must be no other story's.
pub(crate) async fn apart(name: &str) -> Result<&'static ControlPlane> {
    // It serves until the process ends, as the shared ones do.
    let plane = Box::leak(Box::new(cluster::start(name).await?));
    cluster::prepare(plane).await?;
    Ok(plane)
}
