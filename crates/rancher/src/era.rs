//! The two ways in which Rancher keeps registration tokens, told apart by the objects that are there.
//!
//! Never by the version: 2.13.8, 2.14.4 and 2.15.0 have changed sides within their lines, and a server that was put back
//! to an older version says the older version over objects of the newer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::settings::{TTL_ROTATION, feature};
use crate::token::{Listing, RegistrationToken};

/// Where a registration token's value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Era {
    /// Era P: in the token's `status.token`. It lives until it is deleted.
    Plain,
    /// Era S: in a Secret, with a previous value, an expiry and a grace time.
    Secret,
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Secret => "secret",
        })
    }
}

/// Tokens of both eras on one server: a migration that Rancher has begun and not finished
/// (rancher/rancher issues 56487 and 57078), or a server that was put back to an older version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Rancher keeps registration tokens both in Secrets and in the tokens themselves (without a Secret: {}); \
     its migration is half done",
    plain.join(", ")
)]
pub struct MixedEra {
    /// `namespace/name` of the tokens that are not what the rest of the server says. In era S a token has no Secret in its
    /// first second; one that is seen here twice, seconds apart, is half-migrated.
    pub plain: Vec<String>,
}

impl Era {
    /// The era of a server by whether it has the feature `crt-token-ttl-rotation`, and by some of its tokens: those of one
    /// cluster to decide about that cluster, or all. `MixedEra` if they contradict each other.
    pub fn of<'a>(
        has_feature: bool,
        tokens: impl IntoIterator<Item = &'a RegistrationToken>,
    ) -> Result<Self, MixedEra> {
        let mut in_secret = has_feature;
        let mut plain = Vec::new();
        for token in tokens.into_iter().filter(|token| !token.deleting) {
            if token.secret_name.is_some() || token.secret.is_some() {
                in_secret = true;
            }
            if token.secret_name.is_none() {
                plain.push(format!("{}/{}", token.object.namespace, token.object.name));
            }
        }
        match (in_secret, plain.is_empty()) {
            (false, _) => Ok(Self::Plain),
            (true, true) => Ok(Self::Secret),
            (true, false) => Err(MixedEra { plain }),
        }
    }
}

/// The era of a server, from the feature object and, where the caller may not read that or it is not there, from the
/// first tokens. It does not look for a mixed state: [`Era::of`] does, with the tokens at hand.
pub async fn detect(client: &kube::Client) -> Result<Era> {
    match feature(client, TTL_ROTATION).await {
        Ok(Some(_)) => return Ok(Era::Secret),
        Ok(None) => {}
        Err(error) if error.is_forbidden() => {}
        Err(error) => return Err(error),
    }
    let first = Listing::tokens_only(client.clone()).next().await?.unwrap_or_default();
    let in_secret = first.tokens.iter().any(|token| token.secret_name.is_some());
    Ok(if in_secret { Era::Secret } else { Era::Plain })
}
