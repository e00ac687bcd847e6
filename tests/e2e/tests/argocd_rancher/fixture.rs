//! A cluster in the fake Rancher, and a namespace that stands for Argo CD's.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{Invocation, RancherFixture, Shell};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use test_cluster::{FaultProxy, TokenStorage, User};

pub(crate) struct Fixture {
    pub(crate) base: RancherFixture,
    /// The namespace that stands for Argo CD's.
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

    /// The cluster's URL in the cluster Secret.
    pub(crate) fn server(&self) -> String {
        format!("{}/k8s/clusters/{}", self.base.rancher.url(), self.id())
    }

    /// `kubectl-argocd_rancher ARGS`, with the contexts of Argo CD and of Rancher.
    pub(crate) fn run(&self, args: &[&str]) -> Invocation {
        self.run_at(&self.base.shell, args)
    }

    /// The same in another shell.
    pub(crate) fn run_at(&self, shell: &Shell, args: &[&str]) -> Invocation {
        let rancher = ["--rancher-context", "rancher"];
        self.bare_at(shell, &[args, rancher.as_slice()].concat())
    }

    /// The same without a context of Rancher.
    pub(crate) fn bare(&self, args: &[&str]) -> Invocation {
        self.bare_at(&self.base.shell, args)
    }

    /// The same as another user of Rancher, who is the same user in Argo CD's cluster.
    pub(crate) fn run_as(&self, shell: &Shell, args: &[&str]) -> Invocation {
        let contexts = [
            "--context",
            "rancher",
            "--namespace",
            &self.namespace,
            "--rancher-context",
            "rancher",
        ];
        shell.argocd_rancher(args.iter().chain(&contexts))
    }

    fn bare_at(&self, shell: &Shell, args: &[&str]) -> Invocation {
        let argo = ["--context", "management", "--namespace", &self.namespace];
        shell.argocd_rancher(args.iter().chain(&argo))
    }

    /// The shell of another user of Rancher.
    pub(crate) async fn shell_of(&self, user: &User) -> Result<Shell> {
        self.base.rancher.add_user(user).await?;
        self.base.shell_of(user).await
    }

    /// Makes a user a member of the cluster, without permissions in it.
    pub(crate) async fn make_member(&self, user: &User) -> Result<()> {
        let rules = json!([{
            "apiGroups": ["management.cattle.io"], "resources": ["clusters"], "resourceNames": [self.id()], "verbs": ["get"],
        }]);
        grant(
            self.base.management.client().await?,
            &format!("member-{}", self.id()),
            user,
            &rules,
        )
        .await
    }

