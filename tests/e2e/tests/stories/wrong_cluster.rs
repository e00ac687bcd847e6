//! `kubectl crt` with a context that leads to another cluster: nothing is written, in any direction, whatever is forced.

use anyhow::{Result, ensure};
use e2e::{Desk, Story};
use rstest::rstest;
use testbed::{Bed, Era, Fault, FaultProxy, Kubeconfig, Moment, On, Registered, Registration, Upstream, User};

use crate::state::State;

/// A desk with contexts of both clusters, behind a proxy that counts.
async fn with_both(story: &Story, other: &Registered) -> Result<(FaultProxy, Desk)> {
    let kubeconfig = Kubeconfig::read(story.desk.kubeconfig())?;
    let kubeconfig = story.rancher.with_cluster(kubeconfig, other, &User::admin());
    let proxy = FaultProxy::start([story.rancher.upstream(), Upstream::admin_of(story.management)]).await?;
    let desk = Desk::new(Bed::shared().await?, &proxy.redirect(kubeconfig))?;
    Ok((proxy, desk))
}

#[rstest]
#[case::status(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn the_context_of_another_cluster_is_refused_in_every_direction(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "lisboa").await?;
    let other = story
        .rancher
        .register_as(&Registration::imported("coimbra").quick())
        .await?;
    let before = story.rancher.report(&other).await?;
    let (proxy, desk) = with_both(&story, &other).await?;
    let id = story.cluster.id.as_str();
    let wrong = format!("{}-direct", other.id);
    let all_checks = "--force=agent,redeploy,last-agent,third-token,context,owner,address";
    for force in [&[][..], &[all_checks]] {
        let rotate = [&["rotate", id, "--yes", "--downstream-context", &wrong][..], force].concat();
        let outcome = desk.crt(&rotate).run().await?.expect(1)?;
        ensure!(outcome.stderr.contains("leads to another cluster"), "{outcome}");
    }
    ensure!(
        proxy.writes().iter().all(|write| write.path.contains("/leases")),
        "{}",
        proxy.transcript()
    );

    // A rotation that was begun with the right context is not resumed or undone with the wrong one.
    let start = State::of(&story).await?;
    let (right_proxy, right) = with_both(&story, &other).await?;
    right_proxy.plan(
        On::write().path("*/deployments/cattle-cluster-agent"),
        Fault::Kill(Moment::After),
    );
    let run = right.crt(["rotate", id, "--yes"]).start().await?;
    right_proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    for verb in ["rotate", "rollback"] {
        let outcome = desk
            .crt([verb, id, "--yes", "--downstream-context", &wrong])
            .run()
            .await?;
        ensure!(outcome.code() != Some(0), "{outcome}");
        ensure!(outcome.stderr.contains("leads to another cluster"), "{outcome}");
    }
    let now = story.rancher.report(&other).await?;
    assert_eq!(now.fingerprints(), before.fingerprints());
    right
        .crt(["rollback", id, "--yes", "--settle", "1s"])
        .run()
        .await?
        .expect(0)?;
    assert_eq!(State::of(&story).await?.named(), start.named());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_context_for_several_clusters_is_a_usage_error() -> Result<()> {
    let story = Story::begin(Era::Secret, "aveiro").await?;
    story
        .rancher
        .register_as(&Registration::imported("aveiro-2").quick())
        .await?;
    let context = format!("{}-direct", story.cluster.id);
    let rotate = ["rotate", "--all", "--yes", "--downstream-context", &context];
    let outcome = story.desk.crt(rotate).run().await?.expect(2)?;
    ensure!(
        outcome.stderr.contains("--downstream-context leads to one cluster"),
        "{outcome}"
    );
    Ok(())
}
