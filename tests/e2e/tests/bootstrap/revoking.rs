//! `revoke`: what it says, whom it spares, and that it ends only when the API server refuses the token.

use anyhow::{Result, ensure};
use e2e::until;
use expectrl::Expect as _;
use kube::api::PostParams;

use crate::cluster::{self, Raw, bare, desk};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_just_used_is_refused_when_revoke_ends() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let token = cluster::create(&desk, &[]).await?;
    until("the token to be let in", async || {
        Ok(cluster::is_let_in(plane, &token.text).await?.then_some(()))
    })
    .await?;
    let revoked = desk
        .bootstrap_token(["revoke", &token.id, "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(revoked.stdout == format!("token {} revoked\n", token.id), "{revoked}");
    ensure!(revoked.stderr.contains("Nodes that have joined go on"), "{revoked}");
    ensure!(!cluster::is_let_in(plane, &token.text).await?, "it is let in");
    cluster::shows_nothing_of(&revoked, token.secret())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_too_short_says_so() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let token = cluster::create(&desk, &[]).await?;
    until("the token to be let in", async || {
        Ok(cluster::is_let_in(plane, &token.text).await?.then_some(()))
    })
    .await?;
    let args = ["revoke", &token.id, "--yes", "--timeout", "0s"];
    let late = desk.bootstrap_token(args).run().await?.expect(124)?;
    ensure!(late.stderr.contains("still accepted"), "{late}");
    cluster::shows_nothing_of(&late, token.secret())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_and_without_yes_nothing_is_revoked() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let token = cluster::create(&desk, &[]).await?;
    let refused = desk.bootstrap_token(["revoke", &token.id]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("--yes"), "{refused}");
    for dry_run in ["--dry-run", "--dry-run=server"] {
        let dry = desk
            .bootstrap_token(["revoke", &token.id, dry_run])
            .run()
            .await?
            .expect(0)?;
        ensure!(dry.stdout.contains("dry run)"), "{dry}");
    }
    cluster::data_of(plane, &token.id).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_match_are_revoked_and_the_others_spared() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let one = cluster::create(&desk, &["-l", "story=match"]).await?;
    let two = cluster::create(&desk, &["-l", "story=match"]).await?;
    let spared = cluster::create(&desk, &["-l", "story=spared"]).await?;
    let revoked = desk
        .bootstrap_token(["revoke", "-l", "story=match", "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(revoked.stdout.lines().count() == 2, "{revoked}");
    let api = cluster::secrets(plane, "kube-system").await?;
    for gone in [&one, &two] {
        ensure!(api.get_opt(&format!("bootstrap-token-{}", gone.id)).await?.is_none());
    }
    cluster::data_of(plane, &spared.id).await?;
    let none = desk
        .bootstrap_token(["revoke", "--expired", "-l", "story=spared", "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(none.stderr.contains("No bootstrap tokens found"), "{none}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_not_there_does_not_keep_the_others() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let token = cluster::create(&desk, &[]).await?;
    let args = ["revoke", "zzzzzz", &token.id, "--yes"];
    let outcome = desk.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(outcome.stdout == format!("token {} revoked\n", token.id), "{outcome}");
    ensure!(outcome.stderr.contains("no bootstrap token zzzzzz"), "{outcome}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_without_a_whole_token_is_deleted_and_that_nothing_was_proven_is_said() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    Raw::new("half01").with("token-secret", "short").create(plane).await?;
    let outcome = desk
        .bootstrap_token(["revoke", "half01", "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        outcome.stdout == "token half01 deleted\n" && outcome.stderr.contains("was not tried"),
        "{outcome}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_token_is_taken_for_its_id_and_a_slip_is_not_repeated() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let token = cluster::create(&desk, &[]).await?;
    let slip = format!("{}x", token.text);
    let refused = desk
        .bootstrap_token(["revoke", &slip, "--yes"])
        .run()
        .await?
        .expect(2)?;
    // The line that was typed is shown by the test, not by the plugin.
    ensure!(!refused.stderr.contains(token.secret()), "the slip is repeated");
    let revoked = desk
        .bootstrap_token(["revoke", &token.text, "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(revoked.stderr.contains("history of the shell") && !revoked.stderr.contains(token.secret()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_made_again_under_the_same_id_is_left_alone() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let raw = Raw::new("same01");
    raw.create(plane).await?;
    let mut session = desk.bootstrap_token(["revoke", "same01"]).on_terminal()?;
    tokio::task::block_in_place(|| session.expect("(y/N)"))?;
    let api = cluster::secrets(plane, "kube-system").await?;
    api.delete("bootstrap-token-same01", &kube::api::DeleteParams::default())
        .await?;
    api.create(&PostParams::default(), &raw.secret).await?;
    tokio::task::block_in_place(|| {
        session.send_line("y")?;
        session.expect("left alone")
    })?;
    cluster::data_of(plane, "same01").await?;
    Ok(())
}
