//! What loses an agent: a restart without a valid token, a Secret that is gone or wrong, registration tokens that are deleted, a Rancher
//! that was restored from a backup. All of it by the API servers, as an administrator does it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Client, Resource as _, ResourceExt};
use serde_json::{Value, json};

use super::{FakeRancher, Registered, User};

const HASH: &str = "io.cattle.agent.registration-token-hash";
/// How long something of Kubernetes or Rancher may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The registration tokens of some clusters at one time, with their Secrets.
#[derive(Debug)]
pub struct Backup(Vec<Saved>);

#[derive(Debug)]
struct Saved {
    cluster: String,
    /// The token that Rancher has applied last, by the annotation of the Cluster.
    applied: Option<String>,
    tokens: Vec<DynamicObject>,
    secrets: Vec<Secret>,
}

impl FakeRancher {
    /// The Secret that the agent's Deployment names.
    pub async fn agent_secret(&self, cluster: &Registered) -> Result<String> {
        let deployments = Api::<Deployment>::namespaced(self.direct(cluster)?, "cattle-system");
        let deployment = deployments.get("cattle-cluster-agent").await?;
        let spec = deployment.spec.and_then(|spec| spec.template.spec).context("no spec")?;
        let mut volumes = spec.volumes.into_iter().flatten();
        let volume = volumes.find(|volume| volume.name == "cattle-credentials");
        volume
            .and_then(|volume| volume.secret?.secret_name)
            .context("the Deployment names no Secret")
    }

