//! The expiry of a token, parsed as Go parses it.
//!
//! The authenticator, the signer and the token cleaner call `time.Parse(time.RFC3339, …)` (`GetExpiration` in
//! `util/secrets/secrets.go`). A token whose expiry that rejects counts as expired. It accepts more than RFC 3339 (an hour of one
//! digit, a comma before the fraction, an offset of 24 hours) and less (no lower-case `t` or `z`, no leap second). Another parser
//! would report expired tokens as valid.

use k8s_openapi::jiff::civil::DateTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// When a token expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiration {
    /// There is no expiry, or an empty one.
    Never,
    /// At this time.
    At(Timestamp),
    /// The text is not a time. To Kubernetes the token has expired.
    Invalid,
}

impl Expiration {
    /// Parses the text in a Secret.
    pub fn parse(text: &str) -> Self {
        if text.is_empty() {
            return Self::Never;
        }
        go_rfc3339(text).map_or(Self::Invalid, Self::At)
    }

    /// Whether the token has expired.
    pub fn is_expired(self, now: Timestamp) -> bool {
        match self {
            Self::Never => false,
            Self::At(end) => end <= now,
            Self::Invalid => true,
        }
    }

    /// The time, if there is one.
    pub fn at(self) -> Option<Timestamp> {
        match self {
            Self::At(end) => Some(end),
            Self::Never | Self::Invalid => None,
        }
    }
}

