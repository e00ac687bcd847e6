//! The bed itself: it comes up, its parts can be broken and mended, and it leaves nothing behind.

use std::time::Instant;

use anyhow::Result;
use testbed::{Bed, Era};

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_of_cluster_come_up_side_by_side() -> Result<()> {
    let bed = Bed::shared().await?;
    let begin = Instant::now();
    let (management, downstream) = tokio::try_join!(bed.management(Era::Secret), bed.downstream())?;
    println!("both up after {:?}", begin.elapsed());
    for plane in [management, downstream] {
        println!("{}: {:?}", plane.name(), plane.memory().await);
        let version = plane.client().await?.apiserver_version().await?;
        assert_eq!(version.git_version, "v1.36.3");
    }
    Ok(())
}
