//! The plan that `--dry-run` prints, which is `decide` folded over its own predictions; what is refused; and single steps that
//! the small world does not tell apart.

use client::secret::Fingerprint;
use engine::phase::{Goal, Phase};
use engine::plan::plan;
use engine::protocol::{Next, Obstacle, Protocol as _, Repeats, Run, RunId};
use kubectl_argocd_rancher::rotation::view::{
    Answer, Consumer, Leg, Life, Mark, Minted, Name, Notes, Parked, Target, View, Writer,
};
use kubectl_argocd_rancher::rotation::write::{Which, Write};
use kubectl_argocd_rancher::rotation::{ArgocdRancher, Timer, decide};

use crate::world::{known, old, start, stranger};

fn lines(view: View, run: Option<Run<ArgocdRancher>>) -> String {
    plan(view, run).map_or_else(|none| none.to_string(), |plan| plan.to_string())
}

fn new() -> Fingerprint {
    Fingerprint::of("<new 1>")
}

fn holds(value: Fingerprint) -> Target {
    Target::Holds {
        held: Some(known(value)),
        mark: None,
        writer: Writer::Ours,
    }
}

/// A run that has come this far, with a new token that is let in.
fn under_way(view: &mut View, goal: Goal, phase: Phase) -> Run<ArgocdRancher> {
    let Next::Begin(mut notes) = decide(view, None) else {
        panic!("nothing stands in the way");
    };
    let minted = Minted {
        life: Life::Sound,
        value: Some(new()),
        replaces: known(old()).name,
        used: Some("by us".to_owned()),
    };
    let name = Name("<new 1>".to_owned());
    view.minted.insert(name.clone(), minted);
    view.parked = Some(Parked {
        old: Some(known(old())),
        new: Some(known(new())),
        ..Parked::default()
    });
    view.new_answer = Answer::Works;
    notes.new = Some(known(new()));
    if phase >= Phase::Place {
        notes.placed.insert(name);
        notes.used_before = Some("by us".to_owned());
        view.target = holds(new());
        view.consumer = Consumer::Since;
    }
    Run {
        id: RunId::placeholder(),
        goal,
        phase,
        notes,
        timers: [].into(),
        put_back: 0,
    }
}

