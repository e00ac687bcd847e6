//! Rescues that two operators begin at once, and over a slow link.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::RancherFixture;
use rstest::rstest;
use test_cluster::{Registration, TokenStorage};

use super::{QUICK, is_rescued, lose};

/// The flags of each way to a lost agent.
#[derive(Clone, Copy, Debug)]
enum Way {
    Context,
    OldToken,
}

impl Way {
    fn command(self, id: &str) -> Vec<String> {
        let direct = format!("{id}-direct");
        let more: &[&str] = match self {
            Self::Context => &["--downstream-context", &direct],
            Self::OldToken => &["--reactivate-old-token", "--token-stdin"],
        };
        let words = ["rescue", id];
        words
            .iter()
            .chain(&QUICK)
            .chain(more)
            .map(|word| (*word).to_owned())
            .collect()
    }
}

/// One of them rescues. The other one names who does, or finds nothing left to rescue.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn two_operators_rescue_the_same_cluster(
    #[values(TokenStorage::Status, TokenStorage::Secret)] storage: TokenStorage,
    #[values(Way::Context, Way::OldToken)] way: Way,
) -> Result<()> {
    let fixture = RancherFixture::begin(storage, &format!("kolding-{way:?}").to_lowercase()).await?;
    let old = lose(&fixture).await?;
    let command = way.command(&fixture.cluster.id);
    let run = || fixture.shell.crt(&command).stdin(old.clone()).run();
    let (one, other) = futures::join!(run(), run());
    let (one, other) = (one?, other?);
    let (done, second) = if one.code() == Some(0) {
        (one, other)
    } else {
        (other, one)
    };
    let done = done.expect(0)?;
    let is_held = second.code() == Some(5) && second.stderr.contains("is held by");
    // It came late: the first one had rescued the cluster, or rotates its tokens.
    let is_late = matches!(second.code(), Some(0 | 5));
    ensure!(is_held || is_late, "{second}\n{done}");
    is_rescued(&fixture, &old, &done).await
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn rescue_over_a_slow_link(
    #[values(TokenStorage::Status, TokenStorage::Secret)] storage: TokenStorage,
    #[values(Way::Context, Way::OldToken)] way: Way,
) -> Result<()> {
    let fixture = RancherFixture::begin(storage, &format!("viborg-{way:?}").to_lowercase()).await?;
    let old = lose(&fixture).await?;
    let (_proxy, shell) = fixture.behind_slow_link(Duration::from_millis(100)).await?;
    let command = way.command(&fixture.cluster.id);
    let rescued = shell.crt(&command).stdin(old.clone()).run().await?.expect(0)?;
    is_rescued(&fixture, &old, &rescued).await
}

/// Rancher's proxy answers for a hosted cluster without its agent.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_hosted_cluster_is_rescued_through_rancher(#[case] storage: TokenStorage) -> Result<()> {
    let registration = Registration::imported("herning").quick().kind("eks");
    let fixture = RancherFixture::begin_with(storage, &registration).await?;
    let old = lose(&fixture).await?;
    let rescue = ["rescue", fixture.cluster.id.as_str()];
    let rescued = fixture.shell.crt(rescue.iter().chain(&QUICK)).run().await?.expect(0)?;
    is_rescued(&fixture, &old, &rescued).await
}
