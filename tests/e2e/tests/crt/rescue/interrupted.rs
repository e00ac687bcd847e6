//! Ctrl-C during a rescue: it says where the rescue has stopped, and the same command finishes it.

use anyhow::{Result, ensure};
use e2e::RancherFixture;
use rstest::rstest;
use rustix::process::Signal;
use test_cluster::TokenStorage;

use super::held::waiting_for_its_agent;
use super::is_rescued;
use crate::state::State;

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rescue_resumes(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "struer").await?;
    let (rancher, cluster) = (fixture.rancher, &fixture.cluster);
    let id = cluster.id.as_str();
    let (old, run) = waiting_for_its_agent(&fixture).await?;
    run.signal(Signal::INT)?;
    let interrupted = run.finish().await?.expect(130)?;
    let expected = format!("error: rescue of cluster struer ({id}) interrupted in phase place");
    ensure!(
        interrupted.stderr.contains(&expected),
        "{expected:?} is not in\n{interrupted}"
    );
    ensure!(
        interrupted.stderr.contains("Stopping after the call in flight."),
        "{interrupted}"
    );
    let resume = format!("kubectl crt rescue {id} --reactivate-old-token --token-stdin --yes");
    let commands = interrupted.commands();
    ensure!(
        commands.contains(&resume) && commands.contains(&format!("kubectl crt rollback {id}")),
        "{interrupted}"
    );
    let lease = State::of(&fixture).await?.lease;
    ensure!(
        lease.is_some_and(|lease| lease.holder.is_none() && lease.journal.is_some()),
        "{interrupted}"
    );

    rancher.online(cluster).await?;
    let resumed = fixture
        .shell
        .printed(&resume, &["--settle", "0s"])
        .stdin(old.clone())
        .run()
        .await?
        .expect(0)?;
    is_rescued(&fixture, &old, &resumed).await
}
