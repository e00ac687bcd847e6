//! Journals that whoever may write Leases, and nothing else, has put there: they delay a run and do nothing else.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;

use crate::cluster::{self, is_let_in, row};
use crate::place::Place;

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_rollback_deletes_nobody_elses_token() -> Result<()> {
    let place = Place::new("forged-back").await?;
    place.delivers_and_stops().await?;
    let new = place.held().await?;
    let victim = cluster::create(&place.desk, &["--description", "victim"]).await?;
    place.is_let_in_soon(&victim.text).await?;
    let value = row(&place.desk, &victim.id).await?["fingerprint"].clone();
    let lease = place.lease().await?.context("nothing is in progress")?;
    place
        .forge(lease, |journal| {
            journal["goal"] = json!("back");
            journal["notes"]["new"] = json!({ "id": victim.id, "value": value });
            journal["notes"]["delivered"] = json!(false);
        })
        .await?;
    let undone = place.desk.bootstrap_token(place.rollback(&[])).run().await?.expect(4)?;
    ensure!(undone.stderr.contains("nothing shows any more"), "{undone}");
    for token in [&victim, &new, &place.old] {
        ensure!(is_let_in(place.plane, &token.text).await?, "{} was revoked", token.id);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_rotation_delivers_to_nobody_and_creates_no_other_token() -> Result<()> {
    let place = Place::new("forged-forward").await?;
    place.delivers_and_stops().await?;
    let lease = place.lease().await?.context("nothing is in progress")?;
    place.desk.bootstrap_token(place.rollback(&[])).run().await?.expect(0)?;
    // The attacker's own Secret.
    let namespace = place.plane.namespace("forged-attacker").await?;
    let bait = cluster::create(&place.desk, &["--description", "bait"]).await?;
    let mut secret = Secret::default();
    secret.metadata.name = Some("loot".to_owned());
    secret.data = Some([("token".to_owned(), ByteString(bait.text.clone().into_bytes()))].into());
    let secrets = cluster::secrets(place.plane, &namespace).await?;
    secrets.create(&PostParams::default(), &secret).await?;
    let value = row(&place.desk, &bait.id).await?["fingerprint"].clone();
    place
        .forge(lease, |journal| {
            journal["goal"] = json!("forward");
            journal["phase"] = json!("retire");
            let notes = &mut journal["notes"];
            notes["old"]["value"] = value;
            notes["new"] = json!(null);
            notes["place"] = json!({ "at": format!("secret:{namespace}/loot/token") });
            notes["recipe"] = json!({
                "usages": ["authentication"], "groups": ["system:bootstrappers:attacker"], "labels": {}, "seconds": null
            });
        })
        .await?;
    let rotate = ["rotate", &place.old.id, "--overlap", "0s", "--yes"];
    place.desk.bootstrap_token(rotate).run().await?.expect(0)?;
    let loot = secrets.get("loot").await?.data.unwrap_or_default();
    ensure!(
        loot["token"].0 == bait.text.as_bytes(),
        "the new token was delivered to the attacker"
    );
    let tokens = place.tokens().await?;
    let [new] = tokens.as_slice() else {
        anyhow::bail!("{tokens:?} are left");
    };
    let data = cluster::data_of(place.plane, new).await?;
    ensure!(
        data["auth-extra-groups"] == cluster::KUBEADM_GROUP,
        "{}",
        data["auth-extra-groups"]
    );
    ensure!(data.contains_key("expiration"), "it never expires");
    Ok(())
}
