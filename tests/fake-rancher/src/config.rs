//! The configuration: one JSON file, read once. Durations are in Go's format.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer};

/// Where Rancher stores the value of a cluster registration token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TokenStorage {
    /// In the token object's status: every release up to 2.12, 2.13.7 and 2.14.3.
    Status,
    /// In a Secret beside it, with a TTL and a grace period: 2.13.8, 2.14.4, 2.15.0 and later.
    Secret,
}

impl TokenStorage {
    /// The release whose behavior is imitated.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Status => "v2.12.0",
            Self::Secret => "v2.15.0",
        }
    }
}

/// A user of Rancher.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct User {
    /// The Rancher user id (`u-xxxxx`). Requests on both sides impersonate it.
    pub(crate) name: String,
    /// The whole bearer value.
    pub(crate) token: String,
    /// Groups that the user is in on both sides; `system:authenticated` is added.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
}

/// How long things take. The defaults are short for tests; the comments give what real servers showed.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Timing {
    /// From "pod runs" to the agent's first connection.
    #[serde(deserialize_with = "duration")]
    pub(crate) agent_start: Duration,
    /// Between two attempts of a rejected agent. Rancher's agent: 10 s.
    #[serde(deserialize_with = "duration")]
    pub(crate) agent_retry: Duration,
    /// Between two checks of the steve sessions. `pkg/controllers/managementuser/clusterconnected` (2.15.0): 15 s.
    #[serde(deserialize_with = "duration")]
    pub(crate) connected_tick: Duration,
    /// One apply of the agent's manifest, from reading the Cluster to updating it. Seen on Rancher 2.15.0 and 2.12.0:
    /// 2.5 to 4 s without latency, 5.5 to 8.6 s at 80 ms of round trip, 9.7 to 11.9 s at 200 ms.
    #[serde(deserialize_with = "duration")]
    pub(crate) redeploy: Duration,
    /// From an event to the plans of a provisioned cluster. Seen on Rancher 2.15.0: 0.1 to 0.4 s.
    #[serde(deserialize_with = "duration")]
    pub(crate) plan: Duration,
    /// From a plan to its file on a machine.
    #[serde(deserialize_with = "duration")]
    pub(crate) plan_apply: Duration,
    /// The longest time until RKE2 reads a changed file: 15 s.
    #[serde(deserialize_with = "duration")]
    pub(crate) file_apply: Duration,
    /// The lag of the authorizer's index behind the API server.
    #[serde(deserialize_with = "duration")]
    pub(crate) replica_lag: Duration,
    /// How long a proxied call waits for a disconnected agent. Seen on Rancher 2.15.0: 27 to 38 s.
    #[serde(deserialize_with = "duration")]
    pub(crate) disconnected_wait: Duration,
    /// From the first deployment to the `upgraded-v1.22` annotation. Seen on both: some 3 s after the import.
    #[serde(deserialize_with = "duration")]
    pub(crate) upgraded_annotation: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            agent_start: Duration::from_millis(300),
            agent_retry: Duration::from_secs(1),
            connected_tick: Duration::from_secs(1),
            redeploy: Duration::from_secs(1),
            plan: Duration::from_millis(100),
            plan_apply: Duration::from_millis(300),
            file_apply: Duration::from_millis(800),
            replica_lag: Duration::ZERO,
            disconnected_wait: Duration::from_secs(2),
            upgraded_annotation: Duration::from_millis(500),
        }
    }
}

/// The whole file.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) storage: TokenStorage,
    /// `127.0.0.1:0` picks a free port.
    pub(crate) listen: String,
    /// Admin kubeconfig of the API server that holds Rancher's own objects.
    pub(crate) management: PathBuf,
    /// Admin kubeconfig of the API server that all registered clusters share.
    pub(crate) downstream: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The CA that signed `certificate`; it becomes the setting `cacerts`.
    pub(crate) ca: PathBuf,
    pub(crate) log: PathBuf,
    #[serde(default)]
    pub(crate) users: Vec<User>,
    #[serde(default)]
    pub(crate) timing: Timing,
    /// The setting `server-version` may hold nothing in `value` (seen on Rancher 2.12.0).
    #[serde(default)]
    pub(crate) server_version_in_default_only: bool,
}

impl Config {
    pub(crate) fn read(path: &std::path::Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
    }
}

/// Parses `1m30s`, `250ms`, `0`: what Go's `time.ParseDuration` accepts, as far as tests need it.
pub(crate) fn parse_duration(text: &str) -> Result<Duration> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => bail!("duration {text:?}: unknown unit {unit:?}"),
        };
        let number: f64 = number.parse().with_context(|| format!("duration {text:?}"))?;
        total += Duration::from_secs_f64(number * seconds);
        rest = tail;
    }
    Ok(total)
}

/// For `#[serde(deserialize_with = …)]`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

/// The same for fields that may be absent.
pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_go_format() {
        assert_eq!(parse_duration("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("0").unwrap(), Duration::ZERO);
        assert!(parse_duration("3 parsecs").is_err());
    }
}
