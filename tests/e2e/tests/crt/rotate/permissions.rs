//! The missing permissions that `kubectl crt rotate` names before it writes anything.

use crate::rotate::refusals::refused;
use anyhow::Result;
use e2e::{RancherFixture, everything, reading};
use insta::{allow_duplicates, assert_snapshot};
use rstest::rstest;
use test_cluster::TokenStorage;

#[tokio::test(flavor = "multi_thread")]
async fn rotate_names_missing_permissions_on_the_management_cluster_with_status_storage() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Status, "oslo").await?;
    let shell = fixture.shell_with("downstream", reading(), everything()).await?;
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
    let shell = fixture.shell_with("downstream", reading(), everything()).await?;
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
    let shell = fixture.shell_with("management", everything(), reading()).await?;
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
