//! Reads the record of a run that another process began from the objects. See
//! [`Rotation::recall`](engine::rotation::Rotation::recall).
//!
//! | fact | source |
//! |---|---|
//! | the old token: id and value | the origin on the new token's Secret; without one, the Secret of the id on the command line |
//! | the new token | the Secret that carries the mark of this run, whose origin names this very id |
//! | where it is delivered to | the origin; without one, the place in the Lease is only read |
//! | whether it was delivered | if there is a place, a node may have read it there |
//! | that the run rolls forward | the mark on the new token's Secret |

use engine::direction::Direction;
use engine::run::Run;

use super::BootstrapToken;
use super::observed::{Delivery, Observed, SecretState};
use super::record::{Origin, Record, TokenRef};
use super::step::Which;

/// The record of a run, from the objects only.
pub(super) fn recall(seen: &Observed, claimed: &Run<BootstrapToken>) -> Option<Record> {
    let mark = match &seen.delivery {
        Delivery::Holds { mark, .. } => *mark,
        _ => None,
    };
    let new = claimed.record.new.as_ref();
    if let Some((secret, new)) = seen.new.secret.as_ref().zip(new)
        && let Some(origin) = origin(secret, seen)
    {
        return Some(Record {
            old: origin.old.clone(),
            new: Some(TokenRef {
                id: new.id.clone(),
                value: secret.value.unwrap_or(new.value),
            }),
            abandoned: None,
            delivered: claimed.record.delivered || origin.place.is_some(),
            last_delivered: mark.map(last_delivered),
            place: origin.place.clone(),
        });
    }
    let old = seen.old.value();
    // A token without a Secret, in a delivery with the mark of this run, is the new one.
    let lost = match &seen.delivery {
        Delivery::Holds {
            content, mark: Some(_), ..
        } if seen.new.secret.is_none() => {
            new.filter(|new| content.id.as_ref() == Some(&new.id) && new.id != seen.id && old.is_some())
        }
        _ => None,
    };
    if claimed.direction == Direction::Forward && lost.is_none() {
        return None;
    }
    Some(Record {
        old: TokenRef {
            id: seen.id.clone(),
            value: old.unwrap_or(claimed.record.old.value),
        },
        new: lost.cloned(),
        place: seen.place.clone(),
        abandoned: None,
        delivered: seen.place.is_some() && (claimed.record.delivered || mark.is_some()),
        last_delivered: mark.map(last_delivered),
    })
}

/// Only a run that rolls back can roll forward.
pub(super) fn direction(seen: &Observed, claimed: &Run<BootstrapToken>) -> Direction {
    let secret = seen.new.secret.as_ref().filter(|secret| origin(secret, seen).is_some());
    match (claimed.direction, secret.and_then(|secret| secret.mark)) {
        (Direction::Forward, _) => Direction::Forward,
        (_, Some(Direction::RollForward)) => Direction::RollForward,
        _ => Direction::Rollback,
    }
}

/// The token that the run delivered last. Unknown for a file, which has no mark.
fn last_delivered(mark: Direction) -> Which {
    if mark.is_rollback() { Which::Old } else { Which::New }
}

/// The origin of a token that this run created to replace the one on the command line.
fn origin<'a>(secret: &'a SecretState, seen: &Observed) -> Option<&'a Origin> {
    let origin = secret.origin.as_ref().filter(|_| secret.mark.is_some());
    origin.filter(|origin| origin.old.id == seen.id)
}
