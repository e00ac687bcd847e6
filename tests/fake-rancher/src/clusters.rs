//! Cluster objects: their shapes by kind, their conditions, and how a new one is registered and imported.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{ApiResult, MERGE, paths, read};
use crate::conditions::{Condition, write_cluster};
use crate::config::TokenStorage;
use crate::deploy;
use crate::identity::{ca_cert, stale_ca_cert};
use crate::registration::secret_name;
use crate::sessions::Tunnel;
use crate::token::{NamePattern, suffix};
use crate::world::{World, agent_namespace};
use crate::{manifest, planner};

/// The kinds of cluster that a client can distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClusterKind {
    Imported,
    K3s,
    Rke2,
    Eks,
    Harvester,
    Provisioned,
    /// Up to 2.11.
    Rke1,
    Local,
}

impl ClusterKind {
    /// `status.driver` (`pkg/apis/management.cattle.io/v3/cluster_types.go`, `ClusterDriver…`).
    fn driver(self) -> &'static str {
        match self {
            // Also of a provisioned cluster (seen on Rancher 2.15.0).
            Self::Imported | Self::Harvester | Self::Provisioned => "imported",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::Rke1 => "rancherKubernetesEngine",
            Self::Eks => "EKS",
            Self::Local => "local",
        }
    }

    /// `status.provider`: what the detector finds (`github.com/rancher/kubernetes-provider-detector`).
    fn provider(self) -> &'static str {
        match self {
            Self::Imported => "",
            Self::Rke1 => "rke",
            Self::K3s | Self::Local => "k3s",
            Self::Rke2 | Self::Provisioned => "rke2",
            Self::Eks => "eks",
            Self::Harvester => "harvester",
        }
    }

    fn new_id(self) -> String {
        match self {
            Self::Local => "local".to_owned(),
            // `pkg/controllers/provisioningv2/cluster/controller.go`: c-m- and eight digits of a sum.
            Self::Provisioned => format!("c-m-{}", suffix(8)),
            _ => format!("c-{}", suffix(5)),
        }
    }
}

/// The request of a test.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Registration {
    display_name: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default = "imported")]
    kind: ClusterKind,
    #[serde(default = "sha256")]
    name_pattern: NamePattern,
    /// Replicas of the agent. Rancher sets them itself, outside its apply.
    #[serde(default = "one")]
    replicas: u32,
    /// Begin in the final state of an import, with one rollout instead of three.
    #[serde(default)]
    quick: bool,
    /// The control-plane machines of a provisioned cluster.
    #[serde(default = "one")]
    machines: u32,
}

fn imported() -> ClusterKind {
    ClusterKind::Imported
}
fn sha256() -> NamePattern {
    NamePattern::Sha256
}
fn one() -> u32 {
    1
}

fn object(wanted: &Registration, id: &str) -> Value {
    let kind = wanted.kind;
    let mut annotations = json!({
        "authz.management.cattle.io/creator-role-bindings": "{\"created\":[\"cluster-owner\"],\"required\":[\"cluster-owner\"]}",
        "authz.management.cattle.io/initial-sync": "true",
        "lifecycle.cattle.io/create.cluster-agent-controller-cleanup": "true",
        "provisioner.cattle.io/ke-driver-update": "updated",
    });
    let mut labels = json!({"cattle.io/creator": "norman"});
    if kind == ClusterKind::Provisioned {
        annotations["provisioning.cattle.io/administrated"] = "true".into();
        annotations["objectset.rio.cattle.io/owner-name"] = wanted.display_name.clone().into();
        annotations["objectset.rio.cattle.io/owner-namespace"] = "fleet-default".into();
    }
    if !kind.provider().is_empty() {
        labels["provider.cattle.io"] = kind.provider().into();
    }
    let mut spec = json!({
        "agentImageOverride": "", "clusterSecrets": {}, "description": "", "desiredAgentImage": "", "desiredAuthImage": "",
        "displayName": wanted.display_name, "dockerRootDir": "/var/lib/docker", "enableNetworkPolicy": false,
        "fleetWorkspaceName": if kind == ClusterKind::Local { "fleet-local" } else { "fleet-default" },
        "internal": kind == ClusterKind::Local, "localClusterAuthEndpoint": {"enabled": false},
        "windowsPreferedCluster": false,
    });
    if kind == ClusterKind::Eks {
        spec["eksConfig"] = json!({"displayName": wanted.display_name, "imported": true, "region": "eu-central-1"});
    }
    json!({
        "apiVersion": "management.cattle.io/v3", "kind": "Cluster",
        "metadata": {"name": id, "annotations": annotations, "labels": labels}, "spec": spec,
    })
}

