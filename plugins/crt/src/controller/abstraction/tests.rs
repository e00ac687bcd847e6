use engine::run::RunId;
use rancher::probe::UnknownReason;
use rancher::token::ValueError;
use rstest::rstest;

use super::*;
use crate::fixtures::{
    URL, cluster, credentials, deployment, id, pod, print, stv_aggregation, system, token, token_secret, value,
};

/// The time of every look.
fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn seconds_ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

/// A cluster whose agent uses O, which is the value of `system`.
fn snapshot() -> Snapshot {
    Snapshot {
        provisioned: None,
        storage: TokenStorage::Status,
        cluster: cluster("O"),
        tokens: Tokens {
            tokens: vec![system("O")],
            ..Tokens::default()
        },
        deployment: Ok(deployment("O")),
        pods: vec![pod("a", "O")],
        credentials: vec![credentials("O")],
        created: Vec::new(),
        stv: Some(stv_aggregation("O", "O")),
        probe_results: BTreeMap::new(),
        tunnel_works: Some(true),
        downstream: DownstreamIdentity::Proven,
        pushes: None,
        move_forced: false,
        weak_proof_forced: false,
        is_rescue: false,
        reactivates: None,
        writer: "rancher".into(),
        cluster_changed: seconds_ago(3600),
        now: now(),
        downstream_now: now(),
    }
}

/// The same cluster with storage `secret`.
fn snapshot_with(secret: TokenSecret) -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.storage = TokenStorage::Secret;
    snapshot.tokens.tokens[0].secret = Some(secret);
    snapshot
}

/// A run from O to N.
fn run() -> Run<Crt> {
    let seen = observed(&snapshot(), None);
    Run::begin(
        RunId::placeholder(),
        crate::rotation::stages::record(&seen, print("O"), Some(print("N"))),
    )
}

fn run_at(direction: Direction, phase: Phase) -> Run<Crt> {
    Run {
        direction,
        phase,
        ..run()
    }
}

fn observed(snapshot: &Snapshot, run: Option<&Run<Crt>>) -> Observed {
    snapshot.observed(&snapshot.names(run, URL), run)
}

fn prints(names: &[&str]) -> BTreeSet<Fingerprint> {
    names.iter().map(|name| print(name)).collect()
}

fn accepted_by(cluster: Option<&str>) -> ProbeResult {
    ProbeResult::Accepted {
        cluster: cluster.map(|id| id.parse().unwrap()),
    }
}

/// Unknown is neither: what is to be used must be accepted, and what is to be revoked counts as accepted.
#[rstest]
#[case::accepted(accepted_by(Some("c-x7k2p")), true, true)]
#[case::accepted_without_owner(accepted_by(None), true, true)]
#[case::rejected(ProbeResult::Rejected, false, false)]
#[case::unexpected(ProbeResult::Unknown(UnknownReason::Unexpected { path: "/v3/connect", code: 502 }), false, true)]
#[case::disagreement(ProbeResult::Unknown(UnknownReason::Disagreement), false, true)]
#[case::not_proven(ProbeResult::Unknown(UnknownReason::NotProven), false, true)]
#[case::invalid_header(ProbeResult::Unknown(UnknownReason::InvalidHeader), false, true)]
fn probe_results(#[case] result: ProbeResult, #[case] is_accepted: bool, #[case] may_be_accepted: bool) {
    let mut snapshot = snapshot();
    snapshot.probe_results = [(print("O"), result.clone())].into();
    let mut seen = observed(&snapshot, None);
    assert_eq!(*seen.acceptance_of(print("O")), Acceptance::NotAsked);
    snapshot.add_probe_results(&mut seen, &BTreeMap::new());
    let acceptance = seen.acceptance_of(print("O"));
    assert_eq!(acceptance.is_accepted(), is_accepted);
    assert_eq!(acceptance.may_be_accepted(), may_be_accepted);
    if let ProbeResult::Unknown(reason) = result {
        assert_eq!(acceptance.reason(), reason.to_string());
    }
}

#[test]
fn only_a_value_of_another_cluster_is_foreign() {
    let owners = [(print("O"), id()), (print("X"), "c-other".parse().unwrap())].into();
    let mut seen = observed(&snapshot(), None);
    snapshot().add_probe_results(&mut seen, &owners);
    assert_eq!(seen.foreign, prints(&["X"]));
}

