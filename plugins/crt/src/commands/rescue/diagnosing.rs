//! Finds out what is wrong with each cluster, which way leads to it, and what is to be done.

use cli::app::GlobalFlags;
use cli::rotation::outcome::refusal;
use cli::rotation::{Commands, RotationResult, Target, leases};
use client::access::{self, Needed};
use client::error::{Error, Kind};
use engine::controller::Controller as _;
use engine::rotation::{Blocker, Rotation as _};
use rancher::cluster::{self, Cluster, ClusterId};

use super::Command;
use crate::commands::rotate::Opened;
use crate::connections::{Connections, DOWNSTREAM, DownstreamFlags, LONGEST_ANSWER, MANAGEMENT, Route};
use crate::contexts;
use crate::controller::{Reactivation, check};
use crate::report::inputs::DiagnosisInputs;
use crate::report::rescue::{Cause, Diagnosis, Means, Missing, Row, Way};
use crate::report::rotation::{ClusterRotation, target_of_rescue};
use crate::rights;
use crate::rotation::observed::DownstreamIdentity;
use crate::rotation::rescue::Rescue as RescueRotation;
use crate::rotation::stages::wrong_downstream;

/// What is done with one cluster.
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// It cannot be rescued.
    Refuse(Error),
    /// The rescue, and then the rotation.
    Rescue,
    /// The rotation: it rescues the cluster, or a rescue has ended before.
    Rotate,
}

/// One cluster, and what was found.
pub(super) struct LostCluster {
    pub(super) id: ClusterId,
    pub(super) opened: Opened,
    /// The same target, for the rescue.
    pub(super) of_rescue: Target,
    pub(super) diagnosis: Option<Diagnosis>,
    pub(super) old_token: Reactivation,
    pub(super) next: Next,
    /// The journal in the Lease is that of a rotation of which nothing is left.
    pub(super) discards_rotation: bool,
}