/// The status before any agent has connected.
fn first_status(kind: ClusterKind) -> (Value, Vec<Condition>) {
    let flags = [
        "CreatorMadeOwner",
        "InitialRolesPopulated",
        "BackingNamespaceCreated",
        "DefaultProjectCreated",
        "SystemProjectCreated",
        "Pending",
        "Provisioned",
        "NoDiskPressure",
        "NoMemoryPressure",
        "ServiceAccountSecretsMigrated",
        "SystemAccountCreated",
        "GlobalAdminsSynced",
    ];
    let mut conditions: Vec<Condition> = flags.into_iter().map(Condition::is_true).collect();
    let status = json!({"driver": kind.driver(), "provider": kind.provider(), "nodeCount": 1});
    if kind == ClusterKind::Local {
        // `clusterconnected.go` (2.15.0): the internal cluster is always connected; its agent is never deployed.
        conditions.extend(["Connected", "Ready", "AgentDeployed"].map(Condition::is_true));
    }
    (status, conditions)
}

/// Registers a cluster and imports it. Returns its id when its agent is connected and the extra rollouts have ended.
pub(crate) async fn register(world: &Arc<World>, wanted: Registration) -> Result<String> {
    let id = wanted.id.clone().unwrap_or_else(|| wanted.kind.new_id());
    if world.cluster(&id).is_some() {
        bail!("cluster {id} is registered already");
    }
    world.change_traits(&id, |traits| traits.pattern = wanted.name_pattern);
    world
        .management
        .ensure(&paths::namespaces(), &json!({"metadata": {"name": id}}))
        .await?;
    world
        .management
        .create(&paths::clusters(), &object(&wanted, &id))
        .await
        .context("create the Cluster")?;
    let (status, conditions) = first_status(wanted.kind);
    write_cluster(world, &id, &json!({}), &status, &conditions)
        .await
        .context("write the Cluster's status")?;
    let token = default_token(world, &id).await?;
    if wanted.kind == ClusterKind::Local {
        return Ok(id);
    }
    let namespace = agent_namespace(&id);
    world
        .downstream
        .ensure(&paths::namespaces(), &json!({"metadata": {"name": namespace}}))
        .await?;
    import(world, &id, &token, &wanted).await?;
    settle(world, &id, wanted.replicas).await?;
    if wanted.kind == ClusterKind::Provisioned {
        planner::adopt(world, &id, &wanted.display_name, wanted.machines).await?;
    }
    world.sessions.arm(&id);
    world.log.line("registered", json!({"cluster": id}));
    Ok(id)
}

