//! The fixture itself: a registered cluster is as a user of Rancher expects it.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{RancherFixture, Shell, reading};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use rstest::rstest;
use test_cluster::{Kubeconfig, TestEnvironment, TokenStorage, User};

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn an_imported_cluster_has_a_connected_agent(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let id = &fixture.cluster.id;

    let real = Api::<Deployment>::namespaced(fixture.downstream.client().await?, &fixture.cluster.agent_namespace());
    let status = real.get("cattle-cluster-agent").await?.status.context("no status")?;
    assert_eq!(
        (status.available_replicas, status.unavailable_replicas),
        (Some(1), None)
    );

    let report = fixture.rancher.report(&fixture.cluster).await?;
    assert!(
        report.connected_since.is_some() && report.disconnected.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.fingerprints().len(), 1, "{report:?}");

    // Both routes lead to an ordinary cluster.
    for path in [format!("/k8s/clusters/{id}"), format!("/direct/{id}")] {
        let client = fixture.rancher.client(&path, Some(&User::admin()))?;
        let seen = Api::<Deployment>::namespaced(client, "cattle-system")
            .get("cattle-cluster-agent")
            .await;
        seen.with_context(|| format!("at {path}"))?;
    }
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reaches_the_cluster_through_every_context(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lima").await?;
    let id = fixture.cluster.id.as_str();
    for context in ["rancher", "bare", "management"] {
        let get = [
            "--context",
            context,
            "get",
            "clusters.management.cattle.io",
            id,
            "-o",
            "jsonpath={.spec.displayName}",
        ];
        assert_eq!(fixture.shell.kubectl(get).run().await?.expect(0)?.stdout, "lima");
    }
    let (proxy, shell) = fixture.behind_proxy().await?;
    let get = [
        "--context",
        id,
        "-n",
        "cattle-system",
        "get",
        "deployments",
        "-o",
        "name",
    ];
    assert_eq!(
        shell.kubectl(get).run().await?.expect(0)?.stdout,
        "deployment.apps/cattle-cluster-agent\n"
    );
    assert!(
        !proxy.requests().is_empty() && proxy.writes().is_empty(),
        "{}",
        proxy.transcript()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_finds_the_plugin() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "bern").await?;
    let plugins = fixture
        .shell
        .kubectl(["plugin", "list", "--name-only"])
        .run()
        .await?
        .expect(0)?;
    assert!(plugins.stdout.lines().any(|line| line == "kubectl-crt"), "{plugins}");
    fixture.shell.kubectl(["crt", "--help"]).run().await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_prompts_on_the_test_terminal() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "rome").await?;
    let delete = [
        "--context",
        "management",
        "delete",
        "clusters.management.cattle.io",
        &fixture.cluster.id,
        "--interactive",
    ];
    let mut terminal = fixture.shell.kubectl(delete).on_terminal()?;
    tokio::task::spawn_blocking(move || -> Result<()> {
        expectrl::Expect::expect(&mut terminal, "(y/N)")?;
        expectrl::Expect::send_line(&mut terminal, "n")?;
        expectrl::Expect::expect(&mut terminal, "cancelled")?;
        Ok(())
    })
    .await??;
    assert!(
        fixture
            .rancher
            .report(&fixture.cluster)
            .await?
            .connected_since
            .is_some()
    );
    Ok(())
}

/// A context of the user leads to the cluster at an address that Rancher does not know, with the CA that Rancher has recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_reached_at_its_own_address_with_its_own_ca() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "kiruna").await?;
    let id = fixture.cluster.id.as_str();
    let user = fixture.user_with("reader", reading(), reading()).await?;
    let kubeconfig = Kubeconfig::read(fixture.shell.kubeconfig())?;
    let own = ("own", &fixture.cluster, &user);
    let (proxy, kubeconfig) = fixture.rancher.with_own_address(kubeconfig, own).await?;
    let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
    let agent = ["-n", "cattle-system", "get", "deployment", "cattle-cluster-agent"];
    let seen = shell.kubectl(["--context", "own"].iter().chain(&agent)).run().await?;
    seen.expect(0)?;
    let delete = ["-n", "cattle-system", "delete", "pods", "--all"];
    let denied = shell.kubectl(["--context", "own"].iter().chain(&delete)).run().await?;
    ensure!(denied.stderr.contains("forbidden"), "the user may only read: {denied}");

    let recorded = ["--context", "management", "get", "clusters.management.cattle.io", id];
    let recorded = recorded.iter().chain(&["-o", "jsonpath={.status.caCert}"]);
    let recorded = shell.kubectl(recorded).run().await?.expect(0)?.stdout;
    assert_eq!(STANDARD.decode(recorded)?, proxy.ca_pem().as_bytes());
    Ok(())
}
