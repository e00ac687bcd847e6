//! What each object, result and age means for the observed state.

use client::access::Right;
use client::error::Error;
use rancher::api_token::{Expiry, Mark};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::backup::BackupMark;
use crate::fixtures::{self, value};
use crate::rotation::record::Record;

const RUN: &str = "new";
const SUBJECT: &str = "argocd/one";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const NOW: i64 = 1_000_000;

fn token(name: &str) -> TokenRef {
    token_ref(&value(name))
}

fn name(name: &str) -> Name {
    Name(name.to_owned())
}

fn cluster(secret: &str, token: &str, metadata: Value) -> ClusterSecret {
    fixtures::cluster(
        secret,
        &fixtures::config(token),
        serde_json::from_value(metadata).unwrap(),
    )
}

fn api_token(name: &str, description: &str) -> ApiToken {
    ApiToken {
        description: description.to_owned(),
        ..fixtures::api_token(name, Expiry::At(at(NOW + 3600)))
    }
}

fn run(direction: Direction, phase: Phase) -> Run<ArgocdRancher> {
    let record = Record {
        user: "u-me".into(),
        old: token("token-old"),
        old_worked: true,
        keep_old: false,
        new: Some(token("token-new")),
        used_before: None,
        placed: [].into(),
        revoked: [].into(),
    };
    Run {
        direction,
        phase,
        ..Run::begin(engine::run::RunId::placeholder(), record)
    }
}

fn observed(snapshot: &Snapshot, issued_here: &BTreeMap<TokenName, Secret>, in_progress: bool) -> Observed {
    let run = run(Direction::Forward, Phase::Make);
    let inputs = Inputs {
        snapshot,
        run: in_progress.then_some(&run),
        now: at(NOW),
        user: "u-me",
        subject: SUBJECT,
        argocd: Some("here"),
        issued_here,
        same_rancher: true,
        watched: true,
        use_forced: false,
        keep_old: false,
        discard: false,
    };
    inputs.observed()
}

fn snapshot(cluster: Option<ClusterSecret>) -> Snapshot {
    Snapshot {
        cluster,
        backup: None,
        tokens: Vec::new(),
    }
}

#[rstest]
#[case::accepted(works(), Acceptance::Accepted)]
#[case::owner_is_not_a_member(CallResult::NotAMember { user: None }, Acceptance::Accepted)]
#[case::owner_lacks_a_permission(CallResult::NoDownstreamPermission { message: String::new() }, Acceptance::Accepted)]
#[case::cluster_is_gone(CallResult::ClusterGone, Acceptance::Accepted)]
#[case::redirected(CallResult::Redirected { path: "/api".into(), to: "/".into() }, Acceptance::Accepted)]
#[case::rejected(CallResult::Rejected, Acceptance::Rejected)]
#[case::agent_is_offline(CallResult::AgentOffline, unknown(&CallResult::AgentOffline))]
#[case::no_answer(CallResult::NoAnswer { within: FRESH }, unknown(&CallResult::NoAnswer { within: FRESH }))]
#[case::unexpected_response(CallResult::Unexpected { code: 418 }, unknown(&CallResult::Unexpected { code: 418 }))]
fn an_unclear_result_of_a_call_is_unknown(#[case] result: CallResult, #[case] expected: Acceptance) {
    assert_eq!(acceptance(&result), expected);
}

fn unknown(result: &CallResult) -> Acceptance {
    Acceptance::Unknown(result.to_string())
}

fn unavailable() -> CallResult {
    CallResult::Unavailable {
        code: 503,
        message: String::new(),
    }
}

#[rstest]
#[case::every_replica_rejects_it(&[CallResult::Rejected, CallResult::Rejected, CallResult::Rejected], Acceptance::Rejected)]
#[case::one_accepts_it(&[CallResult::Rejected, works(), CallResult::Rejected], Acceptance::Accepted)]
#[case::one_does_not_answer(&[CallResult::Rejected, CallResult::Rejected, unavailable()], unknown(&unavailable()))]
#[case::too_few_calls(&[CallResult::Rejected, CallResult::Rejected], Acceptance::Unknown("not every call was made".into()))]
#[case::no_call(&[], Acceptance::Unknown("not every call was made".into()))]
fn a_token_is_rejected_only_if_every_connection_rejects_it(
    #[case] results: &[CallResult],
    #[case] expected: Acceptance,
) {
    assert_eq!(acceptance_everywhere(results), expected);
}

