//! Ages as kubectl prints them: `5s`, `3m20s`, `47h`, `2d3h`, `3y45d`.

use k8s_openapi::jiff::Timestamp;

/// A span in kubectl's short form; negative spans of more than a second are `<invalid>`.
///
/// (kubernetes/apimachinery v0.33, `pkg/util/duration/duration.go`, `HumanDuration`.)
pub fn human(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    // The second unit is left out when it is zero.
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        i64::MIN..=-2 => "<invalid>".into(),
        -1 => "0s".into(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

/// How long ago `then` was; `<unknown>` for an object that does not say.
pub fn since(now: Timestamp, then: Option<Timestamp>) -> String {
    match then {
        Some(then) => human(now.as_second() - then.as_second()),
        None => "<unknown>".into(),
    }
}

/// How long until `then`: what is left, or `<none>` where nothing ends.
pub fn until(now: Timestamp, then: Option<Timestamp>) -> String {
    match then {
        Some(then) if then <= now => "<expired>".into(),
        Some(then) => human(then.as_second() - now.as_second()),
        None => "<none>".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_apimachinery_hold() {
        // pkg/util/duration/duration_test.go
        let (m, h, d, y) = (60, 3600, 86_400, 365 * 86_400);
        let vectors = [
            (1, "1s"),
            (70, "70s"),
            (190, "3m10s"),
            (70 * m, "70m"),
            (47 * h, "47h"),
            (49 * h, "2d1h"),
            (8 * d + 2 * h, "8d"),
            (367 * d, "367d"),
            (2 * y + 25 * d, "2y25d"),
            (8 * y + 2 * d, "8y"),
            (2 * m - 1, "119s"),
            (2 * m, "2m"),
            (2 * m + 1, "2m1s"),
            (10 * m - 1, "9m59s"),
            (10 * m, "10m"),
            (10 * m + 1, "10m"),
            (3 * h - 1, "179m"),
            (3 * h, "3h"),
            (3 * h + m, "3h1m"),
            (8 * h - 1, "7h59m"),
            (8 * h, "8h"),
            (8 * h + 59 * m, "8h"),
            (2 * d - 1, "47h"),
            (2 * d, "2d"),
            (2 * d + h, "2d1h"),
            (8 * d - 1, "7d23h"),
            (8 * d, "8d"),
            (8 * d + 23 * h, "8d"),
            (2 * y - 1, "729d"),
            (2 * y, "2y"),
            (2 * y + 23 * h, "2y"),
            (8 * y - 1, "7y364d"),
            (8 * y, "8y"),
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
        ];
        for (seconds, expected) in vectors {
            assert_eq!(human(seconds), expected, "{seconds}");
        }
    }
}
