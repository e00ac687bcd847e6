//! A rotation that nobody disturbs, and two at once.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use testbed::{Fault, Moment, On};

use crate::cluster;
use crate::place::{Place, signal};

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_read_a_secret_get_the_new_token_and_the_old_one_is_refused_at_the_end() -> Result<()> {
    let place = Place::new("rotate-secret").await?;
    let before = cluster::data_of(place.plane, &place.old.id).await?;
    let args = place.rotate(&["--overlap", "0s"]);
    let done = place.desk.bootstrap_token(&args).run().await?.expect(0)?;
    ensure!(
        done.stdout == format!("secret/bootstrap-token-{} rotated\n", place.old.id),
        "{done}"
    );
    let new = place.is_rotated().await?;
    let after = cluster::data_of(place.plane, &new.id).await?;
    for key in [
        "usage-bootstrap-authentication",
        "usage-bootstrap-signing",
        "auth-extra-groups",
        "description",
    ] {
        ensure!(before.get(key) == after.get(key), "{key} is not the same");
    }
    let secret = place.secret().await?;
    let endpoint = secret.data.unwrap_or_default().remove("endpoint").map(|bytes| bytes.0);
    ensure!(
        endpoint.as_deref() == Some(b"10.9.8.7:6443"),
        "the other key was touched"
    );
    // Whoever asks for it again is told that the token is gone.
    let again = place.desk.bootstrap_token(&args).run().await?.expect(1)?;
    ensure!(again.stderr.contains("there is no bootstrap token"), "{again}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_file_stays_as_it_is_but_for_the_token() -> Result<()> {
    let place = Place::with_file("rotate-file").await?;
    let before = place.text()?;
    let args = place.rotate(&["--overlap", "0s"]);
    place.desk.bootstrap_token(args).run().await?.expect(0)?;
    let new = place.is_rotated().await?;
    ensure!(
        place.text()? == before.replace(&place.old.text, &new.text),
        "more has changed"
    );
    ensure!(
        std::fs::metadata(place.path()?)?.permissions().mode() & 0o7777 == 0o600,
        "others may read it"
    );
    let beside = std::fs::read_dir(place.desk.home())?.filter_map(Result::ok);
    ensure!(
        beside
            .filter(|entry| entry.file_name().to_string_lossy().contains("kubectl-bootstrap-token"))
            .count()
            == 0,
        "something is left beside it"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_done_and_changes_nothing() -> Result<()> {
    let place = Place::new("rotate-dry").await?;
    let target = place.target();
    for mode in ["--dry-run", "--dry-run=server"] {
        let args = ["rotate", &place.old.id, "--deliver", &target, mode];
        let plan = place.desk.bootstrap_token(args).run().await?.expect(0)?;
        for step in [
            "create a new bootstrap token like",
            "deliver bootstrap token <new>",
            "revoke bootstrap token",
        ] {
            ensure!(plan.stdout.contains(step), "{step} is not in\n{plan}");
        }
        ensure!(!plan.stdout.contains("refused by the server"), "{plan}");
    }
    place.is_restored().await?;
    ensure!(place.lease().await?.is_none(), "it took the lock");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_second_is_told_who_was_first_and_both_ids_are_marked_in_the_list() -> Result<()> {
    let place = Place::new("rotate-two").await?;
    let first = place.delivers(&[]).await?;
    let second = place.desk.bootstrap_token(place.rotate(&[])).run().await?.expect(5)?;
    ensure!(second.stderr.contains("is held by"), "{second}");
    let new = place.held().await?;
    ensure!(cluster::row(&place.desk, &place.old.id).await?["rotation"]["isNew"] == false);
    ensure!(cluster::row(&place.desk, &new.id).await?["rotation"]["of"] == place.old.id.as_str());
    drop(first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_another_token_is_not_overwritten() -> Result<()> {
    let place = Place::new("rotate-another").await?;
    let other = cluster::create(&place.desk, &[]).await?;
    let target = place.target();
    let args = ["rotate", &other.id, "--deliver", &target, "--yes"];
    let refused = place.desk.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(
        refused
            .stderr
            .contains(&format!("holds bootstrap token {}", place.old.id)),
        "{refused}"
    );
    place.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_token_is_in_what_is_printed_nor_in_the_journal() -> Result<()> {
    let place = Place::new("rotate-leaks").await?;
    let run = place.delivers(&["-v=9", "-o", "json"]).await?;
    let new = place.held().await?;
    let journal = serde_json::to_string(&place.lease().await?)?;
    ensure!(journal.contains(&new.id), "the id is not in the journal");
    signal(&run, Signal::INT)?;
    let stopped = run.finish().await?.expect(130)?;
    let undone = place
        .desk
        .bootstrap_token(place.rollback(&["-v=9"]))
        .run()
        .await?
        .expect(0)?;
    let status = place
        .desk
        .bootstrap_token(["status", &place.old.id, "-v=9"])
        .run()
        .await?
        .expect(0)?;
    for token in [&place.old, &new] {
        for text in [
            token.secret().to_owned(),
            STANDARD.encode(&token.text),
            STANDARD.encode(token.secret()),
        ] {
            for shown in [&stopped.to_string(), &undone.to_string(), &status.to_string(), &journal] {
                ensure!(!shown.contains(text.trim_end_matches('=')), "a token is shown");
            }
        }
    }
    place.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_slow_link_it_finishes_at_once_and_after_a_kill() -> Result<()> {
    for killed in [false, true] {
        let place = Place::new(if killed { "slow-killed" } else { "slow" }).await?;
        let (proxy, desk) = place.behind_proxy().await?;
        proxy.delay(On::request(), Duration::from_millis(100));
        let rotate = place.rotate(&["--overlap", "0s"]);
        if killed {
            // Right after it has created the new token.
            proxy.plan(On::write().path("*/secrets"), Fault::Kill(Moment::After));
            let run = desk.bootstrap_token(&rotate).start().await?;
            proxy.victim(run.pid()?);
            run.finish().await?.expect_killed()?;
        }
        desk.bootstrap_token(&rotate).run().await?.expect(0)?;
        place.is_rotated().await?;
    }
    Ok(())
}
