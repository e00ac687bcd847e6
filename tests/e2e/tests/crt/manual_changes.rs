//! Changes that an administrator makes by hand, without the plugin.

use std::collections::BTreeMap;

use anyhow::Result;
use e2e::RancherFixture;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use serde_json::{Value, json};
use test_cluster::{TokenStorage, User};

/// Patches an object of the management cluster.
pub(crate) async fn patch(fixture: &RancherFixture, object: &[&str], patch: &str) -> Result<()> {
    let words = ["--context", "management", "patch", "--type", "merge", "-p", patch];
    fixture
        .shell
        .kubectl(words.iter().chain(object))
        .run()
        .await?
        .expect(0)?;
    Ok(())
}

/// Creates objects on the management cluster.
pub(crate) async fn create(fixture: &RancherFixture, objects: serde_json::Value) -> Result<()> {
    let create = ["--context", "management", "create", "-f", "-"];
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    fixture
        .shell
        .kubectl(create)
        .stdin(list.to_string())
        .run()
        .await?
        .expect(0)?;
    Ok(())
}

/// Changes the value of `system` without telling Rancher.
pub(crate) async fn replace_system(fixture: &RancherFixture, value: &str) -> Result<()> {
    let id = fixture.cluster.id.as_str();
    match fixture.rancher.storage() {
        TokenStorage::Status => {
            let token = ["clusterregistrationtokens.management.cattle.io", "system", "-n", id];
            patch(fixture, &token, &format!(r#"{{"status":{{"token":"{value}"}}}}"#)).await
        }
        TokenStorage::Secret => {
            let secret = ["secret", "crt-token-system", "-n", id];
            patch(fixture, &secret, &format!(r#"{{"stringData":{{"token":"{value}"}}}}"#)).await
        }
    }
}

/// The values of the cluster's registration tokens, by name.
pub(crate) async fn values(fixture: &RancherFixture) -> Result<BTreeMap<String, String>> {
    let (client, id) = (fixture.management.client().await?, &fixture.cluster.id);
    let kind = GroupVersionKind::gvk("management.cattle.io", "v3", "ClusterRegistrationToken");
    let tokens = Api::<DynamicObject>::namespaced_with(client.clone(), id, &ApiResource::from_gvk(&kind));
    let mut values = BTreeMap::new();
    for token in tokens.list(&ListParams::default()).await? {
        if let Some(value) = token.data["status"]["token"].as_str().filter(|value| !value.is_empty()) {
            values.insert(token.metadata.name.unwrap_or_default(), value.to_owned());
        }
    }
    for secret in Api::<Secret>::namespaced(client, id)
        .list(&ListParams::default())
        .await?
    {
        let name = secret.metadata.name.unwrap_or_default();
        let data = secret.data.unwrap_or_default();
        if let (Some(name), Some(value)) = (name.strip_prefix("crt-token-"), data.get("token")) {
            values.insert(name.to_owned(), String::from_utf8(value.0.clone())?);
        }
    }
    Ok(values)
}

/// A user of Rancher with the permissions of these rules of a `ClusterRole`.
pub(crate) async fn user_with(fixture: &RancherFixture, name: &str, rules: serde_json::Value) -> Result<User> {
    let name = format!("{name}-{}", fixture.cluster.id);
    let user = User {
        name: format!("u-{name}"),
        token: format!("token-{name}:{}", "k2vq5rnt7wz9bj4hd6lcfmgspx".repeat(2)),
        groups: vec![name.clone()],
    };
    fixture.rancher.add_user(&user).await?;
    let role = serde_json::json!([
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}],
        },
    ]);
    create(fixture, role).await?;
    Ok(user)
}

pub(crate) const DEPLOYMENT: &str = "cattle-cluster-agent";

pub(crate) async fn deployments(fixture: &RancherFixture) -> Result<Api<Deployment>> {
    let client = fixture.downstream.client().await?;
    Ok(Api::namespaced(client, &fixture.cluster.agent_namespace()))
}

/// Creates the Lease of a rotation with this journal, as any user with permission to write Leases can.
pub(crate) async fn forge_journal(fixture: &RancherFixture, journal: &Value) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(fixture.management.client().await?, &fixture.cluster.id);
    let lease = serde_json::from_value(json!({
        "metadata": {
            "name": "kubectl-crt",
            "labels": { "kubectl-rotation.github.io/kind": "crt" },
            "annotations": { "kubectl-rotation.github.io/journal": journal.to_string() },
        },
        "spec": {},
    }))?;
    leases.create(&PostParams::default(), &lease).await?;
    Ok(())
}
