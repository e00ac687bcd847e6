//! `kubectl crt status` while a rotation is in progress.

use anyhow::{Context as _, Result, bail};
use e2e::{CommandOutput, RancherFixture, Running};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::Value;
use test_cluster::{Fault, FaultProxy, Moment, On, Planned, TokenStorage};

use crate::state::{self, Scope, State};

/// A paused rotation. The proxy holds its third write back.
struct PausedRotation {
    fixture: RancherFixture,
    start: State,
    process: Running,
    held: Planned,
    proxy: FaultProxy,
}

impl PausedRotation {
    /// Paused right before the write of the agent's Deployment.
    async fn at_place(storage: TokenStorage) -> Result<Self> {
        let fixture = RancherFixture::begin(storage, "lyon").await?;
        let start = State::of(&fixture).await?;
        let (proxy, shell) = fixture.behind_proxy().await?;
        let deployment = On::write().path("*/deployments/cattle-cluster-agent");
        let held = proxy.plan(deployment, Fault::Stop(Moment::Before));
        let process = shell
            .crt(["rotate", &fixture.cluster.id, "--yes", "--settle", "1s"])
            .start()
            .await?;
        proxy.victim(process.pid()?);
        if tokio::time::timeout(e2e::PATIENCE, held.strikes()).await.is_err() {
            bail!(
                "the fault did not happen:\n{}\n{}",
                process.finish().await?,
                proxy.transcript()
            );
        }
        Ok(Self {
            fixture,
            start,
            process,
            held,
            proxy,
        })
    }

    async fn status(&self, args: &[&str]) -> Result<CommandOutput> {
        let args = ["status", &self.fixture.cluster.id]
            .into_iter()
            .chain(args.iter().copied());
        self.fixture.shell.crt(args).run().await?.expect(0)
    }
}

/// The text on the page behind a label.
fn line<'a>(page: &'a CommandOutput, label: &str) -> Option<&'a str> {
    let labelled = |line: &'a str| line.strip_prefix("  ")?.strip_prefix(label)?.strip_prefix(' ');
    page.stdout.lines().find_map(labelled).map(str::trim)
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn status_shows_phase_and_lock_holder_of_a_running_rotation(#[case] storage: TokenStorage) -> Result<()> {
    let paused = PausedRotation::at_place(storage).await?;
    let page = paused.status(&[]).await?;
    let new = paused.proxy.writes();
    let drawn = State::of(&paused.fixture)
        .await?
        .new_token()
        .context("no new token")?
        .to_owned();
    let (old, pid) = (paused.start.named(), paused.process.pid()?);
    assert_eq!(
        line(&page, "direction"),
        Some(&*format!("forward, from {old} to {drawn}")),
        "{page}\n{new:#?}"
    );
    assert_eq!(line(&page, "phase"), Some("place"), "{page}");
    assert_eq!(
        line(&page, "step"),
        Some(&*format!("point the agent at {drawn}, rollout held")),
        "{page}"
    );
    let holder = line(&page, "held by").context("no holder")?;
    assert!(holder.starts_with(&format!("process {pid} on ")), "{page}");
    let age = holder
        .rsplit_once("renewed ")
        .and_then(|(_, ago)| ago.strip_suffix("s ago"));
    assert!(
        age.is_some_and(|age| age.parse::<u32>().is_ok_and(|age| age < 30)),
        "{page}"
    );
    let id = &paused.fixture.cluster.id;
    assert_eq!(
        line(&page, "resume"),
        Some(&*format!("kubectl crt rotate {id}")),
        "{page}"
    );
    assert_eq!(
        line(&page, "rollback"),
        Some(&*format!("kubectl crt rollback {id}")),
        "{page}"
    );

    let words = [
        "-o",
        "jsonpath={.rotation.phase} {.rotation.direction} {.rotation.unattended}",
    ];
    assert_eq!(paused.status(&words).await?.stdout, "place forward false");
    let listed = paused
        .fixture
        .shell
        .crt(["list", id, "-o", "jsonpath={.items[-1:].state}"])
        .run()
        .await?;
    assert!(
        listed.stdout.contains("rotating") || storage == TokenStorage::Status,
        "{listed}"
    );

    paused.process.signal(Signal::CONT)?;
    paused.held.release();
    paused.process.finish().await?.expect(0)?;
    state::rotated(&paused.fixture, &paused.start, Scope::All).await?;
    let page = paused.fixture.shell.crt(["status", id]).run().await?.expect(0)?;
    let last = page.stdout.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("Rotation in progress: none. Last rotation: rotated (") && last.ends_with(" ago)"),
        "{page}"
    );
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn status_names_the_command_that_resumes_a_killed_rotation(#[case] storage: TokenStorage) -> Result<()> {
    let paused = PausedRotation::at_place(storage).await?;
    paused.process.signal(Signal::KILL)?;
    paused.held.release();
    let PausedRotation {
        fixture,
        start,
        process,
        ..
    } = paused;
    process.finish().await?.expect_killed()?;
    // The write in flight may be processed after the kill. The page shows the journal.
    let page = fixture
        .shell
        .crt(["status", &fixture.cluster.id])
        .run()
        .await?
        .expect(0)?;
    let holder = line(&page, "held by").context("no holder")?;
    assert!(
        holder.starts_with("<none> (process ") && holder.ends_with(", has ended)"),
        "{page}"
    );
    assert_eq!(line(&page, "phase"), Some("place"), "{page}");
    let document: Value = serde_json::from_str(
        &fixture
            .shell
            .crt(["status", &fixture.cluster.id, "-o", "json"])
            .run()
            .await?
            .expect(0)?
            .stdout,
    )?;
    assert_eq!(document["rotation"]["unattended"], Value::Bool(true), "{document:#}");

    let flags = ["--yes", "--settle", "1s"];
    let resumed = fixture.shell.follow(&page, "kubectl crt rotate", &flags).await?;
    resumed.expect(0)?;
    state::rotated(&fixture, &start, Scope::All).await?;
    Ok(())
}
