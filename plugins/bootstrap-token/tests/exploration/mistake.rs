//! Mistakes that somebody might make in `decide`. The exploration must find each, or it proves nothing.
//!
//! Each is the real `decide` with a lie told to it: what it then does is what one would do who did not look.

use std::cell::Cell;

use engine::phase::Goal;
use engine::protocol::{Draw, Next, Protocol, Repeats, Run};
use kubectl_bootstrap_token::rotation::view::{Answer, Held, Leg, Notes, Standing, Target, View};
use kubectl_bootstrap_token::rotation::write::Write;
use kubectl_bootstrap_token::rotation::{BootstrapToken, Timer};
use model::mistaken::{real, told};

use crate::world::{holds_old, old};

/// What somebody might forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// None at all.
    None,
    /// N is delivered before the API server accepts it.
    NotAccepted,
    /// O is deleted before N is delivered.
    NotDelivered,
    /// The overlap is not waited for.
    NoOverlap,
    /// On the way back N is deleted before O is delivered.
    BackTooEarly,
    /// A value that is neither O nor N is overwritten.
    Overwrites,
    /// Once N is delivered nobody asks whether it still works.
    NoProof,
    /// On the way back a target that holds O is left as it is, so that a late delivery still fits it.
    NoGuard,
    /// On the way back nobody asks whether O still lives.
    DeadOld,
    /// When the way back is cut off, N gets no mark, so that a late deletion still fits it.
    NoMark,
    /// N is delivered before cluster-info is signed with it.
    NotSigned,
    /// One API server's word is taken for that of all.
    OneServer,
    /// A token that is about to expire counts as good.
    NoMargin,
    /// A token counts as refused as soon as its Secret is gone.
    NoConfirmation,
    /// A file on another host is left behind although nobody has said that it is lost.
    GivesUp,
    /// Once a file is left behind, whoever has read it gets no overlap.
    LeavesInHaste,
    /// The overlap goes on when another writer has written O back.
    StaysQuiet,
    /// Nobody asks whose login the command has.
    IgnoresLogin,
    /// Nobody asks which cluster it is once the rotation has begun.
    IgnoresCluster,
    /// A resumed run believes its journal.
    TrustsJournal,
    /// A resumed run believes its journal that N was never delivered.
    TrustsDelivered,
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

fn lie(mistake: Mistake, view: &View, run: Option<&Run<Perhaps>>) -> View {
    let mut view = view.clone();
    let back = run.is_some_and(|run| run.goal == Goal::Back);
    let id = run.and_then(|run| run.notes.new.as_ref()).map(|new| new.id.clone());
    let value = view.new.token.as_ref().and_then(|token| token.value);
    match mistake {
        Mistake::NotAccepted => view.new.answer = Answer::Accepted,
        Mistake::NotDelivered if !back => {
            if let (Target::Holds { held, answer, .. }, Some(value)) = (&mut view.target, value) {
                *held = Held { id, value };
                *answer = Answer::Accepted;
            }
        }
        Mistake::BackTooEarly if back => view.target = holds_old(),
        Mistake::Overwrites if matches!(&view.target, Target::Missing | Target::Holds { .. }) => {
            let held = match &view.target {
                Target::Holds { held, .. } => held.id.clone(),
                _ => None,
            };
            if held.is_none() {
                view.target = holds_old();
            }
        }
        Mistake::NoProof => {
            if let Target::Holds { held, answer, .. } = &mut view.target
                && held.id == id
                && let Some(token) = &mut view.new.token
            {
                token.standing = Standing::Sound;
                view.new.answer = Answer::Accepted;
                *answer = Answer::Accepted;
            }
        }
        Mistake::DeadOld if back => {
            if let Some(token) = &mut view.old.token {
                token.standing = Standing::Sound;
                view.old.answer = Answer::Accepted;
            }
            if let Target::Holds { held, answer, .. } = &mut view.target
                && held.value == old()
            {
                *answer = Answer::Accepted;
            }
        }
        Mistake::NoMark => view.new.token.iter_mut().for_each(|token| token.mark = Some(Leg::Stay)),
        Mistake::NotSigned => view.new.signed = true,
        Mistake::GivesUp => view.lost = true,
        Mistake::IgnoresLogin => view.login = None,
        Mistake::IgnoresCluster if run.is_some() => view.another_cluster = None,
        Mistake::NoConfirmation if view.old.token.is_none() => view.old.answer = Answer::Refused,
        Mistake::OneServer => {
            let target = match &mut view.target {
                Target::Holds { answer, .. } => Some(answer),
                _ => None,
            };
            for answer in [&mut view.new.answer].into_iter().chain(target) {
                if *answer == Answer::Mixed {
                    *answer = Answer::Accepted;
                }
            }
        }
        Mistake::NoMargin => {
            for token in [&mut view.old.token, &mut view.new.token].into_iter().flatten() {
                if token.standing == Standing::Ending {
                    token.standing = Standing::Sound;
                }
            }
        }
        _ => {}
    }
    let unguarded = mistake == Mistake::NoGuard || mistake == Mistake::BackTooEarly && back;
    if let Target::Holds { leg, .. } = &mut view.target
        && unguarded
    {
        *leg = Some(Leg::Stay);
    }
    view
}

impl Protocol for Perhaps {
    type View = View;
    type Notes = Notes;
    type Write = Write;
    type Timer = Timer;

    fn decide(view: &View, run: Option<&Run<Self>>) -> Next<Self> {
        let mistake = MISTAKE.get();
        let mut real_run = run.map(real::<BootstrapToken, _>);
        let hasty = |run: &Run<BootstrapToken>| mistake == Mistake::LeavesInHaste && run.notes.left.is_some();
        if let Some(run) = real_run
            .as_mut()
            .filter(|run| mistake == Mistake::NoOverlap || hasty(run))
        {
            run.timers.insert(Timer::Overlap, true);
        }
        let next = if mistake == Mistake::None {
            BootstrapToken::decide(view, real_run.as_ref())
        } else {
            BootstrapToken::decide(&lie(mistake, view, run), real_run.as_ref())
        };
        let mut next = told(next, run);
        if let (Mistake::StaysQuiet, Next::Do(step)) = (mistake, &mut next)
            && matches!(step.repeats, Repeats::PutBack(_))
        {
            step.stops.clear();
        }
        next
    }

    fn recall(view: &View, claimed: &Run<Self>) -> Option<Notes> {
        let notes = BootstrapToken::recall(view, &real(claimed));
        match MISTAKE.get() {
            Mistake::TrustsJournal => Some(claimed.notes.clone()),
            Mistake::TrustsDelivered => notes.map(|notes| Notes {
                delivered: claimed.notes.delivered,
                ..notes
            }),
            _ => notes,
        }
    }

    fn predict(view: &mut View, run: &Run<Self>, write: &Write) {
        BootstrapToken::predict(view, &real(run), write);
    }

    fn rest(_: &mut View, _: &mut Run<Self>) {}

    fn intend(write: &Write, run: &Run<Self>, draw: &mut dyn Draw) -> Notes {
        BootstrapToken::intend(write, &real(run), draw)
    }
}
