//! What happens in the model while a rotation is in progress, and where each of it was observed.

use client::secret::Fingerprint;
use engine::credential::Validity;
use engine::direction::Direction;
use engine::rotation::{Next, decide};
use kubectl_argocd_rancher::rotation::observed::{Backup, ClusterSync, ConfigWriter, Name, SecretState};
use model::{Environment as _, Help, Move};

use super::Disturbance::{
    Application, Ban, Call, Expiry, FailedSync, Invalidation, LateSync, Loss, OtherRancher, OtherUser, Outage, Reapply,
    Revocation, Sharing, Sync, Tampering, ThirdParty,
};
use super::safety::{is_foreign, unhealthy};
use super::{
    Disturbance, Memory, Model, US, World, answer, changed, foreign, held, is_another_start, new_name, old,
    old_is_valid, token, works,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The ordinary work of Rancher, Argo CD and this tool.
    Ordinary,
    /// Argo CD begins something, or we call once more.
    Begins,
    /// A validity that is shorter than the run.
    Ages,
    /// The expiry of a token that was about to expire, and what an operator does as instructed.
    Follows,
    /// Interference.
    Disturbs,
}

pub(super) struct Moves<'a> {
    model: &'a Model,
    world: &'a World,
    found: Vec<Move<Model>>,
}

impl<'a> Moves<'a> {
    pub(super) fn of(model: &'a Model, world: &'a World) -> Vec<Move<Model>> {
        let found = Vec::new();
        let mut moves = Self { model, world, found };
        moves.all();
        moves.found
    }

