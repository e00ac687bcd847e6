//! The missing permissions that `kubectl crt rotate` names before it writes anything.

use crate::rotate::refusals::refused;
use anyhow::{Context as _, Result};
use e2e::{RancherFixture, Shell};
use insta::{allow_duplicates, assert_snapshot};
use rstest::rstest;
use serde_json::{Value, json};
use test_cluster::{ControlPlane, TokenStorage, User};

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

/// The shell of a user of Rancher with separate permissions on each cluster.
async fn user_with(fixture: &RancherFixture, name: &str, management: Value, downstream: Value) -> Result<Shell> {
    let group = format!("{name}-{}", fixture.cluster.id);
    let user = User {
        name: format!("u-{name}"),
        token: format!(
            "token-{name}-{}:2rnt8wz5bj7hd9lcf4mgsp6x8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq",
            fixture.cluster.id
        ),
        groups: vec![group.clone()],
    };
    fixture.rancher.add_user(&user).await?;
    grant(fixture.management, &fixture.shell, &group, management).await?;
    grant(fixture.downstream, &fixture.shell, &group, downstream).await?;
    fixture.shell_of(&user).await
}

fn everything() -> Value {
    json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }])
}

/// Permission to read everything and to review the own permissions.
fn reading() -> Value {
    json!([
        { "apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"] },
        { "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews"], "verbs": ["create"] },
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_names_missing_permissions_on_the_management_cluster_with_status_storage() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Status, "oslo").await?;
    let shell = user_with(&fixture, "downstream", reading(), everything()).await?;
    let refusal = refused(&fixture, &shell, &["rotate", &fixture.cluster.id, "--yes"]).await?;
    allow_duplicates! { assert_snapshot!(refusal, @r#"
    $ kubectl-crt rotate c-id123 --yes
    ----- stderr -----
    error: on the management cluster you may not: create leases.coordination.k8s.io in namespace c-id123, patch leases.coordination.k8s.io in namespace c-id123, create clusterregistrationtokens.management.cattle.io in namespace c-id123, patch clusterregistrationtokens.management.cattle.io in namespace c-id123, delete clusterregistrationtokens.management.cattle.io in namespace c-id123
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["create"]}
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["patch"]}
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: ["management.cattle.io"], resources: ["clusterregistrationtokens"], verbs: ["create"]}
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: ["management.cattle.io"], resources: ["clusterregistrationtokens"], verbs: ["patch"]}
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: ["management.cattle.io"], resources: ["clusterregistrationtokens"], verbs: ["delete"]}
    ----- exit status: 1 -----
    "#) }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_names_missing_permissions_on_the_management_cluster_with_secret_storage() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "oslo").await?;
    let shell = user_with(&fixture, "downstream", reading(), everything()).await?;
    let refusal = refused(&fixture, &shell, &["rotate", &fixture.cluster.id, "--yes"]).await?;
    allow_duplicates! { assert_snapshot!(refusal, @r#"
    $ kubectl-crt rotate c-id123 --yes
    ----- stderr -----
    error: on the management cluster you may not: create leases.coordination.k8s.io in namespace c-id123, patch leases.coordination.k8s.io in namespace c-id123, create clusterregistrationtokens.management.cattle.io in namespace c-id123, patch clusterregistrationtokens.management.cattle.io in namespace c-id123, delete clusterregistrationtokens.management.cattle.io in namespace c-id123, patch clusters.management.cattle.io "c-id123", patch secrets in namespace c-id123
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["create"]}
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["patch"]}
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: ["management.cattle.io"], resources: ["clusterregistrationtokens"], verbs: ["create"]}
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: ["management.cattle.io"], resources: ["clusterregistrationtokens"], verbs: ["patch"]}
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: ["management.cattle.io"], resources: ["clusterregistrationtokens"], verbs: ["delete"]}
    hint: the missing rule, in a ClusterRole: {apiGroups: ["management.cattle.io"], resources: ["clusters"], resourceNames: ["c-id123"], verbs: ["patch"]}
    hint: the missing rule, in a Role in namespace c-id123: {apiGroups: [""], resources: ["secrets"], verbs: ["patch"]}
    ----- exit status: 1 -----
    "#) }
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_names_missing_permissions_on_the_downstream_cluster(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let shell = user_with(&fixture, "management", everything(), reading()).await?;
    let refusal = refused(&fixture, &shell, &["rotate", &fixture.cluster.id, "--yes"]).await?;
    allow_duplicates! { assert_snapshot!(refusal, @r#"
    $ kubectl-crt rotate c-id123 --yes
    ----- stderr -----
    error: on the downstream cluster you may not: create secrets in namespace cattle-system, delete secrets in namespace cattle-system, patch deployments.apps "cattle-cluster-agent" in namespace cattle-system
    hint: the missing rule, in a Role in namespace cattle-system: {apiGroups: [""], resources: ["secrets"], verbs: ["create"]}
    hint: the missing rule, in a Role in namespace cattle-system: {apiGroups: [""], resources: ["secrets"], verbs: ["delete"]}
    hint: the missing rule, in a Role in namespace cattle-system: {apiGroups: ["apps"], resources: ["deployments"], resourceNames: ["cattle-cluster-agent"], verbs: ["patch"]}
    ----- exit status: 1 -----
    "#) }
    Ok(())
}
