//! The rotation of a bootstrap token.
//!
//! O is the rotated token, N the new one. T is the token that the run ends on, X the other one. Both are Secrets
//! `bootstrap-token-<id>` in kube-system, which hold the value: nothing has to be backed up. Ids are public; of values only
//! fingerprints are used here. The delivery (`secret:NS/NAME/KEY` or `file:PATH`, none or one) is where nodes read the token.
//!
//! | phase | what happens | can it be undone? |
//! |---|---|---|
//! | make | N's id is drawn and journaled; its Secret is created with usages, groups, description and labels of O; the API server accepts N, and cluster-info is signed with N if it is with O | yes |
//! | place | the delivery gets N if it holds O | yes |
//! | prove | the API server accepts what is read back from the delivery, and the overlap has passed | yes |
//! | retire | O's Secret is deleted | no |
//! | confirm | the API servers reject O | – |
//!
//! Each observation starts again at the first stage, which repairs what another writer has changed. `docs/bootstrap-token-rotation.md`
//! says why no node is locked out, and what holds for other writers, files on other hosts and tokens that expire.

pub(crate) mod blockers;
pub mod observed;
mod predict;
mod recall;
pub mod record;
mod stages;
pub mod step;

use engine::direction::Direction;
use engine::plan::{Plan, Planned};
use engine::rotation::{Blocker, Check, Credentials, Look, Next, Proof, Rotation, Timer};
use engine::run::{Draw, Run};

use self::observed::Observed;
use self::record::Record;
use self::stages::{Made, Placed, Proven, Retired};
use self::step::Step;

/// The rotation of a bootstrap token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BootstrapToken;

impl Rotation for BootstrapToken {
    const KIND: &'static str = "bootstrap-token";
    const FIELD_MANAGER: &'static str = crate::cluster::MANAGER;
    const QUIET_FLAG: &'static str = "overlap";
    const CHECKS: &'static [Check] = &[
        blockers::OWNER,
        Check::LOCK,
        Check::JOURNAL,
        blockers::TARGET,
        blockers::CLUSTER,
    ];

    type Observed = Observed;
    type Record = Record;
    type Step = Step;
    type Made = Made;
    type Placed = Placed;
    type Proven = Proven;
    type Retired = Retired;

    fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
        stages::survey(seen)
    }

    fn guard(look: Look<'_, Self>) -> Result<(), Next<Self>> {
        stages::guard(look)
    }

    fn make(look: Look<'_, Self>) -> Result<Made, Next<Self>> {
        stages::make(look)
    }

    fn place<'look>(look: Look<'look, Self>, made: &Proof<'look, Made>) -> Result<Placed, Next<Self>> {
        stages::place(look, made)
    }

    fn prove<'look>(look: Look<'look, Self>, placed: &Proof<'look, Placed>) -> Result<Proven, Next<Self>> {
        stages::prove(look, placed)
    }

    fn retire<'look>(look: Look<'look, Self>, proven: &Proof<'look, Proven>) -> Result<Retired, Next<Self>> {
        stages::retire(look, proven)
    }

    fn confirm<'look>(look: Look<'look, Self>, retired: &Proof<'look, Retired>) -> Result<(), Next<Self>> {
        stages::confirm(look, retired)
    }

    fn is_restorable(look: Look<'_, Self>) -> bool {
        stages::is_restorable(look)
    }

    fn takes_away(look: Look<'_, Self>) -> bool {
        stages::takes_away(look)
    }

    fn timers(seen: &Observed, run: &Run<Self>) -> Vec<Timer> {
        let revoked = stages::is_revoked(seen, run);
        revoked.then_some(Timer::Cache).into_iter().collect()
    }

    /// If a token exists again, the time for caches starts again after its next deletion.
    fn stale_timers(seen: &Observed, run: &Run<Self>) -> Vec<Timer> {
        let revoked = stages::is_revoked(seen, run);
        (!revoked).then_some(Timer::Cache).into_iter().collect()
    }

    fn recall(seen: &Observed, claimed: &Run<Self>) -> Option<Record> {
        recall::recall(seen, claimed)
    }

    fn recall_direction(seen: &Observed, claimed: &Run<Self>) -> Direction {
        recall::direction(seen, claimed)
    }

    fn intend(step: &Step, run: &Run<Self>, draw: &mut dyn Draw) -> Record {
        predict::intend(step, run, draw)
    }

    fn predict(seen: &mut Observed, run: &Run<Self>, step: &Step) {
        predict::predict(seen, run, step);
    }

    fn settle(seen: &mut Observed, _: &Run<Self>) {
        predict::settle(seen);
    }

    fn credentials(record: &Record) -> Credentials {
        Credentials {
            old: record.old.value,
            new: record.new.as_ref().map(|new| new.value),
        }
    }

    fn start(seen: &Observed, record: &Record) -> String {
        let (id, value) = (&record.old.id, record.old.value);
        let signed = if seen.old.signed {
            ", and cluster-info is signed with it"
        } else {
            ""
        };
        let held = record.place.as_ref().map(|place| format!("; {} holds it", place.at));
        let held = held.unwrap_or_default();
        format!("the API server accepts bootstrap token {id} ({value}){signed}{held}")
    }

    fn also_invalidated(plan: &Plan<Self>) -> Vec<String> {
        let record = &plan.record;
        if plan.direction != Direction::Forward {
            return Vec::new();
        }
        let (id, value) = (&record.old.id, record.old.value);
        let abandons = |planned: &Planned<Step>| {
            matches!(
                planned,
                Planned::Step {
                    step: Step::Abandon { .. },
                    ..
                }
            )
        };
        let abandons = plan.steps.iter().any(abandons);
        let delivery = match (&record.place, &record.abandoned) {
            (Some(place), _) if abandons => format!(", and {place} if it contains it"),
            (Some(place), _) => format!(", but not {}", place.at),
            (None, Some(place)) => format!(", and {place} if it contains it"),
            (None, None) => String::new(),
        };
        vec![format!(
            "{id} ({value}): kubeadm join commands, bootstrap kubeconfigs and machine images that contain it{delivery}; nodes \
             that have joined are not affected"
        )]
    }
}
