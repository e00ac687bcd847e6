//! What people at a terminal see and may do: answer, interrupt, look at half of it.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Story;
use expectrl::process::unix::WaitStatus;
use expectrl::session::OsSession;
use expectrl::{ControlCode, Eof, Expect as _};
use rustix::process::{Pid, Signal, kill_process};
use testbed::{Era, Fault, FaultProxy, On, Planned};

use crate::state::{self, Scope, State};

/// Everything that comes until the program ends, and how it ends.
async fn to_the_end(mut terminal: OsSession) -> Result<(String, WaitStatus)> {
    tokio::task::spawn_blocking(move || {
        let mut rest = terminal.expect(Eof)?.as_bytes().to_vec();
        // What was matched before the end is not lost.
        let _ = terminal.read_to_end(&mut rest);
        let status = terminal.get_process().wait()?;
        Ok((String::from_utf8_lossy(&rest).into_owned(), status))
    })
    .await?
}

fn code(status: WaitStatus) -> Option<i32> {
    match status {
        WaitStatus::Exited(_, code) => Some(code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_question_is_asked_and_no_changes_nothing() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    let before = State::of(&story).await?;
    let (proxy, desk) = story.behind_proxy().await?;
    for answer in ["n", "", "what?"] {
        let mut terminal = desk.crt(["rotate", &story.cluster.id]).on_terminal()?;
        let terminal = tokio::task::spawn_blocking(move || -> Result<OsSession> {
            terminal.expect("(y/N)")?;
            terminal.send_line(answer)?;
            Ok(terminal)
        });
        let (rest, status) = to_the_end(terminal.await??).await?;
        ensure!(
            code(status) == Some(1) && rest.contains("nothing was changed"),
            "{answer:?}: {status:?} {rest}"
        );
    }
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());
    let after = State::of(&story).await?;
    ensure!(
        after.tokens == before.tokens && after.deployment == before.deployment,
        "{after:#?}"
    );
    ensure!(after.lease.is_none(), "{after:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn yes_rotates_and_the_phases_are_shown() -> Result<()> {
    let story = Story::begin(Era::Plain, "lyon").await?;
    let start = State::of(&story).await?;
    let mut terminal = story
        .desk
        .crt(["rotate", &story.cluster.id, "--settle", "1s"])
        .on_terminal()?;
    let terminal = tokio::task::spawn_blocking(move || -> Result<OsSession> {
        terminal.expect("(y/N)")?;
        terminal.send_line("y")?;
        terminal.expect("waiting for the agent to connect with")?;
        Ok(terminal)
    });
    let (rest, status) = to_the_end(terminal.await??).await?;
    ensure!(code(status) == Some(0), "{status:?} {rest}");
    for phase in ["prove", "retire", "confirm"] {
        ensure!(rest.contains(phase), "no {phase} in {rest}");
    }
    state::rotated(&story, &start, Scope::All).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_and_without_yes_it_is_refused() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    let (proxy, desk) = story.behind_proxy().await?;
    let outcome = desk.crt(["rotate", &story.cluster.id]).run().await?;
    ensure!(outcome.code().is_some_and(|code| code == 1 || code == 2), "{outcome}");
    ensure!(outcome.stderr.contains("--yes"), "{outcome}");
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());
    Ok(())
}

/// A rotation at a terminal whose new agent never comes: it waits, in the phase *prove*.
async fn that_waits(story: &Story) -> Result<OsSession> {
    let fault = serde_json::json!({ "refuseNewTokens": [story.cluster.id] });
    story.rancher.fault(&fault).await?;
    let mut terminal = story
        .desk
        .crt(["rotate", &story.cluster.id, "--yes", "--settle", "1s"])
        .on_terminal()?;
    tokio::task::spawn_blocking(move || -> Result<OsSession> {
        terminal.expect("waiting for the agent to connect with")?;
        Ok(terminal)
    })
    .await?
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_releases_the_lock_keeps_the_journal_and_names_the_one_command() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    let start = State::of(&story).await?;
    let mut terminal = that_waits(&story).await?;
    terminal.send(ControlCode::EndOfText)?;
    let (rest, status) = to_the_end(terminal).await?;
    ensure!(code(status) == Some(130), "{status:?} {rest}");
    let id = &story.cluster.id;
    ensure!(rest.contains("stands in phase prove: stopped as asked"), "{rest}");
    ensure!(
        rest.contains(&format!("`kubectl crt rotate {id}` continues it")),
        "{rest}"
    );
    let undo = format!("kubectl crt rollback {id}");
    ensure!(rest.contains(&format!("`{undo}` undoes it")), "{rest}");
    let state = State::of(&story).await?;
    let lease = state.lease.as_ref().context("no Lease")?;
    ensure!(lease.holder.is_none() && lease.journal.is_some(), "{state:#?}");

    let words: Vec<_> = undo.split(' ').skip(1).chain(["--yes", "--settle", "1s"]).collect();
    story.desk.kubectl(words).run().await?.expect(0)?;
    // The Deployment named a token that tunnels refuse, as was arranged; the old agent never went.
    ensure!(state.report.without.way_back.is_empty(), "{state:#?}");
    story.rancher.reset(&story.cluster).await?;
    state::restored(&story, &start, state.drawn()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_ends_it_in_the_same_order_and_all_accounts_agree_on_the_code() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    let fault = serde_json::json!({ "refuseNewTokens": [story.cluster.id] });
    story.rancher.fault(&fault).await?;
    let (proxy, desk) = story.behind_proxy().await?;
    let held = proxy.plan(
        On::write().path("*/deployments/*"),
        Fault::Stall(Duration::from_secs(1)),
    );
    let rotate = ["rotate", &story.cluster.id, "--yes", "--settle", "1s", "-o", "json"];
    let rotation = desk.crt(rotate).start().await?;
    tokio::time::timeout(e2e::PATIENCE, held.strikes()).await?;
    let pid = i32::try_from(rotation.pid()?).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no process")?, Signal::TERM)?;
    let outcome = rotation.finish().await?.expect(143)?;
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout)?;
    ensure!(
        document["exitCode"] == 143 && document["outcome"] == "interrupted",
        "{document:#}"
    );
    let lease = State::of(&story).await?.lease.context("no Lease")?;
    ensure!(lease.holder.is_none() && lease.journal.is_some(), "{lease:?}");
    Ok(())
}

/// The victim's answer to a write is held back, so that it cannot come to an orderly end.
fn stuck(proxy: &FaultProxy) -> Planned {
    proxy.plan(
        On::write().path("*/deployments/*"),
        Fault::Stall(Duration::from_mins(2)),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_leaves_at_once() -> Result<()> {
    let story = Story::begin(Era::Plain, "lyon").await?;
    let (proxy, desk) = story.behind_proxy().await?;
    let stalled = stuck(&proxy);
    let mut terminal = desk
        .crt(["rotate", &story.cluster.id, "--yes", "--settle", "1s"])
        .on_terminal()?;
    tokio::time::timeout(e2e::PATIENCE, stalled.strikes()).await?;
    let began = std::time::Instant::now();
    terminal.send(ControlCode::EndOfText)?;
    // It says what it does, and that once more would be enough.
    let mut terminal = tokio::task::spawn_blocking(move || -> Result<OsSession> {
        terminal.expect("another Ctrl-C leaves at once")?;
        Ok(terminal)
    })
    .await??;
    terminal.send(ControlCode::EndOfText)?;
    let (rest, status) = to_the_end(terminal).await?;
    ensure!(code(status) == Some(130), "{status:?} {rest}");
    ensure!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    // The write that was under way is not carried out any more, or it is: going on finds out.
    proxy.heal();
    story
        .desk
        .crt(["rotate", &story.cluster.id, "--yes", "--settle", "1s"])
        .run()
        .await?
        .expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_error() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    for args in [
        vec!["list"],
        vec!["list", "-o", "json"],
        vec!["status", &story.cluster.id],
        vec!["completion"],
    ] {
        let outcome = story.desk.crt(&args).run_with_closed_stdout().await?;
        ensure!(outcome.stderr.is_empty(), "{outcome}");
        ensure!(outcome.code() == Some(0) || outcome.code() == Some(141), "{outcome}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn colour_is_for_terminals_that_want_it() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    let (colourful, status) = to_the_end(story.desk.crt(["status", &story.cluster.id]).on_terminal()?).await?;
    ensure!(
        code(status) == Some(0) && colourful.contains("\u{1b}["),
        "{colourful:?}"
    );
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let (plain, _) = to_the_end(
            story
                .desk
                .crt(["status", &story.cluster.id])
                .env(name, value)
                .on_terminal()?,
        )
        .await?;
        ensure!(!plain.contains("\u{1b}[3"), "{name}={value}: {plain:?}");
        ensure!(plain.contains("Rancher accepts"), "{plain:?}");
    }
    let piped = story.desk.crt(["status", &story.cluster.id]).run().await?.expect(0)?;
    ensure!(!piped.stdout.contains('\u{1b}'), "{piped}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_terminal_loses_nothing() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    let start = State::of(&story).await?;
    let mut terminal = story
        .desk
        .crt(["rotate", &story.cluster.id, "--yes", "--settle", "1s"])
        .on_terminal()?;
    terminal.get_process_mut().set_window_size(24, 10)?;
    let (seen, status) = to_the_end(terminal).await?;
    ensure!(code(status) == Some(0), "{status:?} {seen}");
    state::rotated(&story, &start, Scope::All).await?;
    // A table is not folded: its lines are data.
    let mut terminal = story.desk.crt(["list", &story.cluster.id]).on_terminal()?;
    terminal.get_process_mut().set_window_size(24, 10)?;
    let (table, _) = to_the_end(terminal).await?;
    ensure!(
        table.lines().count() == 3 && table.contains("LAST ROTATED"),
        "{table:?}"
    );
    Ok(())
}
