//! What a write brings about, and what the world comes to by itself afterwards.

use engine::protocol::{Draw, Run};

use super::decide::leg;
use super::view::{Answer, Held, Id, Known, Leg, Notes, Record, Side, Standing, Target, Token, View};
use super::write::{Which, Write};
use super::{BootstrapToken, Timer};

/// What the journal must say before the write is sent.
///
/// An id is drawn as a mark, since no Secret must have it; the value that belongs to it is drawn right after. Where the
/// id stays as it is, the value is one for the journaled id.
pub(super) fn intend(write: &Write, run: &Run<BootstrapToken>, draw: &mut dyn Draw) -> Notes {
    let mut notes = run.notes.clone();
    match write {
        Write::Create { id, .. } => {
            let id = id.clone().unwrap_or_else(|| Id(draw.mark()));
            let value = draw.credential();
            notes.new = Some(Known { id, value });
        }
        Write::Deliver { which, .. } => {
            notes.delivered |= *which == Which::New;
            notes.placed = Some(*which);
        }
        Write::Keep { .. } => notes.kept = true,
        Write::Leave { .. } => notes.left = notes.place.take(),
        _ => {}
    }
    notes
}

/// The world right after the write.
pub(super) fn predict(view: &mut View, run: &Run<BootstrapToken>, write: &Write) {
    match write {
        Write::Create { .. } => {
            let token = run.notes.new.as_ref().map(|new| Token {
                value: Some(new.value),
                standing: Standing::Sound,
                mark: Some(leg(run)),
                record: Some(record(&run.notes)),
            });
            view.new = Side {
                token,
                answer: Answer::Refused,
                ..Side::default()
            };
        }
        Write::Mend { .. } => {
            mark_token(view, leg(run));
            if let Some(token) = &mut view.new.token {
                token.standing = Standing::Sound;
                token.record = Some(record(&run.notes));
            }
        }
        Write::GuardToken { .. } => mark_token(view, leg(run)),
        Write::Touch { .. } | Write::Keep { .. } => {}
        Write::Leave { .. } => (view.target, view.place) = (Target::Nothing, None),
        Write::Deliver { which, id, value, .. } => {
            let side = side(view, *which);
            let answer = if side.holds(*value) {
                side.answer
            } else {
                Answer::Refused
            };
            let held = Held {
                id: Some(id.clone()),
                value: *value,
            };
            let leg = Some(leg(run));
            let writer = match &mut view.target {
                Target::Holds { writer, .. } => writer.take(),
                _ => None,
            };
            view.target = Target::Holds {
                held,
                leg,
                answer,
                writer,
            };
        }
        Write::GuardTarget { .. } => {
            if let Target::Holds { leg: mark, .. } = &mut view.target {
                *mark = Some(leg(run));
            }
        }
        Write::Delete { which: Which::Old, .. } => {
            view.old.token = None;
            view.old.returned = false;
        }
        Write::Clear { .. } | Write::Delete { which: Which::New, .. } => view.new.token = None,
    }
}

fn side(view: &View, which: Which) -> &Side {
    match which {
        Which::Old => &view.old,
        Which::New => &view.new,
    }
}

fn mark_token(view: &mut View, mark: Leg) {
    if let Some(token) = &mut view.new.token {
        token.mark = Some(mark);
    }
}

/// What the new token says about the rotation.
pub(crate) fn record(notes: &Notes) -> Record {
    Record {
        old: notes.old.clone(),
        place: notes.place.clone(),
    }
}

/// The world when everything has come to rest and nobody interfered.
pub(super) fn rest(view: &mut View, run: &mut Run<BootstrapToken>) {
    let before = view.clone();
    let signer_works = view.old.signed;
    for side in [&mut view.old, &mut view.new] {
        side.answer = settled(side);
        side.signed = signer_works && side.token.is_some();
    }
    let known = [&view.old, &view.new].map(|side| (side.token.as_ref().and_then(|token| token.value), side.answer));
    if let Target::Holds { held, answer, .. } = &mut view.target {
        let of_ours = known.iter().find(|(value, _)| *value == Some(held.value));
        *answer = of_ours.map_or(*answer, |(_, answer)| *answer);
    }
    // Nothing moves any more: what is waited for now is time.
    if *view == before
        && let Some(passed) = run.timers.get_mut(&Timer::Overlap)
    {
        *passed = true;
    }
}

fn settled(side: &Side) -> Answer {
    let lives = |token: &Token| token.standing != Standing::Dead;
    match (&side.token, side.answer) {
        (Some(token), _) if lives(token) => Answer::Accepted,
        (None, Answer::Unasked) => Answer::Unasked,
        _ => Answer::Refused,
    }
}
