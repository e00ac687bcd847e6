//! Where Rancher keeps the values of registration tokens, by the objects that exist.
//!
//! Never by the version: 2.13.8, 2.14.4 and 2.15.0 changed it within their minor releases, and a server that was downgraded
//! reports the older version while the objects are those of the newer one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::settings::{TTL_ROTATION, has_feature};
use crate::token::{Listing, RegistrationToken};

/// Where Rancher keeps the values of registration tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenStorage {
    /// In `status.token` of the ClusterRegistrationToken. A value is valid until the token is deleted.
    Status,
    /// In a Secret, with a previous value, an expiry and a grace period.
    Secret,
}

impl fmt::Display for TokenStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Status => "status",
            Self::Secret => "secret",
        })
    }
}

/// Tokens of both kinds on one server: an unfinished migration (rancher/rancher issues 56487 and 57078), or a server that was
/// downgraded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Rancher keeps registration tokens both in Secrets and in the status of the tokens (without a Secret: {}): \
     its migration is not finished, or it was downgraded",
    without_secret.join(", ")
)]
pub struct MixedTokenStorage {
    /// `namespace/name` of the tokens without a Secret. With storage `secret` a token has no Secret in its first second; one
    /// that is listed here twice, seconds apart, is not migrated.
    pub without_secret: Vec<String>,
}

impl TokenStorage {
    /// By whether the server has the feature `crt-token-ttl-rotation`, and by some of its tokens: those of one cluster to
    /// decide about that cluster, or all. An error if they contradict each other.
    pub fn of<'a>(
        has_feature: bool,
        tokens: impl IntoIterator<Item = &'a RegistrationToken>,
    ) -> Result<Self, MixedTokenStorage> {
        let mut in_secret = has_feature;
        let mut without_secret = Vec::new();
        for token in tokens.into_iter().filter(|token| !token.deleting) {
            if token.secret_name.is_some() || token.secret.is_some() {
                in_secret = true;
            }
            if token.secret_name.is_none() {
                without_secret.push(format!("{}/{}", token.object.namespace, token.object.name));
            }
        }
        match (in_secret, without_secret.is_empty()) {
            (false, _) => Ok(Self::Status),
            (true, true) => Ok(Self::Secret),
            (true, false) => Err(MixedTokenStorage { without_secret }),
        }
    }
}

/// By the feature object or, where the caller cannot read it or it does not exist, by the first tokens. Does not detect mixed
/// storage; [`TokenStorage::of`] does.
pub async fn detect(client: &kube::Client) -> Result<TokenStorage> {
    match has_feature(client, TTL_ROTATION).await {
        Ok(true) => return Ok(TokenStorage::Secret),
        Ok(false) => {}
        Err(error) if error.is_forbidden() => {}
        Err(error) => return Err(error),
    }
    let first = Listing::tokens_only(client.clone()).next().await?.unwrap_or_default();
    let in_secret = first.tokens.iter().any(|token| token.secret_name.is_some());
    Ok(if in_secret {
        TokenStorage::Secret
    } else {
        TokenStorage::Status
    })
}
