//! The loop: observe, decide, act, until the goal is reached.
//!
//! A rotation is a small controller that is run once. It is level-triggered: it never asks "what did I do last?", only
//! "what is there now, and what is the next safe step?". So resuming is nothing special: it is running again.
//!
//! Each write is preceded by a compare-and-swap of the journal. That is the journaled intent (names and fingerprints
//! are known before the objects exist), and it is what fences a holder that lost its lock without noticing.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::event::{Event, Listener};
use crate::journal::Journal;
use crate::lock::{End, Held, Lost};
use crate::phase::{Goal, Phase};
use crate::protocol::{Actor, Next, Obstacle, Protocol, Repeats, RunOf, Step, Trouble, ViewOf, Wait};

/// How often the world is looked at while waiting.
const LOOK: Duration = Duration::from_millis(400);
/// For how long it is looked at so often; afterwards once in [`LATER_LOOK`], since what has taken longer takes longer.
const AT_FIRST: Duration = Duration::from_secs(10);
/// How often the world is looked at in a longer wait: what becomes true is seen within a second.
const LATER_LOOK: Duration = Duration::from_secs(1);
/// How often at most when it does not answer.
const SLOW_LOOK: Duration = Duration::from_secs(2);

/// How long one write may take. The fence is open for 20 s after a renewal, and the lock lasts 30 s: what was sent under
/// the lock has arrived, or never will, before anybody else can take it.
const LONGEST_WRITE: Duration = Duration::from_secs(8);
/// How long one look may take: the way to the downstream side may hang while the agent restarts, and a look that is made
/// anew finds the new tunnel.
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// So many conflicts in a row, or repetitions of one write, are ordinary; more of them are a wait, which patience limits.
const FEW: u32 = 5;
/// For how long at most a write is repeated that is accepted each time and changes nothing.
const IN_VAIN: Duration = Duration::from_secs(30);
/// The pause before what has come to nothing is tried again, for each time that it has.
const LONGER_EACH_TIME: Duration = Duration::from_millis(50);

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// The new credential is in use and the old one is refused.
    Done,
    /// The same, by an earlier process: this one found nothing left to do.
    AlreadyDone,
    /// The start is restored, and why.
    Undone(String),
    /// Nothing was begun, and why.
    Refused(Vec<Obstacle>),
    /// It stands where it is and can be gone on with.
    Pending {
        /// The farthest phase that was begun.
        phase: Phase,
        /// Which way it goes on.
        goal: Goal,
        /// What stopped it.
        because: Pause,
    },
}

/// What stops a run that is not at its end.
#[derive(Debug)]
pub enum Pause {
    /// Somebody asked for it (Ctrl-C).
    Asked,
    /// The world did not move for as long as the patience lasts. The text is what was waited for.
    OutOfPatience(String),
    /// It is not safe to go on.
    Obstacles(Vec<Obstacle>),
    /// Another writer keeps writing the old state back: who, in words. The target was put right once more.
    Contested(String),
    /// The lock was lost, and how.
    LockLost(Lost),
    /// A call failed in a way that will not pass by itself.
    Error(client::error::Error),
}

/// One run of the engine over one subject whose lock is held.
pub struct Engine<'a, A: Actor, L> {
    /// Reads and writes the world.
    pub actor: &'a A,
    /// Is told what happens.
    pub listener: &'a L,
    /// Turns true when the user wants to stop.
    pub stop: watch::Receiver<bool>,
    /// How long one wait may last before the run is left pending.
    pub patience: Duration,
    /// Who can resume, in words, for the journal.
    pub resumable_by: String,
}

/// What one turn of the loop came to.
enum Turn {
    Again,
    After(Duration),
    End(Outcome),
}

struct State<A: Actor> {
    journal: Option<Journal<A::Protocol>>,
    /// The journal was read from the Lease, and the objects were not asked yet what of it is true.
    claimed: bool,
    /// The run was begun by another process.
    resumed: bool,
    lock: Held,
    /// Since when another writer is put right.
    contested: Option<Instant>,
    /// The wait under way, and since when.
    waiting: Option<(String, Instant)>,
    conflicts: u32,
    /// The writes that were accepted.
    accepted: HashMap<String, Accepted>,
}