fn works() -> CallResult {
    CallResult::Accepted { kubernetes: None }
}

fn lacking() -> Vec<Right> {
    vec![Right::new("list", "", "nodes")]
}

#[rstest]
#[case::accepted(works(), Some(works()), Some(Ok(vec![])), &[], "accepted")]
#[case::rejected(CallResult::Rejected, None, None, &[], "rejected")]
#[case::rejected_is_never_overridden(CallResult::Rejected, None, None, &[check::OFFLINE, check::RIGHTS], "rejected")]
#[case::agent_offline(works(), Some(CallResult::AgentOffline), None, &[], "unknown")]
#[case::agent_offline_overridden(works(), Some(CallResult::AgentOffline), None, &[check::OFFLINE], "accepted")]
#[case::agent_offline_other_check(works(), Some(CallResult::AgentOffline), None, &[check::RIGHTS], "unknown")]
#[case::agent_silent_overridden(works(), Some(CallResult::NoAnswer { within: FRESH }), None, &[check::OFFLINE], "accepted")]
#[case::rancher_unclear_too(unavailable(), Some(CallResult::AgentOffline), None, &[check::OFFLINE], "unknown")]
#[case::rights_missing(works(), Some(works()), Some(Ok(lacking())), &[], "unknown")]
#[case::rights_overridden(works(), Some(works()), Some(Ok(lacking())), &[check::RIGHTS], "accepted")]
#[case::rights_unknown(works(), Some(works()), Some(Err(Error::failed("no answer"))), &[check::RIGHTS], "unknown")]
#[case::not_a_member(works(), Some(CallResult::NotAMember { user: None }), None, &[check::OFFLINE, check::RIGHTS], "unknown")]
fn a_new_token_is_accepted_if_every_failure_is_overridden(
    #[case] rancher: CallResult,
    #[case] proxy: Option<CallResult>,
    #[case] missing: Option<Result<Vec<Right>, Error>>,
    #[case] forced: &[Check],
    #[case] expected: &str,
) {
    let forced = forced.iter().copied().collect();
    let results = TokenResults {
        rancher,
        proxy,
        missing,
    };
    let word = match full_acceptance(&results, &forced) {
        Acceptance::Accepted => "accepted",
        Acceptance::Rejected => "rejected",
        Acceptance::Unknown(why) if !why.is_empty() => "unknown",
        other => panic!("{other:?}"),
    };
    assert_eq!(word, expected);
}

#[test]
fn a_result_is_fresh_for_ten_seconds_and_a_call_is_recorded_after_one_and_a_half() {
    assert!(is_fresh(Duration::from_millis(9_999)) && !is_fresh(Duration::from_secs(10)));
    assert!(!is_recorded(Duration::from_millis(1_499)) && is_recorded(Duration::from_millis(1_500)));
}

#[rstest]
#[case::never_expires(Expiry::Never, false, true, Validity::Valid)]
#[case::expiry_unknown(Expiry::Unknown, false, true, Validity::Valid)]
#[case::in_an_hour(Expiry::At(at(NOW + 3600)), false, true, Validity::Valid)]
#[case::just_beyond_the_margin(Expiry::At(at(NOW + 301)), false, true, Validity::Valid)]
#[case::at_the_margin(Expiry::At(at(NOW + 300)), false, true, Validity::Expiring)]
#[case::in_a_second(Expiry::At(at(NOW + 1)), false, true, Validity::Expiring)]
#[case::now(Expiry::At(at(NOW)), false, true, Validity::Invalid)]
#[case::rancher_says_expired(Expiry::At(at(NOW + 3600)), true, true, Validity::Invalid)]
#[case::disabled(Expiry::Never, false, false, Validity::Invalid)]
fn a_token_expires_soon_within_five_minutes(
    #[case] expiry: Expiry,
    #[case] expired: bool,
    #[case] enabled: bool,
    #[case] expected: Validity,
) {
    let token = ApiToken {
        expiry,
        expired,
        enabled,
        ..api_token("token-new", "")
    };
    assert_eq!(validity(&token, at(NOW)), expected);
}

fn how(probe: Option<Probe>) -> &'static str {
    match probe {
        None => "not",
        Some(Probe::Once(_)) => "once",
        Some(Probe::Everywhere(_)) => "everywhere",
        Some(Probe::Fully(_)) => "fully",
    }
}

