//! `kubectl argocd-rancher list`: every cluster that Argo CD reaches through Rancher, and its token.

use std::collections::BTreeMap;

use argocd::{ClusterSecret, ServerUrl, connection, lookup};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, ListKind, OutputFlags};
use cli::rotation::leases::LeasedRotations;
use client::error::Error;
use engine::journal::Journal;
use futures::stream::{self, StreamExt as _};
use k8s_openapi::jiff::Timestamp;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{self, ApiToken};

use crate::connections::{ARGOCD, Argo, Rancher, RancherFlags};
use crate::mark::{self, API_VERSION};
use crate::report::{LeasedRotation, Part};
use crate::rotation::ArgocdRancher;
use crate::row::{Row, RowInputs};
use crate::token_check::TokenCheck;

const LIST: ListKind = ListKind {
    api_version: API_VERSION,
    kind: "ArgoCDClusterList",
};
/// How many tokens are probed in parallel.
const PARALLEL: usize = 8;

/// The flags of `kubectl argocd-rancher list`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// Call Rancher with each token to check that it is accepted; counts as a use of the token
    #[arg(long)]
    pub probe: bool,

    /// How to reach Rancher.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// The output format.
    #[command(flatten)]
    pub output: OutputFlags,
}

const EXAMPLES: &str = "\
Examples:
  # List the clusters, with what Rancher reports about the tokens of this user
  kubectl argocd-rancher list --rancher-context rancher

  # Read the Secrets only, and check that Rancher accepts each token
  kubectl argocd-rancher list --probe

  # Print the reasons for each state, and the connection state that Argo CD reports
  kubectl argocd-rancher list --rancher-context rancher -o wide

Rancher lists a token only to its owner. The scope of other tokens is unknown.";

pub(crate) async fn run(list: List, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let is_table = !list.output.format()?.is_structured();
    let argo = Argo::open(global, &context.environment)?;
    let rancher = list.rancher.open(&argo, global, context).await?;
    let inventory = Inventory::read(&argo, rancher.as_ref(), context).await?;
    let probed = if list.probe {
        inventory.probe(&argo, rancher.as_ref()).await
    } else {
        vec![None; inventory.clusters.len()]
    };
    let now = argo.server.clock.now();
    let clusters = inventory.clusters.iter().zip(probed);
    let rows: Vec<Row> = clusters
        .filter_map(|(cluster, probed)| inventory.row(cluster, probed, now))
        .collect();
    let none = format!("No clusters of Rancher found in namespace {}.", argo.namespace);
    output::print_list(&context.ui, &list.output, LIST, &rows, &none)?;
    if is_table && rows.iter().any(Row::is_wrong) {
        context.ui.hint("-o wide prints the reasons");
    }
    inventory.warn_about_leftovers(&argo.namespace, now, context);
    Ok(ExitCode::Done)
}

/// Everything that the rows are made of.
pub(super) struct Inventory {
    pub(super) clusters: Vec<ClusterSecret>,
    duplicates: Vec<lookup::Duplicate>,
    /// The identity of Argo CD, for the marks of tokens.
    identity: Option<String>,
    own_tokens: Option<OwnTokens>,
    connections: BTreeMap<ServerUrl, connection::Connection>,
    rotations: LeasedRotations<ArgocdRancher>,
}

impl Inventory {
    pub(super) async fn read(argo: &Argo, rancher: Option<&Rancher>, context: &Context) -> Result<Self, Error> {
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
    pub(super) fn row(&self, cluster: &ClusterSecret, probed: Option<CallResult>, now: Timestamp) -> Option<Row> {
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
    async fn probe(&self, argo: &Argo, rancher: Option<&Rancher>) -> Vec<Option<CallResult>> {
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
    fn warn_about_leftovers(&self, namespace: &str, now: Timestamp, context: &Context) {
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
