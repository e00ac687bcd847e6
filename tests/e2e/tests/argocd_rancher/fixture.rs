//! A cluster in the fake Rancher, and a namespace that stands for Argo CD's.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{Invocation, RancherFixture, Shell};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use test_cluster::{FaultProxy, TokenStorage, User};

/// The plugin as the file that kubectl looks for.
const PLUGIN: &str = "kubectl-argocd_rancher";

pub(crate) struct Fixture {
    pub(crate) base: RancherFixture,
    /// Where Argo CD would be.
    pub(crate) namespace: String,
    pub(crate) secrets: Api<Secret>,
}

impl Fixture {
    pub(crate) async fn begin(name: &str) -> Result<Self> {
        let base = RancherFixture::begin(TokenStorage::Secret, name).await?;
        let namespace = format!("argocd-{}", base.cluster.id);
        let client = base.management.client().await?;
        let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
        Api::all(client.clone()).create(&PostParams::default(), &object).await?;
        give_plugin(&base.shell)?;
        Ok(Self {
            secrets: Api::namespaced(client, &namespace),
            base,
            namespace,
        })
    }

    /// The cluster's id.
    pub(crate) fn id(&self) -> &str {
        &self.base.cluster.id
    }

    /// Its address, as Argo CD is told.
    pub(crate) fn server(&self) -> String {
        format!("{}/k8s/clusters/{}", self.base.rancher.url(), self.id())
    }

    /// `kubectl argocd-rancher ARGS`, with both sides known.
    pub(crate) fn run(&self, args: &[&str]) -> Invocation {
        self.run_at(&self.base.shell, args)
    }

    pub(crate) fn run_at(&self, shell: &Shell, args: &[&str]) -> Invocation {
        let both = ["--rancher-context", "rancher"];
        self.bare_at(shell, &[args, both.as_slice()].concat())
    }

    /// The same without a way to Rancher.
    pub(crate) fn bare(&self, args: &[&str]) -> Invocation {
        self.bare_at(&self.base.shell, args)
    }

    fn bare_at(&self, shell: &Shell, args: &[&str]) -> Invocation {
        let argo = ["--context", "management", "--namespace", &self.namespace];
        shell.kubectl(["argocd-rancher"].iter().chain(args).chain(&argo))
    }

    /// Another user of Rancher, at a desk with the plugin.
    pub(crate) async fn shell_of(&self, user: &User) -> Result<Shell> {
        self.base.rancher.add_user(user).await?;
        let shell = self.base.shell_of(user).await?;
        give_plugin(&shell)?;
        Ok(shell)
    }

    /// The only Secret in Argo CD's namespace.
    pub(crate) async fn secret(&self) -> Result<Secret> {
        let mut all = self.secrets.list(&ListParams::default()).await?.items;
        anyhow::ensure!(all.len() == 1, "{} Secrets", all.len());
        all.pop().context("no Secret")
    }

    /// The Secret that Argo CD would read, whatever stands beside it.
    pub(crate) async fn cluster_secret(&self) -> Result<Secret> {
        let selector = ListParams::default().labels("argocd.argoproj.io/secret-type=cluster");
        let mut all = self.secrets.list(&selector).await?.items;
        anyhow::ensure!(all.len() == 1, "{} cluster Secrets", all.len());
        all.pop().context("no cluster Secret")
    }

    /// Somebody writes another login into the Secret, whatever stands there.
    pub(crate) async fn overwrite(&self, secret: &Secret, config: &Value) -> Result<()> {
        let name = secret.metadata.name.as_deref().context("no name")?;
        let change = json!({"stringData": {"config": config.to_string()}});
        let params = PatchParams::default();
        self.secrets.patch(name, &params, &Patch::Merge(change)).await?;
        Ok(())
    }

    /// Whether Rancher lets a token in, at the cluster that it is for.
    pub(crate) async fn lets_in(&self, token: &str) -> Result<bool> {
        let bearer = User {
            token: token.to_owned(),
            ..user("bearer")
        };
        let client = self.base.rancher.client("", Some(&bearer))?;
        let request = http::Request::get(format!("/k8s/clusters/{}/version", self.id())).body(Vec::new())?;
        Ok(client.request_text(request).await.is_ok())
    }

    /// What `status` says, as a document.
    pub(crate) async fn status(&self) -> Result<Value> {
        let output = self.run(&["status", self.id(), "-o", "json"]).run().await?.expect(0)?;
        Ok(serde_json::from_str(&output.stdout)?)
    }

    /// Waits until a rotation under way has come to a phase.
    pub(crate) async fn comes_to(&self, phase: &str) -> Result<()> {
        e2e::until(&format!("phase {phase}"), async || {
            Ok((self.status().await?["rotation"]["phase"] == phase).then_some(()))
        })
        .await
    }

