//! Where these stories happen: a token, a target that holds it, and what is there afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use e2e::{Desk, until};
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PostParams};
use serde_json::Value;
use testbed::{Bed, ControlPlane, FaultProxy, Identity, Kubeconfig, Upstream};

use crate::cluster::{self, Printed, SOON, by_kubeadm, desk, is_let_in};

/// The key that the token is delivered to.
const KEY: &str = "token";

/// A token in a Secret from which machines take it.
pub(crate) struct Place {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) desk: Desk,
    pub(crate) old: Printed,
    namespace: String,
}

impl Place {
    pub(crate) async fn new(story: &str) -> Result<Self> {
        let plane = by_kubeadm().await?;
        let desk = desk(plane).await?;
        let old = cluster::create(&desk, &["--description", story, "-l", "rack=7"]).await?;
        let namespace = plane.namespace(story).await?;
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
        let place = Self {
            plane,
            desk,
            old,
            namespace,
        };
        place.is_let_in_soon(&place.old.text).await?;
        Ok(place)
    }

    pub(crate) async fn is_let_in_soon(&self, token: &str) -> Result<()> {
        until("the token to be let in", SOON, async || {
            Ok(is_let_in(self.plane, token).await?.then_some(()))
        })
        .await
    }

    /// `--deliver` for the Secret.
    pub(crate) fn target(&self) -> String {
        format!("secret:{}/join/{KEY}", self.namespace)
    }

    /// What machines read now.
    pub(crate) async fn held(&self) -> Result<Printed> {
        let secret = self.secret().await?;
        let bytes = secret.data.unwrap_or_default().remove(KEY).context("no token there")?;
        Printed::read(&format!("{}\n", String::from_utf8(bytes.0)?))
    }

    pub(crate) async fn secret(&self) -> Result<Secret> {
        let secrets = cluster::secrets(self.plane, &self.namespace).await?;
        Ok(secrets.get("join").await?)
    }

    /// The tokens of this story that there are, by the description that they share.
    pub(crate) async fn tokens(&self, story: &str) -> Result<Vec<String>> {
        let secrets = cluster::secrets(self.plane, "kube-system").await?;
        let fields = ListParams::default().fields("type=bootstrap.kubernetes.io/token");
        let of_story = |secret: &Secret| {
            let description = secret.data.as_ref().and_then(|data| data.get("description"));
            description.is_some_and(|text| text.0 == story.as_bytes())
        };
        let all = secrets.list(&fields).await?.items.into_iter().filter(of_story);
        let id = |secret: Secret| Some(secret.metadata.name?.strip_prefix("bootstrap-token-")?.to_owned());
        Ok(all.filter_map(id).collect())
    }

    /// The journal of the rotation under way, as it stands in the Lease.
    pub(crate) async fn lease(&self) -> Result<Option<Lease>> {
        let leases: Api<Lease> = Api::namespaced(self.plane.client().await?, "kube-system");
        Ok(leases.get_opt(&format!("bootstrap-token-{}", self.old.id)).await?)
    }

    /// The phase by `status`; none where nothing is under way.
    pub(crate) async fn phase(&self) -> Result<Option<String>> {
        let status = self
            .desk
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
        until(&format!("phase {phase}"), SOON * 2, async || {
            Ok((self.phase().await?.as_deref() == Some(phase)).then_some(()))
        })
        .await
    }

    /// The end of a rotation: one token is left, it is what machines read, it works, and the old one does not.
    pub(crate) async fn is_rotated(&self, story: &str) -> Result<Printed> {
        let new = self.held().await?;
        ensure!(
            new.id != self.old.id && new.secret() != self.old.secret(),
            "it is the same"
        );
        ensure!(self.tokens(story).await? == [new.id.clone()], "others are left");
        ensure!(is_let_in(self.plane, &new.text).await?, "the new one is refused");
        // Where a killed run took its value along, it was not asked about.
        until("the old one to be refused", SOON, async || {
            Ok((!is_let_in(self.plane, &self.old.text).await?).then_some(()))
        })
        .await?;
        Ok(new)
    }

    /// The end of a rollback: everything is as it was.
    pub(crate) async fn is_restored(&self, story: &str) -> Result<()> {
        ensure!(self.held().await?.text == self.old.text, "another token is there");
        ensure!(self.tokens(story).await? == [self.old.id.clone()], "others are left");
        ensure!(is_let_in(self.plane, &self.old.text).await?, "the old one is refused");
        Ok(())
    }

    /// A proxy in front of the API server, and a desk that goes through it. Whoever comes through shows a token of his own, so
    /// that the API server can tell a bootstrap token from the admin's.
    pub(crate) async fn behind_proxy(&self) -> Result<(FaultProxy, Desk)> {
        let account = ["-n", &self.namespace, "create", "serviceaccount", "admin"];
        let made = self.desk.kubectl(account).run().await?;
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
        let made = self.desk.kubectl(binding).run().await?;
        ensure!(
            made.code() == Some(0) || made.stderr.contains("AlreadyExists"),
            "{made}"
        );
        let token = self
            .desk
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
        let desk = Desk::new(Bed::shared().await?, &kubeconfig)?;
        Ok((proxy, desk))
    }

    /// A kubeconfig with the old token in a desk's home, as installers write one, with what nobody knows in it.
    pub(crate) fn kubeconfig_file(&self) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let text = format!(
            "# for machines that boot\napiVersion: v1\nkind: Config\ncurrent-context: boot\nclusters:\n- name: c\n  \
             cluster: {{server: \"{}\"}}\ncontexts:\n- name: boot\n  context: {{cluster: c, user: boot}}\nusers:\n- name: \
             boot\n  user:\n    token: {} # until it has joined\nmine: [1, 2]\n",
            self.plane.url(),
            self.old.text
        );
        let path = cluster::file(&self.desk, "boot.conf", &text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }
}
