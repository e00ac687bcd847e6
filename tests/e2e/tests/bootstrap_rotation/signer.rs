//! A bootstrap signer that loses an update, and one that is away.

use anyhow::{Result, ensure};
use e2e::until;
use testbed::{ControlPlane, Fault, FaultProxy, On, Upstream};

use crate::cluster::is_let_in;
use crate::place::{Place, apart};

/// A token in a Secret that cluster-info is signed with.
async fn signed(plane: &'static ControlPlane, story: &str) -> Result<Place> {
    let place = Place::on(plane, story).await?;
    until("the signature", async || {
        Ok(is_signed(&place, &place.old.id).await?.then_some(()))
    })
    .await?;
    Ok(place)
}

async fn is_signed(place: &Place, id: &str) -> Result<bool> {
    let verified = place
        .desk
        .bootstrap_token(["verify", id, "-o", "json"])
        .run()
        .await?
        .expect(0)?;
    let verified: serde_json::Value = serde_json::from_str(&verified.stdout)?;
    Ok(verified["signature"] == "valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_was_lost_is_brought_about_by_a_touch() -> Result<()> {
    let plane = apart("signer-loses").await?;
    let place = signed(plane, "touched").await?;
    let proxy = FaultProxy::start([Upstream::admin_of(plane)]).await?;
    // The signer swallows a conflict and looks again only when a token has changed.
    let conflict = Fault::Answer {
        status: 409,
        retry_after: None,
    };
    let lost = proxy.plan(On::write().path("*/configmaps/cluster-info"), conflict);
    plane.stop_controllers().await;
    plane.start_controllers_behind(&proxy).await?;
    let args = place.rotate(&["--overlap", "0s", "--timeout", "40s"]);
    let done = place.desk.bootstrap_token(args).run().await?.expect(0)?;
    ensure!(lost.struck() == 1, "{}", proxy.transcript());
    ensure!(
        done.stderr.contains("touch bootstrap token"),
        "{done}\n{}",
        proxy.transcript()
    );
    let new = place.is_rotated().await?;
    ensure!(is_signed(&place, &new.id).await?, "it is not signed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_signer_nothing_is_delivered_and_everything_is_put_back() -> Result<()> {
    let plane = apart("signer-away").await?;
    let place = signed(plane, "unsigned").await?;
    plane.stop_controllers().await;
    let args = place.rotate(&["--timeout", "8s"]);
    let undone = place.desk.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(undone.stderr.contains("cluster-info to be signed"), "{undone}");
    // Lines of the plan are indented.
    let placed = undone.stderr.lines().any(|line| line.starts_with("place"));
    ensure!(!placed, "something was delivered:\n{undone}");
    place.is_restored().await?;
    // When it is back the same command does it.
    plane.start_controllers().await?;
    let args = place.rotate(&["--overlap", "0s"]);
    place.desk.bootstrap_token(args).run().await?.expect(0)?;
    let new = place.is_rotated().await?;
    until("the signature", async || {
        Ok(is_signed(&place, &new.id).await?.then_some(()))
    })
    .await?;
    ensure!(is_let_in(plane, &new.text).await?, "it is refused");
    Ok(())
}
