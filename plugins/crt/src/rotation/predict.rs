//! What a write brings about, and what the world comes to by itself afterwards.

use client::secret::Fingerprint;
use engine::phase::Goal;
use engine::protocol::{Draw, Run};
use rancher::era::Era;

use super::view::{Address, Age, Connection, Grace, Holder, Notes, Pod, Record, Trigger, View};
use super::write::Write;
use super::{Crt, Timer};

/// What the journal must say before the write is sent.
pub(super) fn intend(write: &Write, run: &Run<Crt>, draw: &mut dyn Draw) -> Notes {
    let mut notes = run.notes.clone();
    match write {
        Write::Adopt { token } => notes.new = Some(*token),
        Write::Mint => notes.new = Some(draw.credential()),
        Write::PointHeld { .. } => notes.mark = Some(draw.mark()),
        _ => {}
    }
    notes
}

/// The world right after the write.
pub(super) fn predict(view: &mut View, run: &Run<Crt>, write: &Write) {
    match write {
        Write::Adopt { .. } => view.record = Some(Record::of(run)),
        Write::Touch => {
            let holder = view.system.as_ref();
            view.trigger = holder.map(|holder| Trigger {
                token: holder.token,
                overdue: false,
            });
        }
        Write::Bridge { token } => drop(view.bridges.insert(*token)),
        Write::Unbridge { token } => drop(view.bridges.remove(token)),
        Write::PostponeGrace => view.status_grace = Some(Grace::Far),
        Write::ClearGrace => view.status_grace = None,
        Write::Mint => set_system(view, run, run.notes.new),
        Write::Restore { token } => set_system(view, run, Some(*token)),
        Write::Protect { token } => {
            if let Some(holder) = &mut view.system {
                holder.previous = Some(*token);
                holder.protected = true;
            }
        }
        Write::DropPrevious { .. } => {
            if let Some(holder) = &mut view.system {
                holder.previous = None;
            }
        }
        Write::CreateCredentials { token } => drop(view.credentials.insert(*token, Age::Young)),
        Write::DeleteCredentials { token } => drop(view.credentials.remove(token)),
        Write::PointHeld { token } => {
            view.names = Some(*token);
            view.held = true;
            go_home(view, run);
            view.mark.clone_from(&run.notes.mark);
            view.deployment_going_back = run.goal == Goal::Back;
        }
        Write::PointBack { token } => {
            view.names = Some(*token);
            view.held = false;
            go_home(view, run);
            view.deployment_going_back = true;
            // The template is that of the pod which still runs, so that Kubernetes keeps it.
            let stays = view
                .pods
                .iter()
                .find(|pod| pod.token == Some(*token) && pod.ready && !pod.leaving);
            if let Some(mark) = stays.map(|pod| pod.mark.clone()) {
                view.mark = mark;
            }
        }
        Write::Guard => view.deployment_going_back = true,
        Write::Release => view.held = false,
        Write::Renew { name } => {
            let renewed = Fingerprint::of(name);
            let was_renewed = view.others.get(name) == Some(&renewed);
            let value = if was_renewed {
                Fingerprint::of(&format!("{name} again"))
            } else {
                renewed
            };
            view.others.insert(name.clone(), value);
        }
    }
}

/// On the way back the agent is sent to where it was at the start.
fn go_home(view: &mut View, run: &Run<Crt>) {
    if run.goal == Goal::Back {
        let home = &run.notes.home;
        view.address = Address::of(Some(&home.server), Some(&home.ca_checksum));
        view.home = home.clone();
    }
}

fn set_system(view: &mut View, run: &Run<Crt>, token: Option<Fingerprint>) {
    let Some(token) = token else { return };
    // What it held becomes the previous one; where that is this value already, the previous one stays.
    let replaced = |holder: &Holder| {
        if holder.token == token {
            holder.previous
        } else {
            Some(holder.token)
        }
    };
    let previous = view
        .system
        .as_ref()
        .filter(|_| view.era == Era::Secret)
        .and_then(replaced);
    view.system = Some(Holder {
        token,
        previous,
        protected: true,
    });
    view.record = Some(Record::of(run));
}

/// The world when everything has come to rest and nobody interfered.
pub(super) fn rest(view: &mut View, run: &mut Run<Crt>) {
    let before = view.clone();
    view.live = held_values(view).into_iter().collect();
    let fresh = Pod {
        token: view.names,
        mark: view.mark.clone(),
        address: view.address,
        ready: true,
        leaving: false,
    };
    let is_new = !view.pods.contains(&fresh);
    if !view.held {
        view.pods.clear();
    }
    view.pods.insert(fresh);
    if is_new {
        let address = view.address;
        view.connected = view.names.map(|token| Connection { token, address });
    }
    // Rancher looks at a cluster only when that changes: by itself it applies nothing (seen on Rancher 2.15.0).
    if let Some(trigger) = view.trigger.filter(|_| view.era == Era::Secret) {
        view.pushed = Some(trigger.token);
    }
    view.answers = view.answers.map(|_| true);
    // Nothing moves any more: what is waited for now is time.
    if *view == before
        && let Some(passed) = run.timers.get_mut(&Timer::Settle)
    {
        *passed = true;
    }
}

/// Everything that Rancher's objects hold.
pub fn held_values(view: &View) -> Vec<Fingerprint> {
    let of_system = view
        .system
        .iter()
        .flat_map(|holder| std::iter::once(holder.token).chain(holder.previous));
    of_system
        .chain(view.bridges.iter().copied())
        .chain(view.others.values().copied())
        .collect()
}