#[rstest]
#[case::first_observation(Direction::Forward, Phase::Make, true, true, "once")]
#[case::in_between(Direction::Forward, Phase::Prove, false, true, "not")]
#[case::about_to_be_revoked(Direction::Forward, Phase::Retire, false, true, "once")]
#[case::revoked(Direction::Forward, Phase::Retire, false, false, "everywhere")]
#[case::to_be_restored(Direction::Rollback, Phase::Prove, false, true, "once")]
#[case::to_be_restored_and_not_listed(Direction::Rollback, Phase::Prove, false, false, "once")]
#[case::not_restored(Direction::RollForward, Phase::Confirm, false, true, "not")]
fn the_old_token_is_probed_where_it_matters(
    #[case] direction: Direction,
    #[case] phase: Phase,
    #[case] is_first: bool,
    #[case] is_listed: bool,
    #[case] expected: &str,
) {
    let mut seen = observed(&snapshot(None), &BTreeMap::new(), true);
    seen.old = is_listed.then_some(Validity::Valid);
    let probe = probe_of_old(&seen, &run(direction, phase), is_first);
    assert_eq!(how(probe), expected);
}

#[rstest]
#[case::before_it_is_placed(Direction::Forward, Phase::Make, true, false, false, "fully")]
#[case::not_listed(Direction::Forward, Phase::Make, false, false, false, "not")]
#[case::use_is_waited_for(Direction::Forward, Phase::Prove, true, true, false, "not")]
#[case::after_the_quiet_time(Direction::Forward, Phase::Prove, true, true, true, "fully")]
#[case::rolled_forward(Direction::RollForward, Phase::Make, true, false, false, "fully")]
#[case::rolled_back(Direction::Rollback, Phase::Prove, true, false, false, "not")]
#[case::about_to_be_revoked(Direction::Rollback, Phase::Retire, true, false, true, "once")]
#[case::revoked(Direction::Rollback, Phase::Retire, false, false, true, "everywhere")]
fn the_new_token_is_not_probed_while_waiting_for_argo_cd_to_use_it(
    #[case] direction: Direction,
    #[case] phase: Phase,
    #[case] is_listed: bool,
    #[case] is_held: bool,
    #[case] quiet_time_passed: bool,
    #[case] expected: &str,
) {
    let held = if is_held { "token-new" } else { "token-old" };
    let mut snapshot = snapshot(Some(cluster("one", held, json!({}))));
    if is_listed {
        snapshot.tokens.push(api_token("token-new", &of_run(RUN)));
    }
    let mut run = run(direction, phase);
    if quiet_time_passed {
        run.timers.insert(Timer::Quiet, true);
    }
    let seen = observed(&snapshot, &BTreeMap::new(), true);
    assert_eq!(how(probe_of_new(&seen, &run)), expected);
}

#[rstest]
#[case::lost(Direction::Forward, Phase::Retire, false, false, true)]
#[case::known(Direction::Forward, Phase::Retire, false, true, false)]
#[case::not_revoked_yet(Direction::Forward, Phase::Prove, false, false, false)]
#[case::to_stay_valid(Direction::Forward, Phase::Retire, true, false, false)]
#[case::rolled_forward(Direction::RollForward, Phase::Confirm, false, false, false)]
fn a_lost_old_token_is_reported_where_it_should_be_rejected(
    #[case] direction: Direction,
    #[case] phase: Phase,
    #[case] keep_old: bool,
    #[case] is_known: bool,
    #[case] expected: bool,
) {
    let mut run = run(direction, phase);
    run.record.keep_old = keep_old;
    assert_eq!(unproven(&run, is_known).is_some(), expected);
}

fn connection(connected: Option<bool>, kinds: u64, age: Option<u64>) -> Connection {
    Connection {
        connected,
        kinds: Some(kinds),
        age,
    }
}

#[rstest]
#[case::younger_than_the_token(Ok(connection(Some(true), 56, Some(3))), Some(96), ClusterSync::Since)]
#[case::it_may_be_older_by_nearly_a_second(Ok(connection(Some(true), 56, Some(4))), Some(96), ClusterSync::Before)]
#[case::no_age(Ok(connection(Some(true), 56, None)), Some(96), ClusterSync::Before)]
#[case::placed_by_no_run(Ok(connection(Some(true), 56, Some(0))), None, ClusterSync::Before)]
#[case::failed(Ok(connection(Some(false), 56, Some(3))), Some(96), ClusterSync::Failed)]
#[case::watches_nothing(Ok(connection(Some(true), 0, Some(3))), Some(96), ClusterSync::Unknown(BLIND.into()))]
#[case::not_connected_yet(Ok(connection(None, 56, Some(3))), Some(96),
    ClusterSync::Unknown("its metrics do not contain the connection state of the cluster".into()))]