#[test]
fn a_rotation_is_planned_from_its_first_step_to_its_last() {
    insta::assert_snapshot!(lines(start(true), None), @"
    make    park token-old, which is in use
    make    mint a new token for this cluster alone
    make    park <new>
    make    wait for Rancher to let <new> in
    place   put <new> into the cluster Secret
    prove   wait for Argo CD to call with <new>
    prove   wait for Argo CD to have no old copy left that it could write back (--grace)
    retire  revoke token-old: delete it in Rancher
    confirm wait for Rancher to refuse token-old
    confirm delete what was parked
    ");
}

#[test]
fn a_cluster_that_is_not_watched_is_not_waited_for() {
    insta::assert_snapshot!(lines(start(false), None), @"
    make    park token-old, which is in use
    make    mint a new token for this cluster alone
    make    park <new>
    make    wait for Rancher to let <new> in
    place   put <new> into the cluster Secret
    prove   wait for Argo CD to have no old copy left that it could write back (--grace)
    retire  revoke token-old: delete it in Rancher
    confirm wait for Rancher to refuse token-old
    confirm delete what was parked
    ");
}

#[test]
fn the_token_of_somebody_else_stays() {
    let mut view = start(false);
    (view.old, view.keep_old) = (None, true);
    insta::assert_snapshot!(lines(view, None), @"
    make    park token-old, which is in use
    make    mint a new token for this cluster alone
    make    park <new>
    make    wait for Rancher to let <new> in
    place   put <new> into the cluster Secret
    prove   wait for Argo CD to have no old copy left that it could write back (--grace)
    confirm delete what was parked
    ");
}

#[test]
fn a_rollback_is_planned_from_where_the_rotation_stands() {
    let mut view = start(true);
    let run = under_way(&mut view, Goal::Back, Phase::Prove);
    insta::assert_snapshot!(lines(view, Some(run)), @"
    place   put token-old into the cluster Secret
    prove   wait for Argo CD to have no old copy left that it could write back (--grace)
    retire  revoke <new>: delete it in Rancher
    confirm wait for Rancher to refuse <new>
    confirm delete what was parked
    ");
}

#[test]
fn a_rollback_of_what_was_never_placed_only_revokes() {
    let mut view = start(true);
    let run = under_way(&mut view, Goal::Back, Phase::Make);
    insta::assert_snapshot!(lines(view, Some(run)), @"
    retire  revoke <new>: delete it in Rancher
    confirm wait for Rancher to refuse <new>
    confirm delete what was parked
    ");
}

#[test]
fn a_rollback_to_a_token_that_expires_keeps_the_new_one() {
    let mut view = start(true);
    let run = under_way(&mut view, Goal::Back, Phase::Prove);
    view.old = Some(Life::Ending);
    insta::assert_snapshot!(lines(view, Some(run)), @"
    make    keep the new token: the old one is dead, there is no way back to it
    place   mark the cluster Secret, so that no late write fits it
    prove   wait for Argo CD to call with <new>
    prove   wait for Argo CD to have no old copy left that it could write back (--grace)
    confirm delete what was parked
    ");
}

#[test]
fn a_parked_value_that_was_lost_is_parked_again_where_it_may_be_needed() {
    let lost = |goal, phase| {
        let mut view = start(true);
        let run = under_way(&mut view, goal, phase);
        view.target = holds(old());
        view.parked = None;
        decide(&view, Some(&run))
    };
    let parks =
        |next: &Next<ArgocdRancher>| matches!(next, Next::Do(step) if matches!(step.write, Write::ParkOld { .. }));
    assert!(parks(&lost(Goal::Forward, Phase::Make)), "it is about to be replaced");
    assert!(
        parks(&lost(Goal::Back, Phase::Place)),
        "the new one may be written over it late"
    );
    assert!(
        !parks(&lost(Goal::Back, Phase::Make)),
        "nothing was ever put in its place"
    );
    assert!(
        parks(&lost(Goal::Forward, Phase::Retire)),
        "it is to go, and is not gone yet"
    );
}

#[test]
fn a_new_token_that_is_about_to_end_is_not_relied_on() {
    let mut view = start(true);
    let run = under_way(&mut view, Goal::Forward, Phase::Make);
    view.minted.values_mut().for_each(|minted| minted.life = Life::Ending);
    let next = decide(&view, Some(&run));
    assert!(
        matches!(&next, Next::Do(step) if matches!(step.write, Write::Mint { .. })),
        "{next:?}"
    );
}

#[test]
fn a_new_token_whose_value_was_lost_goes_at_once_only_if_argo_cd_never_had_it() {
    let next = |phase| {
        let mut view = start(true);
        let run = under_way(&mut view, Goal::Forward, phase);
        view.target = holds(old());
        view.parked.iter_mut().for_each(|parked| parked.new = None);
        view.minted.values_mut().for_each(|minted| minted.value = None);
        match decide(&view, Some(&run)) {
            Next::Do(step) => step.write,
            other => panic!("{other:?}"),
        }
    };
    assert!(
        matches!(next(Phase::Make), Write::Revoke { which: Which::New, .. }),
        "nobody uses it"
    );
    assert!(
        matches!(next(Phase::Place), Write::Mint { .. }),
        "a sync that has begun may go on with it"
    );
}

#[test]
fn somebody_elses_token_in_the_secret_is_left_where_it_is() {
    let mut view = start(true);
    let run = under_way(&mut view, Goal::Forward, Phase::Prove);
    view.target = holds(stranger());
    insta::assert_snapshot!(lines(view.clone(), Some(run)), @"refused: the cluster Secret was given another token by somebody else; `kubectl argocd-rancher rollback` leaves it as it is, and revokes what was made");
    let run = under_way(&mut start(true), Goal::Forward, Phase::Retire);
    insta::assert_snapshot!(lines(view.clone(), Some(run.clone())), @"refused: the cluster Secret was given another token by somebody else; make sure that nobody needs token-old, and delete it in Rancher; then run the same command again");
    view.old = None;
    insta::assert_snapshot!(lines(view.clone(), Some(run)), @"
    prove   wait for Argo CD to have no old copy left that it could write back (--grace)
    confirm delete what was parked
    ");
    view.old = Some(Life::Sound);
    let mut run = under_way(&mut start(true), Goal::Forward, Phase::Retire);
    run.notes.keep_old = true;
    assert!(!matches!(decide(&view, Some(&run)), Next::Refuse(_)), "O is to stay");
    let run = under_way(&mut start(true), Goal::Back, Phase::Prove);
    insta::assert_snapshot!(lines(view, Some(run)), @"
    prove   wait for Argo CD to have no old copy left that it could write back (--grace)
    retire  revoke <new>: delete it in Rancher
    confirm wait for Rancher to refuse <new>
    confirm delete what was parked
    ");
}

#[test]
fn what_cannot_be_rotated_is_refused() {
    let mut view = start(true);
    view.target = Target::Missing;
    insta::assert_snapshot!(lines(view.clone(), None), @"refused: the cluster Secret holds no token that could be rotated; `kubectl argocd-rancher add` gives it one");
    let (reason, hint) = ("the agent is away".to_owned(), "wait for it".to_owned());
    let check = None;
    view.obstacles.push(Obstacle { check, reason, hint });
    insta::assert_snapshot!(lines(view, None), @"refused: the agent is away; wait for it");
}

#[test]
fn only_the_user_who_began_goes_on() {
    let mut view = start(true);
    let run = under_way(&mut view, Goal::Forward, Phase::Make);
    view.user = "u-other".to_owned();
    insta::assert_snapshot!(lines(view, Some(run)), @"refused: the rotation was begun as user u-argo of Rancher, and this is u-other; only the user who made a token can delete it: go on with the identity that began");
}

#[test]
fn an_overdue_proof_turns_back_while_there_is_something_to_go_back_to() {
    let overdue = |change: fn(&mut View, &mut Run<ArgocdRancher>)| {
        let mut view = start(true);
        let mut run = under_way(&mut view, Goal::Forward, Phase::Make);
        view.new_answer = Answer::Open("it is forbidden to list nodes".to_owned());
        run.timers.insert(Timer::Proof, true);
        change(&mut view, &mut run);
        decide(&view, Some(&run))
    };
    let Next::TurnBack(reason) = overdue(|_, _| {}) else {
        panic!("it is overdue");
    };
    insta::assert_snapshot!(reason, @"still waiting for Rancher to let <new> in when --timeout ran out: it is forbidden to list nodes");
    for (why, next) in [
        ("O is dying", overdue(|view, _| view.old = Some(Life::Ending))),
        ("O never worked", overdue(|_, run| run.notes.old_worked = false)),
        ("O is refused", overdue(|view, _| view.old_answer = Answer::Refused)),
        (
            "N was proven",
            overdue(|_, run| run.timers.extend([(Timer::Grace, false)])),
        ),
        ("there is only forward", overdue(|_, run| run.phase = Phase::Retire)),
    ] {
        assert!(matches!(next, Next::Wait(_)), "{why}");
    }
}

fn recalled(view: &View, claimed: &Run<ArgocdRancher>) -> Option<Run<ArgocdRancher>> {
    let notes = ArgocdRancher::recall(view, claimed)?;
    Some(Run {
        notes,
        ..claimed.clone()
    })
}

#[test]
fn a_run_of_which_no_object_tells_is_none() {
    let view = start(true);
    let claimed = under_way(&mut start(true), Goal::Forward, Phase::Retire);
    assert_eq!(recalled(&view, &claimed), None);
    let undone = recalled(&view, &under_way(&mut start(true), Goal::Back, Phase::Prove)).unwrap();
    assert_eq!(decide(&view, Some(&undone)), Next::Done, "nothing was made");
}

#[test]
fn a_run_that_was_killed_after_its_last_write_is_finished() {
    let mut view = start(true);
    let claimed = under_way(&mut view, Goal::Forward, Phase::Confirm);
    (view.parked, view.old, view.old_answer) = (None, None, Answer::Unasked);
    let placed = known(new()).name.into_iter().collect();
    view.target = Target::Holds {
        held: Some(known(new())),
        mark: Some(Mark {
            leg: Leg::Forward,
            user: String::new(),
            old: Some(known(old())),
            keep_old: false,
            placed,
            used_before: None,
        }),
        writer: Writer::Ours,
    };
    let run = recalled(&view, &claimed).unwrap();
    assert_eq!(run.notes.old, known(old()));
    assert_eq!(decide(&view, Some(&run)), Next::Done);
}

#[test]
fn a_token_that_no_mark_says_may_go_stays() {
    let mut view = start(true);
    let claimed = under_way(&mut view, Goal::Forward, Phase::Prove);
    view.parked = None;
    let recall = |view: &View| recalled(view, &claimed).unwrap().notes;
    assert!(!recall(&view).keep_old, "the new one says that it takes its place");
    assert_eq!(recall(&view).old.name, known(old()).name);
    view.minted.values_mut().for_each(|minted| minted.replaces = None);
    assert!(recall(&view).keep_old);
}

#[test]
fn the_third_time_that_another_writer_puts_the_old_token_back_turns_back() {
    let mut view = start(true);
    let mut run = under_way(&mut view, Goal::Forward, Phase::Prove);
    view.target = Target::Holds {
        held: Some(known(old())),
        mark: None,
        writer: Writer::Other("manager \"kustomize-controller\"".to_owned()),
    };
    for put_back in [0, 1] {
        run.put_back = put_back;
        let next = decide(&view, Some(&run));
        assert!(
            matches!(&next, Next::Do(step) if matches!(step.repeats, Repeats::PutBack(_))),
            "{next:?}"
        );
    }
    run.put_back = 2;
    let Next::TurnBack(reason) = decide(&view, Some(&run)) else {
        panic!("it does not stop");
    };
    insta::assert_snapshot!(reason, @r#"manager "kustomize-controller" keeps writing the old state back"#);
    run.phase = Phase::Retire;
    assert!(
        matches!(decide(&view, Some(&run)), Next::Do(_)),
        "there is only forward"
    );
}

#[test]
fn the_journal_is_short_and_holds_no_secret() {
    let mut view = start(true);
    let run = under_way(&mut view, Goal::Forward, Phase::Place);
    let text = serde_json::to_string(&run.notes).unwrap();
    insta::assert_snapshot!(text, @r#"{"user":"u-argo","old":{"name":"token-old","value":"cba06b5736"},"oldWorked":true,"keepOld":false,"new":{"name":"<new 1>","value":"4f79d288b4"},"usedBefore":"by us","placed":["<new 1>"],"kept":false}"#);
    assert_eq!(serde_json::from_str::<Notes>(&text).unwrap(), run.notes);
}
