//! The controller that deploys the agent to downstream clusters: when, with which token, and what it records afterwards
//! (`pkg/controllers/management/clusterdeploy/clusterdeploy.go`, 2.12.0 and 2.15.0).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::api::{ApiError, ApiResult, MERGE, paths, read};
use crate::apply::apply;
use crate::clusters::is_hosted;
use crate::conditions::{Condition, update_cluster};
use crate::config::TokenStorage;
use crate::manifest::{Values, agent_image, features};
use crate::registration::secret_name;
use crate::sessions::Tunnel;
use crate::token::{fingerprint, new_token};
use crate::world::{World, agent_namespace};

pub(crate) const FORCE: &str = "io.cattle.agent.force.deploy";
pub(crate) const HASH: &str = "io.cattle.agent.registration-token-hash";
/// Put into the pod template by Rancher after the first connection (seen on 2.15.0 and 2.12.0).
pub(crate) const UPGRADED: &str = "agent.cluster.cattle.io/upgraded-v1.22";

/// The workers, by cluster id.
#[derive(Default)]
pub(crate) struct Deployers(Mutex<HashMap<String, Arc<Notify>>>);

/// Enqueues a cluster.
pub(crate) fn poke(world: &Arc<World>, id: &str) {
    let mut all = world
        .deployers
        .0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    all.entry(id.to_owned())
        .or_insert_with(|| {
            let wake = Arc::new(Notify::new());
            tokio::spawn(work(world.clone(), id.to_owned(), wake.clone()));
            wake
        })
        .notify_one();
}

/// Only changes of the Cluster itself wake a worker. Seen on Rancher 2.15.0: after a rotation by Rancher nothing was
/// pushed for three and a half minutes, until the Cluster changed.
pub(crate) fn wire(world: &Arc<World>) {
    let mut clusters = world.clusters.subscribe();
    let world = world.clone();
    tokio::spawn(async move {
        while let Some(change) = clusters.recv().await {
            if change.new.is_some() {
                poke(&world, &change.key.1);
            }
        }
    });
}

async fn work(world: Arc<World>, id: String, wake: Arc<Notify>) {
    loop {
        wake.notified().await;
        world.leader().await;
        match sync(&world, &id).await {
            Ok(()) => {}
            // Without any report, the whole apply starts again (seen on Rancher 2.15.0 and 2.12.0), even if its own
            // rollout has no connected agent at this moment.
            Err(ApiError::Conflict) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                // If none comes, the next event of the Cluster wakes this worker.
                let _ = wait_for_tunnel(&world, &id).await;
                wake.notify_one();
            }
            Err(error) => {
                tracing::warn!(cluster = id, %error, "cannot deploy the agent; again in 2 s");
                tokio::time::sleep(Duration::from_secs(2)).await;
                wake.notify_one();
            }
        }
    }
}

/// Why the agent is deployed again (`redeployAgent` and `deployAgent` in the same file).
fn reason(world: &World, id: &str, cluster: &Value) -> Option<&'static str> {
    if read::condition(cluster, "AgentDeployed") != "True" {
        return Some("agent not deployed");
    }
    if read::annotation(cluster, FORCE) == "true" {
        return Some("forced");
    }
    if read::text(cluster, "/status/agentImage") != agent_image(world.storage()) {
        return Some("agent image");
    }
    // Only with `secret` storage. Without a `system` token nothing is compared (seen on Rancher 2.15.0: after its
    // deletion, an event neither recreated nor pushed it).
    let system = (world.storage() == TokenStorage::Secret)
        .then(|| system_token(world, id))
        .flatten();
    system
        .filter(|token| fingerprint(token) != read::annotation(cluster, HASH))
        .map(|_| "token hash")
}

