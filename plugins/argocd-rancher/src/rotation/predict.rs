//! What a write brings about, and what the world comes to by itself afterwards.

use kubectl_core::secret::Fingerprint;
use rotation::protocol::Run;

use super::view::{Answer, Known, Life, Minted, Name, Notes, Target, View};
use super::write::{Which, Write};
use super::{ArgocdRancher, Timer, leg};

/// What the journal must say before the write is sent. The name of a new token is Rancher's to draw: it is journaled before
/// anything is done with the token, and a token that was made and not journaled is found by its mark.
pub(super) fn intend(write: &Write, run: &Run<ArgocdRancher>) -> Notes {
    let mut notes = run.notes.clone();
    match write {
        Write::ParkNew { name, value } => {
            notes.new = Some(Known {
                name: Some(name.clone()),
                value: *value,
            });
        }
        Write::Place {
            which: Which::New,
            name,
            used,
            ..
        } => {
            notes.placed.extend(name.clone());
            notes.used_before.clone_from(used);
        }
        Write::Revoke { name, .. } => {
            notes.given_up.insert(name.clone());
        }
        Write::Keep => notes.kept = true,
        Write::ParkOld { .. } | Write::Mint | Write::Place { .. } | Write::Guard | Write::Unpark => {}
    }
    notes
}

/// The world right after the write.
pub(super) fn predict(view: &mut View, run: &Run<ArgocdRancher>, write: &Write) {
    match write {
        Write::ParkOld { value, .. } => view.parked.get_or_insert_default().old = Some(*value),
        Write::Mint => mint(view, &run.notes),
        Write::ParkNew { value, .. } => view.parked.get_or_insert_default().new = Some(*value),
        Write::Place { name, value, .. } => {
            let (name, value) = (name.clone(), *value);
            view.target = Target::Holds {
                held: Some(Known { name, value }),
                leg: leg(run),
            };
        }
        Write::Guard => {
            if let Target::Holds { leg: mark, .. } = &mut view.target {
                *mark = leg(run);
            }
        }
        Write::Keep => {}
        Write::Revoke { which: Which::Old, .. } => view.old = None,
        Write::Revoke { name, .. } => {
            view.minted.remove(name);
        }
        Write::Unpark => view.parked = None,
    }
}

fn mint(view: &mut View, notes: &Notes) {
    let is_used = |name: &Name| {
        let held = view.target.held().and_then(|held| held.name.as_ref());
        let new = notes.new.as_ref().and_then(|new| new.name.as_ref());
        let journaled = notes.given_up.contains(name) || notes.placed.contains(name) || new == Some(name);
        journaled || view.minted.contains_key(name) || held == Some(name)
    };
    let mut names = (1..).map(|count| Name(format!("<new {count}>")));
    let Some(name) = names.find(|name| !is_used(name)) else {
        return;
    };
    let minted = Minted {
        life: Life::Sound,
        value: Some(Fingerprint::of(&name.0)),
        used: None,
    };
    view.minted.insert(name, minted);
    view.new_answer = Answer::Unasked;
}

/// The world when everything has come to rest and nobody interfered.
pub(super) fn rest(view: &mut View, run: &mut Run<ArgocdRancher>) {
    view.quiet = true;
    let new = run.notes.new.as_ref();
    let new = new.and_then(|new| Some((new.name.clone()?, new.value)));
    if let Some((name, value)) = new {
        let in_use = view.target.holds(value);
        let life = view.minted.get(&name).map(|minted| minted.life);
        view.new_answer = said(life);
        if let Some(minted) = view.minted.get_mut(&name) {
            minted.used = Some(if in_use { "by Argo CD" } else { "by us" }.to_owned());
        }
    }
    if view.old_answer != Answer::Unasked && !run.notes.keep_old {
        view.old_answer = said(view.old);
    }
    if let Some(passed) = run.timers.get_mut(&Timer::Grace) {
        *passed = true;
    }
}

fn said(life: Option<Life>) -> Answer {
    match life {
        Some(Life::Sound | Life::Ending) => Answer::Works,
        Some(Life::Dead) | None => Answer::Refused,
    }
}
