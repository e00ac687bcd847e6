//! A sketch of the next rotation, to test the trait on it: here the dangerous steps come before *retire*, one step is a round
//! over several servers, and it cannot be conditional.

mod dangerous;
mod environment;
mod rotation;

use client::secret::Fingerprint;
use engine::plan::{NoPlan, Placeholder, plan};
use model::{Explored, explore};

use crate::environment::{Model, Mutant, observed, old};
use crate::rotation::ServerToken;

const LIMIT: usize = 2_000_000;

fn model(restarts: u8, late_holders: u8, rollbacks: u8) -> Model {
    Model {
        servers: 3,
        restarts,
        late_holders,
        rollbacks,
        mutant: None,
    }
}

fn explored(model: &Model) -> Explored {
    match explore(model, LIMIT) {
        Ok(explored) => explored,
        Err(counterexample) => panic!("{counterexample}"),
    }
}

#[test]
fn plan_sets_the_password_everywhere_and_restarts_one_server_at_a_time() {
    let plan = plan::<ServerToken>(observed(3), None).unwrap();
    let named = [(old(), "<old>"), (Placeholder::fingerprint(), "<new>")];
    let lines = named.iter().fold(plan.to_string(), |lines, (value, name)| {
        lines.replace(&value.to_string(), name)
    });
    insta::assert_snapshot!(lines, @"
    make    create a new password, and back up both in a Secret
    place   wait for writes in flight to arrive
    place   take an etcd snapshot on every server
    place   set <new> on s1, s2, s3
    prove   restart server s3
    prove   wait for server s3 to be ready
    prove   restart server s2
    prove   wait for server s2 to be ready
    prove   restart server s1
    prove   wait for server s1 to be ready
    retire  delete <old> from the backup Secret
    confirm take an etcd snapshot on every server
    ");
}

#[test]
fn survey_refuses_a_server_that_would_not_load_its_files() {
    let mut seen = observed(3);
    seen.servers[1].is_pinned = true;
    seen.servers[2].live = rotation::Live::Accepts(Fingerprint::of("another"));
    let Err(NoPlan::Refused(blockers)) = plan::<ServerToken>(seen, None) else {
        panic!("a plan of a rotation that would be refused")
    };
    assert_eq!(blockers.len(), 2, "{blockers:?}");
}

#[test]
fn next_start_of_every_server_succeeds_outside_a_round() {
    for (restarts, late_holders, rollbacks) in [(0, 0, 0), (1, 0, 1), (0, 2, 1), (1, 1, 1)] {
        let explored = explored(&model(restarts, late_holders, rollbacks));
        println!("{restarts} restarts, {late_holders} late holders, {rollbacks} rollbacks: {explored}");
        assert!(explored.done > 0 && explored.rolled_back > 0, "{explored}");
    }
}

#[test]
fn mutants_are_found() {
    let mutants = [
        (Mutant::RestartsTwo, "two servers are restarted at once"),
        (Mutant::DoesNotWait, "the next start of s"),
        (Mutant::TrustsFormerRound, "the next start of s"),
        (
            Mutant::RestartsBeforeRound,
            "a server is restarted that does not start again",
        ),
        (Mutant::SetsOnAll, "the next start of s"),
    ];
    for (mutant, because) in mutants {
        let model = Model {
            mutant: Some(mutant),
            ..model(1, 1, 1)
        };
        let found = explore(&model, LIMIT).unwrap_err();
        println!("{mutant:?}: {found}");
        assert!(found.because.starts_with(because), "{mutant:?}: {found}");
    }
}
