//! Several API servers over one etcd, behind one address: each has a cache of its own.
//!
//! The kubeconfig leads to one of them, as a load balancer does that always takes the same one.

use anyhow::{Result, ensure};
use e2e::until;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::{self, by_kubeadm, desk, is_let_in_at};
use crate::place::{Place, apart, signal};

#[tokio::test(flavor = "multi_thread")]
async fn revoke_ends_when_each_of_them_refuses() -> Result<()> {
    let plane = by_kubeadm().await?;
    let (other, _running) = plane.another_apiserver("revoke-server").await?;
    let desk = desk(plane).await?;
    let token = cluster::create(&desk, &[]).await?;
    // The first one has never seen it, and would refuse it at once.
    until("the other one to let it in", async || {
        Ok(is_let_in_at(plane, &other, &token.text).await?.then_some(()))
    })
    .await?;
    let args = ["revoke", &token.id, "--yes", "--api-server", &other];
    desk.bootstrap_token(args).run().await?.expect(0)?;
    ensure!(
        !is_let_in_at(plane, &other, &token.text).await?,
        "the other one lets it in"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_and_rollback_end_when_each_of_them_refuses() -> Result<()> {
    let plane = by_kubeadm().await?;
    let (other, _running) = plane.another_apiserver("rotate-server").await?;
    let place = Place::new("several").await?;
    let undone = place.delivers(&["--api-server", &other]).await?;
    signal(&undone, Signal::INT)?;
    let stopped = undone.finish().await?.expect(130)?;
    ensure!(stopped.stderr.contains(&format!("--api-server {other}")), "{stopped}");
    let new = place.held().await?;
    ensure!(
        is_let_in_at(plane, &other, &new.text).await?,
        "the other one refuses what was delivered"
    );
    let undo = place.rollback(&["--api-server", &other]);
    place.desk.bootstrap_token(undo).run().await?.expect(0)?;
    ensure!(
        !is_let_in_at(plane, &other, &new.text).await?,
        "the other one lets the new one in"
    );
    let args = place.rotate(&["--overlap", "0s", "--api-server", &other]);
    let run = place.desk.bootstrap_token(args).start().await?;
    // Whoever joins asks the other one all the time, so that it remembers.
    until("the other one to refuse it", async || {
        Ok((!is_let_in_at(plane, &other, &place.old.text).await?).then_some(()))
    })
    .await?;
    run.finish().await?.expect(0)?;
    place.is_rotated().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_answer_is_named_before_anything_is_done() -> Result<()> {
    let place = Place::new("silent").await?;
    let args = place.rotate(&["--api-server", "https://127.0.0.1:1"]);
    let refused = place.desk.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(
        refused
            .stderr
            .contains("whether https://127.0.0.1:1 accepts bootstrap token"),
        "{refused}"
    );
    place.is_restored().await?;
    ensure!(place.lease().await?.is_none(), "it took the lock");
    Ok(())
}

/// What an API server publishes about itself and its likes; but under a name, since Kubernetes takes no address of this
/// machine alone there.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_published_and_not_named_get_the_time_to_forget() -> Result<()> {
    let plane = apart("published").await?;
    let desk = desk(plane).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(plane.client().await?, "default");
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": { "name": "kubernetes", "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": "FQDN",
        "endpoints": [{ "addresses": ["one.example"] }, { "addresses": ["other.example"] }],
    }))?;
    slices.create(&PostParams::default(), &slice).await?;
    // No server has ever seen these tokens, and the one that is asked refuses them at once.
    let hasty = cluster::create(&desk, &[]).await?;
    let args = ["revoke", &hasty.id, "--yes", "--timeout", "0s"];
    let late = desk.bootstrap_token(args).run().await?.expect(124)?;
    ensure!(late.stderr.contains("another one may remember it yet"), "{late}");
    let named = cluster::create(&desk, &[]).await?;
    let (other, _running) = plane.another_apiserver("published-server").await?;
    let servers = ["--api-server", plane.url(), "--api-server", &other];
    let args = ["revoke", &named.id, "--yes", "--timeout", "5s"];
    desk.bootstrap_token(args.iter().chain(&servers))
        .run()
        .await?
        .expect(0)?;
    slices.delete("kubernetes", &DeleteParams::default()).await?;
    Ok(())
}
