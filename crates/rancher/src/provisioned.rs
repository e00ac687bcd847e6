//! What Rancher has of a cluster that it provisioned: the provisioning cluster, the machines, and the plans of those with the role
//! `controlplane`, through which its planner deploys the agent.
//!
//! A plan is a Secret with the whole configuration of a machine, the join token of RKE2 or K3s included. Nothing of it is kept but the
//! agent's token.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::request::{self, Item, ListOptions, Metadata, Resource, SECRET};
use client::secret::{Fingerprint, Secret};
use client::yaml;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::ClusterId;
use crate::cluster::{Cluster, ConditionStatus};
use crate::credential_name::hex;
use crate::error::Result;
use crate::object::{self, decoded};

/// The kind that names a management Cluster in its status.
const PROVISIONING: Resource = Resource::new(
    "Cluster.provisioning.cattle.io",
    "provisioning.cattle.io/v1",
    "clusters",
);
/// Cluster API's machines, in the version that every Rancher since 2.12 serves.
const MACHINE: Resource = Resource::new("Machine.cluster.x-k8s.io", "cluster.x-k8s.io/v1beta1", "machines");

const CLUSTER_NAME: &str = "rke.cattle.io/cluster-name";
const CONTROL_PLANE: &str = "rke.cattle.io/control-plane-role";
const MACHINE_NAME: &str = "rke.cattle.io/machine-name";
/// When the planner has changed a plan (seen on Rancher 2.15.0).
const PLAN_UPDATED: &str = "rke.cattle.io/plan-last-updated";
/// The agent's manifest among the files of a plan, in a directory that depends on the distribution and on its data directory.
const MANIFEST: &str = "/server/manifests/rancher/cluster-agent.yaml";

/// The object from which Rancher has made a management Cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvisioningCluster {
    /// The namespace of it, of its machines, and of their plans.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The id of the management Cluster.
    pub cluster: ClusterId,
    /// It has an `rkeConfig`: Rancher installs RKE2 or K3s on its machines. An imported cluster can have a provisioning cluster too.
    pub has_machines: bool,
    /// The condition `Ready`: not True while a machine has not applied its plan.
    pub ready: ConditionStatus,
    /// When that has changed.
    pub ready_since: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawProvisioning {
    metadata: Metadata,
    spec: RawSpec,
    status: RawStatus,
}

impl Item for RawProvisioning {}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    rke_config: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    cluster_name: Option<String>,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawCondition {
    r#type: String,
    status: String,
    last_update_time: Option<String>,
}

impl RawProvisioning {
    /// `None`: it has no management Cluster yet.
    fn read(self) -> Option<ProvisioningCluster> {
        let conditions = self.status.conditions.unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.r#type == "Ready");
        Some(ProvisioningCluster {
            cluster: self.status.cluster_name?.parse().ok()?,
            namespace: self.metadata.namespace,
            name: self.metadata.name,
            has_machines: self.spec.rke_config.is_some(),
            ready: ready
                .as_ref()
                .map_or(ConditionStatus::Unknown, |ready| ready.status.as_str().into()),
            ready_since: ready.and_then(|ready| ready.last_update_time?.parse().ok()),
        })
    }
}

/// A provisioning cluster by its name. None if it does not exist, or if this Rancher does not serve the kind.
pub async fn get(client: &kube::Client, namespace: &str, name: &str) -> Result<Option<ProvisioningCluster>> {
    let found: Option<RawProvisioning> = request::get(client, PROVISIONING, Some(namespace), name).await?;
    Ok(found.and_then(RawProvisioning::read))
}

/// All provisioning clusters, of a namespace or of all. None where this Rancher does not serve the kind.
pub async fn list(client: &kube::Client, namespace: Option<&str>) -> Result<Vec<ProvisioningCluster>> {
    let options = ListOptions {
        namespace,
        ..ListOptions::default()
    };
    let found = match request::list_all::<RawProvisioning>(client, PROVISIONING, &options).await {
        Err(error) if error.is_not_found() => Vec::new(),
        found => found?,
    };
    Ok(found.into_iter().filter_map(RawProvisioning::read).collect())
}

/// The provisioning cluster of a cluster. None: it has none.
pub async fn of_cluster(client: &kube::Client, cluster: &Cluster) -> Result<Option<ProvisioningCluster>> {
    let all = list(client, cluster.workspace.as_deref()).await?;
    Ok(all.into_iter().find(|found| found.cluster == cluster.id))
}