async fn sync(world: &Arc<World>, id: &str) -> ApiResult<()> {
    let Some(cluster) = world.management.get(&paths::cluster(id)).await? else {
        return Ok(());
    };
    let internal = cluster["spec"]["internal"] == true;
    if internal || !cluster["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let Some(reason) = reason(world, id, &cluster) else {
        return Ok(());
    };
    // The downstream API must be reachable, which is not the condition `Connected`.
    if world.sessions.oldest(Tunnel::Agent, id).is_none() && !is_hosted(world, id) {
        return Ok(());
    }
    let first = read::condition(&cluster, "AgentDeployed") != "True";
    let begun = begin(world, id, cluster, reason).await?;
    let takes = world.traits(id).redeploy.unwrap_or(world.timing().redeploy);
    // Seen on Rancher 2.15.0: the Deployment changed 1.4 s after the annotation, the note on the Cluster came 1 s later.
    let to_the_end = takes / 3;
    tokio::time::sleep(to_the_end * 2).await;
    begun.land(world, id, to_the_end).await?;
    if first {
        let world = world.clone();
        let id = id.to_owned();
        tokio::spawn(async move { mark_upgraded(&world, &id).await });
    }
    Ok(())
}

/// An apply in progress: the Cluster as it was read at the start, and the manifest with the token of that moment.
pub(crate) struct Begun {
    cluster: Value,
    rendered: Rendered,
    reason: &'static str,
}

/// Begins an apply of the cluster that was just read.
pub(crate) async fn begin(world: &World, id: &str, cluster: Value, reason: &'static str) -> ApiResult<Begun> {
    let rendered = render(world, id).await?;
    let begun = Begun {
        cluster,
        rendered,
        reason,
    };
    begun.log(world, id, "rendered");
    Ok(begun)
}

/// A manifest with the token of the moment in it.
pub(crate) struct Rendered {
    token: String,
    objects: Vec<Value>,
}

impl Rendered {
    pub(crate) fn into_objects(self) -> Vec<Value> {
        self.objects
    }
}

/// Renders the agent's manifest with the token of `system`, which is made only here, if there is none
/// (`pkg/systemaccount/systemaccount.go`, `GetOrCreateSystemClusterToken`, 2.12.0 and 2.15.0).
pub(crate) async fn render(world: &World, id: &str) -> ApiResult<Rendered> {
    let token = match system_token(world, id) {
        Some(token) => token,
        None => create_system(world, id).await?,
    };
    let namespace = agent_namespace(id);
    let values = Values {
        storage: world.storage(),
        url: world.server_url(),
        token: &token,
        cluster: id,
        pattern: world.traits(id).pattern,
        features: true,
        cacerts: world.setting("cacerts"),
        install_uuid: &world.install_uuid,
        namespace: &namespace,
    };
    let objects = values.objects();
    Ok(Rendered { token, objects })
}

impl Begun {
    fn log(&self, world: &World, id: &str, step: &str) {
        let fingerprint = fingerprint(&self.rendered.token);
        let line = json!({"cluster": id, "reason": self.reason, "step": step, "fingerprint": fingerprint});
        world.log.line("redeploy", line);
    }

    /// Applies the rendered manifest, and updates the Cluster at the end.
    ///
    /// The update has the resourceVersion of the start. Any change of the Cluster in between, even an annotation, makes
    /// it conflict (`clusterdeploy.go`, `sync`; seen on Rancher 2.15.0 and 2.12.0).
    pub(crate) async fn land(self, world: &World, id: &str, to_the_end: Duration) -> ApiResult<()> {
        wait_for_tunnel(world, id).await?;
        apply_objects(world, id, &self.rendered.objects).await?;
        self.log(world, id, "applied");
        tokio::time::sleep(to_the_end).await;
        let storage = world.storage();
        let mut annotations = json!({});
        if storage == TokenStorage::Secret {
            annotations[HASH] = fingerprint(&self.rendered.token).into();
        }
        if read::annotation(&self.cluster, FORCE) == "true" {
            annotations[FORCE] = "false".into();
        }
        let flags: serde_json::Map<String, Value> = features(storage)
            .iter()
            .map(|(name, on)| ((*name).to_owned(), (*on).into()))
            .collect();
        let status = json!({
            "agentImage": agent_image(storage), "agentFeatures": flags,
            "appliedAgentEnvVars": [
                {"name": "CATTLE_SERVER_VERSION", "value": storage.version()},
                {"name": "CATTLE_INSTALL_UUID", "value": world.install_uuid},
                {"name": "CATTLE_INGRESS_IP_DOMAIN", "value": "sslip.io"},
            ],
        });
        let deployed = [Condition::is_true("AgentDeployed")];
        let noted = update_cluster(world, id, &self.cluster, &annotations, &status, &deployed).await;
        match &noted {
            Ok(()) => self.log(world, id, "noted"),
            Err(ApiError::Conflict) => self.log(world, id, "conflict"),
            Err(_) => {}
        }
        noted
    }
}

