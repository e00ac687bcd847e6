//! The id of a cluster.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a `clusters.management.cattle.io` object, which is also the namespace of its registration tokens:
/// `c-xxxxx` (imported), `c-m-xxxxxxxx` (provisioned), `local`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ClusterId(String);

/// A text that is not a valid namespace name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a cluster id: use at most 63 lower-case letters, digits and dashes")]
pub struct InvalidClusterId(String);

impl ClusterId {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has the form of an id that Rancher generates.
    pub fn is_generated(&self) -> bool {
        let random = |text: &str, length| text.len() == length && text.bytes().all(|c| c.is_ascii_alphanumeric());
        let rest = self.0.strip_prefix("c-").unwrap_or_default();
        self.0 == "local" || random(rest, 5) || rest.strip_prefix("m-").is_some_and(|rest| random(rest, 8))
    }
}

impl FromStr for ClusterId {
    type Err = InvalidClusterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let fits = !text.is_empty()
            && text.len() <= 63
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidClusterId(text.to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for ClusterId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for ClusterId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