/// Formats a time as kubeadm does: whole seconds, UTC.
pub fn format(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// `time.Parse(time.RFC3339, text)` of Go 1.26 (`parse` in `src/time/format.go`).
fn go_rfc3339(text: &str) -> Option<Timestamp> {
    let mut rest = Rest(text.as_bytes());
    let year = rest.digits(4)?;
    rest.literal(b'-')?;
    let month = rest.digits(2)?;
    rest.literal(b'-')?;
    let day = rest.digits(2)?;
    rest.literal(b'T')?;
    let hour = rest.one_or_two_digits()?;
    rest.literal(b':')?;
    let minute = rest.digits(2)?;
    rest.literal(b':')?;
    let second = rest.digits(2)?;
    let nanos = rest.fraction();
    let offset = rest.offset()?;
    if !rest.0.is_empty() {
        return None;
    }
    let [month, day, hour, minute, second] = [month, day, hour, minute, second].map(|part| i8::try_from(part).ok());
    let civil = DateTime::new(i16::try_from(year).ok()?, month?, day?, hour?, minute?, second?, nanos).ok()?;
    let epoch = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
    let since = civil.duration_since(epoch) - SignedDuration::from_secs(offset);
    // A Timestamp cannot hold the last day of the year 9999.
    Some(Timestamp::from_duration(since).unwrap_or(Timestamp::MAX))
}

/// The rest of the text.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn digits(&mut self, count: usize) -> Option<i32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0, |sum, byte| {
            byte.is_ascii_digit().then(|| sum * 10 + i32::from(byte - b'0'))
        })
    }

    fn one_or_two_digits(&mut self) -> Option<i32> {
        let two = self.0.get(1).is_some_and(u8::is_ascii_digit);
        self.digits(if two { 2 } else { 1 })
    }

    fn literal(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// A fraction of a second, in nanoseconds. Digits after the ninth are ignored.
    fn fraction(&mut self) -> i32 {
        let [b'.' | b',', digits @ ..] = self.0 else { return 0 };
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return 0;
        }
        let (digits, rest) = digits.split_at(count);
        self.0 = rest;
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0'));
        padded.take(9).fold(0, |sum, byte| sum * 10 + i32::from(byte - b'0'))
    }

    /// The offset from UTC in seconds. Go accepts 24 hours and 60 minutes.
    fn offset(&mut self) -> Option<i64> {
        if self.literal(b'Z').is_some() {
            return Some(0);
        }
        let sign = match self.0.first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.0 = &self.0[1..];
        let hours = self.digits(2)?;
        self.literal(b':')?;
        let minutes = self.digits(2)?;
        (hours <= 24 && minutes <= 60).then(|| sign * i64::from(hours * 60 + minutes) * 60)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::utc("2026-11-22T13:00:00Z", "2026-11-22T13:00:00Z")]
    #[case::east("2026-11-22T13:00:00+02:00", "2026-11-22T11:00:00Z")]
    #[case::west("2026-11-22T13:00:00-05:30", "2026-11-22T18:30:00Z")]
    #[case::fraction("2026-11-22T13:00:00.25Z", "2026-11-22T13:00:00.25Z")]
    #[case::comma("2026-11-22T13:00:00,25Z", "2026-11-22T13:00:00.25Z")]
    #[case::more_than_nine_digits("2026-11-22T13:00:00.1234567899Z", "2026-11-22T13:00:00.123456789Z")]
    #[case::hour_of_one_digit("2026-11-22T9:00:00Z", "2026-11-22T09:00:00Z")]
    #[case::offset_of_a_day("2026-11-22T13:00:00+24:00", "2026-11-21T13:00:00Z")]
    #[case::offset_of_sixty_minutes("2026-11-22T13:00:00+00:60", "2026-11-22T12:00:00Z")]
    #[case::leap_day("2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z")]
    fn times_that_go_accepts(#[case] text: &str, #[case] time: &str) {
        assert_eq!(Expiration::parse(text), Expiration::At(time.parse().unwrap()));
    }

    #[rstest]
    #[case::date_only("2026-11-22")]
    #[case::no_offset("2026-11-22T13:00:00")]
    #[case::a_space("2026-11-22 13:00:00Z")]
    #[case::lower_case("2026-11-22t13:00:00z")]
    #[case::leap_second("2026-12-31T23:59:60Z")]
    #[case::no_such_day("2026-02-29T00:00:00Z")]
    #[case::no_such_hour("2026-02-28T24:00:00Z")]
    #[case::offset_without_colon("2026-11-22T13:00:00+0200")]
    #[case::offset_too_large("2026-11-22T13:00:00+25:00")]
    #[case::trailing_newline("2026-11-22T13:00:00Z\n")]
    #[case::leading_space(" 2026-11-22T13:00:00Z")]
    #[case::dot_without_digits("2026-11-22T13:00:00.Z")]
    #[case::a_zone_name("2026-11-22T13:00:00Z[UTC]")]
    #[case::year_of_five_digits("12026-11-22T13:00:00Z")]
    #[case::word("never")]
    fn times_that_go_rejects_are_expired(#[case] text: &str) {
        assert_eq!(Expiration::parse(text), Expiration::Invalid);
        assert!(Expiration::parse(text).is_expired(Timestamp::MIN));
    }

    #[test]
    fn an_empty_expiry_is_never_and_a_token_expires_at_its_expiry() {
        assert_eq!(Expiration::parse(""), Expiration::Never);
        assert!(!Expiration::Never.is_expired(Timestamp::MAX));
        let end = Timestamp::UNIX_EPOCH;
        assert!(Expiration::At(end).is_expired(end));
        assert!(!Expiration::At(end).is_expired(end - SignedDuration::from_nanos(1)));
    }

    proptest! {
        #[test]
        fn formatted_times_are_parsed(second in 0..=Timestamp::MAX.as_second()) {
            let time = Timestamp::from_second(second).unwrap();
            prop_assert_eq!(Expiration::parse(&format(time)), Expiration::At(time));
        }

        /// Both parsers agree on texts that are valid in both.
        #[test]
        fn strict_rfc_3339_times_are_parsed_alike(
            date in "20[0-9]{2}-[01][0-9]-[0-3][0-9]",
            time in "T[0-2][0-9]:[0-6][0-9]:[0-5][0-9](\\.[0-9]{1,9})?",
            zone in "Z|[+-][01][0-9]:[0-5][0-9]",
        ) {
            let text = format!("{date}{time}{zone}");
            let expected = text.parse().map_or(Expiration::Invalid, Expiration::At);
            prop_assert_eq!(Expiration::parse(&text), expected);
        }

        #[test]
        fn the_parser_never_panics(text in "[0-9TZ:.,+-]{0,30}|\\PC{0,30}") {
            let _ = Expiration::parse(&text);
        }
    }

    /// Each line has a text, and the second and nanosecond that `time.Parse(time.RFC3339, …)` of Go 1.26 returned, or `ERR`.
    #[test]
    fn recorded_results_of_go_are_matched() {
        for line in include_str!("../tests/fixtures/go-times.tsv").lines() {
            let (text, go) = line.split_once('\t').unwrap();
            let expected = go.split_once('.').map_or(Expiration::Invalid, |(second, nanosecond)| {
                let time = Timestamp::new(second.parse().unwrap(), nanosecond.parse().unwrap());
                Expiration::At(time.unwrap_or(Timestamp::MAX))
            });
            assert_eq!(Expiration::parse(text), expected, "{text:?}");
        }
    }
}
