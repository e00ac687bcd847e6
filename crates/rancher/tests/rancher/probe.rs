use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, Response};
use kube::client::Body;
use rancher::TokenStorage;
use rancher::probe::{Probe, ProbeResult, ServerIdentity, UnknownReason, same_certificates};
use sha2::{Digest as _, Sha256, Sha512};

use crate::support::{SECRET_TOKEN, Server, id};

const CONNECT: &str = "/v3/connect";
const CACERTS: &str = "/cacerts";
const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

/// A Rancher with one valid token. Its endpoints answer as seen on Rancher 2.15.0 and 2.12.0.
fn rancher(
    storage: TokenStorage,
    valid: &'static str,
    with: fn(&str, Response<Body>) -> Response<Body>,
) -> kube::Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    tokio::spawn(async move {
        while let Some((request, answer)) = handle.next_request().await {
            assert_eq!(
                request.headers()["connection"],
                "close",
                "each probe uses its own connection"
            );
            match endpoint(storage, valid, &request) {
                Some(response) => answer.send_response(with(request.uri().path(), response)),
                None => answer.send_error("connection closed before message completed"),
            }
        }
    });
    kube::Client::new(service, "default")
}

fn endpoint(storage: TokenStorage, valid: &str, request: &Request<Body>) -> Option<Response<Body>> {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let text = |code: u16, text: &str| {
        Some(
            Response::builder()
                .status(code)
                .body(Body::from(text.as_bytes().to_vec()))
                .unwrap(),
        )
    };
    let bearer = header("authorization").map(|value| value.trim_start_matches("Bearer ").to_owned());
    if request.uri().path() == CACERTS {
        let (Some(bearer), Some(nonce)) = (bearer, header("x-cattle-nonce")) else {
            return text(200, PEM);
        };
        if bearer != STANDARD.encode(Sha256::digest(valid)) {
            return if storage == TokenStorage::Secret {
                text(200, PEM)
            } else {
                None
            };
        }
        let mut mac = Hmac::<Sha512>::new_from_slice(valid.as_bytes()).unwrap();
        mac.update(format!("{nonce}\0{PEM}\0").as_bytes());
        let hash = STANDARD.encode(mac.finalize().into_bytes());
        return Some(
            Response::builder()
                .header("x-cattle-hash", hash)
                .body(Body::from(PEM.as_bytes().to_vec()))
                .unwrap(),
        );
    }
    match (header("x-api-tunnel-token"), bearer) {
        (Some(token), _) if token == valid => text(400, "unexpected end of JSON input"),
        (Some(_), _) => text(400, "cluster not found"),
        (None, Some(token)) if token.strip_prefix("stv-cluster-") == Some(valid) => text(
            400,
            "Error during upgrade for host [stv-cluster-c-gsrbc]: websocket: the client is not using the websocket protocol: \
             'upgrade' token not found in 'Connection' header",
        ),
        _ => text(401, "failed authentication"),
    }
}

fn unchanged(_: &str, response: Response<Body>) -> Response<Body> {
    response
}

async fn check(
    storage: TokenStorage,
    valid: &'static str,
    with: fn(&str, Response<Body>) -> Response<Body>,
    token: &str,
) -> ProbeResult {
    Probe::new(rancher(storage, valid, with))
        .check(storage, &Secret::new(token))
        .await
}

