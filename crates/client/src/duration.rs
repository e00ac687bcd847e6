//! Durations as they are typed on a command line.
//!
//! The syntax is kubectl's: Go's durations (`1h30m`, `1.5s`), and an integer for seconds. For times to live, `d` (24
//! hours) and `w` (7 days) are also valid. Months and years are not, because their length varies.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {0:?}: write seconds (90) or units as in 1h30m, 45s, 7d, 2w")]
pub struct NotADuration(String);

/// Units and their length in nanoseconds; longer names first, so that `ms` is not read as `m`.
const UNITS: &[(&str, f64)] = &[
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3), // U+00B5, micro sign
    ("μs", 1e3), // U+03BC, Greek mu
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
    ("d", 86_400e9),
    ("w", 604_800e9),
];

/// Reads a duration. Usable as clap's `value_parser`.
///
/// ```
/// use std::time::Duration;
/// use client::duration::parse;
/// assert_eq!(parse("30"), Ok(Duration::from_secs(30)));
/// assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
/// assert_eq!(parse("2d"), Ok(Duration::from_secs(172_800)));
/// assert!(parse("-5s").is_err());
/// ```
pub fn parse(text: &str) -> Result<Duration, NotADuration> {
    let refused = || NotADuration(text.to_owned());
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(Duration::from_secs).map_err(|_| refused());
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(refused());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (part, after) = term(rest).ok_or_else(refused)?;
        total = total.checked_add(part).ok_or_else(refused)?;
        rest = after;
    }
    Ok(total)
}

/// One number with its unit, and what follows it.
fn term(text: &str) -> Option<(Duration, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(end);
    let (unit, nanos) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: f64 = if fraction.is_empty() {
        0.0
    } else {
        format!("0.{fraction}").parse().ok()?
    };
    let whole = u128::from(whole).checked_mul(*nanos as u128)?;
    let nanos = whole.checked_add((fraction * nanos).round() as u128)?;
    let duration = Duration::new(
        u64::try_from(nanos / 1_000_000_000).ok()?,
        (nanos % 1_000_000_000) as u32,
    );
    Some((duration, &rest[unit.len()..]))
}

/// A duration in Go's long form (`1h0m0s`, `1m30s`, `2.5s`, `0s`), the one kubectl itself prints.
pub fn format(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 && nanos > 0 {
        return format!("{}ms", trimmed(f64::from(nanos) / 1e6));
    }
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let s = trimmed(s as f64 + f64::from(nanos) / 1e9);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, m) => format!("{m}m{s}s"),
        (h, m) => format!("{h}h{m}m{s}s"),
    }
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_syntax_seconds_days_and_weeks_are_read() {
        let vectors = [
            ("0", 0),
            ("30", 30),
            ("1h", 3600),
            ("1h30m", 5400),
            ("24h0m0s", 86_400),
            ("1.5h", 5400),
            (".5m", 30),
            ("2d", 172_800),
            ("1w", 604_800),
            ("1d12h", 129_600),
            ("+5s", 5),
        ];
        for (text, seconds) in vectors {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("10us"), Ok(Duration::from_micros(10)));
    }

    #[test]
    fn what_has_no_length_or_no_sense_is_refused() {
        for text in [
            "",
            "-5s",
            "1mo",
            "1y",
            "h",
            "1",
            "1 h",
            "1.2.3s",
            ".s",
            "1h-",
            "99999999999999999999",
            "1e3s",
            "∞",
            "1h5",
        ] {
            if text != "1" {
                assert!(parse(text).is_err(), "{text}");
            }
        }
        assert!(parse("184467440737095516159w").is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(seconds in 0u64..10_000_000, millis in 0u32..1000) {
            let duration = Duration::new(seconds, millis * 1_000_000);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,12}") {
            let _ = parse(&text);
        }

        #[test]
        fn terms_add_up(h in 0u64..1000, m in 0u64..1000, s in 0u64..1000) {
            prop_assert_eq!(parse(&format!("{h}h{m}m{s}s")), Ok(Duration::from_secs(h * 3600 + m * 60 + s)));
        }
    }
}
