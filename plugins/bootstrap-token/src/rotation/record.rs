//! What a run writes down about itself, in the Lease and on the Secret of the token that it creates.

use std::fmt;

use client::secret::Fingerprint;
use serde::{Deserialize, Serialize};

use super::observed::Id;
use super::step::Which;

/// The record in the journal. A resumed run takes it from the objects ([`recall`](super::recall)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The token that is rotated.
    pub old: TokenRef,
    /// The new one. `None` until its id is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<TokenRef>,
    /// Where it is delivered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Where it was delivered to before that was abandoned. Another process has to be told again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<Place>,
    /// A delivery of the new token was intended, at least: a node may have read it, and a late delivery may be in flight.
    #[serde(default)]
    pub delivered: bool,
    /// The token that this run delivered last: if the delivery holds the other one, another writer wrote that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivered: Option<Which>,
}

/// A token by its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenRef {
    /// Its id.
    pub id: Id,
    /// Fingerprint of its value. Of the new token it is the one that was drawn last: its Secret has the last word.
    pub value: Fingerprint,
}

/// The rotation that created a token: an annotation of its Secret, written in the same request.
///
/// Whoever may write Leases cannot write it. So a resumed run relies on it, and on nothing that the Lease claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The token that is replaced.
    pub old: TokenRef,
    /// Where the new one is delivered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl From<&Record> for Origin {
    fn from(record: &Record) -> Self {
        Self {
            old: record.old.clone(),
            place: record.place.clone(),
        }
    }
}

/// Where a token is delivered to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// As it was given: `secret:NS/NAME/KEY` or `file:PATH`.
    pub at: String,
    /// The host that a file is on. Only there can its rotation be resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Place {
    /// The host of a file, in words.
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("the host where the rotation began")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{} on {host}", self.at),
            None => f.write_str(&self.at),
        }
    }
}
