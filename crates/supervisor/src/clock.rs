//! The clock of a server, by the `Date` of its responses.
//!
//! K3s compares the times of files across servers, so a rotation has to know by how much their clocks differ.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::error::Result;
use crate::supervisor::Supervisor;
use crate::wire::{Login, Response};

/// How far the clock of a server is ahead of the local one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    least: SignedDuration,
    most: SignedDuration,
}

impl ClockReading {
    /// By a `Date` in whole seconds, rounded down, of a request that was sent and answered at these local times.
    ///
    /// ```
    /// use k8s_openapi::jiff::Timestamp;
    /// use supervisor::ClockReading;
    ///
    /// let at = |millis| Timestamp::from_millisecond(millis).unwrap();
    /// let (one, other) = (ClockReading::of(at(0), at(500), at(510)), ClockReading::of(at(1000), at(500), at(510)));
    /// assert!(other.ahead() > one.ahead());
    /// ```
    pub fn of(date: Timestamp, sent: Timestamp, received: Timestamp) -> Self {
        Self {
            least: date.duration_since(received),
            most: date.duration_since(sent) + SignedDuration::from_secs(1),
        }
    }

    /// By a response, if it has a `Date`.
    pub(crate) fn of_response(response: &Response) -> Option<Self> {
        Some(Self::of(response.date?, response.sent, response.received))
    }

    /// By how much the server is ahead of the local clock: the middle of what is possible.
    pub fn ahead(&self) -> SignedDuration {
        (self.least + self.most) / 2
    }

    /// What a later reading of the same server allows too. Alone, where they contradict each other: the clock was set in between.
    #[must_use]
    pub fn narrowed(self, later: Self) -> Self {
        let both = Self {
            least: self.least.max(later.least),
            most: self.most.min(later.most),
        };
        if both.least <= both.most { both } else { later }
    }

    /// By how much two servers may differ: at least and at most. `Date` has whole seconds, so of equal clocks the latter is a second and
    /// both round trips. Where it is 2 s or more, K3s may take a file for newer than it is.
    pub fn difference(&self, other: &Self) -> (Duration, Duration) {
        let gaps = [self.least - other.most, other.least - self.most];
        let spans = [self.most - other.least, other.most - self.least];
        let longest = |of: [SignedDuration; 2]| {
            of.into_iter()
                .max()
                .and_then(|longest| Duration::try_from(longest).ok())
        };
        (longest(gaps).unwrap_or_default(), longest(spans).unwrap_or_default())
    }
}

impl Supervisor {
    /// Reads the clock of the server. No credential is sent.
    ///
    /// # Errors
    /// If there is no response, or it has no `Date`.
    pub async fn clock(&self) -> Result<ClockReading> {
        let response = self.get("/ping".to_owned(), Login::Anonymous).await?;
        ClockReading::of_response(&response).ok_or_else(|| response.malformed())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn reading(date: i64, sent: i64, received: i64) -> ClockReading {
        let at = |millis| Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap();
        ClockReading::of(at(date), at(sent), at(received))
    }

    #[rstest]
    #[case::same(reading(0, 100, 200), reading(0, 300, 400), 0, 1300)]
    #[case::a_second_later(reading(0, 900, 950), reading(1000, 1000, 1050), 0, 1950)]
    #[case::five_seconds_ahead(reading(5000, 100, 200), reading(0, 100, 200), 3900, 6100)]
    #[case::five_seconds_behind(reading(0, 100, 200), reading(5000, 100, 200), 3900, 6100)]
    #[case::slow_responses(reading(0, 0, 4000), reading(2000, 4000, 8000), 0, 7000)]
    fn the_difference_of_two_clocks_is_bounded(
        #[case] one: ClockReading,
        #[case] other: ClockReading,
        #[case] least: u64,
        #[case] most: u64,
    ) {
        let expected = (Duration::from_millis(least), Duration::from_millis(most));
        assert_eq!(one.difference(&other), expected);
        assert_eq!(other.difference(&one), expected);
    }

    #[test]
    fn two_readings_show_more_than_one() {
        // A clock that is 0.9 s ahead.
        let (first, second) = (reading(1000, 500, 510), reading(1000, 1050, 1060));
        let (one, other) = (reading(0, 500, 510), reading(1000, 1050, 1060));
        assert_eq!(first.difference(&one).1, Duration::from_millis(2010));
        let narrowed = first.narrowed(second).difference(&one.narrowed(other));
        assert_eq!(narrowed.1, Duration::from_millis(1010));
        let set = reading(9000, 1050, 1060);
        assert_eq!(first.narrowed(set), set);
    }

    #[test]
    fn the_server_that_is_ahead_has_the_greater_reading() {
        assert!(reading(5000, 0, 100).ahead() > reading(0, 0, 100).ahead());
        assert_eq!(reading(5000, 0, 100).ahead(), SignedDuration::from_millis(5450));
    }
}
