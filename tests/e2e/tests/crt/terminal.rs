//! All commands on a terminal, and with a closed standard output.

use std::io::Read as _;

use anyhow::{Result, ensure};
use e2e::RancherFixture;
use expectrl::process::unix::WaitStatus;
use expectrl::session::OsSession;
use expectrl::{Eof, Expect as _};
use test_cluster::TokenStorage;

use crate::manual_changes;
use crate::state::{self, Scope, State};

/// The output until the program ends, and its exit status.
pub(crate) async fn to_the_end(mut terminal: OsSession) -> Result<(String, WaitStatus)> {
    tokio::task::spawn_blocking(move || {
        let mut rest = terminal.expect(Eof)?.as_bytes().to_vec();
        // The match may not include all of it.
        let _ = terminal.read_to_end(&mut rest);
        let status = terminal.get_process().wait()?;
        Ok((String::from_utf8_lossy(&rest).into_owned(), status))
    })
    .await?
}

pub(crate) fn code(status: WaitStatus) -> Option<i32> {
    match status {
        WaitStatus::Exited(_, code) => Some(code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_stdout_is_not_an_error() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    for args in [
        vec!["list", &fixture.cluster.id],
        vec!["list", &fixture.cluster.id, "-o", "json"],
        vec!["status", &fixture.cluster.id],
        vec!["completion"],
    ] {
        let outcome = fixture.shell.crt(&args).run_with_closed_stdout().await?;
        ensure!(outcome.stderr.is_empty(), "{outcome}");
        ensure!(outcome.code() == Some(0) || outcome.code() == Some(141), "{outcome}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_output_stops_no_rotation_and_leaves_no_lock() -> Result<()> {
    let first = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let second = RancherFixture::begin(TokenStorage::Secret, "lille").await?;
    let mut before = Vec::new();
    for fixture in [&first, &second] {
        before.push(State::of(fixture).await?.system().to_owned());
    }
    let (one, other) = (&first.cluster.id, &second.cluster.id);
    let args = [
        "rotate",
        one,
        other,
        "--context",
        "rancher",
        "--yes",
        "--settle",
        "0s",
        "--max-parallel",
        "1",
    ];
    let rotate = first.shell.crt(args);
    rotate.run_with_closed_output().await?.expect(0)?;
    for (fixture, before) in [&first, &second].into_iter().zip(before) {
        let after = State::of(fixture).await?;
        ensure!(after.system() != before, "{} was not rotated", fixture.cluster.id);
        let holder = after.lease.and_then(|lease| lease.holder);
        ensure!(
            holder.is_none_or(|holder| holder.is_empty()),
            "{} is locked",
            fixture.cluster.id
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_output_does_not_hide_a_failure() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    manual_changes::replace_system(&fixture, &"x7k2p".repeat(10)).await?;
    for args in [
        vec!["verify", &fixture.cluster.id],
        vec!["verify", &fixture.cluster.id, "-o", "json"],
        vec!["rotate", "c-none", "--yes"],
    ] {
        let outcome = fixture.shell.crt(&args).run_with_closed_output().await?;
        ensure!(outcome.code() == Some(1), "{outcome}");
    }
    let usage = fixture
        .shell
        .crt(["rotate", "--nonsense"])
        .run_with_closed_output()
        .await?;
    ensure!(usage.code() == Some(2), "{usage}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn colors_appear_only_on_color_terminals() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let (colored, status) = to_the_end(fixture.shell.crt(["status", &fixture.cluster.id]).on_terminal()?).await?;
    ensure!(code(status) == Some(0) && colored.contains("\u{1b}["), "{colored:?}");
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let (plain, _) = to_the_end(
            fixture
                .shell
                .crt(["status", &fixture.cluster.id])
                .env(name, value)
                .on_terminal()?,
        )
        .await?;
        ensure!(!plain.contains("\u{1b}[3"), "{name}={value}: {plain:?}");
        ensure!(plain.contains("Rancher accepts"), "{plain:?}");
    }
    let piped = fixture
        .shell
        .crt(["status", &fixture.cluster.id])
        .run()
        .await?
        .expect(0)?;
    ensure!(!piped.stdout.contains('\u{1b}'), "{piped}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn narrow_terminals_do_not_truncate_output() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let start = State::of(&fixture).await?;
    let mut terminal = fixture
        .shell
        .crt(["rotate", &fixture.cluster.id, "--yes", "--settle", "1s"])
        .on_terminal()?;
    terminal.get_process_mut().set_window_size(24, 10)?;
    let (seen, status) = to_the_end(terminal).await?;
    ensure!(code(status) == Some(0), "{status:?} {seen}");
    state::rotated(&fixture, &start, Scope::All).await?;
    // A table is not wrapped, because its lines are data.
    let mut terminal = fixture.shell.crt(["list", &fixture.cluster.id]).on_terminal()?;
    terminal.get_process_mut().set_window_size(24, 10)?;
    let (table, _) = to_the_end(terminal).await?;
    ensure!(
        table.lines().count() == 3 && table.contains("LAST ROTATED"),
        "{table:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cluster_there_is_a_list_to_select_from() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    for command in ["rotate", "rollback", "status", "verify"] {
        let terminal = fixture.shell.crt([command, "--context=rancher"]).on_terminal()?;
        let terminal = tokio::task::spawn_blocking(move || -> Result<OsSession> {
            let mut terminal = terminal;
            terminal.expect(format!("Select what to {command}"))?;
            terminal.expect("CLUSTER")?;
            terminal.expect("FINGERPRINT")?;
            terminal.send(expectrl::ControlCode::EndOfText)?;
            Ok(terminal)
        });
        let (rest, status) = to_the_end(terminal.await??).await?;
        ensure!(code(status) == Some(130), "{command}: {status:?} {rest}");
        let piped = fixture
            .shell
            .crt([command, "--context=rancher"])
            .run()
            .await?
            .expect(2)?;
        ensure!(piped.stderr.contains("required arguments were not provided"), "{piped}");
    }
    Ok(())
}
