//! `kubectl crt status` of a cluster without a rotation in progress.

mod rotation_in_progress;

use std::time::Duration;

use anyhow::Result;
use e2e::{RancherFixture, mask_output, until};
use insta::assert_snapshot;
use test_cluster::TokenStorage;

use crate::manual_changes;

#[tokio::test(flavor = "multi_thread")]
async fn status_explains_a_healthy_cluster_with_status_storage() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Status, "lyon").await?;
    assert_snapshot!(mask_output(&fixture.shell.crt(["status", &fixture.cluster.id]).run().await?.to_string()), @r#"
    $ kubectl-crt status c-id123
    Cluster lyon (c-id123)
    Rancher v2.12.0, token storage: status, cluster reached through Rancher

    + cluster   kind imported; Rancher reports its agent as connected
    + agent     Deployment cattle-cluster-agent has 1 of 1 pods available
    + secret    Secret cattle-credentials-AAAAAAAAAA has BBBBBBBBBB
    + pods      1 of 1 agent pods ready
    + token     BBBBBBBBBB is the value of registration token "system"
    + accepted  Rancher accepts BBBBBBBBBB as a token of cluster c-id123
    + deployed  Rancher's next redeploy keeps this token
    + address   the agent connects to https://127.0.0.1:<port>, as in Rancher's settings
    + owner     only Rancher manages the agent and its registration token
    + tunnels   the agent that connected last uses BBBBBBBBBB for both tunnels
    + call      a call through Rancher succeeded (Kubernetes <version>)

    Rotation in progress: none. Last rotation: <none>
    ----- stderr -----
    ----- exit status: 0 -----
    "#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_explains_a_healthy_cluster_with_secret_storage() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    assert_snapshot!(mask_output(&fixture.shell.crt(["status", id]).run().await?.to_string()), @r#"
    $ kubectl-crt status c-id123
    Cluster lyon (c-id123)
    Rancher v2.15.0, token storage: secret, cluster reached through Rancher

    + cluster   kind imported; Rancher reports its agent as connected
    + agent     Deployment cattle-cluster-agent has 1 of 1 pods available
    + secret    Secret cattle-credentials-AAAAAAAAAA has BBBBBBBBBB
    + pods      1 of 1 agent pods ready
    + token     BBBBBBBBBB is the value of registration token "system"
    + accepted  Rancher accepts BBBBBBBBBB as a token of cluster c-id123
    + deployed  Rancher's next redeploy keeps this token
    + address   the agent connects to https://127.0.0.1:<port>, as in Rancher's settings
    + owner     only Rancher manages the agent and its registration token
    + tunnels   the agent that connected last uses BBBBBBBBBB for both tunnels
    + call      a call through Rancher succeeded (Kubernetes <version>)

    Rotation in progress: none. Last rotation: <none>
    ----- stderr -----
    ----- exit status: 0 -----
    "#);
    assert_snapshot!(mask_output(&fixture.shell.crt(["status", id, "-o", "yaml"]).run().await?.to_string()), @r#"
    $ kubectl-crt status c-id123 -o yaml
    apiVersion: kubectl-rotation.github.io/v1alpha1
    checks:
    - message: kind imported; Rancher reports its agent as connected
      name: cluster
      status: passed
    - message: Deployment cattle-cluster-agent has 1 of 1 pods available
      name: agent
      status: passed
    - message: Secret cattle-credentials-AAAAAAAAAA has BBBBBBBBBB
      name: secret
      status: passed
    - message: 1 of 1 agent pods ready
      name: pods
      status: passed
    - message: BBBBBBBBBB is the value of registration token "system"
      name: token
      status: passed
    - message: Rancher accepts BBBBBBBBBB as a token of cluster c-id123
      name: accepted
      status: passed
    - message: Rancher's next redeploy keeps this token
      name: deployed
      status: passed
    - message: the agent connects to https://127.0.0.1:<port>, as in Rancher's settings
      name: address
      status: passed
    - message: only Rancher manages the agent and its registration token
      name: owner
      status: passed
    - message: the agent that connected last uses BBBBBBBBBB for both tunnels
      name: tunnels
      status: passed
    - message: a call through Rancher succeeded (Kubernetes <version>)
      name: call
      status: passed
    cluster:
      displayName: lyon
      id: c-id123
      kind: imported
    fingerprint: BBBBBBBBBB
    healthy: true
    kind: ClusterStatus
    lastResult: null
    lastRotated: null
    metadata:
      name: c-id123
    path: through Rancher
    rancherVersion: v2.15.0
    rotation: null
    rotationUnknown: false
    tokenStorage: secret
    ----- stderr -----
    ----- exit status: 0 -----
    "#);
    assert_snapshot!(mask_output(&fixture.shell.crt(["status", id, "-o", "wide"]).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123 -o wide
    ----- stderr -----
    error: status prints a page, json, yaml, jsonpath or custom-columns
    ----- exit status: 2 -----
    ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_marks_the_downstream_cluster_unknown_without_a_route_to_it() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    let status = ["status", id, "--context", "management"];
    assert_snapshot!(mask_output(&fixture.shell.crt(status).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123 --context management
    Cluster lyon (c-id123)
    Rancher v2.15.0, token storage: secret

    + cluster   kind imported; Rancher reports its agent as connected
    ? agent     no route to the downstream cluster; pass a context of it with --downstream-context
    ? secret    no route to the downstream cluster; pass a context of it with --downstream-context
    ? pods      no route to the downstream cluster; pass a context of it with --downstream-context
    ? token     the agent's token is unknown
    ? accepted  the agent's token is unknown
    ? deployed  the agent's token is unknown
    ? address   no route to the downstream cluster; pass a context of it with --downstream-context
    ? owner     what manages the agent is unknown: cannot reach the downstream cluster
    ? tunnels   no route to the downstream cluster; pass a context of it with --downstream-context
    - call      no call through Rancher: --context has no credentials of a Rancher user

    Rotation in progress: none. Last rotation: <none>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    let direct = format!("{id}-direct");
    let status = ["status", id, "--context", "management", "--downstream-context", &direct];
    assert_snapshot!(mask_output(&fixture.shell.crt(status).run().await?.to_string()), @r#"
    $ kubectl-crt status c-id123 --context management --downstream-context c-id123-direct
    Cluster lyon (c-id123)
    Rancher v2.15.0, token storage: secret, cluster reached by context c-id123-direct

    + cluster   kind imported; Rancher reports its agent as connected
    + agent     Deployment cattle-cluster-agent has 1 of 1 pods available
    + secret    Secret cattle-credentials-AAAAAAAAAA has BBBBBBBBBB
    + pods      1 of 1 agent pods ready
    + token     BBBBBBBBBB is the value of registration token "system"
    + accepted  Rancher accepts BBBBBBBBBB as a token of cluster c-id123
    + deployed  Rancher's next redeploy keeps this token
    + address   the agent connects to https://127.0.0.1:<port>, as in Rancher's settings
    + owner     only Rancher manages the agent and its registration token
    + tunnels   the agent that connected last uses BBBBBBBBBB for both tunnels
    - call      no call through Rancher: --context has no credentials of a Rancher user

    Rotation in progress: none. Last rotation: <none>
    ----- stderr -----
    ----- exit status: 0 -----
    "#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_reports_a_revoked_token() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    manual_changes::replace_system(&fixture, &"x7k2p".repeat(10)).await?;
    assert_snapshot!(mask_output(&fixture.shell.crt(["status", &fixture.cluster.id]).run().await?.to_string()), @r#"
    $ kubectl-crt status c-id123
    Cluster lyon (c-id123)
    Rancher v2.15.0, token storage: secret, cluster reached through Rancher

    + cluster   kind imported; Rancher reports its agent as connected
    + agent     Deployment cattle-cluster-agent has 1 of 1 pods available
    + secret    Secret cattle-credentials-AAAAAAAAAA has BBBBBBBBBB
    + pods      1 of 1 agent pods ready
    x token     BBBBBBBBBB is not the value of any registration token of this cluster
    x accepted  Rancher rejects BBBBBBBBBB
    x deployed  Rancher's next redeploy replaces BBBBBBBBBB by CCCCCCCCCC, the value of registration token "system"
    + address   the agent connects to https://127.0.0.1:<port>, as in Rancher's settings
    + owner     only Rancher manages the agent and its registration token
    + tunnels   the agent that connected last uses BBBBBBBBBB for both tunnels
    + call      a call through Rancher succeeded (Kubernetes <version>)

    Rotation in progress: none. Last rotation: <none>

    To bring the agent back: kubectl crt rescue c-id123
    ----- stderr -----
    ----- exit status: 0 -----
    "#);
    let healthy = fixture
        .shell
        .crt(["status", &fixture.cluster.id, "-o", "jsonpath={.healthy}"])
        .run()
        .await?
        .expect(0)?;
    assert_eq!(healthy.stdout, "false");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_of_a_disconnected_cluster_shows_what_rancher_knows() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    fixture
        .rancher
        .offline(&fixture.cluster, Duration::from_mins(10))
        .await?;
    until("Rancher to see it", async || {
        let report = fixture.rancher.report(&fixture.cluster).await?;
        Ok(report
            .conditions
            .get("Connected")
            .is_some_and(|status| status == "False")
            .then_some(()))
    })
    .await?;
    assert_snapshot!(mask_output(&fixture.shell.crt(["status", id]).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123
    Cluster lyon (c-id123)
    Rancher v2.15.0, token storage: secret, cluster reached through Rancher

    x cluster   kind imported; Rancher reports its agent as not connected
    ? agent     the cluster's agent is not connected to Rancher
    ? secret    the agent's Deployment is unknown
    ? pods      the cluster's agent is not connected to Rancher
    ? token     the agent's token is unknown
    ? accepted  the agent's token is unknown
    ? deployed  the agent's token is unknown
    ? address   the cluster's agent is not connected to Rancher
    ? owner     what manages the agent is unknown: cannot reach the downstream cluster
    ? tunnels   the cluster's agent is not connected to Rancher
    x call      a call through Rancher failed: the cluster's agent is not connected to Rancher

    Rotation in progress: none. Last rotation: <none>

    To find out what keeps the agent from connecting, and to bring it back: kubectl crt rescue c-id123 --downstream-context CONTEXT
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    let direct = format!("{id}-direct");
    let status = ["status", id, "--downstream-context", &direct];
    assert_snapshot!(mask_output(&fixture.shell.crt(status).run().await?.to_string()), @r#"
    $ kubectl-crt status c-id123 --downstream-context c-id123-direct
    Cluster lyon (c-id123)
    Rancher v2.15.0, token storage: secret, cluster reached by context c-id123-direct

    x cluster   kind imported; Rancher reports its agent as not connected
    + agent     Deployment cattle-cluster-agent has 1 of 1 pods available
    + secret    Secret cattle-credentials-AAAAAAAAAA has BBBBBBBBBB
    + pods      1 of 1 agent pods ready
    + token     BBBBBBBBBB is the value of registration token "system"
    + accepted  Rancher accepts BBBBBBBBBB as a token of cluster c-id123
    + deployed  Rancher's next redeploy keeps this token
    + address   the agent connects to https://127.0.0.1:<port>, as in Rancher's settings
    + owner     only Rancher manages the agent and its registration token
    + tunnels   the agent that connected last uses BBBBBBBBBB for both tunnels
    x call      a call through Rancher failed: the cluster's agent is not connected to Rancher

    Rotation in progress: none. Last rotation: <none>
    ----- stderr -----
    ----- exit status: 0 -----
    "#);
    Ok(())
}
