//! The clusters that Argo CD reaches through Rancher, their tokens, and the rotations in progress: what the rows of `list` are made of.

use std::collections::BTreeMap;

use argocd::{ClusterSecret, ServerUrl, connection, lookup};
use cli::app::Context;
use cli::rotation::leases::LeasedRotations;
use client::error::Error;
use futures::stream::{self, StreamExt as _};
use k8s_openapi::jiff::Timestamp;
use rancher::api_token::ApiToken;
use rancher::api_token::proof::CallResult;

use crate::address::RancherAddress as _;
use crate::connections::{ARGOCD, Argo, Rancher};
use crate::report::Part;
use crate::rotation::ArgocdRancher;
use crate::row::{Row, RowInputs};
use crate::token_check::TokenCheck;

/// How many tokens are probed in parallel. A disconnected agent takes Rancher half a minute to report.
const PARALLEL: usize = 16;

/// Everything that the rows are made of.
pub(crate) struct Inventory {
    pub(crate) clusters: Vec<ClusterSecret>,
    duplicates: Vec<lookup::Duplicate>,
    /// The identity of Argo CD, for the marks of tokens.
    pub(crate) identity: Option<String>,
    own_tokens: Option<OwnTokens>,
    connections: BTreeMap<ServerUrl, connection::Connection>,
    rotations: LeasedRotations<ArgocdRancher>,
}

impl Inventory {
    pub(crate) async fn read(argo: &Argo, rancher: Option<&Rancher>, context: &Context) -> Result<Self, Error> {
        let (clusters, identity, own_tokens, connections, rotations) = futures::join!(
            argo.clusters(),
            argo.identity(),
            OwnTokens::read(rancher),
            connections(argo, context),
            LeasedRotations::read(&argo.server, Some(&argo.namespace), ARGOCD)
        );
        let clusters = clusters?;
        Ok(Self {
            duplicates: lookup::duplicates(&clusters),
            identity: identity?,
            own_tokens: own_tokens?,
            connections,
            rotations: rotations?,
            clusters,
        })
    }

    /// The row of a cluster. `None`: it is not reached through Rancher.
    pub(crate) fn row(
        &self,
        cluster: &ClusterSecret,
        probed: Option<Result<CallResult, Error>>,
        now: Timestamp,
    ) -> Option<Row> {
        let (probed, unprobed) = match probed {
            Some(Ok(result)) => (Some(result), None),
            Some(Err(error)) => (None, Some(error.message)),
            None => (None, None),
        };
        let name = &cluster.object.name;
        let duplicates = self.duplicates.iter().filter(|it| it.secrets.contains(name));
        let own = self.own_tokens.as_ref();
        let inputs = RowInputs {
            tokens: own.and_then(|own| own.of(cluster)),
            user: own.map(|own| own.user.as_str()),
            duplicates: duplicates.map(ToString::to_string).collect(),
            probed,
            unprobed,
            connection: self.connections.get(&cluster.server).copied(),
            rotation: self.rotation(cluster),
            now,
        };
        Row::of(cluster, &inputs)
    }

    /// The rotation of a cluster's token in progress.
    fn rotation(&self, cluster: &ClusterSecret) -> Option<Part> {
        let object = &cluster.object;
        self.rotations.of(&object.namespace, &object.name).and_then(Part::of)
    }

    /// Calls Rancher and the cluster with each token. A token that is being rotated is skipped: the call could be mistaken for one of Argo CD.
    pub(crate) async fn probe(&self, argo: &Argo, rancher: Option<&Rancher>) -> Vec<Option<Result<CallResult, Error>>> {
        let is_free = |cluster: &&ClusterSecret| self.rotation(cluster).is_none();
        // A vector: futures that borrow from a closure's argument are not `Send`.
        let probes: Vec<_> = self
            .clusters
            .iter()
            .map(|cluster| probe(argo, rancher, Some(cluster).filter(is_free)))
            .collect();
        stream::iter(probes).buffered(PARALLEL).collect().await
    }

    /// The tokens of the Rancher user.
    pub(crate) fn own_tokens(&self) -> &[ApiToken] {
        self.own_tokens.as_ref().map_or(&[], |own| &own.tokens)
    }
}

/// The Rancher user of this command, and their tokens.
pub(crate) struct OwnTokens {
    pub(crate) user: String,
    tokens: Vec<ApiToken>,
    rancher: Rancher,
}

impl OwnTokens {
    pub(crate) async fn read(rancher: Option<&Rancher>) -> Result<Option<Self>, Error> {
        let Some(rancher) = rancher else { return Ok(None) };
        Ok(Some(Self {
            user: rancher.whoami().await?.id,
            tokens: rancher.tokens().await?,
            rancher: rancher.clone(),
        }))
    }

    /// Those that count for a cluster. `None`: it is reached through another Rancher.
    pub(crate) fn of(&self, cluster: &ClusterSecret) -> Option<&[ApiToken]> {
        self.rancher.serves(cluster).then_some(self.tokens.as_slice())
    }
}

/// The connection state that Argo CD reports. It is empty if it cannot be read.
async fn connections(argo: &Argo, context: &Context) -> BTreeMap<ServerUrl, connection::Connection> {
    match connection::read(&argo.server.client, &argo.namespace).await {
        Ok(connections) => connections.unwrap_or_default(),
        Err(error) => {
            let error: Error = error.into();
            context
                .ui
                .log(4, || format!("cannot read the connection state of Argo CD: {error}"));
            BTreeMap::new()
        }
    }
}

async fn probe(
    argo: &Argo,
    rancher: Option<&Rancher>,
    cluster: Option<&ClusterSecret>,
) -> Option<Result<CallResult, Error>> {
    let cluster = cluster?;
    // Any other cluster has no row.
    cluster.server.rancher()?;
    let config = cluster.config.as_ref().ok()?;
    let token = config.bearer_token()?;
    let check = TokenCheck::of(cluster, config, &token);
    Some(check.reach(argo, rancher).await)
}
