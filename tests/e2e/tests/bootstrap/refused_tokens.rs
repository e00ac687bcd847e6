//! Tokens that the API server stores without a word and refuses with a bare 401: `list` says why, and is right.

use anyhow::{Result, ensure};
use e2e::until;
use rstest::rstest;

use crate::cluster::{self, Raw, bare, desk};

const SECRET: &str = "0a1b2c3d4e5f6g7h";

#[rstest]
#[case::masters(
    "rej001",
    "auth-extra-groups",
    "system:masters",
    "does not begin with system:bootstrappers:"
)]
#[case::every("rej002", "auth-extra-groups", "system:bootstrappers", "is given to every token")]
#[case::upper_group(
    "rej003",
    "auth-extra-groups",
    "system:bootstrappers:Kubeadm",
    "characters other than"
)]
#[case::comma("rej004", "auth-extra-groups", "system:bootstrappers:a,", "a comma too many")]
#[case::space(
    "rej005",
    "auth-extra-groups",
    "system:bootstrappers:a, system:bootstrappers:b",
    "has a space in it"
)]
#[case::newline(
    "rej006",
    "token-secret",
    "0a1b2c3d4e5f6g7h\n",
    "not 16 lower-case letters or digits"
)]
#[case::upper_secret("rej007", "token-secret", "0A1B2C3D4E5F6G7H", "not 16 lower-case letters or digits")]
#[case::mismatch("rej008", "token-id", "rejxxx", "not the id in the Secret's name")]
#[case::off("rej009", "usage-bootstrap-authentication", "True", "not exactly \"true\"")]
#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_stores_and_refuses_is_explained(
    #[case] id: &str,
    #[case] key: &str,
    #[case] value: &str,
    #[case] why: &str,
) -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let raw = Raw::new(id).with(key, value);
    raw.create(plane).await?;
    refused_and_explained(&desk, plane, &raw.id, why).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_where_nobody_looks_is_explained() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let mut opaque = Raw::new("rej010");
    opaque.secret.type_ = Some("Opaque".to_owned());
    opaque.create(plane).await?;
    refused_and_explained(&desk, plane, "rej010", "of type \"Opaque\"").await?;
    let mut elsewhere = Raw::new("rej011");
    elsewhere.secret.metadata.namespace = Some("default".to_owned());
    elsewhere.create(plane).await?;
    refused_and_explained(&desk, plane, "rej011", "in namespace default, not in kube-system").await
}

async fn refused_and_explained(desk: &e2e::Desk, plane: &testbed::ControlPlane, id: &str, why: &str) -> Result<()> {
    let row = cluster::row(desk, id).await?;
    ensure!(row["state"] == "broken", "{row}");
    let message = row["reasons"][0]["message"].as_str().unwrap_or_default();
    ensure!(message.contains(why), "{message}");
    ensure!(row["reasons"][1].is_null(), "more than one: {row}");
    // The table says it too, and the API server agrees.
    let table = desk.bootstrap_token(["list"]).run().await?.expect(0)?;
    let line = table
        .stdout
        .lines()
        .find(|line| line.starts_with(id))
        .unwrap_or_default();
    ensure!(line.contains("broken: ") && line.contains(why), "{line}");
    ensure!(
        !cluster::is_let_in(plane, &format!("{id}.{SECRET}")).await?,
        "it is let in"
    );
    let verified = desk
        .bootstrap_token(["verify", "--token-stdin"])
        .stdin(format!("{id}.{SECRET}\n"));
    let verified = verified.run().await?.expect(1)?;
    ensure!(verified.stdout.contains("refused"), "{verified}");
    cluster::shows_nothing_of(&verified, SECRET)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_raw_token_is_active_and_let_in_so_that_the_others_prove_something() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let raw = Raw::new("good01").with("auth-extra-groups", "system:bootstrappers:a,system:bootstrappers:b");
    raw.create(plane).await?;
    let row = cluster::row(&desk, "good01").await?;
    ensure!(row["state"] == "active" && row["reasons"][0].is_null(), "{row}");
    until("the token to be let in", async || {
        Ok(cluster::is_let_in(plane, &format!("good01.{SECRET}"))
            .await?
            .then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_only_sign_or_do_nothing_are_told_from_broken_ones() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let signing = cluster::create(&desk, &["--usages", "signing"]).await?;
    ensure!(cluster::row(&desk, &signing.id).await?["state"] == "signing-only");
    let mut unused = Raw::new("none01");
    unused
        .secret
        .data
        .get_or_insert_default()
        .remove("usage-bootstrap-authentication");
    unused.create(plane).await?;
    ensure!(cluster::row(&desk, "none01").await?["state"] == "no-usage");
    let refused = desk.bootstrap_token(["verify", &signing.id]).run().await?.expect(1)?;
    ensure!(refused.stdout.contains("not for authentication"), "{refused}");
    Ok(())
}
