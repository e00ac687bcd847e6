use std::collections::BTreeMap;

use cli::app::GlobalFlags;
use rancher::provisioned::{Machine, MachinePlan};
use rancher::token::RegistrationToken;
use rstest::rstest;

use super::super::inputs::Unavailable;
use super::*;
use crate::controller::{REACTIVATED, REACTIVATED_VALUE, TEMPORARY_LABEL};
use crate::fixtures::{cluster, credentials, healthy, id, print, system, token, token_secret, value};

/// Its agent was restarted with D, which Rancher rejects, and nothing of the cluster can be read.
fn lost() -> DiagnosisInputs {
    let no_tunnel = || Unavailable("the cluster's agent is not connected to Rancher".to_owned());
    let mut cluster = cluster("N");
    cluster.conditions = [("Connected".to_owned(), ConditionStatus::False)].into();
    DiagnosisInputs {
        cluster,
        deployment: Err(no_tunnel()),
        pods: Err(no_tunnel()),
        record: Err(no_tunnel()),
        credentials: Err(no_tunnel()),
        probe: Err(no_tunnel()),
        call: Some(Err(no_tunnel())),
        ..healthy()
    }
}

/// The same, and a context leads to it.
fn readable() -> DiagnosisInputs {
    let DiagnosisInputs { cluster, call, .. } = lost();
    DiagnosisInputs {
        cluster,
        call,
        credentials: Ok(Some(credentials("D"))),
        probe: Ok(ProbeResult::Rejected),
        ..healthy()
    }
}

fn by_context(may_write: bool) -> Means {
    Means {
        route: Some(Route::Context("direct".to_owned())),
        may_write,
        ..Means::default()
    }
}

fn through_rancher() -> Means {
    Means {
        route: Some(Route::ThroughRancher),
        may_write: true,
        ..Means::default()
    }
}

/// With the old token on stdin, and what Rancher answers to it.
fn with_old_token(result: ProbeResult) -> Means {
    Means {
        reactivates: true,
        given: Some((print("D"), result)),
        ..through_rancher()
    }
}

fn accepted(by: &str) -> ProbeResult {
    ProbeResult::Accepted {
        cluster: Some(by.parse().unwrap()),
    }
}

/// Its machine answers, or does not.
fn provisioned(inputs: DiagnosisInputs, is_applied: bool, healthy: ConditionStatus) -> DiagnosisInputs {
    let plan = MachinePlan {
        planned: None,
        applied: None,
        is_applied,
        updated: None,
    };
    let machine = Machine {
        name: "m-1".to_owned(),
        address: None,
        created: None,
        node: None,
        healthy: Some(healthy),
    };
    DiagnosisInputs {
        plans: Ok(BTreeMap::from([("m-1".to_owned(), plan)])),
        machines: Ok(vec![machine]),
        ..inputs
    }
}

fn without_tokens(inputs: DiagnosisInputs) -> DiagnosisInputs {
    DiagnosisInputs {
        tokens: Ok(Tokens::default()),
        ..inputs
    }
}

/// Cause, way and what is missing.
fn diagnosed(inputs: &DiagnosisInputs, means: &Means) -> String {
    let Diagnosis {
        cause, way, missing, ..
    } = Diagnosis::of(inputs, means);
    let way = way.map_or_else(|| "-".to_owned(), |way| format!("{way:?}"));
    let missing = missing.map_or_else(|| "-".to_owned(), |missing| missing.to_string());
    format!("{cause:?} {way} {missing}")
}

#[rstest]
#[case::healthy(healthy(), through_rancher(), "None - -")]
#[case::valid_token(
    DiagnosisInputs { probe: healthy().probe, ..readable() }, by_context(true), "Other - -")]
#[case::not_connected(lost(), through_rancher(), "NotConnected - --downstream-context")]
#[case::context_without_response(lost(), by_context(false), "NotConnected - --downstream-context")]
#[case::revoked(readable(), by_context(true), "TokenRevoked Context -")]
#[case::revoked_and_still_connected(
    DiagnosisInputs { call: healthy().call, ..readable() }, through_rancher(), "TokenRevoked ThroughRancher -")]
