//! A downstream context that leads to another cluster: nothing is written, whatever is forced.

use anyhow::{Result, ensure};
use e2e::{RancherFixture, Shell};
use rstest::rstest;
use test_cluster::{
    Fault, FaultProxy, Kubeconfig, Moment, On, Registered, Registration, TestEnvironment, TokenStorage, Upstream, User,
};

use crate::state::State;

/// A shell with contexts of both clusters, and the proxy in front of them.
async fn with_both(fixture: &RancherFixture, other: &Registered) -> Result<(FaultProxy, Shell)> {
    let kubeconfig = Kubeconfig::read(fixture.shell.kubeconfig())?;
    let kubeconfig = fixture.rancher.with_cluster(kubeconfig, other, &User::admin());
    let proxy = FaultProxy::start([fixture.rancher.upstream(), Upstream::admin_of(fixture.management)]).await?;
    let shell = Shell::new(TestEnvironment::shared().await?, &proxy.redirect(kubeconfig))?;
    Ok((proxy, shell))
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_and_rollback_refuse_the_context_of_another_cluster(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lisboa").await?;
    let other = fixture
        .rancher
        .register_as(&Registration::imported("coimbra").quick())
        .await?;
    let before = fixture.rancher.report(&other).await?;
    let (proxy, shell) = with_both(&fixture, &other).await?;
    let id = fixture.cluster.id.as_str();
    let wrong = format!("{}-direct", other.id);
    let all_checks = "--force=agent,redeploy,last-agent,third-token,context,owner,address";
    for force in [&[][..], &[all_checks]] {
        let rotate = [&["rotate", id, "--yes", "--downstream-context", &wrong][..], force].concat();
        let outcome = shell.crt(&rotate).run().await?.expect(1)?;
        ensure!(outcome.stderr.contains("leads to another cluster"), "{outcome}");
    }
    ensure!(
        proxy.writes().iter().all(|write| write.path.contains("/leases")),
        "{}",
        proxy.transcript()
    );

    // A rotation that was started with the right context is not resumed or rolled back with the wrong one.
    let start = State::of(&fixture).await?;
    let (right_proxy, right) = with_both(&fixture, &other).await?;
    right_proxy.plan(
        On::write().path("*/deployments/cattle-cluster-agent"),
        Fault::Kill(Moment::After),
    );
    let run = right.crt(["rotate", id, "--yes"]).start().await?;
    right_proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    for verb in ["rotate", "rollback"] {
        let outcome = shell
            .crt([verb, id, "--yes", "--downstream-context", &wrong])
            .run()
            .await?;
        ensure!(outcome.code() != Some(0), "{outcome}");
        ensure!(outcome.stderr.contains("leads to another cluster"), "{outcome}");
    }
    let now = fixture.rancher.report(&other).await?;
    assert_eq!(now.fingerprints(), before.fingerprints());
    right
        .crt(["rollback", id, "--yes", "--settle", "1s"])
        .run()
        .await?
        .expect(0)?;
    assert_eq!(State::of(&fixture).await?.named(), start.named());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_downstream_context_for_several_clusters_is_a_usage_error() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "aveiro").await?;
    fixture
        .rancher
        .register_as(&Registration::imported("aveiro-2").quick())
        .await?;
    let context = format!("{}-direct", fixture.cluster.id);
    let rotate = ["rotate", "--all", "--yes", "--downstream-context", &context];
    let outcome = fixture.shell.crt(rotate).run().await?.expect(2)?;
    ensure!(
        outcome.stderr.contains("--downstream-context leads to one cluster"),
        "{outcome}"
    );
    Ok(())
}
