//! No credential leaves before the CA is verified.

use std::sync::Arc;

use client::console::Silent;
use supervisor::{
    CaHash, Credential, Error, Pin, ProbeResult, PutResult, Supervisor, SupervisorKind, TokenValue, read_ca,
};

use crate::server::{FakeServer, Identity, NEW, OLD, options, reply, secret};

/// Whether a request carried a credential.
fn sent_a_credential(server: &FakeServer) -> bool {
    server
        .all()
        .iter()
        .any(|request| request.headers.contains_key("authorization"))
}

#[tokio::test]
async fn a_ca_with_another_hash_is_refused_before_a_credential_is_sent() {
    let server = FakeServer::start(|_| reply(405, "")).await;
    let pin = Pin::Hash("a".repeat(64).parse().unwrap());
    let connected = Supervisor::connect(
        SupervisorKind::K3s,
        server.address.clone(),
        &pin,
        options(Arc::new(Silent)),
    );
    let error = connected.await.unwrap_err();
    let expected = format!(
        "the CA of supervisor {} has hash {:.12}…, not {:.12}…",
        server.address,
        CaHash::of(&server.ca()).unwrap(),
        "a".repeat(64)
    );
    assert_eq!(error.to_string(), expected);
    assert!(server.recorded().is_empty() && !sent_a_credential(&server));
}

#[tokio::test]
async fn the_ca_of_the_kubeconfig_is_a_pin() {
    let server = FakeServer::start(|_| reply(405, "")).await;
    let connect = |pem: String| {
        let pin = Pin::Kubeconfig(pem);
        let address = server.address.clone();
        async move { Supervisor::connect(SupervisorKind::K3s, address, &pin, options(Arc::new(Silent))).await }
    };
    let other = connect(Identity::new().ca).await.unwrap_err();
    assert!(matches!(other, Error::NotTheKubeconfigCa { .. }), "{other}");
    let hint = &client::error::Error::from(other).hints[0];
    assert!(hint.contains("--ca-hash"), "{hint}");
    let supervisor = connect(server.ca()).await.unwrap();
    assert_eq!(Some(supervisor.ca_hash()), CaHash::of(&server.ca()).as_ref());
    assert_eq!(
        supervisor.probe(Credential::Server(&secret(OLD))).await,
        ProbeResult::Accepted
    );
}

#[tokio::test]
async fn a_server_that_another_ca_has_signed_gets_no_credential() {
    let server = FakeServer::start(|_| reply(405, "")).await;
    let supervisor = server.connect().await;
    // Between the read of the CA and the request, another server takes the address.
    server.replace(Identity::new());
    let ProbeResult::Unknown(reason) = supervisor.probe(Credential::Server(&secret(OLD))).await else {
        panic!("an unverified server was believed");
    };
    assert!(
        reason.to_string().contains("signed by an unknown authority"),
        "{reason}"
    );
    let value = TokenValue::supplied(&secret(NEW)).unwrap();
    let result = supervisor.put_token(&secret(OLD), &value, || true).await;
    assert!(matches!(result, PutResult::NotSent(_)), "{result:?}");
    assert!(server.recorded().is_empty() && !sent_a_credential(&server));
}

#[tokio::test]
async fn a_response_that_is_not_a_ca_is_an_error() {
    for pem in ["", "not PEM", &"x".repeat(300 << 10)] {
        let server = FakeServer::start(|_| reply(405, "")).await;
        let mut identity = Identity::new();
        pem.clone_into(&mut identity.ca);
        server.replace(identity);
        let error = read_ca(&server.address, &options(Arc::new(Silent)))
            .await
            .unwrap_err()
            .to_string();
        let expected = if pem.len() > 100 {
            "longer than 256 KiB"
        } else {
            "malformed response to GET /cacerts"
        };
        assert!(error.contains(expected), "{error}");
    }
}
