//! What the servers and agents write to the real API server: Nodes with their conditions, labels and annotations.

use anyhow::{Context, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node as NodeObject;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Map, Value, json};

use crate::kubelet;
use crate::node::Node;
use crate::settings::Settings;

const MANAGER: &str = "fake-supervisor";

/// Creates the kind of snapshot objects. It has no status subresource (k3s-io/api, `k3s.cattle.io/v1`).
pub(crate) async fn install(client: &Client) -> Result<()> {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": open, "status": open}});
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "etcdsnapshotfiles.k3s.cattle.io"},
        "spec": {
            "group": "k3s.cattle.io", "scope": "Cluster",
            "names": {"plural": "etcdsnapshotfiles", "singular": "etcdsnapshotfile", "kind": "ETCDSnapshotFile"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    let kind = ApiResource {
        group: "apiextensions.k8s.io".into(),
        version: "v1".into(),
        api_version: "apiextensions.k8s.io/v1".into(),
        kind: "CustomResourceDefinition".into(),
        plural: "customresourcedefinitions".into(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let name = "etcdsnapshotfiles.k3s.cattle.io";
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(crd))
        .await?;
    for _ in 0..600 {
        let established = api.get(name).await?.data["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == "Established" && c["status"] == "True"));
        if established {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!("the API server did not establish {name}")
}

/// Whether the server has a Node. It stays Ready over a short restart.
pub(crate) async fn exists(client: &Client, name: &str) -> Result<bool> {
    Ok(Api::<NodeObject>::all(client.clone()).get_opt(name).await?.is_some())
}

/// Writes the Node of a server with the configuration that it started with.
pub(crate) async fn write_server(
    client: &Client,
    node: &Node,
    settings: &Settings,
    ready: bool,
    etcd: bool,
) -> Result<()> {
    let (program, name) = (node.program(), &node.server.name);
    let mut labels = Map::from_iter([("node-role.kubernetes.io/control-plane".to_owned(), json!("true"))]);
    let mut annotations = Map::from_iter([
        (
            format!("{program}.io/node-args"),
            json!(settings.node_args(node.command())),
        ),
        (
            format!("{program}.io/node-env"),
            json!(settings.node_env(node.distribution())),
        ),
    ]);
    let mut conditions = vec![condition(
        "Ready",
        ready,
        "KubeletReady",
        "kubelet is posting ready status",
    )];
    if etcd {
        labels.insert("node-role.kubernetes.io/etcd".into(), json!("true"));
        let domain = format!("etcd.{program}.cattle.io");
        let member = format!("{name}-{}", &crate::token::hash12(name)[..8]);
        annotations.insert(format!("{domain}/node-name"), json!(member));
        annotations.insert(format!("{domain}/node-address"), json!(node.server.address));
        conditions.push(condition(
            "EtcdIsVoter",
            true,
            "MemberNotLearner",
            "Node is a voting member of the etcd cluster",
        ));
    }
    let metadata = json!({"name": name, "labels": labels, "annotations": annotations});
    write(client, node, metadata, conditions).await
}

/// Writes the Node of an agent with its configuration.
pub(crate) async fn write_configured_agent(client: &Client, node: &Node, settings: &Settings) -> Result<()> {
    let program = node.program();
    let annotations = Map::from_iter([
        (
            format!("{program}.io/node-args"),
            json!(settings.node_args(node.command())),
        ),
        (
            format!("{program}.io/node-env"),
            json!(settings.node_env(node.distribution())),
        ),
    ]);
    let metadata = json!({"name": node.server.name, "annotations": annotations});
    write(client, node, metadata, vec![is_ready()]).await
}

/// Writes the Node of an agent without files.
pub(crate) async fn write_agent(client: &Client, node: &Node, name: &str, url: &str) -> Result<()> {
    let arguments = json!(["agent", "--server", url, "--token", "********"]).to_string();
    let program = node.program();
    let metadata = json!({"name": name, "annotations": {format!("{program}.io/node-args"): arguments}});
    write(client, node, metadata, vec![is_ready()]).await
}

fn is_ready() -> Value {
    condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
}

async fn write(client: &Client, node: &Node, metadata: Value, conditions: Vec<Value>) -> Result<()> {
    let api: Api<NodeObject> = Api::all(client.clone());
    let params = PatchParams::apply(MANAGER).force();
    let name = metadata["name"].as_str().context("a Node without a name")?.to_owned();
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata});
    api.patch(&name, &params, &Patch::Apply(object)).await?;
    let version = node.config.line.version(node.distribution());
    let info = json!({
        "kubeletVersion": version, "kubeProxyVersion": "", "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "fake://1",
        "kernelVersion": "", "machineID": "", "operatingSystem": "linux", "osImage": "fake", "systemUUID": "",
    });
    let mut status = json!({"conditions": conditions, "nodeInfo": info});
    if node.server.name == name {
        status["addresses"] = json!([
            {"type": "InternalIP", "address": node.server.node_address.unwrap_or(node.server.address)},
            {"type": "Hostname", "address": name},
        ]);
        if node.config.kubelet {
            status["images"] = json!([{"names": [kubelet::IMAGE], "sizeBytes": 1}]);
            status["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": kubelet::PORT}});
        }
    }
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status});
    api.patch_status(&name, &params, &Patch::Apply(object)).await?;
    renew_lease(client, &name).await
}

fn condition(kind: &str, holds: bool, reason: &str, message: &str) -> Value {
    let status = if holds { "True" } else { "False" };
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    })
}

/// How often a kubelet renews the Lease of its Node. The controllers declare the Node lost after 40 s without.
pub(crate) const RENEWED: std::time::Duration = std::time::Duration::from_secs(10);

/// Renews the Node's Lease, which is all that a kubelet does while nothing changes.
pub(crate) async fn renew(client: &Client, node: &Node) -> Result<()> {
    renew_lease(client, &node.server.name).await
}

/// Renews the Lease of an agent's Node for as long as the cluster exists. The agent uses whichever server answers.
pub(crate) async fn keep_ready(client: Client, node: Node) {
    loop {
        tokio::time::sleep(RENEWED).await;
        // An error shows as a Node that is not ready any more.
        let _ = renew(&client, &node).await;
    }
}

async fn renew_lease(client: &Client, name: &str) -> Result<()> {
    let api: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let now = format!("{:.6}", Timestamp::now());
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now},
    });
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(lease))
        .await?;
    Ok(())
}

/// Sets Ready to Unknown, as the controllers do 40 s after the last sign of a Node.
pub(crate) async fn write_lost(client: &Client, name: &str) -> Result<()> {
    let api: Api<NodeObject> = Api::all(client.clone());
    if api.get_opt(name).await?.is_none() {
        return Ok(());
    }
    let mut ready = condition(
        "Ready",
        false,
        "NodeStatusUnknown",
        "Kubelet stopped posting node status.",
    );
    ready["status"] = json!("Unknown");
    let status = json!({"status": {"conditions": [ready]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status))
        .await?;
    Ok(())
}

/// Follows deletions of Nodes: the other servers remove the member from etcd within 4 s.
pub(crate) async fn follow_deletions(client: Client, deleted: impl Fn(&str) + Send) {
    let api: Api<NodeObject> = Api::all(client);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    events
        .for_each(|event| {
            // After an error the watch restarts.
            if let Ok(watcher::Event::Delete(node)) = event {
                deleted(&node.name_any());
            }
            std::future::ready(())
        })
        .await;
}