#[rstest]
#[case::accepted_and_held("O", Some(accepted_by(None)), true)]
#[case::accepted_but_held_by_nothing("X", Some(accepted_by(None)), false)]
#[case::rejected("O", Some(ProbeResult::Rejected), false)]
#[case::unknown("O", Some(ProbeResult::Unknown(UnknownReason::Disagreement)), false)]
#[case::never_probed("O", None, false)]
fn an_earlier_result_is_still_valid(
    #[case] token: &str,
    #[case] before: Option<ProbeResult>,
    #[case] still_valid: bool,
) {
    let seen = observed(&snapshot(), None);
    assert_eq!(is_still_valid(&seen, print(token), before.as_ref()), still_valid);
}

#[test]
fn before_a_run_only_the_value_of_the_agent_is_probed() {
    let seen = observed(&snapshot(), None);
    assert_eq!(values_to_probe(&seen, None, &BTreeMap::new()), (prints(&["O"]), 1));
    let mut nothing_named = snapshot();
    nothing_named.deployment.as_mut().unwrap().volume_secret = None;
    let seen = observed(&nothing_named, None);
    assert_eq!(values_to_probe(&seen, None, &BTreeMap::new()), ([].into(), 1));
}

/// T is probed always; X once nothing holds it any more, or once it is retired; the renewed tokens when they are retired.
#[rstest]
#[case::forward(Direction::Forward, Phase::Make, &["O"], &["N"])]
#[case::forward_x_is_dropped(Direction::Forward, Phase::Make, &["N"], &["N", "O"])]
#[case::forward_retire(Direction::Forward, Phase::Retire, &["O"], &["N", "O", "R"])]
#[case::forward_confirm(Direction::Forward, Phase::Confirm, &["N"], &["N", "O", "R"])]
#[case::rollback(Direction::Rollback, Phase::Make, &["N"], &["O"])]
#[case::rollback_x_is_dropped(Direction::Rollback, Phase::Make, &["O"], &["N", "O"])]
#[case::rollback_renews_no_others(Direction::Rollback, Phase::Retire, &["O"], &["N", "O"])]
#[case::roll_forward(Direction::RollForward, Phase::Retire, &["N"], &["N", "O", "R"])]
fn values_to_probe_during_a_run(
    #[case] direction: Direction,
    #[case] phase: Phase,
    #[case] held: &[&str],
    #[case] expected: &[&str],
) {
    let mut run = run_at(direction, phase);
    run.record.others = [("default-token".into(), print("R"))].into();
    let mut snapshot = snapshot();
    snapshot.tokens.tokens = held.iter().map(|held| system(held)).collect();
    let seen = observed(&snapshot, Some(&run));
    // The cluster of O is known.
    let owners = [(print("O"), id())].into();
    assert_eq!(values_to_probe(&seen, Some(&run), &owners), (prints(expected), PROBES));
}

#[rstest]
#[case::nothing_drawn_yet(None, true, &["O"])]
#[case::owner_unknown_and_in_use(Some("N"), true, &["N", "O"])]
#[case::owner_unknown_and_not_in_use(Some("N"), false, &["N"])]
fn the_cluster_of_the_old_token_must_be_known(
    #[case] new: Option<&str>,
    #[case] in_use: bool,
    #[case] expected: &[&str],
) {
    let mut run = run_at(Direction::Forward, Phase::Make);
    run.record.new = new.map(print);
    let mut snapshot = snapshot();
    if !in_use {
        (snapshot.deployment, snapshot.pods, snapshot.stv) = (Ok(deployment("N")), Vec::new(), None);
    }
    let seen = observed(&snapshot, Some(&run));
    assert_eq!(values_to_probe(&seen, Some(&run), &BTreeMap::new()).0, prints(expected));
}

