//! Users of Rancher with separate permissions on each cluster.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use test_cluster::{ControlPlane, User};

use crate::{RancherFixture, Shell};

/// RBAC rules that allow everything.
pub fn everything() -> Value {
    json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }])
}

/// RBAC rules that allow to read everything and to review the own permissions.
pub fn reading() -> Value {
    json!([
        { "apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"] },
        { "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews"], "verbs": ["create"] },
    ])
}

impl RancherFixture {
    /// A user with these RBAC rules on the management cluster, and these on the downstream cluster.
    pub async fn user_with(&self, name: &str, management: Value, downstream: Value) -> Result<User> {
        let group = format!("{name}-{}", self.cluster.id);
        let user = User {
            name: format!("u-{name}-{}", self.cluster.id),
            token: format!(
                "token-{name}-{}:2rnt8wz5bj7hd9lcf4mgsp6x8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq",
                self.cluster.id
            ),
            groups: vec![group.clone()],
        };
        self.rancher.add_user(&user).await?;
        grant(self.management, &self.shell, &group, management).await?;
        grant(self.downstream, &self.shell, &group, downstream).await?;
        Ok(user)
    }

    /// The shell of such a user.
    pub async fn shell_with(&self, name: &str, management: Value, downstream: Value) -> Result<Shell> {
        let user = self.user_with(name, management, downstream).await?;
        self.shell_of(&user).await
    }
}

/// Grants these RBAC rules to a group, for the whole server.
async fn grant(plane: &ControlPlane, shell: &Shell, group: &str, rules: Value) -> Result<()> {
    let role = format!("rotation-{group}");
    let meta = json!({ "name": role });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": meta,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group }],
        },
    ] });
    let file = plane.kubeconfig().to_str().context("the path is not UTF-8")?;
    let apply = ["--kubeconfig", file, "apply", "-f", "-"];
    shell.kubectl(apply).stdin(list.to_string()).run().await?.expect(0)?;
    Ok(())
}
