//! A bootstrap signer that loses an update, and one that does not run.

use anyhow::{Result, ensure};
use e2e::until;
use test_cluster::{ControlPlane, Fault, FaultProxy, On, Upstream};

use crate::cluster::is_accepted;
use crate::rotation_fixture::{RotationFixture, separate_cluster};

/// A fixture on this cluster whose token signs cluster-info.
async fn signed(plane: &'static ControlPlane, name: &str) -> Result<RotationFixture> {
    let fixture = RotationFixture::on(plane, name).await?;
    until("the signature", async || {
        Ok(is_signed(&fixture, &fixture.old.id).await?.then_some(()))
    })
    .await?;
    Ok(fixture)
}

async fn is_signed(fixture: &RotationFixture, id: &str) -> Result<bool> {
    let verified = fixture
        .shell
        .bootstrap_token(["verify", id, "-o", "json"])
        .run()
        .await?
        .expect(0)?;
    let verified: serde_json::Value = serde_json::from_str(&verified.stdout)?;
    Ok(verified["signature"] == "valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_triggers_the_signer_when_a_signature_is_missing() -> Result<()> {
    let plane = separate_cluster("signer-loses").await?;
    let fixture = signed(plane, "touched").await?;
    let proxy = FaultProxy::start([Upstream::admin_of(plane)]).await?;
    // The signer ignores a conflict and signs again only when a token has changed.
    let conflict = Fault::Answer {
        status: 409,
        retry_after: None,
    };
    let lost = proxy.plan(On::write().path("*/configmaps/cluster-info"), conflict);
    plane.stop_controllers().await;
    plane.start_controllers_behind(&proxy).await?;
    let args = fixture.rotate(&["--overlap", "0s", "--timeout", "40s"]);
    let done = fixture.shell.bootstrap_token(args).run().await?.expect(0)?;
    ensure!(lost.struck() == 1, "{}", proxy.transcript());
    ensure!(
        done.stderr
            .contains("trigger the signer, so that cluster-info is signed with bootstrap token"),
        "{done}\n{}",
        proxy.transcript()
    );
    let new = fixture.is_rotated().await?;
    ensure!(
        is_signed(&fixture, &new.id).await?,
        "the new token does not sign cluster-info"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_rolls_back_without_a_signer() -> Result<()> {
    let plane = separate_cluster("signer-away").await?;
    let fixture = signed(plane, "unsigned").await?;
    plane.stop_controllers().await;
    let created = fixture.shell.bootstrap_token(["create"]).run().await?.expect(0)?;
    ensure!(created.stderr.contains("kubeadm join: no, because"), "{created}");
    ensure!(
        created
            .stderr
            .contains("signed with other tokens, but not with this one"),
        "{created}"
    );
    let args = fixture.rotate(&["--timeout", "8s"]);
    let undone = fixture.shell.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(undone.stderr.contains("cluster-info to be signed"), "{undone}");
    // Lines of the plan are indented.
    let placed = undone.stderr.lines().any(|line| line.starts_with("place"));
    ensure!(!placed, "something was delivered:\n{undone}");
    fixture.is_restored().await?;
    // When the signer is back, the same command succeeds.
    plane.start_controllers().await?;
    let args = fixture.rotate(&["--overlap", "0s"]);
    fixture.shell.bootstrap_token(args).run().await?.expect(0)?;
    let new = fixture.is_rotated().await?;
    until("the signature", async || {
        Ok(is_signed(&fixture, &new.id).await?.then_some(()))
    })
    .await?;
    ensure!(is_accepted(plane, &new.text).await?, "the new token is rejected");
    Ok(())
}
