use kube::core::Status;
use rstest::rstest;

use super::*;

fn status(code: u16, reason: &str, message: &str) -> Error {
    kube::Error::Api(Status::failure(message, reason).with_code(code).boxed()).into()
}

#[rstest]
#[case(
    404,
    "NotFound",
    "pods \"x\" not found",
    Kind::NotFound,
    "Error from server (NotFound): pods \"x\" not found"
)]
#[case(
    409,
    "AlreadyExists",
    "it exists",
    Kind::AlreadyExists,
    "Error from server (AlreadyExists): it exists"
)]
#[case(
    409,
    "Conflict",
    "modified",
    Kind::Conflict,
    "Error from server (Conflict): modified"
)]
#[case(
    401,
    "Unauthorized",
    "Unauthorized",
    Kind::Unauthorized,
    "error: You must be logged in to the server (Unauthorized)"
)]
#[case(
    503,
    "",
    "",
    Kind::Unavailable,
    "Error from server: the server responded with 503 Service Unavailable"
)]
#[case(
    418,
    "Failed to parse error data",
    "<html>hunter2",
    Kind::Failed,
    "Error from server: the server responded with 418 I'm a teapot"
)]
#[case(599, "", "", Kind::Failed, "Error from server: the server responded with status 599")]
fn a_status_is_reported_like_kubectl(
    #[case] code: u16,
    #[case] reason: &str,
    #[case] message: &str,
    #[case] kind: Kind,
    #[case] words: &str,
) {
    let error = status(code, reason, message);
    assert_eq!((error.kind, error.to_string().as_str()), (kind, words));
}

#[rstest]
#[case(
    "secrets \"a\" is forbidden: User \"bob\" cannot patch resource \"secrets\" in API group \"\" in the namespace \"cattle-system\"",
    "the missing rule, in a Role in namespace cattle-system: {apiGroups: [\"\"], resources: [\"secrets\"], verbs: [\"patch\"]}"
)]
#[case(
    "nodes is forbidden: User \"bob\" cannot list resource \"nodes\" in API group \"\" at the cluster scope",
    "the missing rule, in a ClusterRole: {apiGroups: [\"\"], resources: [\"nodes\"], verbs: [\"list\"]}"
)]
#[case(
    "x is forbidden: User \"bob\" cannot update resource \"deployments/scale\" in API group \"apps\" in the namespace \"n\": why",
    "the missing rule, in a Role in namespace n: {apiGroups: [\"apps\"], resources: [\"deployments/scale\"], verbs: [\"update\"]}"
)]
fn a_missing_permission_has_a_hint_with_the_rule(#[case] message: &str, #[case] hint: &str) {
    let error = status(403, "Forbidden", message);
    assert_eq!(error.kind, Kind::Forbidden);
    assert_eq!(error.hints, [hint]);
}

/// The second one is Rancher's, for an API token that is not valid any more.
#[rstest]
#[case(
    "nodes is forbidden: User \"system:anonymous\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
)]
#[case(
    "clusters.management.cattle.io \"c-x7k2p\" is forbidden: User \"system:unauthenticated\" cannot get resource \"clusters\" in API \
     group \"management.cattle.io\" at the cluster scope"
)]
fn an_unknown_identity_has_no_hint_with_a_rule(#[case] message: &str) {
    let hints = status(403, "Forbidden", message).hints;
    assert_eq!(
        hints,
        ["the server does not accept these credentials: the token is invalid, expired or revoked; use another one"]
    );
}

#[test]
fn a_403_in_other_words_has_no_invented_rule() {
    for message in ["", "no", "you cannot", "you cannot \"x\"", "a cannot b \"c\" d \"e\" f"] {
        assert!(status(403, "Forbidden", message).hints.is_empty(), "{message}");
    }
}

#[test]
fn what_was_tried_is_printed_once_and_outermost_first() {
    let failed: Result<(), _> = Err(status(404, "NotFound", "leases \"x\" not found"));
    let error = failed
        .doing("read Lease x")
        .doing("read Lease x")
        .doing("take the lock on the management cluster");
    assert_eq!(
        error.unwrap_err().to_string(),
        "Error from server (NotFound): cannot take the lock on the management cluster: cannot read Lease x: leases \"x\" not found"
    );
}

#[test]
fn the_value_that_did_not_fit_is_not_quoted() {
    let wrong = serde_json::from_str::<u32>("\"hunter2\"").unwrap_err();
    assert!(wrong.to_string().contains("hunter2"));
    for error in [
        Error::from(kube::Error::SerdeError(
            serde_json::from_str::<u32>("\"hunter2\"").unwrap_err(),
        )),
        Error::from(wrong),
    ] {
        assert_eq!(
            error.to_string(),
            "error: the response of the server does not have the expected fields (line 1, column 9)"
        );
    }
    let invalid = status(
        422,
        "Invalid",
        "Secret \"x\" is invalid: data: Invalid value: \"dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87\"",
    );
    assert!(
        invalid.to_string().ends_with("Invalid value: \"<hidden>\""),
        "{invalid}"
    );
}

#[test]
fn io_errors_have_the_words_of_the_system() {
    let error = Error::from(std::fs::read("/nonexistent").unwrap_err()).doing("read the file");
    assert_eq!(
        error.to_string(),
        "error: cannot read the file: no such file or directory"
    );
    let gone = Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    assert_eq!(gone.kind, Kind::BrokenPipe);
}

#[test]
fn a_repetitive_error_chain_is_reported_by_its_root_cause() {
    let inner = std::io::Error::from_raw_os_error(104);
    let outer = std::io::Error::other(std::io::Error::other(inner));
    let error = Error::from(kube::Error::Service(Box::new(outer)));
    assert_eq!(
        error.to_string(),
        "Unable to connect to the server: connection reset by peer"
    );
    assert!(error.kind.is_transient());
}

#[test]
fn our_own_error_survives_the_way_through_kube() {
    let ours = Error::new(Kind::Held, "held by another run").hint("wait");
    assert_eq!(Error::from(kube::Error::Service(Box::new(ours.clone()))), ours);
}
