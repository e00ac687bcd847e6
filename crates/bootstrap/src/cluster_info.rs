//! ConfigMap `kube-public/cluster-info`: where nodes find the API server, signed with the bootstrap tokens.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use client::request::{self, Resource};
use client::yaml;
use hmac::{Hmac, KeyInit as _, Mac as _};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::error::{Error, Result};
use crate::token::{Token, TokenId};

/// The namespace of the ConfigMap.
pub const NAMESPACE: &str = "kube-public";
/// The name of the ConfigMap.
pub const NAME: &str = "cluster-info";
const CONFIG_MAP: Resource = Resource::new("ConfigMap", "v1", "configmaps");
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

/// The content of the ConfigMap.
#[derive(Clone, Debug)]
pub struct ClusterInfo {
    /// The address of the API server.
    pub server: String,
    /// The certificate authority that nodes trust, as PEM. `None`: the system's roots.
    pub authority: Option<String>,
    /// The kubeconfig, which is what is signed.
    pub kubeconfig: String,
    /// The signatures by token.
    pub signatures: BTreeMap<TokenId, String>,
}

/// Whether `cluster-info` is signed with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signature {
    /// The signature is valid.
    Valid,
    /// The signature is of another kubeconfig or another token.
    Stale,
    /// There is no signature.
    Missing,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Valid => "valid",
            Self::Stale => "stale",
            Self::Missing => "missing",
        })
    }
}

/// Reads the ConfigMap. `None`: there is none, as in clusters that kubeadm did not create.
pub async fn read(client: &kube::Client) -> Result<Option<ClusterInfo>> {
    let found: Option<ConfigMap> = request::get(client, CONFIG_MAP, Some(NAMESPACE), NAME).await?;
    found
        .map(|map| ClusterInfo::of(&map.data.unwrap_or_default()))
        .transpose()
}

impl ClusterInfo {
    fn of(data: &BTreeMap<String, String>) -> Result<Self> {
        let kubeconfig = data.get(KUBECONFIG);
        let kubeconfig = kubeconfig.ok_or(Error::InvalidClusterInfo("has no kubeconfig"))?;
        let cluster = only_cluster(kubeconfig)?;
        let authority = cluster.authority.filter(|data| !data.is_empty());
        let authority = authority.map(|data| {
            let bytes = STANDARD.decode(data.trim()).ok();
            let pem = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            pem.ok_or(Error::InvalidClusterInfo(
                "has a certificate authority that is not base64-encoded PEM",
            ))
        });
        let signatures = data.iter().filter_map(|(key, value)| {
            let id = key.strip_prefix(SIGNATURE_PREFIX)?.parse().ok()?;
            Some((id, value.clone()))
        });
        Ok(Self {
            server: cluster.server,
            authority: authority.transpose()?,
            kubeconfig: kubeconfig.clone(),
            signatures: signatures.collect(),
        })
    }

    /// Whether the kubeconfig is signed with this token.
    pub fn signature(&self, token: &Token) -> Signature {
        match self.signatures.get(&token.id) {
            None => Signature::Missing,
            Some(signature) if *signature == sign(&self.kubeconfig, token.id.as_str(), token.secret().expose()) => {
                Signature::Valid
            }
            Some(_) => Signature::Stale,
        }
    }
}

#[derive(Deserialize)]
struct Cluster {
    server: String,
    #[serde(rename = "certificate-authority-data")]
    authority: Option<String>,
}

/// The cluster of the kubeconfig, which has only one.
fn only_cluster(kubeconfig: &str) -> Result<Cluster> {
    #[derive(Deserialize)]
    struct Kubeconfig {
        clusters: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        cluster: Cluster,
    }
    let parsed: Kubeconfig =
        yaml::from_str(kubeconfig).map_err(|_| Error::InvalidClusterInfo("has an invalid kubeconfig"))?;
    let first = parsed.clusters.into_iter().next();
    first
        .map(|named| named.cluster)
        .ok_or(Error::InvalidClusterInfo("has a kubeconfig without a cluster"))
}

/// A detached JWS over `content`; the key is the secret half only (`token/jws/jws.go` in cluster-bootstrap v0.36.3). Verifiers
/// compare texts, so the header must be exactly this.
fn sign(content: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(format!("{header}.{}", URL_SAFE_NO_PAD.encode(content)).as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use client::secret::Secret;

    use super::*;

    #[test]
    fn a_signature_matches_the_vectors_of_kubernetes() {
        // token/jws/jws_test.go of cluster-bootstrap v0.36.3.
        let content = "Hello from the other side. I must have called a thousand times.";
        let head = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..";
        for (content, secret, signature) in [
            (
                content,
                "my voice is my passcode",
                "VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8",
            ),
            (
                "",
                "my voice is my passcode",
                "7Ui1ALizW4jXphVUB7xUqC9vLYLL9RZeOFfVLoB7Tgk",
            ),
            (content, "", "UfkqvDGiIFxrMnFseDj9LYJOLNrvjW8aHhF71mvvAs8"),
        ] {
            assert_eq!(sign(content, "joshua", secret), format!("{head}{signature}"));
        }
    }

    fn info(signature: Option<&str>) -> Result<ClusterInfo> {
        let ca = STANDARD.encode("-----BEGIN CERTIFICATE-----\n");
        let kubeconfig = format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: https://1.2.3.4:6443\n  name: \"\"\ncontexts: null\nkind: Config\n"
        );
        let mut data = BTreeMap::from([(KUBECONFIG.to_owned(), kubeconfig)]);
        if let Some(signature) = signature {
            data.insert("jws-kubeconfig-abcdef".to_owned(), signature.to_owned());
        }
        ClusterInfo::of(&data)
    }

    #[test]
    fn a_signature_is_valid_stale_or_missing() {
        let token = Token::parse(&Secret::new("abcdef.0123456789abcdef")).unwrap();
        let bare = info(None).unwrap();
        assert_eq!(bare.server, "https://1.2.3.4:6443");
        assert_eq!(bare.authority.as_deref(), Some("-----BEGIN CERTIFICATE-----\n"));
        assert_eq!(bare.signature(&token), Signature::Missing);
        let valid = sign(&bare.kubeconfig, "abcdef", "0123456789abcdef");
        assert_eq!(info(Some(&valid)).unwrap().signature(&token), Signature::Valid);
        let stale = sign("other", "abcdef", "0123456789abcdef");
        assert_eq!(info(Some(&stale)).unwrap().signature(&token), Signature::Stale);
    }

    #[test]
    fn an_error_does_not_quote_the_content() {
        let of = |text: &str| ClusterInfo::of(&BTreeMap::from([(KUBECONFIG.to_owned(), text.to_owned())]));
        assert_eq!(
            of("clusters: 7").unwrap_err().to_string(),
            "ConfigMap kube-public/cluster-info has an invalid kubeconfig"
        );
        assert!(of("clusters: []").is_err() && ClusterInfo::of(&BTreeMap::new()).is_err());
    }
}
