//! The loop of a run: observe, decide, apply.
//!
//! A rotation is a controller that runs once. It is level-triggered: the next step depends on the observed state, not
//! on the previous step. So a resumed run needs no code of its own.
//!
//! Before each step, the engine writes the journal by compare-and-swap. This journals the intent, with names and
//! fingerprints of objects that do not exist yet. It also stops a holder that has lost its lock without noticing.

use std::collections::HashMap;
use std::time::Duration;

use client::connection::unanswered_writes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::controller::{Controller, Failure, ObservedOf, RotationOf, RunOf};
use crate::direction::Direction;
use crate::event::{Event, Listener};
use crate::journal::Journal;
use crate::lock::{LockGuard, LockLost, Release};
use crate::phase::Phase;
use crate::rotation::{Action, Blocker, Decision, Intent, Next, Repeats, Rotation as _, Timer, decide};

/// How often both sides are observed while waiting.
const POLL: Duration = Duration::from_millis(400);
/// How long they are observed at that rate. After that, a wait takes long enough for [`SLOW_POLL`].
const FAST_POLLING: Duration = Duration::from_secs(10);
/// How often they are observed in a longer wait.
const SLOW_POLL: Duration = Duration::from_secs(1);
/// The pause after a transient error.
const RETRY: Duration = Duration::from_secs(2);

/// How long one write may take. The fence is open for 20 s after a renewal, and the lock lasts 30 s. So a write that
/// was sent under the lock has arrived or failed before another process can acquire the lock.
pub const LONGEST_WRITE: Duration = Duration::from_secs(8);
/// How long an observation of API requests may take. Requests to the downstream cluster may hang while the agent
/// restarts. A new request uses the new tunnel.
pub const LONGEST_OBSERVATION: Duration = Duration::from_secs(15);

/// How many conflicts in a row, or repetitions of one step, are ordinary. More of them count as a wait, which has a
/// limit.
const FEW: u32 = 5;
/// The longest time for which a step is repeated that is accepted but changes nothing.
const IN_VAIN: Duration = Duration::from_secs(30);
/// The pause before a retry, multiplied by the number of attempts.
const BACKOFF: Duration = Duration::from_millis(50);
/// How much longer than the deadlines of the rotation a wait may last before the run is left pending.
const BEYOND_DEADLINES: Duration = Duration::from_secs(30);

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// The new credential is in use and the old one is rejected.
    Done,
    /// The same, but an earlier process had finished the run.
    AlreadyDone,
    /// The original state is restored, and why.
    RolledBack(String),
    /// A rollback was no longer possible: the new credential is in use, and why.
    RolledForward(String),
    /// Nothing was begun, and why.
    Refused(Vec<Blocker>),
    /// It is not finished and can be resumed.
    Pending {
        /// The farthest phase that was begun.
        phase: Phase,
        /// Its direction.
        direction: Direction,
        /// What stopped it.
        because: Pause,
    },
}

/// Why an unfinished run has stopped.
#[derive(Debug)]
pub enum Pause {
    /// The user asked for it (Ctrl-C).
    Interrupted,
    /// A wait took too long. The text is what it was for.
    TimedOut(String),
    /// It is not safe to continue.
    Blocked(Vec<Blocker>),
    /// Another writer, described by the text, keeps writing the old state back. The target was reapplied once more.
    Contested(String),
    /// The lock was lost, and how.
    LockLost(LockLost),
    /// A call failed with an error that is not transient.
    Error(client::error::Error),
}

/// One run of the engine over one target whose lock is held.
pub struct Engine<'a, C: Controller, L> {
    /// Observes and applies.
    pub controller: &'a C,
    /// Receives the events.
    pub listener: &'a L,
    /// Turns true when the user wants to stop.
    pub stop: watch::Receiver<bool>,
    /// How long one wait may last before the run is left pending; `None`: a little longer than its own deadlines.
    pub patience: Option<Duration>,
}

/// The result of one iteration of the loop.
enum Turn {
    Again,
    After(Duration),
    End(Outcome),
}

struct State<C: Controller> {
    journal: Option<Journal<RotationOf<C>>>,
    /// The journal was read from the Lease and not compared with the objects yet.
    claimed: bool,
    /// The run was begun by another process.
    resumed: bool,
    lock: LockGuard,
    /// Since when another writer is overwriting the target.
    contested: Option<Instant>,
    /// The wait in progress, and since when.
    waiting: Option<(String, Instant)>,
    conflicts: u32,
    /// The steps that were accepted.
    accepted: HashMap<String, Accepted>,
}

/// A step that was accepted, and how often. A step that never has an effect is not repeated forever.
struct Accepted {
    first: Instant,
    times: u32,
}

