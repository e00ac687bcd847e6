//! Waiting for a condition: what stories do where others sleep.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long a story waits for what must come before it fails: far longer than a machine takes that has much else to do.
pub const PATIENCE: Duration = Duration::from_mins(4);

/// Waits until `look` finds something; fails after [`PATIENCE`], saying what was waited for.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if began.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} in vain for {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
