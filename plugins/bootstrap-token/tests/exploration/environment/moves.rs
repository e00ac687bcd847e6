//! What can happen in the model during a rotation, with sources.

use client::secret::Fingerprint;
use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::rotation::{Blocker, Next, decide};
use kubectl_bootstrap_token::rotation::observed::{Delivery, SecretState};
use kubectl_bootstrap_token::rotation::record::TokenRef;
use kubectl_bootstrap_token::rotation::step::Which;
use model::{Help, Move};

use super::{
    Budget, CHANGED, FOREIGN, Model, Noise, OLD, World, delivery, first_id, holds, holds_neither, holds_valid,
    new_is_valid, old, old_is_valid, secret, unhealthy, value_in, works,
};

const BOTH: [Which; 2] = [Which::Old, Which::New];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Kubernetes, or an operator who follows a hint.
    Works,
    /// A node.
    Reads,
    /// The lifetime of a token is shorter than the run.
    Ages,
    /// A token that is about to expire expires, and is deleted.
    Expires,
    /// Interference.
    Disturbs,
}

/// A change of a Secret by an attacker, with a value of their own.
type Tampering = fn(&mut SecretState, Option<Fingerprint>);

struct Moves<'a> {
    model: &'a Model,
    world: &'a World,
    found: Vec<Move<Model>>,
}

/// All moves.
pub(super) fn of(model: &Model, world: &World) -> Vec<Move<Model>> {
    let found = Vec::new();
    let mut moves = Moves { model, world, found };
    moves.servers();
    moves.signer();
    moves.nodes();
    if world.run.is_some() {
        moves.operators();
        moves.time();
        moves.deletions();
        moves.foreign_writes();
        moves.reapplies();
        moves.wrong_runs();
        moves.tampers();
        moves.odds();
    }
    moves.found
}

