//! How many requests a rotation costs both sides, as `docs/requests.md` tells them.

use anyhow::Result;
use e2e::Cost;
use testbed::Request;

use crate::bench::Bench;

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
async fn of_one_rotation_are_as_documented() -> Result<()> {
    let bench = Bench::begin("rena").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let (proxy, desk) = bench.behind_proxy().await?;
    let args = ["rotate", bench.id(), "--grace", "0s", "--yes"];
    let done = bench.run_at(&desk, &args).run().await?.expect(0)?;
    let cost = Cost::of(&proxy);
    cost.is_documented("One cluster", what)?;
    cost.leases_follow(10, done.took)?;
    // Two looks a second while it waits.
    let waited = 12 * usize::try_from(done.took.as_secs())?;
    cost.at_most(TOGETHER + waited, "requests", proxy.requests().len())?;
    Ok(())
}