impl Command<'_> {
    /// The context of a cluster that does not go through Rancher.
    async fn context_of(&self, cluster: &mut Cluster) -> Result<Option<String>, Error> {
        if let Some(context) = self.contexts.get(&cluster.id) {
            return Ok(Some(context.clone()));
        }
        if self.candidates.is_empty() {
            return Ok(None);
        }
        let read = cluster::get(&self.management.server.client, &cluster.id).await;
        // A list has no CA.
        if let Some(read) = read.map_err(|error| error.on(MANAGEMENT))? {
            cluster.ca_certificate = read.ca_certificate;
        }
        let Some(ca) = cluster.ca_certificate.as_deref() else {
            return Ok(None);
        };
        let names = contexts::with_ca(&self.candidates, ca);
        let found = contexts::first_proven(&names, ca, self.global, &self.context.environment).await;
        let ui = &self.context.ui;
        match found {
            Some(found) => ui.status(format!(
                "cluster {}: using context {found}, which has its CA",
                cluster.id
            )),
            None if names.is_empty() => ui.status(format!("cluster {}: no context has its CA", cluster.id)),
            None => ui.warn(format!(
                "cluster {}: none of the contexts with its CA answers: {}",
                cluster.id,
                names.join(", ")
            )),
        }
        Ok(found.map(str::to_owned))
    }

    /// Finds out what is wrong with a cluster, and which way leads to it.
    pub(super) async fn diagnose(&self, mut cluster: Cluster) -> LostCluster {
        let (downstream_context, failed) = match self.context_of(&mut cluster).await {
            Ok(context) => (context, None),
            Err(error) => (None, Some(error)),
        };
        let id = cluster.id.clone();
        let downstream = DownstreamFlags { downstream_context };
        let (common, management) = (&self.rescue.common, self.management);
        let opened = Opened::open(cluster, common, &downstream, management, self.global, self.context).await;
        let mut lost = LostCluster {
            id,
            of_rescue: self.target_of_rescue(&opened.target),
            opened,
            diagnosis: None,
            old_token: Reactivation::default(),
            next: Next::Nothing,
            discards_rotation: false,
        };
        let examined = match failed {
            Some(error) => Err(error),
            None => self.examine(&mut lost).await,
        };
        if let Err(error) = examined {
            lost.next = Next::Refuse(error);
        }
        lost
    }

    fn target_of_rescue(&self, target: &Target) -> Target {
        let mut target = target_of_rescue(target);
        let flags = [
            (self.rescue.reactivate_old_token, "--reactivate-old-token"),
            (self.rescue.token_stdin, "--token-stdin"),
            (self.rescue.token_stdin, "--yes"),
        ];
        for (_, flag) in flags.into_iter().filter(|(is_given, _)| *is_given) {
            target.commands = target.commands.switched_on_to_rotate(flag);
        }
        target
    }

    async fn examine(&self, lost: &mut LostCluster) -> Result<(), Error> {
        let connections = lost.connections()?;
        if let Some(blocker) = self.wrong_context(connections).await {
            // What is read there is about another cluster.
            let mut result = lost.opened.result.clone();
            return Err(refusal(&lost.of_rescue, vec![blocker], &mut result));
        }
        let (inputs, rotation) = futures::join!(
            Box::pin(DiagnosisInputs::collect(connections, LONGEST_ANSWER)),
            leases::of(&connections.management, &lost.opened.target.lease)
        );
        let rotation: Option<ClusterRotation> = rotation?;
        let means = self.means(connections, &inputs).await?;
        let diagnosis = Diagnosis::of(&inputs, &means);
        let is_resumed = rotation
            .as_ref()
            .is_some_and(|rotation| rotation.is_of(RescueRotation::KIND));
        if diagnosis.way == Some(Way::OldToken) || (is_resumed && self.rescue.reactivate_old_token) {
            let of_secret = || inputs.credentials.as_ref().ok()?.as_ref()?.token.clone();
            lost.old_token = Reactivation {
                permitted: true,
                value: self.token.clone().or_else(of_secret),
            };
        }
        if self.rescue.reactivate_old_token
            && !means.may_write
            && let Ok(connections) = &mut lost.opened.connections
        {
            // The token was read over a context that may only read, which is of no further use. Where a rescue is resumed, the agent may be
            // connected already.
            *connections = connections.clone().through_rancher();
        }
        let rotation = match rotation {
            Some(rotation) if diagnosis.is_lost() && self.has_left_nothing(lost, &rotation).await => {
                lost.discards_rotation = true;
                None
            }
            rotation => rotation,
        };
        lost.next = self.next(&diagnosis, rotation.as_ref(), lost);
        lost.diagnosis = Some(diagnosis);
        Ok(())
    }

    /// A context that leads to another cluster, or is not proven to lead to this one. Where that cannot be read, the rescue looks again.
    async fn wrong_context(&self, connections: &Connections) -> Option<Blocker> {
        let downstream = connections.downstream().ok()?;
        // A list has no CA.
        let cluster = cluster::get(&self.management.server.client, &connections.cluster.id).await;
        let cluster = cluster.ok()??;
        match downstream.identity(&cluster).await.ok()? {
            DownstreamIdentity::Unproven if self.rescue.common.forces(check::CONTEXT.name) => None,
            identity => wrong_downstream(identity),
        }
    }

    /// Whether no object says anything of the rotation in the Lease: its tokens were deleted, so that it cannot be resumed.
    async fn has_left_nothing(&self, lost: &LostCluster, rotation: &ClusterRotation) -> bool {
        let (Some(journal), Ok(controller)) = (rotation.journal(), self.rescuer(lost)) else {
            return false;
        };
        let seen = Box::pin(controller.observe(None)).await;
        seen.is_ok_and(|seen| journal.clone().resumed(&seen).is_none())
    }

    async fn means(&self, connections: &Connections, inputs: &DiagnosisInputs) -> Result<Means, Error> {
        let downstream = connections.downstream()?;
        let may_write = match (&downstream.route, &inputs.deployment) {
            (_, Err(_)) => false,
            (Route::ThroughRancher, _) => true,
            (Route::Context(_), _) => {
                let rights = rights::TABLE.required("rescue", DOWNSTREAM, &[rights::POINTS], &[]);
                let needed = Needed {
                    server: &downstream.server,
                    side: DOWNSTREAM,
                    rights,
                };
                match access::require(&[needed]).await {
                    Err(error) if error.kind == Kind::Forbidden => false,
                    allowed => allowed.map(|()| true)?,
                }
            }
        };
        let given = match (&self.token, &inputs.storage) {
            (Some(token), Ok(storage)) => {
                let result = connections.probe.check_times(*storage, token, 2).await;
                Some((token.fingerprint(), result))
            }
            (_, _) => None,
        };
        Ok(Means {
            route: Some(downstream.route.clone()),
            may_write,
            trusts_context: self.rescue.common.forces(check::CONTEXT.name),
            reactivates: self.rescue.reactivate_old_token,
            given,
        })
    }

    fn next(&self, diagnosis: &Diagnosis, rotation: Option<&ClusterRotation>, lost: &LostCluster) -> Next {
        let target = &lost.opened.target;
        match rotation {
            Some(rotation) if rotation.is_of(RescueRotation::KIND) => return Next::Rescue,
            // It may be the one that follows a rescue.
            Some(rotation) if rotation.in_progress() => return Next::Rotate,
            _ => {}
        }
        match (&diagnosis.way, &diagnosis.cause) {
            (Some(Way::ByRancher), cause) if *cause != Cause::TokensDeleted => Next::Rotate,
            (Some(_), _) => Next::Rescue,
            (None, Cause::None) if rotation.is_some_and(was_rescued) => Next::Rotate,
            (None, Cause::None) => Next::Nothing,
            (None, _) => {
                let message = format!("cannot rescue {}: {}", target.display, diagnosis.message);
                let mut hints = diagnosis.hints(&lost.commands(diagnosis, self.global));
                if diagnosis.missing.is_none() {
                    hints.push(format!("`{}` shows what fails", target.commands.status()));
                }
                Next::Refuse(hints.into_iter().fold(Error::failed(message), Error::hint))
            }
        }
    }
}

