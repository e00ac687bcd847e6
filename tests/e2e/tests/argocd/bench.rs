//! A cluster of Rancher's, and a namespace in which an Argo CD would look for its clusters.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{Desk, Invocation, Story};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use testbed::{Era, User};

/// The plugin as the file that kubectl looks for.
const PLUGIN: &str = "kubectl-argocd_rancher";

pub(crate) struct Bench {
    pub(crate) story: Story,
    /// Where Argo CD would be.
    pub(crate) namespace: String,
    pub(crate) secrets: Api<Secret>,
}

impl Bench {
    pub(crate) async fn begin(name: &str) -> Result<Self> {
        let story = Story::begin(Era::Secret, name).await?;
        let namespace = format!("argocd-{}", story.cluster.id);
        let client = story.management.client().await?;
        let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
        Api::all(client.clone()).create(&PostParams::default(), &object).await?;
        give_plugin(&story.desk)?;
        Ok(Self {
            secrets: Api::namespaced(client, &namespace),
            story,
            namespace,
        })
    }

    /// The cluster's id.
    pub(crate) fn id(&self) -> &str {
        &self.story.cluster.id
    }

    /// Its address, as Argo CD is told.
    pub(crate) fn server(&self) -> String {
        format!("{}/k8s/clusters/{}", self.story.rancher.url(), self.id())
    }

    /// `kubectl argocd-rancher ARGS`, with both sides known.
    pub(crate) fn run(&self, args: &[&str]) -> Invocation {
        self.run_at(&self.story.desk, args)
    }

    pub(crate) fn run_at(&self, desk: &Desk, args: &[&str]) -> Invocation {
        let both = ["--rancher-context", "rancher"];
        self.bare_at(desk, &[args, both.as_slice()].concat())
    }

    /// The same without a way to Rancher.
    pub(crate) fn bare(&self, args: &[&str]) -> Invocation {
        self.bare_at(&self.story.desk, args)
    }

    fn bare_at(&self, desk: &Desk, args: &[&str]) -> Invocation {
        let argo = ["--context", "management", "--namespace", &self.namespace];
        desk.kubectl(["argocd-rancher"].iter().chain(args).chain(&argo))
    }

    /// Another user of Rancher, at a desk with the plugin.
    pub(crate) async fn desk_of(&self, user: &User) -> Result<Desk> {
        self.story.rancher.add_user(user).await?;
        let desk = self.story.desk_of(user).await?;
        give_plugin(&desk)?;
        Ok(desk)
    }

    /// The only Secret in Argo CD's namespace.
    pub(crate) async fn secret(&self) -> Result<Secret> {
        let mut all = self.secrets.list(&kube::api::ListParams::default()).await?.items;
        anyhow::ensure!(all.len() == 1, "{} Secrets", all.len());
        all.pop().context("no Secret")
    }

    /// Tokens that were minted for the cluster and are alive, by name.
    pub(crate) async fn living(&self) -> Result<Vec<String>> {
        let tokens = self.story.rancher.tokens().await?;
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
        STANDARD.encode(self.story.rancher.ca_pem())
    }
}

/// Puts the plugin on the `PATH` of a desk.
pub(crate) fn give_plugin(desk: &Desk) -> Result<()> {
    let link = desk.home().join("bin").join(PLUGIN);
    std::os::unix::fs::symlink(testbed::built(PLUGIN)?, link)?;
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
