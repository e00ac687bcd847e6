//! How Rancher names the Secret that its agent reads the token from.
//!
//! The name is a hash of the content, so that another token means another Secret and a rollout. A Secret under the name that
//! Rancher itself would choose gives Rancher nothing to change.

use std::fmt::Write as _;

use client::secret::Secret;
use md5::Md5;
use sha2::{Digest, Sha256};

use crate::cluster_id::ClusterId;

/// The prefix of all such names.
pub(crate) const PREFIX: &str = "cattle-credentials-";

/// A formula for the name (`systemtemplate/import.go` of Rancher).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formula {
    /// First 10 hexadecimal digits of SHA-256 over `url.token.namespace`, joined by dots: Rancher 2.9.9, 2.10.5, 2.11.1
    /// and later. Seen on 2.12.0 and 2.15.0.
    Sha256,
    /// First 7 hexadecimal digits of MD5 over url, token and namespace without separators: all earlier releases.
    Md5,
}

impl Formula {
    /// All of them, the current one first.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Md5];

    /// The name of the Secret with these three values. Rancher's import manifest has an empty namespace.
    pub fn name(self, url: &str, token: &Secret, namespace: &str) -> String {
        let (digest, digits) = match self {
            Self::Sha256 => (hex::<Sha256>(&[url, ".", token.expose(), ".", namespace]), 10),
            Self::Md5 => (hex::<Md5>(&[url, token.expose(), namespace]), 7),
        };
        format!("{PREFIX}{}", &digest[..digits])
    }

    /// The name that Rancher chooses for a token of this cluster when it deploys the agent.
    pub fn name_for(self, url: &str, token: &Secret, cluster: &ClusterId) -> String {
        self.name(url, token, cluster.as_str())
    }

    /// The formula by which a Secret with these values was named. None: it was created or changed by hand.
    pub fn recognise(name: &str, url: &str, token: &Secret, namespace: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|formula| formula.name(url, token, namespace) == name)
    }

    /// The formula of a Rancher whose Secret does not tell: the variable `CATTLE_CREDENTIAL_NAME` was added to the agent's
    /// manifest together with the current formula.
    pub fn of_manifest(has_credential_name: bool) -> Self {
        if has_credential_name { Self::Sha256 } else { Self::Md5 }
    }
}

pub(crate) fn hex<D: Digest>(parts: &[&str]) -> String {
    let mut hash = D::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
