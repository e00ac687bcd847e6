//! The requests of a rotation to both servers, as `docs/requests.md` documents them.

use anyhow::Result;
use e2e::Cost;
use test_cluster::Request;

use crate::fixture::Fixture;

/// The most requests for one cluster, without a grace period.
const TOGETHER: usize = 125;

/// A write in the words of the document: `PATCH Secret, namespace of Argo CD`.
fn what(write: &Request) -> String {
    if write.path.contains("/v3/tokens") {
        format!("{} token, Rancher", write.method)
    } else {
        format!("{} Secret, namespace of Argo CD", write.method)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_sends_the_documented_writes() -> Result<()> {
    let fixture = Fixture::begin("rena").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let args = ["rotate", fixture.id(), "--grace", "0s", "--yes"];
    let done = fixture.run_at(&shell, &args).run().await?.expect(0)?;
    let cost = Cost::of(&proxy);
    cost.is_documented("One cluster", what)?;
    cost.leases_follow(10, done.took)?;
    // It observes twice a second while it waits.
    let waited = 12 * usize::try_from(done.took.as_secs())?;
    cost.at_most(TOGETHER + waited, "requests", proxy.requests().len())?;
    Ok(())
}
