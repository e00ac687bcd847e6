//! Tests of the plan that `--dry-run` prints, of blockers, and of single steps that the model does not distinguish.

use client::secret::Fingerprint;
use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::phase::Phase;
use engine::plan::{Placeholder, plan};
use engine::rotation::{Next, Timer, decide};
use engine::run::RunId;
use kubectl_bootstrap_token::rotation::BootstrapToken;
use kubectl_bootstrap_token::rotation::observed::{Delivery, Id, Observed, TokenState};
use kubectl_bootstrap_token::rotation::record::{Origin, Record, TokenRef};
use kubectl_bootstrap_token::rotation::step::Step;

use crate::environment::{Run, To, holds, holds_neither, old, secret, start};

fn lines(seen: Observed, run: Option<Run>) -> String {
    plan(seen, run).map_or_else(|none| none.to_string(), |plan| plan.to_string())
}

fn next(seen: &Observed, run: &Run) -> Next<BootstrapToken> {
    decide(seen, run).next
}

fn new() -> TokenRef {
    TokenRef {
        id: Id("newnew".to_owned()),
        value: Fingerprint::of("new"),
    }
}

/// A run in this phase, with a valid new token.
fn in_progress(seen: &mut Observed, direction: Direction, phase: Phase) -> Run {
    let mut made = secret(new().value);
    made.mark = Some(Direction::Forward);
    seen.new = TokenState {
        secret: Some(made),
        acceptance: Acceptance::Accepted,
        signed: seen.old.signed,
        ..TokenState::default()
    };
    let record = Record {
        old: old(),
        new: Some(new()),
        place: seen.place.clone(),
        abandoned: None,
        delivered: phase >= Phase::Place,
        last_delivered: None,
    };
    Run {
        direction,
        phase,
        ..Run::begin(RunId::placeholder(), record)
    }
}

fn holds_new() -> Delivery {
    holds(new(), Acceptance::Accepted)
}

fn set_old(seen: &mut Observed, validity: Validity) {
    if let Some(secret) = &mut seen.old.secret {
        secret.validity = validity;
    }
}

