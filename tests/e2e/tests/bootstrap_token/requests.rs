//! How many requests a rotation costs the API server, as `docs/requests.md` tells them.

use anyhow::{Result, ensure};
use e2e::Cost;
use rstest::rstest;
use test_cluster::Request;

use crate::rotation_fixture::RotationFixture;

/// What is asked once: the server's time, the Lease, a review for each right that is needed.
const ONCE: usize = 20;

/// Reads of one look: the Secrets of two tokens, `cluster-info`, the target, three calls with each token.
const OF_A_LOOK: usize = 10;

/// `PATCH secrets`, and whether it is a token or where one is delivered to.
fn what(write: &Request) -> String {
    let of_tokens = write.path.contains("/namespaces/kube-system/");
    let fixture = if of_tokens { "in kube-system" } else { "the target" };
    format!("{} Secret, {fixture}", write.method)
}

#[rstest]
#[case::in_a_secret("A token delivered to a Secret", false)]
#[case::in_a_file("A token delivered to a file", true)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_sends_the_documented_writes(#[case] title: &str, #[case] file: bool) -> Result<()> {
    let fixture = if file {
        RotationFixture::with_file("requests-file").await?
    } else {
        RotationFixture::new("requests-secret").await?
    };
    let (proxy, shell) = fixture.behind_proxy().await?;
    let args = fixture.rotate(&["--overlap", "0s"]);
    let done = shell.bootstrap_token(&args).run().await?.expect(0)?;
    let cost = Cost::of(&proxy);
    cost.is_documented(title, what)?;
    cost.leases_follow(10, done.took)?;
    let is_look = |read: &&Request| read.path.ends_with("/configmaps/cluster-info");
    let looks = cost.reads.iter().filter(is_look).count();
    cost.at_most(ONCE + looks * OF_A_LOOK, "reads", cost.reads.len())?;
    ensure!(
        cost.writes
            .iter()
            .all(|write| write.user_agent.starts_with("kubectl-bootstrap-token/"))
    );
    Ok(())
}
