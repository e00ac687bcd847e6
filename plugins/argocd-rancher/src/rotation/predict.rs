//! What a write brings about, and what the world comes to by itself afterwards.

use client::secret::Fingerprint;
use engine::protocol::Run;

use super::view::{Answer, Consumer, Known, Life, Mark, Minted, Name, Notes, Parked, Target, View, Writer};
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
        Write::ParkOld { .. } | Write::Mint { .. } | Write::Place { .. } | Write::Guard | Write::Unpark => {}
    }
    notes
}

/// The world right after the write.
pub(super) fn predict(view: &mut View, run: &Run<ArgocdRancher>, write: &Write) {
    match write {
        Write::ParkOld { name, value } => {
            let (name, value) = (name.clone(), *value);
            parked(view, &run.notes).old = Some(Known { name, value });
        }
        Write::Mint { replaces } => mint(view, &run.notes, replaces.clone()),
        Write::ParkNew { name, value } => {
            let (name, value) = (Some(name.clone()), *value);
            parked(view, &run.notes).new = Some(Known { name, value });
        }
        Write::Place { name, value, used, .. } => {
            let (name, value) = (name.clone(), *value);
            let mark = Mark {
                used_before: used.clone(),
                ..mark(run, None)
            };
            view.target = Target::Holds {
                held: Some(Known { name, value }),
                mark: Some(mark),
                writer: Writer::Ours,
            };
            if view.consumer == Consumer::Since {
                view.consumer = Consumer::Before;
            }
        }
        Write::Guard => {
            if let Target::Holds { mark: on_it, .. } = &mut view.target {
                *on_it = Some(mark(run, on_it.take()));
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

/// The backup Secret, made where there is none.
fn parked<'a>(view: &'a mut View, notes: &Notes) -> &'a mut Parked {
    let parked = view.parked.get_or_insert_default();
    parked.user.clone_from(&notes.user);
    parked.keep_old = notes.keep_old;
    parked
}

/// What a write leaves on the cluster Secret, beside what was there.
fn mark(run: &Run<ArgocdRancher>, before: Option<Mark>) -> Mark {
    Mark {
        leg: leg(run),
        user: run.notes.user.clone(),
        old: Some(run.notes.old.clone()),
        keep_old: run.notes.keep_old,
        placed: run.notes.placed.clone(),
        used_before: before.and_then(|before| before.used_before),
    }
}

fn mint(view: &mut View, notes: &Notes, replaces: Option<Name>) {
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
        replaces,
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
        if in_use {
            view.consumer = Consumer::Since;
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
