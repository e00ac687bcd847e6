//! The requests of a rotation to both servers, as `docs/requests.md` documents them.

use anyhow::Result;
use e2e::Cost;
use test_cluster::Request;

use crate::fixture::Fixture;

/// At most so many requests for one cluster, with no time of grace.
const TOGETHER: usize = 125;

/// `PATCH Secret, Argo CD's namespace`, or the write of Rancher's own API.
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
    // Two looks a second while it waits.
    let waited = 12 * usize::try_from(done.took.as_secs())?;
    cost.at_most(TOGETHER + waited, "requests", proxy.requests().len())?;
    Ok(())
}
