//! Mistakes that somebody might make in `decide`. The exploration must find each, or it proves nothing.
//!
//! Each is the real `decide` with a lie told to it: what it then does is what one would do who did not look.

use kubectl_bootstrap_token::rotation::view::{Answer, Held, Leg, Notes, Standing, Target, View};
use kubectl_bootstrap_token::rotation::write::Write;
use kubectl_bootstrap_token::rotation::{BootstrapToken, Timer};
use rotation::phase::Goal;
use rotation::protocol::{Draw, Next, Protocol, Run};

use crate::world::{holds_old, old, real, told};

/// The real protocol, with a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct With<const MISTAKE: u8>;

/// None at all.
pub(crate) const NONE: u8 = 0;
/// N is delivered before the API server accepts it.
pub(crate) const NOT_ACCEPTED: u8 = 1;
/// O is deleted before N is delivered.
pub(crate) const NOT_DELIVERED: u8 = 2;
/// The overlap is not waited for.
pub(crate) const NO_OVERLAP: u8 = 3;
/// On the way back N is deleted before O is delivered.
pub(crate) const BACK_TOO_EARLY: u8 = 4;
/// A value that is neither O nor N is overwritten.
pub(crate) const OVERWRITES: u8 = 5;
/// Once N is delivered nobody asks whether it still works.
pub(crate) const NO_PROOF: u8 = 6;
/// On the way back a target that holds O is left as it is, so that a late delivery still fits it.
pub(crate) const NO_GUARD: u8 = 7;
/// On the way back nobody asks whether O still lives.
pub(crate) const DEAD_OLD: u8 = 8;
/// When the way back is cut off, N gets no mark, so that a late deletion still fits it.
pub(crate) const NO_MARK: u8 = 9;
/// N is delivered before cluster-info is signed with it.
pub(crate) const NOT_SIGNED: u8 = 10;
/// One API server's word is taken for that of all.
pub(crate) const ONE_SERVER: u8 = 11;
/// A token that is about to expire counts as good.
pub(crate) const NO_MARGIN: u8 = 12;

fn lie<const M: u8>(view: &View, run: Option<&Run<With<M>>>) -> View {
    let mut view = view.clone();
    let back = run.is_some_and(|run| run.goal == Goal::Back);
    let id = run.and_then(|run| run.notes.new.as_ref()).map(|new| new.id.clone());
    let value = view.new.token.as_ref().and_then(|token| token.value);
    match M {
        NOT_ACCEPTED => view.new.answer = Answer::Accepted,
        NOT_DELIVERED if !back => {
            if let (Target::Holds { held, answer, .. }, Some(value)) = (&mut view.target, value) {
                *held = Held { id, value };
                *answer = Answer::Accepted;
            }
        }
        BACK_TOO_EARLY if back => view.target = holds_old(),
        OVERWRITES if matches!(&view.target, Target::Missing | Target::Holds { .. }) => {
            let held = match &view.target {
                Target::Holds { held, .. } => held.id.clone(),
                _ => None,
            };
            if held.is_none() {
                view.target = holds_old();
            }
        }
        NO_PROOF => {
            if let Target::Holds { held, answer, .. } = &mut view.target
                && held.id == id
                && let Some(token) = &mut view.new.token
            {
                token.standing = Standing::Sound;
                view.new.answer = Answer::Accepted;
                *answer = Answer::Accepted;
            }
        }
        DEAD_OLD if back => {
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
        NO_MARK => view.new.token.iter_mut().for_each(|token| token.mark = Some(Leg::Stay)),
        NOT_SIGNED => view.new.signed = true,
        ONE_SERVER => {
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
        NO_MARGIN => {
            for token in [&mut view.old.token, &mut view.new.token].into_iter().flatten() {
                if token.standing == Standing::Ending {
                    token.standing = Standing::Sound;
                }
            }
        }
        _ => {}
    }
    if M == NO_GUARD || M == BACK_TOO_EARLY && back {
        if let Target::Holds { leg, .. } = &mut view.target {
            *leg = Leg::Stay;
        }
    }
    view
}

impl<const M: u8> Protocol for With<M> {
    type View = View;
    type Notes = Notes;
    type Write = Write;
    type Timer = Timer;

    fn decide(view: &View, run: Option<&Run<Self>>) -> Next<Self> {
        let mut real_run = run.map(real);
        if let Some(run) = real_run.as_mut().filter(|_| M == NO_OVERLAP) {
            run.timers.insert(Timer::Overlap, true);
        }
        let next = if M == NONE {
            BootstrapToken::decide(view, real_run.as_ref())
        } else {
            BootstrapToken::decide(&lie(view, run), real_run.as_ref())
        };
        told(next, run)
    }

    fn predict(view: &mut View, run: &Run<Self>, write: &Write) {
        BootstrapToken::predict(view, &real(run), write);
    }

    fn rest(_: &mut View, _: &mut Run<Self>) {}

    fn intend(write: &Write, run: &Run<Self>, draw: &mut dyn Draw) -> Notes {
        BootstrapToken::intend(write, &real(run), draw)
    }
}
