//! A cluster of Rancher's, and an Argo CD that may use it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::{Invocation, Story, until};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::ListParams;
use testbed::{Application, ArgoCd, Bed, Connection, Content, Era};

/// The plugin as the file that kubectl looks for.
const PLUGIN: &str = "kubectl-argocd_rancher";
/// Argo CD looks every ten seconds, and a machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Bench {
    pub(crate) story: Story,
    pub(crate) argo: &'static ArgoCd,
    pub(crate) secrets: Api<Secret>,
}

impl Bench {
    pub(crate) async fn begin(name: &str) -> Result<Self> {
        let (story, argo) = tokio::try_join!(Story::begin(Era::Secret, name), async {
            Bed::shared().await?.argocd().await
        })?;
        let link = story.desk.home().join("bin").join(PLUGIN);
        std::os::unix::fs::symlink(testbed::built(PLUGIN)?, link)?;
        let client = story.management.client().await?;
        Ok(Self {
            secrets: Api::namespaced(client, argo.namespace()),
            story,
            argo,
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.story.cluster.id
    }

    /// The cluster's address, as Argo CD is told.
    pub(crate) fn server(&self) -> String {
        format!("{}/k8s/clusters/{}", self.story.rancher.url(), self.id())
    }

    /// `kubectl argocd-rancher ARGS`, with both sides known.
    pub(crate) fn run(&self, args: &[&str]) -> Invocation {
        let sides = [
            "--context",
            "management",
            "--namespace",
            self.argo.namespace(),
            "--rancher-context",
            "rancher",
        ];
        self.story
            .desk
            .kubectl(["argocd-rancher"].iter().chain(args).chain(&sides))
    }

    /// The Secret of the cluster.
    pub(crate) async fn secret(&self) -> Result<Secret> {
        let server = self.server();
        let all = self.secrets.list(&ListParams::default()).await?.items;
        let mut ours = all.into_iter().filter(|secret| {
            let value = secret.data.as_ref().and_then(|data| data.get("server"));
            value.is_some_and(|value| value.0 == server.as_bytes())
        });
        ours.next().context("Argo CD has no Secret for the cluster")
    }

    /// What makes Argo CD use the cluster.
    pub(crate) async fn deploy(&self, name: &str, content: Content) -> Result<String> {
        let namespace = self.story.downstream.namespace(name).await?;
        let server = self.server();
        let application = Application {
            name,
            server: &server,
            namespace: &namespace,
            content,
        };
        self.argo.create_application(&application).await?;
        Ok(namespace)
    }

    /// Waits until Argo CD says so of the cluster.
    pub(crate) async fn becomes(&self, status: &str) -> Result<Connection> {
        let server = self.server();
        until(&format!("Argo CD to say {status} of {server}"), PATIENCE, async || {
            let seen = self.argo.connection(&server).await?;
            Ok(seen.filter(|seen| seen.status == status))
        })
        .await
    }
}
