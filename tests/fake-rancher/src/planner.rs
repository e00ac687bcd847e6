//! Clusters that Rancher has provisioned: its planner, which writes the agent's manifest into the plan of each control-plane machine;
//! the system-agent of each machine, which writes the file; and RKE2, which applies what is in it. All as seen on Rancher 2.15.0 and
//! 2.12.0. Cluster API's controllers are left out: machines are there, or are deleted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use rand::RngExt as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::api::{ApiError, ApiResult, paths, read};
use crate::conditions::{Condition, write_cluster};
use crate::config::TokenStorage;
use crate::deploy;
use crate::manifest::Values;
use crate::registration::secret_name;
use crate::token::{fingerprint, hex};
use crate::ttl::rfc3339;
use crate::world::{AGENT_NAMESPACE, World, agent_namespace};

/// The namespace of everything but the management Cluster.
pub(crate) const NAMESPACE: &str = "fleet-default";
pub(crate) const PLAN_TYPE: &str = "rke.cattle.io/machine-plan";
const MANIFEST: &str = "/var/lib/rancher/rke2/server/manifests/rancher/cluster-agent.yaml";
const CLUSTER_NAME: &str = "rke.cattle.io/cluster-name";
/// What RKE2 applied carries the name of the file.
const OWNER: &str = "objectset.rio.cattle.io/owner-name";
const OWNED: &str = "cluster-agent";

/// A control-plane machine.
#[derive(Clone, Default)]
struct Node {
    /// Its system-agent runs.
    running: bool,
    /// The objects in the manifest on its disk.
    file: Vec<Value>,
}

/// A provisioned cluster.
struct Provisioned {
    /// That of the provisioning Cluster.
    name: String,
    /// By the name of their machines.
    nodes: Mutex<BTreeMap<String, Node>>,
    planner: Notify,
    agents: Notify,
}

impl Provisioned {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The provisioned clusters, by id.
#[derive(Default)]
pub(crate) struct Planners(Mutex<HashMap<String, Arc<Provisioned>>>);

impl Planners {
    fn get(&self, id: &str) -> Option<Arc<Provisioned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn named(&self, name: &str) -> Option<Arc<Provisioned>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().find(|provisioned| provisioned.name == name).cloned()
    }
}

/// What wakes the planner: changes of the management Cluster, the provisioning Cluster, a plan or a machine. Neither a registration
/// token nor its Secret does.
pub(crate) fn wire(world: &Arc<World>) {
    let mut clusters = world.clusters.subscribe();
    let mut provisioning = world.provisioning.subscribe();
    let mut machines = world.machines.subscribe();
    let mut secrets = world.secrets.subscribe();
    let world = world.clone();
    tokio::spawn(async move {
        let by_label = |object: Option<Arc<Value>>| {
            let name = object?["metadata"]["labels"][CLUSTER_NAME].as_str()?.to_owned();
            world.planners.named(&name)
        };
        loop {
            let woken = tokio::select! {
                Some(change) = clusters.recv() => world.planners.get(&change.key.1),
                Some(change) = provisioning.recv() => world.planners.named(&change.key.1),
                Some(change) = machines.recv() => by_label(change.new.or(change.old)),
                Some(change) = secrets.recv() => {
                    let plan = change.new.or(change.old).filter(|secret| secret["type"] == PLAN_TYPE);
                    by_label(plan)
                }
                else => return,
            };
            if let Some(provisioned) = woken {
                provisioned.planner.notify_one();
                provisioned.agents.notify_one();
            }
        }
    });
}

/// What a test wants of a machine.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MachineChange {
    /// Whether its system-agent runs.
    running: Option<bool>,
    /// Its server starts, which applies the file that it has. Answers when that is done.
    #[serde(default)]
    restart: bool,
    /// The Machine is deleted, and its plan with it.
    #[serde(default)]
    delete: bool,
}

