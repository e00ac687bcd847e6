//! Which token the snapshots need that a run has taken.

use std::time::Duration;

use client::error::Error;
use supervisor::TokenHash;
use supervisor::snapshot::SnapshotFile;
use tokio::time::{Instant, sleep};

/// How long a snapshot may take to show in the Kubernetes API.
pub(crate) const SHOWN: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_millis(200);

/// Waits until the Kubernetes API shows which token each snapshot needs. `taken`: their names, by server. Also returns all snapshots.
pub(crate) async fn shown<F, E>(
    taken: &[(String, Vec<String>)],
    list: impl Fn() -> F,
) -> Result<(Vec<(String, TokenHash)>, Vec<SnapshotFile>), E>
where
    F: Future<Output = Result<Vec<SnapshotFile>, E>>,
    E: From<Error>,
{
    let until = Instant::now() + SHOWN;
    loop {
        let files = list().await?;
        let hash = |(server, names): &(String, Vec<String>)| {
            let mut files = files.iter().filter(|file| file.node == *server && file.is_ready);
            let file = files.find(|file| names.contains(&file.name))?;
            Some((server.clone(), file.token_hash?))
        };
        if let Some(shown) = taken.iter().map(hash).collect() {
            return Ok((shown, files));
        }
        if Instant::now() >= until {
            let message = "the snapshots that were taken do not show which token they need";
            return Err(Error::failed(message).into());
        }
        sleep(INTERVAL).await;
    }
}