/// A write that was accepted, perhaps more than once: a server that accepts and does nothing is not tried for ever.
struct Accepted {
    first: Instant,
    times: u32,
}

impl<A: Actor, L: Listener> Engine<'_, A, L> {
    /// Runs to the end, or to where it must stop. `journal` is what was read when the lock was taken.
    ///
    /// The lock is released in every case; the journal stays unless the goal was reached.
    pub async fn run(mut self, lock: Held, journal: Option<Journal<A::Protocol>>) -> Outcome {
        let journal = journal.map(Journal::resumed);
        if let Some(journal) = &journal {
            self.listener.hear(Event::Resumed {
                goal: journal.goal,
                reason: journal.reason.clone(),
            });
        }
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
                break pending(&state, Pause::Asked);
            }
            if let Some(lost) = state.lock.lost() {
                break pending(&state, Pause::LockLost(lost));
            }
            match self.turn(&mut state).await {
                Turn::Again => {}
                Turn::After(pause) => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = asked(&mut self.stop) => {}
                    }
                }
                Turn::End(outcome) => break outcome,
            }
        };
        self.finish(state, outcome).await
    }

    async fn turn(&self, state: &mut State<A>) -> Turn {
        let run = self.run_now(state);
        let view = match self.observe(run.as_ref()).await {
            Ok(Some(view)) => view,
            Ok(None) => return Turn::End(pending(state, Pause::Asked)),
            Err(trouble) => return self.troubled(state, trouble),
        };
        if let Some(run) = run.as_ref().filter(|_| state.claimed) {
            self.recall(state, &view, run);
            // A rollback never begins a rotation.
            return if state.journal.is_none() && run.goal == Goal::Back {
                Turn::End(Outcome::Undone("nothing had been changed".to_owned()))
            } else {
                Turn::Again
            };
        }
        match A::Protocol::decide(&view, run.as_ref()) {
            Next::Begin(_) if state.journal.is_some() => contradiction(state, "a second beginning"),
            Next::Begin(notes) => {
                let now = self.actor.clock().now();
                state.journal = Some(Journal::begin(notes, self.resumable_by.clone(), now));
                self.saved(state).await
            }
            Next::Do(step) => self.step(state, step).await,
            Next::Wait(wait) => self.wait(state, wait).await,
            Next::TurnBack(reason) => self.turn_back(state, reason).await,
            Next::Done => Turn::End(self.reached(state)),
            Next::Refuse(obstacles) if state.journal.is_none() => Turn::End(Outcome::Refused(obstacles)),
            Next::Refuse(obstacles) => Turn::End(pending(state, Pause::Obstacles(obstacles))),
        }
    }

    /// What the Lease claims is replaced by what the objects say.
    fn recall(&self, state: &mut State<A>, view: &ViewOf<A>, claimed: &RunOf<A>) {
        state.claimed = false;
        let recalled = A::Protocol::recall(view, claimed);
        if recalled.is_none() {
            state.resumed = false;
            if claimed.goal == Goal::Forward {
                self.listener.hear(Event::NothingToResume);
            }
        }
        state.journal = state
            .journal
            .take()
            .zip(recalled)
            .map(|(journal, notes)| journal.with_notes(notes));
    }

    /// Looks at both sides. A look may be given up at any moment, unlike a write: `None` when the user wants to stop.
    async fn observe(&self, run: Option<&RunOf<A>>) -> Result<Option<ViewOf<A>>, Trouble> {
        let mut stop = self.stop.clone();
        tokio::select! {
            seen = tokio::time::timeout(LONGEST_LOOK, self.actor.observe(run)) => match seen {
                Ok(seen) => seen.map(Some),
                Err(_) => Err(no_answer(LONGEST_LOOK)),
            },
            Ok(_) = stop.wait_for(|stop| *stop) => Ok(None),
        }
    }

    fn run_now(&self, state: &State<A>) -> Option<RunOf<A>> {
        state
            .journal
            .as_ref()
            .map(|journal| journal.as_of(self.actor.clock().now()))
    }

    async fn step(&self, state: &mut State<A>, step: Step<A::Protocol>) -> Turn {
        let Some(run) = self.run_now(state) else {
            return contradiction(state, "a write before a journal");
        };
        let notes = A::Protocol::intend(&step.write, &run, &mut *self.actor.draw());
        let what = step.write.to_string();
        if step.repeats == Repeats::Never && self.is_in_vain(state, &what) {
            let what = format!("an effect of \"{what}\", which was accepted");
            return Turn::End(pending(state, Pause::OutOfPatience(what)));
        }
        if let Some(journal) = &mut state.journal {
            journal.notes = notes;
            journal.phase = journal.phase.max(step.phase);
            journal.step = Some(what.clone());
            let now = self.actor.clock().now();
            step.stops.iter().for_each(|timer| journal.stop(*timer));
            for timer in step.starts {
                journal.start(timer, now, self.actor.lasts(timer));
            }
        }
        if let end @ Turn::End(_) = self.saved(state).await {
            return end;
        }
        self.listener.hear(Event::Step {
            phase: step.phase,
            what: what.clone(),
        });
        let Some(run) = self.run_now(state) else {
            return Turn::Again;
        };
        let sent = tokio::time::timeout(LONGEST_WRITE, self.actor.act(&step.write, &run, state.lock.fence())).await;
        match sent.unwrap_or_else(|_| Err(no_answer(LONGEST_WRITE))) {
            Ok(()) => {
                self.listener.hear(Event::Stepped);
                state.waiting = None;
                state.conflicts = 0;
                if let Repeats::PutBack(writer) = step.repeats {
                    if let Some(journal) = &mut state.journal {
                        journal.count_put_back();
                    }
                    let since = *state.contested.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.patience {
                        return Turn::End(pending(state, Pause::Contested(writer)));
                    }
                }
                accepted(state, what)
            }
            Err(trouble) => self.troubled(state, trouble),
        }
    }

    fn is_in_vain(&self, state: &State<A>, what: &str) -> bool {
        let before = state.accepted.get(what);
        before.is_some_and(|before| before.times > FEW && before.first.elapsed() >= self.patience.min(IN_VAIN))
    }

    async fn wait(&self, state: &mut State<A>, wait: Wait<A::Protocol>) -> Turn {
        if let Some(journal) = &mut state.journal {
            let now = self.actor.clock().now();
            let news: Vec<_> = wait
                .starts
                .into_iter()
                .filter(|timer| journal.deadline(*timer).is_none())
                .collect();
            for timer in &news {
                journal.start(*timer, now, self.actor.lasts(*timer));
            }
            let phase_moves = journal.phase < wait.phase;
            journal.phase = journal.phase.max(wait.phase);
            if (phase_moves || !news.is_empty())
                && let end @ Turn::End(_) = self.saved(state).await
            {
                return end;
            }
        }
        self.be_patient(state, wait.phase, wait.what, LOOK)
    }

    fn be_patient(&self, state: &mut State<A>, phase: Phase, what: String, look: Duration) -> Turn {
        let since = match &state.waiting {
            Some((before, since)) if *before == what => *since,
            _ => {
                self.listener.hear(Event::Waiting {
                    phase,
                    what: what.clone(),
                });
                let since = Instant::now();
                state.waiting = Some((what.clone(), since));
                since
            }
        };
        if since.elapsed() >= self.patience {
            return Turn::End(pending(state, Pause::OutOfPatience(what)));
        }
        let look = if since.elapsed() < AT_FIRST {
            look
        } else {
            look.max(LATER_LOOK)
        };
        Turn::After(look)
    }

    async fn turn_back(&self, state: &mut State<A>, reason: String) -> Turn {
        match &mut state.journal {
            Some(journal) if journal.goal == Goal::Forward && journal.phase.may_be_undone() => {
                journal.turn_back(reason.clone());
            }
            _ => return contradiction(state, "a way back where there is none"),
        }
        state.waiting = None;
        state.contested = None;
        let turn = self.saved(state).await;
        if matches!(turn, Turn::Again) {
            self.listener.hear(Event::TurnedBack(reason));
        }
        turn
    }

    async fn saved(&self, state: &mut State<A>) -> Turn {
        let text = match state.journal.as_ref().map(Journal::to_text).transpose() {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                let error = client::error::Error::failed(format!("the journal cannot be written: {error}"));
                return Turn::End(pending(state, Pause::Error(error)));
            }
        };
        match state.lock.save(text).await {
            Ok(()) => Turn::Again,
            Err(lost) => Turn::End(pending(state, Pause::LockLost(lost))),
        }
    }

    /// While the engine runs, a call that fails means "not yet", until patience ends.
    fn troubled(&self, state: &mut State<A>, trouble: Trouble) -> Turn {
        match trouble {
            Trouble::Changed => {
                state.conflicts += 1;
                let pause = LONGER_EACH_TIME * state.conflicts.min(20);
                if state.conflicts <= FEW {
                    return Turn::After(pause);
                }
                let phase = state.journal.as_ref().map_or(Phase::Survey, |journal| journal.phase);
                let what = "somebody else to stop changing the same object".to_owned();
                self.be_patient(state, phase, what, pause)
            }
            Trouble::LockLost => Turn::End(pending(
                state,
                Pause::LockLost(state.lock.lost().unwrap_or(Lost::NotRenewed)),
            )),
            Trouble::Fatal(error) => Turn::End(pending(state, Pause::Error(error))),
            // Nothing is under way yet: say what is wrong instead of waiting for it.
            Trouble::NotYet(error) if state.journal.is_none() => Turn::End(pending(state, Pause::Error(error))),
            Trouble::NotYet(error) => {
                self.listener.hear(Event::Hiccup(error.to_string()));
                let phase = state.journal.as_ref().map_or(Phase::Survey, |journal| journal.phase);
                let what = state
                    .waiting
                    .as_ref()
                    .map_or_else(|| "an answer".to_owned(), |(what, _)| what.clone());
                self.be_patient(state, phase, what, SLOW_LOOK)
            }
        }
    }

    fn reached(&self, state: &State<A>) -> Outcome {
        let goal = state.journal.as_ref().map_or(Goal::Forward, |journal| journal.goal);
        self.listener.hear(Event::Done(goal));
        match goal {
            Goal::Forward if state.resumed && state.accepted.is_empty() => Outcome::AlreadyDone,
            Goal::Forward => Outcome::Done,
            Goal::Back => {
                let reason = state.journal.as_ref().and_then(|journal| journal.reason.clone());
                Outcome::Undone(reason.unwrap_or_else(|| "asked for".to_owned()))
            }
        }
    }

    /// Gives the lock back. What cannot be given back any more runs out by itself.
    async fn finish(&self, state: State<A>, outcome: Outcome) -> Outcome {
        let end = match &outcome {
            Outcome::Done | Outcome::AlreadyDone => End::Finished("rotated".to_owned()),
            Outcome::Undone(reason) => End::Finished(format!("undone: {reason}")),
            // Here the Lease may still hold a journal that nothing stands for.
            Outcome::Refused(_) => End::Nothing,
            Outcome::Pending { .. } if state.journal.is_none() => End::Nothing,
            Outcome::Pending { .. } => End::Pending,
        };
        if let Err(lost) = state.lock.release(end).await {
            tracing::debug!(%lost, "the lock was not released");
        }
        outcome
    }
}

