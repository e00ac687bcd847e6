//! Mistakes that somebody might make in `decide`. The exploration must find each, or it proves nothing.
//!
//! Each is the real `decide` with a lie told to it: what it then does is what one would do who did not look.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};

use engine::phase::{Goal, Phase};
use engine::protocol::{Draw, Next, Protocol, Repeats, Run};
use kubectl_argocd_rancher::rotation::view::{Answer, Consumer, Leg, Life, Mark, Name, Notes, Parked, Target, View};
use kubectl_argocd_rancher::rotation::write::Write;
use kubectl_argocd_rancher::rotation::{ArgocdRancher, Timer};
use model::mistaken::{real, told};

use crate::world::{US, held, known, old, stranger};

/// What somebody might forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// None at all.
    None,
    /// N is placed before Rancher lets it in.
    NotLetIn,
    /// A call that came to nothing counts as one that was let in.
    NoAnswerIsYes,
    /// N is placed before anything is parked.
    NotParked,
    /// O is revoked before N is in its place.
    NotPlaced,
    /// The grace time is not waited for.
    NoGrace,
    /// The grace time goes on when the token is put into the Secret again.
    GraceGoesOn,
    /// Once placed, nobody looks at the Secret again.
    NotReadAgain,
    /// Nobody waits for Argo CD to call with N.
    NotSeen,
    /// Our own call counts as Argo CD's.
    NotQuiet,
    /// On the way back a Secret that holds O is left as it is, so that a late write still fits it.
    NoGuard,
    /// On the way back nobody asks whether O still lives.
    DeadOld,
    /// A token that was to be deleted is relied on again.
    ReliesOnGivenUp,
    /// A stranger's token is overwritten.
    Overwrites,
    /// A token that is about to expire counts as good.
    NoMargin,
    /// A token counts as refused as soon as it is not listed.
    NoConfirmation,
    /// What was parked is dropped once N is in its place.
    UnparksEarly,
    /// Another user than the one who minted goes on.
    AnyUser,
    /// A new token that Argo CD may have is deleted when its value is lost.
    DropsPlaced,
    /// The token of somebody else is deleted.
    RevokesForeign,
    /// What the Lease claims is believed.
    TrustsJournal,
    /// Another Rancher is changed than the one of the cluster Secret.
    AnyRancher,
    /// Anybody's call with N counts as Argo CD's.
    AnyUse,
    /// That Argo CD cannot work with N is not looked at.
    NeverFailed,
    /// A token is revoked that was put into another Secret meanwhile.
    RevokesShared,
}

thread_local! {
    // An exploration runs on one thread, and a type of its own for each mistake would have to be compiled each time.
    static MISTAKE: Cell<Mistake> = const { Cell::new(Mistake::None) };
}

/// Makes this mistake in everything that is done meanwhile.
pub(crate) fn with<T>(mistake: Mistake, done: impl FnOnce() -> T) -> T {
    MISTAKE.set(mistake);
    let done = done();
    MISTAKE.set(Mistake::None);
    done
}

/// The real protocol, with the mistake that is being made: none, but within [`with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Perhaps;

/// What is there, and how often the cluster Secret was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) view: View,
    pub(crate) version: u8,
    /// Every name that Rancher has ever drawn: none of them comes again.
    pub(crate) used: BTreeSet<Name>,
}

impl Seen {
    /// A rotation of anything else is not the one that is explored.
    pub(crate) fn is_another_start(&self) -> bool {
        held(self) != Some(old()) || self.user != US || !self.same_rancher
    }
}

