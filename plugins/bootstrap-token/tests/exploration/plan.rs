//! The plan that `--dry-run` prints, which is `decide` folded over its own predictions; what is refused; and single steps that
//! the small world does not tell apart.

use client::secret::Fingerprint;
use engine::phase::{Goal, Phase};
use engine::plan::plan;
use engine::protocol::{Next, Run, RunId};
use kubectl_bootstrap_token::rotation::view::{
    Answer, Held, Id, Known, Leg, Notes, Side, Standing, Target, Token, View,
};
use kubectl_bootstrap_token::rotation::write::Write;
use kubectl_bootstrap_token::rotation::{BootstrapToken, Timer, decide};

use crate::world::{To, holds_old, old, old_id, start};

fn lines(view: View, run: Option<Run<BootstrapToken>>) -> String {
    plan(view, run).map_or_else(|none| none.to_string(), |plan| plan.to_string())
}

/// A run that has come this far, with a new token that works.
fn under_way(view: &mut View, goal: Goal, phase: Phase) -> Run<BootstrapToken> {
    let new = Known {
        id: Id("newnew".to_owned()),
        value: Fingerprint::of("new"),
    };
    view.new = Side {
        token: Some(Token {
            value: Some(new.value),
            standing: Standing::Sound,
            mark: Some(Leg::Forward),
            record: None,
        }),
        answer: Answer::Accepted,
        signed: view.old.signed,
        ..Side::default()
    };
    let (id, value) = (old_id(), old());
    let notes = Notes {
        old: Known { id, value },
        new: Some(new),
        place: view.place.clone(),
        left: None,
        delivered: phase >= Phase::Place,
        placed: None,
        kept: false,
    };
    Run {
        id: RunId::placeholder(),
        goal,
        phase,
        notes,
        timers: [].into(),
        put_back: 0,
    }
}

fn holds_new() -> Target {
    Target::Holds {
        held: Held {
            id: Some(Id("newnew".to_owned())),
            value: Fingerprint::of("new"),
        },
        leg: None,
        answer: Answer::Accepted,
        writer: None,
    }
}

fn holds_neither() -> Target {
    Target::Holds {
        held: Held {
            id: None,
            value: Fingerprint::of("a stranger's"),
        },
        leg: None,
        answer: Answer::Refused,
        writer: None,
    }
}

