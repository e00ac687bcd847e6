//! `kubectl argocd-rancher list`: every cluster that Argo CD reaches through Rancher, and the token it has for it.

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

use crate::address::RancherAddress as _;
use crate::mark::{self, API_VERSION};
use crate::proof::Trial;
use crate::report::product::{LeasedRotation, Part};
use crate::rotation::ArgocdRancher;
use crate::row::{Row, Scene};
use crate::sides::{ARGOCD, Argo, RANCHER, Rancher, RancherFlags};

const LIST: ListKind = ListKind {
    api_version: API_VERSION,
    kind: "ArgoCDClusterList",
};
/// How many tokens are asked about at once.
const AT_ONCE: usize = 8;

/// What is typed after `kubectl argocd-rancher list`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// Call Rancher with each token, to see whether it is alive; the call counts as a use of the token
    #[arg(long)]
    pub probe: bool,

    /// The other side.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// How to print.
    #[command(flatten)]
    pub output: OutputFlags,
}

const EXAMPLES: &str = "\
Examples:
  # What Argo CD has, and what Rancher says of the tokens that are ours
  kubectl argocd-rancher list --rancher-context rancher

  # Only what the Secrets tell, and whether each token is alive
  kubectl argocd-rancher list --probe

  # The reasons too, and what Argo CD itself thinks of its connections
  kubectl argocd-rancher list --rancher-context rancher -o wide

Rancher tells of a token to its owner only: those of others have an unknown scope and expiry.";

/// Runs it.
pub(crate) async fn run(list: List, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let for_people = !list.output.format()?.is_structured();
    let argo = Argo::open(global, &context.environment)?;
    let rancher = list.rancher.open(&argo, global, context).await?;
    let seen = Seen::read(&argo, rancher.as_ref(), context).await?;
    let probes = if list.probe {
        probe(&argo, rancher.as_ref(), &seen).await
    } else {
        vec![None; seen.clusters.len()]
    };
    let now = argo.server.clock.now();
    let rows: Vec<Row> = seen
        .clusters
        .iter()
        .zip(probes)
        .filter_map(|(cluster, probed)| seen.row(cluster, probed, now))
        .collect();
    let none = format!("No clusters of Rancher found in namespace {}.", argo.namespace);
    output::print_list(&context.ui, &list.output, LIST, &rows, &none)?;
    if for_people && rows.iter().any(Row::is_wrong) {
        context.ui.hint("-o wide gives the reasons");
    }
    seen.warn(&argo.namespace, now, context);
    Ok(ExitCode::Done)
}

/// Everything that rows are made of.
pub(super) struct Seen {
    pub(super) clusters: Vec<ClusterSecret>,
    duplicates: Vec<lookup::Duplicate>,
    /// What tells this Argo CD from others.
    identity: Option<String>,
    ours: Option<Ours>,
    views: BTreeMap<ServerUrl, connection::Connection>,
    rotations: LeasedRotations<ArgocdRancher>,
}

impl Seen {
    pub(super) async fn read(argo: &Argo, rancher: Option<&Rancher>, context: &Context) -> Result<Self, Error> {
        let (clusters, identity, ours, views, rotations) = futures::join!(
            argo.clusters(),
            argo.identity(),
            Ours::read(rancher),
            views(argo, context),
            LeasedRotations::read(&argo.server, Some(&argo.namespace), ARGOCD)
        );
        let clusters = clusters?;
        Ok(Self {
            duplicates: lookup::duplicates(&clusters),
            identity: identity?,
            ours: ours?,
            views,
            rotations: rotations?,
            clusters,
        })
    }

    /// The row of a cluster; `None` if it does not lead through Rancher.
    pub(super) fn row(&self, cluster: &ClusterSecret, probed: Option<CallResult>, now: Timestamp) -> Option<Row> {
        let object = &cluster.object;
        let mine = self.duplicates.iter().filter(|it| it.secrets.contains(&object.name));
        let scene = Scene {
            tokens: self.ours.as_ref().and_then(|ours| ours.of(cluster)),
            me: self.ours.as_ref().map(|ours| ours.user.as_str()),
            duplicates: mine.map(ToString::to_string).collect(),
            probed,
            view: self.views.get(&cluster.server).copied(),
            rotation: self.rotation(cluster),
            now,
        };
        Row::of(cluster, &scene)
    }

