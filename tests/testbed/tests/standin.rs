//! The stand-in as the bed starts it: a cluster of each era is registered and lives.

use std::time::Instant;

use anyhow::Result;
use testbed::{Bed, Era};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_each_era_is_registered_and_connected() -> Result<()> {
    let bed = Bed::shared().await?;
    for era in Era::ALL {
        let begin = Instant::now();
        let rancher = bed.rancher(era).await?;
        println!("{era:?}: up after {:?}", begin.elapsed());
        let begin = Instant::now();
        let cluster = rancher.register("berlin").await?;
        println!("{era:?}: {} registered after {:?}", cluster.id, begin.elapsed());
        let begin = Instant::now();
        let quick = rancher.register_as(&testbed::Registration::imported("quick").quick()).await?;
        println!("{era:?}: {} registered quickly after {:?}", quick.id, begin.elapsed());
        let report = rancher.report(&cluster).await?;
        println!("{report:?}");
        assert!(report.connected_since.is_some());
        assert_eq!(report.fingerprints().len(), 1, "one token for both tunnels: {report:?}");
        assert!(report.accepted.iter().any(|accepted| *accepted == report.fingerprints()[0]));
    }
    Ok(())
}
