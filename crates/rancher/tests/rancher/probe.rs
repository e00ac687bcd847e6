use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, Response};
use kube::client::Body;
use rancher::Era;
use rancher::probe::{Doubt, Identity, Probe, Verdict, same_certificates};
use sha2::{Digest as _, Sha256, Sha512};

use crate::support::{SYSTEM_S, Server, id};

const CONNECT: &str = "/v3/connect";
const CACERTS: &str = "/cacerts";
const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

/// A Rancher with one live token, answering each door as seen on Rancher 2.15.0 and 2.12.0.
fn rancher(era: Era, live: &'static str, with: fn(&str, Response<Body>) -> Response<Body>) -> kube::Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    tokio::spawn(async move {
        while let Some((request, answer)) = handle.next_request().await {
            assert_eq!(
                request.headers()["connection"],
                "close",
                "each look is a connection of its own"
            );
            match door(era, live, &request) {
                Some(response) => answer.send_response(with(request.uri().path(), response)),
                None => answer.send_error("connection closed before message completed"),
            }
        }
    });
    kube::Client::new(service, "default")
}

fn door(era: Era, live: &str, request: &Request<Body>) -> Option<Response<Body>> {
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
        if bearer != STANDARD.encode(Sha256::digest(live)) {
            return if era == Era::Secret { text(200, PEM) } else { None };
        }
        let mut mac = Hmac::<Sha512>::new_from_slice(live.as_bytes()).unwrap();
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
        (Some(token), _) if token == live => text(400, "unexpected end of JSON input"),
        (Some(_), _) => text(400, "cluster not found"),
        (None, Some(token)) if token.strip_prefix("stv-cluster-") == Some(live) => text(
            400,
            "Error during upgrade for host [stv-cluster-c-gsrbc]: websocket: the client is not using the websocket protocol: \
             'upgrade' token not found in 'Connection' header",
        ),
        _ => text(401, "failed authentication"),
    }
}

fn honest(_: &str, response: Response<Body>) -> Response<Body> {
    response
}

async fn look(era: Era, live: &'static str, with: fn(&str, Response<Body>) -> Response<Body>, token: &str) -> Verdict {
    Probe::new(rancher(era, live, with))
        .look(era, &Secret::new(token))
        .await
}