/// Rancher has 60 seconds from its own last change, and never more than 180 in all.
#[rstest]
#[case::too_early(59, 3600, false)]
#[case::in_time(60, 3600, true)]
#[case::rancher_still_writes(100, 59, false)]
#[case::rancher_stopped_writing(100, 60, true)]
#[case::longest_wait_not_over(179, 1, false)]
#[case::longest_wait_over(180, 1, true)]
#[case::in_the_future(-1, 3600, true)]
fn a_trigger_is_overdue(#[case] triggered_ago: i64, #[case] changed_ago: i64, #[case] overdue: bool) {
    let mut snapshot = snapshot();
    let annotation = format!("{} {}", seconds_ago(triggered_ago), print("N"));
    snapshot.cluster.annotations.insert(TRIGGERED.into(), annotation);
    snapshot.cluster_changed = seconds_ago(changed_ago);
    let expected = Trigger {
        token: print("N"),
        first: None,
        overdue,
    };
    assert_eq!(observed(&snapshot, None).trigger, Some(expected));
}

#[rstest]
#[case("")]
#[case("2027-01-15T08:00:00Z")]
#[case("2027-01-15T08:00:00Z secret")]
#[case("yesterday 9f38f0b8a6")]
fn a_malformed_trigger_is_none(#[case] annotation: &str) {
    let mut snapshot = snapshot();
    snapshot.cluster.annotations.insert(TRIGGERED.into(), annotation.into());
    assert_eq!(observed(&snapshot, None).trigger, None);
}

/// The mark on another token than `system` belongs to one run too, and is on the token after a migration into a Secret.
#[test]
fn what_a_run_has_given_to_another_token_is_read_from_its_mark() {
    let given = |text: &str| {
        let mut snapshot = snapshot();
        let mut other = token("default-token", "N");
        other.annotations = [(MARK.into(), text.into())].into();
        snapshot.tokens.tokens.push(other);
        observed(&snapshot, Some(&run())).given
    };
    let mark = |run: &str, before: &str| format!(r#"{{"run":"{run}","direction":"forward","before":"{before}"}}"#);
    let expected = observed::GivenMark {
        direction: Direction::Forward,
        before: print("D"),
    };
    let own = given(&mark("new", &print("D").to_string()));
    assert_eq!(own.get("default-token"), Some(&expected));
    for foreign in [
        mark("x7k2p", &print("D").to_string()),
        mark("new", "secret"),
        "new".to_owned(),
    ] {
        assert!(given(&foreign).is_empty(), "{foreign}");
    }
}

#[test]
fn a_trigger_names_what_the_planner_rendered() {
    let mut snapshot = snapshot();
    let annotation = format!("{} {} {}", seconds_ago(1), print("N"), print("F"));
    snapshot.cluster.annotations.insert(TRIGGERED.into(), annotation);
    let trigger = observed(&snapshot, None).trigger.expect("a trigger");
    assert_eq!((trigger.token, trigger.first), (print("N"), Some(print("F"))));
}

const DAY: i64 = 24 * 3600;

#[rstest]
#[case::days_later(Some(3 * DAY + 1), Some(Grace::Far))]
#[case::in_three_days(Some(3 * DAY), Some(Grace::Near))]
#[case::past(Some(-1), Some(Grace::Near))]
#[case::none(None, None)]
fn the_grace_period_in_the_status(#[case] ends_in: Option<i64>, #[case] expected: Option<Grace>) {
    let mut snapshot = snapshot_with(token_secret("N", Some("O")));
    snapshot.tokens.tokens[0].status_grace_ends_at = ends_in.map(|seconds| seconds_ago(-seconds));
    assert_eq!(observed(&snapshot, None).status_grace, expected);
    snapshot.storage = TokenStorage::Status;
    assert_eq!(
        observed(&snapshot, None).status_grace,
        None,
        "such a Rancher has no grace period"
    );
}

#[rstest]
#[case::no_ends(None, None, true)]
#[case::both_far(Some(3 * DAY + 1), Some(3 * DAY + 1), true)]
#[case::grace_ends_soon(Some(3 * DAY), None, false)]
#[case::expires_soon(None, Some(3 * DAY), false)]
#[case::grace_is_over(Some(-1), Some(4 * DAY), false)]
fn the_previous_token_is_protected(
    #[case] grace_ends_in: Option<i64>,
    #[case] expires_in: Option<i64>,
    #[case] protected: bool,
) {
    let at = |seconds: Option<i64>| seconds.map(|seconds| seconds_ago(-seconds));
    let mut snapshot = snapshot_with(TokenSecret {
        grace_ends_at: at(grace_ends_in),
        expires_at: at(expires_in),
        ..token_secret("O", Some("P"))
    });
    let mut expected = SystemToken {
        token: print("O"),
        previous: Some(print("P")),
        protected,
    };
    assert_eq!(observed(&snapshot, None).system.as_ref(), Some(&expected));
    // A Secret that a newer Rancher has left behind counts for nothing.
    snapshot.storage = TokenStorage::Status;
    (expected.previous, expected.protected) = (None, true);
    assert_eq!(observed(&snapshot, None).system, Some(expected));
}

#[rstest]
#[case::younger_than_a_quarter_of_an_hour(Some(899), Age::Young)]
#[case::a_quarter_of_an_hour_old(Some(900), Age::Old)]
#[case::of_unknown_age(None, Age::Old)]
#[case::in_the_future(Some(-60), Age::Young)]
fn the_age_of_credentials(#[case] created_ago: Option<i64>, #[case] expected: Age) {
    let mut snapshot = snapshot();
    // Only the clock of the downstream cluster counts.
    snapshot.now = seconds_ago(-DAY);
    snapshot.credentials[0].created = created_ago.map(seconds_ago);
    assert_eq!(observed(&snapshot, None).credentials, [(print("O"), expected)].into());
}

#[rstest]
#[case::being_deleted(Credentials { deleting: true, ..credentials("O") })]
#[case::without_a_token(Credentials { token: None, ..credentials("O") })]
#[case::with_another_value(Credentials { token: Some(value("X")), ..credentials("O") })]
fn credentials_that_do_not_count(#[case] credentials: Credentials) {
    let mut snapshot = snapshot();
    snapshot.credentials = vec![credentials];
    assert_eq!(observed(&snapshot, Some(&run())).credentials, [].into());
}

/// A wrong URL in the agent's Secret is not copied into the new one.
#[rstest]
#[case::worked(
    true,
    Some("https://old.example.com"),
    Some("https://old.example.com"),
    "https://own.example.com"
)]
#[case::failed(
    false,
    Some("https://old.example.com"),
    Some("https://old.example.com"),
    "https://old.example.com"
)]
#[case::rancher_would_send_it_there(
    false,
    Some("https://old.example.com"),
    Some("https://own.example.com/"),
    "https://own.example.com"
)]
#[case::an_agent_connected_there(
    false,
    Some("https://own.example.com/"),
    Some("https://new.example.com"),
    "https://own.example.com"
)]
#[case::no_setting(false, Some("https://old.example.com"), None, "https://own.example.com")]
#[case::nothing_else_known(false, None, None, "https://own.example.com")]
fn the_url_of_the_new_secret(
    #[case] worked: bool,
    #[case] connected: Option<&str>,
    #[case] setting: Option<&str>,
    #[case] expected: &str,
) {
    let mut run = run();
    run.record.worked = worked;
    let mut snapshot = snapshot();
    snapshot.credentials[0].url = Some("https://own.example.com".into());
    snapshot.stv.as_mut().unwrap().server_url = connected.map(str::to_owned);
    assert_eq!(snapshot.server_url(setting, Some(&run)), expected);
    assert_eq!(snapshot.server_url(setting, None), "https://own.example.com");
}

