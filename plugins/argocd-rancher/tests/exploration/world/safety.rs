//! What must hold in every state, after every write, and at the end.

use client::secret::Fingerprint;
use engine::phase::Goal;
use kubectl_argocd_rancher::rotation::view::{Consumer, Life, Name, View};
use kubectl_argocd_rancher::rotation::write::{Which, Write};

use super::{Memory, Small, US, W, held, new_name, old, old_lives, stranger, value_of, works};

/// Whoever has a token needs one that works: the Secret, and Argo CD with what it has read, begun, or is about to write.
pub(super) fn unhealthy(world: &W) -> Option<&'static str> {
    let dead = |value: Option<Fingerprint>| value.is_some_and(|value| !works(world, value));
    let argo = &world.memory.argo;
    [
        (held(&world.view), "the cluster Secret holds a token that does not work"),
        (argo.copy, "Argo CD has read a token that does not work any more"),
        (
            argo.writing,
            "Argo CD is about to write a token that does not work any more",
        ),
        (
            argo.sync,
            "a sync is under way with a token that does not work any more",
        ),
    ]
    .into_iter()
    .find_map(|(value, why)| dead(value).then_some(why))
}

/// What no write of ours must ever have done, since each is conditional on what it changes.
pub(super) fn trespass(world: &W, write: &Write) -> Option<&'static str> {
    let memory = &world.memory;
    if world.view.user != US {
        return Some("another user than the one who began went on");
    }
    if !world.view.same_rancher {
        return Some("another Rancher was changed than the one that the cluster Secret leads through");
    }
    (memory.stranger && matches!(write, Write::Place { .. })).then_some("a stranger's token was overwritten")
}

impl Small {
    /// What a write of ours must not have done by the look that it was decided on.
    pub(super) fn fault(&self, world: &W, write: &Write) -> Option<&'static str> {
        let (view, memory) = (&world.view, &world.memory);
        let goal = world.run.as_ref().map(|run| run.goal);
        let undoable = world.run.as_ref().is_some_and(|run| run.phase.may_be_undone());
        let parked = view.parked.clone().unwrap_or_default();
        let in_parked = [&parked.old, &parked.new].map(|known| known.as_ref().map(|known| known.value));
        let is_parked = |value| in_parked.contains(&Some(value));
        match write {
            Write::Place { value, .. } if !is_parked(*value) => Some("the token that was placed is known nowhere else"),
            Write::Place { which: Which::New, .. }
                if memory.was == Some(old())
                    && undoable
                    && goal == Some(Goal::Forward)
                    && old_lives(memory)
                    && !is_parked(old()) =>
            {
                Some("the token that was in use was overwritten, and is known nowhere else")
            }
            Write::Revoke { which: Which::Old, .. } if memory.old.is_some() => self.revoked_too_early(world, goal),
            Write::Unpark if goal == Some(Goal::Forward) && !self.foreign && !old_is_refused(memory) => {
                Some("what was parked was dropped before the old token was refused")
            }
            _ => None,
        }
    }

    fn revoked_too_early(&self, world: &W, goal: Option<Goal>) -> Option<&'static str> {
        let new = held(&world.view).filter(|value| new_name(*value).is_some() && works(world, *value));
        if self.foreign {
            return Some("somebody else's token was revoked");
        }
        if world.view.watched && world.view.consumer == Consumer::Failed {
            return Some("the old token was revoked although Argo CD could not work with the new one");
        }
        if world.view.old_needed_by.is_some() {
            return Some("the old token was revoked although it is needed elsewhere");
        }
        if goal == Some(Goal::Back) {
            return Some("the old token was revoked on the way back");
        }
        new.is_none()
            .then_some("the old token was revoked before a new one was in its place")
    }

    pub(super) fn ended_wrong(&self, world: &W) -> Option<String> {
        let goal = world.ended?;
        let (view, memory) = (&world.view, &world.memory);
        let in_place = held(view);
        let holds_new = in_place.is_some_and(|value| new_name(value).is_some());
        let only = |stays: Option<Fingerprint>| memory.late || left_alive(view).all(|name| value_of(name) == stays);
        let nothing_parked = view.parked.is_none() || memory.late;
        let alone = if memory.stranger {
            left_alive(view).count() <= 1 || memory.late
        } else {
            only(in_place)
        };
        let right = match goal {
            Goal::Forward => (self.foreign || old_is_refused(memory)) && (memory.stranger || holds_new) && alone,
            Goal::Back => {
                let back = (memory.stranger || in_place == Some(old())) && only(None);
                let kept = (memory.old_lost || !old_lives(memory)) && (memory.stranger || holds_new) && alone;
                back || kept
            }
        };
        (!right || !nothing_parked).then(|| format!("ended wrong ({goal:?})"))
    }
}

/// Whether O is dead, and refused by every server where that can be asked.
fn old_is_refused(memory: &Memory) -> bool {
    !old_lives(memory) && (!memory.old_let_in || memory.old_lost)
}

/// The new tokens that live.
fn left_alive(view: &View) -> impl Iterator<Item = &Name> {
    let lives = |life| life != Life::Dead;
    view.minted
        .iter()
        .filter(move |(_, minted)| lives(minted.life))
        .map(|(name, _)| name)
}

/// Whether this is nobody's business but a stranger's.
pub(super) fn is_strange(value: Option<Fingerprint>) -> bool {
    value.is_none_or(|value| value == stranger())
}
