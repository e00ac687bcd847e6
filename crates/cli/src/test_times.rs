//! Times that tests shorten, since the fakes are quicker than what they stand for.

use std::time::Duration;

use client::duration;

/// This time, or what an environment variable says instead. Only a debug build reads it.
#[must_use]
pub fn unless_shortened(variable: &str, time: Duration) -> Duration {
    let shortened = cfg!(debug_assertions).then(|| std::env::var(variable).ok()).flatten();
    let shortened = shortened.and_then(|text| duration::parse(&text).ok());
    shortened.unwrap_or(time)
}
