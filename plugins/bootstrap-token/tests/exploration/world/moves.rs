//! What happens in the small world while a rotation is under way, and where each of it was learnt.

use client::secret::Fingerprint;
use engine::phase::Goal;
use engine::protocol::{Next, Protocol, Run};
use kubectl_bootstrap_token::rotation::BootstrapToken;
use kubectl_bootstrap_token::rotation::view::{Answer, Doubt, Held, Side, Standing, Target, Token, View};
use kubectl_bootstrap_token::rotation::write::Which;
use model::mistaken::real;
use model::{Help, Move};

use super::{
    Budget, CHANGED, Like, Noise, Small, W, holds_old, lives, new_lives, new_value, old, old_id, old_lives, sound,
    stranger, target, unhealthy, value_in, works,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Kubernetes at work, or an operator who does what he was told.
    Works,
    /// A node.
    Reads,
    /// A time to live that is shorter than the run.
    Ages,
    /// What comes to a token that is about to expire, and needs nobody.
    Expires,
    /// Somebody or something that interferes.
    Disturbs,
}

pub(super) struct Moves<'a, P: Like> {
    pub(super) small: &'a Small<P>,
    pub(super) world: &'a W<P>,
    pub(super) found: Vec<Move<Small<P>>>,
}

/// What a tamperer does to a token; the value is one of his own.
type Way = fn(&mut Token, Option<Fingerprint>);

