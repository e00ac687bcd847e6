//! What the commands print. Nothing here does I/O.

pub(crate) mod join;
pub(crate) mod row;
pub(crate) mod target;

pub(crate) use cli::rotation::API_VERSION;

use bootstrap::ProbeResult;

/// The result of a probe in JSON output: `yes`, `no` or `unknown`.
pub(crate) fn accepted(result: &ProbeResult) -> &'static str {
    match result {
        ProbeResult::Accepted { .. } => "yes",
        ProbeResult::Rejected => "no",
        ProbeResult::Unknown(_) => "unknown",
    }
}