impl<C: Controller, L: Listener> Engine<'_, C, L> {
    /// Runs until it is finished or has to stop. `journal` was read when the lock was acquired.
    ///
    /// The lock is always released. The journal is kept unless the run is finished.
    pub async fn run(mut self, lock: LockGuard, journal: Option<Journal<RotationOf<C>>>) -> Outcome {
        let journal = journal.map(Journal::taken_over);
        let mut state = State {
            claimed: journal.is_some(),
            resumed: journal.is_some(),
            journal,
            lock,
            contested: None,
            waiting: None,
            conflicts: 0,
            accepted: HashMap::new(),
        };
        let outcome = loop {
            if *self.stop.borrow() {
                break pending(&state, Pause::Interrupted);
            }
            if let Some(lost) = state.lock.lost() {
                break pending(&state, Pause::LockLost(lost));
            }
            match self.turn(&mut state).await {
                Turn::Again => {}
                Turn::After(pause) => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stopped(&mut self.stop) => {}
                    }
                }
                Turn::End(outcome) => break outcome,
            }
        };
        self.finish(state, outcome).await
    }

    fn patience(&self) -> Duration {
        let deadlines = [Timer::Proof, Timer::Quiet].map(|timer| self.controller.lasts(timer));
        self.patience
            .unwrap_or_else(|| deadlines[0].max(deadlines[1]) + BEYOND_DEADLINES)
    }

    fn longest_in_flight(&self) -> Duration {
        LONGEST_WRITE.max(self.controller.lasts(Timer::InFlight))
    }

    async fn turn(&self, state: &mut State<C>) -> Turn {
        let run = self.run_now(state);
        let seen = match self.observe(run.as_ref()).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Turn::End(pending(state, Pause::Interrupted)),
            Err(failure) => return self.failed(state, failure),
        };
        let Some(run) = run else {
            return self.begin(state, &seen).await;
        };
        if std::mem::take(&mut state.claimed) {
            return self.resume(state, &seen, run.direction);
        }
        let decision = decide(&seen, &run);
        match decision.next {
            Next::Step(_) => self.step(state, &seen, decision).await,
            Next::Wait(_) => self.wait(state, &seen, decision).await,
            Next::Turn { to, .. } => self.turn_to(state, &seen, decision, to).await,
            Next::Done => Turn::End(self.reached(state)),
            Next::Refuse(blockers) => Turn::End(pending(state, Pause::Blocked(blockers))),
            Next::Pause(blocker) => Turn::End(pending(state, Pause::Blocked(vec![blocker]))),
        }
    }

    async fn begin(&self, state: &mut State<C>, seen: &ObservedOf<C>) -> Turn {
        match RotationOf::<C>::survey(seen) {
            Ok(record) => {
                let now = self.controller.server().clock.now();
                state.journal = Some(Journal::begin(record, self.controller.resumable_by(), now));
                self.saved(state).await
            }
            Err(blockers) => Turn::End(Outcome::Refused(blockers)),
        }
    }

    /// Replaces the run in the Lease with the run that is recorded on the objects. A rollback never begins a rotation.
    fn resume(&self, state: &mut State<C>, seen: &ObservedOf<C>, claimed: Direction) -> Turn {
        state.journal = state.journal.take().and_then(|journal| journal.resumed(seen));
        if state.journal.is_some() {
            return Turn::Again;
        }
        state.resumed = false;
        if claimed != Direction::Forward {
            return Turn::End(Outcome::RolledBack("nothing had been changed".to_owned()));
        }
        self.listener.on(Event::NothingToResume);
        Turn::Again
    }

    /// Observes both sides. `None` if the user wants to stop: an observation may be cancelled at any time, unlike a
    /// step.
    async fn observe(&self, run: Option<&RunOf<C>>) -> Result<Option<ObservedOf<C>>, Failure> {
        let mut stop = self.stop.clone();
        let longest = self.controller.longest_observation();
        tokio::select! {
            seen = tokio::time::timeout(longest, self.controller.observe(run)) => match seen {
                Ok(seen) => seen.map(Some),
                Err(_) => Err(no_answer(longest)),
            },
            Ok(_) = stop.wait_for(|stop| *stop) => Ok(None),
        }
    }

    fn run_now(&self, state: &State<C>) -> Option<RunOf<C>> {
        let now = self.controller.server().clock.now();
        state.journal.as_ref().map(|journal| journal.run_at(now))
    }

    /// Applies the transition of a decision to the journal. Returns whether anything has changed.
    fn advance(&self, state: &mut State<C>, seen: &ObservedOf<C>, decision: &Decision<RotationOf<C>>) -> bool {
        let now = self.controller.server().clock.now();
        let lasts = |timer| match timer {
            Timer::InFlight => self.longest_in_flight(),
            Timer::Proof | Timer::Quiet | Timer::Retry | Timer::Cache => self.controller.lasts(timer),
        };
        let mut draw = self.controller.draw();
        state
            .journal
            .as_mut()
            .is_some_and(|journal| journal.advance(seen, decision, &mut *draw, now, lasts))
    }

    async fn step(&self, state: &mut State<C>, seen: &ObservedOf<C>, decision: Decision<RotationOf<C>>) -> Turn {
        let Next::Step(Intent { step, repeats, .. }) = &decision.next else {
            return Turn::Again;
        };
        let what = step.to_string();
        if *repeats == Repeats::Never && self.is_in_vain(state, &what) {
            let what = format!("an effect of \"{what}\", which was accepted");
            return Turn::End(pending(state, Pause::TimedOut(what)));
        }
        let before = state
            .journal
            .as_ref()
            .map_or(Phase::Survey, |journal| journal.run().phase);
        self.advance(state, seen, &decision);
        if let end @ Turn::End(_) = self.saved(state).await {
            return end;
        }
        self.listener.on(Event::Step {
            phase: decision.phase,
            what: what.clone(),
        });
        let Some(run) = self.run_now(state) else {
            return Turn::Again;
        };
        let unanswered = unanswered_writes();
        let longest = self.controller.longest(step);
        let sent = tokio::time::timeout(longest, self.controller.apply(step, &run, state.lock.fence())).await;
        match sent.unwrap_or_else(|_| Err(no_answer(longest))) {
            Ok(()) => {
                self.listener.on(Event::Stepped);
                state.waiting = None;
                state.conflicts = 0;
                if let Some(journal) = &mut state.journal {
                    journal.succeeded(repeats);
                }
                if let Repeats::Reapply(writer) = repeats {
                    let since = *state.contested.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.patience() {
                        return Turn::End(pending(state, Pause::Contested(writer.clone())));
                    }
                }
                accepted(state, what)
            }
            Err(failure) => {
                let reopened = match (&failure, &mut state.journal) {
                    (Failure::Transient(_), Some(journal)) => {
                        journal.unanswered(self.controller.server().clock.now(), self.longest_in_flight());
                        false
                    }
                    (failure, Some(journal)) => {
                        failure.is_refusal() && unanswered == unanswered_writes() && journal.refused(before)
                    }
                    (_, None) => false,
                };
                if reopened && let end @ Turn::End(_) = self.saved(state).await {
                    return end;
                }
                self.failed(state, failure)
            }
        }
    }

    fn is_in_vain(&self, state: &State<C>, what: &str) -> bool {
        let before = state.accepted.get(what);
        before.is_some_and(|before| before.times > FEW && before.first.elapsed() >= self.patience().min(IN_VAIN))
    }

    async fn wait(&self, state: &mut State<C>, seen: &ObservedOf<C>, decision: Decision<RotationOf<C>>) -> Turn {
        if self.advance(state, seen, &decision)
            && let end @ Turn::End(_) = self.saved(state).await
        {
            return end;
        }
        let Next::Wait(wait) = decision.next else {
            return Turn::Again;
        };
        self.be_patient(state, decision.phase, wait.what, POLL)
    }

    fn be_patient(&self, state: &mut State<C>, phase: Phase, what: String, poll: Duration) -> Turn {
        let since = match &state.waiting {
            Some((before, since)) if *before == what => *since,
            _ => {
                self.listener.on(Event::Waiting {
                    phase,
                    what: what.clone(),
                });
                let since = Instant::now();
                state.waiting = Some((what.clone(), since));
                since
            }
        };
        if since.elapsed() >= self.patience() {
            return Turn::End(pending(state, Pause::TimedOut(what)));
        }
        Turn::After(if since.elapsed() < FAST_POLLING {
            poll
        } else {
            poll.max(SLOW_POLL)
        })
    }

    async fn turn_to(
        &self,
        state: &mut State<C>,
        seen: &ObservedOf<C>,
        decision: Decision<RotationOf<C>>,
        to: Direction,
    ) -> Turn {
        if !state.journal.as_ref().is_some_and(|journal| journal.run().may_turn(to)) {
            return contradiction(state, &format!("a turn to {to} where there is none"));
        }
        self.advance(state, seen, &decision);
        state.waiting = None;
        state.contested = None;
        let turn = self.saved(state).await;
        if let (Turn::Again, Next::Turn { to, reason }) = (&turn, decision.next) {
            self.listener.on(Event::Turned { to, reason });
        }
        turn
    }

    async fn saved(&self, state: &mut State<C>) -> Turn {
        let text = match state.journal.as_ref().map(Journal::to_text).transpose() {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                let error = client::error::Error::failed(format!("the journal cannot be written: {error}"));
                return Turn::End(pending(state, Pause::Error(error)));
            }
        };
        let mut stop = self.stop.clone();
        let stopped_in_an_outage = async {
            stopped(&mut stop).await;
            state.lock.fence().closed().await;
        };
        let saved = tokio::select! {
            biased;
            saved = tokio::time::timeout(self.patience(), state.lock.save(text)) => saved,
            () = stopped_in_an_outage => return Turn::End(pending(state, Pause::Interrupted)),
        };
        match saved.unwrap_or(Err(LockLost::NotRenewed)) {
            Ok(()) => Turn::Again,
            Err(lost) => Turn::End(pending(state, Pause::LockLost(lost))),
        }
    }

    /// A failed call means "not yet", until the wait has taken too long.
    fn failed(&self, state: &mut State<C>, failure: Failure) -> Turn {
        let phase = state
            .journal
            .as_ref()
            .map_or(Phase::Survey, |journal| journal.run().phase);
        match failure {
            Failure::Conflict => {
                state.conflicts += 1;
                let pause = BACKOFF * state.conflicts.min(20);
                if state.conflicts <= FEW {
                    return Turn::After(pause);
                }
                let what = "other writers to stop changing the same object".to_owned();
                self.be_patient(state, phase, what, pause)
            }
            Failure::LockLost => match state.lock.lost() {
                Some(lost) => Turn::End(pending(state, Pause::LockLost(lost))),
                None => self.be_patient(state, phase, "the lock to be renewed".to_owned(), POLL),
            },
            Failure::Permanent(error) => Turn::End(pending(state, Pause::Error(error))),
            // No run is in progress yet, so report the error instead of waiting.
            Failure::Transient(error) if state.journal.is_none() => Turn::End(pending(state, Pause::Error(error))),
            Failure::Transient(error) => {
                self.listener.on(Event::TransientError(error.to_string()));
                let what = state
                    .waiting
                    .as_ref()
                    .map_or_else(|| "a response".to_owned(), |(what, _)| what.clone());
                self.be_patient(state, phase, what, RETRY)
            }
        }
    }

    fn reached(&self, state: &State<C>) -> Outcome {
        let Some(journal) = &state.journal else {
            return Outcome::AlreadyDone;
        };
        let direction = journal.run().direction;
        self.listener.on(Event::Done(direction));
        let reason = || journal.reason.clone().unwrap_or_else(|| "requested".to_owned());
        match direction {
            Direction::Forward if state.resumed && state.accepted.is_empty() => Outcome::AlreadyDone,
            Direction::Forward => Outcome::Done,
            Direction::Rollback => Outcome::RolledBack(reason()),
            Direction::RollForward => Outcome::RolledForward(reason()),
        }
    }

    /// Releases the lock. If that fails, the lock expires.
    async fn finish(&self, state: State<C>, outcome: Outcome) -> Outcome {
        let release = match &outcome {
            Outcome::Done | Outcome::AlreadyDone => {
                let record = state.journal.as_ref().map(|journal| &journal.run().record);
                Release::Finish(record.map_or(Action::ROTATE, C::Rotation::action).done.to_owned())
            }
            Outcome::RolledBack(reason) => Release::Finish(format!("rolled back: {reason}")),
            Outcome::RolledForward(reason) => Release::Finish(format!("rotated, rollback not possible: {reason}")),
            // The Lease may still have the journal of a run of which no object exists.
            Outcome::Refused(_) => Release::RemoveJournal,
            Outcome::Pending { .. } if state.journal.is_none() => Release::RemoveJournal,
            Outcome::Pending { .. } => Release::KeepJournal,
        };
        if let Err(lost) = state.lock.release(release).await {
            tracing::debug!(%lost, "the lock was not released");
        }
        outcome
    }
}

