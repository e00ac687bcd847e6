//! The clusters that Argo CD reaches through Rancher, their tokens, and the rotations in progress: what the rows of `list` are made of.

use std::collections::BTreeMap;

use argocd::{ClusterSecret, ServerUrl, connection, lookup};
use cli::app::Context;
use cli::rotation::leases::LeasedRotations;
use client::error::Error;
use engine::journal::Journal;
use futures::stream::{self, StreamExt as _};
use k8s_openapi::jiff::Timestamp;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{self, ApiToken};

use crate::connections::{ARGOCD, Argo, Rancher};
use crate::mark;
use crate::report::{LeasedRotation, Part};
use crate::rotation::ArgocdRancher;
use crate::row::{Row, RowInputs};
use crate::token_check::TokenCheck;

/// How many tokens are probed in parallel.
const PARALLEL: usize = 8;

/// Everything that the rows are made of.
pub(crate) struct Inventory {
    pub(crate) clusters: Vec<ClusterSecret>,
    duplicates: Vec<lookup::Duplicate>,
    /// The identity of Argo CD, for the marks of tokens.
    identity: Option<String>,
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
    pub(crate) fn row(&self, cluster: &ClusterSecret, probed: Option<CallResult>, now: Timestamp) -> Option<Row> {
        let name = &cluster.object.name;
        let duplicates = self.duplicates.iter().filter(|it| it.secrets.contains(name));
        let own = self.own_tokens.as_ref();
        let inputs = RowInputs {
            tokens: own
                .filter(|own| own.rancher.serves(cluster))
                .map(|own| own.tokens.as_slice()),
            user: own.map(|own| own.user.as_str()),
            duplicates: duplicates.map(ToString::to_string).collect(),
            probed,
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

    /// Calls Rancher with each token. A token that is being rotated is skipped: the call could be mistaken for one of Argo CD.
    pub(crate) async fn probe(&self, argo: &Argo, rancher: Option<&Rancher>) -> Vec<Option<CallResult>> {
        let is_free = |cluster: &&ClusterSecret| self.rotation(cluster).is_none();
        // A vector: futures that borrow from a closure's argument are not `Send`.
        let probes: Vec<_> = self
            .clusters
            .iter()
            .map(|cluster| probe(argo, rancher, Some(cluster).filter(is_free)))
            .collect();
        stream::iter(probes).buffered(PARALLEL).collect().await
    }

    /// Warns about valid tokens that were issued for Secrets here but are in none, and that no rotation in progress uses or revokes.
    pub(crate) fn warn_about_leftovers(&self, namespace: &str, now: Timestamp, context: &Context) {
        let tokens = self.own_tokens.iter().flat_map(|own| &own.tokens);
        for token in tokens.filter(|token| token.is_valid(now)) {
            let Some(mark) = mark::of_ours(token, self.identity.as_deref(), false) else {
                continue;
            };
            let is_here = mark.subject.split_once('/').is_some_and(|(here, _)| here == namespace);
            if is_here && !self.is_held(token) && !self.is_rotated(token, &mark) {
                let used =
                    mark::recent_use(token, now).map_or_else(String::new, |ago| format!("; it was used {ago} ago"));
                context.ui.warn(format!(
                    "token {} was issued for Secret {} but is not in it: a run was killed, or is in progress{used}",
                    token.name, mark.subject,
                ));
            }
        }
    }

    /// A rotation in progress uses or revokes it.
    fn is_rotated(&self, token: &ApiToken, mark: &api_token::Mark) -> bool {
        let mut runs = self
            .rotations
            .all()
            .filter_map(LeasedRotation::journal)
            .map(Journal::run);
        runs.any(|run| {
            let tokens = [Some(&run.record.old), run.record.new.as_ref()];
            let mut names = tokens.into_iter().flatten().filter_map(|token| token.name.as_ref());
            run.id.to_string() == mark.run || names.any(|name| name.0 == token.name.as_str())
        })
    }

    fn is_held(&self, token: &ApiToken) -> bool {
        let mut held = self.clusters.iter().filter_map(ClusterSecret::token);
        held.any(|value| api_token::Credential::of(&value).api_token() == Some(&token.name))
    }
}

/// The Rancher user of this command, and their tokens.
struct OwnTokens {
    user: String,
    tokens: Vec<ApiToken>,
    rancher: Rancher,
}

impl OwnTokens {
    async fn read(rancher: Option<&Rancher>) -> Result<Option<Self>, Error> {
        let Some(rancher) = rancher else { return Ok(None) };
        Ok(Some(Self {
            user: rancher.whoami().await?.id,
            tokens: rancher.tokens().await?,
            rancher: rancher.clone(),
        }))
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

async fn probe(argo: &Argo, rancher: Option<&Rancher>, cluster: Option<&ClusterSecret>) -> Option<CallResult> {
    let cluster = cluster?;
    let config = cluster.config.as_ref().ok()?;
    let token = config.bearer_token()?;
    let check = TokenCheck::of(cluster, config, &token);
    check.at_rancher(argo, rancher).await.ok()
}
