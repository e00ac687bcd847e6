//! Commands whose output has no reader. They finish their work, and exit as if it had been read.

use anyhow::{Result, ensure};
use kube::api::ListParams;
use test_cluster::ControlPlane;

use crate::cluster::{self, Printed, Raw, bare, shell};
use crate::rotation_fixture::RotationFixture;

/// The number of tokens with this label.
async fn count(plane: &ControlPlane, label: &str) -> Result<usize> {
    let secrets = cluster::secrets(plane, "kube-system").await?;
    Ok(secrets.list(&ListParams::default().labels(label)).await?.items.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_revokes_a_token_that_it_cannot_print() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    for form in [&[][..], &["-o", "json", "--show-token"], &["-o", "kubeconfig"]] {
        let args = ["create", "-l", "test=unread"].iter().chain(form);
        let outcome = shell.bootstrap_token(args).run_with_closed_stdout().await?.expect(1)?;
        ensure!(
            outcome
                .stderr
                .contains("was revoked, since it could not be delivered: cannot write to stdout"),
            "{outcome}"
        );
        ensure!(count(plane, "test=unread").await? == 0, "a token is left:\n{outcome}");
    }
    let args = ["create", "-l", "test=unread"];
    shell.bootstrap_token(args).run_with_closed_output().await?.expect(1)?;
    ensure!(count(plane, "test=unread").await? == 0, "a token is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_keeps_a_token_that_is_in_its_file() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let args = ["create", "-l", "test=filed", "--write", "token"];
    shell.bootstrap_token(args).run_with_closed_output().await?.expect(0)?;
    let token = Printed::read(&std::fs::read_to_string(shell.home().join("token"))?)?;
    cluster::data_of(plane, &token.id).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_revokes_every_token() -> Result<()> {
    let plane = bare().await?;
    for number in 0..30 {
        let mut raw = Raw::new(&format!("pipe{number:02}"));
        let labels = raw.secret.metadata.labels.get_or_insert_default();
        labels.insert("test".to_owned(), "pipe".to_owned());
        raw.create(plane).await?;
    }
    let shell = shell(plane).await?;
    let args = ["revoke", "-l", "test=pipe", "--yes", "--timeout", "1m"];
    shell.bootstrap_token(args).run_with_closed_output().await?.expect(0)?;
    let left = count(plane, "test=pipe").await?;
    ensure!(left == 0, "{left} tokens are left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_fails_for_a_rejected_token() -> Result<()> {
    let shell = shell(bare().await?).await?;
    for form in [&[][..], &["-o", "json"]] {
        let args = ["verify", "--token-stdin"].iter().chain(form);
        let verify = shell.bootstrap_token(args).stdin("nosuch.0a1b2c3d4e5f6g7h");
        verify.run_with_closed_output().await?.expect(1)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_and_leaves_no_lock() -> Result<()> {
    let fixture = RotationFixture::new("rotate-unread").await?;
    let args = fixture.rotate(&["--overlap", "0s", "-o", "json"]);
    let rotate = fixture.shell.bootstrap_token(&args);
    rotate.run_with_closed_output().await?.expect(0)?;
    fixture.is_rotated().await?;
    let holder = fixture.lease().await?.and_then(|lease| lease.spec?.holder_identity);
    ensure!(
        holder.as_deref().unwrap_or_default().is_empty(),
        "it is locked by {holder:?}"
    );
    // The old token does not exist any more.
    let again = fixture.shell.bootstrap_token(&args);
    again.run_with_closed_output().await?.expect(1)?;
    Ok(())
}