/// Makes the cluster a provisioned one with this many control-plane machines, whose plans are applied.
pub(crate) async fn adopt(world: &Arc<World>, id: &str, name: &str, machines: u32) -> Result<()> {
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    world.management.ensure(&paths::namespaces(), &namespace).await?;
    let ready = json!({"type": "Ready", "status": "True", "lastUpdateTime": rfc3339(Timestamp::now())});
    // Rancher's UI imports a cluster by such an object, without one.
    let config = if machines == 0 {
        Value::Null
    } else {
        json!({"machineGlobalConfig": {"cni": "canal"}})
    };
    let mut cluster = json!({
        "apiVersion": "provisioning.cattle.io/v1", "kind": "Cluster", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"kubernetesVersion": "v1.33.5+rke2r1", "rkeConfig": config},
        "status": {"clusterName": id, "ready": true, "agentDeployed": true, "fleetWorkspaceName": NAMESPACE, "conditions": [ready]},
    });
    let created = match world.management.create(&provisioning(""), &cluster).await {
        // Several clusters may have the same display name.
        Err(ApiError::AlreadyExists) => {
            cluster["metadata"]["name"] = id.into();
            world.management.create(&provisioning(""), &cluster).await
        }
        created => created,
    };
    let created = created.context("create the provisioning Cluster")?;
    let name = read::name(&created);
    if machines == 0 {
        return Ok(());
    }
    let provisioned = Arc::new(Provisioned {
        name: name.to_owned(),
        nodes: Mutex::default(),
        planner: Notify::new(),
        agents: Notify::new(),
    });
    let plan = plan(world, id).context("a plan without a registration token")?;
    for number in 0..machines {
        let node = format!("{name}-{number}");
        let machine = format!("custom-{}", &hex(&Sha256::digest(format!("{id} {node}")))[..12]);
        let file = manifest_in(&plan);
        provisioned
            .nodes()
            .insert(machine.clone(), Node { running: true, file });
        create_machine(world, name, &machine, &node).await?;
        let secret = plan_secret(name, &machine, &node, &plan);
        let created = world.management.create(&paths::secrets(NAMESPACE), &secret).await;
        created.context("create a plan")?;
    }
    let mut all = world.planners.0.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(id.to_owned(), provisioned.clone());
    drop(all);
    tokio::spawn(keep_plans(world.clone(), id.to_owned(), provisioned.clone()));
    tokio::spawn(run_agents(world.clone(), id.to_owned(), provisioned));
    Ok(())
}

fn provisioning(name: &str) -> String {
    let path = format!("/apis/provisioning.cattle.io/v1/namespaces/{NAMESPACE}/clusters/{name}");
    path.trim_end_matches('/').to_owned()
}

/// The version of Cluster API that both releases serve.
pub(crate) fn machine_path(name: &str) -> String {
    let path = format!("/apis/cluster.x-k8s.io/v1beta1/namespaces/{NAMESPACE}/machines/{name}");
    path.trim_end_matches('/').to_owned()
}

pub(crate) fn plan_name(machine: &str) -> String {
    format!("{machine}-machine-plan")
}

pub(crate) fn labels(cluster: &str, machine: &str, node: &str) -> Value {
    json!({
        "cluster.x-k8s.io/cluster-name": cluster, "cluster.x-k8s.io/control-plane": "true", CLUSTER_NAME: cluster,
        "rke.cattle.io/control-plane-role": "true", "rke.cattle.io/etcd-role": "true", "rke.cattle.io/worker-role": "true",
        "rke.cattle.io/machine-name": machine, "rke.cattle.io/node-name": node,
    })
}

async fn create_machine(world: &World, cluster: &str, machine: &str, node: &str) -> Result<()> {
    let number: u32 = node
        .rsplit('-')
        .next()
        .and_then(|end| end.parse().ok())
        .unwrap_or_default();
    let object = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Machine",
        "metadata": {"name": machine, "namespace": NAMESPACE, "labels": labels(cluster, machine, node)},
        "spec": {"clusterName": cluster, "providerID": format!("rke2://{node}")},
        "status": {
            "addresses": [
                {"address": format!("10.98.0.{}", number + 2), "type": "InternalIP"},
                {"address": node, "type": "Hostname"},
            ],
            "nodeRef": {"name": node}, "phase": "Running",
        },
    });
    let created = world.management.create(&machine_path(""), &object).await;
    created.context("create a Machine").map(drop)
}

fn plan_secret(cluster: &str, machine: &str, node: &str, plan: &str) -> Value {
    let mut data = applied(plan);
    data["plan"] = read::encode(plan);
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": PLAN_TYPE,
        "metadata": {
            "name": plan_name(machine), "namespace": NAMESPACE, "labels": labels(cluster, machine, node),
            "annotations": {"rke.cattle.io/plan-last-updated": rfc3339(Timestamp::now())},
        },
        "data": data,
    })
}

