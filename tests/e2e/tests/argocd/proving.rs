//! `verify`: what Rancher's answers mean, by calls as Argo CD makes them.

use std::time::Duration;

use anyhow::Result;
use e2e::{Outcome, shown};
use insta::assert_snapshot;
use serde_json::json;

use crate::bench::{Bench, token};

async fn verify(bench: &Bench, code: i32) -> Result<Outcome> {
    bench.bare(&["verify", bench.id()]).run().await?.expect(code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_works_is_proven_without_any_identity_of_ours() -> Result<()> {
    let bench = Bench::begin("graz").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let seen = verify(&bench, 0).await?;
    let secret = bench.secret().await?;
    let name = secret.metadata.name.clone().unwrap_or_default();
    let plain = seen
        .stdout
        .replace(&name, "<secret>")
        .replace(&bench.living().await?[0], "<token>");
    let text = shown(&plain);
    assert_snapshot!(text, @r"
    + secret  Secret <secret> holds <token>
    + alone   Rancher accepts it
    + proxy   a call with it was answered (Kubernetes <version>)
    + rights  its owner may list and watch everything that Argo CD looks at
    proven: Argo CD can work with cluster c-id123 by Secret <secret>
    ");
    assert!(!seen.to_string().contains(&token(&secret)?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_is_named_for_what_it_is() -> Result<()> {
    let bench = Bench::begin("linz").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let name = bench.living().await?.remove(0);
    let (rancher, cluster) = (bench.story.rancher, &bench.story.cluster);

    rancher.offline(cluster, Duration::from_mins(10)).await?;
    let offline = verify(&bench, 1).await?;
    assert!(
        offline.stdout.contains("+ alone")
            && offline
                .stdout
                .contains("x proxy   the cluster's agent is not connected"),
        "{offline}"
    );
    rancher.online(cluster).await?;
    e2e::until("the agent to be back", async || {
        Ok((bench.bare(&["verify", bench.id()]).run().await?.code() == Some(0)).then_some(()))
    })
    .await?;

    rancher.change_token(&name, &json!({"enabled": false})).await?;
    let dead = verify(&bench, 1).await?;
    assert!(
        dead.stdout
            .contains("x alone   Rancher refuses it: it is revoked, expired, disabled"),
        "{dead}"
    );
    assert!(!dead.stdout.contains("proxy"), "{dead}");
    rancher.change_token(&name, &json!({"enabled": true})).await?;
    verify(&bench, 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_owner_is_no_member_and_a_config_that_cannot_be_used_are_named() -> Result<()> {
    let bench = Bench::begin("brno").await?;
    let stranger = testbed::User::viewer();
    let login =
        json!({"bearerToken": stranger.token, "tlsClientConfig": {"insecure": false, "caData": bench.ca_data()}});
    bench.by_hand("stranger", &bench.server(), &login).await?;
    let seen = verify(&bench, 1).await?;
    assert!(
        seen.stdout
            .contains("its owner u-viewer is not a member of the cluster"),
        "{seen}"
    );
    bench.delete("stranger").await?;

    let login = json!({"bearerToken": "", "tlsClientConfig": {"insecure": true, "caData": bench.ca_data()}});
    bench.by_hand("broken", &bench.server(), &login).await?;
    let seen = verify(&bench, 1).await?;
    assert!(seen.stdout.contains("has both caData and insecure: true"), "{seen}");
    assert!(seen.stdout.contains("has no credential"), "{seen}");

    let unknown = bench.bare(&["verify", "nowhere"]).run().await?.expect(1)?;
    assert!(
        unknown.stderr.contains("Argo CD has no cluster \"nowhere\""),
        "{unknown}"
    );
    Ok(())
}
