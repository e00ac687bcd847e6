//! What an admin does by hand, past the plugin, so that it finds something to deal with.

use std::collections::BTreeMap;

use anyhow::Result;
use e2e::Story;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use testbed::{Era, User};

/// Patches an object of the management cluster.
pub(crate) async fn patch(story: &Story, object: &[&str], patch: &str) -> Result<()> {
    let words = ["--context", "management", "patch", "--type", "merge", "-p", patch];
    story.desk.kubectl(words.iter().chain(object)).run().await?.expect(0)?;
    Ok(())
}

/// Creates objects on the management cluster.
pub(crate) async fn create(story: &Story, objects: serde_json::Value) -> Result<()> {
    let create = ["--context", "management", "create", "-f", "-"];
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    story
        .desk
        .kubectl(create)
        .stdin(list.to_string())
        .run()
        .await?
        .expect(0)?;
    Ok(())
}

/// Gives `system` another value behind everybody's back.
pub(crate) async fn replace_system(story: &Story, value: &str) -> Result<()> {
    let id = story.cluster.id.as_str();
    match story.rancher.era() {
        Era::Plain => {
            let token = ["clusterregistrationtokens.management.cattle.io", "system", "-n", id];
            patch(story, &token, &format!(r#"{{"status":{{"token":"{value}"}}}}"#)).await
        }
        Era::Secret => {
            let secret = ["secret", "crt-token-system", "-n", id];
            patch(story, &secret, &format!(r#"{{"stringData":{{"token":"{value}"}}}}"#)).await
        }
    }
}

/// The values of the cluster's registration tokens, by name.
pub(crate) async fn values(story: &Story) -> Result<BTreeMap<String, String>> {
    let (client, id) = (story.management.client().await?, &story.cluster.id);
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

/// A user of Rancher who may only do what these rules of a `ClusterRole` allow.
pub(crate) async fn user_with(story: &Story, name: &str, rules: serde_json::Value) -> Result<User> {
    let name = format!("{name}-{}", story.cluster.id);
    let user = User {
        name: format!("u-{name}"),
        token: format!("token-{name}:{}", "k2vq5rnt7wz9bj4hd6lcfmgspx".repeat(2)),
        groups: vec![name.clone()],
    };
    story.rancher.add_user(&user).await?;
    let role = serde_json::json!([
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}],
        },
    ]);
    create(story, role).await?;
    Ok(user)
}