fn accepted<C: Controller>(state: &mut State<C>, what: String) -> Turn {
    let accepted = state.accepted.entry(what).or_insert_with(|| Accepted {
        first: Instant::now(),
        times: 0,
    });
    accepted.times += 1;
    match accepted.times {
        1 => Turn::Again,
        times => Turn::After(BACKOFF * times.min(20)),
    }
}

fn pending<C: Controller>(state: &State<C>, because: Pause) -> Outcome {
    let run = state.journal.as_ref().map(Journal::run);
    let (phase, direction) = run.map_or((Phase::Survey, Direction::Forward), |run| (run.phase, run.direction));
    Outcome::Pending {
        phase,
        direction,
        because,
    }
}

/// Returns when the user wants to stop. Never returns if the sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn no_answer(within: Duration) -> Failure {
    let message = format!("no response within {}s", within.as_secs());
    Failure::Transient(client::error::Error::failed(message))
}

/// Ends the run after a decision that the model checker excludes.
fn contradiction<C: Controller>(state: &State<C>, what: &str) -> Turn {
    let error = client::error::Error::failed(format!("the rotation contradicts itself: {what}"));
    Turn::End(pending(
        state,
        Pause::Error(error.hint("this is a bug; nothing was changed. Please report it")),
    ))
}
