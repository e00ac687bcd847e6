//! Several API servers over one etcd. Each has its own cache. The kubeconfig leads to one of them, as behind a load
//! balancer with sticky sessions.

use anyhow::{Result, ensure};
use e2e::until;
use rustix::process::Signal;

use crate::cluster::{by_kubeadm, is_accepted_at};
use crate::rotation_fixture::RotationFixture;

#[tokio::test(flavor = "multi_thread")]
async fn rotate_and_rollback_end_when_every_api_server_rejects_the_token() -> Result<()> {
    let plane = by_kubeadm().await?;
    let (other, _running) = plane.another_apiserver("rotate-server").await?;
    let fixture = RotationFixture::new("several").await?;
    let undone = fixture.start_and_deliver(&["--api-server", &other]).await?;
    undone.signal(Signal::INT)?;
    let stopped = undone.finish().await?.expect(130)?;
    ensure!(stopped.stderr.contains(&format!("--api-server {other}")), "{stopped}");
    let new = fixture.held().await?;
    ensure!(
        is_accepted_at(plane, &other, &new.text).await?,
        "the other server rejects the delivered token"
    );
    let undo = fixture.rollback(&["--api-server", &other]);
    fixture.shell.bootstrap_token(undo).run().await?.expect(0)?;
    ensure!(
        !is_accepted_at(plane, &other, &new.text).await?,
        "the other server accepts the new token"
    );
    let args = fixture.rotate(&["--overlap", "0s", "--api-server", &other]);
    let run = fixture.shell.bootstrap_token(args).start().await?;
    // Requests with the token keep it in the cache of the other server.
    until("the other server to reject it", async || {
        Ok((!is_accepted_at(plane, &other, &fixture.old.text).await?).then_some(()))
    })
    .await?;
    run.finish().await?.expect(0)?;
    fixture.is_rotated().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_an_api_server_that_does_not_answer() -> Result<()> {
    let fixture = RotationFixture::new("silent").await?;
    let args = fixture.rotate(&["--api-server", "https://127.0.0.1:1"]);
    let refused = fixture.shell.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(
        refused
            .stderr
            .contains("whether https://127.0.0.1:1 accepts bootstrap token"),
        "{refused}"
    );
    fixture.is_restored().await?;
    ensure!(fixture.lease().await?.is_none(), "the Lease was created");
    Ok(())
}