/// Applies objects in the namespace of a cluster's agents.
pub(crate) async fn apply_objects(world: &World, id: &str, objects: &[Value]) -> ApiResult<()> {
    let namespace = agent_namespace(id);
    for object in objects {
        let (prefix, plural) = match object["kind"].as_str() {
            Some("Deployment") => ("/apis/apps/v1", "deployments"),
            Some("Secret") => ("/api/v1", "secrets"),
            _ => ("/api/v1", "serviceaccounts"),
        };
        let collection = format!("{prefix}/namespaces/{namespace}/{plural}");
        let path = format!("{collection}/{}", read::name(object));
        apply(&world.downstream, &collection, &path, object).await?;
    }
    Ok(())
}

/// A dial waits for an agent to reconnect, with the manifest as it was rendered (seen on Rancher 2.15.0: half a
/// minute).
async fn wait_for_tunnel(world: &World, id: &str) -> ApiResult<()> {
    let mut changed = world.sessions.changed();
    let wait = async {
        while world.sessions.oldest(Tunnel::Agent, id).is_none() && !is_hosted(world, id) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .map_err(|_| ApiError::Other("cluster agent disconnected".to_owned()))
}

/// The value that `system` holds, as Rancher's caches have it.
pub(crate) fn system_token(world: &World, id: &str) -> Option<String> {
    let crt = world
        .crts
        .get(id, "system")
        .filter(|crt| crt["metadata"]["deletionTimestamp"].is_null())?;
    let token = if world.storage() == TokenStorage::Secret && !read::text(&crt, "/status/tokenSecretName").is_empty() {
        read::secret(world.secrets.get(id, &secret_name("system"))?.as_ref(), "token")?
    } else {
        read::text(&crt, "/status/token").to_owned()
    };
    Some(token).filter(|token| !token.is_empty())
}

async fn create_system(world: &World, id: &str) -> ApiResult<String> {
    let existing = world.management.get(&paths::crt(id, "system")).await?;
    if existing.is_some() {
        return Err(ApiError::Other("registration token system has no value yet".to_owned()));
    }
    let token = new_token();
    let object = json!({
        "apiVersion": "management.cattle.io/v3", "kind": "ClusterRegistrationToken",
        "metadata": {"name": "system", "namespace": id, "labels": {"cattle.io/creator": "norman"}},
        "spec": {"clusterName": id}, "status": {"token": token},
    });
    world.management.create(&paths::crts(id), &object).await?;
    world.log.line(
        "token-created",
        json!({"cluster": id, "token": "system", "fingerprint": fingerprint(&token)}),
    );
    Ok(token)
}

/// One more rollout with the same token, once per agent (seen on 2.15.0 and 2.12.0: some 3 s after the import).
pub(crate) async fn mark_upgraded(world: &World, id: &str) {
    tokio::time::sleep(world.timing().upgraded_annotation).await;
    let path = paths::deployment(&agent_namespace(id));
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {UPGRADED: "true"}}}}});
    for _ in 0..5 {
        match world.downstream.patch(&path, MERGE, &patch).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(cluster = id, %error, "cannot annotate the agent's Deployment"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