    /// The end of a rotation: one token is alive, it is what Argo CD has, it works, the old one does not, and nothing is left
    /// beside the cluster Secret.
    pub(crate) async fn is_rotated(&self, old: &str) -> Result<String> {
        let new = token(&self.secret().await?)?;
        anyhow::ensure!(new != old, "it is the same");
        anyhow::ensure!(self.lets_in(&new).await?, "the new one is refused");
        anyhow::ensure!(!self.lets_in(old).await?, "the old one is let in");
        let living = self.living().await?;
        let name = new.split(':').next().unwrap_or_default();
        anyhow::ensure!(living == [name], "others are left: {living:?}");
        Ok(new)
    }

    /// The end of a rollback: everything is as it was.
    pub(crate) async fn is_restored(&self, old: &str) -> Result<()> {
        anyhow::ensure!(token(&self.secret().await?)? == old, "another token is there");
        anyhow::ensure!(self.lets_in(old).await?, "the old one is refused");
        let living = self.living().await?;
        anyhow::ensure!(living.len() == 1, "others are left: {living:?}");
        Ok(())
    }

    /// Argo CD's kind, as far as it matters here, and one Application of the cluster.
    pub(crate) async fn application(&self) -> Result<()> {
        let client = self.base.management.client().await?;
        let crd: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {"name": "applications.argoproj.io"},
            "spec": {
                "group": "argoproj.io", "scope": "Namespaced",
                "names": {"kind": "Application", "listKind": "ApplicationList", "plural": "applications", "singular": "application"},
                "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }}}],
            },
        }))?;
        // Another story may have brought it.
        let _ = Api::all(client.clone()).create(&PostParams::default(), &crd).await;
        let path = format!("/apis/argoproj.io/v1alpha1/namespaces/{}/applications", self.namespace);
        let object = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "web"},
            "spec": {"project": "default", "destination": {"server": self.server(), "namespace": "web"}},
        });
        e2e::until("the kind to be served", async || {
            let create = http::Request::post(&path)
                .header("content-type", "application/json")
                .body(object.to_string().into_bytes())?;
            Ok(client.request_text(create).await.ok())
        })
        .await?;
        Ok(())
    }

    /// A proxy in front of both sides, a desk that goes through it, and a Secret by which Argo CD does too.
    pub(crate) async fn behind_proxy(&self) -> Result<(FaultProxy, Shell)> {
        let (proxy, shell) = self.base.behind_proxy().await?;
        give_plugin(&shell)?;
        let secret = self.secret().await?;
        let mut config = config(&secret)?;
        config["tlsClientConfig"]["caData"] = json!(STANDARD.encode(proxy.ca_pem()));
        let server = format!("{}/k8s/clusters/{}", proxy.url(), self.id());
        let change = json!({"stringData": {"config": config.to_string(), "server": server}});
        let name = secret.metadata.name.as_deref().context("no name")?;
        let params = PatchParams::default();
        self.secrets.patch(name, &params, &Patch::Merge(change)).await?;
        Ok((proxy, shell))
    }

    /// Tokens that were minted for the cluster and are alive, by name.
    pub(crate) async fn living(&self) -> Result<Vec<String>> {
        let tokens = self.base.rancher.tokens().await?;
        let ours = tokens
            .iter()
            .filter(|token| token["clusterId"] == self.id() && token["alive"] == true);
        Ok(ours
            .filter_map(|token| token["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// A Secret that somebody has made for Argo CD by hand.
    pub(crate) async fn by_hand(&self, name: &str, server: &str, config: &Value) -> Result<()> {
        let object = json!({
            "metadata": {
                "name": name, "labels": {"argocd.argoproj.io/secret-type": "cluster", "team": "blue"},
                "annotations": {"note": "by hand"},
            },
            "stringData": {"name": name, "server": server, "config": config.to_string(), "shard": "3"},
        });
        let object: Secret = serde_json::from_value(object)?;
        self.secrets.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.secrets.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The CA of Rancher as it stands in a config.
    pub(crate) fn ca_data(&self) -> String {
        STANDARD.encode(self.base.rancher.ca_pem())
    }
}

/// Puts the plugin on the `PATH` of a desk.
pub(crate) fn give_plugin(shell: &Shell) -> Result<()> {
    let link = shell.home().join("bin").join(PLUGIN);
    std::os::unix::fs::symlink(test_cluster::built(PLUGIN)?, link)?;
    Ok(())
}

/// A value of a Secret, as text.
pub(crate) fn text(secret: &Secret, key: &str) -> Result<String> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    Ok(String::from_utf8(
        bytes.with_context(|| format!("no key {key}"))?.0.clone(),
    )?)
}

/// The config of a Secret.
pub(crate) fn config(secret: &Secret) -> Result<Value> {
    Ok(serde_json::from_str(&text(secret, "config")?)?)
}

/// The bearer value in a Secret.
pub(crate) fn token(secret: &Secret) -> Result<String> {
    let config = config(secret)?;
    config["bearerToken"].as_str().map(str::to_owned).context("no token")
}

/// A user of Rancher who is called so, with rights that the test gives.
pub(crate) fn user(name: &str) -> User {
    User {
        name: format!("u-{name}"),
        token: format!("token-{name}:9lcf4mgsp6x8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7h{name}"),
        groups: Vec::new(),
    }
}
