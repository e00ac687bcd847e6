//! The model checker walks the rotation of a badge through everything that can happen to it, and finds its mutant.

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Decision, Next, Timer, decide};
use engine::run::Run;
use model::{Environment, Explored, Help, Move, World, explore};

#[path = "../../engine/tests/pure/badge.rs"]
mod badge;

use self::badge::{Badge, Observed, Record, Step, Worn};

const LIMIT: usize = 200_000;

fn old() -> Fingerprint {
    Fingerprint::of("old")
}

/// How the consumer behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumer {
    Calls,
    /// It never manages to call with another badge than the old one.
    CallsWithOldOnly,
    /// It never calls, and no timer passes.
    Silent,
}

/// One issuer and one consumer.
struct Model {
    late_holders: u8,
    rollbacks: u8,
    consumer: Consumer,
    /// The mutant: it revokes the old badge where it has to wait for a call with the new one.
    retires_unproven: bool,
}

impl Model {
    fn with(late_holders: u8, rollbacks: u8) -> Self {
        Self {
            late_holders,
            rollbacks,
            consumer: Consumer::Calls,
            retires_unproven: false,
        }
    }
}

/// What a step is conditional on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Condition {
    List(BTreeSet<Fingerprint>),
    Consumer(Option<Worn>),
}

impl Environment for Model {
    type Rotation = Badge;
    /// What the consumer has loaded.
    type Memory = Option<Worn>;
    type Condition = Condition;

    fn starts(&self) -> Vec<World<Self>> {
        let worn = Worn {
            badge: old(),
            mark: None,
        };
        let seen = Observed {
            issued: [old()].into(),
            accepted: [old()].into(),
            handed: Some(worn.clone()),
            called: Some(worn.clone()),
            closed: false,
        };
        vec![World::new(seen, Some(worn)).with(self.late_holders, self.rollbacks)]
    }

    fn moves(&self, world: &World<Self>) -> Vec<Move<Self>> {
        let mut moves = Vec::new();
        let mut may = |name: &str, change: &dyn Fn(&mut World<Self>)| {
            let mut to = world.clone();
            change(&mut to);
            if to != *world {
                moves.push(Move {
                    name: name.to_owned(),
                    help: Help::Helps,
                    to,
                });
            }
        };
        may("the issuer reads its list", &|to| {
            to.seen.accepted.clone_from(&to.seen.issued);
        });
        may("the consumer loads its badge", &|to| {
            to.memory.clone_from(&to.seen.handed);
        });
        let calls_with = |worn: &&Worn| match self.consumer {
            Consumer::Calls => world.seen.accepted.contains(&worn.badge),
            Consumer::CallsWithOldOnly => worn.badge == old() && world.seen.accepted.contains(&worn.badge),
            Consumer::Silent => false,
        };
        if let Some(worn) = world.memory.as_ref().filter(calls_with) {
            may("the consumer calls", &|to| to.seen.called = Some(worn.clone()));
        }
        moves
    }

    fn timer(&self, _: &World<Self>, _: Timer) -> Option<Help> {
        match self.consumer {
            Consumer::Calls => Some(Help::Disturbs),
            Consumer::CallsWithOldOnly => Some(Help::Helps),
            Consumer::Silent => None,
        }
    }

    fn condition(&self, seen: &Observed, step: &Step) -> Option<Condition> {
        Some(match step {
            Step::Issue | Step::Revoke { .. } => Condition::List(seen.issued.clone()),
            Step::Hand { .. } => Condition::Consumer(seen.handed.clone()),
        })
    }

    fn applied(&self, _: &mut World<Self>, _: &Step) {}

    fn in_use(&self, seen: &Observed, former: Option<&Record>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        let worn = seen.handed.iter().chain(&seen.called);
        let record = former.into_iter();
        let badges = seen.issued.iter().chain(&seen.accepted).copied();
        (
            badges.chain(record.clone().filter_map(|record| record.new)).collect(),
            worn.filter_map(|worn| worn.mark.clone())
                .chain(record.filter_map(|record| record.mark.clone()))
                .collect(),
        )
    }

    fn unsafe_because(&self, world: &World<Self>) -> Option<String> {
        let accepted = &world.seen.accepted;
        let is_rejected = |worn: &Worn| !accepted.contains(&worn.badge);
        if world.memory.as_ref().is_none_or(is_rejected) {
            return Some("the issuer rejects the badge that the consumer uses".to_owned());
        }
        let is_wrong = match world.ended? {
            Direction::Forward | Direction::RollForward => accepted.contains(&old()),
            Direction::Rollback => !accepted.contains(&old()),
        };
        is_wrong.then(|| "the run ended in the wrong state".to_owned())
    }

    fn decide(&self, seen: &Observed, run: &Run<Badge>) -> Decision<Badge> {
        let decision = decide(seen, run);
        let badge = run.record.old;
        if self.retires_unproven && decision.phase == Phase::Prove && seen.issued.contains(&badge) {
            return Decision {
                phase: Phase::Retire,
                next: Next::step(Step::Revoke { badge }),
            };
        }
        decision
    }
}

fn explored(model: &Model) -> Explored {
    match explore(model, LIMIT) {
        Ok(explored) => explored,
        Err(counterexample) => panic!("{counterexample}"),
    }
}

#[test]
fn consumer_always_has_access() {
    for (late_holders, rollbacks) in [(0, 0), (1, 0), (0, 1), (1, 1), (2, 2)] {
        let explored = explored(&Model::with(late_holders, rollbacks));
        println!("{late_holders} late holders, {rollbacks} rollbacks: {explored}");
        assert!(explored.done > 0 && explored.rolled_back > 0, "{explored}");
    }
}

#[test]
fn consumer_that_cannot_use_the_new_badge_gets_the_old_one_back() {
    let model = Model {
        consumer: Consumer::CallsWithOldOnly,
        ..Model::with(1, 0)
    };
    let explored = explored(&model);
    println!("{explored}");
    assert!(explored.done == 0 && explored.rolled_back > 0, "{explored}");
}

#[test]
fn mutant_that_retires_before_it_proves_is_found_by_its_shortest_trace() {
    let mutant = Model {
        retires_unproven: true,
        ..Model::with(0, 0)
    };
    let found = explore(&mutant, LIMIT).unwrap_err();
    insta::assert_snapshot!(found, @"
    the issuer rejects the badge that the consumer uses
      1 begins
      2 make: intends issue a new badge
      3 sends: issue a new badge
      4 the issuer reads its list
      5 place: intends hand 0dcabf6371 to the consumer
      6 sends: hand 0dcabf6371 to the consumer
      7 retire: intends revoke cba06b5736
      8 sends: revoke cba06b5736
      9 the issuer reads its list
    ");
}

#[test]
fn state_from_which_no_end_can_be_reached_is_found() {
    let silent = Model {
        consumer: Consumer::Silent,
        ..Model::with(0, 0)
    };
    let found = explore(&silent, LIMIT).unwrap_err();
    assert_eq!(found.because, "no end can be reached from here");
}

#[test]
fn exploration_above_its_limit_proves_nothing() {
    let found = explore(&Model::with(1, 1), 10).unwrap_err();
    assert_eq!(found.because, "more than 10 states");
}
