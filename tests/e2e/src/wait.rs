//! Waits for conditions. Tests do not sleep.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The time between two checks of a condition.
const INTERVAL: Duration = Duration::from_millis(50);

/// How long a test waits for a condition before it fails. It is much longer than a busy machine needs.
pub const PATIENCE: Duration = Duration::from_mins(4);

/// Waits until `check` returns a value. Fails after [`PATIENCE`] and names the condition.
pub async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = check().await? {
            return Ok(found);
        }
        if began.elapsed() > PATIENCE {
            bail!("timed out after {PATIENCE:?} waiting for {what}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
