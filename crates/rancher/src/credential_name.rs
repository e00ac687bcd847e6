//! How Rancher names the Secret that its agents read their token from.
//!
//! The name is a hash of what the Secret holds, so that another token is another Secret and the Deployment rolls. A tool
//! that places a token under the name that Rancher itself would choose leaves Rancher nothing to change.

use std::fmt::Write as _;

use client::secret::Secret;
use md5::Md5;
use sha2::{Digest, Sha256};

use crate::cluster_id::ClusterId;

/// What all such names begin with.
pub(crate) const PREFIX: &str = "cattle-credentials-";

/// A way of naming (`systemtemplate/import.go` of Rancher).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formula {
    /// First 10 hexadecimal digits of SHA-256 over `url.token.namespace`, joined by dots: Rancher 2.9.9, 2.10.5, 2.11.1
    /// and later. Seen on 2.12.0 and 2.15.0.
    Sha256,
    /// First 7 hexadecimal digits of MD5 over url, token and namespace without anything between: all before.
    Md5,
}

/// What the `namespace` key of the Secret says, which is part of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The cluster's id: applied by Rancher itself, or by its node plan.
    Deployed(ClusterId),
    /// Empty: from the import manifest. Rancher's first own deployment replaces it by one of another name.
    Imported,
    /// Neither.
    Strange(String),
}

impl Origin {
    /// From the text in the Secret.
    pub fn of(namespace: &str) -> Self {
        match namespace {
            "" => Self::Imported,
            text => text
                .parse()
                .map_or_else(|_| Self::Strange(text.to_owned()), Self::Deployed),
        }
    }
}

impl Formula {
    /// All of them, the present one first.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Md5];

    /// The name of the Secret with exactly these three values.
    pub fn name(self, url: &str, token: &Secret, namespace: &str) -> String {
        let (digest, digits) = match self {
            Self::Sha256 => (hex::<Sha256>(&[url, ".", token.expose(), ".", namespace]), 10),
            Self::Md5 => (hex::<Md5>(&[url, token.expose(), namespace]), 7),
        };
        format!("{PREFIX}{}", &digest[..digits])
    }

    /// The name that Rancher would choose for a token of this cluster when it deploys the agent, wherever the live Secret
    /// came from.
    pub fn name_for(self, url: &str, token: &Secret, cluster: &ClusterId) -> String {
        self.name(url, token, cluster.as_str())
    }

    /// The formula that a live Secret was named by, recomputed from its own values. None: it was made, or changed, by
    /// hand.
    pub fn recognise(name: &str, url: &str, token: &Secret, namespace: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|formula| formula.name(url, token, namespace) == name)
    }

    /// The formula of a Rancher whose Secret tells nothing: the variable `CATTLE_CREDENTIAL_NAME` came into the agent's
    /// manifest with the present formula.
    pub fn of_manifest(has_credential_name: bool) -> Self {
        if has_credential_name { Self::Sha256 } else { Self::Md5 }
    }
}

fn hex<D: Digest>(parts: &[&str]) -> String {
    let mut hash = D::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
