//! The TTL of a registration token with `secret` storage, and what Rancher 2.15.0 does about it.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rand::RngExt;
use serde_json::Value;

use crate::api::read;
use crate::world::World;

/// The feature `crt-token-ttl-rotation`: its value, otherwise its default.
pub(crate) fn rotation_is_on(world: &World) -> bool {
    world.features.get("", "crt-token-ttl-rotation").is_some_and(|feature| {
        feature["spec"]["value"]
            .as_bool()
            .unwrap_or_else(|| feature["status"]["default"].as_bool().unwrap_or(false))
    })
}

/// The TTL of a value: `spec.ttl`, otherwise the setting, and never under 30 minutes, **which turns a 0 into 30**
/// (`clusterregistrationtoken.go`, `ClampTTL`, 2.15.0; seen on Rancher 2.15.0 as "TTL 0 is below minimum 30").
fn ttl_minutes(spec_ttl: Option<i64>, setting: &str) -> i64 {
    spec_ttl.unwrap_or_else(|| setting.parse().unwrap_or(43200)).max(30)
}

/// A random part of up to a tenth is added, a day at most (the same file).
pub(crate) fn expiry(world: &World, crt: &Value) -> Timestamp {
    let minutes = ttl_minutes(crt["spec"]["ttl"].as_i64(), &world.setting("crt-default-ttl-minutes"));
    let most = (minutes * 60 / 10).min(24 * 3600);
    let jitter = rand::rng().random_range(0..=most);
    Timestamp::now() + SignedDuration::from_secs(minutes * 60 + jitter)
}

pub(crate) fn grace(world: &World, crt: &Value) -> Timestamp {
    let setting = world.setting("crt-default-grace-period-minutes").parse().unwrap_or(180);
    let minutes = crt["spec"]["gracePeriod"].as_i64().unwrap_or(setting).max(10);
    Timestamp::now() + SignedDuration::from_mins(minutes)
}

/// To the second, as Rancher writes times.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// The decision by the times (`clusterregistrationtoken.go`, `computeTTLDecision`, as in 2.15.0).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The grace period of the previous value has ended.
    EndGrace,
    /// The expiry is missing.
    Schedule,
    /// The status is older than the Secret.
    PutBack,
    Rotate,
    /// Nothing to do before this time.
    Wait(Option<Timestamp>),
}

/// 2.15.0 decides by the token object's status; the Secret only guards against rotating twice. Seen on Rancher 2.15.0:
/// a past end of grace in the Secret alone changes nothing; a past expiry in one of the two alone neither.
pub(crate) fn decide(crt: &Value, secret: &Value, on: bool, now: Timestamp) -> Decision {
    let status = |name: &str| read::time(crt["status"][name].as_str().unwrap_or_default());
    let grace = status("gracePeriodExpiresAt");
    if grace.is_some_and(|at| at <= now) {
        return Decision::EndGrace;
    }
    if !on {
        return Decision::Wait(grace);
    }
    let held = read::secret(secret, "expiresAt").and_then(|text| read::time(&text));
    match (status("expiresAt"), held) {
        (None, Some(_)) => Decision::PutBack,
        (None, None) => Decision::Schedule,
        (Some(at), Some(held)) if at <= now && held > now => Decision::PutBack,
        (Some(at), _) if at <= now => Decision::Rotate,
        (Some(at), _) => Decision::Wait(Some(grace.map_or(at, |grace| grace.min(at)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    const PAST: &str = "2020-01-01T00:00:00Z";
    const FUTURE: &str = "2999-01-01T00:00:00Z";

    fn decide_on(status: &Value, secret: &[(&str, &str)], on: bool) -> Decision {
        let data: Map<String, Value> = secret
            .iter()
            .map(|(key, value)| ((*key).to_owned(), read::encode(value)))
            .collect();
        decide(&json!({"status": status}), &json!({"data": data}), on, Timestamp::now())
    }

    #[test]
    fn the_grace_period_is_read_from_the_status_even_with_the_feature_off() {
        let secret = [
            ("gracePeriodExpiresAt", PAST),
            ("previousToken", "o"),
            ("expiresAt", FUTURE),
        ];
        assert!(matches!(
            decide_on(&json!({"expiresAt": FUTURE}), &secret, true),
            Decision::Wait(_)
        ));
        assert_eq!(
            decide_on(&json!({"gracePeriodExpiresAt": PAST}), &secret, false),
            Decision::EndGrace
        );
    }

    #[test]
    fn a_value_expires_only_when_both_sides_say_so() {
        assert_eq!(
            decide_on(&json!({"expiresAt": PAST}), &[("expiresAt", FUTURE)], true),
            Decision::PutBack
        );
        assert!(matches!(
            decide_on(&json!({"expiresAt": FUTURE}), &[("expiresAt", PAST)], true),
            Decision::Wait(_)
        ));
        assert_eq!(
            decide_on(&json!({"expiresAt": PAST}), &[("expiresAt", PAST)], true),
            Decision::Rotate
        );
        assert_eq!(
            decide_on(&json!({"expiresAt": PAST}), &[("expiresAt", PAST)], false),
            Decision::Wait(None)
        );
    }

    #[test]
    fn a_ttl_of_zero_is_thirty_minutes() {
        assert_eq!(ttl_minutes(Some(0), "43200"), 30);
        assert_eq!(ttl_minutes(None, "43200"), 43200);
    }
}
