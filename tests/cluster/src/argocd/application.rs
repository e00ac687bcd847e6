//! Applications: what makes Argo CD look at a cluster, and use its token.

use anyhow::{Context as _, Result};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::{ArgoCd, NAMESPACE, repository};

/// The pod for which a sync of [`Content::Gated`] waits. It is Pending for ever; a sync goes on once its status has the
/// phase `Succeeded`, and fails with `Failed`.
pub const GATE: &str = "gate";

/// What an Application deploys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A ConfigMap `deployed`.
    Plain,
    /// The same, after a hook before the sync: the pod [`GATE`], which ends when a test says so.
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

/// An Application to be created.
#[derive(Clone, Debug)]
pub struct Application<'a> {
    /// Its name.
    pub name: &'a str,
    /// The address of its cluster, as the Secret has it.
    pub server: &'a str,
    /// The namespace there, which must be there already.
    pub namespace: &'a str,
    /// What it deploys.
    pub content: Content,
}

/// The last sync of an Application, running or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// `Running`, `Succeeded`, `Failed`, `Error`, `Terminating`.
    pub phase: String,
    /// What Argo CD says of it.
    pub message: String,
}

impl Operation {
    /// Whether it is over, well or not.
    pub fn is_over(&self) -> bool {
        !matches!(self.phase.as_str(), "Running" | "Terminating")
    }
}

impl ArgoCd {
    /// Creates an Application. Nothing is deployed until [`sync`](Self::sync), but its cluster is looked at from now on.
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

    /// Deletes an Application, and nothing of what it has deployed.
    pub async fn delete_application(&self, name: &str) -> Result<()> {
        self.applications()
            .await?
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Lets Argo CD compare an Application with its cluster again, as its periodic refresh does.
    pub async fn refresh(&self, application: &str) -> Result<()> {
        let annotation = json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}});
        let patch = Patch::Merge(&annotation);
        self.applications()
            .await?
            .patch(application, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Starts a sync, through argocd-server, and returns at once.
    pub async fn sync(&self, application: &str) -> Result<()> {
        let path = format!("/api/v1/applications/{application}/sync");
        self.post(&path, &json!({"revision": "main"})).await.map(drop)
    }

    /// How the last sync stands; `None`: there was none.
    pub async fn operation(&self, application: &str) -> Result<Option<Operation>> {
        let state = &self.application(application).await?["status"]["operationState"];
        let text = |key: &str| state[key].as_str().unwrap_or_default().to_owned();
        let (phase, message) = (text("phase"), text("message"));
        Ok((!phase.is_empty()).then_some(Operation { phase, message }))
    }

    /// An Application as it stands.
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
