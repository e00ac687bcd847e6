//! The rotation of a cluster's registration tokens: the observed state ([`observed`]), what a run records ([`record`]), the stages
//! ([`stages`], and `planner` for clusters that Rancher provisioned), the single steps ([`step`]) and their effects (`predict`). The rescue
//! of a lost agent ([`rescue`]) has stages of its own, and the same steps.

pub mod observed;
mod planner;
mod predict;
pub mod record;
pub mod rescue;
pub(crate) mod stages;
pub mod step;

use engine::plan::Plan;
use engine::rotation::{Blocker, Check, Credentials, Look, Next, Proof, Rotation, Timer};
use engine::run::{Draw, Run};

use crate::controller::{FIELD_MANAGER, check};
use crate::report;

/// The rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crt;

type Stage<T> = Result<T, Next<Crt>>;

impl Rotation for Crt {
    const KIND: &'static str = "crt";
    const KINDS: &'static [&'static str] = &[Self::KIND, rescue::Rescue::KIND];
    const FIELD_MANAGER: &'static str = FIELD_MANAGER;
    const QUIET_FLAG: &'static str = "settle";
    const CHECKS: &'static [Check] = check::ALL;

    type Observed = observed::Observed;
    type Record = record::Record;
    type Step = step::Step;
    type Made = stages::Made;
    type Placed = stages::Placed;
    type Proven = stages::Proven;
    type Retired = stages::Retired;

    fn survey(seen: &Self::Observed) -> Result<Self::Record, Vec<Blocker>> {
        stages::survey(seen)
    }

    fn guard(look: Look<'_, Self>) -> Stage<()> {
        stages::guard(look)
    }

    fn make(look: Look<'_, Self>) -> Stage<Self::Made> {
        stages::make(look)
    }

    fn place<'look>(look: Look<'look, Self>, made: &Proof<'look, Self::Made>) -> Stage<Self::Placed> {
        stages::place(look, made)
    }

    fn prove<'look>(look: Look<'look, Self>, placed: &Proof<'look, Self::Placed>) -> Stage<Self::Proven> {
        stages::prove(look, placed)
    }

    fn retire<'look>(look: Look<'look, Self>, proven: &Proof<'look, Self::Proven>) -> Stage<Self::Retired> {
        stages::retire(look, proven)
    }

    fn confirm<'look>(look: Look<'look, Self>, retired: &Proof<'look, Self::Retired>) -> Stage<()> {
        stages::confirm(look, retired)
    }

    fn is_restorable(look: Look<'_, Self>) -> bool {
        stages::is_restorable(look)
    }

    fn takes_away(look: Look<'_, Self>) -> bool {
        stages::takes_away(look)
    }

    /// The quiet time of this rotation begins before the proof, so it proves nothing.
    fn is_proven(_: &Run<Self>) -> bool {
        false
    }

    fn timers(seen: &Self::Observed, run: &Run<Self>) -> Vec<Timer> {
        stages::timers(seen, run)
    }

    fn stale_timers(seen: &Self::Observed, run: &Run<Self>) -> Vec<Timer> {
        stages::stale_timers(seen, run)
    }

    fn recall(seen: &Self::Observed, claimed: &Run<Self>) -> Option<Self::Record> {
        stages::recall(seen, claimed)
    }

    fn intend(step: &Self::Step, run: &Run<Self>, draw: &mut dyn Draw) -> Self::Record {
        predict::intend(step, run, draw)
    }

    fn predict(seen: &mut Self::Observed, run: &Run<Self>, step: &Self::Step) {
        predict::predict(seen, run, step);
    }

    fn settle(seen: &mut Self::Observed, _: &Run<Self>) {
        predict::settle(seen);
    }

    fn credentials(record: &Self::Record) -> Credentials {
        Credentials {
            old: record.old,
            new: record.new,
        }
    }

    fn start(seen: &Self::Observed, record: &Self::Record) -> String {
        report::rotation::start(seen, record)
    }

    fn also_invalidated(plan: &Plan<Self>) -> Vec<String> {
        report::rotation::also_invalidated(plan)
    }
}