/// Two Secrets may have the same value: the one counts that the Deployment would be pointed at.
#[test]
fn credentials_under_another_name_do_not_count() {
    let mut snapshot = snapshot();
    let mut copy = credentials("N");
    copy.object.name = "cattle-credentials-by-hand".into();
    snapshot.credentials.push(copy);
    let found = observed(&snapshot, Some(&run())).credentials;
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), prints(&["O"]));
    snapshot.credentials.push(credentials("N"));
    let found = observed(&snapshot, Some(&run())).credentials;
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), prints(&["N", "O"]));
}

#[rstest]
#[case::the_value_itself(credentials("N"), &[])]
#[case::another_value(Credentials { token: Some(value("X")), ..credentials("N") }, &["N"])]
#[case::no_value(Credentials { token: None, ..credentials("N") }, &["N"])]
#[case::another_value_and_being_deleted(Credentials { token: None, deleting: true, ..credentials("N") }, &[])]
fn a_secret_with_another_content_occupies_the_name(#[case] found: Credentials, #[case] expected: &[&str]) {
    let mut snapshot = snapshot();
    snapshot.tokens.tokens.push(token("default-token", "N"));
    snapshot.credentials.push(found);
    let occupied = observed(&snapshot, Some(&run())).occupied;
    assert_eq!(occupied.into_keys().collect::<BTreeSet<_>>(), prints(expected));
}

