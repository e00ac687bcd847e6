//! The API server's clock.
//!
//! The local clock may be minutes off, and a deadline that another machine has written must mean the same here. So
//! "now" is the time of the API server. Every response has a `Date` header (in seconds), from which the client computes
//! the offset to the local clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The clock of one API server. Clones share the offset.
#[derive(Clone, Debug, Default)]
pub struct ServerClock {
    /// Seconds to add to the local clock.
    offset: Arc<AtomicI64>,
}

impl ServerClock {
    /// The current time of the server. Before the first response it is the local time.
    pub fn now(&self) -> Timestamp {
        let offset = SignedDuration::from_secs(self.offset.load(Ordering::Relaxed));
        Timestamp::now().saturating_add(offset).unwrap_or(Timestamp::MAX)
    }

    /// How far the server's clock is ahead of the local one, in seconds.
    fn offset_seconds(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Takes note of a `Date` header that has just arrived. A difference of a second is within the header's resolution
    /// and leaves the offset alone, so that time does not jitter between two responses.
    pub fn observe(&self, server: Timestamp) {
        let seen = server.as_second() - Timestamp::now().as_second();
        if (seen - self.offset_seconds()).abs() > 1 {
            self.offset.store(seen, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_a_server_that_is_ten_minutes_ahead() {
        let clock = ServerClock::default();
        clock.observe(Timestamp::now().saturating_add(SignedDuration::from_mins(10)).unwrap());
        let ahead = clock.now().duration_since(Timestamp::now());
        assert!((ahead.as_secs() - 600).abs() <= 1, "{ahead}");
    }
}
