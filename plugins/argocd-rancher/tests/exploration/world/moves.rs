//! What happens in the small world while a rotation is under way, and where each of it was learnt.

use client::secret::Fingerprint;
use engine::phase::Goal;
use engine::protocol::{Next, Protocol};
use kubectl_argocd_rancher::rotation::ArgocdRancher;
use kubectl_argocd_rancher::rotation::view::{Answer, Consumer, Life, Name, Parked, Target, Writer};
use model::mistaken::real;
use model::{Help, Move};

use crate::mistake::Perhaps;

use super::safety::{is_strange, unhealthy};
use super::{Budget, Memory, Small, US, W, answer, held, known, new_name, old, old_lives, stranger, works};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Rancher, Argo CD and we at work.
    Works,
    /// Argo CD begins something, or we call once more.
    Begins,
    /// A time to live that is shorter than the run.
    Ages,
    /// What comes to a token that is about to expire, and needs nobody; what an operator does who was told to.
    Follows,
    /// Somebody or something that interferes.
    Disturbs,
}

pub(super) struct Moves<'a> {
    pub(super) small: &'a Small,
    pub(super) world: &'a W,
    pub(super) found: Vec<Move<Small>>,
}

impl Moves<'_> {
    pub(super) fn all(&mut self) {
        if self.world.run.is_none() && self.world.ended.is_none() {
            if self.world.view.is_another_start() {
                // The rotation of what is there now replaces what was parked, and nothing else was made.
                self.may(Kind::Works, "another rotation begins", |to| {
                    to.view.parked = None;
                    to.ended = Some(Goal::Back);
                });
            }
            return;
        }
        self.argo_cd();
        self.servers();
        if self.world.run.is_some() {
            self.begins();
            self.calls();
            self.operators();
            self.old_in_time();
            self.new_in_time();
            self.strangers();
            self.tampers();
            self.odds();
        }
    }

    fn may(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut W)) {
        let mut to = self.world.clone();
        change(&mut to);
        self.small.settle(&mut to);
        let interferes = matches!(kind, Kind::Disturbs | Kind::Ages | Kind::Follows);
        to.memory.disturbed |= interferes;
        to.memory.raced |= kind == Kind::Disturbs && self.world.is_sending();
        to.memory.ending_since_intent &= self.world.is_sending();
        to.memory.hurt = unhealthy(&to).is_some() && (to.memory.hurt || interferes);
        let help = match kind {
            Kind::Works | Kind::Follows => Help::Helps,
            Kind::Begins | Kind::Ages | Kind::Disturbs => Help::Disturbs,
        };
        if to != *self.world {
            let name = name.to_owned();
            self.found.push(Move { name, help, to });
        }
    }

    fn left(&self) -> Budget {
        self.world.memory.left
    }

    /// Argo CD watches its Secrets, and calls at once with what it reads. When its cache is invalidated, it writes the Secret
    /// from the copy that it has, and not conditionally on what is there: of 150 swaps under two loops of invalidations 11 were
    /// turned back (Argo CD 3.2.11). It changes the data; labels and annotations survive.
    fn argo_cd(&mut self) {
        let argo = self.world.memory.argo;
        let there = held(&self.world.view);
        let small = self.small;
        self.may(Kind::Works, "Argo CD reads the Secret", |to| {
            to.memory.argo.copy = there;
        });
        if let Some(value) = argo
            .copy
            .filter(|value| self.world.view.watched && works(self.world, *value))
        {
            self.may(Kind::Works, "Argo CD syncs the cluster", |to| {
                note_use(small, to, value);
                to.view.consumer = if there == Some(value) {
                    Consumer::Since
                } else {
                    Consumer::Before
                };
            });
        }
        if let Some(value) = argo.writing {
            self.may(Kind::Works, "Argo CD writes its copy over the Secret", |to| {
                to.memory.argo.writing = None;
                if let Target::Holds { held, writer, .. } = &mut to.view.target {
                    *held = Some(known(value));
                    *writer = Writer::ArgoCd;
                    Small::changed(to);
                    to.memory.stranger = is_strange(Some(value));
                }
            });
        }
        self.may(Kind::Works, "the sync has ended", |to| to.memory.argo.sync = None);
    }

    fn begins(&mut self) {
        let (argo, left) = (self.world.memory.argo, self.left());
        if left.invalidations > 0 && argo.writing.is_none() && argo.copy.is_some() {
            self.may(Kind::Begins, "Argo CD's cache is invalidated", |to| {
                to.memory.left.invalidations -= 1;
                to.memory.argo.writing = argo.copy;
            });
        }
        let copy = argo.copy.filter(|value| works(self.world, *value));
        if left.syncs > 0 && argo.sync.is_none() && self.world.view.watched && copy.is_some() {
            self.may(Kind::Begins, "a sync begins", |to| {
                to.memory.left.syncs -= 1;
                to.memory.argo.sync = copy;
            });
        }
        if left.late_syncs > 0 && self.world.view.watched && argo.copy != held(&self.world.view) {
            self.may(Kind::Begins, "a sync ends that Argo CD began with its old copy", |to| {
                to.memory.left.late_syncs -= 1;
                to.view.consumer = Consumer::Since;
            });
        }
        if left.failures > 0 && self.world.view.watched {
            self.may(Kind::Disturbs, "a sync of Argo CD's fails", |to| {
                to.memory.left.failures -= 1;
                to.view.consumer = Consumer::Failed;
            });
        }
        let in_use = held(&self.world.view).filter(|value| new_name(*value).is_some());
        if let Some(value) = in_use.filter(|_| left.callers > 0) {
            let small = self.small;
            self.may(Kind::Begins, "a colleague calls with N", |to| {
                to.memory.left.callers -= 1;
                note_use(small, to, value);
            });
        }
        if left.applications > 0 && !self.world.view.watched {
            self.may(Kind::Begins, "the cluster gets its first Application", |to| {
                to.memory.left.applications -= 1;
                to.view.watched = true;
            });
        }
    }

    /// A new token is let in once every server of Rancher knows it, and the tunnel's end has an account for its user.
    fn servers(&mut self) {
        let world = self.world;
        let minted = world.view.minted.iter().filter(|_| !self.small.never_let_in);
        for (name, _) in minted.filter(|(_, minted)| minted.life != Life::Dead) {
            self.may(Kind::Works, &format!("Rancher lets {} in", name.0), |to| {
                to.memory.let_in.insert(name.clone());
            });
        }
        self.may(Kind::Works, "Rancher's servers know how O stands", |to| {
            to.memory.old_let_in = old_lives(&to.memory);
        });
    }

    /// Our own calls are noted as uses too, to the second, and late.
    fn calls(&mut self) {
        let world = self.world;
        let keeps_last_use = !self.small.no_last_use;
        if let Some(value) = Small::may_be_asked(world).filter(|_| !world.is_sending() && !world.memory.away) {
            let says = answer(world, value);
            let again = says == world.view.new_answer;
            let kind = if again { Kind::Begins } else { Kind::Works };
            // A former answer that is still good enough.
            if !again || says == Answer::Works && held(&world.view) != Some(value) {
                self.may(kind, "we call with N", |to| {
                    to.view.quiet &= says != Answer::Works;
                    to.memory.to_note |= says == Answer::Works && keeps_last_use;
                    to.view.new_answer = says;
                });
            }
        }
        if world.memory.to_note {
            let small = self.small;
            self.may(Kind::Works, "Rancher notes our call", |to| {
                to.memory.to_note = false;
                if let Some(value) = to.memory.asked {
                    note_use(small, to, value);
                }
            });
        } else if !world.view.quiet && !world.is_sending() {
            self.may(Kind::Works, "a moment passes without a call of ours", |to| {
                to.view.quiet = true;
            });
        }
    }

    /// What a refusal asks for.
    fn operators(&mut self) {
        let Some(run) = &self.world.run else { return };
        if self.world.view.user != US {
            self.may(Kind::Works, "it is run again by who began", |to| {
                US.clone_into(&mut to.view.user);
                resume(to);
            });
            return;
        }
        if !self.world.view.same_rancher {
            self.may(Kind::Works, "it is run again with the Rancher of the Secret", |to| {
                to.view.same_rancher = true;
                resume(to);
            });
            return;
        }
        let refused = matches!(
            ArgocdRancher::decide(&self.world.view, Some(&real(run))),
            Next::Refuse(_)
        );
        if self.world.is_sending() || !refused {
            return;
        }
        if run.phase.may_be_undone() {
            self.may(Kind::Works, "the operator asks for the rollback", |to| {
                if let Some(run) = &mut to.run {
                    run.goal = Goal::Back;
                }
                resume(to);
            });
        } else {
            self.may(Kind::Follows, "the operator deletes O in Rancher", |to| {
                kill_old(&mut to.memory, None);
            });
        }
    }

    /// What is not about to expire when a write is intended does not expire before that arrives: five minutes are longer
    /// than any write that is not held up.
    fn old_in_time(&mut self) {
        let (left, life) = (self.left(), self.world.memory.old);
        let sending = self.world.is_sending();
        if life == Some(Life::Sound) && left.expiries > 0 {
            self.may(Kind::Ages, "O is about to expire", |to| {
                to.memory.left.expiries -= 1;
                to.memory.ending_since_intent = sending;
                kill_old(&mut to.memory, Some(Life::Ending));
            });
        }
        if life == Some(Life::Ending) && !(sending && self.world.memory.ending_since_intent) {
            // Of somebody else's token we cannot see when it will expire.
            let unseen = sending && self.small.foreign;
            self.may(Kind::Follows, "O expires", |to| {
                to.memory.raced |= unseen;
                kill_old(&mut to.memory, Some(Life::Dead));
            });
        }
        if life == Some(Life::Dead) {
            self.may(Kind::Follows, "Rancher purges O", |to| kill_old(&mut to.memory, None));
        }
        if life.is_some() && left.revocations > 0 {
            for (what, life) in [("deletes O", None), ("switches O off", Some(Life::Dead))] {
                self.may(Kind::Disturbs, &format!("somebody {what}"), |to| {
                    to.memory.left.revocations -= 1;
                    kill_old(&mut to.memory, life);
                });
            }
        }
    }

    fn new_in_time(&mut self) {
        let (left, sending, world) = (self.left(), self.world.is_sending(), self.world);
        for (name, minted) in &world.view.minted {
            let shown = &name.0;
            if minted.life == Life::Sound && left.expiries > 0 {
                self.may(Kind::Ages, &format!("{shown} is about to expire"), |to| {
                    to.memory.left.expiries -= 1;
                    to.memory.ending_since_intent = sending;
                    set_life(to, name, Life::Ending);
                });
            }
            if minted.life == Life::Ending && !(sending && world.memory.ending_since_intent) {
                self.may(Kind::Follows, &format!("{shown} expires"), |to| {
                    set_life(to, name, Life::Dead);
                });
            }
            if minted.life == Life::Dead {
                self.may(Kind::Follows, &format!("Rancher purges {shown}"), |to| {
                    to.view.minted.remove(name);
                });
            }
            if left.revocations > 0 {
                self.may(Kind::Disturbs, &format!("somebody deletes {shown}"), |to| {
                    to.memory.left.revocations -= 1;
                    to.view.minted.remove(name);
                });
                self.may(Kind::Disturbs, &format!("somebody switches {shown} off"), |to| {
                    to.memory.left.revocations -= 1;
                    set_life(to, name, Life::Dead);
                });
            }
            if left.bans > 0 && world.memory.let_in.contains(name) {
                self.may(
                    Kind::Disturbs,
                    &format!("Rancher does not let {shown} in any more"),
                    |to| {
                        to.memory.left.bans -= 1;
                        to.memory.let_in.remove(name);
                    },
                );
            }
        }
    }

    fn strangers(&mut self) {
        let there = self.world.view.target.mark().cloned();
        let by = |value| {
            if value == old() {
                Writer::Other("somebody".to_owned())
            } else {
                Writer::Ours
            }
        };
        let with = |value, mark| Target::Holds {
            held: Some(known(value)),
            mark,
            writer: by(value),
        };
        if self.left().reapplies > 0 && self.world.view.target != Target::Missing {
            let target = with(old(), there.clone());
            self.may(Kind::Disturbs, "another writer applies the start again", |to| {
                to.memory.left.reapplies -= 1;
                to.view.target = target;
                Small::changed(to);
                to.memory.stranger = false;
            });
        }
        if self.left().sharers > 0 && self.world.memory.old.is_some() {
            self.may(Kind::Disturbs, "somebody puts O into another Secret", |to| {
                to.memory.left.sharers -= 1;
                to.view.old_needed_by = Some("another Secret".to_owned());
            });
        }
        if self.left().strangers == 0 {
            return;
        }
        let empty = Target::Holds {
            held: None,
            mark: there.clone(),
            writer: Writer::Ours,
        };
        for (name, target) in [
            ("gives the Secret another token", with(stranger(), there.clone())),
            ("takes the token from the Secret", empty),
            ("deletes the Secret", Target::Missing),
            ("puts O back", with(old(), there)),
            ("makes the Secret anew with O", with(old(), None)),
        ] {
            self.may(Kind::Disturbs, &format!("somebody {name}"), |to| {
                to.memory.left.strangers -= 1;
                to.view.target = target;
                Small::changed(to);
                to.memory.stranger = is_strange(held(&to.view));
            });
        }
    }

    fn tampers(&mut self) {
        let Some(parked) = self.world.view.parked.clone().filter(|_| self.left().tampers > 0) else {
            return;
        };
        let wrong = || Some(known(stranger()));
        let with_old = Parked {
            old: wrong(),
            ..parked.clone()
        };
        let with_new = Parked { new: wrong(), ..parked };
        for (what, parked) in [
            ("deletes what is parked", None),
            ("changes the parked O", Some(with_old)),
            ("changes the parked N", Some(with_new)),
        ] {
            self.may(Kind::Disturbs, &format!("somebody {what}"), |to| {
                to.memory.left.tampers -= 1;
                to.memory.old_lost |= parked.as_ref().is_none_or(|parked| parked.old == wrong());
                to.view.parked = parked;
            });
        }
    }

    fn odds(&mut self) {
        let (world, left) = (self.world, self.left());
        if left.forgets > 0 && !world.is_sending() {
            self.may(Kind::Disturbs, "whoever minted is killed", |to| {
                to.memory.left.forgets -= 1;
                to.view.minted.values_mut().for_each(|minted| minted.value = None);
            });
        }
        if left.users > 0 && !world.is_sending() && world.view.user == US {
            self.may(Kind::Disturbs, "it is run as another user", |to| {
                to.memory.left.users -= 1;
                "u-other".clone_into(&mut to.view.user);
                resume(to);
            });
        }
        if left.ranchers > 0 && !world.is_sending() && world.view.same_rancher {
            self.may(Kind::Disturbs, "it is run with another Rancher", |to| {
                to.memory.left.ranchers -= 1;
                to.view.same_rancher = false;
                resume(to);
            });
        }
        if world.memory.away {
            self.may(Kind::Works, "the agent is back", |to| to.memory.away = false);
        } else if left.outages > 0 {
            self.may(Kind::Disturbs, "the agent is away", |to| {
                to.memory.left.outages -= 1;
                to.memory.away = true;
            });
        }
    }
}

/// Another process takes the run over.
fn resume(to: &mut W) {
    let Some(run) = &mut to.run else { return };
    run.timers.clear();
    match Perhaps::recall(&to.view, run) {
        Some(notes) => run.notes = notes,
        None => to.run = None,
    }
}

fn kill_old(memory: &mut Memory, life: Option<Life>) {
    memory.old = life;
    memory.old_lost = true;
}

fn set_life(to: &mut W, name: &Name, life: Life) {
    if let Some(minted) = to.view.minted.get_mut(name) {
        minted.life = life;
    }
}

/// Only whether the last use has changed since it was written down counts, so two marks are enough.
fn note_use(small: &Small, to: &mut W, value: Fingerprint) {
    let before = to.run.as_ref().and_then(|run| run.notes.used_before.clone());
    let minted = new_name(value).and_then(|name| to.view.minted.get_mut(name));
    if let Some(minted) = minted.filter(|_| !small.no_last_use)
        && (minted.used.is_none() || minted.used == before)
    {
        let other = if before.as_deref() == Some("at one") {
            "at two"
        } else {
            "at one"
        };
        minted.used = Some(other.to_owned());
    }
}
