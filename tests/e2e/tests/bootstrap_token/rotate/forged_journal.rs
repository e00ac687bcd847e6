//! Journals written by someone who may write Leases and nothing else. They cause no write that is not part of the
//! rotation.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;

use crate::cluster::{self, is_accepted, row};
use crate::rotation_fixture::RotationFixture;

#[tokio::test(flavor = "multi_thread")]
async fn rollback_with_a_forged_journal_deletes_no_other_token() -> Result<()> {
    let fixture = RotationFixture::new("forged-back").await?;
    fixture.deliver_and_interrupt().await?;
    let new = fixture.held().await?;
    let victim = cluster::create(&fixture.shell, &["--description", "victim"]).await?;
    fixture.becomes_accepted(&victim.text).await?;
    let value = row(&fixture.shell, &victim.id).await?["fingerprint"].clone();
    let lease = fixture.lease().await?.context("no Lease")?;
    fixture
        .forge(lease, |journal| {
            journal["direction"] = json!("rollback");
            journal["record"]["new"] = json!({ "id": victim.id, "value": value });
            journal["record"]["delivered"] = json!(false);
        })
        .await?;
    let undone = fixture
        .shell
        .bootstrap_token(fixture.rollback(&[]))
        .run()
        .await?
        .expect(4)?;
    ensure!(
        undone
            .stderr
            .contains("nothing shows what the rotation has delivered there"),
        "{undone}"
    );
    for token in [&victim, &new, &fixture.old] {
        ensure!(
            is_accepted(fixture.plane, &token.text).await?,
            "{} was revoked",
            token.id
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_with_a_forged_journal_delivers_nothing_to_an_attacker() -> Result<()> {
    let fixture = RotationFixture::new("forged-forward").await?;
    fixture.deliver_and_interrupt().await?;
    let lease = fixture.lease().await?.context("no Lease")?;
    fixture
        .shell
        .bootstrap_token(fixture.rollback(&[]))
        .run()
        .await?
        .expect(0)?;
    // A Secret of the attacker.
    let namespace = fixture.plane.namespace("forged-attacker").await?;
    let bait = cluster::create(&fixture.shell, &["--description", "bait"]).await?;
    let mut secret = Secret::default();
    secret.metadata.name = Some("loot".to_owned());
    secret.data = Some([("token".to_owned(), ByteString(bait.text.clone().into_bytes()))].into());
    let secrets = cluster::secrets(fixture.plane, &namespace).await?;
    secrets.create(&PostParams::default(), &secret).await?;
    let value = row(&fixture.shell, &bait.id).await?["fingerprint"].clone();
    fixture
        .forge(lease, |journal| {
            journal["direction"] = json!("forward");
            journal["phase"] = json!("retire");
            let notes = &mut journal["record"];
            notes["old"]["value"] = value;
            notes["new"] = json!(null);
            notes["place"] = json!({ "at": format!("secret:{namespace}/loot/token") });
            notes["recipe"] = json!({
                "usages": ["authentication"], "groups": ["system:bootstrappers:attacker"], "labels": {}, "seconds": null
            });
        })
        .await?;
    let rotate = ["rotate", &fixture.old.id, "--overlap", "0s", "--yes"];
    fixture.shell.bootstrap_token(rotate).run().await?.expect(0)?;
    let loot = secrets.get("loot").await?.data.unwrap_or_default();
    ensure!(
        loot["token"].0 == bait.text.as_bytes(),
        "the new token was delivered to the attacker"
    );
    let tokens = fixture.tokens().await?;
    let [new] = tokens.as_slice() else {
        anyhow::bail!("{tokens:?} are left");
    };
    let data = cluster::data_of(fixture.plane, new).await?;
    ensure!(
        data["auth-extra-groups"] == cluster::KUBEADM_GROUP,
        "{}",
        data["auth-extra-groups"]
    );
    ensure!(data.contains_key("expiration"), "it never expires");
    Ok(())
}