#[case::unreadable(Err("forbidden".into()), Some(96), ClusterSync::Unknown("forbidden".into()))]
fn argo_cd_has_read_the_cluster_if_its_cache_is_younger_than_the_token(
    #[case] metrics: Result<Connection, String>,
    #[case] placed_at: Option<i64>,
    #[case] expected: ClusterSync,
) {
    assert_eq!(cluster_sync(metrics, placed_at.map(at), at(100)), expected);
}

#[rstest]
#[case::before_it_would_be_revoked(Some((Direction::Forward, true)), true)]
#[case::in_the_quiet_time(Some((Direction::Forward, false)), false)]
#[case::in_a_rollback(Some((Direction::Rollback, true)), false)]
#[case::before_a_run(None, false)]
fn all_secrets_are_searched_right_before_the_old_token_is_revoked(
    #[case] in_progress: Option<(Direction, bool)>,
    #[case] expected: bool,
) {
    let run = in_progress.map(|(direction, quiet_time_passed)| {
        let mut run = run(direction, Phase::Prove);
        run.timers.insert(Timer::Quiet, quiet_time_passed);
        run
    });
    assert_eq!(asks_who_shares(run.as_ref()), expected);
}

#[test]
fn other_secrets_share_a_token_by_its_name() {
    let clusters = [
        cluster("one", "token-old", json!({})),
        cluster("two", "token-old", json!({})),
        cluster("three", "token-other", json!({})),
    ];
    assert_eq!(sharing(&clusters, "one", &name("token-old")), ["two"]);
}

fn of_run(run: &str) -> String {
    mark::of_run(run, "argocd", "one", Some("here")).to_string()
}

fn of_argocd(argocd: Option<&str>) -> String {
    mark::of_run(RUN, "argocd", "one", argocd).to_string()
}

#[rstest]
#[case::of_this_run(of_run(RUN), true)]
#[case::of_another_run(of_run("older"), false)]
#[case::for_another_secret(mark::of_run(RUN, "argocd", "two", Some("here")).to_string(), false)]
#[case::for_another_argo_cd(of_argocd(Some("there")), false)]
#[case::of_a_release_without_identity(of_argocd(None), false)]
#[case::by_another_program(Mark::new("other", RUN, SUBJECT).to_string(), false)]
#[case::by_hand("made by hand".to_owned(), false)]
fn a_token_is_of_this_run_by_its_mark(#[case] description: String, #[case] expected: bool) {
    let mut snapshot = snapshot(Some(cluster("one", "token-old", json!({}))));
    snapshot.tokens.push(api_token("token-new", &description));
    let seen = observed(&snapshot, &BTreeMap::new(), true);
    assert_eq!(seen.issued.contains_key(&name("token-new")), expected);
    assert!(observed(&snapshot, &BTreeMap::new(), false).issued.is_empty());
}

#[test]
fn a_token_of_a_release_without_identity_is_ours_if_its_value_was_found() {
    let mut snapshot = snapshot(Some(cluster("one", "token-new", json!({}))));
    snapshot.tokens.push(api_token("token-new", &of_argocd(None)));
    let seen = observed(&snapshot, &BTreeMap::new(), true);
    assert!(seen.issued.contains_key(&name("token-new")));
}

fn stored_backup(run: &str) -> StoredBackup {
    StoredBackup {
        object: fixtures::object("one-rotation"),
        mark: BackupMark {
            run: run.to_owned(),
            ..BackupMark::default()
        },
        old: None,
        new: None,
    }
}

#[rstest]
#[case::lost("token-old", None, false, false)]
#[case::in_the_cluster_secret("token-new", None, false, true)]
#[case::in_the_backup("token-old", Some("token-new"), false, true)]
#[case::in_this_process("token-old", None, true, true)]
fn the_value_of_a_new_token_is_known_where_it_is_stored(
    #[case] held: &str,
    #[case] backup: Option<&str>,
    #[case] issued_here: bool,
    #[case] expected: bool,
) {
    let mut snapshot = snapshot(Some(cluster("one", held, json!({}))));
    snapshot.tokens.push(api_token("token-new", &of_run(RUN)));
    snapshot.backup = backup.map(|new| StoredBackup {
        new: Some(value(new)),
        ..stored_backup(RUN)
    });
    let here = issued_here.then(|| ("token-new".parse().unwrap(), value("token-new")));
    let seen = observed(&snapshot, &here.into_iter().collect(), true);
    let issued = &seen.issued[&name("token-new")];
    assert_eq!(issued.value.is_some(), expected);
}

