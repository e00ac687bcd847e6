//! `kubectl argocd-rancher rotate`: replace the token that Argo CD has for a cluster, without a rejected call.

use std::time::Duration;

use argocd::ClusterSecret;
use cli::age;
use cli::app::{Context, GlobalFlags};
use cli::rotation::leases::LeasedRotations;
use cli::rotation::results::{Results, SeveralFlags};
use cli::rotation::several::{self, Confirmation, Each};
use cli::rotation::{Target, Verb};
use cli::{ExitCode, Failures};
use client::duration;
use client::error::Error;
use k8s_openapi::jiff::Timestamp;
use rancher::api_token::{ApiToken, Expiry, Lifetime};
use tokio::time::Instant;

use super::run::{Command, Common};
use crate::address::RancherAddress as _;
use crate::connections::{self, ARGOCD, Argo};
use crate::controller::check;
use crate::controller::fleet::Fleet;
use crate::controller::{ClusterController, Options};
use crate::hints::Hints;
use crate::report::{self, LeasedRotation};
use crate::rotation::ArgocdRancher;
use crate::token_facts::TokenFacts;

/// The flags of `kubectl argocd-rancher rotate`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rotate {
    /// Cluster id, name in Argo CD, or name of the cluster Secret
    #[arg(value_name = "CLUSTER", required_unless_present_any = ["all", "within"])]
    pub targets: Vec<String>,

    /// Rotate every cluster that Argo CD reaches through this Rancher
    #[arg(long, conflicts_with = "targets")]
    pub all: bool,

    /// Only clusters with a token of this user that has expired, expires within DURATION, or has no known expiry
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub within: Option<Duration>,

    /// Exit with 3 if no token is due
    #[arg(long)]
    pub exit_code: bool,

    /// Validity of the new token; Rancher may grant less
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = super::lifetime)]
    pub ttl: Lifetime,

    /// Do not revoke the old token: it belongs to another user, or is used elsewhere too
    #[arg(long)]
    pub keep_old: bool,

    /// Issue a token that is not limited to the cluster. Only for cluster local, and only where Rancher redirects Argo CD out of the scope of a limited one (Rancher 2.15.0)
    #[arg(long, conflicts_with_all = ["all", "within"])]
    pub unscoped: bool,

    /// The limits for several clusters.
    #[command(flatten)]
    pub several: SeveralFlags,

    /// The common ones.
    #[command(flatten)]
    pub common: Common,
}

const EXAMPLES: &str = "\
Examples:
  # Print the plan
  kubectl argocd-rancher rotate staging --rancher-context rancher --dry-run

  # Rotate the token of one cluster; asks for confirmation before the first change
  kubectl argocd-rancher rotate staging --rancher-context rancher

  # Every token that expires within a month, for a nightly job
  kubectl argocd-rancher rotate --within 30d --yes --rancher-url https://rancher.example.com \\
    --rancher-token-secret argocd/rancher-login/token

Kill it at any point: run the same command again to resume, or `kubectl argocd-rancher rollback` to restore the original state. Only the owner of a token can revoke it, so the same Rancher user must resume a rotation.

Exit codes: 0 done, 1 failed or rolled back, 2 usage, 3 nothing due (with --exit-code), 4 pending (run it again), 5 held by another run, 130 interrupted.";

