//! Argo CD uses what `add` has written.

use anyhow::Result;
use testbed::Content;

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn an_application_makes_the_connection_successful() -> Result<()> {
    let bench = Bench::begin("oslo").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    bench.deploy(&format!("oslo-{}", bench.id()), Content::Plain).await?;
    let seen = bench.becomes("Successful").await?;
    println!("{seen:?}");
    bench.argo.invalidate_cache(&bench.server()).await?;
    Ok(())
}
