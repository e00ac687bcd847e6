//! A rotation that replies what a test asks for, at the stage that the test asks for. All other stages are passed.

use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Check, Credentials, Look, Next, Proof, Rotation, Timer};
use engine::run::{Draw, Run, RunId};

use client::secret::Fingerprint;

/// The rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scripted;

/// What it observes: its script.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Script {
    /// The stage that is not passed; `Survey` stands for the guard.
    pub(crate) stage: Phase,
    pub(crate) reply: Reply,
    pub(crate) is_restorable: bool,
    pub(crate) takes_away: bool,
    /// The timers that start by seeing this.
    pub(crate) timers: Vec<Timer>,
    /// The timers that stop by seeing this.
    pub(crate) stale: Vec<Timer>,
    /// The direction of a run that is resumed, if not the one that it claims.
    pub(crate) confirms: Option<Direction>,
}

/// What the stage returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    Pass,
    /// A step that has no effect.
    Step,
    /// A wait without a deadline.
    Wait,
    /// [`Look::wait`].
    WaitUntilTimeout,
    /// [`Look::wait_since`].
    WaitBecause(&'static str),
    /// [`Look::reapply`].
    Reapply,
    /// A wait for the quiet time.
    WaitForQuiet,
    /// In a rollback, a turn to `RollForward`.
    RollForward,
}

impl Script {
    pub(crate) fn new(stage: Phase, reply: Reply) -> Self {
        Self {
            stage,
            reply,
            is_restorable: true,
            takes_away: true,
            timers: Vec::new(),
            stale: Vec::new(),
            confirms: None,
        }
    }
}

/// A run of it in this phase. Its record counts the steps that were intended.
pub(crate) fn run_in(phase: Phase, direction: Direction) -> Run<Scripted> {
    Run {
        phase,
        direction,
        ..Run::begin(RunId::placeholder(), 0)
    }
}

fn stage(look: Look<'_, Scripted>, stage: Phase) -> Result<(), Next<Scripted>> {
    if look.seen.stage != stage {
        return Ok(());
    }
    let step = || Next::step("step".to_owned());
    Err(match look.seen.reply {
        Reply::Step => step(),
        Reply::Wait => Next::wait("it"),
        Reply::WaitUntilTimeout => look.wait("it"),
        Reply::WaitBecause(why) => look.wait_since("it", why),
        Reply::Reapply => look.reapply(step(), "GitOps"),
        Reply::WaitForQuiet if !look.is_quiet() => Next::wait("quiet").starting(Timer::Quiet),
        Reply::RollForward if look.direction().is_rollback() => Next::Turn {
            to: Direction::RollForward,
            reason: "the old credential is gone".to_owned(),
        },
        Reply::Pass | Reply::WaitForQuiet | Reply::RollForward => return Ok(()),
    })
}

impl Rotation for Scripted {
    const KIND: &'static str = "scripted";
    const FIELD_MANAGER: &'static str = "engine-test";
    const QUIET_FLAG: &'static str = "settle";
    const CHECKS: &'static [Check] = &[];

    type Observed = Script;
    type Record = u16;
    type Step = String;
    type Made = ();
    type Placed = ();
    type Proven = ();
    type Retired = ();

    fn survey(_: &Script) -> Result<u16, Vec<Blocker>> {
        Ok(0)
    }
    fn guard(look: Look<'_, Self>) -> Result<(), Next<Self>> {
        stage(look, Phase::Survey)
    }
    fn make(look: Look<'_, Self>) -> Result<(), Next<Self>> {
        stage(look, Phase::Make)
    }
    fn place<'look>(look: Look<'look, Self>, _: &Proof<'look, ()>) -> Result<(), Next<Self>> {
        stage(look, Phase::Place)
    }
    fn prove<'look>(look: Look<'look, Self>, _: &Proof<'look, ()>) -> Result<(), Next<Self>> {
        stage(look, Phase::Prove)
    }
    fn retire<'look>(look: Look<'look, Self>, _: &Proof<'look, ()>) -> Result<(), Next<Self>> {
        stage(look, Phase::Retire)
    }
    fn confirm<'look>(look: Look<'look, Self>, _: &Proof<'look, ()>) -> Result<(), Next<Self>> {
        stage(look, Phase::Confirm)
    }
    fn is_restorable(look: Look<'_, Self>) -> bool {
        look.seen.is_restorable
    }
    fn takes_away(look: Look<'_, Self>) -> bool {
        look.seen.takes_away
    }
    fn timers(seen: &Script, _: &Run<Self>) -> Vec<Timer> {
        seen.timers.clone()
    }
    fn stale_timers(seen: &Script, _: &Run<Self>) -> Vec<Timer> {
        seen.stale.clone()
    }
    fn recall_direction(seen: &Script, claimed: &Run<Self>) -> Direction {
        seen.confirms.unwrap_or(claimed.direction)
    }
    fn recall(_: &Script, claimed: &Run<Self>) -> Option<u16> {
        Some(claimed.record)
    }
    fn intend(_: &String, run: &Run<Self>, _: &mut dyn Draw) -> u16 {
        run.record + 1
    }
    fn predict(_: &mut Script, _: &Run<Self>, _: &String) {}
    fn settle(_: &mut Script, _: &Run<Self>) {}
    fn credentials(_: &u16) -> Credentials {
        Credentials {
            old: Fingerprint::of("old"),
            new: None,
        }
    }
    fn start(_: &Script, _: &u16) -> String {
        String::new()
    }
}