#[rstest]
#[case::of_this_run(RUN, true)]
#[case::of_another_run("older", false)]
fn the_backup_of_another_run_does_not_count(#[case] run: &str, #[case] expected: bool) {
    let mut snapshot = snapshot(None);
    snapshot.backup = Some(StoredBackup {
        old: Some(value("token-old")),
        ..stored_backup(run)
    });
    let backup = observed(&snapshot, &BTreeMap::new(), true).backup;
    assert_eq!(backup.is_some(), expected);
    assert_eq!(observed(&snapshot, &BTreeMap::new(), false).backup, None);
}

#[test]
fn a_secret_that_is_gone_or_being_deleted_is_missing() {
    let deleting = ClusterSecret {
        deleting: true,
        ..cluster("one", "token-old", json!({}))
    };
    for found in [None, Some(deleting)] {
        let seen = observed(&snapshot(found), &BTreeMap::new(), true);
        assert_eq!(seen.secret, SecretState::Missing);
    }
}

fn details() -> String {
    let written = WrittenDetails {
        details: run(Direction::Forward, Phase::Place).record.details(None),
        placed_at: Some(at(NOW)),
    };
    serde_json::to_string(&written).unwrap()
}

#[rstest]
#[case::of_this_run("new/rollback", details(), Some((Direction::Rollback, true)))]
#[case::of_another_run("older/rollback", details(), None)]
#[case::of_no_known_direction("new/sideways", details(), None)]
#[case::unreadable_details("new/forward", "{}".to_owned(), Some((Direction::Forward, false)))]
fn the_mark_on_the_cluster_secret_is_read_by_its_own_run(
    #[case] direction: &str,
    #[case] details: String,
    #[case] expected: Option<(Direction, bool)>,
) {
    let annotations = json!({ direction::ANNOTATION: direction, DETAILS: details });
    let cluster = cluster("one", "token-new", json!({ "annotations": annotations }));
    let seen = observed(&snapshot(Some(cluster)), &BTreeMap::new(), true);
    let mark = seen.secret.mark();
    let old = |details: &MarkDetails| details.old == token("token-old");
    let mark = mark.map(|mark| (mark.direction, mark.details.as_ref().is_some_and(old)));
    assert_eq!(mark, expected);
}

#[rstest]
#[case::us(TOOL, json!({}), ConfigWriter::Ours)]
#[case::argo_cd_from_its_copy("argocd-application-controller", json!({}), ConfigWriter::ArgoCd)]
#[case::another_writer("kustomize-controller", json!({}), ConfigWriter::Other("manager \"kustomize-controller\"".into()))]
#[case::argo_cd_that_applies_it(
    "argocd-application-controller",
    json!({ "argocd.argoproj.io/tracking-id": "app:/Secret:argocd/one" }),
    ConfigWriter::Other("manager \"argocd-application-controller\"".into())
)]
fn argo_cd_is_another_writer_only_where_it_applies_the_secret(
    #[case] manager: &str,
    #[case] annotations: Value,
    #[case] expected: ConfigWriter,
) {
    let metadata = json!({
        "annotations": annotations,
        "managedFields": [{
            "manager": manager,
            "operation": "Update",
            "time": "2026-11-22T12:00:00Z",
            "fieldsV1": { "f:data": { "f:config": {} } },
        }],
    });
    assert_eq!(config_writer(&cluster("one", "token-old", metadata)), expected);
}

#[test]
fn an_unrecorded_writer_counts_as_ours() {
    assert_eq!(
        config_writer(&cluster("one", "token-old", json!({}))),
        ConfigWriter::Ours
    );
}

#[test]
fn the_old_token_comes_from_the_run_or_else_from_the_secret() {
    let mut snapshot = snapshot(Some(cluster("one", "token-new", json!({}))));
    snapshot.tokens.push(api_token("token-old", ""));
    let seen = |in_progress| observed(&snapshot, &BTreeMap::new(), in_progress).old;
    assert_eq!((seen(true), seen(false)), (Some(Validity::Valid), None));
}