    /// The rotation of a cluster's token, while it is in progress.
    fn rotation(&self, cluster: &ClusterSecret) -> Option<Part> {
        let object = &cluster.object;
        self.rotations.of(&object.namespace, &object.name).and_then(Part::of)
    }

    /// What a table cannot show: tokens that were minted for Secrets here, are in none of them, and that no rotation is about to
    /// use or to end.
    fn warn(&self, namespace: &str, now: Timestamp, context: &Context) {
        for (token, mark) in self
            .ours
            .iter()
            .flat_map(|ours| ours.alive(self.identity.as_deref(), now))
        {
            let here = mark
                .subject
                .strip_prefix(namespace)
                .is_some_and(|rest| rest.starts_with('/'));
            if here && !self.is_held(token) && !self.is_rotated(token, &mark) {
                let used =
                    mark::used_lately(token, now).map_or_else(String::new, |ago| format!("; it was used {ago} ago"));
                context.ui.warn(format!(
                    "token {} was minted for Secret {} and is not in it: a run may have been killed, or be under way{used}",
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

/// What Rancher says of our own tokens.
struct Ours {
    user: String,
    tokens: Vec<ApiToken>,
    base: rancher::reach::RancherUrl,
}

impl Ours {
    async fn read(rancher: Option<&Rancher>) -> Result<Option<Self>, Error> {
        let Some(rancher) = rancher else { return Ok(None) };
        let user = rancher.whoami().await?.id;
        let tokens = api_token::list(&rancher.client.0).await;
        Ok(Some(Self {
            user,
            tokens: tokens.map_err(|error| error.on(RANCHER))?,
            base: rancher.base.clone(),
        }))
    }

    /// All of them, for a cluster of this Rancher.
    fn of(&self, cluster: &ClusterSecret) -> Option<&[ApiToken]> {
        let (_, id) = cluster.server.rancher()?;
        let here = ServerUrl::through_rancher(&self.base, &id).same_place(&cluster.server);
        here.then_some(self.tokens.as_slice())
    }

    /// Living tokens that carry our mark.
    fn alive<'a>(
        &'a self,
        identity: Option<&'a str>,
        now: Timestamp,
    ) -> impl Iterator<Item = (&'a ApiToken, api_token::Mark)> {
        let alive = self.tokens.iter().filter(move |token| token.is_valid(now));
        alive.filter_map(move |token| Some((token, mark::of_ours(token, identity, false)?)))
    }
}

/// What Argo CD says of its connections; nothing where that cannot be read, which is no reason to fail.
async fn views(argo: &Argo, context: &Context) -> BTreeMap<ServerUrl, connection::Connection> {
    match connection::read(&argo.server.client, &argo.namespace).await {
        Ok(views) => views.unwrap_or_default(),
        Err(error) => {
            let error: Error = error.into();
            context
                .ui
                .log(4, || format!("Argo CD's own view is not known: {error}"));
            BTreeMap::new()
        }
    }
}

/// The token of a cluster whose rotation is in progress is not called with: that could be taken for Argo CD's use of it.
async fn probe(argo: &Argo, rancher: Option<&Rancher>, seen: &Seen) -> Vec<Option<CallResult>> {
    // Owned values: futures that borrow from a closure's argument are not `Send`.
    let is_free = |cluster: &&ClusterSecret| seen.rotation(cluster).is_none();
    let asked = seen
        .clusters
        .iter()
        .map(|cluster| one(argo, rancher, Some(cluster).filter(is_free)));
    let asked: Vec<_> = asked.collect();
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

async fn one(argo: &Argo, rancher: Option<&Rancher>, cluster: Option<&ClusterSecret>) -> Option<CallResult> {
    let cluster = cluster?;
    let config = cluster.config.as_ref().ok()?;
    let token = config.bearer_token()?;
    Trial::of(cluster, config, &token).alone(argo, rancher).await.ok()
}
