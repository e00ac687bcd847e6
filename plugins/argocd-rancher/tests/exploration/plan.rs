//! The plan that `--dry-run` prints, which is the stages folded over their own predictions; what is refused; and single steps that
//! the model does not tell apart.

use client::secret::Fingerprint;
use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::phase::Phase;
use engine::plan::plan;
use engine::rotation::{Blocker, Next, Repeats, Rotation as _, Timer};
use kubectl_argocd_rancher::rotation::ArgocdRancher;
use kubectl_argocd_rancher::rotation::observed::{
    Backup, ClusterSync, ConfigWriter, Issued, MarkDetails, Name, Observed, RunMark, SecretState,
};
use kubectl_argocd_rancher::rotation::record::Record;
use kubectl_argocd_rancher::rotation::step::{Step, Which};

use crate::environment::{Run, foreign, old, run, start, token};

fn lines(seen: Observed, run: Option<Run>) -> String {
    plan(seen, run).map_or_else(|none| none.to_string(), |plan| plan.to_string())
}

fn decide(seen: &Observed, run: &Run) -> Next<ArgocdRancher> {
    engine::rotation::decide(seen, run).next
}

fn step(seen: &Observed, run: &Run) -> Option<Step> {
    match decide(seen, run) {
        Next::Step(intent) => Some(intent.step),
        _ => None,
    }
}

fn new() -> Fingerprint {
    Fingerprint::of("<new 1>")
}

fn holds(value: Fingerprint) -> SecretState {
    SecretState::Holds {
        held: Some(token(value)),
        mark: None,
        writer: ConfigWriter::Ours,
    }
}

/// A run that has come this far, with a new token that is accepted.
fn in_progress(seen: &mut Observed, direction: Direction, phase: Phase) -> Run {
    let mut record = ArgocdRancher::survey(seen).expect("nothing speaks against it");
    let issued = Issued {
        validity: Validity::Valid,
        value: Some(new()),
        replaces: token(old()).name,
        used: Some("by us".to_owned()),
    };
    let name = Name("<new 1>".to_owned());
    seen.issued.insert(name.clone(), issued);
    seen.backup = Some(Backup {
        old: Some(token(old())),
        new: Some(token(new())),
        ..Backup::default()
    });
    seen.new_accepted = Acceptance::Accepted;
    record.new = Some(token(new()));
    if phase >= Phase::Place {
        record.placed.insert(name);
        record.used_before = Some("by us".to_owned());
        seen.secret = holds(new());
        seen.sync = ClusterSync::Since;
    }
    run(direction, phase, record)
}

