//! What one rotation of a cluster's token brings to the verbs `rotate` and `rollback`.

use std::time::Duration;

use argocd::ClusterSecret;
use cli::app::GlobalFlags;
use cli::rotation::again::Again;
use cli::rotation::job::Kept;
use cli::rotation::outcome::{Asked, RotationResult};
use cli::rotation::plan::Line;
use cli::rotation::results::{Results, RunFlags};
use cli::rotation::{Job, Subject};
use cli::ui::Ui;
use client::connection::Server;
use client::duration;
use client::error::Error;
use client::secret::{Fingerprint, Secret};
use engine::plan::{Plan, Planned};

use crate::controller::fleet::Fleet;
use crate::controller::{Check, ClusterActor, Options};
use crate::mark;
use crate::report::product::{self, PLUGIN};
use crate::rotation::ArgocdRancher;
use crate::rotation::view::View;
use crate::rotation::write::Write;
use crate::sides::RancherFlags;

/// The flags that `rotate` and `rollback` share.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Common {
    /// What every plugin has.
    #[command(flatten)]
    pub run: RunFlags,

    /// How long the cluster Secret is watched before the token that goes is ended: Argo CD may write an old copy of it back,
    /// and a sync that has begun goes on with the token that it began with
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    pub grace: Duration,

    /// How long the new token may take to be proven, before the old one is restored
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    pub timeout: Duration,

    /// The other side.
    #[command(flatten)]
    pub rancher: RancherFlags,
}

impl Common {
    /// The commands about a cluster, with the flags that lead to the same two sides.
    pub(super) fn again(&self, cluster: &ClusterSecret, global: &GlobalFlags) -> Again {
        let again = Again::new(PLUGIN, cluster.object.name.as_str(), global);
        let again = again.with("--namespace", global.connection.namespace.as_deref());
        self.rancher.repeated(again)
    }
}

/// One cluster to work on.
pub(super) struct Work<'a> {
    fleet: &'a Fleet,
    cluster: &'a ClusterSecret,
    options: &'a Options,
    actor: ClusterActor<'a>,
    subject: Subject,
}

impl<'a> Work<'a> {
    pub(super) fn new(fleet: &'a Fleet, cluster: &'a ClusterSecret, options: &'a Options, again: Again) -> Self {
        Self {
            fleet,
            cluster,
            options,
            actor: ClusterActor::new(fleet, cluster, options),
            subject: product::subject(cluster, again),
        }
    }

    /// The job of a command; `among`: one of several.
    pub(super) fn job<'w>(
        &'w self,
        ui: &'w Ui,
        asked: Asked,
        run: &RunFlags,
        results: &Results<'_>,
        among: bool,
    ) -> Job<'w, Self> {
        let forced = |check| self.options.forced.contains(&check);
        Job {
            ui,
            work: self,
            asked,
            yes: run.yes,
            dry_run: run.dry_run,
            plan_is_data: results.plan_is_data(),
            among: among.then_some(self.cluster.name.as_str()),
            force_lock: forced(Check::Lock),
            force_journal: forced(Check::Journal),
        }
    }

    /// Works on this one alone, and tells how it ended. The name of the outcome comes with it.
    pub(super) async fn alone(
        &self,
        ui: &Ui,
        asked: Asked,
        run: &RunFlags,
    ) -> Result<(&'static str, Result<(), Error>), Error> {
        let results = Results::new(ui, run, true)?;
        let mut result = RotationResult::of(&self.subject);
        let ended = self.job(ui, asked, run, &results, false).run(&mut result).await;
        results.tell(&self.subject, &result, ended.is_ok())?;
        let outcome = result.outcome;
        results.print(&[result])?;
        Ok((outcome, ended))
    }

    fn in_use(&self) -> (Option<Fingerprint>, Option<String>) {
        let token = self.actor.seen().and_then(|(cluster, _)| cluster.token());
        (token.as_ref().map(Secret::fingerprint), token.as_ref().map(mark::shown))
    }

    async fn check_one(&self, write: &Write) -> Option<Result<(), Error>> {
        match write {
            Write::ParkOld { .. } => self.actor.check_parking().await,
            Write::Place { .. } => self.actor.check_placing().await,
            _ => None,
        }
    }

    fn last_words(&self, shown: &str, keep_old: bool) -> String {
        let granted = self.actor.granted();
        let until = granted.as_ref().and_then(|token| token.expiry.at());
        let until = until.map_or_else(String::new, |at| format!(", until {at}"));
        let now = self.fleet.argo.server.clock.now();
        let short = granted.and_then(|token| mark::cut_short(&token, self.options.ttl, now));
        let short = short.map_or_else(String::new, |short| format!(" {short}."));
        let kept = if keep_old {
            " The old token is alive still, as you asked for."
        } else {
            ""
        };
        format!(
            "Argo CD reaches {} with {shown}{until}.{short}{kept}",
            self.subject.called
        )
    }
}

impl<'a> cli::rotation::Work for Work<'a> {
    type Actor = ClusterActor<'a>;

    fn actor(&self) -> &ClusterActor<'a> {
        &self.actor
    }

    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn server(&self) -> &Server {
        &self.fleet.argo.server
    }

    fn patience(&self) -> Duration {
        self.options.timeout.max(self.options.grace)
    }

    fn resumable_by(&self) -> String {
        let (user, namespace) = (&self.fleet.user.id, &self.cluster.object.namespace);
        format!(
            "user {user} of Rancher, with rights on Secrets and Leases in namespace {namespace} of Argo CD's cluster"
        )
    }

    async fn check(&self, plan: &Plan<ArgocdRancher>, lines: &mut [Line]) {
        for (step, line) in plan.steps.iter().zip(lines) {
            if let Planned::Write { write, .. } = step {
                line.checked = Some(match self.check_one(write).await {
                    None => "not checked: Rancher has no dry run".to_owned(),
                    Some(Ok(())) => "server dry run".to_owned(),
                    Some(Err(error)) => format!("refused by the server: {}", error.message),
                });
            }
        }
    }

    fn unproven(&self) -> Vec<String> {
        let unproven = |value| {
            format!(
                "Not proven by a call: that Rancher refuses {value}. What was parked is lost, so that nobody knows its value; \
                 Rancher has deleted it."
            )
        };
        self.actor.unproven().into_iter().map(unproven).collect()
    }

    fn kept(&self) -> Option<Kept> {
        let (_, kept) = self.actor.seen()?;
        kept.then(|| {
            let (now, shown) = self.in_use();
            let called = &self.subject.called;
            let shown = shown.unwrap_or_else(|| "no token".to_owned());
            Kept {
                now,
                message: format!("there was no way back for {called}: its old token is dead; Argo CD has {shown} now"),
            }
        })
    }

    async fn done(&self, _: &View, plan: Option<&Plan<ArgocdRancher>>) -> (Option<Fingerprint>, String) {
        // A run that was gone on with keeps what it was begun with.
        let keep_old = plan.map_or(self.options.keep_old, |plan| plan.notes.keep_old);
        match self.in_use() {
            (value, Some(shown)) => (value, self.last_words(&shown, keep_old)),
            (value, None) => (value, "The cluster Secret holds no token any more.".to_owned()),
        }
    }
}