    /// Replaces the agent's pods. A new agent reads its token anew; returns when it runs, connected or not.
    pub async fn restart_agent(&self, cluster: &Registered) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.direct(cluster)?, "cattle-system");
        let agents = ListParams::default().labels("app=cattle-cluster-agent");
        let uids = async || {
            let listed = pods.list(&agents).await?;
            anyhow::Ok(listed.iter().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>())
        };
        let before = uids().await?;
        pods.delete_collection(&DeleteParams::default(), &agents).await?;
        until("another agent", async || {
            let now = uids().await?;
            Ok(!now.is_empty() && now.is_disjoint(&before))
        })
        .await
    }

    /// Deletes the agent's Secret. The agent works until its next start.
    pub async fn delete_agent_secret(&self, cluster: &Registered) -> Result<()> {
        let name = self.agent_secret(cluster).await?;
        let secrets = Api::<Secret>::namespaced(self.direct(cluster)?, "cattle-system");
        secrets.delete(&name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Sets the token in the agent's Secret: an unknown one, or that of another cluster.
    pub async fn set_agent_token(&self, cluster: &Registered, token: &str) -> Result<()> {
        let name = self.agent_secret(cluster).await?;
        let secrets = Api::<Secret>::namespaced(self.direct(cluster)?, "cattle-system");
        let patch = json!({ "data": { "token": STANDARD.encode(token) } });
        secrets
            .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }

    /// The values of the registration tokens of a cluster, by name.
    pub async fn token_values(&self, cluster: &Registered) -> Result<BTreeMap<String, String>> {
        let Saved { tokens, secrets, .. } = self.saved(cluster).await?;
        let of_secret = |secret: &Secret| {
            let value = secret.data.as_ref()?.get("token")?;
            let name = secret.name_any().strip_prefix("crt-token-")?.to_owned();
            Some((name, String::from_utf8_lossy(&value.0).into_owned()))
        };
        let of_token = |token: &DynamicObject| {
            let value = token.data["status"]["token"]
                .as_str()
                .filter(|value| !value.is_empty())?;
            Some((token.name_any(), value.to_owned()))
        };
        let plain = tokens.iter().filter_map(of_token);
        Ok(plain.chain(secrets.iter().filter_map(of_secret)).collect())
    }

    /// Deletes all registration tokens of a cluster. Returns when Rancher rejects all of them.
    pub async fn delete_registration_tokens(&self, cluster: &Registered) -> Result<()> {
        let tokens = self.tokens_of(&cluster.id)?;
        for token in tokens.list(&ListParams::default()).await? {
            tokens.delete(&token.name_any(), &DeleteParams::default()).await?;
        }
        until("all registration tokens to be rejected", async || {
            let gone = tokens.list(&ListParams::default()).await?.items.is_empty();
            Ok(gone && self.report(cluster).await?.accepted.is_empty())
        })
        .await
    }

    /// Saves the registration tokens of these clusters.
    pub async fn backup(&self, clusters: &[&Registered]) -> Result<Backup> {
        let mut saved = Vec::new();
        for cluster in clusters {
            saved.push(self.saved(cluster).await?);
        }
        Ok(Backup(saved))
    }

    /// Puts the saved registration tokens back and deletes all others, as a restore of Rancher does. The clusters are left alone.
    pub async fn restore(&self, backup: &Backup) -> Result<()> {
        let by = PatchParams::default();
        for saved in &backup.0 {
            let tokens = self.tokens_of(&saved.cluster)?;
            for token in tokens.list(&ListParams::default()).await? {
                let name = token.name_any();
                if saved.tokens.iter().all(|saved| saved.name_any() != name) {
                    tokens.delete(&name, &DeleteParams::default()).await?;
                }
            }
            for token in &saved.tokens {
                let mut status = json!({ "status": { "gracePeriodExpiresAt": null } });
                if let Value::Object(saved) = &token.data["status"] {
                    status["status"]
                        .as_object_mut()
                        .context("no object")?
                        .extend(saved.clone());
                }
                match tokens.patch(&token.name_any(), &by, &Patch::Merge(&status)).await {
                    Err(kube::Error::Api(error)) if error.code == 404 => {
                        tokens.create(&kube::api::PostParams::default(), &anew(token)).await?;
                    }
                    patched => drop(patched?),
                }
            }
            let secrets = Api::<Secret>::namespaced(self.local()?, &saved.cluster);
            for secret in &saved.secrets {
                let name = secret.name_any();
                until("the Secret of a registration token", async || {
                    // Rancher creates that of a token that was deleted.
                    let Some(mut live) = secrets.get_opt(&name).await? else {
                        return Ok(false);
                    };
                    live.data.clone_from(&secret.data);
                    let replaced = secrets.replace(&name, &kube::api::PostParams::default(), &live).await;
                    match replaced {
                        Err(kube::Error::Api(error)) if error.code == 409 => Ok(false),
                        replaced => Ok(replaced.map(|_| true)?),
                    }
                })
                .await?;
            }
            let applied = json!({ "metadata": { "annotations": { HASH: saved.applied } } });
            let clusters: Api<DynamicObject> = Api::all_with(self.local()?, &kind("Cluster", "clusters"));
            clusters.patch(&saved.cluster, &by, &Patch::Merge(&applied)).await?;
        }
        Ok(())
    }

    async fn saved(&self, cluster: &Registered) -> Result<Saved> {
        let tokens = self.tokens_of(&cluster.id)?.list(&ListParams::default()).await?;
        let secrets = Api::<Secret>::namespaced(self.local()?, &cluster.id);
        let mut secrets = secrets.list(&ListParams::default()).await?.items;
        secrets.retain(|secret| secret.name_any().starts_with("crt-token-"));
        let clusters: Api<DynamicObject> = Api::all_with(self.local()?, &kind("Cluster", "clusters"));
        let mut object = clusters.get(&cluster.id).await?;
        Ok(Saved {
            cluster: cluster.id.clone(),
            applied: object.annotations_mut().remove(HASH),
            tokens: tokens.items,
            secrets,
        })
    }

    fn tokens_of(&self, cluster: &str) -> Result<Api<DynamicObject>> {
        let kind = kind("ClusterRegistrationToken", "clusterregistrationtokens");
        Ok(Api::namespaced_with(self.local()?, cluster, &kind))
    }

    fn local(&self) -> Result<Client> {
        self.client("/k8s/clusters/local", Some(&User::admin()))
    }

    /// A client of the cluster that does not go through its agent.
    fn direct(&self, cluster: &Registered) -> Result<Client> {
        self.client(&format!("/direct/{}", cluster.id), Some(&User::admin()))
    }
}

fn kind(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("management.cattle.io", "v3", kind), plural)
}

/// The object, to be created.
fn anew(token: &DynamicObject) -> DynamicObject {
    let mut anew = token.clone();
    let meta = anew.meta_mut();
    (meta.uid, meta.resource_version, meta.managed_fields) = (None, None, None);
    (meta.creation_timestamp, meta.generation, meta.finalizers) = (None, None, None);
    if let Value::Object(data) = &mut anew.data {
        // Rancher moves a value that is given at the creation into a Secret, and names it.
        data.retain(|key, value| key == "spec" || value["tokenSecretName"].is_null());
    }
    anew
}

async fn until(what: &str, is: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is().await? {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    });
    match waited.await {
        Ok(waited) => waited,
        Err(_) => bail!("timed out after {PATIENCE:?} waiting for {what}"),
    }
}