/// The plan of a control-plane machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachinePlan {
    /// The agent's token in the plan. None: it has no such file.
    pub planned: Option<Secret>,
    /// The same in the plan that the machine has applied last: what RKE2 or K3s applies at every start of its server.
    pub applied: Option<Secret>,
    /// The machine has applied the plan.
    pub is_applied: bool,
    /// When the plan has changed.
    pub updated: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPlan {
    plan: Option<String>,
    #[serde(rename = "appliedPlan")]
    applied_plan: Option<String>,
    #[serde(rename = "applied-checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct PlanContent {
    #[serde(default)]
    files: Vec<PlanFile>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PlanFile {
    path: String,
    content: String,
}

#[derive(Deserialize)]
struct ManifestSecret {
    kind: String,
    metadata: ManifestMetadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ManifestMetadata {
    name: String,
}

/// The plans of the control-plane machines, by the names of the machines.
pub async fn plans(client: &kube::Client, of: &ProvisioningCluster) -> Result<BTreeMap<String, MachinePlan>> {
    let labels = format!("{CLUSTER_NAME}={},{CONTROL_PLANE}=true", of.name);
    let options = ListOptions {
        namespace: Some(&of.namespace),
        labels: Some(&labels),
        fields: Some("type=rke.cattle.io/machine-plan"),
        ..ListOptions::default()
    };
    let found = request::list_all::<object::RawSecret<RawPlan>>(client, SECRET, &options).await?;
    let named = found.into_iter().filter_map(|secret| {
        let labels = secret.metadata.labels.as_ref();
        let machine = labels.and_then(|labels| labels.get(MACHINE_NAME)).cloned()?;
        Some((machine, plan(secret)))
    });
    Ok(named.collect())
}

fn plan(secret: object::RawSecret<RawPlan>) -> MachinePlan {
    let data = secret.data.unwrap_or_default();
    // Of a problem in them the token says enough: there is none.
    let text = |encoded: Option<String>, field| decoded(encoded.as_deref(), field, &mut Vec::new()).map(Zeroizing::new);
    let (plan, applied) = (
        text(data.plan, "data.plan"),
        text(data.applied_plan, "data.appliedPlan"),
    );
    let checksum = plan.as_ref().map(|plan| hex::<Sha256>(&[plan]));
    let recorded = text(data.checksum, "data.applied-checksum");
    MachinePlan {
        planned: plan.as_ref().and_then(|plan| token_in(plan)),
        applied: applied.as_ref().and_then(|plan| token_in(plan)),
        is_applied: checksum.is_some() && checksum.as_ref() == recorded.as_deref(),
        updated: secret.metadata.annotation(PLAN_UPDATED).and_then(|at| at.parse().ok()),
    }
}

/// The agent's token in the manifest in a plan.
fn token_in(plan: &str) -> Option<Secret> {
    let content: PlanContent = serde_json::from_str(plan).ok()?;
    let file = content.files.into_iter().find(|file| file.path.ends_with(MANIFEST))?;
    let text = Zeroizing::new(String::from_utf8(STANDARD.decode(file.content).ok()?).ok()?);
    let mut documents = text
        .split("\n---")
        .filter(|document| document.contains("cattle-credentials-"));
    documents.find_map(|document| {
        let secret: ManifestSecret = yaml::from_str(document.trim_start_matches("---")).ok()?;
        let is_agents = secret.kind == "Secret" && secret.metadata.name.starts_with("cattle-credentials-");
        let encoded = secret.data.get("token").filter(|_| is_agents)?;
        decoded(Some(encoded), "data.token", &mut Vec::new()).map(Secret::new)
    })
}

impl MachinePlan {
    /// Fingerprints of the tokens in the plan, and in the one that was applied last.
    pub fn fingerprints(&self) -> (Option<Fingerprint>, Option<Fingerprint>) {
        let of = |token: &Option<Secret>| token.as_ref().map(Secret::fingerprint);
        (of(&self.planned), of(&self.applied))
    }
}

/// A machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The name of the object.
    pub name: String,
    /// The first internal address of its Node, else the first address.
    pub address: Option<String>,
    /// When it has joined.
    pub created: Option<Timestamp>,
    /// The Node that belongs to it. None: it has none, as one that has joined with a token and runs no kubelet.
    pub node: Option<String>,
    /// Its condition `NodeHealthy`, which Cluster API keeps. None: it was never set.
    pub healthy: Option<ConditionStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawMachine {
    metadata: Metadata,
    status: RawMachineStatus,
}

impl Item for RawMachine {}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMachineStatus {
    addresses: Option<Vec<RawAddress>>,
    node_ref: Option<NodeRef>,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawAddress {
    address: String,
    r#type: String,
}

#[derive(Deserialize)]
struct NodeRef {
    name: String,
}

/// The machines of the cluster, by name.
pub async fn machines(client: &kube::Client, of: &ProvisioningCluster) -> Result<Vec<Machine>> {
    let labels = format!("cluster.x-k8s.io/cluster-name={}", of.name);
    let options = ListOptions {
        namespace: Some(&of.namespace),
        labels: Some(&labels),
        ..ListOptions::default()
    };
    let found = request::list_all::<RawMachine>(client, MACHINE, &options).await?;
    Ok(found.into_iter().map(RawMachine::read).collect())
}

impl RawMachine {
    fn read(self) -> Machine {
        let Self { metadata, status } = self;
        let addresses = status.addresses.unwrap_or_default();
        let internal = addresses.iter().find(|address| address.r#type == "InternalIP");
        let conditions = status.conditions.unwrap_or_default();
        let healthy = conditions.iter().find(|condition| condition.r#type == "NodeHealthy");
        Machine {
            address: internal.or(addresses.first()).map(|address| address.address.clone()),
            created: metadata.created(),
            node: status.node_ref.map(|node| node.name),
            healthy: healthy.map(|condition| condition.status.as_str().into()),
            name: metadata.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(token: &str) -> String {
        let token = STANDARD.encode(token);
        format!(
            "\n---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: cattle-system\n---\n\napiVersion: v1\nkind: Secret\nmetadata:\n  \
             name: cattle-credentials-0123456789\n  namespace: cattle-system\ntype: Opaque\ndata:\n  url: \"eA==\"\n  token: \"{token}\"\n---\n\
             apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: cattle-cluster-agent\nspec:\n  secretName: cattle-credentials-0123456789\n"
        )
    }

    fn raw(plan: &str, applied: &str) -> object::RawSecret<RawPlan> {
        let content = |token: &str| {
            let path = "/var/lib/rancher/rke2/server/manifests/rancher/cluster-agent.yaml";
            let files = serde_json::json!([
                {"path": "/etc/rancher/rke2/config.yaml.d/50-rancher.yaml", "content": "e30="},
                {"path": path, "content": STANDARD.encode(manifest(token)), "dynamic": true, "minor": true},
            ]);
            serde_json::json!({"files": files, "instructions": []}).to_string()
        };
        let (plan, applied) = (content(plan), content(applied));
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "custom-1-machine-plan", "annotations": {PLAN_UPDATED: "2026-11-28T21:03:35Z"}},
            "data": {
                "plan": STANDARD.encode(&plan), "appliedPlan": STANDARD.encode(&applied),
                "applied-checksum": STANDARD.encode(hex::<Sha256>(&[&applied])),
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_token_of_a_plan_is_that_of_the_agents_secret_in_its_manifest() {
        let read = plan(raw("new", "old"));
        let of = |token: &str| Some(Secret::new(token.to_owned()).fingerprint());
        assert_eq!(read.fingerprints(), (of("new"), of("old")));
        assert!(!read.is_applied);
        assert_eq!(read.updated, "2026-11-28T21:03:35Z".parse().ok());
        assert!(plan(raw("new", "new")).is_applied);
    }

    #[test]
    fn a_plan_that_is_not_one_has_no_token() {
        for data in [
            serde_json::json!({}),
            serde_json::json!({"plan": "AAAA", "applied-checksum": "!"}),
        ] {
            let secret = serde_json::from_value(serde_json::json!({"data": data})).unwrap();
            let read = plan(secret);
            assert_eq!((read.planned.is_none(), read.is_applied), (true, false));
        }
    }

    #[test]
    fn an_imported_cluster_may_have_a_provisioning_cluster_too() {
        let read = |spec: serde_json::Value| {
            let object = serde_json::json!({
                "metadata": {"name": "eu", "namespace": "fleet-default"}, "spec": spec,
                "status": {"clusterName": "c-m-abcdefgh", "conditions": [
                    {"type": "Ready", "status": "True", "lastUpdateTime": "2026-11-28T21:03:36Z"},
                ]},
            });
            serde_json::from_value::<RawProvisioning>(object)
                .unwrap()
                .read()
                .unwrap()
        };
        assert!(read(serde_json::json!({"rkeConfig": {}})).has_machines);
        let imported = read(serde_json::json!({"rkeConfig": null}));
        assert!(!imported.has_machines);
        assert_eq!(imported.ready, ConditionStatus::True);
        assert!(imported.ready_since.is_some());
    }
}
