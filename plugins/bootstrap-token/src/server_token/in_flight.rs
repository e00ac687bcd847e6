//! How long what another process has sent may be on its way.

use std::time::Duration;

use client::duration;

/// A request to a supervisor, or an edit or a restart that was handed over. Only tests of a debug build shorten it.
pub(crate) fn in_flight() -> Duration {
    let name = "KUBECTL_ROTATION_TEST_IN_FLIGHT";
    let shortened = cfg!(debug_assertions).then(|| std::env::var(name).ok()).flatten();
    let shortened = shortened.and_then(|text| duration::parse(&text).ok());
    shortened.unwrap_or(Duration::from_mins(1))
}