fn accepted<A: Actor>(state: &mut State<A>, what: String) -> Turn {
    let accepted = state.accepted.entry(what).or_insert_with(|| Accepted {
        first: Instant::now(),
        times: 0,
    });
    accepted.times += 1;
    match accepted.times {
        1 => Turn::Again,
        times => Turn::After(LONGER_EACH_TIME * times.min(20)),
    }
}

fn pending<A: Actor>(state: &State<A>, because: Pause) -> Outcome {
    let journal = state.journal.as_ref();
    let (phase, goal) = journal.map_or((Phase::Survey, Goal::Forward), |journal| (journal.phase, journal.goal));
    Outcome::Pending { phase, goal, because }
}

/// Returns when the user wants to stop; never when nobody is left who could want it.
async fn asked(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn no_answer(within: Duration) -> Trouble {
    let message = format!("no answer within {}s", within.as_secs());
    Trouble::NotYet(client::error::Error::failed(message))
}

/// What no protocol may answer, and what the exploration of each shows that it does not.
fn contradiction<A: Actor>(state: &State<A>, what: &str) -> Turn {
    let error = client::error::Error::failed(format!("the protocol contradicts itself: {what}"));
    Turn::End(pending(
        state,
        Pause::Error(error.hint("this is a mistake in the program; nothing was written")),
    ))
}