impl<P: Like> Moves<'_, P> {
    pub(super) fn all(&mut self) {
        self.servers();
        self.signer();
        self.nodes();
        if self.world.run.is_some() {
            self.operators();
            self.time();
            self.deletions();
            self.strangers();
            self.reapplies();
            self.wrong_runs();
            self.tampers();
            self.odds();
        }
    }

    fn may(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut W<P>)) {
        let mut to = self.world.clone();
        change(&mut to);
        self.small.settle(&mut to);
        let interferes = matches!(kind, Kind::Disturbs | Kind::Ages | Kind::Expires);
        to.memory.disturbed |= interferes;
        to.memory.raced |= kind == Kind::Disturbs && self.world.is_sending();
        to.memory.ending_since_intent &= self.world.is_sending();
        to.memory.hurt = unhealthy(&to).is_some() && (to.memory.hurt || interferes);
        let help = match kind {
            Kind::Works | Kind::Expires => Help::Helps,
            Kind::Reads | Kind::Ages | Kind::Disturbs => Help::Disturbs,
        };
        if to != *self.world {
            let name = name.to_owned();
            self.found.push(Move { name, help, to });
        }
    }

    fn left(&self) -> Budget {
        self.world.memory.left
    }

    /// Each API server has a lister of its own, and remembers for ten seconds whom it accepted
    /// (kubernetes/kubernetes `pkg/kubeapiserver/options/authentication.go`, 1.36).
    fn servers(&mut self) {
        let (view, small) = (&self.world.view, self.small);
        let asked = self.world.run.as_ref().map_or(old(), |run| run.notes.old.value);
        let truths = [lives(&view.old, asked), new_lives(view) && !small.never_accepted];
        let answers = [view.old.answer, view.new.answer];
        for (at, (truth, answer)) in truths.into_iter().zip(answers).enumerate() {
            let goal = if truth { Answer::Accepted } else { Answer::Refused };
            let asked = answer != Answer::Unasked || truth;
            if answer == goal || !asked {
                continue;
            }
            let next = if small.many_servers && answer != Answer::Mixed {
                Answer::Mixed
            } else {
                goal
            };
            self.may(Kind::Works, "the API servers notice", |to| {
                let side = if at == 0 { &mut to.view.old } else { &mut to.view.new };
                side.answer = next;
            });
        }
    }

    /// The bootstrap signer looks when a token changes, and loses an update now and then
    /// (kubernetes/kubernetes `pkg/controller/bootstrap/bootstrapsigner.go`, 1.36; kubernetes/kubernetes#109233).
    fn signer(&mut self) {
        if !self.small.signing || !self.world.memory.event || self.world.memory.signer_off {
            return;
        }
        self.may(Kind::Works, "the signer signs", |to| {
            to.memory.event = false;
            to.view.old.signed = old_lives(&to.view);
            to.view.new.signed = new_lives(&to.view);
        });
        if self.left().lost_signatures > 0 {
            self.may(Kind::Disturbs, "the signer loses an update", |to| {
                to.memory.left.lost_signatures -= 1;
                to.memory.event = false;
            });
        }
    }

    /// A node reads the target once, when it starts, and has joined a while later.
    fn nodes(&mut self) {
        if self.world.memory.reader.is_some() {
            self.may(Kind::Works, "the node has joined", |to| to.memory.reader = None);
        }
        let named = value_in(target(self.world)).filter(|value| works(&self.world.view, *value));
        if self.left().readers > 0 && self.world.memory.reader.is_none() && self.world.ended.is_none() {
            self.may(Kind::Reads, "a node reads the target", |to| {
                to.memory.left.readers -= 1;
                to.memory.reader = named;
            });
        }
    }

    /// What a refusal asks for.
    fn operators(&mut self) {
        let refused = |run| {
            matches!(
                BootstrapToken::decide(&self.world.view, Some(&real(run))),
                Next::Refuse(_)
            )
        };
        if self.world.is_sending() || !self.world.run.as_ref().is_some_and(refused) {
            return;
        }
        if self.world.view.login.is_some() || self.world.view.another_cluster.is_some() {
            self.may(Kind::Works, "it is run as it should be", |to| {
                (to.view.login, to.view.another_cluster) = (None, None);
            });
            return;
        }
        if self.world.memory.away.is_some() {
            if !self.world.memory.given_up {
                self.may(Kind::Works, "it is run again on its host", |to| {
                    to.view.target = to.memory.away.take().unwrap_or(Target::Missing);
                });
            }
            if self.left().losses > 0 {
                self.may(Kind::Works, "the operator says that its host is lost", |to| {
                    to.memory.left.losses -= 1;
                    to.memory.given_up = true;
                    to.view.lost = true;
                });
            }
            return;
        }
        let run = self.world.run.as_ref();
        if run.is_some_and(|run| run.goal == Goal::Back && run.notes.new.is_none()) {
            self.may(Kind::Works, "the operator discards the journal", |to| {
                to.run = None;
                to.ended = Some(Goal::Back);
                to.memory.another = true;
            });
        }
        let id = run.and_then(|run| run.notes.new.as_ref()).map(|new| new.id.clone());
        let held = match new_value(&self.world.view) {
            Some(value) if !self.world.view.old.is_sound(old()) => Held { id, value },
            _ => Held {
                id: Some(old_id()),
                value: old(),
            },
        };
        self.may(Kind::Works, "the operator writes a good token into the target", |to| {
            to.memory.stranger = false;
            to.view.target = Target::Holds {
                held,
                leg: None,
                answer: Answer::Refused,
                writer: None,
            };
        });
    }

    /// What is not about to expire when a write is intended does not expire before that arrives: five minutes are longer
    /// than any write that is not held up.
    fn time(&mut self) {
        for which in [Which::Old, Which::New] {
            let Some(standing) = side(&self.world.view, which).token.as_ref().map(|token| token.standing) else {
                continue;
            };
            if standing == Standing::Sound && self.left().expiries > 0 {
                let sending = self.world.is_sending();
                self.may(Kind::Ages, &format!("{which:?} is about to expire"), |to| {
                    to.memory.left.expiries -= 1;
                    to.memory.ending_since_intent = sending;
                    set_standing(to, which, Standing::Ending);
                });
            }
            let within_a_write = self.world.is_sending() && self.world.memory.ending_since_intent;
            if standing == Standing::Ending && !within_a_write {
                self.may(Kind::Expires, &format!("{which:?} expires"), |to| {
                    set_standing(to, which, Standing::Dead);
                });
            }
            if standing == Standing::Ending && self.left().extensions > 0 {
                self.may(Kind::Disturbs, &format!("somebody extends {which:?}"), |to| {
                    to.memory.left.extensions -= 1;
                    set_standing(to, which, Standing::Sound);
                });
            }
            if standing == Standing::Dead {
                self.may(Kind::Expires, &format!("the token cleaner deletes {which:?}"), |to| {
                    change(to, which, |token| *token = None);
                });
            }
        }
    }

    fn deletions(&mut self) {
        if self.left().deletions == 0 {
            return;
        }
        for which in [Which::Old, Which::New] {
            self.may(Kind::Disturbs, &format!("somebody deletes {which:?}"), |to| {
                if side(&to.view, which).token.is_some() {
                    to.memory.left.deletions -= 1;
                    change(to, which, |token| *token = None);
                }
            });
        }
    }

    fn strangers(&mut self) {
        let there = matches!(self.world.view.target, Target::Holds { .. } | Target::Missing);
        if self.left().strangers == 0 || !there {
            return;
        }
        let foreign = Target::Holds {
            held: Held {
                id: None,
                value: stranger(),
            },
            leg: None,
            answer: Answer::Refused,
            writer: None,
        };
        for (name, target, strange) in [
            ("somebody changes the target", foreign, true),
            ("somebody deletes the target", Target::Missing, true),
            ("somebody puts O back into the target", holds_old(), false),
        ] {
            self.may(Kind::Disturbs, name, |to| {
                to.memory.left.strangers -= 1;
                to.memory.stranger = strange;
                to.view.target = target;
            });
        }
    }

    /// GitOps, a static manifest, a loop of `kubectl apply`. An apply leaves our annotations, a replace does not.
    fn reapplies(&mut self) {
        if self.left().reapplies == 0 || self.world.is_sending() {
            return;
        }
        if let Target::Holds { held, leg, .. } = &self.world.view.target
            && held.value != old()
            && held.value != stranger()
        {
            let leg = *leg;
            for (name, leg) in [("applies O to the target", leg), ("replaces the target with O", None)] {
                self.may(Kind::Disturbs, &format!("another writer {name}"), |to| {
                    to.memory.left.reapplies -= 1;
                    to.memory.noise = Noise::Loud;
                    to.view.target = holds_old();
                    if let Target::Holds { leg: mark, .. } = &mut to.view.target {
                        *mark = leg;
                    }
                });
            }
        }
        if self.world.memory.retired && self.world.view.old.token.is_none() {
            self.may(Kind::Disturbs, "another writer creates O again", |to| {
                to.memory.left.reapplies -= 1;
                to.memory.noise = Noise::Loud;
                to.view.old.returned = true;
                change(to, Which::Old, |token| *token = Some(sound(old())));
            });
        }
    }

    fn wrong_runs(&mut self) {
        let Some(run) = self.world.run.as_ref().filter(|_| !self.world.is_sending()) else {
            return;
        };
        if self.left().wrong_runs == 0 {
            return;
        }
        let new = run.notes.new.as_ref().map(|new| new.id.clone());
        for id in [Some(old_id()), new].into_iter().flatten() {
            self.may(Kind::Disturbs, "it is run with the login of a token", |to| {
                to.memory.left.wrong_runs -= 1;
                to.view.login = Some(id);
            });
        }
        let other = Doubt::TargetOfAnotherCluster.obstacle(&old_id(), None);
        self.may(Kind::Disturbs, "it is run with a target of another cluster", |to| {
            to.memory.left.wrong_runs -= 1;
            to.view.another_cluster = Some(other);
        });
    }

    fn tampers(&mut self) {
        if self.left().tampers == 0 {
            return;
        }
        let other = Some(*CHANGED);
        let ways: [(&str, Way); 4] = [
            ("gives another value to", |token, other| token.value = other),
            ("takes a usage from", |token, _| token.standing = Standing::Dead),
            ("takes the value from", |token, _| token.value = None),
            ("takes the mark from", |token, _| token.mark = None),
        ];
        for which in [Which::Old, Which::New] {
            for (what, way) in ways {
                // Without its mark a Secret is known by the value that was drawn for it.
                let notes = self.world.run.as_ref().and_then(|run| run.notes.new.as_ref());
                let drawn = notes.map(|new| new.value) == new_value(&self.world.view);
                let token = side(&self.world.view, which).token.as_ref();
                let theirs = token.is_some_and(|token| token.value == Some(stranger()));
                if token.is_none() || theirs || what.contains("mark") && !drawn {
                    continue;
                }
                self.may(Kind::Disturbs, &format!("somebody {what} {which:?}"), |to| {
                    to.memory.left.tampers -= 1;
                    let before = side(&to.view, which).token.as_ref().and_then(|token| token.value);
                    change(to, which, |token| {
                        if let Some(token) = token {
                            way(token, other);
                        }
                    });
                    let after = side(&to.view, which).token.as_ref().and_then(|token| token.value);
                    to.memory.replaced |= which == Which::Old && before != after;
                    if which == Which::New && before != after {
                        to.view.new.answer = Answer::Refused;
                        to.view.new.signed = false;
                    }
                });
            }
        }
    }

    fn odds(&mut self) {
        let (world, left) = (self.world, self.left());
        if left.signer_offs > 0 && !world.memory.signer_off {
            self.may(Kind::Disturbs, "the signer is switched off", |to| {
                to.memory.left.signer_offs -= 1;
                to.memory.signer_off = true;
            });
        }
        if left.hosts > 0 && world.memory.away.is_none() && !world.is_sending() {
            self.may(Kind::Disturbs, "it is run on another host", |to| {
                to.memory.left.hosts -= 1;
                let target = std::mem::replace(&mut to.view.target, Target::Unreachable);
                to.memory.away = Some(target);
            });
        }
        for which in [Which::Old, Which::New] {
            let gone = match which {
                Which::Old => !world.view.old.holds(old()),
                Which::New => world.view.new.token.is_none(),
            };
            if left.forgets > 0 && gone {
                self.may(
                    Kind::Disturbs,
                    &format!("whoever knew the value of {which:?} is killed"),
                    |to| {
                        to.memory.left.forgets -= 1;
                        side_mut(&mut to.view, which).answer = Answer::Unasked;
                    },
                );
            }
        }
        // One of two thousand million ids, and one that was just drawn.
        let fresh = |run: &Run<P>| run.notes.new.is_some() && !run.notes.delivered;
        let drawn = world.run.as_ref().is_some_and(fresh);
        if left.collisions > 0 && world.is_sending() && drawn && world.view.new.token.is_none() {
            self.may(Kind::Disturbs, "somebody else has the id that was drawn", |to| {
                to.memory.left.collisions -= 1;
                to.memory.theirs = true;
                to.view.new.token = Some(sound(stranger()));
            });
        }
    }
}

fn side(view: &View, which: Which) -> &Side {
    match which {
        Which::Old => &view.old,
        Which::New => &view.new,
    }
}

fn side_mut(view: &mut View, which: Which) -> &mut Side {
    match which {
        Which::Old => &mut view.old,
        Which::New => &mut view.new,
    }
}

fn change<P: Like>(world: &mut W<P>, which: Which, change: impl FnOnce(&mut Option<Token>)) {
    change(&mut side_mut(&mut world.view, which).token);
    world.memory.event = true;
    world.memory.theirs &= world.view.new.token.is_some();
    world.memory.replaced &= world.view.old.token.is_some();
    world.memory.old_lost |= !world.view.old.is_sound(old());
    let is_known = |new: &Token| new.mark.is_some() && new.value.is_some();
    world.memory.new_lost |= which == Which::New && !world.view.new.token.as_ref().is_some_and(is_known);
}

fn set_standing<P: Like>(world: &mut W<P>, which: Which, standing: Standing) {
    change(world, which, |token| {
        if let Some(token) = token {
            token.standing = standing;
        }
    });
}