/// Waits for a value that the authorizer has too.
async fn default_token(world: &World, id: &str) -> Result<String> {
    for _ in 0..600 {
        let token = match world.storage() {
            TokenStorage::Status => world
                .crts
                .get(id, "default-token")
                .map(|crt| read::text(&crt, "/status/token").to_owned()),
            TokenStorage::Secret => world
                .secrets
                .get(id, &secret_name("default-token"))
                .and_then(|secret| read::secret(&secret, "token")),
        };
        if let Some(token) = token.filter(|token| world.index.tunnel(world.storage(), token).is_some()) {
            return Ok(token);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(anyhow!("default-token of {id} has no value after 30 s"))
}

/// Imports the cluster like an administrator: applies the manifest of the registration token. Rancher does the rest.
async fn import(world: &Arc<World>, id: &str, token: &str, wanted: &Registration) -> Result<()> {
    let namespace = agent_namespace(id);
    let objects = if wanted.quick {
        let rendered = retry(|| deploy::render(world, id)).await?;
        rendered.into_objects()
    } else {
        manifest::import_values(world, token, &namespace).objects()
    };
    retry(|| deploy::apply_objects(world, id, &objects))
        .await
        .context("apply the import manifest")?;
    let mut patch = json!({"spec": {"replicas": wanted.replicas}});
    if wanted.quick {
        patch["spec"]["template"] = json!({"metadata": {"annotations": {deploy::UPGRADED: "true"}}});
    }
    world
        .downstream
        .patch(&paths::deployment(&namespace), MERGE, &patch)
        .await?;
    Ok(())
}

async fn retry<T, F: Future<Output = ApiResult<T>>>(attempt: impl Fn() -> F) -> ApiResult<T> {
    for _ in 0..20 {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => tracing::debug!(%error, "again"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    attempt().await
}

/// Returns when every rollout has ended and every agent holds both tunnels.
async fn settle(world: &World, id: &str, replicas: u32) -> Result<()> {
    let mut sessions = world.sessions.changed();
    let mut deployments = world.deployments.version();
    let mut clusters = world.clusters.version();
    let mut pods = world.pods.version();
    let wait = async {
        while unsettled(world, id, replicas).is_some() {
            tokio::select! {
                _ = sessions.changed() => {}
                _ = deployments.changed() => {}
                _ = clusters.changed() => {}
                _ = pods.changed() => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(3), wait).await.map_err(|_| {
        anyhow!(
            "cluster {id} did not settle in 180 s: {}",
            unsettled(world, id, replicas).unwrap_or("just now")
        )
    })
}

/// The condition that does not hold yet.
fn unsettled(world: &World, id: &str, replicas: u32) -> Option<&'static str> {
    let namespace = agent_namespace(id);
    let Some(deployment) = world.deployments.get(&namespace, "cattle-cluster-agent") else {
        return Some("no Deployment");
    };
    let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
    let number = |pointer: &str| read::number(&deployment, pointer);
    let wanted = i64::from(replicas);
    let Some(cluster) = world.cluster(id) else {
        return Some("no Cluster");
    };
    let sessions = |tunnel: Tunnel| {
        world
            .sessions
            .of(id)
            .iter()
            .filter(|session| session.tunnel == tunnel)
            .count()
    };
    let pods = world.pods.in_namespace(&namespace).len();
    let counts = [
        "/status/replicas",
        "/status/updatedReplicas",
        "/status/availableReplicas",
    ]
    .map(number);
    let checks = [
        (
            read::condition(&cluster, "AgentDeployed") == "True",
            "the agent is not deployed by Rancher",
        ),
        (
            annotations[deploy::UPGRADED] == "true",
            "the pod template is not annotated",
        ),
        (
            number("/metadata/generation") == number("/status/observedGeneration"),
            "the Deployment is not observed",
        ),
        (
            counts == [wanted; 3] && pods == replicas as usize,
            "the rollout is not complete",
        ),
        (
            sessions(Tunnel::Agent) == replicas as usize,
            "not every agent is connected",
        ),
        (
            sessions(Tunnel::Steve) == replicas as usize,
            "not every steve tunnel is open",
        ),
        (
            ["Connected", "Ready"]
                .iter()
                .all(|kind| read::condition(&cluster, kind) == "True"),
            "the Cluster is not Ready",
        ),
        (
            world.storage() == TokenStorage::Status || !read::annotation(&cluster, deploy::HASH).is_empty(),
            "no token hash",
        ),
    ];
    checks.into_iter().find(|(done, _)| !done).map(|(_, missing)| missing)
}

/// EKS, AKS, GKE: Rancher reaches their API servers without an agent.
pub(crate) fn is_hosted(world: &World, id: &str) -> bool {
    world
        .cluster(id)
        .is_some_and(|cluster| cluster["status"]["driver"] == ClusterKind::Eks.driver())
}

/// Removes a cluster with all that belongs to it.
pub(crate) async fn remove(world: &World, id: &str) -> ApiResult<()> {
    world.management.delete(&paths::cluster(id)).await?;
    for crt in world.crts.in_namespace(id) {
        world.management.delete(&paths::crt(id, read::name(&crt))).await?;
    }
    world.management.delete(&paths::namespace(id)).await?;
    world.downstream.delete(&paths::namespace(&agent_namespace(id))).await
}

/// Sets an annotation without meaning: an event of the Cluster.
pub(crate) async fn event(world: &World, id: &str) -> ApiResult<()> {
    let now = Timestamp::now().to_string();
    let patch = json!({"metadata": {"annotations": {"fake-rancher.example.com/touched": now}}});
    world.management.merge(&paths::cluster(id), &patch).await.map(|_| ())
}

/// Writes the cluster's CA into its status, or an outdated one.
pub(crate) async fn write_ca_cert(world: &World, id: &str, stale: bool) -> Result<()> {
    let ca = if stale { stale_ca_cert(id)? } else { ca_cert(id)? };
    write_cluster(world, id, &json!({}), &json!({"caCert": ca}), &[])
        .await
        .context("write the Cluster's CA")
}

/// The cluster as the control API shows it.
pub(crate) fn report(world: &World, id: &str) -> Option<Value> {
    let cluster = world.cluster(id)?;
    let mut report = world.sessions.report(id);
    let conditions: Map<String, Value> = ["Connected", "Ready", "AgentDeployed"]
        .into_iter()
        .map(|kind| (kind.to_owned(), read::condition(&cluster, kind).into()))
        .collect();
    report["id"] = id.into();
    report["displayName"] = cluster["spec"]["displayName"].clone();
    report["conditions"] = conditions.into();
    report["agents"] = world.agents.report(id).into();
    report["accepted"] = world
        .index
        .accepted(world.storage(), id)
        .into_iter()
        .collect::<Vec<_>>()
        .into();
    report["machines"] = planner::report(world, id);
    report["namespace"] = agent_namespace(id).into();
    Some(report)
}