impl LostCluster {
    /// Its connections, or why it cannot be rescued, which is known from the management cluster alone.
    fn connections(&self) -> Result<&Connections, Error> {
        self.opened.connections.as_ref().map_err(|error| {
            let mut result = self.opened.result.clone();
            match std::mem::take(&mut result.blockers) {
                blockers if blockers.is_empty() => error.clone(),
                blockers => refusal(&self.of_rescue, blockers, &mut result),
            }
        })
    }

    pub(super) fn nothing(&self) -> RotationResult {
        let mut result = RotationResult::of(&self.of_rescue);
        result.end("nothing-to-do");
        let why = self
            .diagnosis
            .as_ref()
            .map_or("", |diagnosis| diagnosis.message.as_str());
        result.message = Some(format!("nothing to rescue in {}: {why}", self.of_rescue.display));
        result
    }

    pub(super) fn is_rescued(&self) -> bool {
        matches!(self.next, Next::Rescue | Next::Rotate)
    }

    /// The commands about it, without the context that did not help.
    fn commands(&self, diagnosis: &Diagnosis, global: &GlobalFlags) -> Commands {
        match diagnosis.missing {
            Some(Missing::Context) => DownstreamFlags::default().commands(&self.id, global),
            _ => self.opened.target.commands.clone(),
        }
    }

    pub(super) fn row(&self, global: &GlobalFlags) -> Option<Row> {
        let diagnosis = self.diagnosis.as_ref()?;
        Some(Row::of(diagnosis, &self.commands(diagnosis, global)))
    }
}

/// A rescue was the last run, and its rotation has not followed.
fn was_rescued(rotation: &ClusterRotation) -> bool {
    // Of whichever kind the Lease is now: the rotation has taken it before it began.
    rotation.record.last_result.as_deref() == Some(RescueRotation::ACTION.done)
}
