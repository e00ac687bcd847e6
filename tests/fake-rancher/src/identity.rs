//! The identity of a registered cluster: the uid of its namespace kube-system and its CA. All registered clusters share
//! one API server here, so each client gets the values of its own cluster, and the agents' namespace under its usual
//! name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::{Api, paths, read};
use crate::rewrite::{Rewriter, in_uri};
use crate::token::hex;
use crate::world::{AGENT_NAMESPACE, agent_namespace};

/// Harvester's setting with the import URL, which is not in a namespace.
const HARVESTER_URL: &str = "cluster-registration-url";

/// The uid of a cluster's namespace kube-system. It is derived from the cluster's id, so nothing is stored.
fn kube_system_uid(id: &str) -> String {
    let digest = hex(&Sha256::digest(format!("kube-system of {id}")));
    // The form of a random uid: version 4, variant 8.
    format!(
        "{}-{}-4{}-8{}-{}",
        &digest[..8],
        &digest[8..12],
        &digest[13..16],
        &digest[17..20],
        &digest[20..32]
    )
}

/// The certificate of a CA, PEM. It is derived from the name: an Ed25519 key from a seed gives the same signature each
/// time.
fn ca(name: &str) -> Result<String> {
    let (params, key) = authority(name)?;
    Ok(params.self_signed(&key)?.pem())
}

