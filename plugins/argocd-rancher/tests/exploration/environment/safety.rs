//! What must hold in every state, after every step, and at the end.

use client::secret::Fingerprint;
use engine::credential::Validity;
use engine::direction::Direction;
use kubectl_argocd_rancher::rotation::observed::{ClusterSync, Name, Observed};
use kubectl_argocd_rancher::rotation::step::{Step, Which};

use super::{Memory, Model, US, World, foreign, held, new_name, old, old_is_valid, value_of, works};

/// Whatever has a token needs one that works: the Secret, and Argo CD with what it has read, begun, or is about to write.
pub(super) fn unhealthy(world: &World) -> Option<&'static str> {
    let fails = |value: Option<Fingerprint>| value.is_some_and(|value| !works(world, value));
    let argo = &world.memory.argo;
    [
        (held(&world.seen), "the cluster Secret holds a token that does not work"),
        (argo.copy, "Argo CD has read a token that does not work any more"),
        (
            argo.writing,
            "Argo CD is about to write a token that does not work any more",
        ),
        (argo.sync, "a sync is running with a token that does not work any more"),
    ]
    .into_iter()
    .find_map(|(value, why)| fails(value).then_some(why))
}

/// What no step of ours must ever have done, since each is conditional on what it changes.
pub(super) fn trespass(world: &World, step: &Step) -> Option<&'static str> {
    if world.seen.user != US {
        return Some("a run was resumed by another user than the one who began it");
    }
    if !world.seen.same_rancher {
        return Some("another Rancher was changed than the one that the cluster Secret points to");
    }
    (world.memory.foreign_token && matches!(step, Step::Place { .. })).then_some("a foreign token was overwritten")
}

impl Model {
    /// What a step of ours must not have done by the look that it was decided on.
    pub(super) fn fault(&self, world: &World, step: &Step) -> Option<&'static str> {
        let (seen, memory) = (&world.seen, &world.memory);
        let direction = world.run.as_ref().map(|run| run.direction);
        let forward = direction == Some(Direction::Forward);
        let can_be_undone = world.run.as_ref().is_some_and(|run| run.phase.can_be_undone());
        let backup = seen.backup.clone().unwrap_or_default();
        let in_backup = [&backup.old, &backup.new].map(|token| token.as_ref().map(|token| token.value));
        let is_backed_up = |value| in_backup.contains(&Some(value));
        match step {
            Step::Place { token, .. } if !is_backed_up(token.value) => {
                Some("the token that was placed is stored nowhere else")
            }
            Step::Place { which: Which::New, .. }
                if memory.was == Some(old())
                    && can_be_undone
                    && forward
                    && old_is_valid(memory)
                    && !is_backed_up(old()) =>
            {
                Some("the token that was in use was overwritten, and is stored nowhere else")
            }
            Step::Revoke { which: Which::Old, .. } if memory.old.is_some() => self.revoked_too_early(world, direction),
            Step::DeleteBackup if forward && !self.foreign && !old_is_rejected(memory) => {
                Some("the backup was deleted before the old token was rejected")
            }
            _ => None,
        }
    }

    fn revoked_too_early(&self, world: &World, direction: Option<Direction>) -> Option<&'static str> {
        let new = held(&world.seen).filter(|value| new_name(*value).is_some() && works(world, *value));
        if self.foreign {
            return Some("a token of another user was revoked");
        }
        if world.seen.watched && world.seen.sync == ClusterSync::Failed {
            return Some("the old token was revoked although Argo CD could not work with the new one");
        }
        if world.seen.old_needed_by.is_some() {
            return Some("the old token was revoked although it is needed elsewhere");
        }
        if direction.is_some_and(|direction| direction != Direction::Forward) {
            return Some("the old token was revoked in a rollback");
        }
        let Some(new) = new else {
            return Some("the old token was revoked before a new one replaced it");
        };
        // Another writer may change the cluster Secret at any time.
        let backup = world.seen.backup.as_ref().and_then(|backup| backup.new.as_ref());
        (backup.map(|token| token.value) != Some(new))
            .then_some("the old token was revoked while the new one was stored in the cluster Secret only")
    }

    pub(super) fn ended_wrong(&self, world: &World) -> Option<String> {
        let direction = world.ended?;
        let (seen, memory) = (&world.seen, &world.memory);
        let in_place = held(seen);
        let holds_new = in_place.is_some_and(|value| new_name(value).is_some());
        let only = |stays: Option<Fingerprint>| memory.late || left_valid(seen).all(|name| value_of(name) == stays);
        let no_backup = seen.backup.is_none() || memory.late;
        let alone = if memory.foreign_token {
            left_valid(seen).count() <= 1 || memory.late
        } else {
            only(in_place)
        };
        let rotated = (memory.foreign_token || holds_new) && alone;
        let right = match direction {
            Direction::Forward => (self.foreign || old_is_rejected(memory)) && rotated,
            Direction::Rollback => (memory.foreign_token || in_place == Some(old())) && only(None),
            Direction::RollForward => (memory.old_lost || !old_is_valid(memory)) && rotated,
        };
        (!right || !no_backup).then(|| format!("ended wrong ({direction})"))
    }
}

/// Whether O is not valid, and rejected by every server where that can be asked.
fn old_is_rejected(memory: &Memory) -> bool {
    !old_is_valid(memory) && (!memory.old_accepted || memory.old_lost)
}

/// The new tokens that are valid.
fn left_valid(seen: &Observed) -> impl Iterator<Item = &Name> {
    let valid = seen
        .issued
        .iter()
        .filter(|(_, issued)| issued.validity != Validity::Invalid);
    valid.map(|(name, _)| name)
}

/// Whether this is a token that is neither O nor of the run.
pub(super) fn is_foreign(value: Option<Fingerprint>) -> bool {
    value.is_none_or(|value| value == foreign())
}