/// Secrets that this run has created: of a value that was replaced, or with a name by another address.
#[rstest]
#[case::nothing_uses_it(&["X"], "N", "N", true)]
#[case::a_pod_mounts_it(&["X"], "N", "X", false)]
#[case::the_deployment_names_it(&["X"], "X", "N", false)]
#[case::of_this_run(&["N", "O"], "O", "O", false)]
fn leftovers_are_what_nothing_uses(
    #[case] created: &[&str],
    #[case] named: &str,
    #[case] mounted: &str,
    #[case] left: bool,
) {
    let mut snapshot = snapshot();
    snapshot.tokens.tokens.push(token("default-token", "N"));
    snapshot.created = created.iter().map(|name| credentials(name).object).collect();
    (snapshot.deployment, snapshot.pods) = (Ok(deployment(named)), vec![pod("a", mounted)]);
    let expected = left.then(|| credentials("X").object.name).into_iter().collect();
    assert_eq!(observed(&snapshot, Some(&run())).leftovers, expected);
}

/// Storage `secret`: what Rancher has rotated by itself.
#[rstest]
#[case::secret(TokenStorage::Secret, &["default-token D", "crt-token-system P"])]
#[case::status(TokenStorage::Status, &["crt-token-system P"])]
fn the_previous_values_of_other_tokens(#[case] storage: TokenStorage, #[case] expected: &[&str]) {
    let rotated = RegistrationToken {
        secret: Some(token_secret("R", Some("D"))),
        ..token("default-token", "R")
    };
    let mut snapshot = snapshot_with(token_secret("O", Some("N")));
    snapshot.storage = storage;
    snapshot.tokens.tokens.push(rotated);
    snapshot.tokens.orphans = vec![token_secret("W", Some("P"))];
    let seen = observed(&snapshot, None);
    let expected = expected.iter().filter_map(|of| of.split_once(' '));
    assert_eq!(
        seen.others_previous,
        expected.map(|(name, value)| (name.to_owned(), print(value))).collect()
    );
    assert!(!seen.is_held(print("D")), "it is not held for good");
    assert!(seen.has_value(print("P")));
}

fn rollout(min_ready_seconds: i32, progress_deadline_seconds: i32) -> RolloutSettings {
    RolloutSettings {
        min_ready_seconds,
        progress_deadline_seconds,
    }
}

/// Before a run, the Deployment's own settings are recorded, unless an earlier run has left the rollout held.
#[rstest]
#[case::own(rollout(10, 700), rollout(10, 700), false)]
#[case::own_and_long(rollout(299, 700), rollout(299, 700), false)]
#[case::left_behind(rollout(300, 700), RolloutSettings::default(), true)]
fn a_held_rollout_that_was_left_behind(
    #[case] found: RolloutSettings,
    #[case] recorded: RolloutSettings,
    #[case] held: bool,
) {
    let mut snapshot = snapshot();
    snapshot.deployment.as_mut().unwrap().rollout = found;
    let seen = observed(&snapshot, None);
    assert_eq!((seen.rollout, seen.held), (recorded, held));
}

#[test]
fn during_a_run_a_rollout_is_held_if_its_settings_are_not_those_of_the_start() {
    let mut run = run();
    run.record.rollout = rollout(10, 700);
    let mut snapshot = snapshot();
    snapshot.deployment.as_mut().unwrap().rollout = rollout(10, 700);
    assert!(!observed(&snapshot, Some(&run)).held);
    snapshot.deployment.as_mut().unwrap().rollout = rollout(0, 700);
    assert!(observed(&snapshot, Some(&run)).held);
}

