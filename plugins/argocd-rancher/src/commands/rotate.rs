//! `kubectl argocd-rancher rotate`: another token takes the place of the one that Argo CD has, without a refused call.

use std::time::Duration;

use argocd::ClusterSecret;
use cli::ExitCode;
use cli::age;
use cli::app::{Context, GlobalFlags};
use cli::rotation::Asked;
use cli::rotation::leases::Rotations;
use cli::rotation::results::Results;
use cli::rotation::several::{self, Each, Pace};
use client::duration;
use client::error::Error;
use rancher::api_token::{ApiToken, Credential, Lifetime};
use tokio::time::Instant;

use super::verify;
use super::work::{Common, Work};
use crate::address::RancherAddress as _;
use crate::controller::fleet::Fleet;
use crate::controller::{Check, Options};
use crate::report::product::Rotation;
use crate::rotation::ArgocdRancher;
use crate::sides::{self, ARGOCD, Argo};

/// What is typed after `kubectl argocd-rancher rotate`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rotate {
    /// Clusters by id, by the name that Argo CD calls them, or by the name of their Secret
    #[arg(value_name = "CLUSTER", required_unless_present_any = ["all", "within"])]
    pub subjects: Vec<String>,

    /// Every cluster that Argo CD reaches through this Rancher
    #[arg(long, conflicts_with = "subjects")]
    pub all: bool,

    /// Of these clusters, or of all, only those whose token ends within this time, has ended, or tells no end
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub within: Option<Duration>,

    /// End with exit code 3 where no token is due
    #[arg(long)]
    pub exit_code: bool,

    /// How long the new token shall live; Rancher may grant less
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = super::lifetime)]
    pub ttl: Lifetime,

    /// Leave the old token alive: it is somebody else's, or is used elsewhere too
    #[arg(long)]
    pub keep_old: bool,

    /// Issue a token that is not limited to the cluster. Only for cluster local, and only where Rancher redirects Argo CD out
    /// of the scope of a limited one (Rancher 2.15.0)
    #[arg(long, conflicts_with_all = ["all", "within"])]
    pub unscoped: bool,

    /// How many clusters are worked on at once: Argo CD lists a cluster anew when its token changes
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_parallel: u16,

    /// How much later than it could each of several begins at most, by chance
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    pub jitter: Duration,

    /// Override a check by its name; can be repeated
    #[arg(long, value_enum, value_name = "CHECK", value_delimiter = ',')]
    pub force: Vec<Check>,

    /// What both verbs have.
    #[command(flatten)]
    pub common: Common,
}

const EXAMPLES: &str = "\
Examples:
  # See what would be done
  kubectl argocd-rancher rotate staging --rancher-context rancher --dry-run

  # Rotate the token of one cluster; asks before the first change
  kubectl argocd-rancher rotate staging --rancher-context rancher

  # Every token that ends within a month, for a nightly job
  kubectl argocd-rancher rotate --within 30d --yes --rancher-url https://rancher.example.com \\
    --rancher-token-secret argocd/rancher-login/token

It may be stopped or killed at any moment: the old token works until the new one is proven, is in use and the grace time has
passed. The same command goes on where it was, and `kubectl argocd-rancher rollback` restores the start until the old token
is retired. It is gone on with by the same user of Rancher: only the owner of a token can end it.

Exit codes: 0 done, 1 failed or undone, 2 usage, 3 nothing due (with --exit-code), 4 pending (run it again), 5 held by
another run, 130 interrupted.";

/// Runs it.
pub(crate) async fn run(rotate: Rotate, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let common = &rotate.common;
    let results = Results::new(&context.ui, &common.run, rotate.subjects.len() == 1)?;
    let argo = Argo::open(global, &context.environment)?;
    let rancher = common.rancher.require(&argo, global, context).await?;
    let fleet = Fleet::survey(argo, rancher).await?;
    let clusters = rotate.clusters(&fleet, context).await?;
    let options = rotate.options();
    if options.unscoped {
        context.ui.warn(sides::UNSCOPED);
    }
    let works: Vec<Work<'_>> = clusters
        .iter()
        .map(|cluster| Work::new(&fleet, cluster, &options, common.again(cluster, global)))
        .collect();
    match works.as_slice() {
        [] => {
            context.ui.status(match rotate.within {
                Some(within) => format!("No token ends within {}.", age::human(within.as_secs().cast_signed())),
                None => "No clusters found.".to_owned(),
            });
            results.print(&[])?;
            let due = if rotate.exit_code {
                ExitCode::NothingToDo
            } else {
                ExitCode::Done
            };
            Ok(due)
        }
        [work] if rotate.subjects.len() == 1 => {
            let (_, ended) = Box::pin(work.alone(&context.ui, Asked::Rotate, &common.run)).await?;
            ended.map(|()| ExitCode::Done)
        }
        works => rotate.several(works, &results, context).await,
    }
}