#[case::revoked_and_only_readable(readable(), by_context(false), "TokenRevoked - --reactivate-old-token")]
#[case::revoked_only_readable_and_permitted(
    readable(), Means { reactivates: true, ..by_context(false) }, "TokenRevoked OldToken -")]
#[case::tokens_deleted_and_only_readable(
    without_tokens(readable()),
    by_context(false),
    "TokensDeleted - --reactivate-old-token"
)]
#[case::tokens_deleted_only_readable_and_permitted(
    without_tokens(readable()), Means { reactivates: true, ..by_context(false) }, "TokensDeleted OldToken -")]
#[case::tokens_deleted_and_that_of_another_cluster(
    DiagnosisInputs { probe: Ok(accepted("c-other")), ..without_tokens(readable()) },
    Means { reactivates: true, ..by_context(false) }, "TokensDeleted - permissions on the downstream cluster")]
#[case::secret_missing(
    DiagnosisInputs { credentials: Ok(None), ..readable() }, by_context(true), "SecretMissing Context -")]
#[case::secret_missing_and_only_readable(
    DiagnosisInputs { credentials: Ok(None), ..readable() }, Means { reactivates: true, ..by_context(false) },
    "SecretMissing - permissions on the downstream cluster")]
#[case::secret_without_token(
    DiagnosisInputs { credentials: Ok(Some(rancher::agent::Credentials { token: None, ..credentials("D") })), ..readable() },
    by_context(true), "SecretWithoutToken Context -")]
#[case::token_of_another_cluster(
    DiagnosisInputs { probe: Ok(accepted("c-other")), ..readable() }, by_context(true), "TokenOfAnotherCluster Context -")]
#[case::token_of_another_cluster_is_never_made_valid(
    DiagnosisInputs { probe: Ok(accepted("c-other")), ..readable() }, Means { reactivates: true, ..by_context(false) },
    "TokenOfAnotherCluster - permissions on the downstream cluster")]
#[case::token_of_another_cluster_by_a_context_that_is_only_trusted(
    DiagnosisInputs { probe: Ok(accepted("c-other")), ..readable() }, Means { trusts_context: true, ..by_context(true) },
    "TokenOfAnotherCluster - a context that is proven to lead to the cluster")]
#[case::tokens_deleted(without_tokens(lost()), through_rancher(), "TokensDeleted - --downstream-context")]
#[case::tokens_deleted_while_connected(without_tokens(healthy()), through_rancher(), "TokensDeleted ThroughRancher -")]
#[case::no_agent(DiagnosisInputs { deployment: Ok(None), ..readable() }, by_context(true), "NoAgent - -")]
#[case::unknown_answer(
    DiagnosisInputs { probe: Err(Unavailable("no answer".into())), ..readable() }, by_context(true), "Unknown Context -")]
#[case::old_token_permitted_without_value(
    lost(), Means { reactivates: true, ..through_rancher() }, "NotConnected - --token-stdin")]
#[case::old_token(lost(), with_old_token(ProbeResult::Rejected), "NotConnected OldToken -")]
#[case::old_token_that_is_valid(
    lost(),
    with_old_token(accepted("c-x7k2p")),
    "NotConnected - --token-stdin with the token of the agent"
)]
#[case::old_token_of_another_cluster(
    lost(),
    with_old_token(accepted("c-other")),
    "NotConnected - --token-stdin with the token of the agent"
)]
#[case::a_context_comes_before_the_old_token(
    readable(), Means { reactivates: true, ..by_context(true) }, "TokenRevoked Context -")]
