//! What every other story starts from: a registered cluster is what a user of Rancher would find.

use anyhow::{Context as _, Result};
use e2e::Story;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use rstest::rstest;
use testbed::{Era, User};

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn an_imported_cluster_is_rolled_out_and_connected(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "oslo").await?;
    let id = &story.cluster.id;

    let real = Api::<Deployment>::namespaced(story.downstream.client().await?, &story.cluster.agent_namespace());
    let status = real.get("cattle-cluster-agent").await?.status.context("no status")?;
    assert_eq!(
        (status.available_replicas, status.unavailable_replicas),
        (Some(1), None)
    );

    let report = story.rancher.report(&story.cluster).await?;
    assert!(
        report.connected_since.is_some() && report.disconnected.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.fingerprints().len(), 1, "{report:?}");

    // Both ways to it show an ordinary cluster.
    for path in [format!("/k8s/clusters/{id}"), format!("/direct/{id}")] {
        let client = story.rancher.client(&path, Some(&User::admin()))?;
        let seen = Api::<Deployment>::namespaced(client, "cattle-system")
            .get("cattle-cluster-agent")
            .await;
        seen.with_context(|| format!("by way of {path}"))?;
    }
    Ok(())
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn the_real_kubectl_sees_it_by_every_context(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "lima").await?;
    let id = story.cluster.id.as_str();
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
        assert_eq!(story.desk.kubectl(get).run().await?.expect(0)?.stdout, "lima");
    }
    let (proxy, desk) = story.behind_proxy().await?;
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
        desk.kubectl(get).run().await?.expect(0)?.stdout,
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
async fn kubectl_finds_the_plugin_by_its_name() -> Result<()> {
    let story = Story::begin(Era::Secret, "bern").await?;
    let plugins = story
        .desk
        .kubectl(["plugin", "list", "--name-only"])
        .run()
        .await?
        .expect(0)?;
    assert!(plugins.stdout.lines().any(|line| line == "kubectl-crt"), "{plugins}");
    story.desk.kubectl(["crt", "--help"]).run().await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_on_a_terminal_is_asked_and_answers() -> Result<()> {
    let story = Story::begin(Era::Secret, "rome").await?;
    let delete = [
        "--context",
        "management",
        "delete",
        "clusters.management.cattle.io",
        &story.cluster.id,
        "--interactive",
    ];
    let mut terminal = story.desk.kubectl(delete).on_terminal()?;
    tokio::task::spawn_blocking(move || -> Result<()> {
        expectrl::Expect::expect(&mut terminal, "(y/N)")?;
        expectrl::Expect::send_line(&mut terminal, "n")?;
        expectrl::Expect::expect(&mut terminal, "cancelled")?;
        Ok(())
    })
    .await??;
    assert!(story.rancher.report(&story.cluster).await?.connected_since.is_some());
    Ok(())
}
