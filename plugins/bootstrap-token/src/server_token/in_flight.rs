//! How long what another process has sent may be on its way.

use std::time::Duration;

use cli::test_times::unless_shortened;

/// A request to a supervisor, or an edit or a restart that was handed over.
pub(crate) fn in_flight() -> Duration {
    unless_shortened("KUBECTL_ROTATION_TEST_IN_FLIGHT", Duration::from_mins(1))
}