#[test]
fn a_rotation_is_planned_from_its_first_step_to_its_last() {
    insta::assert_snapshot!(lines(start(To::Secret, true), None), @"
    make    create a new bootstrap token like oldold
    make    wait for the API server to accept <new>
    place   deliver bootstrap token <new> to secret:kube-system/join/token
    prove   wait for nodes that have read oldold to join (--overlap)
    retire  revoke bootstrap token oldold: delete its Secret
    confirm wait for the API server to reject oldold
    ");
}

#[test]
fn without_a_delivery_nothing_is_delivered() {
    insta::assert_snapshot!(lines(start(To::Nothing, false), None), @"
    make    create a new bootstrap token like oldold
    make    wait for the API server to accept <new>
    prove   wait for nodes that have read oldold to join (--overlap)
    retire  revoke bootstrap token oldold: delete its Secret
    confirm wait for the API server to reject oldold
    ");
}

#[test]
fn a_rollback_is_planned_from_the_present_state() {
    let mut seen = start(To::Secret, false);
    let run = in_progress(&mut seen, Direction::Rollback, Phase::Prove);
    seen.delivery = holds_new();
    insta::assert_snapshot!(lines(seen, Some(run)), @"
    place   deliver bootstrap token oldold to secret:kube-system/join/token
    prove   wait for nodes that have read newnew to join (--overlap)
    retire  revoke bootstrap token newnew: delete its Secret
    confirm wait for the API server to reject newnew
    ");
}

#[test]
fn a_rollback_of_what_was_never_delivered_only_revokes() {
    let mut seen = start(To::Secret, false);
    let run = in_progress(&mut seen, Direction::Rollback, Phase::Make);
    insta::assert_snapshot!(lines(seen, Some(run)), @"
    retire  revoke bootstrap token newnew: delete its Secret
    confirm wait for the API server to reject newnew
    ");
}

#[test]
fn a_rollback_to_a_token_that_expires_rolls_forward() {
    let mut seen = start(To::Secret, false);
    let run = in_progress(&mut seen, Direction::Rollback, Phase::Make);
    set_old(&mut seen, Validity::Expiring);
    let Next::Turn { to, reason } = next(&seen, &run) else {
        panic!("it does not turn");
    };
    assert_eq!(to, Direction::RollForward);
    assert_eq!(reason, "bootstrap token oldold is gone or expires within five minutes");
    insta::assert_snapshot!(lines(seen, Some(run)), @"
    make    fence bootstrap token newnew against late writes
    place   deliver bootstrap token newnew to secret:kube-system/join/token
    ");
}

#[test]
fn a_new_token_that_the_delivery_names_is_created_again_where_no_rollback_is_possible() {
    let mut seen = start(To::Secret, false);
    let run = in_progress(&mut seen, Direction::Rollback, Phase::Place);
    set_old(&mut seen, Validity::Expiring);
    (seen.new.secret, seen.delivery) = (None, holds(new(), Acceptance::Rejected));
    assert_eq!(
        lines(seen, Some(run)).lines().next(),
        Some("make    create bootstrap token newnew like oldold")
    );
}

#[test]
fn in_a_rollback_the_old_token_is_not_delivered_before_it_is_accepted() {
    let mut seen = start(To::Secret, false);
    let run = in_progress(&mut seen, Direction::Rollback, Phase::Place);
    (seen.delivery, seen.old.acceptance) = (holds_new(), Acceptance::Unknown(String::new()));
    let decision = decide(&seen, &run);
    assert!(matches!(decision.next, Next::Wait(_)) && decision.phase == Phase::Make);
}

#[test]
fn a_new_token_that_is_created_again_has_to_be_proven_anew() {
    let mut seen = start(To::Nothing, false);
    let run = in_progress(&mut seen, Direction::Forward, Phase::Prove);
    seen.new.secret = None;
    let Next::Step(intent) = next(&seen, &run) else {
        panic!("it is not created");
    };
    assert_eq!((intent.starts, intent.stops), (vec![Timer::Proof], vec![Timer::Quiet]));
}

/// Another token has the id that is journaled for the new one, and the delivery holds it.
#[test]
fn a_foreign_token_with_the_new_id_is_not_overwritten() {
    let mut seen = start(To::Secret, false);
    let run = in_progress(&mut seen, Direction::Rollback, Phase::Place);
    let foreign = TokenRef {
        value: Fingerprint::of("foreign"),
        ..new()
    };
    seen.new.secret = Some(secret(foreign.value));
    seen.delivery = holds(foreign, Acceptance::Accepted);
    assert_eq!(next(&seen, &run), Next::Done);
}

#[test]
fn a_value_that_is_neither_is_not_overwritten() {
    let mut seen = start(To::Secret, false);
    seen.delivery = holds_neither();
    insta::assert_snapshot!(lines(seen.clone(), None), @"refused: secret:kube-system/join/token does not hold bootstrap token oldold; rotate without --deliver: only the token that is rotated is overwritten");
    let run = in_progress(&mut seen, Direction::Forward, Phase::Make);
    insta::assert_snapshot!(lines(seen.clone(), Some(run)), @"refused: another writer has changed secret:kube-system/join/token: it holds neither oldold nor newnew; write oldold there and run the same command again; or `rollback`, which leaves it as it is");
    let mut without_old = seen.clone();
    without_old.old.secret = None;
    let run = in_progress(&mut without_old, Direction::Forward, Phase::Make);
    assert!(
        matches!(next(&without_old, &run), Next::Refuse(_)),
        "everything can be undone"
    );
    let run = in_progress(&mut seen, Direction::Forward, Phase::Retire);
    set_old(&mut seen, Validity::Expiring);
    insta::assert_snapshot!(lines(seen.clone(), Some(run)), @"refused: another writer has changed secret:kube-system/join/token: it holds neither oldold nor newnew; write newnew there and run the same command again; or revoke oldold, and run the same command again");
    let mut run = in_progress(&mut seen, Direction::Forward, Phase::Retire);
    run.timers.insert(Timer::Cache, true);
    seen.old.secret = None;
    seen.old.acceptance = Acceptance::NotAsked;
    assert_eq!(next(&seen, &run), Next::Done, "nothing depends on it");
}

#[test]
fn a_file_is_resumed_on_its_host_only() {
    let mut seen = start(To::File, false);
    let run = in_progress(&mut seen, Direction::Forward, Phase::Place);
    seen.delivery = Delivery::OtherHost;
    insta::assert_snapshot!(lines(seen, Some(run)), @"refused: file:/etc/kubernetes/bootstrap-kubelet.conf is on host-1, not here; run the same command on host-1; if that host is lost for good, add --force=target: the file stays as it is, and nodes that read it may find a revoked token");
}

/// The plan for a token in a file on a lost host.
fn lost(direction: Direction, phase: Phase) -> String {
    let mut seen = start(To::File, false);
    let run = in_progress(&mut seen, direction, phase);
    (seen.delivery, seen.lost) = (Delivery::OtherHost, true);
    lines(seen, Some(run))
}

#[test]
fn the_plan_of_an_abandoned_file_names_the_nodes_that_are_rejected() {
    insta::assert_snapshot!(lost(Direction::Forward, Phase::Prove), @"
    prove   abandon file:/etc/kubernetes/bootstrap-kubelet.conf on host-1: nodes that read oldold there will be rejected
    prove   wait for nodes that have read oldold to join (--overlap)
    retire  revoke bootstrap token oldold: delete its Secret
    confirm wait for the API server to reject oldold
    ");
    insta::assert_snapshot!(lost(Direction::Rollback, Phase::Prove), @"
    prove   abandon file:/etc/kubernetes/bootstrap-kubelet.conf on host-1: nodes that read newnew there will be rejected
    prove   wait for nodes that have read newnew to join (--overlap)
    retire  revoke bootstrap token newnew: delete its Secret
    confirm wait for the API server to reject newnew
    ");
    insta::assert_snapshot!(lost(Direction::Rollback, Phase::Make), @"
    make    abandon file:/etc/kubernetes/bootstrap-kubelet.conf on host-1: it holds the token that stays valid
    retire  revoke bootstrap token newnew: delete its Secret
    confirm wait for the API server to reject newnew
    ");
}

#[test]
fn a_file_on_this_host_is_not_abandoned_whatever_is_forced() {
    let mut seen = start(To::File, false);
    let run = in_progress(&mut seen, Direction::Forward, Phase::Place);
    seen.lost = true;
    assert!(matches!(next(&seen, &run), Next::Step(intent) if matches!(intent.step, Step::Deliver { .. })));
}

#[test]
fn a_run_delivers_to_one_place_only() {
    let mut seen = start(To::Secret, false);
    let mut run = in_progress(&mut seen, Direction::Forward, Phase::Place);
    seen.place = start(To::File, false).place;
    insta::assert_snapshot!(lines(seen.clone(), Some(run.clone())), @"refused: the rotation in progress delivers to secret:kube-system/join/token, not to file:/etc/kubernetes/bootstrap-kubelet.conf on host-1; run the same command without --deliver");
    run.record.place = None;
    insta::assert_snapshot!(lines(seen, Some(run)), @"refused: the rotation in progress delivers nothing, not to file:/etc/kubernetes/bootstrap-kubelet.conf on host-1; run the same command without --deliver");
}

#[test]
fn unsafe_rotations_are_refused() {
    let changes: [fn(&mut Observed); 7] = [
        |seen| seen.old.secret = None,
        |seen| seen.old.secret.as_mut().unwrap().value = None,
        |seen| set_old(seen, Validity::Invalid),
        |seen| seen.old.acceptance = Acceptance::Rejected,
        |seen| seen.delivery = Delivery::Missing,
        |seen| seen.delivery = Delivery::OtherHost,
        |seen| seen.delivery = holds_new(),
    ];
    let refused = changes.map(|change| {
        let mut seen = start(To::Secret, false);
        change(&mut seen);
        lines(seen, None)
    });
    insta::assert_snapshot!(refused.join("\n"), @"
    refused: bootstrap token oldold not found; check the id: `list` shows all tokens
    refused: the Secret of bootstrap token oldold holds no value of a token; revoke it, and create a new one with `create`
    refused: bootstrap token oldold is not valid: it has expired, or breaks a rule; create a new one with `create`
    refused: the API server rejects bootstrap token oldold, although its Secret is valid; run the API server with `--enable-bootstrap-token-auth`
    refused: secret:kube-system/join/token not found; create it with the present token, or rotate without --deliver
    refused: secret:kube-system/join/token is on the host where the rotation began, not here; run the same command on the host where the rotation began
    refused: secret:kube-system/join/token holds bootstrap token newnew, not oldold; rotate newnew instead, write oldold there, or rotate without --deliver
    ");
}

#[test]
fn changes_by_another_writer_are_repaired_before_the_old_token_is_revoked() {
    let mut seen = start(To::Secret, false);
    let run = in_progress(&mut seen, Direction::Forward, Phase::Prove);
    seen.delivery = holds(old(), Acceptance::Accepted);
    seen.new.secret.as_mut().unwrap().validity = Validity::Invalid;
    seen.new.acceptance = Acceptance::Rejected;
    insta::assert_snapshot!(lines(seen, Some(run)), @"
    make    repair bootstrap token newnew: usages, groups and expiry
    make    wait for the API server to accept newnew
    place   deliver bootstrap token newnew to secret:kube-system/join/token
    prove   wait for nodes that have read oldold to join (--overlap)
    retire  revoke bootstrap token oldold: delete its Secret
    confirm wait for the API server to reject oldold
    ");
}

#[test]
fn an_overdue_proof_starts_a_rollback_while_that_is_possible() {
    let mut seen = start(To::Secret, false);
    let mut run = in_progress(&mut seen, Direction::Forward, Phase::Place);
    seen.new.acceptance = Acceptance::Unknown(String::new());
    run.timers.insert(Timer::Proof, true);
    let waits = |seen: &Observed, run: &Run| matches!(next(seen, run), Next::Wait(_));
    let overdue = next(&seen, &run);
    assert!(matches!(
        overdue,
        Next::Turn {
            to: Direction::Rollback,
            ..
        }
    ));
    set_old(&mut seen, Validity::Expiring);
    assert!(waits(&seen, &run), "O expires");
    set_old(&mut seen, Validity::Valid);
    run.timers.insert(Timer::Quiet, false);
    assert!(waits(&seen, &run), "N was proven before");
    run.timers.remove(&Timer::Quiet);
    run.phase = Phase::Retire;
    assert!(waits(&seen, &run), "it is too late");
}

/// A rotation that would delete the old token next.
fn ready(signing: bool) -> (Observed, Run) {
    let mut seen = start(To::Secret, signing);
    let mut run = in_progress(&mut seen, Direction::Forward, Phase::Prove);
    seen.delivery = holds_new();
    run.timers.insert(Timer::Quiet, true);
    assert_eq!(decide(&seen, &run).phase, Phase::Retire);
    (seen, run)
}

#[test]
fn a_delivered_token_must_be_accepted_as_it_is_read() {
    let (mut seen, run) = ready(false);
    seen.delivery = holds(new(), Acceptance::Rejected);
    let decision = decide(&seen, &run);
    assert!(matches!(decision.next, Next::Wait(_)) && decision.phase == Phase::Prove);
}

#[test]
fn a_signature_is_waited_for_but_not_by_a_delivery_that_names_a_former_token() {
    let (mut seen, run) = ready(true);
    seen.new.signed = false;
    assert!(matches!(next(&seen, &run), Next::Wait(_)));
    let mut expired = seen.clone();
    set_old(&mut expired, Validity::Invalid);
    assert_eq!(
        decide(&expired, &run).phase,
        Phase::Retire,
        "O's signature is an old one"
    );
    seen.new.secret.as_mut().unwrap().value = Some(Fingerprint::of("created again"));
    assert!(matches!(next(&seen, &run), Next::Step(intent) if matches!(intent.step, Step::Deliver { .. })));
}

#[test]
fn a_revoked_token_that_is_created_again_restarts_the_cache_timer() {
    let (mut seen, mut run) = ready(false);
    let timer = |seen: &Observed, run: &mut Run| {
        run.advance(seen, &decide(seen, run), &mut Placeholder);
        run.timers.get(&Timer::Cache).copied()
    };
    let revoked = std::mem::take(&mut seen.old.secret);
    assert_eq!(timer(&seen, &mut run), Some(false));
    run.timers.insert(Timer::Cache, true);
    assert_eq!(timer(&seen, &mut run), Some(true));
    seen.old.secret = revoked;
    assert_eq!(timer(&seen, &mut run), None);
}

/// A run that is resumed from a journal with N, and N's Secret with this mark and origin.
fn resumed(direction: Direction, mark: Option<Direction>, replaces: Option<TokenRef>) -> Option<Run> {
    let mut seen = start(To::Secret, false);
    let run = in_progress(&mut seen, direction, Phase::Place);
    if let Some(secret) = &mut seen.new.secret {
        secret.mark = mark;
        secret.origin = replaces.map(|old| Origin { old, place: None });
    }
    seen.delivery = holds_new();
    if let Delivery::Holds { mark, .. } = &mut seen.delivery {
        *mark = Some(direction);
    }
    run.resumed(&seen)
}

#[test]
fn a_resumed_run_recognizes_the_new_token_by_mark_and_origin() {
    let forward = Direction::Forward;
    let known = |run: Option<Run>| run.and_then(|run| run.record.new);
    assert_eq!(known(resumed(forward, Some(forward), Some(old()))), Some(new()));
    assert_eq!(resumed(forward, None, Some(old())), None, "it has no mark of this run");
    assert_eq!(
        resumed(forward, Some(forward), Some(new())),
        None,
        "it replaces another token"
    );
    assert_eq!(
        resumed(forward, Some(forward), None),
        None,
        "no rotation has created it"
    );
    let back = Direction::Rollback;
    assert_eq!(known(resumed(back, Some(back), Some(old()))), Some(new()));
    assert_eq!(
        known(resumed(back, None, Some(old()))),
        None,
        "a foreign token is not revoked"
    );
}

#[test]
fn a_resumed_run_rolls_forward_only_if_the_new_token_is_marked_so() {
    let [forward, back, on] = Direction::ALL;
    for (claimed, mark, expected) in [
        (forward, forward, forward),
        (forward, on, forward),
        (back, forward, back),
        (back, on, on),
        (on, back, back),
        (on, on, on),
    ] {
        let run = resumed(claimed, Some(mark), Some(old())).unwrap();
        assert_eq!(run.direction, expected, "{claimed}, marked {mark}");
    }
}

#[test]
fn the_journal_is_short_and_holds_no_secret() {
    let mut seen = start(To::File, false);
    let run = in_progress(&mut seen, Direction::Forward, Phase::Make);
    let text = serde_json::to_string(&run.record).unwrap();
    insta::assert_snapshot!(text, @r#"{"old":{"id":"oldold","value":"cba06b5736"},"new":{"id":"newnew","value":"11507a0e2f"},"place":{"at":"file:/etc/kubernetes/bootstrap-kubelet.conf","host":"host-1"},"delivered":false}"#);
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), run.record);
}