    fn all(&mut self) {
        if self.world.run.is_none() && self.world.ended.is_none() {
            if is_another_start(&self.world.seen) {
                // The rotation of what is there now replaces the backup, and nothing else was created.
                self.may(Kind::Ordinary, "another rotation begins", |to| {
                    to.seen.backup = None;
                    to.ended = Some(Direction::Rollback);
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
            self.third_parties();
            self.tampers();
            self.odds();
        }
    }

    fn may(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut World)) {
        let mut to = self.world.clone();
        change(&mut to);
        self.model.update(&mut to);
        let interferes = matches!(kind, Kind::Disturbs | Kind::Ages | Kind::Follows);
        to.memory.disturbed |= interferes;
        to.memory.raced |= kind == Kind::Disturbs && self.world.is_sending();
        to.memory.expiring_since_intent &= self.world.is_sending();
        to.memory.hurt = unhealthy(&to).is_some() && (to.memory.hurt || interferes);
        let help = match kind {
            Kind::Ordinary | Kind::Follows => Help::Helps,
            Kind::Begins | Kind::Ages | Kind::Disturbs => Help::Disturbs,
        };
        if to != *self.world {
            let name = name.to_owned();
            self.found.push(Move { name, help, to });
        }
    }

    fn has(&self, disturbance: Disturbance) -> bool {
        self.world.memory.left.contains(&disturbance)
    }

    /// The same, if such a disturbance is left.
    fn spend(&mut self, disturbance: Disturbance, kind: Kind, name: &str, change: impl FnOnce(&mut World)) {
        let left = &self.world.memory.left;
        if let Some(at) = left.iter().position(|left| *left == disturbance) {
            self.may(kind, name, |to| {
                to.memory.left.remove(at);
                change(to);
            });
        }
    }

    /// Argo CD watches its Secrets, and calls at once with what it reads. When its cache is invalidated, it writes the Secret
    /// from the copy that it has, and not conditionally on what is there: of 150 swaps under two loops of invalidations 11 were
    /// turned back (Argo CD 3.2.11). It changes the data; labels and annotations survive.
    fn argo_cd(&mut self) {
        let argo = self.world.memory.argo;
        let there = held(&self.world.seen);
        let model = self.model;
        self.may(Kind::Ordinary, "Argo CD reads the Secret", |to| {
            to.memory.argo.copy = there;
        });
        if let Some(value) = argo
            .copy
            .filter(|value| self.world.seen.watched && works(self.world, *value))
        {
            self.may(Kind::Ordinary, "Argo CD syncs the cluster", |to| {
                record_use(model, to, value);
                to.seen.sync = if there == Some(value) {
                    ClusterSync::Since
                } else {
                    ClusterSync::Before
                };
            });
        }
        if let Some(value) = argo.writing {
            self.may(Kind::Ordinary, "Argo CD writes its copy over the Secret", |to| {
                to.memory.argo.writing = None;
                if let SecretState::Holds { held, writer, .. } = &mut to.seen.secret {
                    *held = Some(token(value));
                    *writer = ConfigWriter::ArgoCd;
                    changed(to);
                    to.memory.foreign_token = is_foreign(Some(value));
                }
            });
        }
        self.may(Kind::Ordinary, "the sync has ended", |to| to.memory.argo.sync = None);
    }

    fn begins(&mut self) {
        let (model, argo) = (self.model, self.world.memory.argo);
        let watched = self.world.seen.watched;
        if argo.writing.is_none() && argo.copy.is_some() {
            self.spend(Invalidation, Kind::Begins, "Argo CD's cache is invalidated", |to| {
                to.memory.argo.writing = argo.copy;
            });
        }
        let copy = argo.copy.filter(|value| works(self.world, *value));
        if argo.sync.is_none() && watched && copy.is_some() {
            self.spend(Sync, Kind::Begins, "a sync begins", |to| to.memory.argo.sync = copy);
        }
        if watched && argo.copy != held(&self.world.seen) {
            self.spend(
                LateSync,
                Kind::Begins,
                "a sync that began with the stale copy ends",
                |to| {
                    to.seen.sync = ClusterSync::Since;
                },
            );
        }
        if watched {
            self.spend(FailedSync, Kind::Disturbs, "a sync of Argo CD's fails", |to| {
                to.seen.sync = ClusterSync::Failed;
            });
        } else {
            self.spend(
                Application,
                Kind::Begins,
                "the cluster gets its first Application",
                |to| {
                    to.seen.watched = true;
                },
            );
        }
        if let Some(value) = held(&self.world.seen).filter(|value| new_name(*value).is_some()) {
            self.spend(Call, Kind::Begins, "another client calls with N", |to| {
                record_use(model, to, value);
            });
        }
    }

    /// A new token is accepted once every server of Rancher knows it, and the tunnel's end has an account for its user.
    fn servers(&mut self) {
        let world = self.world;
        let issued = world.seen.issued.iter().filter(|_| !self.model.never_accepted);
        for (name, _) in issued.filter(|(_, issued)| issued.validity != Validity::Invalid) {
            self.may(Kind::Ordinary, &format!("Rancher accepts {}", name.0), |to| {
                to.memory.accepted.insert(name.clone());
            });
        }
        self.may(
            Kind::Ordinary,
            "every server of Rancher knows whether O is valid",
            |to| {
                to.memory.old_accepted = old_is_valid(&to.memory);
            },
        );
    }

    /// Our own calls are recorded as uses too, to the second, and late.
    fn calls(&mut self) {
        let world = self.world;
        let records_last_use = !self.model.no_last_use;
        let in_hand = world.is_sending();
        if let Some(value) = Model::may_be_called_with(world).filter(|_| !in_hand && !world.memory.offline) {
            let answer = answer(world, value);
            let same = answer == world.seen.new_accepted;
            let kind = if same { Kind::Begins } else { Kind::Ordinary };
            // A former answer that is still fresh enough.
            if !same || answer.is_accepted() && held(&world.seen) != Some(value) {
                self.may(kind, "we call with N", |to| {
                    to.seen.own_calls_recorded &= !answer.is_accepted();
                    to.memory.to_record |= answer.is_accepted() && records_last_use;
                    to.seen.new_accepted = answer;
                });
            }
        }
        if world.memory.to_record {
            let model = self.model;
            self.may(Kind::Ordinary, "Rancher records our call", |to| {
                to.memory.to_record = false;
                if let Some(value) = to.memory.called_with {
                    record_use(model, to, value);
                }
            });
        } else if !world.seen.own_calls_recorded && !in_hand {
            self.may(Kind::Ordinary, "a moment passes without a call of ours", |to| {
                to.seen.own_calls_recorded = true;
            });
        }
    }

    /// What a refusal asks for.
    fn operators(&mut self) {
        let Some(run) = &self.world.run else { return };
        let model = self.model;
        if self.world.seen.user != US {
            self.may(Kind::Ordinary, "it is run again by the user who began", |to| {
                US.clone_into(&mut to.seen.user);
                resume(model, to);
            });
            return;
        }
        if !self.world.seen.same_rancher {
            self.may(Kind::Ordinary, "it is run again with the Rancher of the Secret", |to| {
                to.seen.same_rancher = true;
                resume(model, to);
            });
            return;
        }
        let refused = matches!(decide(&self.world.seen, run).next, Next::Refuse(_));
        if self.world.is_sending() || !refused {
            return;
        }
        if run.phase.can_be_undone() {
            self.may(Kind::Ordinary, "the operator asks for the rollback", |to| {
                if let Some(run) = &mut to.run {
                    run.turn(Direction::Rollback);
                }
                resume(model, to);
            });
        } else {
            self.may(Kind::Follows, "the operator deletes O in Rancher", |to| {
                invalidate_old(&mut to.memory, None);
            });
        }
    }

    /// What is not about to expire when a step is intended does not expire before that arrives: five minutes are longer than
    /// any step that is not held up.
    fn old_in_time(&mut self) {
        let (sending, validity) = (self.world.is_sending(), self.world.memory.old);
        match validity {
            Some(Validity::Valid) => self.spend(Expiry, Kind::Ages, "O is about to expire", |to| {
                to.memory.expiring_since_intent = sending;
                invalidate_old(&mut to.memory, Some(Validity::Expiring));
            }),
            Some(Validity::Expiring) if !(sending && self.world.memory.expiring_since_intent) => {
                // Of another user's token we cannot see when it will expire.
                let unseen = sending && self.model.foreign;
                self.may(Kind::Follows, "O expires", |to| {
                    to.memory.raced |= unseen;
                    invalidate_old(&mut to.memory, Some(Validity::Invalid));
                });
            }
            Some(Validity::Invalid) => self.may(Kind::Follows, "Rancher purges O", |to| {
                invalidate_old(&mut to.memory, None);
            }),
            Some(Validity::Expiring) | None => {}
        }
        if validity.is_some() {
            for (name, validity) in [
                ("a third party deletes O", None),
                ("a third party disables O", Some(Validity::Invalid)),
            ] {
                self.spend(Revocation, Kind::Disturbs, name, |to| {
                    invalidate_old(&mut to.memory, validity);
                });
            }
        }
    }

    fn new_in_time(&mut self) {
        let (sending, world) = (self.world.is_sending(), self.world);
        for (name, issued) in &world.seen.issued {
            let shown = &name.0;
            match issued.validity {
                Validity::Valid => self.spend(Expiry, Kind::Ages, &format!("{shown} is about to expire"), |to| {
                    to.memory.expiring_since_intent = sending;
                    set_validity(to, name, Validity::Expiring);
                }),
                Validity::Expiring if !(sending && world.memory.expiring_since_intent) => {
                    self.may(Kind::Follows, &format!("{shown} expires"), |to| {
                        set_validity(to, name, Validity::Invalid);
                    });
                }
                Validity::Invalid => self.may(Kind::Follows, &format!("Rancher purges {shown}"), |to| {
                    to.seen.issued.remove(name);
                }),
                Validity::Expiring => {}
            }
            self.spend(
                Revocation,
                Kind::Disturbs,
                &format!("a third party deletes {shown}"),
                |to| {
                    to.seen.issued.remove(name);
                },
            );
            self.spend(
                Revocation,
                Kind::Disturbs,
                &format!("a third party disables {shown}"),
                |to| {
                    set_validity(to, name, Validity::Invalid);
                },
            );
            if world.memory.accepted.contains(name) {
                self.spend(Ban, Kind::Disturbs, &format!("Rancher rejects {shown}"), |to| {
                    to.memory.accepted.remove(name);
                });
            }
        }
    }

    fn third_parties(&mut self) {
        let there = self.world.seen.secret.mark().cloned();
        let with = |value, mark| SecretState::Holds {
            held: Some(token(value)),
            mark,
            writer: if value == old() {
                ConfigWriter::Other("another writer".to_owned())
            } else {
                ConfigWriter::Ours
            },
        };
        let put = |to: &mut World, secret| {
            to.seen.secret = secret;
            changed(to);
            to.memory.foreign_token = is_foreign(held(&to.seen));
        };
        if self.world.seen.secret != SecretState::Missing {
            let secret = with(old(), there.clone());
            self.spend(
                Reapply,
                Kind::Disturbs,
                "another writer applies the start again",
                |to| {
                    put(to, secret);
                },
            );
        }
        if self.world.memory.old.is_some() {
            self.spend(
                Sharing,
                Kind::Disturbs,
                "a third party puts O into another Secret",
                |to| {
                    to.seen.old_needed_by = Some("another Secret".to_owned());
                },
            );
        }
        let empty = SecretState::Holds {
            held: None,
            mark: there.clone(),
            writer: ConfigWriter::Ours,
        };
        for (name, secret) in [
            ("puts another token into the Secret", with(foreign(), there.clone())),
            ("removes the token from the Secret", empty),
            ("deletes the Secret", SecretState::Missing),
            ("puts O back", with(old(), there)),
            ("creates the Secret anew with O", with(old(), None)),
        ] {
            self.spend(ThirdParty, Kind::Disturbs, &format!("a third party {name}"), |to| {
                put(to, secret);
            });
        }
    }

    fn tampers(&mut self) {
        let Some(backup) = self.world.seen.backup.clone().filter(|_| self.has(Tampering)) else {
            return;
        };
        let wrong = || Some(token(foreign()));
        let with_old = Backup {
            old: wrong(),
            ..backup.clone()
        };
        let with_new = Backup { new: wrong(), ..backup };
        for (what, backup) in [
            ("deletes the backup Secret", None),
            ("changes O in the backup Secret", Some(with_old)),
            ("changes N in the backup Secret", Some(with_new)),
        ] {
            self.spend(Tampering, Kind::Disturbs, &format!("a third party {what}"), |to| {
                to.memory.old_lost |= backup.as_ref().is_none_or(|backup| backup.old == wrong());
                to.seen.backup = backup;
            });
        }
    }

    fn odds(&mut self) {
        let (model, world) = (self.model, self.world);
        if !world.is_sending() {
            self.spend(Loss, Kind::Disturbs, "the process that issued N is killed", |to| {
                to.seen.issued.values_mut().for_each(|issued| issued.value = None);
            });
        }
        if !world.is_sending() && world.seen.user == US {
            self.spend(OtherUser, Kind::Disturbs, "it is run as another user", |to| {
                "u-other".clone_into(&mut to.seen.user);
                resume(model, to);
            });
        }
        if !world.is_sending() && world.seen.same_rancher {
            self.spend(OtherRancher, Kind::Disturbs, "it is run with another Rancher", |to| {
                to.seen.same_rancher = false;
                resume(model, to);
            });
        }
        if world.memory.offline {
            self.may(Kind::Ordinary, "the agent is back", |to| to.memory.offline = false);
        } else {
            self.spend(Outage, Kind::Disturbs, "the agent is offline", |to| {
                to.memory.offline = true;
            });
        }
    }
}

/// Another process takes the run over.
fn resume(model: &Model, to: &mut World) {
    to.run = to.run.take().and_then(|run| model.recall(&to.seen, run));
}

fn invalidate_old(memory: &mut Memory, validity: Option<Validity>) {
    memory.old = validity;
    memory.old_lost = true;
}

fn set_validity(to: &mut World, name: &Name, validity: Validity) {
    if let Some(issued) = to.seen.issued.get_mut(name) {
        issued.validity = validity;
    }
}

/// Only whether the last use has changed since it was written down counts, so two marks are enough.
fn record_use(model: &Model, to: &mut World, value: Fingerprint) {
    let before = to.run.as_ref().and_then(|run| run.record.used_before.clone());
    let issued = new_name(value).and_then(|name| to.seen.issued.get_mut(name));
    if let Some(issued) = issued.filter(|_| !model.no_last_use)
        && (issued.used.is_none() || issued.used == before)
    {
        let other = if before.as_deref() == Some("at one") {
            "at two"
        } else {
            "at one"
        };
        issued.used = Some(other.to_owned());
    }
}