#[tokio::test]
async fn a_valid_token_is_accepted_and_names_its_cluster() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        match check(storage, SECRET_TOKEN, unchanged, SECRET_TOKEN).await {
            ProbeResult::Accepted { cluster } => assert_eq!(cluster, Some(id("c-gsrbc"))),
            other => panic!("{storage}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_revoked_token_is_rejected() {
    for storage in [TokenStorage::Status, TokenStorage::Secret] {
        assert!(
            check(storage, SECRET_TOKEN, unchanged, "revoked").await.is_rejected(),
            "{storage}"
        );
    }
}

#[tokio::test]
async fn with_storage_status_a_rejected_token_is_never_sent_to_cacerts() {
    let server = Server::new()
        .on_text("GET", CONNECT, 400, &[], "cluster not found")
        .on_text("GET", CONNECT, 401, &[], "failed authentication");
    let result = Probe::new(server.client())
        .check(TokenStorage::Status, &Secret::new("revoked"))
        .await;
    assert!(result.is_rejected(), "{result:?}");
    assert!(server.requests().iter().all(|request| request.target == CONNECT));
}

#[tokio::test]
async fn replicas_that_disagree_are_unknown() {
    let server = Server::new()
        .on_text("GET", CONNECT, 400, &[], "cluster not found")
        .on_text(
            "GET",
            CONNECT,
            400,
            &[],
            "Error during upgrade for host [stv-cluster-c-gsrbc]: websocket: …",
        );
    let result = Probe::new(server.client())
        .check(TokenStorage::Status, &Secret::new("x"))
        .await;
    assert!(
        matches!(result, ProbeResult::Unknown(UnknownReason::Disagreement)),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_forged_proof_ends_the_first_probe() {
    // The result of the first probe is unknown, so there is no second one.
    let accepted = [
        "unexpected end of JSON input",
        "Error during upgrade for host [stv-cluster-c-gsrbc]: websocket: …",
    ];
    let mut server = Server::new();
    for text in accepted {
        server = server.on_text("GET", CONNECT, 400, &[], text);
    }
    server = server.on_text("GET", CACERTS, 200, &[("x-cattle-hash", "Zm9yZ2Vk")], PEM);
    let result = Probe::new(server.client())
        .check_times(TokenStorage::Secret, &Secret::new("x"), 3)
        .await;
    assert!(
        matches!(result, ProbeResult::Unknown(UnknownReason::NotProven)),
        "{result:?}"
    );
    server.requests();
}

#[tokio::test]
async fn several_probes_must_agree() {
    let probe = Probe::new(rancher(TokenStorage::Secret, SECRET_TOKEN, unchanged));
    assert!(
        probe
            .check_times(TokenStorage::Secret, &Secret::new(SECRET_TOKEN), 3)
            .await
            .is_accepted()
    );
    assert!(
        probe
            .check_times(TokenStorage::Secret, &Secret::new("revoked"), 3)
            .await
            .is_rejected()
    );
    let server = Server::new()
        .on_text("GET", CONNECT, 400, &[], "cluster not found")
        .on_text("GET", CONNECT, 401, &[], "failed authentication")
        .on_text("GET", CONNECT, 400, &[], "unexpected end of JSON input")
        .on_text("GET", CONNECT, 401, &[], "failed authentication");
    let result = Probe::new(server.client())
        .check_times(TokenStorage::Status, &Secret::new("x"), 3)
        .await;
    assert!(
        matches!(result, ProbeResult::Unknown(UnknownReason::Disagreement)),
        "{result:?}"
    );
    server.requests();
}

#[tokio::test]
async fn a_proof_with_another_key_proves_nothing() {
    fn forged(path: &str, mut response: Response<Body>) -> Response<Body> {
        if path == CACERTS {
            response
                .headers_mut()
                .insert("x-cattle-hash", "bm90IHRoZSBobWFj".parse().unwrap());
        }
        response
    }
    for (storage, token) in [
        (TokenStorage::Status, SECRET_TOKEN),
        (TokenStorage::Secret, SECRET_TOKEN),
        (TokenStorage::Secret, "revoked"),
    ] {
        let result = check(storage, SECRET_TOKEN, forged, token).await;
        assert!(
            matches!(result, ProbeResult::Unknown(UnknownReason::NotProven)),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn a_503_of_a_load_balancer_is_unknown() {
    fn unavailable(_: &str, mut response: Response<Body>) -> Response<Body> {
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        *response.body_mut() = Body::from(b"no available server".to_vec());
        response
    }
    let result = check(TokenStorage::Secret, SECRET_TOKEN, unavailable, SECRET_TOKEN).await;
    let ProbeResult::Unknown(reason) = result else {
        panic!("{result:?}")
    };
    assert_eq!(reason.to_string(), "unexpected response 503 from /v3/connect");
}

#[tokio::test]
async fn a_401_of_another_server_is_unknown() {
    let server = Server::new()
        .on_text(
            "GET",
            CONNECT,
            401,
            &[],
            r#"{"kind":"Status","code":401,"message":"Unauthorized"}"#,
        )
        .on_text(
            "GET",
            CONNECT,
            401,
            &[],
            r#"{"kind":"Status","code":401,"message":"Unauthorized"}"#,
        );
    let result = Probe::new(server.client())
        .check(TokenStorage::Secret, &Secret::new("x"))
        .await;
    assert!(
        matches!(
            result,
            ProbeResult::Unknown(UnknownReason::Unexpected { code: 401, .. })
        ),
        "{result:?}"
    );
}

#[tokio::test]
async fn without_a_response_the_result_is_unknown() {
    let server = Server::new().on_cut("GET", CONNECT).on_cut("GET", CONNECT);
    let result = Probe::new(server.client())
        .check(TokenStorage::Secret, &Secret::new("x"))
        .await;
    assert!(
        matches!(result, ProbeResult::Unknown(UnknownReason::NoAnswer(_))),
        "{result:?}"
    );
}

#[tokio::test]
async fn an_empty_token_is_rejected_without_a_request() {
    let server = Server::new();
    assert!(
        Probe::new(server.client())
            .check(TokenStorage::Status, &Secret::new(""))
            .await
            .is_rejected()
    );
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_token_with_a_line_break_cannot_be_sent() {
    let server = Server::new();
    let result = Probe::new(server.client())
        .check(TokenStorage::Secret, &Secret::new("token\n"))
        .await;
    assert!(
        matches!(result, ProbeResult::Unknown(UnknownReason::InvalidHeader)),
        "{result:?}"
    );
}

#[tokio::test]
async fn every_header_with_a_token_is_marked_sensitive() {
    let server = Server::new()
        .on_text("GET", CONNECT, 400, &[], "cluster not found")
        .on_text("GET", CONNECT, 401, &[], "failed authentication")
        .on_text("GET", CACERTS, 200, &[], PEM);
    assert!(
        Probe::new(server.client())
            .check(TokenStorage::Secret, &Secret::new(SECRET_TOKEN))
            .await
            .is_rejected()
    );
    for request in server.requests() {
        for (name, value) in &request.headers {
            assert!(
                name == "connection" || value.is_sensitive(),
                "{name} of {}",
                request.target
            );
        }
        assert!(!format!("{request:?}").contains(SECRET_TOKEN));
    }
}

#[tokio::test]
async fn identify_distinguishes_rancher_from_other_servers() {
    assert!(matches!(
        Probe::new(rancher(TokenStorage::Status, SECRET_TOKEN, unchanged))
            .identify()
            .await
            .unwrap(),
        ServerIdentity::Rancher
    ));
    for (code, body) in [
        (403, r#"{"kind":"Status"}"#),
        (404, "404 page not found"),
        (200, "<html>"),
    ] {
        let server = Server::new().on_text("GET", CONNECT, code, &[], body);
        let identity = Probe::new(server.client()).identify().await.unwrap();
        assert!(
            matches!(identity, ServerIdentity::Other { code: actual } if actual == code),
            "{identity:?}"
        );
    }
    let server = Server::new().on_cut("GET", CONNECT);
    assert!(matches!(
        Probe::new(server.client()).identify().await.unwrap(),
        ServerIdentity::NoAnswer(_)
    ));
}

#[tokio::test]
async fn ca_certificates_are_read_without_a_token() {
    let server = Server::new()
        .on_text("GET", CACERTS, 200, &[], PEM)
        .on_text("GET", CACERTS, 200, &[], "");
    let probe = Probe::new(server.client());
    assert_eq!(probe.ca_certificates().await.unwrap().as_deref(), Some(PEM));
    assert_eq!(probe.ca_certificates().await.unwrap(), None);
    assert!(
        server
            .requests()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
}

#[tokio::test]
async fn an_unexpected_response_from_cacerts_is_an_error() {
    let server = Server::new().on_text("GET", CACERTS, 404, &[], "404 page not found");
    let error = Probe::new(server.client()).ca_certificates().await.unwrap_err();
    assert_eq!(error.code(), Some(404));
}

#[test]
fn certificates_are_compared_without_surrounding_white_space() {
    assert!(same_certificates(Some(PEM), Some(PEM.trim())));
    assert!(same_certificates(None, Some("\n")));
    assert!(!same_certificates(Some(PEM), None));
    assert!(!same_certificates(Some(PEM), Some("other")));
}
