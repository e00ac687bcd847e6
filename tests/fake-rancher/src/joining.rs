//! `/v3/connect/agent`: a node joins a provisioned cluster with any registration token of it that is accepted, and gets the credential of
//! a machine. From then on it never uses the token again. All as seen on Rancher 2.15.0.

use std::sync::Arc;

use http::{Request, Response};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::{ApiError, ApiResult, paths};
use crate::config::User;
use crate::planner::{self, NAMESPACE, machine_path, plan_name};
use crate::server::{Body, bearer, json_answer, text};
use crate::token::{hex, new_token};
use crate::ttl::rfc3339;
use crate::world::World;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/fleet-default";

/// Answers the request of a node's install script.
pub(crate) async fn connect<B>(world: &World, request: &Request<B>) -> Response<Body> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(id) = header("x-cattle-id") else {
        return text(401, "");
    };
    // The machine of a known id is found only by a token that is accepted.
    let cluster = bearer(request).and_then(|token| world.index.tunnel(world.storage(), token));
    let Some((cluster, name)) = cluster.and_then(|id| Some((id.clone(), planner::name_of(world, &id)?))) else {
        return text(500, "machine not found by request");
    };
    let has = |role: &str| header(&format!("x-cattle-role-{role}")) == Some("true");
    let joining = Joining {
        cluster: &cluster,
        name: &name,
        machine: format!("custom-{}", &hex(&Sha256::digest(id))[..12]),
        node: header("x-cattle-node-name").unwrap_or(id),
        address: header("x-cattle-address").unwrap_or_default(),
        roles: ["etcd", "control-plane", "worker"].map(|role| (role, has(role))),
    };
    match joining.credential(world).await {
        Ok(answer) => json_answer(200, &answer),
        Err(error) => text(500, error.to_string()),
    }
}

struct Joining<'a> {
    cluster: &'a str,
    /// The provisioning Cluster.
    name: &'a str,
    machine: String,
    node: &'a str,
    address: &'a str,
    roles: [(&'a str, bool); 3],
}

impl Joining<'_> {
    /// The credential of the machine, which is created if the id is not known.
    async fn credential(&self, world: &World) -> ApiResult<Value> {
        let account = account(&self.machine);
        if world.management.get(&machine_path(&self.machine)).await?.is_none() {
            self.create(world).await?;
        }
        let token = {
            let mut users = world.users.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            let known = users.iter().find(|user| user.name == account);
            if let Some(user) = known {
                user.token.clone()
            } else {
                let token = new_token();
                users.push(User {
                    name: account,
                    token: token.clone(),
                    groups: vec!["system:serviceaccounts".to_owned()],
                });
                token
            }
        };
        world.log.line(
            "joined",
            json!({"cluster": self.cluster, "machine": self.machine, "node": self.node}),
        );
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "agent",
            "clusters": [{"name": "agent", "cluster": {"server": world.server_url()}}],
            "users": [{"name": "agent", "user": {"token": token}}],
            "contexts": [{"name": "agent", "context": {"cluster": "agent", "user": "agent"}}],
        });
        Ok(json!({
            "namespace": NAMESPACE, "secretName": plan_name(&self.machine), "kubeConfig": kubeconfig.to_string(),
        }))
    }

    /// The Machine, its plan, and the ServiceAccount that may read it.
    async fn create(&self, world: &World) -> ApiResult<()> {
        let mut labels = planner::labels(self.name, &self.machine, self.node);
        for (role, has) in self.roles {
            if !has {
                remove(&mut labels, &format!("rke.cattle.io/{role}-role"));
                if role == "control-plane" {
                    remove(&mut labels, "cluster.x-k8s.io/control-plane");
                }
            }
        }
        // Its Node comes later, if ever.
        let machine = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Machine",
            "metadata": {"name": self.machine, "namespace": NAMESPACE, "labels": labels},
            "spec": {"clusterName": self.name},
            "status": {
                "addresses": [
                    {"address": self.address, "type": "InternalIP"}, {"address": self.node, "type": "Hostname"},
                ],
                "phase": "Provisioning",
            },
        });
        let plan_name = plan_name(&self.machine);
        let account = json!({"metadata": {"name": plan_name, "namespace": NAMESPACE}});
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": account["metadata"],
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [plan_name], "verbs": ["get", "update"]}],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": account["metadata"],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": plan_name},
            "subjects": [{"kind": "ServiceAccount", "name": plan_name, "namespace": NAMESPACE}],
        });
        let is_control_plane = self.roles.contains(&("control-plane", true));
        let plan = planner::plan_for(world, self.cluster, is_control_plane)
            .ok_or_else(|| ApiError::Other("there is no plan".to_owned()))?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": planner::PLAN_TYPE,
            "metadata": {
                "name": plan_name, "namespace": NAMESPACE, "labels": labels,
                "annotations": {"rke.cattle.io/plan-last-updated": rfc3339(Timestamp::now())},
            },
            "data": {"plan": crate::api::read::encode(&plan)},
        });
        let management = &world.management;
        management
            .ensure(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &account)
            .await?;
        management.ensure(&format!("{RBAC}/roles"), &role).await?;
        management.ensure(&format!("{RBAC}/rolebindings"), &binding).await?;
        management.create(&paths::secrets(NAMESPACE), &secret).await?;
        management.create(&machine_path(""), &machine).await?;
        if is_control_plane {
            planner::add_node(world, self.cluster, &self.machine);
        }
        Ok(())
    }
}

fn remove(labels: &mut Value, label: &str) {
    if let Value::Object(labels) = labels {
        labels.remove(label);
    }
}

/// The user of a machine's ServiceAccount.
fn account(machine: &str) -> String {
    format!("system:serviceaccount:{NAMESPACE}:{}", plan_name(machine))
}

/// Whether the user is a machine's ServiceAccount, which needs no role in cluster `local`.
pub(crate) fn is_machine(user: &User) -> bool {
    user.name.starts_with("system:serviceaccount:")
}

/// With a Machine go its plan, and the permission to read it: 403 within a second.
pub(crate) fn wire(world: &Arc<World>) {
    let mut machines = world.machines.subscribe();
    let world = world.clone();
    tokio::spawn(async move {
        while let Some(change) = machines.recv().await {
            if change.new.is_some() {
                continue;
            }
            let name = plan_name(&change.key.1);
            for path in [
                format!("{RBAC}/rolebindings/{name}"),
                format!("{RBAC}/roles/{name}"),
                paths::secret(NAMESPACE, &name),
            ] {
                if let Err(error) = world.management.delete(&path).await {
                    tracing::warn!(%error, path, "cannot delete what belongs to a Machine");
                }
            }
        }
    });
}
