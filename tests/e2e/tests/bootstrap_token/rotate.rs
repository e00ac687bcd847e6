//! `kubectl bootstrap-token rotate`: undisturbed rotations, and two at once.

mod forged_journal;
mod interrupted;
mod kill_matrix;
mod other_host;
mod other_writers;
mod several_servers;
mod signer;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use test_cluster::{Fault, Moment, On};

use crate::cluster;
use crate::rotation_fixture::RotationFixture;

#[tokio::test(flavor = "multi_thread")]
async fn rotate_delivers_to_a_secret_and_revokes_the_old_token() -> Result<()> {
    let fixture = RotationFixture::new("rotate-secret").await?;
    let before = cluster::data_of(fixture.plane, &fixture.old.id).await?;
    let args = fixture.rotate(&["--overlap", "0s"]);
    let done = fixture.shell.bootstrap_token(&args).run().await?.expect(0)?;
    ensure!(
        done.stdout == format!("secret/bootstrap-token-{} rotated\n", fixture.old.id),
        "{done}"
    );
    let new = fixture.is_rotated().await?;
    let after = cluster::data_of(fixture.plane, &new.id).await?;
    for key in [
        "usage-bootstrap-authentication",
        "usage-bootstrap-signing",
        "auth-extra-groups",
        "description",
    ] {
        ensure!(before.get(key) == after.get(key), "{key} is not the same");
    }
    let secret = fixture.secret().await?;
    let endpoint = secret.data.unwrap_or_default().remove("endpoint").map(|bytes| bytes.0);
    ensure!(
        endpoint.as_deref() == Some(b"10.9.8.7:6443"),
        "the other key was changed"
    );
    // The same command again reports that the token no longer exists.
    let again = fixture.shell.bootstrap_token(&args).run().await?.expect(1)?;
    ensure!(again.stderr.contains("not found"), "{again}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_without_a_delivery_names_the_command_that_prints_the_new_token() -> Result<()> {
    let fixture = RotationFixture::new("rotate-printed").await?;
    let rotate = ["rotate", &fixture.old.id, "--overlap", "0s", "--yes"];
    let done = fixture.shell.bootstrap_token(rotate).run().await?.expect(0)?;
    let [new] = &fixture.tokens().await?[..] else {
        bail!("not one token:\n{done}")
    };
    let kubeconfig = format!("kubectl bootstrap-token kubeconfig {new}");
    let printed = fixture.shell.follow(&done, &kubeconfig, &[]).await?.expect(0)?;
    ensure!(
        printed.stdout.contains(&format!("token: {new}.")),
        "it has another token"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_changes_only_the_token_in_a_kubeconfig_file() -> Result<()> {
    let fixture = RotationFixture::with_file("rotate-file").await?;
    let before = fixture.text()?;
    xattr::set(fixture.path()?, "user.origin", b"installer")?;
    let args = fixture.rotate(&["--overlap", "0s"]);
    fixture.shell.bootstrap_token(args).run().await?.expect(0)?;
    let new = fixture.is_rotated().await?;
    ensure!(
        fixture.text()? == before.replace(&fixture.old.text, &new.text),
        "more than the token has changed"
    );
    ensure!(
        std::fs::metadata(fixture.path()?)?.permissions().mode() & 0o7777 == 0o600,
        "others may read the file"
    );
    ensure!(
        xattr::get(fixture.path()?, "user.origin")?.as_deref() == Some(b"installer".as_slice()),
        "the extended attribute is lost"
    );
    let beside = std::fs::read_dir(fixture.shell.home())?.filter_map(Result::ok);
    ensure!(
        beside
            .filter(|entry| entry.file_name().to_string_lossy().contains("kubectl-bootstrap-token"))
            .count()
            == 0,
        "a temporary file is left"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_a_file_that_is_not_utf_8() -> Result<()> {
    let fixture = RotationFixture::with_file("rotate-binary").await?;
    let binary = [fixture.text()?.as_bytes(), b"# \xff\n"].concat();
    std::fs::write(fixture.path()?, &binary)?;
    let args = fixture.rotate(&["--overlap", "0s"]);
    let refused = fixture.shell.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(
        refused.stderr.contains("it contains bytes that are not UTF-8"),
        "{refused}"
    );
    ensure!(std::fs::read(fixture.path()?)? == binary, "the file was changed");
    ensure!(
        fixture.tokens().await? == [fixture.old.id.clone()],
        "a token was created"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_dry_run_prints_the_plan_and_changes_nothing() -> Result<()> {
    let fixture = RotationFixture::new("rotate-dry").await?;
    let target = fixture.target();
    for mode in ["--dry-run", "--dry-run=server"] {
        let args = ["rotate", &fixture.old.id, "--deliver", &target, mode];
        let plan = fixture.shell.bootstrap_token(args).run().await?.expect(0)?;
        for step in [
            "create a new bootstrap token like",
            "deliver bootstrap token <new>",
            "revoke bootstrap token",
        ] {
            ensure!(plan.stdout.contains(step), "{step} is not in\n{plan}");
        }
        ensure!(!plan.stdout.contains("refused by the server"), "{plan}");
    }
    fixture.is_restored().await?;
    ensure!(fixture.lease().await?.is_none(), "the Lease was created");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn second_rotation_names_the_lock_holder_and_list_marks_both_tokens() -> Result<()> {
    let fixture = RotationFixture::new("rotate-two").await?;
    let first = fixture.start_and_deliver(&[]).await?;
    let second = fixture
        .shell
        .bootstrap_token(fixture.rotate(&["--overlap", "20s", "--ttl", "2h"]))
        .run()
        .await?
        .expect(5)?;
    ensure!(second.stderr.contains("is held by"), "{second}");
    let status = fixture.shell.follow(&second, "kubectl bootstrap-token status", &[]);
    let status = status.await?.expect(0)?;
    ensure!(status.stdout.contains("Rotation in progress"), "{status}");
    let new = fixture.held().await?;
    ensure!(cluster::row(&fixture.shell, &fixture.old.id).await?["rotation"]["isNew"] == false);
    ensure!(cluster::row(&fixture.shell, &new.id).await?["rotation"]["of"] == fixture.old.id.as_str());
    drop(first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_a_target_that_holds_another_token() -> Result<()> {
    let fixture = RotationFixture::new("rotate-another").await?;
    let other = cluster::create(&fixture.shell, &[]).await?;
    let target = fixture.target();
    let args = ["rotate", &other.id, "--deliver", &target, "--yes"];
    let refused = fixture.shell.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(
        refused
            .stderr
            .contains(&format!("holds bootstrap token {}", fixture.old.id)),
        "{refused}"
    );
    fixture.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_over_a_slow_link_finishes_and_resumes_after_a_kill() -> Result<()> {
    for killed in [false, true] {
        let fixture = RotationFixture::new(if killed { "slow-killed" } else { "slow" }).await?;
        let (proxy, shell) = fixture.behind_proxy().await?;
        proxy.delay(On::request(), Duration::from_millis(100));
        let rotate = fixture.rotate(&["--overlap", "0s"]);
        if killed {
            // Right after the new token was created.
            proxy.plan(On::write().path("*/secrets"), Fault::Kill(Moment::After));
            let run = shell.bootstrap_token(&rotate).start().await?;
            proxy.victim(run.pid()?);
            run.finish().await?.expect_killed()?;
        }
        shell.bootstrap_token(&rotate).run().await?.expect(0)?;
        fixture.is_rotated().await?;
    }
    Ok(())
}