pub(crate) async fn run(rotate: Rotate, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (ui, common) = (&context.ui, &rotate.common);
    let results = Results::new(ui, &common.run, rotate.targets.len() == 1)?;
    let argo = Argo::open(global, &context.environment)?;
    let rancher = common.rancher.require(&argo, global, context).await?;
    let hints = Hints::new(&common.rancher, global, &argo.namespace);
    let fleet = Fleet::survey(argo, rancher).await?;
    let mut unknown = Failures::of(ui, "clusters", rotate.targets.len());
    let clusters = rotate.clusters(&fleet, context, &hints, &mut unknown).await?;
    if !common.force.contains(&check::USE) {
        fleet.await_metrics(&clusters).await;
    }
    let options = Options {
        keep_old: rotate.keep_old,
        unscoped: rotate.unscoped,
        ..common.options(rotate.ttl, hints)
    };
    if options.unscoped {
        ui.warn(connections::UNSCOPED);
    }
    let opened: Vec<(ClusterController<'_>, Target)> = clusters
        .into_iter()
        .map(|cluster| {
            let commands = common.rancher.commands(&cluster.object.name, global);
            let controller = ClusterController::new(&fleet, cluster, &options);
            (controller, report::target(cluster, commands))
        })
        .collect();
    let command = Command {
        verb: Verb::Rotate,
        common,
        ui,
        results: &results,
    };
    match opened.as_slice() {
        [] if unknown.all().is_empty() => {
            ui.status(match rotate.within {
                Some(within) => format!(
                    "No token expires within {}.",
                    age::human(within.as_secs().cast_signed())
                ),
                None => "No clusters found.".to_owned(),
            });
            results.print(&[]);
            Ok(if rotate.exit_code {
                ExitCode::NothingToDo
            } else {
                ExitCode::Done
            })
        }
        [(controller, target)] if rotate.targets.len() == 1 => {
            let (result, ended) = Box::pin(command.on(controller, target)).await;
            results.print(&[result]);
            ended.map(|()| ExitCode::Done)
        }
        opened => rotate.on_several(opened, &command, &unknown).await,
    }
}

impl Rotate {
    async fn on_several(
        &self,
        opened: &[(ClusterController<'_>, Target)],
        command: &Command<'_>,
        unknown: &Failures<'_>,
    ) -> Result<ExitCode, Error> {
        let mut all = Vec::new();
        for (controller, target) in opened {
            all.push(Each::new(command.job(controller, target, Some(controller.name()))));
        }
        let print = |each: &Each<'_, ClusterController<'_>>| {
            command.results.print_one(each.target, &each.result, each.ended.is_ok());
        };
        let parallelism = self.several.parallelism(false);
        let confirmation = Confirmation {
            yes: self.common.run.yes,
            question: None,
        };
        Box::pin(several::run(command.ui, &mut all, parallelism, confirmation, print)).await?;
        let (results, end) = several::end(all, unknown);
        command.results.print(&results);
        end
    }

    /// The selected clusters, each once: the named ones, or all of this Rancher. With --within only those that are due. A name among
    /// others that leads to none is a failure of its own.
    async fn clusters<'a>(
        &self,
        fleet: &'a Fleet,
        context: &Context,
        hints: &Hints,
        unknown: &mut Failures<'_>,
    ) -> Result<Vec<&'a ClusterSecret>, Error> {
        let mut chosen: Vec<&ClusterSecret> = Vec::new();
        if self.targets.is_empty() {
            let here = |cluster: &&ClusterSecret| fleet.rancher.serves(cluster);
            chosen.extend(fleet.clusters.iter().filter(here));
            let through = |cluster: &&ClusterSecret| cluster.server.rancher().is_some();
            let others = fleet.clusters.iter().filter(through).count() - chosen.len();
            if others > 0 {
                let skipping = format!("Skipping {others} clusters of another Rancher.");
                context.ui.status(skipping);
            }
        }
        for name in &self.targets {
            let found = super::find_cluster(&fleet.clusters, name, hints);
            if let Some(cluster) = unknown.found(name, found)?
                && chosen.iter().all(|known| known.object.name != cluster.object.name)
            {
                chosen.push(cluster);
            }
        }
        match self.within {
            Some(within) => self.due(chosen, within, fleet, context).await,
            None => Ok(chosen),
        }
    }

    /// The clusters with a rotation in progress, and those with a token of this user that may not be valid until the end of this time.
    async fn due<'a>(
        &self,
        clusters: Vec<&'a ClusterSecret>,
        within: Duration,
        fleet: &'a Fleet,
        context: &Context,
    ) -> Result<Vec<&'a ClusterSecret>, Error> {
        let argo = &fleet.argo;
        let tokens = fleet.tokens(Instant::now()).await?;
        let rotations = LeasedRotations::<ArgocdRancher>::read(&argo.server, Some(&argo.namespace), ARGOCD).await?;
        if rotations.unknown {
            context.ui.warn(
                "no permission to list Leases: --within does not select clusters because of an interrupted rotation",
            );
        }
        let by = argo.server.clock.now().saturating_add(within);
        let by = by.map_err(|_| Error::usage("the value of --within is too long"))?;
        let mut due = Vec::new();
        let mut others = 0;
        for cluster in clusters {
            let object = &cluster.object;
            let rotation = rotations.of(&object.namespace, &object.name);
            match is_due(cluster, &tokens, &fleet.user.id, by) {
                _ if rotation.is_some_and(LeasedRotation::in_progress) => due.push(cluster),
                Due::Yes => due.push(cluster),
                Due::No => {}
                // Only its owner can revoke it.
                Due::OfAnotherUser { expires } if self.keep_old && expires => due.push(cluster),
                Due::OfAnotherUser { .. } => others += 1,
            }
        }
        if others > 0 && !self.keep_old {
            let user = &fleet.user.id;
            let skipping = format!("Skipping {others} clusters whose token is not known to be one of user {user}.");
            context.ui.status(skipping);
        }
        Ok(due)
    }
}