impl Rotate {
    fn options(&self) -> Options {
        Options {
            ttl: self.ttl,
            grace: self.common.grace,
            timeout: self.common.timeout,
            keep_old: self.keep_old,
            unscoped: self.unscoped,
            forced: self.force.iter().copied().collect(),
        }
    }

    async fn several(&self, works: &[Work<'_>], results: &Results<'_>, context: &Context) -> Result<ExitCode, Error> {
        let (ui, run) = (&context.ui, &self.common.run);
        let pace = Pace {
            at_once: self.max_parallel.into(),
            jitter: self.jitter,
        };
        let job = |work| Each::new(Work::job(work, ui, Asked::Rotate, run, results, true));
        let mut all: Vec<_> = works.iter().map(job).collect();
        let told = |each: &Each<'_, Work<'_>>| {
            let subject = cli::rotation::Work::subject(each.job.work);
            results.tell(subject, &each.result, each.ended.is_ok())
        };
        Box::pin(several::run(ui, &mut all, pace, run.yes, told)).await?;
        let end = several::exit(&all);
        results.print(&all.into_iter().map(|each| each.result).collect::<Vec<_>>())?;
        end
    }

    /// The clusters that are meant, each once: those that are named, or all of this Rancher; and of them those that are due.
    async fn clusters<'a>(&self, fleet: &'a Fleet, context: &Context) -> Result<Vec<&'a ClusterSecret>, Error> {
        let mut chosen: Vec<&ClusterSecret> = Vec::new();
        if self.subjects.is_empty() {
            chosen.extend(
                fleet
                    .clusters
                    .iter()
                    .filter(|cluster| fleet.is_of_this_rancher(cluster)),
            );
            let through = |cluster: &&ClusterSecret| cluster.server.rancher().is_some();
            let others = fleet.clusters.iter().filter(through).count() - chosen.len();
            if others > 0 {
                context
                    .ui
                    .status(format!("{others} clusters of another Rancher are left out."));
            }
        }
        for asked in &self.subjects {
            let cluster = verify::find(&fleet.clusters, asked)?;
            if chosen.iter().all(|known| known.object.name != cluster.object.name) {
                chosen.push(cluster);
            }
        }
        match self.within {
            Some(within) => due(chosen, within, fleet).await,
            None => Ok(chosen),
        }
    }
}

/// Those whose token ends within this time; and those with a rotation under way, which wants to be finished.
async fn due<'a>(
    clusters: Vec<&'a ClusterSecret>,
    within: Duration,
    fleet: &'a Fleet,
) -> Result<Vec<&'a ClusterSecret>, Error> {
    let argo = &fleet.argo;
    let tokens = fleet.tokens(Instant::now()).await?;
    let rotations = Rotations::<ArgocdRancher>::read(&argo.server, Some(&argo.namespace), ARGOCD).await?;
    let by = argo.server.clock.now();
    let by = by
        .saturating_add(within)
        .map_err(|_| Error::usage("the time of --within is too long"))?;
    let is_due = |cluster: &&ClusterSecret| {
        let object = &cluster.object;
        let rotation = rotations.of(&object.namespace, &object.name);
        let token = cluster.token().map(|value| Credential::of(&value));
        let token = token.as_ref().and_then(Credential::api_token);
        let token = tokens.iter().find(|known| Some(&known.name) == token);
        rotation.is_some_and(Rotation::under_way) || token.is_none_or(|token| ends(token, by))
    };
    Ok(clusters.into_iter().filter(is_due).collect())
}

/// Whether a token will be dead at that time.
fn ends(token: &ApiToken, by: k8s_openapi::jiff::Timestamp) -> bool {
    !token.is_alive(by)
}