fn authority(name: &str) -> Result<(CertificateParams, KeyPair)> {
    // PKCS #8 version 1 of an Ed25519 key, up to the 32 bytes of the seed (RFC 8410, section 7).
    let mut key = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    key.extend_from_slice(&Sha256::digest(format!("CA of {name}")));
    let key = KeyPair::try_from(key.as_slice())?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("{name} CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok((params, key))
}

/// A serving certificate for this machine that the CA of the cluster has signed: `certificate`, its `key`, and the `ca`, PEM.
pub(crate) fn serving_certificate(id: &str) -> Result<Value> {
    let (params, key) = authority(id)?;
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(serde_json::json!({"ca": ca(id)?, "certificate": certificate, "key": key.serialize_pem()}))
}

/// `status.caCert` of a Cluster: the CA that its agent reported, base64 of the PEM (seen on Rancher 2.15.0 and 2.12.0).
pub(crate) fn ca_cert(id: &str) -> Result<String> {
    Ok(STANDARD.encode(ca(id)?))
}

/// The same from before the cluster's CA was replaced.
pub(crate) fn stale_ca_cert(id: &str) -> Result<String> {
    Ok(STANDARD.encode(ca(&format!("former {id}"))?))
}

/// The identity of the API server that all registered clusters share.
pub(crate) struct Shared {
    kube_system_uid: String,
    ca: String,
    /// Created once for each cluster, because a signature costs more than a whole response.
    views: Mutex<HashMap<String, Arc<View>>>,
}

impl Shared {
    /// Reads it. Kubernetes publishes the CA a moment after its start.
    pub(crate) async fn read(api: &Api) -> Result<Self> {
        let namespace = api.get(&paths::namespace("kube-system")).await?;
        let namespace = namespace.context("the downstream cluster has no namespace kube-system")?;
        let published = paths::config_map("kube-system", "kube-root-ca.crt");
        for _ in 0..600 {
            if let Some(map) = api.get(&published).await? {
                return Ok(Self {
                    kube_system_uid: read::text(&namespace, "/metadata/uid").to_owned(),
                    ca: map["data"]["ca.crt"].as_str().unwrap_or_default().to_owned(),
                    views: Mutex::default(),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the downstream cluster has published no CA in 30 s")
    }

    /// The view of a client of one cluster.
    pub(crate) fn view(&self, id: &str) -> Result<Arc<View>> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(id) {
            return Ok(view.clone());
        }
        // The text in JSON, without the final line break, which some writers omit.
        let in_json = |pem: &str| {
            let quoted = Value::from(pem.trim_end()).to_string();
            quoted.trim_matches('"').to_owned()
        };
        let view = Arc::new(View {
            id: id.to_owned(),
            exchanged: [
                (AGENT_NAMESPACE.to_owned(), agent_namespace(id)),
                (HARVESTER_URL.to_owned(), format!("{HARVESTER_URL}-{id}")),
                (kube_system_uid(id), self.kube_system_uid.clone()),
                (in_json(&ca(id)?), in_json(&self.ca)),
            ],
        });
        views.insert(id.to_owned(), view.clone());
        Ok(view)
    }
}

/// The replacements for a client of one cluster.
pub(crate) struct View {
    /// The cluster.
    pub(crate) id: String,
    /// Each value as the client sees it, and the real one.
    exchanged: [(String, String); 4],
}

impl View {
    /// The path and query of a request, as the API server knows it.
    pub(crate) fn uri_inward(&self, uri: &str) -> String {
        let [agents, harvester, ..] = &self.exchanged;
        [agents, harvester]
            .into_iter()
            .fold(uri.to_owned(), |uri, (seen, real)| in_uri(seen, real, &uri))
    }

    /// The body of a request, as the API server knows it.
    pub(crate) fn body_inward(&self, body: Vec<u8>) -> Vec<u8> {
        self.exchanged
            .iter()
            .fold(body, |body, (seen, real)| Rewriter::whole(seen, real, &body))
    }

    /// Replaces the values in a response as it flows.
    pub(crate) fn outward(&self) -> Outward {
        Outward(
            self.exchanged
                .iter()
                .map(|(seen, real)| Rewriter::new(real, seen))
                .collect(),
        )
    }
}

/// A response that flows to the client.
pub(crate) struct Outward(Vec<Rewriter>);

impl Outward {
    /// Takes a chunk, and returns the part that can be passed on.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.0
            .iter_mut()
            .fold(chunk.to_vec(), |chunk, rewriter| rewriter.push(&chunk))
    }

    /// The rest at the end of the stream.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.0.iter_mut().fold(Vec::new(), |rest, rewriter| {
            let mut out = rewriter.push(&rest);
            out.extend(rewriter.finish());
            out
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        Shared {
            kube_system_uid: "3f1c9a52-6a0e-4c0b-9d6e-0c1f4b7f2a11".to_owned(),
            ca: ca("shared").unwrap(),
            views: Mutex::default(),
        }
    }

    #[test]
    fn a_cluster_keeps_its_identity_and_no_two_share_one() {
        assert_eq!(kube_system_uid("c-aaaaa"), kube_system_uid("c-aaaaa"));
        assert_ne!(kube_system_uid("c-aaaaa"), kube_system_uid("c-bbbbb"));
        assert_eq!(kube_system_uid("c-aaaaa").len(), 36);
        assert_eq!(ca("c-aaaaa").unwrap(), ca("c-aaaaa").unwrap());
        assert_ne!(ca("c-aaaaa").unwrap(), ca("c-bbbbb").unwrap());
        assert_ne!(ca_cert("c-aaaaa").unwrap(), stale_ca_cert("c-aaaaa").unwrap());
    }

    #[test]
    fn a_response_shows_the_clusters_own_values_wherever_it_is_split() {
        let shared = shared();
        let view = shared.view("c-aaaaa").unwrap();
        let there = serde_json::json!({
            "metadata": {"uid": shared.kube_system_uid, "namespace": "cattle-system-c-aaaaa"}, "data": {"ca.crt": shared.ca},
        })
        .to_string();
        let here = serde_json::json!({
            "metadata": {"uid": kube_system_uid("c-aaaaa"), "namespace": "cattle-system"},
            "data": {"ca.crt": ca("c-aaaaa").unwrap()},
        })
        .to_string();
        for cut in (0..there.len()).step_by(7) {
            let mut outward = view.outward();
            let mut out = outward.push(&there.as_bytes()[..cut]);
            out.extend(outward.push(&there.as_bytes()[cut..]));
            out.extend(outward.finish());
            assert_eq!(String::from_utf8(out).unwrap(), here, "cut at {cut}");
        }
        assert_eq!(view.body_inward(here.into_bytes()), there.into_bytes());
    }
}