/// The settings of a mark are written into the Deployment, so only valid ones are used.
#[rstest]
#[case::valid(rollout(10, 700), true)]
#[case::largest(rollout(299, 86_400), true)]
#[case::smallest(rollout(0, 1), true)]
#[case::held(rollout(300, 700), false)]
#[case::negative(rollout(-1, 700), false)]
#[case::deadline_not_larger(rollout(10, 10), false)]
#[case::deadline_too_long(rollout(10, 86_401), false)]
fn rollout_settings_are_bounded(#[case] settings: RolloutSettings, #[case] used: bool) {
    let expected = if used { settings } else { RolloutSettings::default() };
    assert_eq!(bounded(settings), expected);
    let mut run = run();
    run.record.rollout = settings;
    let mark = observed(&marked(&run), None).mark.unwrap();
    assert_eq!(mark.record.rollout, expected);
}

/// A cluster where this run has marked `system`.
fn marked(run: &Run<Crt>) -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.tokens.tokens[0].annotations = annotation(run);
    snapshot
}

fn annotation(run: &Run<Crt>) -> BTreeMap<String, String> {
    [(MARK.into(), serde_json::to_string(&Mark::of(run)).unwrap())].into()
}

#[test]
fn a_mark_belongs_to_one_run() {
    let run = run_at(Direction::Rollback, Phase::Make);
    let seen = observed(&marked(&run), Some(&run));
    assert_eq!(seen.mark_of(&run.id.to_string()), Some(&Mark::of(&run)));
    assert_eq!(seen.mark_of("x7k2p"), None);
}

#[rstest]
#[case::no_json("x7k2p/forward")]
#[case::without_record(r#"{"run":"new","direction":"forward"}"#)]
#[case::unknown_direction(r#"{"run":"new","direction":"back","old":"9f38f0b8a6","oldSecret":"","rollout":{"minReadySeconds":0,"progressDeadlineSeconds":600}}"#)]
#[case::malformed_fingerprint(r#"{"run":"new","direction":"forward","old":"secret","oldSecret":"","rollout":{"minReadySeconds":0,"progressDeadlineSeconds":600}}"#)]
fn a_malformed_mark_is_none(#[case] text: &str) {
    let mut snapshot = snapshot();
    snapshot.tokens.tokens[0].annotations = [(MARK.into(), text.into())].into();
    assert_eq!(observed(&snapshot, None).mark, None);
}

/// The Secret's mark counts. After a migration into a Secret the mark is still on the token.
#[test]
fn the_mark_of_the_secret_counts_before_the_mark_of_the_token() {
    let (earlier, later) = (run(), run_at(Direction::Rollback, Phase::Make));
    let mut snapshot = marked(&earlier);
    snapshot.storage = TokenStorage::Secret;
    snapshot.tokens.tokens[0].secret = Some(token_secret("O", None));
    let direction = |snapshot: &Snapshot| observed(snapshot, None).mark.unwrap().direction;
    assert_eq!(direction(&snapshot), Direction::Forward);
    snapshot.tokens.tokens[0].secret.as_mut().unwrap().annotations = annotation(&later);
    assert_eq!(direction(&snapshot), Direction::Rollback);
}

#[rstest]
#[case::of_this_run(Some("new/forward"), Some(Direction::Forward))]
#[case::of_this_run_in_another_direction(Some("new/rollback"), Some(Direction::Rollback))]
#[case::of_another_run(Some("x7k2p/rollback"), None)]
#[case::malformed(Some("new"), None)]
#[case::absent(None, None)]
fn the_direction_in_which_this_run_marked_the_deployment(
    #[case] mark: Option<&str>,
    #[case] expected: Option<Direction>,
) {
    let mut snapshot = snapshot();
    let annotation = mark.map(|mark| (direction::ANNOTATION.into(), mark.into()));
    snapshot.deployment.as_mut().unwrap().annotations.extend(annotation);
    assert_eq!(observed(&snapshot, Some(&run())).deployment_direction, expected);
    assert_eq!(observed(&snapshot, None).deployment_direction, None);
}

