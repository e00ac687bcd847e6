//! What must never be.

use client::secret::Fingerprint;
use engine::rotation::Blocker;
use kubectl_bootstrap_token::agent_token::rotation::observed::Encryption;
use kubectl_bootstrap_token::agent_token::rotation::step::Step;
use model::Refusal;

use crate::environment::{Model, World};
use crate::facts::{AgentFile, Memory, State};

/// A step is sent, and what it brings about is still to come.
pub(crate) fn check_step(model: &Model, world: &mut World, step: &Step) {
    let World { seen, memory, run, .. } = world;
    let Some(run) = run else { return };
    let target = model.target(run.direction);
    let is_repinned = memory.budget.repins < model.budget.repins;
    let other_is_away = |name: &str| {
        let mut others = memory.disks.iter().filter(|(other, _)| *other != name);
        others.any(|(_, disk)| disk.state != State::Up)
    };
    let mut names = memory.disks.keys();
    let mut disks = memory.disks.values();
    let fault = match step {
        Step::Save(save) if other_is_away(save.server()) => "a PUT while another server is away",
        Step::Restart(restart) if other_is_away(restart.server()) => "two servers are away at once",
        Step::Restart(_) if memory.joining.is_some() => "a server is restarted while another joins",
        Step::Restart(_) if names.any(|name| memory.start(name).is_none()) => {
            "a server is restarted while the next start of one is fatal"
        }
        Step::Restart(restart)
            if restart.by_hand().is_none() && disks.any(|it| it.configured != Model::configured(target)) =>
        {
            "a server is restarted before every configuration has the token"
        }
        Step::Restart(_) | Step::Configure { .. } if seen.backup.is_none() => "something changes without a backup",
        Step::ConfigureAgent { agent, .. } if !seen.backup.iter().any(|record| record.agents.contains(agent)) => {
            "the configuration of an agent changes without a record"
        }
        Step::ConfigureAgent { agent, value } if memory.agents[agent].value != model.other(*value) => {
            "a third token of an agent is overwritten"
        }
        Step::Forget if disks.any(|it| it.live != memory.data.value && !is_repinned) => {
            "the backup Secret is deleted before every server has loaded the token"
        }
        _ => return,
    };
    memory.fault.get_or_insert(fault);
}

/// Another server may have stopped by itself since, and a changed start of this one may not be saved yet.
pub(crate) fn check_late_restart(memory: &mut Memory, name: &str) {
    let by_tool = State::Stopped { by_tool: true };
    let mut others = memory.disks.iter().filter(|(other, _)| *other != name);
    if others.any(|(_, disk)| disk.state == by_tool) {
        memory.fault.get_or_insert("two servers are restarted at once");
    }
}

/// The next start of every server succeeds, but for one whose last start has changed what it accepts, until its PUT.
pub(crate) fn unsafe_because(model: &Model, world: &World) -> Option<String> {
    let World { seen, memory, .. } = world;
    if let Some(fault) = memory.fault {
        return Some(fault.to_owned());
    }
    let mut up = memory
        .disks
        .iter()
        .filter(|(_, disk)| matches!(disk.state, State::Up | State::Starting));
    let fails = |name: &str| memory.start(name).is_none();
    if let Some((name, _)) = up.find(|(name, disk)| fails(name) && !disk.is_in_window) {
        return Some(format!("the next start of {name} fails"));
    }
    let target = model.target(world.ended?);
    // A restart by itself after configuration management has come, at the very end.
    if memory.budget.repins < model.budget.repins {
        return None;
    }
    if let Some(fault) = agent_fault(model, memory, target) {
        return Some(fault);
    }
    let mut disks = memory.disks.iter();
    let is_pinned = |configured| !seen.options.has_node_access || configured == Model::configured(target);
    let is_well = |disk: &crate::facts::Disk| disk.live == target && is_pinned(disk.configured);
    let other = disks.find(|(name, disk)| !is_well(disk) || fails(name));
    other.map(|(name, _)| format!("the run ended, and {name} does not have the token for good"))
}

/// An agent that had the old token at the start has the target at the end. Any other has what it had.
fn agent_fault(model: &Model, memory: &Memory, target: Fingerprint) -> Option<String> {
    let is_wrong = |(_, agent): &(&String, &AgentFile)| {
        let expected = if agent.first == model.old() {
            target
        } else {
            agent.first
        };
        agent.has_backup || agent.value != expected && !agent.is_edited_by_others
    };
    let mut agents = memory.agents.iter().filter(|(_, agent)| !agent.is_lost);
    let wrong = agents.find(is_wrong);
    wrong.map(|(name, agent)| format!("the run ended, and agent {name} has {agent:?}"))
}

/// A refusal is right where an operator has to mend something first.
pub(crate) fn check_refusal(world: &World, blockers: &[Blocker]) -> Result<Refusal, String> {
    let World { seen, memory, .. } = world;
    if seen.backup.is_none() && world.was_forged() {
        return Ok(Refusal::Discarded);
    }
    let reason = &blockers[0].reason;
    let is_up = memory.disks.values().all(|disk| disk.state == State::Up);
    let is_unclear = reason.contains("which of them has started last") && !seen.options.has_node_access;
    if is_up && seen.encryption == Encryption::Safe && memory.joining.is_none() && !is_unclear {
        return Err(format!("refuses where nothing has to be mended: {reason}"));
    }
    Ok(Refusal::Waits)
}
