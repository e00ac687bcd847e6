//! What a new token is created from, besides its id and its value.

use std::collections::BTreeMap;
use std::time::Duration;

use bootstrap::{Group, NewToken, Token, Usage};
use client::error::Error;
use k8s_openapi::jiff::Timestamp;

use crate::lifetime;

#[derive(Clone, Debug)]
pub(crate) struct TokenTemplate {
    pub(crate) usages: Vec<Usage>,
    pub(crate) groups: Vec<Group>,
    pub(crate) description: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The lifetime. `None`: the token never expires.
    pub(crate) ttl: Option<Duration>,
}

impl TokenTemplate {
    /// A new token whose lifetime starts `now`.
    pub(crate) fn token(
        &self,
        token: Token,
        annotations: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<NewToken, Error> {
        Ok(NewToken {
            token,
            usages: self.usages.clone(),
            groups: self.groups.clone(),
            expiration: self.ttl.map(|ttl| lifetime::expiry(now, ttl)).transpose()?,
            description: self.description.clone(),
            labels: self.labels.clone(),
            annotations,
        })
    }
}