impl Deref for Seen {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl DerefMut for Seen {
    fn deref_mut(&mut self) -> &mut View {
        &mut self.view
    }
}

/// A lie about what is there.
fn lie(mistake: Mistake, view: &mut View, run: &Run<ArgocdRancher>) {
    let back = run.goal == Goal::Back;
    let new = run.notes.new.clone();
    let is_strange = held(view).is_none_or(|value| value == stranger());
    let hold = |view: &mut View, known| {
        if let Target::Holds { held, .. } = &mut view.target {
            *held = known;
        }
    };
    match mistake {
        Mistake::NotLetIn => view.new_answer = Answer::Works,
        Mistake::NoGrace if !run.notes.placed.is_empty() => view.new_answer = Answer::Works,
        Mistake::NoAnswerIsYes if matches!(view.new_answer, Answer::Open(_)) => view.new_answer = Answer::Works,
        Mistake::NotParked => {
            view.parked = Some(Parked {
                old: Some(known(old())),
                new,
                ..Parked::default()
            });
        }
        Mistake::NotPlaced if !back && new.is_some() => hold(view, new),
        Mistake::NotReadAgain if !back && !run.notes.placed.is_empty() => hold(view, new),
        Mistake::NotSeen => view.watched = false,
        Mistake::NotQuiet => view.quiet = true,
        Mistake::NoGuard => {
            if let Target::Holds { mark, .. } = &mut view.target {
                *mark = Some(Mark {
                    leg: Leg::Stay,
                    user: String::new(),
                    old: None,
                    keep_old: false,
                    placed: [].into(),
                    used_before: None,
                });
            }
        }
        Mistake::DeadOld if back => {
            view.old = Some(Life::Sound);
            view.old_answer = Answer::Works;
        }
        Mistake::Overwrites if is_strange => hold(view, Some(known(old()))),
        Mistake::NoMargin => {
            let lives = view.minted.values_mut().map(|minted| &mut minted.life);
            for life in lives.chain(&mut view.old).filter(|life| **life == Life::Ending) {
                *life = Life::Sound;
            }
        }
        Mistake::NoConfirmation if view.old.is_none() => view.old_answer = Answer::Refused,
        Mistake::RevokesForeign => view.old = Some(Life::Sound),
        Mistake::AnyRancher => view.same_rancher = true,
        Mistake::AnyUse => view.consumer = Consumer::Since,
        Mistake::NeverFailed if view.consumer == Consumer::Failed => view.consumer = Consumer::Since,
        Mistake::RevokesShared => view.old_needed_by = None,
        _ => {}
    }
}

/// A lie about the run.
fn misremember(mistake: Mistake, run: &mut Run<ArgocdRancher>) {
    match mistake {
        Mistake::NoGrace => {
            run.timers.insert(Timer::Grace, true);
        }
        Mistake::ReliesOnGivenUp => run.notes.given_up.clear(),
        Mistake::DropsPlaced => run.notes.placed.clear(),
        Mistake::RevokesForeign => run.notes.keep_old = false,
        _ => {}
    }
}

/// What another user sees: of Rancher's tokens only his own.
fn seen(view: &View) -> View {
    let mut view = view.clone();
    if view.user != US || !view.same_rancher {
        view.minted.clear();
        view.old = None;
    }
    view
}

impl Protocol for Perhaps {
    type View = Seen;
    type Notes = Notes;
    type Write = Write;
    type Timer = Timer;

    fn decide(view: &Seen, run: Option<&Run<Self>>) -> Next<Self> {
        if run.is_none() && view.is_another_start() {
            return Next::Refuse(Vec::new());
        }
        let mistake = MISTAKE.get();
        let mut view = seen(&view.view);
        let mut real_run = run.map(real::<ArgocdRancher, _>);
        if let Some(run) = &mut real_run {
            lie(mistake, &mut view, run);
            misremember(mistake, run);
            if mistake == Mistake::AnyUser {
                view.user.clone_from(&run.notes.user);
            }
            let in_place = run.notes.new.as_ref().is_some_and(|new| view.target.holds(new.value));
            if mistake == Mistake::UnparksEarly && in_place && view.parked.is_some() {
                return Next::write(Phase::Place, Write::Unpark);
            }
        }
        let mut next = told(ArgocdRancher::decide(&view, real_run.as_ref()), run);
        if let Next::Do(step) = &mut next {
            if mistake == Mistake::GraceGoesOn {
                step.stops.clear();
            }
            // Once the run is contested it does not matter how often.
            if run.is_some_and(Run::is_contested) {
                step.repeats = Repeats::Never;
            }
        }
        next
    }

    fn recall(view: &Seen, claimed: &Run<Self>) -> Option<Notes> {
        if MISTAKE.get() == Mistake::TrustsJournal {
            return Some(claimed.notes.clone());
        }
        ArgocdRancher::recall(&seen(&view.view), &real(claimed))
    }

    fn predict(view: &mut Seen, run: &Run<Self>, write: &Write) {
        let mut run = real::<ArgocdRancher, _>(run);
        if matches!(write, Write::Mint { .. }) {
            run.notes.given_up.extend(view.used.clone());
        }
        ArgocdRancher::predict(view, &run, write);
        let names: Vec<Name> = view.minted.keys().cloned().collect();
        view.used.extend(names);
    }

    fn rest(_: &mut Seen, _: &mut Run<Self>) {}

    fn intend(write: &Write, run: &Run<Self>, draw: &mut dyn Draw) -> Notes {
        ArgocdRancher::intend(write, &real(run), draw)
    }
}
