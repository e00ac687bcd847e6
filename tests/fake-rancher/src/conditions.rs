//! The status of Cluster objects, kept as Rancher keeps it: written only when something differs, since each write is an event
//! that wakes every controller of that cluster.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{ApiError, ApiResult, paths, read};
use crate::config::TokenStorage;
use crate::deploy;
use crate::identity::ca_cert;
use crate::sessions::Tunnel;
use crate::token::suffix;
use crate::ttl::rfc3339;
use crate::world::World;

/// A condition to be written. `lastUpdateTime` moves only when status or message change; `lastTransitionTime` is not kept
/// (`github.com/rancher/wrangler` `pkg/condition`).
pub(crate) struct Condition {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: &'static str,
}

impl Condition {
    /// True, without a word: so does `AgentDeployed` stay even after another apply (seen on 2.15.0 and 2.12.0).
    pub(crate) fn is_true(kind: &'static str) -> Self {
        Self {
            kind,
            status: true,
            reason: "",
            message: "",
        }
    }

    pub(crate) fn is_false(kind: &'static str, reason: &'static str, message: &'static str) -> Self {
        Self {
            kind,
            status: false,
            reason,
            message,
        }
    }
}

fn set_condition(conditions: &mut Vec<Value>, wanted: &Condition) {
    let status = if wanted.status { "True" } else { "False" };
    let mut new = json!({"type": wanted.kind, "status": status, "lastUpdateTime": rfc3339(Timestamp::now())});
    for (key, text) in [("reason", wanted.reason), ("message", wanted.message)] {
        if !text.is_empty() {
            new[key] = text.into();
        }
    }
    match conditions.iter_mut().find(|condition| condition["type"] == wanted.kind) {
        Some(old) if old["status"] == status && read::text(old, "/message") == wanted.message => {}
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

/// Writes annotations, status and conditions of a Cluster, and nothing if nothing differs: each write is an event that
/// wakes every controller of that cluster. 2.15.0 has a status subresource, 2.12.0 has none (seen).
pub(crate) async fn write_cluster(
    world: &World,
    id: &str,
    annotations: &Value,
    status: &Value,
    conditions: &[Condition],
) -> ApiResult<()> {
    for _ in 0..10 {
        let Some(live) = world.management.get(&paths::cluster(id)).await? else {
            return Err(ApiError::NotFound);
        };
        match update_cluster(world, id, &live, annotations, status, conditions).await {
            Err(ApiError::Conflict) => tokio::time::sleep(Duration::from_millis(20)).await,
            result => return result,
        }
    }
    Err(ApiError::Conflict)
}

/// The same of a Cluster as it was read: a conflict if anybody has changed it since. A merge patch that names a
/// resourceVersion is refused like an update.
pub(crate) async fn update_cluster(
    world: &World,
    id: &str,
    live: &Value,
    annotations: &Value,
    status: &Value,
    conditions: &[Condition],
) -> ApiResult<()> {
    let mut all = live["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for condition in conditions {
        set_condition(&mut all, condition);
    }
    let differs = |wanted: &Value, have: &Value| {
        wanted
            .as_object()
            .is_some_and(|wanted| wanted.iter().any(|(key, value)| have[key] != *value))
    };
    let mut status = status.clone();
    status["conditions"] = all.into();
    let status_differs = differs(&status, &live["status"]);
    let annotations_differ = differs(annotations, &live["metadata"]["annotations"]);
    let mut version = live["metadata"]["resourceVersion"].clone();
    let subresource = world.storage() == TokenStorage::Secret;
    if annotations_differ || (status_differs && !subresource) {
        let mut patch = json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
        if !subresource {
            patch["status"] = status.clone();
        }
        let written = world.management.merge(&paths::cluster(id), &patch).await?;
        version = written["metadata"]["resourceVersion"].clone();
    }
    if status_differs && subresource {
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        world
            .management
            .merge(&format!("{}/status", paths::cluster(id)), &patch)
            .await?;
    }
    Ok(())
}

/// A tunnel was opened: Rancher records how the cluster is reached (`pkg/tunnelserver/mcmauthorizer/tunnel.go`,
/// `authorizeCluster`, 2.15.0). The first time, and when the agent reports another CA, that is a change, and so an
/// event of the Cluster. `home` is the cluster that the agent runs in, which differs if a token was moved to another
/// cluster.
pub(crate) async fn connected(world: &Arc<World>, id: &str, home: &str) {
    let Some(cluster) = world.cluster(id) else { return };
    let Ok(ca) = ca_cert(home) else { return };
    if read::text(&cluster, "/status/apiEndpoint").is_empty() {
        let status = json!({
            "apiEndpoint": "https://downstream.example.com:6443",
            "caCert": ca,
            "serviceAccountTokenSecret": format!("cluster-serviceaccounttoken-{}", suffix(5)),
            "version": {"gitVersion": "v1.36.3", "major": "1", "minor": "36"},
            "info": {"arch": "amd64", "kubernetesVersion": "v1.36.3", "nodeCount": 1},
        });
        let conditions = [Condition::is_true("Waiting"), Condition::is_true("AgentTlsStrictCheck")];
        if let Err(error) = write_cluster(world, id, &json!({}), &status, &conditions).await {
            tracing::warn!(cluster = id, %error, "cannot note the connection");
        }
    } else if let Err(error) = write_cluster(world, id, &json!({}), &json!({"caCert": ca}), &[]).await {
        tracing::warn!(cluster = id, %error, "cannot note the CA");
    }
    if read::condition(&cluster, "AgentDeployed") != "True" {
        deploy::poke(world, id);
    }
}

/// `Connected` is a periodic check of the steve tunnel, and is written only when it changes
/// (`pkg/controllers/managementuser/clusterconnected/clusterconnected.go`, 2.15.0). `Ready` follows it, and becomes
/// true again when the cluster's API responds through the other tunnel.
pub(crate) async fn keep_conditions(world: Arc<World>) {
    loop {
        tokio::time::sleep(world.timing().connected_tick).await;
        world.leader().await;
        let due: Vec<(String, bool)> = world
            .clusters
            .all()
            .iter()
            .filter(|cluster| {
                // The first check happens long after the agent was deployed (seen on Rancher 2.15.0: AgentDeployed two
                // seconds after the connection, Connected seventeen seconds later), so it does not disturb that apply.
                let deployed = read::condition(cluster, "AgentDeployed") == "True";
                let looked_at = deployed || !read::condition(cluster, "Connected").is_empty();
                let connected_once = !read::text(cluster, "/status/apiEndpoint").is_empty();
                cluster["spec"]["internal"] != true && connected_once && looked_at
            })
            .filter_map(|cluster| {
                let id = read::name(cluster);
                let steve = world.sessions.oldest(Tunnel::Steve, id).is_some();
                let wanted = if steve { "True" } else { "False" };
                let agent = world.sessions.oldest(Tunnel::Agent, id).is_some();
                let same = read::condition(cluster, "Connected") == wanted
                    && (!steve || !agent || read::condition(cluster, "Ready") == "True");
                (!same).then(|| (id.to_owned(), steve))
            })
            .collect();
        for (id, steve) in due {
            let conditions = if steve {
                vec![
                    Condition::is_true("Connected"),
                    Condition::is_true("Ready"),
                    Condition::is_true("Updated"),
                ]
            } else {
                vec![
                    Condition {
                        kind: "Connected",
                        status: false,
                        reason: "",
                        message: "",
                    },
                    Condition::is_false("Ready", "Disconnected", "Cluster agent is not connected"),
                ]
            };
            world.log.line("condition", json!({"cluster": id, "connected": steve}));
            if let Err(error) = write_cluster(&world, &id, &json!({}), &json!({}), &conditions).await {
                tracing::warn!(cluster = id, %error, "cannot write Connected");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_nothing_changes() {
        let old = json!({"type": "Connected", "status": "True", "lastUpdateTime": "2020-01-01T00:00:00Z"});
        let mut conditions = vec![old.clone()];
        set_condition(&mut conditions, &Condition::is_true("Connected"));
        assert_eq!(conditions, [old]);
        set_condition(&mut conditions, &Condition::is_false("Connected", "", ""));
        assert_eq!(conditions[0]["status"], "False");
        assert_ne!(conditions[0]["lastUpdateTime"], "2020-01-01T00:00:00Z");
    }
}