/// What the system-agent writes once it has applied a plan.
fn applied(plan: &str) -> Value {
    json!({
        "appliedPlan": read::encode(plan), "applied-checksum": read::encode(&hex(&Sha256::digest(plan))),
        "plan-state": read::encode("succeeded"),
    })
}

/// F's value. `Ok("")`: a token without a Secret yet, which the planner renders all the same. `Err`: its Secret is missing, which stops
/// the planner.
fn first_value(world: &World, id: &str) -> Option<Result<String, String>> {
    let all = world.crts.in_namespace(id);
    let first = all.iter().find(|crt| crt["metadata"]["deletionTimestamp"].is_null())?;
    let name = read::name(first);
    if world.storage() == TokenStorage::Status {
        return Some(Ok(read::text(first, "/status/token").to_owned()));
    }
    if read::text(first, "/status/tokenSecretName").is_empty() {
        return Some(Ok(String::new()));
    }
    let secret = world.secrets.get(id, &secret_name(name));
    let value = secret.and_then(|secret| read::secret(&secret, "token"));
    Some(value.ok_or_else(|| format!("failed to get token secret {id}/{}", secret_name(name))))
}

/// The name of the provisioning Cluster. `None`: it is no provisioned cluster.
pub(crate) fn name_of(world: &World, id: &str) -> Option<String> {
    world.planners.get(id).map(|provisioned| provisioned.name.clone())
}

/// A control-plane machine that has joined, and has its Machine: without one it would count as deleted. Its system-agent runs.
pub(crate) fn add_node(world: &World, id: &str, machine: &str) {
    if let Some(provisioned) = world.planners.get(id) {
        let node = Node {
            running: true,
            file: Vec::new(),
        };
        provisioned.nodes().insert(machine.to_owned(), node);
        provisioned.planner.notify_one();
        provisioned.agents.notify_one();
    }
}

/// The plan of a machine. Each has the cluster's join token, and those of the control plane the agent's manifest.
pub(crate) fn plan_for(world: &World, id: &str, is_control_plane: bool) -> Option<String> {
    let plan = plan(world, id)?;
    if is_control_plane {
        return Some(plan);
    }
    let mut plan: Value = serde_json::from_str(&plan).ok()?;
    plan["files"].as_array_mut()?.retain(|file| file["path"] != MANIFEST);
    Some(plan.to_string())
}