#[test]
fn a_rotation_is_planned_from_its_first_step_to_its_last() {
    insta::assert_snapshot!(lines(start(To::Secret, true), None), @"
    make    create a new bootstrap token like oldold
    make    wait for the API server to accept <new>
    place   deliver bootstrap token <new> to secret:kube-system/join/token
    prove   wait for whoever has read oldold to use it (--overlap)
    retire  revoke bootstrap token oldold: delete its Secret
    confirm wait for the API server to refuse oldold
    ");
}

#[test]
fn without_a_target_nothing_is_delivered() {
    insta::assert_snapshot!(lines(start(To::Nothing, false), None), @"
    make    create a new bootstrap token like oldold
    make    wait for the API server to accept <new>
    prove   wait for whoever has read oldold to use it (--overlap)
    retire  revoke bootstrap token oldold: delete its Secret
    confirm wait for the API server to refuse oldold
    ");
}

#[test]
fn a_rollback_is_planned_from_where_the_rotation_stands() {
    let mut view = start(To::Secret, false);
    let run = under_way(&mut view, Goal::Back, Phase::Prove);
    view.target = holds_new();
    insta::assert_snapshot!(lines(view, Some(run)), @"
    place   deliver bootstrap token oldold to secret:kube-system/join/token
    prove   wait for whoever has read newnew to use it (--overlap)
    retire  revoke bootstrap token newnew: delete its Secret
    confirm wait for the API server to refuse newnew
    ");
}

#[test]
fn a_rollback_of_what_was_never_delivered_only_revokes() {
    let mut view = start(To::Secret, false);
    let run = under_way(&mut view, Goal::Back, Phase::Make);
    insta::assert_snapshot!(lines(view, Some(run)), @"
    retire  revoke bootstrap token newnew: delete its Secret
    confirm wait for the API server to refuse newnew
    ");
}

#[test]
fn a_rollback_to_a_token_that_expires_keeps_the_new_one() {
    let mut view = start(To::Secret, false);
    let run = under_way(&mut view, Goal::Back, Phase::Make);
    view.old.token.as_mut().unwrap().standing = Standing::Ending;
    insta::assert_snapshot!(lines(view, Some(run)), @"
    make    keep bootstrap token newnew: oldold is gone or about to expire, there is no way back to it
    make    mark bootstrap token newnew, so that no late write fits it
    place   deliver bootstrap token newnew to secret:kube-system/join/token
    ");
}

#[test]
fn a_value_that_is_neither_is_left_where_it_is() {
    let mut view = start(To::Secret, false);
    view.target = holds_neither();
    insta::assert_snapshot!(lines(view.clone(), None), @"refused: secret:kube-system/join/token does not hold bootstrap token oldold; nothing is overwritten that is not the token which is rotated: leave --deliver out");
    let run = under_way(&mut view, Goal::Forward, Phase::Make);
    insta::assert_snapshot!(lines(view.clone(), Some(run)), @"refused: secret:kube-system/join/token was changed by somebody else: it holds neither oldold nor newnew; write oldold there and run the same command again; or `kubectl bootstrap-token rollback`, which leaves it as it is");
    let run = under_way(&mut view, Goal::Forward, Phase::Retire);
    view.old.token.as_mut().unwrap().standing = Standing::Ending;
    insta::assert_snapshot!(lines(view.clone(), Some(run)), @"refused: secret:kube-system/join/token was changed by somebody else: it holds neither oldold nor newnew; write newnew there and run the same command again; or revoke oldold, and run the same command again");
    let run = under_way(&mut view, Goal::Forward, Phase::Retire);
    view.old.token = None;
    view.old.answer = Answer::Unasked;
    assert_eq!(decide(&view, Some(&run)), Next::Done, "nothing depends on it any more");
}

#[test]
fn a_file_is_gone_on_with_on_its_host_only() {
    let mut view = start(To::File, false);
    let run = under_way(&mut view, Goal::Forward, Phase::Place);
    view.target = Target::Unreachable;
    insta::assert_snapshot!(lines(view, Some(run)), @"refused: file:/etc/kubernetes/bootstrap-kubelet.conf is on host-1, not here; run the same command on host-1; or, if that host is lost for good, add --force=target: the file stays as it is, and whoever reads it may find a token that is revoked");
}

/// A rotation of a token in a file that cannot be seen from here, and that the user has given up.
fn lost(goal: Goal, phase: Phase) -> (View, Run<BootstrapToken>) {
    let mut view = start(To::File, false);
    let run = under_way(&mut view, goal, phase);
    (view.target, view.lost) = (Target::Unreachable, true);
    (view, run)
}

#[test]
fn a_file_on_a_host_that_is_lost_is_left_behind_and_the_plan_says_who_is_refused_there() {
    let (view, run) = lost(Goal::Forward, Phase::Prove);
    insta::assert_snapshot!(lines(view, Some(run)), @"
    prove   leave file:/etc/kubernetes/bootstrap-kubelet.conf on host-1 behind: whoever reads it there and finds oldold will be refused
    prove   wait for whoever has read oldold to use it (--overlap)
    retire  revoke bootstrap token oldold: delete its Secret
    confirm wait for the API server to refuse oldold
    ");
    let (view, run) = lost(Goal::Back, Phase::Prove);
    insta::assert_snapshot!(lines(view, Some(run)), @"
    prove   leave file:/etc/kubernetes/bootstrap-kubelet.conf on host-1 behind: whoever reads it there and finds newnew will be refused
    prove   wait for whoever has read newnew to use it (--overlap)
    retire  revoke bootstrap token newnew: delete its Secret
    confirm wait for the API server to refuse newnew
    ");
    let (view, run) = lost(Goal::Back, Phase::Make);
    insta::assert_snapshot!(lines(view, Some(run)), @"
    make    leave file:/etc/kubernetes/bootstrap-kubelet.conf on host-1 behind: whoever reads it there finds the token that stays
    retire  revoke bootstrap token newnew: delete its Secret
    confirm wait for the API server to refuse newnew
    ");
}

#[test]
fn a_target_that_is_here_is_not_left_behind_whatever_was_said() {
    let mut view = start(To::File, false);
    let run = under_way(&mut view, Goal::Forward, Phase::Place);
    view.lost = true;
    let next = decide(&view, Some(&run));
    assert!(matches!(next, Next::Do(step) if matches!(step.write, Write::Deliver { .. })));
}

#[test]
fn what_cannot_be_rotated_is_refused() {
    let refused = |change: fn(&mut View)| {
        let mut view = start(To::Secret, false);
        change(&mut view);
        lines(view, None)
    };
    let said = [
        refused(|view| view.old.token = None),
        refused(|view| view.old.token.as_mut().unwrap().value = None),
        refused(|view| view.old.token.as_mut().unwrap().standing = Standing::Dead),
        refused(|view| view.old.answer = Answer::Refused),
        refused(|view| view.target = Target::Missing),
        refused(|view| view.target = Target::Unreachable),
        refused(|view| view.target = holds_new()),
    ];
    insta::assert_snapshot!(said.join("\n"), @"
    refused: there is no bootstrap token oldold; `kubectl bootstrap-token list` shows those that there are
    refused: the Secret of bootstrap token oldold holds no value of a token; revoke it, and make a new one with `kubectl bootstrap-token create`
    refused: bootstrap token oldold cannot work: it has expired, or breaks a rule; make a new one with `kubectl bootstrap-token create`
    refused: the API server does not accept bootstrap token oldold, against which nothing speaks; it must run with `--enable-bootstrap-token-auth`
    refused: secret:kube-system/join/token is not there; make it with the present token first, or rotate without --deliver
    refused: secret:kube-system/join/token is on the host where the rotation began, not here; run the same command on the host where the rotation began
    refused: secret:kube-system/join/token holds bootstrap token newnew, not oldold; rotate newnew instead, write oldold there, or leave --deliver out
    ");
}

#[test]
fn what_somebody_changed_is_put_right_before_the_old_one_goes() {
    let mut view = start(To::Secret, false);
    let run = under_way(&mut view, Goal::Forward, Phase::Prove);
    view.target = holds_old();
    view.new.token.as_mut().unwrap().standing = Standing::Dead;
    view.new.answer = Answer::Refused;
    insta::assert_snapshot!(lines(view, Some(run)), @"
    make    put bootstrap token newnew right: usages, groups and time to live
    make    wait for the API server to accept newnew
    place   deliver bootstrap token newnew to secret:kube-system/join/token
    prove   wait for whoever has read oldold to use it (--overlap)
    retire  revoke bootstrap token oldold: delete its Secret
    confirm wait for the API server to refuse oldold
    ");
}

/// A rotation that waits for its new token, and is overdue.
fn overdue(view: &mut View) -> Run<BootstrapToken> {
    let mut run = under_way(view, Goal::Forward, Phase::Place);
    view.new.answer = Answer::Mixed;
    run.timers.insert(Timer::Proof, true);
    run
}

#[test]
fn an_overdue_proof_turns_back_while_there_is_something_to_go_back_to() {
    let mut view = start(To::Secret, false);
    let mut run = overdue(&mut view);
    assert!(matches!(decide(&view, Some(&run)), Next::TurnBack(_)));
    view.old.token.as_mut().unwrap().standing = Standing::Ending;
    assert!(matches!(decide(&view, Some(&run)), Next::Wait(_)), "O is dying");
    view = start(To::Secret, false);
    run = overdue(&mut view);
    run.timers.insert(Timer::Overlap, false);
    assert!(
        matches!(decide(&view, Some(&run)), Next::Wait(_)),
        "N was proven before"
    );
    run.timers.remove(&Timer::Overlap);
    run.phase = Phase::Retire;
    assert!(
        matches!(decide(&view, Some(&run)), Next::Wait(_)),
        "there is only forward"
    );
}

/// A rotation that would delete the old token next.
fn ready(signing: bool) -> (View, Run<BootstrapToken>) {
    let mut view = start(To::Secret, signing);
    let mut run = under_way(&mut view, Goal::Forward, Phase::Prove);
    view.target = holds_new();
    run.timers.insert(Timer::Overlap, true);
    assert!(matches!(decide(&view, Some(&run)), Next::Do(step) if step.phase == Phase::Retire));
    (view, run)
}

#[test]
fn what_was_delivered_must_be_accepted_as_it_is_read() {
    let (mut view, run) = ready(false);
    let Target::Holds { answer, .. } = &mut view.target else {
        panic!("nothing was delivered");
    };
    *answer = Answer::Refused;
    assert!(matches!(decide(&view, Some(&run)), Next::Wait(wait) if wait.phase == Phase::Prove));
}

#[test]
fn a_signature_is_waited_for_but_not_by_a_target_that_names_a_dead_token() {
    let (mut view, run) = ready(true);
    view.new.signed = false;
    assert!(matches!(decide(&view, Some(&run)), Next::Wait(_)));
    view.new.token.as_mut().unwrap().value = Some(Fingerprint::of("made again"));
    let next = decide(&view, Some(&run));
    assert!(matches!(next, Next::Do(step) if matches!(step.write, Write::Deliver { .. })));
}

#[test]
fn the_journal_is_short_and_holds_no_secret() {
    let mut view = start(To::File, false);
    let run = under_way(&mut view, Goal::Forward, Phase::Make);
    let text = serde_json::to_string(&run.notes).unwrap();
    insta::assert_snapshot!(text, @r#"{"old":{"id":"oldold","value":"cba06b5736"},"new":{"id":"newnew","value":"11507a0e2f"},"place":{"at":"file:/etc/kubernetes/bootstrap-kubelet.conf","host":"host-1"},"delivered":false,"kept":false}"#);
    assert_eq!(serde_json::from_str::<Notes>(&text).unwrap(), run.notes);
}
