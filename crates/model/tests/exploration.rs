//! The explorer walks the small rotation through everything that can happen to it, and finds a mistake that is put in.

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use engine::phase::Goal;
use engine::protocol::Protocol;
use model::{Counterexample, Environment, Explored, Help, Move, World, explore};

#[path = "../../engine/tests/pure/badge.rs"]
mod badge;

use self::badge::{Badge, Notes, Timer, View, Worn, Write};

const LIMIT: usize = 200_000;

fn old() -> Fingerprint {
    Fingerprint::of("old")
}

/// One issuer and one consumer.
struct Small<P> {
    former_holders: u8,
    rollbacks: u8,
    /// The consumer never manages to call with any badge but the old one.
    clumsy: bool,
    protocol: std::marker::PhantomData<P>,
}

impl<P> Small<P> {
    fn with(former_holders: u8, rollbacks: u8) -> Self {
        Self {
            former_holders,
            rollbacks,
            clumsy: false,
            protocol: std::marker::PhantomData,
        }
    }
}

/// What a write is conditional on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    List(BTreeSet<Fingerprint>),
    Consumer(Option<Worn>),
}

impl<P: Protocol<View = View, Notes = Notes, Write = Write, Timer = Timer>> Environment for Small<P> {
    type Protocol = P;
    /// What the consumer has loaded.
    type Memory = Option<Worn>;
    type Target = Target;

    fn starts(&self) -> Vec<World<Self>> {
        let worn = Worn {
            badge: old(),
            mark: None,
        };
        let view = View {
            issued: [old()].into(),
            accepted: [old()].into(),
            handed: Some(worn.clone()),
            called: Some(worn.clone()),
            closed: false,
        };
        vec![World::new(view, Some(worn)).with(self.former_holders, self.rollbacks)]
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
            to.view.accepted.clone_from(&to.view.issued);
        });
        may("the consumer loads its badge", &|to| {
            to.memory.clone_from(&to.view.handed);
        });
        let worn = world.memory.as_ref();
        let gets_through = |worn: &&Worn| world.view.accepted.contains(&worn.badge);
        if let Some(worn) = worn.filter(gets_through)
            && !(self.clumsy && worn.badge != old())
        {
            may("the consumer calls", &|to| to.view.called = Some(worn.clone()));
        }
        moves
    }

    fn timer(&self, _: &World<Self>, Timer::Proof: Timer) -> Option<Help> {
        Some(if self.clumsy { Help::Helps } else { Help::Disturbs })
    }

    fn target(&self, view: &View, write: &Write) -> Option<Target> {
        Some(match write {
            Write::Issue | Write::Revoke { .. } => Target::List(view.issued.clone()),
            Write::Hand { .. } => Target::Consumer(view.handed.clone()),
        })
    }

    fn written(&self, _: &mut World<Self>, _: &Write) {}

    fn timer_passed(&self, _: &mut World<Self>, _: Timer) {}

    fn in_use(&self, view: &View, former: Option<&Notes>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        let worn = view.handed.iter().chain(&view.called);
        let notes = former.into_iter();
        let badges = view.issued.iter().chain(&view.accepted).copied();
        (
            badges.chain(notes.clone().filter_map(|notes| notes.new)).collect(),
            worn.filter_map(|worn| worn.mark.clone())
                .chain(notes.filter_map(|notes| notes.mark.clone()))
                .collect(),
        )
    }

    fn unsafe_because(&self, world: &World<Self>) -> Option<String> {
        let locked_out = |worn: &Worn| !world.view.accepted.contains(&worn.badge);
        if world.memory.as_ref().is_none_or(locked_out) {
            return Some("the issuer refuses the badge that the consumer goes on with".to_owned());
        }
        let end = match world.ended? {
            Goal::Forward => world.view.accepted.contains(&old()),
            Goal::Back => !world.view.accepted.contains(&old()),
        };
        end.then(|| "it calls itself done and is not".to_owned())
    }
}

fn explored(small: &Small<Badge>) -> Explored {
    match explore(small, LIMIT) {
        Ok(explored) => explored,
        Err(counterexample) => panic!("{counterexample}"),
    }
}

#[test]
fn nothing_that_can_happen_locks_the_consumer_out() {
    for (former_holders, rollbacks) in [(0, 0), (1, 0), (0, 1), (1, 1), (2, 2)] {
        let explored = explored(&Small::with(former_holders, rollbacks));
        println!("{former_holders} former holders, {rollbacks} rollbacks: {explored}");
        assert!(explored.done > 0 && explored.undone > 0, "{explored}");
    }
}

#[test]
fn a_consumer_that_cannot_use_the_new_badge_gets_the_old_one_back() {
    let small = Small {
        clumsy: true,
        ..Small::with(1, 0)
    };
    let explored = explored(&small);
    assert!(explored.done == 0 && explored.undone > 0, "{explored}");
}

#[test]
fn retiring_before_proving_is_found_by_the_shortest_way_to_it() {
    let found: Counterexample = explore(&Small::<Badge<false>>::with(0, 0), LIMIT).unwrap_err();
    insta::assert_snapshot!(found, @"
    the issuer refuses the badge that the consumer goes on with
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
fn a_state_from_which_no_end_can_be_reached_is_found() {
    /// Nobody calls at all, and no timer runs out.
    struct Silent(Small<Badge>);
    type P = Badge;
    impl Environment for Silent {
        type Protocol = P;
        type Memory = Option<Worn>;
        type Target = Target;
        fn starts(&self) -> Vec<World<Self>> {
            let start = &self.0.starts()[0];
            vec![World::new(start.view.clone(), start.memory.clone())]
        }
        fn moves(&self, world: &World<Self>) -> Vec<Move<Self>> {
            let mut to = world.clone();
            to.view.accepted.clone_from(&to.view.issued);
            vec![Move {
                name: "the issuer reads its list".to_owned(),
                help: Help::Helps,
                to,
            }]
        }
        fn timer(&self, _: &World<Self>, _: Timer) -> Option<Help> {
            None
        }
        fn target(&self, view: &View, write: &Write) -> Option<Target> {
            self.0.target(view, write)
        }
        fn written(&self, _: &mut World<Self>, _: &Write) {}
        fn timer_passed(&self, _: &mut World<Self>, _: Timer) {}
        fn in_use(&self, view: &View, former: Option<&Notes>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
            self.0.in_use(view, former)
        }
        fn unsafe_because(&self, _: &World<Self>) -> Option<String> {
            None
        }
    }
    let found = explore(&Silent(Small::with(0, 0)), LIMIT).unwrap_err();
    assert!(found.because.starts_with("no end can be reached from"), "{found}");
}

#[test]
fn an_exploration_that_is_too_large_shows_nothing() {
    let found = explore(&Small::<Badge>::with(1, 1), 10).unwrap_err();
    assert_eq!(found.because, "more than 10 states");
}
