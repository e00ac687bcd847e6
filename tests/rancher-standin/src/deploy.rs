//! The controller that puts the agent onto downstream clusters: when it does, with which token, and what it notes down
//! afterwards (`pkg/controllers/management/clusterdeploy/clusterdeploy.go`, 2.12.0 and 2.15.0).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::api::{ApiError, ApiResult, MERGE, paths, read};
use crate::apply::apply;
use crate::conditions::{Condition, write_cluster};
use crate::config::Era;
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

/// Looks at a cluster, soon.
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

/// Only a Cluster's own changes wake a worker. Seen on Rancher 2.15.0: after a native rotation nothing was pushed for
/// three and a half minutes, until the Cluster was touched.
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
        if let Err(error) = sync(&world, &id).await {
            tracing::warn!(cluster = id, %error, "cannot deploy the agent; again in 2 s");
            tokio::time::sleep(Duration::from_secs(2)).await;
            wake.notify_one();
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
    if read::text(cluster, "/status/agentImage") != agent_image(world.era()) {
        return Some("agent image");
    }
    // Era S only; without a `system` token nothing is compared (seen on Rancher 2.15.0: after its deletion a touch neither
    // recreated nor pushed).
    let system = (world.era() == Era::Secret).then(|| system_token(world, id)).flatten();
    system
        .filter(|token| fingerprint(token) != read::annotation(cluster, HASH))
        .map(|_| "token hash")
}

async fn sync(world: &Arc<World>, id: &str) -> ApiResult<()> {
    let Some(cluster) = world.cluster(id) else {
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
    if world.sessions.oldest(Tunnel::Agent, id).is_none() {
        return Ok(());
    }
    let rendered = render(world, id).await?;
    world.log.line(
        "redeploy",
        json!({
            "cluster": id, "reason": reason, "step": "rendered", "fingerprint": fingerprint(&rendered.token),
        }),
    );
    tokio::time::sleep(world.timing().redeploy).await;
    land(world, id, rendered, reason).await?;
    if read::condition(&cluster, "AgentDeployed") != "True" {
        let world = world.clone();
        let id = id.to_owned();
        tokio::spawn(async move { mark_upgraded(&world, &id).await });
    }
    Ok(())
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
        era: world.era(),
        url: &world.url,
        token: &token,
        cluster: id,
        pattern: world.traits(id).pattern,
        features: true,
        cacerts: &world.cacerts,
        install_uuid: &world.install_uuid,
        namespace: &namespace,
    };
    let objects = values.objects();
    Ok(Rendered { token, objects })
}

/// Applies what was rendered, and notes it down on the Cluster.
pub(crate) async fn land(world: &World, id: &str, rendered: Rendered, reason: &str) -> ApiResult<()> {
    wait_for_tunnel(world, id).await?;
    apply_objects(world, id, &rendered.objects).await?;
    let mut annotations = json!({});
    if world.era() == Era::Secret {
        annotations[HASH] = fingerprint(&rendered.token).into();
    }
    if world
        .cluster(id)
        .is_some_and(|cluster| read::annotation(&cluster, FORCE) == "true")
    {
        annotations[FORCE] = "false".into();
    }
    world.log.line(
        "redeploy",
        json!({
            "cluster": id, "reason": reason, "step": "applied", "fingerprint": fingerprint(&rendered.token),
        }),
    );
    let era = world.era();
    let flags: serde_json::Map<String, Value> = features(era)
        .iter()
        .map(|(name, on)| ((*name).to_owned(), (*on).into()))
        .collect();
    let status = json!({
        "agentImage": agent_image(era), "agentFeatures": flags,
        "appliedAgentEnvVars": [
            {"name": "CATTLE_SERVER_VERSION", "value": era.version()},
            {"name": "CATTLE_INSTALL_UUID", "value": world.install_uuid},
            {"name": "CATTLE_INGRESS_IP_DOMAIN", "value": "sslip.io"},
        ],
    });
    write_cluster(world, id, &annotations, &status, &[Condition::is_true("AgentDeployed")]).await
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

/// A dial waits for an agent to come back, with the manifest as it was rendered (seen on Rancher 2.15.0: half a minute).
async fn wait_for_tunnel(world: &World, id: &str) -> ApiResult<()> {
    let mut changed = world.sessions.changed();
    let wait = async {
        while world.sessions.oldest(Tunnel::Agent, id).is_none() {
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
    let token = if world.era() == Era::Secret && !read::text(&crt, "/status/tokenSecretName").is_empty() {
        read::secret(world.secrets.get(id, &secret_name("system"))?.as_ref(), "token")?
    } else {
        read::text(&crt, "/status/token").to_owned()
    };
    Some(token).filter(|token| !token.is_empty())
}

async fn create_system(world: &World, id: &str) -> ApiResult<String> {
    let existing = world.management.get(&paths::crt(id, "system")).await?;
    if existing.is_some() {
        // It is there, but its value is not yet: a moment later it is.
        return Err(ApiError::Conflict);
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

/// One more roll-out with the same token, once in an agent's life (seen on 2.15.0 and 2.12.0: some 3 s after the import).
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
