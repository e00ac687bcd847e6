//! `stv-aggregation`: what an agent writes when it has connected, and so the best record of the token it connected with.
//!
//! Every agent that connects writes it, the last one wins, and all of them open their second tunnel with what it says
//! (`pkg/agent/rancher` and steve's `pkg/aggregation/watch.go`; seen on Rancher 2.15.0 and 2.12.0).

use client::request::{self, SECRET};
use client::secret::Fingerprint;
use serde::Deserialize;

use super::NAMESPACE;
use crate::error::Result;
use crate::object::{self, Observed, Problem, decoded};

/// The Secret's name.
const NAME: &str = "stv-aggregation";
/// What stands before the token in the credential of the second tunnel.
pub(crate) const STV_PREFIX: &str = "stv-cluster-";

/// What the agent that connected last has written. The token itself is not kept: only which one it is matters.
#[derive(Clone, Debug)]
pub struct StvAggregation {
    /// Name, uid and version of the object.
    pub object: Observed,
    /// Which token that agent connected with (`CATTLE_TOKEN`).
    pub token: Option<Fingerprint>,
    /// Which token the second tunnel is opened with (`token`, without `stv-cluster-`).
    pub tunnel_token: Option<Fingerprint>,
    /// `CATTLE_SERVER`: Rancher's URL.
    pub server_url: Option<String>,
    /// `CATTLE_CA_CHECKSUM`: the checksum of the CA that the agent was given.
    pub ca_checksum: Option<String>,
    /// `url`: where the second tunnel is opened, e.g. `https://rancher.example.com/v3/connect`.
    pub tunnel_url: Option<String>,
    /// Values that make no sense.
    pub problems: Vec<Problem>,
}

impl StvAggregation {
    /// Both of its keys name this token.
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
    url: Option<String>,
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
        let tunnel_url = text(data.url, "data.url");
        let tunnel_token = tunnel.as_deref().and_then(|text| text.strip_prefix(STV_PREFIX));
        if tunnel.is_some() && tunnel_token.is_none() {
            problems.push(Problem {
                field: "data.token",
                what: "does not begin with stv-cluster-",
            });
        }
        StvAggregation {
            object: self.metadata.observed(),
            token: token.as_deref().map(Fingerprint::of),
            tunnel_token: tunnel_token.map(Fingerprint::of),
            server_url,
            ca_checksum,
            tunnel_url,
            problems,
        }
    }
}

/// Reads it; None if no agent has ever connected.
pub async fn stv_aggregation(client: &kube::Client) -> Result<Option<StvAggregation>> {
    let raw: Option<RawSecret> = request::get(client, SECRET, Some(NAMESPACE), NAME).await?;
    Ok(raw.map(RawSecret::read))
}