/// Where a Deployment names the Secret for N: which value is that?
#[rstest]
#[case::by_content(Some("N"), "N", Some("N"))]
#[case::by_content_even_if_the_name_is_of_another(Some("X"), "N", Some("X"))]
#[case::by_name_if_missing_and_held(None, "N", Some("N"))]
#[case::unknown_if_missing_and_held_by_nothing(None, "O", None)]
fn the_value_of_a_named_secret(
    #[case] content: Option<&str>,
    #[case] system_holds: &str,
    #[case] expected: Option<&str>,
) {
    let mut snapshot = snapshot();
    snapshot.deployment = Ok(deployment("N"));
    snapshot.credentials = content
        .iter()
        .map(|content| Credentials {
            token: Some(value(content)),
            ..credentials("N")
        })
        .collect();
    if content.is_none() {
        // Without a Secret that shows its formula, the name follows from the manifest.
        let name = snapshot.formula().name_for(URL, &value("N"), &snapshot.cluster.id);
        snapshot.deployment.as_mut().unwrap().volume_secret = Some(name);
    }
    snapshot.tokens.tokens = vec![system(system_holds)];
    assert_eq!(observed(&snapshot, Some(&run())).deployed, expected.map(print));
}

/// The Lease may claim that any Secret is the one of the start. Its name stands for a value only if some object has that value.
#[test]
fn the_name_of_the_old_secret_stands_for_no_value_that_is_gone() {
    let mut run = run();
    run.record.old_secret = "cattle-credentials-claimed".into();
    let mut snapshot = snapshot();
    snapshot.deployment.as_mut().unwrap().volume_secret = Some("cattle-credentials-claimed".into());
    assert_eq!(
        observed(&snapshot, Some(&run)).deployed,
        Some(print("O")),
        "system has O"
    );
    snapshot.tokens.tokens = vec![system("N")];
    snapshot.credentials.clear();
    assert_eq!(observed(&snapshot, Some(&run)).deployed, None);
}

#[test]
fn an_unknown_secret_has_no_value() {
    let mut snapshot = snapshot();
    snapshot.deployment.as_mut().unwrap().volume_secret = Some("cattle-credentials-by-hand".into());
    assert_eq!(observed(&snapshot, None).deployed, None);
    assert_eq!(observed(&snapshot, Some(&run())).deployed, None);
}

#[rstest]
#[case::all_pods_use_it(vec![pod("a", "O"), pod("b", "O")], true)]
#[case::no_pod(Vec::new(), true)]
#[case::another_pod(vec![pod("a", "O"), pod("b", "N")], false)]
#[case::another_pod_that_leaves(vec![pod("a", "O"), Pod { terminating: true, ..pod("b", "N") }], false)]
#[case::another_pod_that_has_finished(vec![pod("a", "O"), Pod { finished: true, ..pod("b", "N") }], true)]
#[case::a_pod_without_secret(vec![Pod { secret: None, ..pod("a", "O") }], false)]
fn whether_a_call_proves_the_token_of_the_named_secret(#[case] pods: Vec<Pod>, #[case] expected: bool) {
    let mut snapshot = snapshot();
    snapshot.pods = pods;
    assert_eq!(snapshot.tunnel_is_of_named_secret(), expected);
}

#[test]
fn an_agent_is_connected_with_a_token_that_both_tunnels_use() {
    let connected = |first, second| {
        let mut snapshot = snapshot();
        snapshot.stv = Some(stv_aggregation(first, second));
        observed(&snapshot, None).connected.map(|connected| connected.token)
    };
    assert_eq!(connected("O", "O"), Some(print("O")));
    assert_eq!(connected("O", "N"), None);
}

#[test]
fn finished_pods_are_not_observed() {
    let mut snapshot = snapshot();
    snapshot.pods.push(Pod {
        finished: true,
        ..pod("b", "N")
    });
    let seen = observed(&snapshot, Some(&run()));
    assert!(seen.pods.iter().all(|pod| pod.token == Some(print("O"))));
    assert_eq!(seen.pods.len(), 1);
}

/// What is being deleted holds no value: Rancher stops accepting it.
#[rstest]
#[case::kept(false, &["O", "R", "T", "W"])]
#[case::being_deleted(true, &[])]
fn held_values(#[case] deleting: bool, #[case] expected: &[&str]) {
    let temporary = RegistrationToken {
        labels: [(TEMPORARY_LABEL.into(), String::new())].into(),
        ..token("zz-crt-temporary-new", "T")
    };
    let without_value = RegistrationToken {
        value: Err(ValueError::NotYet),
        ..token("new-token", "")
    };
    let tokens = [system("O"), temporary, token("default-token", "R"), without_value];
    let mut snapshot = snapshot();
    snapshot.tokens.tokens = tokens.map(|token| RegistrationToken { deleting, ..token }).into();
    snapshot.tokens.orphans = vec![TokenSecret {
        deleting,
        ..token_secret("W", None)
    }];
    let seen = observed(&snapshot, None);
    assert_eq!(
        seen.held_values().into_iter().collect::<BTreeSet<_>>(),
        prints(expected)
    );
    if !deleting {
        assert_eq!(seen.temporary, prints(&["T"]));
        assert_eq!(seen.others.into_values().collect::<BTreeSet<_>>(), prints(&["R", "W"]));
    }
}