/// The plan of a control-plane machine, as far as it matters here.
fn plan(world: &World, id: &str) -> Option<String> {
    let token = match first_value(world, id)? {
        Ok(token) => token,
        Err(why) => {
            world.log.line("planner-error", json!({"cluster": id, "why": why}));
            return None;
        }
    };
    let values = Values {
        storage: world.storage(),
        url: world.server_url(),
        token: &token,
        cluster: id,
        pattern: world.traits(id).pattern,
        features: true,
        cacerts: world.setting("cacerts"),
        install_uuid: &world.install_uuid,
        namespace: AGENT_NAMESPACE,
    };
    let config = STANDARD.encode(r#"{"token": "the-token-of-rke2-planted-in-the-plan"}"#);
    let files = json!([
        {"path": "/etc/rancher/rke2/config.yaml.d/50-rancher.yaml", "content": config},
        {"path": MANIFEST, "content": STANDARD.encode(values.yaml()), "dynamic": true, "minor": true},
    ]);
    Some(json!({"files": files, "instructions": [{"name": "install", "image": "rke2:v1.33.5-rke2r1"}]}).to_string())
}

fn manifest_in(plan: &str) -> Vec<Value> {
    let plan: Value = serde_json::from_str(plan).unwrap_or_default();
    let files = plan["files"].as_array().cloned().unwrap_or_default();
    let file = files.iter().find(|file| file["path"] == MANIFEST);
    let content = file.and_then(|file| STANDARD.decode(file["content"].as_str()?).ok());
    let text = content
        .and_then(|content| String::from_utf8(content).ok())
        .unwrap_or_default();
    serde_saphyr::from_multiple(&text).unwrap_or_default()
}

fn token_in(objects: &[Value]) -> String {
    let secret = objects.iter().find(|object| object["kind"] == "Secret");
    secret
        .and_then(|secret| read::secret(secret, "token"))
        .unwrap_or_default()
}

async fn keep_plans(world: Arc<World>, id: String, provisioned: Arc<Provisioned>) {
    loop {
        provisioned.planner.notified().await;
        world.leader().await;
        tokio::time::sleep(world.timing().plan).await;
        if let Err(error) = reconcile(&world, &id, &provisioned).await {
            tracing::warn!(cluster = id, %error, "cannot write plans");
            tokio::time::sleep(Duration::from_millis(100)).await;
            provisioned.planner.notify_one();
        }
    }
}

/// All plans are written in one go, also that of a machine whose system-agent is dead.
async fn reconcile(world: &World, id: &str, provisioned: &Provisioned) -> ApiResult<()> {
    let Some(plan) = plan(world, id) else { return Ok(()) };
    let machines: Vec<String> = provisioned.nodes().keys().cloned().collect();
    let mut waits = None;
    for machine in machines {
        // What is watched may be behind.
        let deleted = world.machines.get(NAMESPACE, &machine).is_none()
            && world.management.get(&machine_path(&machine)).await?.is_none();
        let path = paths::secret(NAMESPACE, &plan_name(&machine));
        if deleted {
            world.management.delete(&path).await?;
            provisioned.nodes().remove(&machine);
            continue;
        }
        let Some(secret) = world.management.get(&path).await? else {
            continue;
        };
        if read::secret(&secret, "plan").as_deref() != Some(plan.as_str()) {
            let patch = json!({
                "metadata": {
                    "resourceVersion": secret["metadata"]["resourceVersion"],
                    "annotations": {"rke.cattle.io/plan-last-updated": rfc3339(Timestamp::now())},
                },
                "data": {"plan": read::encode(&plan)},
            });
            world.management.merge(&path, &patch).await?;
            let token = fingerprint(&token_in(&manifest_in(&plan)));
            world
                .log
                .line("plan", json!({"cluster": id, "machine": machine, "fingerprint": token}));
            waits = Some(machine);
        } else if !is_applied(&secret) {
            waits = Some(machine);
        }
    }
    set_ready(world, id, provisioned, waits.as_deref()).await
}

fn is_applied(secret: &Value) -> bool {
    let plan = read::secret(secret, "plan").unwrap_or_default();
    read::secret(secret, "applied-checksum") == Some(hex(&Sha256::digest(plan)))
}

/// The condition `Ready` of the provisioning Cluster, and one that Rancher copies to the management Cluster: an event there.
async fn set_ready(world: &World, id: &str, provisioned: &Provisioned, waits: Option<&str>) -> ApiResult<()> {
    let (status, message) = match waits {
        None => ("True", String::new()),
        Some(machine) => (
            "Unknown",
            format!("configuring control plane node(s) {machine}: waiting for plan to be applied"),
        ),
    };
    let path = provisioning(&provisioned.name);
    let Some(live) = world.management.get(&path).await? else {
        return Ok(());
    };
    if read::condition(&live, "Ready") == status {
        return Ok(());
    }
    let ready = json!({
        "type": "Ready", "status": status, "message": message, "lastUpdateTime": rfc3339(Timestamp::now()),
    });
    world
        .management
        .merge(&path, &json!({"status": {"conditions": [ready]}}))
        .await?;
    let updated = if waits.is_none() {
        Condition::is_true("Updated")
    } else {
        Condition::is_false("Updated", "Waiting", "waiting for plan to be applied")
    };
    match write_cluster(world, id, &json!({}), &json!({}), &[updated]).await {
        Err(ApiError::NotFound) => Ok(()),
        written => written,
    }
}

/// The system-agents of all machines.
async fn run_agents(world: Arc<World>, id: String, provisioned: Arc<Provisioned>) {
    loop {
        provisioned.agents.notified().await;
        let alive = |(name, node): (&String, &Node)| node.running.then(|| name.clone());
        let alive: Vec<String> = provisioned.nodes().iter().filter_map(alive).collect();
        for machine in alive {
            match take_plan(&world, &provisioned, &machine).await {
                Ok(false) => {}
                Ok(true) => {
                    tokio::spawn(reread(world.clone(), id.clone(), provisioned.clone(), machine));
                }
                Err(error) => {
                    tracing::warn!(cluster = id, machine, %error, "cannot apply a plan");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    provisioned.agents.notify_one();
                }
            }
        }
    }
}

/// Writes the file of a plan that is not applied, and says so. Returns whether the file has changed.
async fn take_plan(world: &World, provisioned: &Provisioned, machine: &str) -> ApiResult<bool> {
    let path = paths::secret(NAMESPACE, &plan_name(machine));
    let Some(secret) = world.management.get(&path).await? else {
        return Ok(false);
    };
    if is_applied(&secret) {
        return Ok(false);
    }
    tokio::time::sleep(world.timing().plan_apply).await;
    let plan = read::secret(&secret, "plan").unwrap_or_default();
    let file = manifest_in(&plan);
    let is_alive = {
        let mut nodes = provisioned.nodes();
        let node = nodes.get_mut(machine).filter(|node| node.running);
        node.map(|node| node.file = file)
    };
    if is_alive.is_none() {
        return Ok(false);
    }
    world.management.merge(&path, &json!({"data": applied(&plan)})).await?;
    Ok(true)
}

/// RKE2 looks at its files every 15 s.
async fn reread(world: Arc<World>, id: String, provisioned: Arc<Provisioned>, machine: String) {
    let longest = world.timing().file_apply.as_secs_f64();
    let wait = Duration::from_secs_f64(longest * rand::rng().random_range(0.2..1.0));
    tokio::time::sleep(wait).await;
    if let Err(error) = apply_file(&world, &id, &provisioned, &machine).await {
        tracing::warn!(cluster = id, machine, %error, "cannot apply a file");
    }
}

/// Applies the file of a machine, and deletes the Secret that an earlier file had: RKE2 owns what is in its file. A Secret of that
/// name that another has made is taken over.
async fn apply_file(world: &World, id: &str, provisioned: &Provisioned, machine: &str) -> ApiResult<()> {
    let file = provisioned.nodes().get(machine).map(|node| node.file.clone());
    let namespace = agent_namespace(id);
    let mut objects = file.unwrap_or_default();
    objects.retain(|object| object["kind"] != "Namespace");
    for object in &mut objects {
        object["metadata"]["namespace"] = namespace.clone().into();
    }
    let token = fingerprint(&token_in(&objects));
    deploy::apply_objects(world, id, &objects).await?;
    let secrets = objects.iter().filter(|object| object["kind"] == "Secret");
    let kept: Vec<&str> = secrets.map(read::name).collect();
    for name in &kept {
        let owned = json!({"metadata": {"annotations": {OWNER: OWNED}}});
        world.downstream.merge(&paths::secret(&namespace, name), &owned).await?;
    }
    let line = json!({"cluster": id, "machine": machine, "fingerprint": token});
    world.log.line("file-applied", line);
    let all = world
        .downstream
        .get(&paths::secrets(&namespace))
        .await?
        .unwrap_or_default();
    for secret in all["items"].as_array().into_iter().flatten() {
        let name = read::name(secret);
        if read::annotation(secret, OWNER) == OWNED && !kept.contains(&name) {
            world.downstream.delete(&paths::secret(&namespace, name)).await?;
            world.log.line("pruned", json!({"cluster": id, "secret": name}));
        }
    }
    Ok(())
}

/// What a test does to a machine. `None`: there is none of this name.
pub(crate) async fn change(world: &World, id: &str, machine: &str, wanted: MachineChange) -> Option<ApiResult<()>> {
    let provisioned = world.planners.get(id)?;
    {
        let mut nodes = provisioned.nodes();
        let node = nodes.get_mut(machine)?;
        node.running = wanted.running.unwrap_or(node.running);
    }
    provisioned.agents.notify_one();
    let changed = async {
        if wanted.restart {
            apply_file(world, id, &provisioned, machine).await?;
        }
        if wanted.delete {
            world.management.delete(&machine_path(machine)).await?;
        }
        Ok(())
    };
    Some(changed.await)
}

/// The control-plane machines of a cluster, with fingerprints: what the plan has, what was applied, what is in the file.
pub(crate) fn report(world: &World, id: &str) -> Value {
    let Some(provisioned) = world.planners.get(id) else {
        return json!({});
    };
    let shown = |(machine, node): (&String, &Node)| {
        let secret = world.secrets.get(NAMESPACE, &plan_name(machine));
        let of = |key: &str| {
            let plan = secret.as_ref().and_then(|secret| read::secret(secret, key));
            plan.map(|plan| fingerprint(&token_in(&manifest_in(&plan))))
        };
        let file = fingerprint(&token_in(&node.file));
        let state = json!({"running": node.running, "plan": of("plan"), "applied": of("appliedPlan"), "file": file});
        (machine.clone(), state)
    };
    let nodes = provisioned.nodes();
    nodes.iter().map(shown).collect::<serde_json::Map<_, _>>().into()
}