impl Moves<'_> {
    fn may(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut World)) {
        let mut to = self.world.clone();
        change(&mut to);
        self.model.settle(&mut to);
        let interferes = matches!(kind, Kind::Disturbs | Kind::Ages | Kind::Expires);
        to.memory.disturbed |= interferes;
        to.memory.raced |= kind == Kind::Disturbs && self.world.is_sending();
        to.memory.expiring_since_intent &= self.world.is_sending();
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

    /// Each API server has its own watch, and caches accepted tokens for ten seconds
    /// (kubernetes/kubernetes `pkg/kubeapiserver/options/authentication.go`, 1.36).
    fn servers(&mut self) {
        let (seen, model) = (&self.world.seen, self.model);
        let rotated = self.world.run.as_ref().map_or(*OLD, |run| run.record.old.value);
        let old_works = holds_valid(&seen.old, rotated);
        let new_works = new_is_valid(seen) && !model.never_accepted;
        for (which, works) in [(Which::Old, old_works), (Which::New, new_works)] {
            let acceptance = &seen.token(which).acceptance;
            let goal = if works {
                Acceptance::Accepted
            } else {
                Acceptance::Rejected
            };
            if *acceptance == goal || *acceptance == Acceptance::NotAsked && !works {
                continue;
            }
            let unknown = Acceptance::Unknown(String::new());
            let next = if model.many_servers && *acceptance != unknown {
                unknown
            } else {
                goal
            };
            self.may(Kind::Works, "the API servers notice", |to| {
                to.seen.token_mut(which).acceptance = next;
            });
        }
        if self.world.memory.remembered.is_some() {
            self.may(
                Kind::Works,
                "the token expires from the cache of the API server that is not probed",
                |to| {
                    to.memory.remembered = None;
                },
            );
        }
    }

    /// The bootstrap signer acts when a token changes, and sometimes loses an update
    /// (kubernetes/kubernetes `pkg/controller/bootstrap/bootstrapsigner.go`, 1.36; kubernetes/kubernetes#109233).
    fn signer(&mut self) {
        if !self.model.signing || !self.world.memory.event || self.world.memory.signer_off {
            return;
        }
        self.may(Kind::Works, "the signer signs", |to| {
            to.memory.event = false;
            to.seen.old.signed = old_is_valid(&to.seen);
            to.seen.new.signed = new_is_valid(&to.seen);
        });
        if self.left().lost_signatures > 0 {
            self.may(Kind::Disturbs, "the signer loses an update", |to| {
                to.memory.left.lost_signatures -= 1;
                to.memory.event = false;
            });
        }
    }

    /// A node reads the delivery when it starts, and joins later.
    fn nodes(&mut self) {
        if self.world.memory.reader.is_some() {
            self.may(Kind::Works, "the node has joined", |to| to.memory.reader = None);
        }
        let named = value_in(delivery(self.world)).filter(|value| works(&self.world.seen, *value));
        if self.left().readers > 0 && self.world.memory.reader.is_none() && self.world.ended.is_none() {
            self.may(Kind::Reads, "a node reads the delivery", |to| {
                to.memory.left.readers -= 1;
                to.memory.reader = named;
            });
        }
    }

    /// What a refusal requires of the operator.
    fn operators(&mut self) {
        let (seen, memory) = (&self.world.seen, &self.world.memory);
        let Some(run) = self.world.run.as_ref().filter(|_| !self.world.is_sending()) else {
            return;
        };
        if !matches!(decide(seen, run).next, Next::Refuse(_)) {
            return;
        }
        if seen.login.is_some() || seen.another_cluster.is_some() {
            self.may(Kind::Works, "it is run with the right login and cluster", |to| {
                (to.seen.login, to.seen.another_cluster) = (None, None);
            });
            return;
        }
        if memory.away.is_some() {
            if !memory.given_up {
                self.may(Kind::Works, "it is run again on the host of the file", |to| {
                    to.seen.delivery = to.memory.away.take().unwrap_or(Delivery::Missing);
                });
            }
            if self.left().losses > 0 {
                self.may(Kind::Works, "the operator passes --force=target", |to| {
                    to.memory.left.losses -= 1;
                    to.memory.given_up = true;
                    to.seen.lost = true;
                });
            }
            return;
        }
        if run.direction.is_rollback() && run.record.new.is_none() {
            self.may(Kind::Works, "the operator discards the journal", |to| {
                to.run = None;
                to.ended = Some(Direction::Rollback);
                to.memory.another = true;
            });
        }
        let id = || run.record.new.as_ref().map_or_else(first_id, |new| new.id.clone());
        let new = seen.new.value().map(|value| TokenRef { id: id(), value });
        let valid = new.filter(|_| !seen.old.is_valid(*OLD)).unwrap_or_else(old);
        self.may(
            Kind::Works,
            "the operator writes a valid token into the delivery",
            |to| {
                to.memory.foreign_content = false;
                to.seen.delivery = holds(valid, Acceptance::Rejected);
            },
        );
    }

    /// A token that is not about to expire when a step is intended does not expire before the step arrives: five minutes are longer
    /// than any undelayed write.
    fn time(&mut self) {
        for which in BOTH {
            let Some(secret) = &self.world.seen.token(which).secret else {
                continue;
            };
            let validity = secret.validity;
            if validity == Validity::Valid && self.left().expiries > 0 {
                let sending = self.world.is_sending();
                self.may(Kind::Ages, &format!("{which:?} is about to expire"), |to| {
                    to.memory.left.expiries -= 1;
                    to.memory.expiring_since_intent = sending;
                    set_validity(to, which, Validity::Expiring);
                });
            }
            let within_a_write = self.world.is_sending() && self.world.memory.expiring_since_intent;
            if validity == Validity::Expiring && !within_a_write {
                self.may(Kind::Expires, &format!("{which:?} expires"), |to| {
                    set_validity(to, which, Validity::Invalid);
                });
            }
            if validity == Validity::Expiring && self.left().extensions > 0 {
                self.may(Kind::Disturbs, &format!("{which:?} is extended"), |to| {
                    to.memory.left.extensions -= 1;
                    set_validity(to, which, Validity::Valid);
                });
            }
            if validity == Validity::Invalid {
                self.may(Kind::Expires, &format!("the token cleaner deletes {which:?}"), |to| {
                    change(to, which, |secret| *secret = None);
                });
            }
        }
    }

    fn deletions(&mut self) {
        if self.left().deletions == 0 {
            return;
        }
        for which in BOTH {
            self.may(Kind::Disturbs, &format!("another operator deletes {which:?}"), |to| {
                if to.seen.token(which).secret.is_some() {
                    to.memory.left.deletions -= 1;
                    change(to, which, |secret| *secret = None);
                }
            });
        }
    }

    fn foreign_writes(&mut self) {
        let seen = &self.world.seen;
        if self.left().foreign_writes == 0 || !matches!(seen.delivery, Delivery::Holds { .. } | Delivery::Missing) {
            return;
        }
        for (name, delivery, foreign) in [
            ("another writer changes the delivery", holds_neither(), true),
            ("another writer deletes the delivery", Delivery::Missing, true),
            (
                "another writer puts O back into the delivery",
                holds(old(), Acceptance::Accepted),
                false,
            ),
        ] {
            self.may(Kind::Disturbs, name, |to| {
                to.memory.left.foreign_writes -= 1;
                to.memory.foreign_content = foreign;
                to.seen.delivery = delivery;
            });
        }
    }

    /// GitOps, a static manifest, a loop of `kubectl apply`. An apply keeps our annotations, a replace does not.
    fn reapplies(&mut self) {
        if self.left().reapplies == 0 || self.world.is_sending() {
            return;
        }
        if let Delivery::Holds { content, mark, .. } = &self.world.seen.delivery
            && content.value != *OLD
            && content.value != *FOREIGN
        {
            let mark = *mark;
            for (name, mark) in [
                ("applies O to the delivery", mark),
                ("replaces the delivery with O", None),
            ] {
                self.may(Kind::Disturbs, &format!("another writer {name}"), |to| {
                    to.memory.left.reapplies -= 1;
                    to.memory.noise = Noise::Loud;
                    to.seen.delivery = holds(old(), Acceptance::Accepted);
                    if let Delivery::Holds { mark: present, .. } = &mut to.seen.delivery {
                        *present = mark;
                    }
                });
            }
        }
        if self.world.memory.retired && self.world.seen.old.secret.is_none() {
            self.may(Kind::Disturbs, "another writer creates O again", |to| {
                to.memory.left.reapplies -= 1;
                to.memory.noise = Noise::Loud;
                to.seen.old.returned = true;
                change(to, Which::Old, |present| *present = Some(secret(*OLD)));
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
        let new = run.record.new.as_ref().map(|new| new.id.clone());
        for id in [Some(old().id), new].into_iter().flatten() {
            self.may(Kind::Disturbs, "it is run with the login of a token", |to| {
                to.memory.left.wrong_runs -= 1;
                to.seen.login = Some(id);
            });
        }
        self.may(Kind::Disturbs, "it is run with a delivery of another cluster", |to| {
            to.memory.left.wrong_runs -= 1;
            to.seen.another_cluster = Some(Blocker::new("another cluster", "use the right one"));
        });
    }

    fn tampers(&mut self) {
        if self.left().tampers == 0 {
            return;
        }
        let ways: [(&str, Tampering); 4] = [
            ("sets another value of", |secret, other| secret.value = other),
            ("removes a usage of", |secret, _| secret.validity = Validity::Invalid),
            ("removes the value of", |secret, _| secret.value = None),
            ("removes the mark of", |secret, _| secret.mark = None),
        ];
        let other = Some(*CHANGED);
        for which in BOTH {
            for (what, way) in ways {
                // Without its mark, a Secret is recognized by the drawn value.
                let new = self.world.run.as_ref().and_then(|run| run.record.new.as_ref());
                let drawn = new.map(|new| new.value) == self.world.seen.new.value();
                let token = self.world.seen.token(which);
                let foreign = token.holds(*FOREIGN);
                if token.secret.is_none() || foreign || what.contains("mark") && !drawn {
                    continue;
                }
                self.may(Kind::Disturbs, &format!("another writer {what} {which:?}"), |to| {
                    to.memory.left.tampers -= 1;
                    let before = to.seen.token(which).value();
                    change(to, which, |secret| {
                        if let Some(secret) = secret {
                            way(secret, other);
                        }
                    });
                    let changed = before != to.seen.token(which).value();
                    to.memory.replaced |= which == Which::Old && changed;
                    if which == Which::New && changed {
                        to.seen.new.acceptance = Acceptance::Rejected;
                        to.seen.new.signed = false;
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
                let delivery = std::mem::replace(&mut to.seen.delivery, Delivery::OtherHost);
                to.memory.away = Some(delivery);
            });
        }
        for which in BOTH {
            let gone = match which {
                Which::Old => !world.seen.old.holds(*OLD),
                Which::New => world.seen.new.secret.is_none(),
            };
            if left.forgets > 0 && gone {
                let name = format!("the process that knew the value of {which:?} is killed");
                self.may(Kind::Disturbs, &name, |to| {
                    to.memory.left.forgets -= 1;
                    to.seen.token_mut(which).acceptance = Acceptance::NotAsked;
                });
            }
        }
        // The id that was just drawn is one of two billion.
        let record = world.run.as_ref().map(|run| &run.record);
        let drawn = record.is_some_and(|record| record.new.is_some() && !record.delivered);
        if left.collisions > 0 && world.is_sending() && drawn && world.seen.new.secret.is_none() {
            self.may(Kind::Disturbs, "the id that was drawn is taken", |to| {
                to.memory.left.collisions -= 1;
                to.memory.foreign_token = true;
                to.seen.new.secret = Some(secret(*FOREIGN));
            });
        }
    }
}

fn change(world: &mut World, which: Which, change: impl FnOnce(&mut Option<SecretState>)) {
    change(&mut world.seen.token_mut(which).secret);
    let (seen, memory) = (&world.seen, &mut world.memory);
    memory.event = true;
    memory.foreign_token &= seen.new.secret.is_some();
    memory.replaced &= seen.old.secret.is_some();
    memory.old_lost |= !seen.old.is_valid(*OLD);
    let is_known = |new: &SecretState| new.mark.is_some() && new.value.is_some();
    memory.new_lost |= which == Which::New && !seen.new.secret.as_ref().is_some_and(is_known);
}

fn set_validity(world: &mut World, which: Which, validity: Validity) {
    change(world, which, |secret| {
        if let Some(secret) = secret {
            secret.validity = validity;
        }
    });
}