/// The value that a rescue has made valid again, by its mark.
#[rstest]
#[case::marked(Some("R"), Some("R"), true)]
#[case::another_previous_value(Some("P"), Some("R"), false)]
#[case::not_marked(Some("R"), None, false)]
#[case::dropped(None, Some("R"), false)]
fn a_previous_value_that_a_rescue_has_made_valid_again(
    #[case] previous: Option<&str>,
    #[case] mark: Option<&str>,
    #[case] expected: bool,
) {
    let mut secret = token_secret("O", previous);
    let mark = mark.map(|mark| (REACTIVATED.to_owned(), print(mark).to_string()));
    secret.annotations.extend(mark);
    let seen = observed(&snapshot_with(secret), None);
    let by = Reactivated::Previous("system".to_owned());
    let expected: BTreeMap<_, _> = expected.then(|| (print("R"), by)).into_iter().collect();
    assert_eq!(seen.reactivated, expected);
}

#[rstest]
#[case::of_a_rescue("reactivated", true)]
#[case::of_a_rotation("true", false)]
fn a_temporary_token_says_whose_it_is(#[case] label: &str, #[case] expected: bool) {
    let mut snapshot = snapshot();
    let mut temporary = token("zz-crt", "R");
    temporary.labels.insert(TEMPORARY_LABEL.into(), label.into());
    snapshot.tokens.tokens.push(temporary);
    let seen = observed(&snapshot, None);
    assert_eq!(seen.temporary, prints(&["R"]));
    assert_eq!(seen.reactivated.contains_key(&print("R")), expected);
}

#[rstest]
#[case::in_ten_minutes(Some(600), true)]
#[case::later(Some(601), false)]
#[case::too_soon_to_write(Some(300), false)]
#[case::just_in_time(Some(301), true)]
#[case::past(Some(-1), false)]
#[case::none(None, false)]
fn an_end_that_a_rescue_has_set(#[case] ends_in: Option<i64>, #[case] expected: bool) {
    let mut snapshot = snapshot_with(token_secret("O", None));
    snapshot.tokens.tokens[0].status_grace_ends_at = ends_in.map(|seconds| seconds_ago(-seconds));
    assert_eq!(observed(&snapshot, None).ending.contains("system"), expected);
}

/// A rescue knows the Secret of each token by Rancher's formula, and that of a lost value by its content.
#[test]
fn a_rescue_knows_which_secret_has_which_value() {
    let mut snapshot = snapshot();
    snapshot.is_rescue = true;
    snapshot.tokens.tokens[0] = system("N");
    snapshot.tokens.tokens.push(token("default-token", "D"));
    let names = snapshot.names(None, URL);
    let (formula, id) = (snapshot.formula(), snapshot.cluster.id.clone());
    let by_formula = |token: &str| formula.name_for(URL, &value(token), &id);
    assert_eq!(names.of(print("N")), Some(by_formula("N").as_str()));
    assert_eq!(names.of(print("D")), Some(by_formula("D").as_str()));
    assert_eq!(names.of(print("O")), snapshot.named_secret());
    let seen = snapshot.observed(&names, None);
    assert_eq!((seen.deployed, seen.occupied.is_empty()), (Some(print("O")), true));
    // The Secret that should have N has another value.
    let name = Formula::of_manifest(false).name_for(URL, &value("N"), &id);
    snapshot.credentials[0].object.name.clone_from(&name);
    snapshot.deployment.as_mut().unwrap().volume_secret = Some(name);
    let names = snapshot.names(None, URL);
    let seen = snapshot.observed(&names, None);
    assert_eq!(seen.deployed, Some(print("O")));
    assert_eq!(seen.occupied.keys().copied().collect::<BTreeSet<_>>(), prints(&["N"]));
}

mod unread;