#[test]
fn a_rotation_is_planned_from_its_first_step_to_its_last() {
    insta::assert_snapshot!(lines(start(true), None), @"
    make    back up token-old, which is in use
    make    issue a new token for this cluster only
    make    back up <new>
    make    wait for Rancher to accept <new>
    place   write <new> to the cluster Secret
    prove   wait for Argo CD to use <new>
    prove   wait for Argo CD to drop every stale copy that it could write back (--grace)
    retire  revoke token-old: delete it in Rancher
    confirm wait for Rancher to reject token-old
    confirm delete the backup Secret
    ");
}

#[test]
fn a_cluster_that_is_not_watched_is_not_waited_for() {
    insta::assert_snapshot!(lines(start(false), None), @"
    make    back up token-old, which is in use
    make    issue a new token for this cluster only
    make    back up <new>
    make    wait for Rancher to accept <new>
    place   write <new> to the cluster Secret
    prove   wait for Argo CD to drop every stale copy that it could write back (--grace)
    retire  revoke token-old: delete it in Rancher
    confirm wait for Rancher to reject token-old
    confirm delete the backup Secret
    ");
}

#[test]
fn the_token_of_another_user_stays_valid() {
    let mut seen = start(false);
    (seen.old, seen.keep_old) = (None, true);
    insta::assert_snapshot!(lines(seen, None), @"
    make    back up token-old, which is in use
    make    issue a new token for this cluster only
    make    back up <new>
    make    wait for Rancher to accept <new>
    place   write <new> to the cluster Secret
    prove   wait for Argo CD to drop every stale copy that it could write back (--grace)
    confirm delete the backup Secret
    ");
}

#[test]
fn the_run_of_another_user_is_resumed_by_no_one_else_and_discarded_on_request() {
    let mut seen = start(false);
    let mut run = in_progress(&mut seen, Direction::Forward, Phase::Make);
    let begun_by = |seen: &mut Observed, user: &str| seen.backup.as_mut().unwrap().user = user.to_owned();
    begun_by(&mut seen, "u-gone");
    run.record = ArgocdRancher::recall(&seen, &run).unwrap();
    assert_eq!(run.record.user, "u-gone");
    assert!(matches!(decide(&seen, &run), Next::Refuse(_)));
    seen.discard = true;
    assert_eq!(ArgocdRancher::recall(&seen, &run), None);
    // An own run is always resumed.
    let me = seen.user.clone();
    begun_by(&mut seen, &me);
    assert!(ArgocdRancher::recall(&seen, &run).is_some());
}

#[test]
fn a_rollback_is_planned_from_the_present_state() {
    let mut seen = start(true);
    let run = in_progress(&mut seen, Direction::Rollback, Phase::Prove);
    insta::assert_snapshot!(lines(seen, Some(run)), @"
    place   write token-old to the cluster Secret
    prove   wait for Argo CD to drop every stale copy that it could write back (--grace)
    retire  revoke <new>: delete it in Rancher
    confirm wait for Rancher to reject <new>
    confirm delete the backup Secret
    ");
}

#[test]
fn a_rollback_of_what_was_never_placed_only_revokes() {
    let mut seen = start(true);
    let run = in_progress(&mut seen, Direction::Rollback, Phase::Make);
    insta::assert_snapshot!(lines(seen, Some(run)), @"
    retire  revoke <new>: delete it in Rancher
    confirm wait for Rancher to reject <new>
    confirm delete the backup Secret
    ");
}

#[test]
fn a_rollback_to_a_token_that_expires_rolls_forward() {
    let mut seen = start(true);
    let run = in_progress(&mut seen, Direction::Rollback, Phase::Prove);
    seen.old = Some(Validity::Expiring);
    let Next::Turn { to, reason } = decide(&seen, &run) else {
        panic!("the old token cannot be restored");
    };
    assert_eq!(to, Direction::RollForward);
    insta::assert_snapshot!(reason, @"token-old is not valid any more, or its value is lost");
    insta::assert_snapshot!(lines(seen, Some(run)), @"
    place   fence the cluster Secret, so that late writes are rejected
    prove   wait for Argo CD to use <new>
    prove   wait for Argo CD to drop every stale copy that it could write back (--grace)
    confirm delete the backup Secret
    ");
}

#[test]
fn a_backup_that_was_lost_is_made_again_where_it_may_be_needed() {
    let backs_up = |direction, phase| {
        let mut seen = start(true);
        let run = in_progress(&mut seen, direction, phase);
        seen.secret = holds(old());
        seen.backup = None;
        matches!(step(&seen, &run), Some(Step::BackUp { which: Which::Old, .. }))
    };
    assert!(
        backs_up(Direction::Forward, Phase::Make),
        "it is about to be overwritten"
    );
    assert!(
        backs_up(Direction::Rollback, Phase::Place),
        "the new one may be written over it late"
    );
    assert!(
        !backs_up(Direction::Rollback, Phase::Make),
        "nothing was ever written over it"
    );
    assert!(
        backs_up(Direction::Forward, Phase::Retire),
        "it is to be revoked, and is not yet"
    );
}

#[test]
fn a_new_token_that_is_about_to_expire_is_not_relied_on() {
    let mut seen = start(true);
    let run = in_progress(&mut seen, Direction::Forward, Phase::Make);
    let issued = seen.issued.values_mut();
    issued.for_each(|issued| issued.validity = Validity::Expiring);
    assert!(matches!(step(&seen, &run), Some(Step::Issue { .. })));
}

#[test]
fn a_new_token_whose_value_was_lost_is_revoked_at_once_only_if_argo_cd_never_had_it() {
    let next = |phase| {
        let mut seen = start(true);
        let run = in_progress(&mut seen, Direction::Forward, phase);
        seen.secret = holds(old());
        seen.backup.iter_mut().for_each(|backup| backup.new = None);
        seen.issued.values_mut().for_each(|issued| issued.value = None);
        step(&seen, &run).unwrap()
    };
    assert!(
        matches!(next(Phase::Make), Step::Revoke { which: Which::New, .. }),
        "nothing uses it"
    );
    assert!(
        matches!(next(Phase::Place), Step::Issue { .. }),
        "a sync that has begun may continue with it"
    );
}

#[test]
fn a_foreign_token_in_the_secret_is_left_where_it_is() {
    let mut seen = start(true);
    let run = in_progress(&mut seen, Direction::Forward, Phase::Prove);
    seen.secret = holds(foreign());
    insta::assert_snapshot!(lines(seen.clone(), Some(run)), @"refused: another writer has put a different token into the cluster Secret; a rollback leaves the Secret as it is and revokes the new token");
    let run = in_progress(&mut start(true), Direction::Forward, Phase::Retire);
    insta::assert_snapshot!(lines(seen.clone(), Some(run.clone())), @"refused: another writer has put a different token into the cluster Secret; make sure that nothing else needs token-old and delete it in Rancher; then run the same command again");
    seen.old = None;
    insta::assert_snapshot!(lines(seen.clone(), Some(run)), @"
    prove   wait for Argo CD to drop every stale copy that it could write back (--grace)
    confirm delete the backup Secret
    ");
    seen.old = Some(Validity::Valid);
    let mut run = in_progress(&mut start(true), Direction::Forward, Phase::Retire);
    run.record.keep_old = true;
    assert!(!matches!(decide(&seen, &run), Next::Refuse(_)), "O is to stay");
    let run = in_progress(&mut start(true), Direction::Rollback, Phase::Prove);
    insta::assert_snapshot!(lines(seen, Some(run)), @"
    prove   wait for Argo CD to drop every stale copy that it could write back (--grace)
    retire  revoke <new>: delete it in Rancher
    confirm wait for Rancher to reject <new>
    confirm delete the backup Secret
    ");
}

#[test]
fn what_cannot_be_rotated_is_refused() {
    let mut seen = start(true);
    seen.secret = SecretState::Missing;
    insta::assert_snapshot!(lines(seen.clone(), None), @"refused: the cluster Secret holds no token that could be rotated; add the cluster again, which issues one");
    seen.blockers.push(Blocker::new("the agent is offline", "wait for it"));
    insta::assert_snapshot!(lines(seen, None), @"refused: the agent is offline; wait for it");
}

#[test]
fn only_the_user_who_began_resumes() {
    let mut seen = start(true);
    let run = in_progress(&mut seen, Direction::Forward, Phase::Make);
    seen.user = "u-other".to_owned();
    insta::assert_snapshot!(lines(seen, Some(run)), @"refused: the rotation was begun by user u-argo of Rancher, and this command runs as u-other; only the owner of a token can delete it: log in to Rancher as user u-argo; if that user does not exist any more, rotate with --force=journal, which begins a new rotation");
}

#[test]
fn an_overdue_proof_turns_back_while_the_old_token_can_be_restored() {
    let overdue = |change: fn(&mut Observed, &mut Run)| {
        let mut seen = start(true);
        let mut run = in_progress(&mut seen, Direction::Forward, Phase::Make);
        seen.new_accepted = Acceptance::Unknown("it is forbidden to list nodes".to_owned());
        run.timers.insert(Timer::Proof, true);
        change(&mut seen, &mut run);
        decide(&seen, &run)
    };
    let Next::Turn {
        to: Direction::Rollback,
        reason,
    } = overdue(|_, _| {})
    else {
        panic!("it is overdue");
    };
    insta::assert_snapshot!(reason, @"still waiting for Rancher to accept <new> when --timeout expired: it is forbidden to list nodes");
    for (why, next) in [
        ("O expires", overdue(|seen, _| seen.old = Some(Validity::Expiring))),
        ("O never worked", overdue(|_, run| run.record.old_worked = false)),
        (
            "O is rejected",
            overdue(|seen, _| seen.old_accepted = Acceptance::Rejected),
        ),
        (
            "N was proven",
            overdue(|_, run| run.timers.extend([(Timer::Quiet, false)])),
        ),
        ("it can only be finished", overdue(|_, run| run.phase = Phase::Retire)),
    ] {
        assert!(matches!(next, Next::Wait(_)), "{why}");
    }
}

#[test]
fn a_run_of_which_no_object_tells_is_none() {
    let seen = start(true);
    let claimed = in_progress(&mut start(true), Direction::Forward, Phase::Retire);
    assert_eq!(claimed.resumed(&seen), None);
    for direction in [Direction::Rollback, Direction::RollForward] {
        let run = in_progress(&mut start(true), direction, Phase::Prove)
            .resumed(&seen)
            .unwrap();
        assert_eq!(decide(&seen, &run), Next::Done, "nothing was issued");
    }
}

#[test]
fn rolling_forward_is_resumed_only_where_the_cluster_secret_confirms_it() {
    let mut seen = start(true);
    let claimed = in_progress(&mut seen, Direction::RollForward, Phase::Place);
    assert_eq!(claimed.clone().resumed(&seen).unwrap().direction, Direction::Rollback);
    ArgocdRancher::predict(&mut seen, &claimed, &Step::Fence);
    assert_eq!(claimed.resumed(&seen).unwrap().direction, Direction::RollForward);
}

#[test]
fn a_run_that_was_killed_after_its_last_step_is_finished() {
    let mut seen = start(true);
    let claimed = in_progress(&mut seen, Direction::Forward, Phase::Confirm);
    (seen.backup, seen.old, seen.old_accepted) = (None, None, Acceptance::NotAsked);
    let details = MarkDetails {
        user: String::new(),
        old: token(old()),
        keep_old: false,
        placed: token(new()).name.into_iter().collect(),
        used_before: None,
    };
    seen.secret = SecretState::Holds {
        held: Some(token(new())),
        mark: Some(RunMark {
            direction: Direction::Forward,
            details: Some(details),
        }),
        writer: ConfigWriter::Ours,
    };
    let run = claimed.resumed(&seen).unwrap();
    assert_eq!(run.record.old, token(old()));
    assert_eq!(decide(&seen, &run), Next::Done);
}

#[test]
fn a_token_that_no_mark_says_may_go_stays() {
    let mut seen = start(true);
    let claimed = in_progress(&mut seen, Direction::Forward, Phase::Prove);
    seen.backup = None;
    let recalled = |seen: &Observed| ArgocdRancher::recall(seen, &claimed).unwrap();
    assert!(!recalled(&seen).keep_old, "the new one says that it replaces it");
    assert_eq!(recalled(&seen).old.name, token(old()).name);
    seen.issued.values_mut().for_each(|issued| issued.replaces = None);
    assert!(recalled(&seen).keep_old);
}

#[test]
fn the_third_time_that_another_writer_puts_the_old_token_back_turns_back() {
    let mut seen = start(true);
    let mut run = in_progress(&mut seen, Direction::Forward, Phase::Prove);
    seen.secret = SecretState::Holds {
        held: Some(token(old())),
        mark: None,
        writer: ConfigWriter::Other("manager \"kustomize-controller\"".to_owned()),
    };
    for reapplied in [0, 1] {
        run.reapplied = reapplied;
        let next = decide(&seen, &run);
        assert!(
            matches!(&next, Next::Step(intent) if matches!(intent.repeats, Repeats::Reapply(_))),
            "{next:?}"
        );
    }
    run.reapplied = 2;
    let Next::Turn {
        to: Direction::Rollback,
        reason,
    } = decide(&seen, &run)
    else {
        panic!("it does not stop");
    };
    insta::assert_snapshot!(reason, @r#"manager "kustomize-controller" keeps writing the old state back"#);
    run.phase = Phase::Retire;
    assert!(matches!(decide(&seen, &run), Next::Step(_)), "it can only be finished");
}

#[test]
fn the_journal_is_short_and_holds_no_secret() {
    let mut seen = start(true);
    let run = in_progress(&mut seen, Direction::Forward, Phase::Place);
    let text = serde_json::to_string(&run.record).unwrap();
    insta::assert_snapshot!(text, @r#"{"user":"u-argo","old":{"name":"token-old","value":"cba06b5736"},"oldWorked":true,"keepOld":false,"new":{"name":"<new 1>","value":"4f79d288b4"},"usedBefore":"by us","placed":["<new 1>"]}"#);
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), run.record);
}
