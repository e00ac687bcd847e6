//! What must never be.

use std::fmt::Write as _;

use engine::direction::Direction;
use engine::rotation::Blocker;
use kubectl_bootstrap_token::server_token::rotation::observed::{Datastore, Encryption, RoundResult};
use kubectl_bootstrap_token::server_token::rotation::step::Step;
use model::Refusal;

use super::facts::State;
use super::{Memory, Model, World, begins, is_window, old};

/// A step is sent, and what it brings about is still to come.
pub(super) fn check_step(model: &Model, world: &mut World, step: &Step) {
    let is_window = is_window(&world.seen);
    let World { seen, memory, .. } = world;
    if memory.is_foreign {
        return;
    }
    let backup = seen.backup.as_ref();
    let knows = |value| backup.is_some_and(|it| it.old == value || it.new.contains(&value));
    let mut disks = memory.disks.values();
    let fault = match step {
        Step::Round(_) if disks.any(|disk| matches!(disk.state, State::Stopped { .. } | State::Down)) => {
            "a round begins while a server is down"
        }
        Step::Round(round) if !knows(round.value()) => "a token is placed that is not backed up",
        Step::BackUp(_)
            if disks
                .clone()
                .any(|disk| !knows(disk.live) || disk.token.is_some_and(|it| !knows(it))) =>
        {
            "a token is dropped that a server has"
        }
        Step::BackUp(_)
            if begins(step)
                .is_some_and(|it| disks.any(|disk| disk.state == State::Up && disk.token != Some(it.before))) =>
        {
            "another token begins before a round is complete"
        }
        Step::Forget if disks.any(|disk| disk.live != memory.datastore.key || disk.token != Some(disk.live)) => {
            "the backup Secret is deleted before every server has loaded one token"
        }
        Step::Restart(_) if is_window => "a server is restarted before a round is complete",
        Step::Restart(restart) => {
            let is_invisible = !model.has_node_access && memory.disks[restart.server()].configured.is_some();
            if !is_invisible {
                check_restart(memory, restart.server());
            }
            return;
        }
        _ => return,
    };
    memory.fault.get_or_insert(fault);
}

pub(super) fn check_restart(memory: &mut Memory, name: &str) {
    let mut others = memory.disks.iter().filter(|(other, _)| *other != name);
    let fault = if others.any(|(_, disk)| disk.state != State::Up) {
        "two servers are away at once"
    } else if memory.joining.is_some() {
        "a server is restarted while another joins"
    } else if memory.start(name).is_err() {
        "a server is restarted that does not start again"
    } else {
        return;
    };
    memory.fault.get_or_insert(fault);
}

/// Another server may have stopped since, and configuration management may have come.
pub(super) fn check_late_restart(memory: &mut Memory, name: &str) {
    if memory.start(name).is_err() && !is_pinned_elsewhere(memory, name) && !memory.is_foreign {
        memory
            .fault
            .get_or_insert("a server is restarted late that does not start again");
    }
}

/// A server would not start with what its configuration says.
fn is_pinned_elsewhere(memory: &Memory, name: &str) -> bool {
    memory.disks[name]
        .configured
        .is_some_and(|held| held != memory.datastore.key)
}

/// The next start of every server succeeds, except inside a round, after another program has changed a token, and where another writer
/// has pinned another one.
pub(super) fn unsafe_because(model: &Model, world: &World) -> Option<String> {
    let World { seen, memory, .. } = world;
    if let Some(fault) = memory.fault {
        return Some(fault.to_owned());
    }
    if memory.is_foreign {
        return None;
    }
    let is_repinned = |name: &str| memory.budget.repins < model.budget.repins && is_pinned_elsewhere(memory, name);
    let mut up = memory.disks.iter().filter(|(_, disk)| disk.state == State::Up);
    let fails = up.find(|(name, _)| memory.start(name).is_err() && !is_repinned(name));
    if let Some((name, _)) = fails.filter(|_| !is_window(seen)) {
        return Some(format!("the next start of {name} fails"));
    }
    let is_rollback = world.ended? == Direction::Rollback;
    let key = memory.datastore.key;
    let mut disks = memory.disks.values();
    if (key == old()) != is_rollback || disks.clone().any(|disk| disk.live != key) {
        return Some("the run ended with the wrong token".to_owned());
    }
    if model.is_given && !is_rollback && key != super::given() {
        return Some("the run ended with another token than the one that was given".to_owned());
    }
    let is_lost =
        model.is_pinned && model.has_node_access && is_rollback && disks.any(|disk| disk.configured.is_none());
    is_lost.then(|| "a rollback has lost the token of a configuration".to_owned())
}

/// A refusal is right where an operator has to mend something first.
pub(super) fn check_refusal(world: &World, blockers: &[Blocker]) -> Result<Refusal, String> {
    let World { seen, memory, .. } = world;
    if memory.is_foreign {
        return Ok(Refusal::Discarded);
    }
    if seen.backup.is_none() && (world.was_forged() || seen.cluster.datastore != Datastore::Etcd) {
        return Ok(Refusal::Discarded);
    }
    let is_up = memory.disks.values().all(|disk| disk.state == State::Up);
    let is_mended_elsewhere = memory.disks.keys().any(|name| is_pinned_elsewhere(memory, name))
        || seen.encryption != Encryption::Safe
        || memory.joining.is_some()
        || memory.skewed.is_some()
        || matches!(seen.round, RoundResult::NotHealed(_))
        || seen.backup.is_none() && seen.given != memory.datastore.key;
    if is_up && !is_mended_elsewhere {
        let mut reasons = String::new();
        for blocker in blockers {
            let _ = write!(reasons, "{}; ", blocker.reason);
        }
        return Err(format!("refuses where nothing has to be mended: {reasons}"));
    }
    Ok(Refusal::Waits)
}