    /// Lets a user get, list and watch everything in the cluster.
    pub(crate) async fn let_watch(&self, user: &User) -> Result<()> {
        let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]);
        grant(
            self.base.downstream.client().await?,
            &format!("watch-{}", self.id()),
            user,
            &rules,
        )
        .await
    }

    /// The only Secret in Argo CD's namespace.
    pub(crate) async fn secret(&self) -> Result<Secret> {
        let mut all = self.secrets.list(&ListParams::default()).await?.items;
        anyhow::ensure!(all.len() == 1, "{} Secrets", all.len());
        all.pop().context("no Secret")
    }

    /// The cluster Secret. Other Secrets may exist beside it.
    pub(crate) async fn cluster_secret(&self) -> Result<Secret> {
        let selector = ListParams::default().labels("argocd.argoproj.io/secret-type=cluster");
        let mut all = self.secrets.list(&selector).await?.items;
        anyhow::ensure!(all.len() == 1, "{} cluster Secrets", all.len());
        all.pop().context("no cluster Secret")
    }

    /// Writes another config into the Secret, without a check.
    pub(crate) async fn overwrite(&self, secret: &Secret, config: &Value) -> Result<()> {
        let name = secret.metadata.name.as_deref().context("no name")?;
        let change = json!({"stringData": {"config": config.to_string()}});
        let params = PatchParams::default();
        self.secrets.patch(name, &params, &Patch::Merge(change)).await?;
        Ok(())
    }

    /// Whether Rancher accepts a token for its cluster.
    pub(crate) async fn accepts(&self, token: &str) -> Result<bool> {
        let bearer = User {
            token: token.to_owned(),
            ..user("bearer")
        };
        let client = self.base.rancher.client("", Some(&bearer))?;
        let request = http::Request::get(format!("/k8s/clusters/{}/version", self.id())).body(Vec::new())?;
        Ok(client.request_text(request).await.is_ok())
    }

    /// The document that `status` prints.
    pub(crate) async fn status(&self) -> Result<Value> {
        let output = self.run(&["status", self.id(), "-o", "json"]).run().await?.expect(0)?;
        Ok(serde_json::from_str(&output.stdout)?)
    }

    pub(crate) async fn leases(&self) -> Result<Api<Lease>> {
        Ok(Api::namespaced(self.base.management.client().await?, &self.namespace))
    }

    /// The names of the Leases in Argo CD's namespace.
    pub(crate) async fn lease_names(&self) -> Result<Vec<String>> {
        let leases = self.leases().await?.list(&ListParams::default()).await?;
        Ok(leases.into_iter().filter_map(|lease| lease.metadata.name).collect())
    }

    /// Waits until the journal of a rotation in progress has reached a phase.
    pub(crate) async fn reaches(&self, phase: &str) -> Result<()> {
        const JOURNAL: &str = "kubectl-rotation.github.io/journal";
        let name = self.cluster_secret().await?.metadata.name.context("no name")?;
        let leases = self.leases().await?;
        e2e::until(&format!("phase {phase}"), async || {
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

    /// Checks the end of a rotation: the only valid token is a new one, Argo CD has it, and no other Secret is left.
    pub(crate) async fn is_rotated(&self, old: &str) -> Result<String> {
        let new = token(&self.secret().await?)?;
        anyhow::ensure!(new != old, "the token is the same");
        anyhow::ensure!(self.accepts(&new).await?, "the new token is rejected");
        anyhow::ensure!(!self.accepts(old).await?, "the old token is accepted");
        let valid = self.valid_tokens().await?;
        let name = new.split(':').next().unwrap_or_default();
        anyhow::ensure!(valid == [name], "other tokens are valid: {valid:?}");
        Ok(new)
    }

    /// Checks the end of a rollback: everything is as it was.
    pub(crate) async fn is_restored(&self, old: &str) -> Result<()> {
        anyhow::ensure!(token(&self.secret().await?)? == old, "the Secret holds another token");
        anyhow::ensure!(self.accepts(old).await?, "the old token is rejected");
        let valid = self.valid_tokens().await?;
        anyhow::ensure!(valid.len() == 1, "other tokens are valid: {valid:?}");
        Ok(())
    }

    /// Creates a minimal Application kind, and one Application of the cluster.
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
        // Another test may have created it.
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

    /// A proxy in front of both servers, and a shell whose kubeconfig leads through it. The cluster Secret leads through it too.
    pub(crate) async fn behind_proxy(&self) -> Result<(FaultProxy, Shell)> {
        let (proxy, shell) = self.base.behind_proxy().await?;
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

    /// The names of the valid tokens that were issued for the cluster.
    pub(crate) async fn valid_tokens(&self) -> Result<Vec<String>> {
        let tokens = self.base.rancher.tokens().await?;
        let ours = tokens
            .iter()
            .filter(|token| token["clusterId"] == self.id() && token["valid"] == true);
        Ok(ours
            .filter_map(|token| token["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// Creates a cluster Secret by hand.
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

    /// Rancher's CA, as the config of a cluster Secret holds it.
    pub(crate) fn ca_data(&self) -> String {
        STANDARD.encode(self.base.rancher.ca_pem())
    }
}

/// Creates a ClusterRole, and binds it to a user.
async fn grant(client: kube::Client, name: &str, user: &User, rules: &Value) -> Result<()> {
    let role: ClusterRole = serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules}))?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user.name}],
    }))?;
    Api::all(client.clone()).create(&PostParams::default(), &role).await?;
    Api::all(client).create(&PostParams::default(), &binding).await?;
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

/// A user of Rancher with this name and without permissions.
pub(crate) fn user(name: &str) -> User {
    User {
        name: format!("u-{name}"),
        token: format!("token-{name}:9lcf4mgsp6x8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7h{name}"),
        groups: Vec::new(),
    }
}
