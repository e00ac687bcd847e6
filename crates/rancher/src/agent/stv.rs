//! `stv-aggregation`: the Secret that an agent writes when it has connected. It proves which token the agent connected with.
//!
//! Every agent that connects writes it, the last one wins, and all of them open their second tunnel with its content
//! (`pkg/agent/rancher` and steve's `pkg/aggregation/watch.go`; seen on Rancher 2.15.0 and 2.12.0).

use client::request::{self, SECRET};
use client::secret::Fingerprint;
use serde::Deserialize;

use super::NAMESPACE;
use crate::error::Result;
use crate::object::{self, decoded};

/// The Secret's name.
const NAME: &str = "stv-aggregation";
/// The prefix of the token in the credential of the second tunnel.
pub(crate) const STV_PREFIX: &str = "stv-cluster-";

/// What the agent that connected last has written. Of the tokens only the fingerprints are kept.
#[derive(Clone, Debug)]
pub struct StvAggregation {
    /// The token that the agent connected with (`CATTLE_TOKEN`).
    pub token: Option<Fingerprint>,
    /// The token that the second tunnel is opened with (`token`, without `stv-cluster-`).
    pub tunnel_token: Option<Fingerprint>,
    /// `CATTLE_SERVER`: Rancher's URL.
    pub server_url: Option<String>,
    /// `CATTLE_CA_CHECKSUM`: the checksum of the CA that the agent trusts.
    pub ca_checksum: Option<String>,
}

impl StvAggregation {
    /// Whether both tunnels use this token.
    pub fn names(&self, token: Fingerprint) -> bool {
        self.token == Some(token) && self.tunnel_token == Some(token)
    }
}

type RawSecret = object::RawSecret<RawData>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawData {
    #[serde(rename = "CATTLE_TOKEN")]
    cattle_token: Option<String>,
    #[serde(rename = "CATTLE_SERVER")]
    cattle_server: Option<String>,
    #[serde(rename = "CATTLE_CA_CHECKSUM")]
    cattle_ca_checksum: Option<String>,
    token: Option<String>,
}

impl RawSecret {
    fn read(self) -> StvAggregation {
        let data = self.data.unwrap_or_default();
        let mut problems = Vec::new();
        let mut text = |encoded: Option<String>, field| decoded(encoded.as_deref(), field, &mut problems);
        let token = text(data.cattle_token, "data.CATTLE_TOKEN");
        let server_url = text(data.cattle_server, "data.CATTLE_SERVER");
        let ca_checksum = text(data.cattle_ca_checksum, "data.CATTLE_CA_CHECKSUM");
        let tunnel = text(data.token, "data.token");
        let tunnel_token = tunnel.as_deref().and_then(|text| text.strip_prefix(STV_PREFIX));
        StvAggregation {
            token: token.as_deref().map(Fingerprint::of),
            tunnel_token: tunnel_token.map(Fingerprint::of),
            server_url,
            ca_checksum,
        }
    }
}

/// Reads it. None: no agent has ever connected.
pub async fn stv_aggregation(client: &kube::Client) -> Result<Option<StvAggregation>> {
    let raw: Option<RawSecret> = request::get(client, SECRET, Some(NAMESPACE), NAME).await?;
    Ok(raw.map(RawSecret::read))
}