#[case::machine_with_its_plan(
    provisioned(lost(), true, ConditionStatus::True),
    through_rancher(),
    "NotConnected ByRancher -"
)]
#[case::machine_that_answers_comes_before_the_old_token(
    provisioned(lost(), true, ConditionStatus::True),
    with_old_token(ProbeResult::Rejected),
    "NotConnected ByRancher -"
)]
#[case::silent_machine(
    provisioned(lost(), false, ConditionStatus::False),
    through_rancher(),
    "NotConnected - --downstream-context"
)]
#[case::tokens_deleted_and_a_machine_answers(
    provisioned(without_tokens(lost()), true, ConditionStatus::True),
    through_rancher(),
    "TokensDeleted ByRancher -"
)]
fn the_cause_and_the_way_follow_from_the_inputs(
    #[case] inputs: DiagnosisInputs,
    #[case] means: Means,
    #[case] expected: &str,
) {
    assert_eq!(diagnosed(&inputs, &means), expected);
}

#[test]
fn a_cluster_that_was_never_connected_is_not_rescued() {
    let mut inputs = lost();
    inputs.cluster.conditions.clear();
    assert_eq!(diagnosed(&inputs, &through_rancher()), "NoAgent - -");
    assert!(!is_disconnected(&inputs.cluster));
    assert!(is_disconnected(&lost().cluster) && !is_disconnected(&healthy().cluster));
}

#[rstest]
#[case::context(lost(), through_rancher(), "kubectl crt rescue c-x7k2p --downstream-context CONTEXT")]
#[case::reactivation(readable(), by_context(false), "kubectl crt rescue c-x7k2p --reactivate-old-token")]
#[case::value(
    lost(), Means { reactivates: true, ..through_rancher() },
    "kubectl crt rescue c-x7k2p --reactivate-old-token --token-stdin --yes")]
#[case::nothing(readable(), by_context(true), "kubectl crt rescue c-x7k2p")]
fn the_command_has_the_flag_that_is_missing(
    #[case] inputs: DiagnosisInputs,
    #[case] means: Means,
    #[case] expected: &str,
) {
    let commands = Commands::new::<crate::cli::Crt>("c-x7k2p", &GlobalFlags::default());
    let diagnosis = Diagnosis::of(&inputs, &means);
    assert_eq!(diagnosis.command(&commands), expected);
    assert_eq!(diagnosis.hints(&commands).is_empty(), diagnosis.missing.is_none());
}

fn marked(mut token: RegistrationToken, previous: &str, mark: Option<&str>) -> RegistrationToken {
    let mut secret = token_secret("N", Some(previous));
    secret.annotations = mark
        .map(|mark| (REACTIVATED.to_owned(), print(mark).to_string()))
        .into_iter()
        .collect();
    token.secret = Some(secret);
    token.status_grace_ends_at = "2026-11-30T12:10:00Z".parse().ok();
    token
}

#[test]
fn only_what_a_rescue_has_made_valid_is_an_alarm() {
    let temporary = |label: &str| {
        let mut token = token("zz-1", "D");
        token.labels = [(TEMPORARY_LABEL.to_owned(), label.to_owned())].into();
        token
    };
    let found = |token: RegistrationToken| {
        reactivated(&[token])
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let made = format!("a rescue has made the revoked token {} valid again", print("D"));
    assert_eq!(found(temporary(REACTIVATED_VALUE)), std::slice::from_ref(&made));
    assert_eq!(found(temporary("true")), [""; 0], "that of a rotation");
    assert_eq!(
        found(marked(system("N"), "D", Some("D"))),
        [format!("{made} until 2026-11-30T12:10:00Z")]
    );
    assert_eq!(
        found(marked(system("N"), "D", Some("E"))),
        [""; 0],
        "the mark of an earlier value"
    );
    assert_eq!(found(marked(system("N"), "D", None)), [""; 0]);
    let alarm = reactivated(&[temporary(REACTIVATED_VALUE)])[0].alarm(
        None,
        &Commands::new::<crate::cli::Crt>(id().to_string(), &GlobalFlags::default()),
    );
    assert!(alarm.ends_with("; `kubectl crt rotate c-x7k2p` revokes it"), "{alarm}");
    assert_eq!(value("D").fingerprint(), print("D"));
}
