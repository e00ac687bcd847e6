//! The number of requests of a rotation, as `docs/requests.md` documents them.

use anyhow::{Result, ensure};
use e2e::Cost;
use rstest::rstest;
use test_cluster::Request;

use crate::rotation_fixture::RotationFixture;

/// The reads that happen once: the server's time, the Lease, a review for each permission.
const ONCE: usize = 20;

/// The reads of one observation: the Secrets of two tokens, `cluster-info`, the target, three calls with each token.
const OF_AN_OBSERVATION: usize = 10;

/// A write in the words of the document: `PATCH Secret, in kube-system`.
fn what(write: &Request) -> String {
    let of_tokens = write.path.contains("/namespaces/kube-system/");
    let place = if of_tokens { "in kube-system" } else { "the target" };
    format!("{} Secret, {place}", write.method)
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
    let is_observation = |read: &&Request| read.path.ends_with("/configmaps/cluster-info");
    let observations = cost.reads.iter().filter(is_observation).count();
    cost.at_most(ONCE + observations * OF_AN_OBSERVATION, "reads", cost.reads.len())?;
    ensure!(
        cost.writes
            .iter()
            .all(|write| write.user_agent.starts_with("kubectl-bootstrap-token/"))
    );
    Ok(())
}
