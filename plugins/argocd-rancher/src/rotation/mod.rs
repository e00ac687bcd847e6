//! The rotation of the token that Argo CD has for one cluster.
//!
//! O is the token in the cluster Secret, and N is the one that replaces it. Both belong to one Rancher user. Only this user can list or
//! delete them, so only this user can resume a run. Rancher returns the value of a token once, when it issues it, and a rollback needs
//! the value of O. So a backup Secret holds both values until the rotation has ended.
//!
//! | phase | step | reversible |
//! |---|---|---|
//! | make | back up O; issue N, scoped to the cluster, and back it up | yes |
//! | make | wait until Rancher accepts N, directly and through the agent's tunnel, and N can list what Argo CD lists | yes |
//! | place | write N to the cluster Secret, in place, by compare-and-swap | yes |
//! | prove | wait until Argo CD has used N, if it watches the cluster | yes |
//! | prove | wait for the grace time: if Argo CD writes its stale copy back, N is written again | yes |
//! | retire | delete O in Rancher by its name | no |
//! | confirm | wait until Rancher rejects O; then delete the backup Secret | – |
//!
//! A rollback is the same with O and N exchanged. If O has expired or was deleted, or its backup is lost, the run rolls forward
//! instead: it ends on N, and does not revoke O.
//!
//! # Why no cluster is cut off
//! The stages ([`mod@stages`]) are evaluated from the first one at every observation. T is the token that the run ends on.
//! * Until *retire*, no token is revoked that Argo CD may use: O and N are both valid, and a token is written to the cluster Secret only
//!   if it was just accepted.
//! * *retire* revokes the other token only if, in one observation, T is valid for longer than any write may take, is accepted by all
//!   calls as Argo CD makes them, and has been in the cluster Secret for the whole grace time. A write of T restarts that timer.
//!   In this time Argo CD has read T, and has no copy of the other token left that it could write back.
//! * If the other token is written back, *place* writes T again and the grace time restarts. That is also true after *retire*, when the
//!   other token is revoked. So the backup Secret is deleted last.
//! * When the cluster Secret is written, both values are in the backup Secret.
//! * A token that is neither O nor issued by this run is never overwritten. For such a Secret nothing is issued, and the tokens of the
//!   run can be revoked after the grace time.
//! * A deletion in Rancher cannot be conditional, so a late one may arrive at any time. But a name is never reused, and a token that was
//!   ever about to be revoked is never used again: another one is issued instead. O is revoked only when a rollback is no longer
//!   possible.
//! * If the cluster Secret already holds O when a run turns to a rollback, it is written once more, with the mark of the direction. Its
//!   new version makes the API server reject a late write of N by a former holder of the lock.

mod predict;
mod recall;
mod stages;

pub mod observed;
pub mod record;
pub mod step;

use engine::direction::Direction;
use engine::plan::Plan;
use engine::rotation::{Blocker, Check, Credentials, Look, Next, Proof, Rotation};
use engine::run::{Draw, Run};

use crate::controller::check;
use crate::mark::TOOL;
use crate::report;
use observed::Observed;
use record::Record;
use step::Step;

/// The rotation of Argo CD's token for a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArgocdRancher;

impl Rotation for ArgocdRancher {
    const KIND: &'static str = "argocd-rancher";
    const FIELD_MANAGER: &'static str = TOOL;
    const QUIET_FLAG: &'static str = "grace";
    const CHECKS: &'static [Check] = check::ALL;

    type Observed = Observed;
    type Record = Record;
    type Step = Step;
    type Made = stages::Made;
    type Placed = stages::Placed;
    type Proven = stages::Proven;
    type Retired = stages::Retired;

    fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
        if !seen.blockers.is_empty() {
            return Err(seen.blockers.clone());
        }
        let Some(old) = seen.secret.held() else {
            return Err(vec![Blocker::new(
                "the cluster Secret holds no token that could be rotated",
                "add the cluster again, which issues one",
            )]);
        };
        Ok(Record {
            user: seen.user.clone(),
            old: old.clone(),
            old_worked: seen.old_accepted.is_accepted(),
            keep_old: seen.keep_old,
            new: None,
            used_before: None,
            placed: [].into(),
            revoked: [].into(),
        })
    }

    fn guard(look: Look<'_, Self>) -> Result<(), Next<Self>> {
        stages::guard(look)
    }

    fn make(look: Look<'_, Self>) -> Result<Self::Made, Next<Self>> {
        stages::make(look)
    }

    fn place<'look>(look: Look<'look, Self>, made: &Proof<'look, Self::Made>) -> Result<Self::Placed, Next<Self>> {
        stages::place(look, made)
    }

    fn prove<'look>(look: Look<'look, Self>, placed: &Proof<'look, Self::Placed>) -> Result<Self::Proven, Next<Self>> {
        stages::prove(look, placed)
    }

    fn retire<'look>(
        look: Look<'look, Self>,
        proven: &Proof<'look, Self::Proven>,
    ) -> Result<Self::Retired, Next<Self>> {
        stages::retire(look, proven)
    }

    fn confirm<'look>(look: Look<'look, Self>, retired: &Proof<'look, Self::Retired>) -> Result<(), Next<Self>> {
        stages::confirm(look, retired)
    }

    fn is_restorable(look: Look<'_, Self>) -> bool {
        stages::is_restorable(look)
    }

    fn takes_away(look: Look<'_, Self>) -> bool {
        stages::takes_away(look)
    }

    fn recall(seen: &Observed, claimed: &Run<Self>) -> Option<Record> {
        recall::recall(seen, claimed)
    }

    fn recall_direction(seen: &Observed, claimed: &Run<Self>) -> Direction {
        recall::direction(seen, claimed.direction)
    }

    fn intend(step: &Step, run: &Run<Self>, _: &mut dyn Draw) -> Record {
        predict::intend(step, run)
    }

    fn predict(seen: &mut Observed, run: &Run<Self>, step: &Step) {
        predict::predict(seen, run, step);
    }

    fn settle(seen: &mut Observed, run: &Run<Self>) {
        predict::settle(seen, run);
    }

    fn credentials(record: &Record) -> Credentials {
        Credentials {
            old: record.old.value,
            new: record.new.as_ref().map(|new| new.value),
        }
    }

    fn start(seen: &Observed, record: &Record) -> String {
        report::start(seen, record)
    }

    fn also_invalidated(plan: &Plan<Self>) -> Vec<String> {
        report::also_invalidated(plan)
    }
}
