//! What a run records in the Lease and on the Secret of the token that it creates.

use std::fmt;

use client::secret::Fingerprint;
use serde::{Deserialize, Serialize};

use super::observed::Id;
use super::step::Which;

/// The record in the journal. A resumed run reads it from the objects ([`recall`](super::recall)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub old: TokenRef,
    /// `None` until its id is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<TokenRef>,
    /// Where the new token is delivered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The abandoned delivery. A resumed run needs `--force=target` again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<Place>,
    /// A delivery of the new token was intended: a node may have read it, and a late delivery may be in flight.
    #[serde(default)]
    pub delivered: bool,
    /// The token that this run delivered last. If the delivery holds the other one, another writer wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivered: Option<Which>,
}

/// A token by id and fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenRef {
    pub id: Id,
    /// Of the new token, the value that was drawn last. Its Secret can hold another one.
    pub value: Fingerprint,
}

/// The rotation that created a token: an annotation of its Secret, written in the same request.
///
/// An attacker who may only write Leases cannot change it. So a resumed run relies on it, and not on the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    pub old: TokenRef,
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

/// The place of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// `secret:NS/NAME/KEY` or `file:PATH`.
    pub at: String,
    /// The host of a file. The rotation can be resumed only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Place {
    /// The host of a file, in messages.
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