/// Whether a token is to be rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Yes,
    No,
    /// It belongs to another user, or its owner is unknown.
    OfAnotherUser {
        /// It may not be valid until the end of the time.
        expires: bool,
    },
}

/// By what Rancher says about the token of this cluster, or else by the note on its Secret.
fn is_due(cluster: &ClusterSecret, tokens: &[ApiToken], user: &str, by: Timestamp) -> Due {
    let facts = TokenFacts::of(cluster, cluster.token().as_ref(), Some(tokens), Some(user));
    let ends = match facts.listed {
        Some(token) => !token.is_valid(by),
        None => match facts.expiry {
            Some(Expiry::Never) => false,
            Some(Expiry::At(at)) => at <= by,
            Some(Expiry::Unknown) | None => true,
        },
    };
    match facts.owner.as_deref() {
        Some(owner) if owner == user && (ends || facts.revoked) => Due::Yes,
        Some(owner) if owner == user => Due::No,
        _ => Due::OfAnotherUser { expires: ends },
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::{fixtures, mark};

    const TOKEN: &str = "token-x7k2p";

    fn noted(user: &str, expires: &str) -> ClusterSecret {
        let mut cluster = fixtures::cluster("one", &fixtures::config(TOKEN), ObjectMeta::default());
        for (key, value) in [
            (mark::TOKEN, TOKEN),
            (mark::TOKEN_USER, user),
            (mark::TOKEN_EXPIRES, expires),
        ] {
            cluster.annotations.insert(key.into(), value.into());
        }
        cluster
    }

    #[test]
    fn only_tokens_of_this_user_are_due_and_the_note_on_the_secret_counts() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let by = at("2026-12-22T12:00:00Z");
        let due = |cluster: &ClusterSecret, tokens: &[ApiToken]| is_due(cluster, tokens, "u-me", by);
        let listed = |expires: &str| fixtures::api_token(TOKEN, Expiry::At(at(expires)));
        let (soon, late) = ("2026-12-01T12:00:00Z", "2027-02-22T12:00:00Z");
        assert_eq!(due(&noted("u-me", soon), &[listed(soon)]), Due::Yes);
        assert_eq!(due(&noted("u-me", late), &[listed(late)]), Due::No);
        // It was revoked.
        assert_eq!(due(&noted("u-me", late), &[]), Due::Yes);
        assert_eq!(due(&noted("u-other", late), &[]), Due::OfAnotherUser { expires: false });
        assert_eq!(due(&noted("u-other", soon), &[]), Due::OfAnotherUser { expires: true });
        let by_hand = fixtures::cluster("one", &fixtures::config(TOKEN), ObjectMeta::default());
        assert_eq!(due(&by_hand, &[]), Due::OfAnotherUser { expires: true });
        assert_eq!(due(&by_hand, &[listed(soon)]), Due::Yes);
    }
}
