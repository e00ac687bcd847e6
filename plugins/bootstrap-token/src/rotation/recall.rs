//! What the objects say about a run that another process began. See [`Protocol::recall`](engine::protocol::Protocol::recall).
//!
//! | fact | where it is taken from |
//! |---|---|
//! | the old token: id and value | the record on the new token's Secret; without one, the Secret of the id that was asked for |
//! | the new token | the Secret that carries the mark of this run and says that it replaces this very id |
//! | where it is delivered to | the record; without one, the place that the Lease claims is only read |
//! | whether it was delivered | there is a place: then it may have been, and somebody may have read it there |
//! | whether the old token is out of reach | the mark on the new token's Secret |

use engine::phase::Goal;
use engine::protocol::Run;

use super::BootstrapToken;
use super::view::{Known, Leg, Notes, Record, Target, Token, View};
use super::write::Which;

/// The notes of a run, by the objects alone.
pub(super) fn recall(view: &View, claimed: &Run<BootstrapToken>) -> Option<Notes> {
    let mark = match &view.target {
        Target::Holds { leg, .. } => *leg,
        _ => None,
    };
    let new = claimed.notes.new.as_ref();
    let token = view.new.token.as_ref().zip(new);
    if let Some((token, new, record)) = token.and_then(|(token, new)| Some((token, new, created(token, view)?))) {
        let place = record.place.clone();
        return Some(Notes {
            old: record.old.clone(),
            new: Some(Known {
                id: new.id.clone(),
                value: token.value.unwrap_or(new.value),
            }),
            left: None,
            delivered: claimed.notes.delivered || place.is_some(),
            placed: mark.map(placed),
            kept: claimed.goal == Goal::Back && token.mark == Some(Leg::Stay),
            place,
        });
    }
    let old = view.old.token.as_ref().and_then(|token| token.value);
    // The target carries the mark of this run and names a token that has no Secret any more: it is the new one.
    let lost = match &view.target {
        Target::Holds { held, leg: Some(_), .. } if view.new.token.is_none() => {
            new.filter(|new| held.id.as_ref() == Some(&new.id) && new.id != view.id && old.is_some())
        }
        _ => None,
    };
    if claimed.goal == Goal::Forward && lost.is_none() {
        return None;
    }
    Some(Notes {
        old: Known {
            id: view.id.clone(),
            value: old.unwrap_or(claimed.notes.old.value),
        },
        new: lost.cloned(),
        place: view.place.clone(),
        left: None,
        delivered: view.place.is_some() && (claimed.notes.delivered || mark.is_some()),
        placed: mark.map(placed),
        kept: false,
    })
}

/// Which token the run has delivered last. In a file, which has no mark, that is not known.
fn placed(mark: Leg) -> Which {
    match mark {
        Leg::Forward | Leg::Stay => Which::New,
        Leg::Back => Which::Old,
    }
}

/// The record of a token that this run created in the place of the one that was asked for.
fn created<'a>(token: &'a Token, view: &View) -> Option<&'a Record> {
    let record = token.record.as_ref().filter(|_| token.mark.is_some());
    record.filter(|record| record.old.id == view.id)
}