#[tokio::test]
async fn a_live_token_is_live_and_names_its_cluster_in_both_eras() {
    for era in [Era::Plain, Era::Secret] {
        match look(era, SYSTEM_S, honest, SYSTEM_S).await {
            Verdict::Live { cluster } => assert_eq!(cluster, Some(id("c-gsrbc"))),
            other => panic!("{era}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_dead_token_is_dead_in_both_eras() {
    for era in [Era::Plain, Era::Secret] {
        assert!(look(era, SYSTEM_S, honest, "dead").await.is_dead(), "{era}");
    }
}

#[tokio::test]
async fn in_era_p_a_token_that_may_be_dead_never_reaches_the_door_that_panics() {
    let server = Server::new()
        .on_text("GET", CONNECT, 400, &[], "cluster not found")
        .on_text("GET", CONNECT, 401, &[], "failed authentication");
    let verdict = Probe::new(server.client()).look(Era::Plain, &Secret::new("dead")).await;
    assert!(verdict.is_dead(), "{verdict:?}");
    assert!(server.seen().iter().all(|request| request.target == CONNECT));
}

#[tokio::test]
async fn replicas_that_disagree_give_no_verdict() {
    let server = Server::new()
        .on_text("GET", CONNECT, 400, &[], "cluster not found")
        .on_text(
            "GET",
            CONNECT,
            400,
            &[],
            "Error during upgrade for host [stv-cluster-c-gsrbc]: websocket: …",
        );
    let verdict = Probe::new(server.client()).look(Era::Plain, &Secret::new("x")).await;
    assert!(matches!(verdict, Verdict::Unknown(Doubt::Disagreement)), "{verdict:?}");
}

#[tokio::test]
async fn a_token_that_dies_between_two_looks_is_not_live() {
    let live = || {
        [
            (400, "unexpected end of JSON input"),
            (400, "Error during upgrade for host [stv-cluster-c-gsrbc]: websocket: …"),
        ]
    };
    let mut server = Server::new();
    for (code, text) in live() {
        server = server.on_text("GET", CONNECT, code, &[], text);
    }
    // The third door's answer cannot be forged here, so the first look ends in doubt, and there is no second.
    server = server.on_text("GET", CACERTS, 200, &[("x-cattle-hash", "Zm9yZ2Vk")], PEM);
    let verdict = Probe::new(server.client())
        .looks(Era::Secret, &Secret::new("x"), 3)
        .await;
    assert!(matches!(verdict, Verdict::Unknown(Doubt::NotProven)), "{verdict:?}");
    server.seen();
}

#[tokio::test]
async fn several_looks_must_agree() {
    let probe = Probe::new(rancher(Era::Secret, SYSTEM_S, honest));
    assert!(probe.looks(Era::Secret, &Secret::new(SYSTEM_S), 3).await.is_live());
    assert!(probe.looks(Era::Secret, &Secret::new("dead"), 3).await.is_dead());
    let server = Server::new()
        .on_text("GET", CONNECT, 400, &[], "cluster not found")
        .on_text("GET", CONNECT, 401, &[], "failed authentication")
        .on_text("GET", CONNECT, 400, &[], "unexpected end of JSON input")
        .on_text("GET", CONNECT, 401, &[], "failed authentication");
    let verdict = Probe::new(server.client())
        .looks(Era::Plain, &Secret::new("x"), 3)
        .await;
    assert!(matches!(verdict, Verdict::Unknown(Doubt::Disagreement)), "{verdict:?}");
    server.seen();
}

#[tokio::test]
async fn a_proof_made_with_another_key_proves_nothing() {
    fn forged(path: &str, mut response: Response<Body>) -> Response<Body> {
        if path == CACERTS {
            response
                .headers_mut()
                .insert("x-cattle-hash", "bm90IHRoZSBobWFj".parse().unwrap());
        }
        response
    }
    for (era, token) in [(Era::Plain, SYSTEM_S), (Era::Secret, SYSTEM_S), (Era::Secret, "dead")] {
        let verdict = look(era, SYSTEM_S, forged, token).await;
        assert!(matches!(verdict, Verdict::Unknown(Doubt::NotProven)), "{verdict:?}");
    }
}

#[tokio::test]
async fn a_load_balancers_503_is_neither_live_nor_dead() {
    fn away(_: &str, mut response: Response<Body>) -> Response<Body> {
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        *response.body_mut() = Body::from(b"no available server".to_vec());
        response
    }
    let verdict = look(Era::Secret, SYSTEM_S, away, SYSTEM_S).await;
    let Verdict::Unknown(doubt) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(doubt.to_string(), "/v3/connect answered 503, and not as Rancher does");
}

#[tokio::test]
async fn the_word_unauthorized_alone_is_not_ranchers_refusal() {
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
    let verdict = Probe::new(server.client()).look(Era::Secret, &Secret::new("x")).await;
    assert!(
        matches!(verdict, Verdict::Unknown(Doubt::Odd { code: 401, .. })),
        "{verdict:?}"
    );
}

#[tokio::test]
async fn no_answer_is_no_verdict() {
    let server = Server::new().on_cut("GET", CONNECT).on_cut("GET", CONNECT);
    let verdict = Probe::new(server.client()).look(Era::Secret, &Secret::new("x")).await;
    assert!(matches!(verdict, Verdict::Unknown(Doubt::NoAnswer(_))), "{verdict:?}");
}

#[tokio::test]
async fn an_empty_token_is_dead_without_asking() {
    let server = Server::new();
    assert!(
        Probe::new(server.client())
            .look(Era::Plain, &Secret::new(""))
            .await
            .is_dead()
    );
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_token_with_a_line_break_cannot_be_sent() {
    let server = Server::new();
    let verdict = Probe::new(server.client())
        .look(Era::Secret, &Secret::new("token\n"))
        .await;
    assert!(matches!(verdict, Verdict::Unknown(Doubt::Unsendable)), "{verdict:?}");
}

#[tokio::test]
async fn every_header_with_a_token_is_marked_sensitive() {
    let server = Server::new()
        .on_text("GET", CONNECT, 400, &[], "cluster not found")
        .on_text("GET", CONNECT, 401, &[], "failed authentication")
        .on_text("GET", CACERTS, 200, &[], PEM);
    assert!(
        Probe::new(server.client())
            .look(Era::Secret, &Secret::new(SYSTEM_S))
            .await
            .is_dead()
    );
    for request in server.seen() {
        for (name, value) in &request.headers {
            assert!(
                name == "connection" || value.is_sensitive(),
                "{name} of {}",
                request.target
            );
        }
        assert!(!format!("{request:?}").contains(SYSTEM_S));
    }
}

#[tokio::test]
async fn a_wrong_url_is_told_from_a_rancher() {
    assert!(matches!(
        Probe::new(rancher(Era::Plain, SYSTEM_S, honest))
            .identify()
            .await
            .unwrap(),
        Identity::Rancher
    ));
    for (code, body) in [
        (403, r#"{"kind":"Status"}"#),
        (404, "404 page not found"),
        (200, "<html>"),
    ] {
        let server = Server::new().on_text("GET", CONNECT, code, &[], body);
        let identity = Probe::new(server.client()).identify().await.unwrap();
        assert!(
            matches!(identity, Identity::Other { code: said } if said == code),
            "{identity:?}"
        );
    }
    let server = Server::new().on_cut("GET", CONNECT);
    assert!(matches!(
        Probe::new(server.client()).identify().await.unwrap(),
        Identity::NoAnswer(_)
    ));
}

#[tokio::test]
async fn the_certificates_are_read_without_any_token() {
    let server = Server::new()
        .on_text("GET", CACERTS, 200, &[], PEM)
        .on_text("GET", CACERTS, 200, &[], "");
    let probe = Probe::new(server.client());
    assert_eq!(probe.ca_certificates().await.unwrap().as_deref(), Some(PEM));
    assert_eq!(probe.ca_certificates().await.unwrap(), None);
    assert!(
        server
            .seen()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let server = Server::new().on_text("GET", CACERTS, 200, &[], vec![b'x'; 2 << 20]);
    assert!(Probe::new(server.client()).ca_certificates().await.is_err());
}

#[tokio::test]
async fn something_else_at_cacerts_is_an_error() {
    let server = Server::new().on_text("GET", CACERTS, 404, &[], "404 page not found");
    let error = Probe::new(server.client()).ca_certificates().await.unwrap_err();
    assert_eq!(error.code(), Some(404));
}

#[test]
fn certificates_are_compared_without_the_white_space_around_them() {
    assert!(same_certificates(Some(PEM), Some(PEM.trim())));
    assert!(same_certificates(None, Some("\n")));
    assert!(!same_certificates(Some(PEM), None));
    assert!(!same_certificates(Some(PEM), Some("other")));
}
