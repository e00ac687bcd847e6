//! `kubectl crt rollback`: an unfinished rotation is undone, as long as the old token was not touched.

use anyhow::{Context as _, Result};
use e2e::{Outcome, Story};
use rstest::rstest;
use testbed::{Era, Fault, Moment, On};

use crate::state::{self, Scope, State};

/// Where a rotation is killed.
#[derive(Clone, Copy, Debug)]
enum Killed {
    Make,
    Place,
    Prove,
    Retire,
}

impl Killed {
    /// The write after which it happens.
    fn after(self, era: Era) -> On {
        let value = match era {
            Era::Plain => "*/clusterregistrationtokens/system",
            Era::Secret => "*/secrets/crt-token-system",
        };
        match (self, era) {
            (Self::Make, _) => On::write().path(value),
            (Self::Place, _) => On::write().path("*/namespaces/cattle-system/secrets"),
            (Self::Prove, _) => On::write().path("*/deployments/cattle-cluster-agent").nth(2),
            (Self::Retire, Era::Plain) => On::write().path("*/clusterregistrationtokens/zz-*"),
            (Self::Retire, Era::Secret) => On::write().path(value).nth(2),
        }
    }

    fn phase(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Place => "place",
            Self::Prove => "prove",
            Self::Retire => "retire",
        }
    }
}

/// Lets a rotation begin and kills it there. Gives what it left.
async fn kill(story: &Story, verb: &str, on: On) -> Result<State> {
    let (proxy, desk) = story.behind_proxy().await?;
    proxy.plan(on, Fault::Kill(Moment::After));
    let command = [verb, &story.cluster.id, "--yes", "--settle", "0s"];
    let run = desk.crt(command).start().await?;
    proxy.victim(run.pid()?);
    run.finish()
        .await?
        .expect_killed()
        .with_context(|| proxy.transcript())?;
    State::of(story).await
}

async fn run(story: &Story, verb: &str) -> Result<Outcome> {
    let command = [verb, &story.cluster.id, "--yes", "--settle", "0s"];
    story.desk.crt(command).run().await
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn the_start_is_restored_from_every_phase_before_retire(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "oslo").await?;
    for killed in [Killed::Make, Killed::Place, Killed::Prove] {
        story.rancher.reset(&story.cluster).await?;
        let start = State::of(&story).await?;
        let left = kill(&story, "rotate", killed.after(era)).await?;
        assert_eq!(left.phase(), Some(killed.phase()));
        let new = left.drawn().context("no new token in the journal")?;
        assert!(left.report.accepted.iter().any(|token| token == new), "{left:?}");

        let outcome = run(&story, "rollback").await?.expect(0)?;
        assert_eq!(
            outcome.stdout,
            format!("cluster.management.cattle.io/{} undone\n", story.cluster.id)
        );
        let restored = state::restored(&story, &start, Some(new)).await?;
        let result = restored.lease.and_then(|lease| lease.result);
        assert_eq!(result.as_deref(), Some("undone: asked for with rollback"), "{killed:?}");
    }
    Ok(())
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn past_retire_it_is_refused_and_the_rotation_can_be_finished(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "lima").await?;
    let start = State::of(&story).await?;
    let left = kill(&story, "rotate", Killed::Retire.after(era)).await?;
    assert_eq!(left.phase(), Some(Killed::Retire.phase()));

    let (proxy, desk) = story.behind_proxy().await?;
    let rollback = ["rollback", &story.cluster.id, "--yes"];
    let refused = desk.crt(rollback).run().await?.expect(1)?;
    let sentence = format!(
        "error: the rotation of cluster lima ({}) has begun to retire the old token and can only be finished",
        story.cluster.id
    );
    assert!(refused.stderr.contains(&sentence), "{refused}");
    assert!(proxy.writes().is_empty(), "{}", proxy.transcript());

    run(&story, "rotate").await?.expect(0)?;
    state::rotated(&story, &start, Scope::All).await.map(drop)
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_under_way_it_says_so_and_writes_nothing(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "bern").await?;
    let (proxy, desk) = story.behind_proxy().await?;
    let id = story.cluster.id.as_str();
    for (command, code) in [
        (vec!["rollback", id, "--yes"], 0),
        (vec!["rollback", id, "--yes", "--exit-code"], 3),
    ] {
        let outcome = desk.crt(command).run().await?.expect(code)?;
        let sentence = format!("no rotation of cluster bern ({id}) is under way\n");
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str()),
            ("", sentence.as_str())
        );
    }
    assert!(proxy.writes().is_empty(), "{}", proxy.transcript());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_was_killed_before_it_began_nothing_is_left() -> Result<()> {
    let story = Story::begin(Era::Secret, "kyiv").await?;
    let start = State::of(&story).await?;
    let left = kill(&story, "rotate", On::write().path("*/leases")).await?;
    let lease = left.lease.context("no Lease")?;
    assert!(lease.holder.is_some() && lease.journal.is_none(), "{lease:?}");

    let outcome = run(&story, "rollback").await?.expect(0)?;
    assert!(outcome.stderr.ends_with("is under way\n"), "{outcome}");
    let after = State::of(&story).await?;
    assert!(after.lease.is_none(), "{:?}", after.lease);
    assert_eq!(after.tokens, start.tokens);
    Ok(())
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_after_a_killed_rollback_finishes_going_back(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "rome").await?;
    let start = State::of(&story).await?;
    kill(&story, "rotate", Killed::Place.after(era)).await?;
    // The first product write of a way back gives `system` its old value again.
    let left = kill(&story, "rollback", Killed::Make.after(era)).await?;
    assert_eq!(left.lease.as_ref().and_then(|lease| lease.says("goal")), Some("back"));

    let outcome = run(&story, "rotate").await?.expect(1)?;
    assert!(
        outcome
            .stderr
            .contains("this finishes going back, and rotates nothing."),
        "{outcome}"
    );
    assert!(
        outcome
            .stderr
            .contains("was undone, and its agent runs with the old token as before"),
        "{outcome}"
    );
    state::restored(&story, &start, left.drawn()).await.map(drop)
}
