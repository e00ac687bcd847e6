//! What must hold in every state of the model, and at every end.

use std::collections::BTreeSet;

use engine::direction::Direction;
use engine::rotation::Next;
use kubectl_crt::rotation::observed::{DownstreamAccess, Pod, SystemToken, Trigger};
use kubectl_crt::rotation::step::Step;

use client::secret::Fingerprint;

use model::Environment as _;
use rancher::TokenStorage;

use crate::mutants::Mutant;

use super::planner::is_lost_by_a_machine;
use super::{ClusterModel, CrtModel, Memory, Run, Variant, World, dead, old};

impl CrtModel {
    /// Why this state is unsafe, if it is.
    pub(super) fn is_unsafe(&self, world: &World) -> Option<String> {
        let seen = &world.seen;
        let held: BTreeSet<_> = seen.held_values().into_iter().collect();
        if self.variant == Variant::WrongDownstream && seen.deployed != Some(old()) {
            return Some(format!(
                "the agent of another cluster was given a token of this one: {seen:#?}"
            ));
        }
        if held.intersection(&seen.foreign).next().is_some() {
            return Some(format!(
                "a token of another cluster was brought into this one: {seen:#?}"
            ));
        }
        let system = seen.system.as_ref().map(|holder| holder.token);
        let renders = seen.planner_renders();
        let in_time = |trigger: &Trigger| !trigger.overdue && Some(trigger.token) == system && trigger.first == renders;
        // A write that a former holder has overtaken is rejected: the Cluster has another version by then.
        if self.others.0 == 0
            && self.mutant != Some(Mutant::RemembersFirst)
            && matches!(world.sending(), Some(Step::TriggerApply { .. }))
            && seen.trigger.as_ref().is_some_and(in_time)
        {
            return Some("Rancher was triggered again before it could apply anything".to_owned());
        }
        let gives_back = self.gives_back(world);
        let is_accepted = |token: &Fingerprint| {
            let withdrawn = gives_back && world.memory.withdrawn.contains(token);
            held.contains(token) || seen.foreign.contains(token) || withdrawn
        };
        let works = |pod: &&Pod| {
            pod.ready && !pod.leaving && self.reaches(pod) && pod.token.is_some_and(|token| is_accepted(&token))
        };
        let running: Vec<_> = seen.pods.iter().filter(works).collect();
        // Until the lost agent is back there is none to lose.
        if seen.access == DownstreamAccess::Unreachable {
            return self.ended_wrong(world);
        }
        // A server that has started, or a rollback, may bring another template while the first pod is young: Kubernetes may remove it
        // before the next one has connected. The token that the Deployment names is accepted all the same.
        let was_lost = self.variant == Variant::LostAgent;
        if running.is_empty() && !was_lost {
            return Some(format!("no agent runs with a token that Rancher accepts: {seen:#?}"));
        }
        // Storage `secret` has one place for a previous token. An agent that Rancher gave a third value has none, while another works.
        let drawn = world.run.as_ref().and_then(|run| run.record.new);
        let is_third = |token: &Fingerprint| {
            let one_place = self.storage == TokenStorage::Secret && seen.provisioned().is_none();
            one_place && drawn != Some(*token) && *token != old()
        };
        // Its tunnel stays open, but once that breaks it cannot connect again.
        let revoked = |pod: &&Pod| {
            let is_revoked = |token: Fingerprint| !is_accepted(&token) && !is_third(&token) && token != dead();
            pod.ready && !pod.leaving && pod.token.is_some_and(is_revoked)
        };
        if let Some(pod) = seen.pods.iter().find(revoked).filter(|_| !was_lost) {
            return Some(format!(
                "the token of an agent that runs was revoked, {pod:?}: {seen:#?}"
            ));
        }
        if self.new_agents_fail && !self.old_agents_fail && !running.iter().any(|pod| pod.token == Some(old())) {
            return Some(format!("the only agent that can connect is gone: {seen:#?}"));
        }
        if !seen
            .deployed
            .is_some_and(|named| is_accepted(&named) || is_third(&named))
        {
            return Some(format!(
                "the Deployment names a token that Rancher does not accept: {seen:#?}"
            ));
        }
        let restorable = world.run.as_ref().is_some_and(undoable) && !world.was_forged() && seen.foreign.is_empty();
        if !held.contains(&old()) && !seen.credentials.contains_key(&old()) && restorable {
            return Some(format!("the old value is lost while it may still be needed: {seen:#?}"));
        }
        is_lost_by_a_machine(world).or_else(|| self.ended_wrong(world))
    }
    /// What someone else has dropped is given back before anything is done to an agent, and nothing waits until it is.
    fn gives_back(&self, world: &World) -> bool {
        let Some(run) = world.run.as_ref().filter(|_| !world.is_sending()) else {
            return true;
        };
        let Next::Step(intent) = self.decide(&world.seen, run).next else {
            return false;
        };
        matches!(
            intent.step,
            Step::CreateTemporary { .. }
                | Step::Protect { .. }
                | Step::PostponeGrace { .. }
                | Step::SetNew
                | Step::Adopt { .. }
                | Step::Restore { .. }
                | Step::SetOther { .. }
        )
    }

    fn ended_wrong(&self, world: &World) -> Option<String> {
        let seen = &world.seen;
        let direction = world.ended?;
        if world.memory
            != (Memory {
                rendered: None,
                ..world.memory.clone()
            })
        {
            return None;
        }
        let target = seen.system.as_ref().map(|holder| holder.token);
        let right = match direction {
            // A forged journal has no old token: the agent keeps its token.
            Direction::RollForward => false,
            Direction::Rollback if world.was_forged() => target == seen.deployed,
            Direction::Rollback => target == Some(old()),
            Direction::Forward => {
                // A second rotation, after the journal of the first was discarded, began with another token.
                let second = world.was_forged() || !seen.foreign.is_empty();
                let left = self.cluster == ClusterModel::Unreadable || seen.provisioned().is_some();
                let clean = second || left || !seen.credentials.contains_key(&old());
                target != Some(old()) && !seen.is_held(old()) && clean
            }
        };
        // A rollback that finds another value on `system` leaves it valid.
        let of_start = self.observed().system.map(|holder| holder.token);
        let is_clean =
            |holder: &SystemToken| holder.previous.is_none() || direction.is_rollback() && holder.previous == of_start;
        let clean = seen.temporary.is_empty() && seen.system.as_ref().is_some_and(is_clean);
        let renewed = direction == Direction::Rollback
            || seen
                .held_values()
                .iter()
                .all(|held| *held != Fingerprint::of("default"));
        // A former holder's write may be applied after the end. It does no harm, but may leave something behind.
        // The next run removes what a forged run has left behind.
        let clean = clean || world.was_forged();
        let restored = self.ended_as_planned(world, direction);
        (!right || !clean || !renewed || !restored).then(|| format!("ended wrong ({direction}): {seen:#?}"))
    }
}

fn undoable(run: &Run) -> bool {
    run.direction == Direction::Rollback || run.phase.can_be_undone()
}
