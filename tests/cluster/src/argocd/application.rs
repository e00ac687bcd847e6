//! Applications. They make Argo CD use a cluster and its token.

use anyhow::{Context as _, Result};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::{ArgoCd, NAMESPACE, repository};

/// The pod that a sync of [`Content::Gated`] waits for. It is Pending until a test changes its status: the sync
/// continues with the phase `Succeeded`, and fails with `Failed`.
pub const GATE: &str = "gate";

/// What an Application deploys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A ConfigMap `deployed`.
    Plain,
    /// The same, after a hook before the sync: the pod [`GATE`], which a test ends.
    Gated,
}

impl Content {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gated => "gated",
        }
    }
}

/// An Application to create.
#[derive(Clone, Debug)]
pub struct Application<'a> {
    /// Its name.
    pub name: &'a str,
    /// The URL of its cluster, as in the cluster Secret.
    pub server: &'a str,
    /// The namespace in the cluster. It must exist.
    pub namespace: &'a str,
    /// What it deploys.
    pub content: Content,
}

/// The last sync of an Application, in progress or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// `Running`, `Succeeded`, `Failed`, `Error`, `Terminating`.
    pub phase: String,
    /// The message of Argo CD.
    pub message: String,
}

impl Operation {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        !matches!(self.phase.as_str(), "Running" | "Terminating")
    }
}

impl ArgoCd {
    /// Creates an Application. Argo CD observes the cluster from now on, and deploys nothing before
    /// [`sync`](Self::sync).
    pub async fn create_application(&self, application: &Application<'_>) -> Result<()> {
        let object = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": application.name},
            "spec": {
                "project": "default",
                "source": {
                    "repoURL": format!("file://{}", repository::path(&self.dir).display()),
                    "targetRevision": "main", "path": application.content.path(),
                },
                "destination": {"server": application.server, "namespace": application.namespace},
            },
        });
        let object: DynamicObject = serde_json::from_value(object)?;
        self.applications()
            .await?
            .create(&PostParams::default(), &object)
            .await?;
        Ok(())
    }

    /// Deletes an Application without the objects that it has deployed.
    pub async fn delete_application(&self, name: &str) -> Result<()> {
        self.applications()
            .await?
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Makes Argo CD compare an Application with its cluster again, like the periodic refresh.
    pub async fn refresh(&self, application: &str) -> Result<()> {
        let annotation = json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}});
        let patch = Patch::Merge(&annotation);
        self.applications()
            .await?
            .patch(application, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Starts a sync through argocd-server.
    pub async fn sync(&self, application: &str) -> Result<()> {
        let path = format!("/api/v1/applications/{application}/sync");
        self.post(&path, &json!({"revision": "main"})).await.map(drop)
    }

    /// The last sync, if any.
    pub async fn operation(&self, application: &str) -> Result<Option<Operation>> {
        let state = &self.application(application).await?["status"]["operationState"];
        let text = |key: &str| state[key].as_str().unwrap_or_default().to_owned();
        let (phase, message) = (text("phase"), text("message"));
        Ok((!phase.is_empty()).then_some(Operation { phase, message }))
    }

    /// The current Application object.
    pub async fn application(&self, name: &str) -> Result<Value> {
        let object = self.applications().await?.get(name).await;
        let object = object.with_context(|| format!("read Application {name}"))?;
        Ok(serde_json::to_value(object)?)
    }

    async fn applications(&self) -> Result<Api<DynamicObject>> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application"));
        Ok(Api::namespaced_with(self.client().await?, NAMESPACE, &kind))
    }
}
