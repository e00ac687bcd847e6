use client::secret::Secret;
use rancher::token::{Batch, Listing, ValueError};
use serde_json::{Value, json};

use crate::support::{Server, list_of, status};

const TOKENS: &str = "/apis/management.cattle.io/v3/clusterregistrationtokens?limit=500";
const SECRETS: &str = "/api/v1/secrets?fieldSelector=type%3DOpaque&limit=500";

fn token(namespace: &str, name: &str) -> Value {
    json!({
        "metadata": { "namespace": namespace, "name": name, "uid": "u", "resourceVersion": "1" },
        "spec": { "clusterName": namespace },
        "status": { "tokenSecretName": format!("crt-token-{name}") },
    })
}

/// A Secret whose token is `x`.
fn secret(namespace: &str, name: &str) -> Value {
    json!({
        "metadata": { "namespace": namespace, "name": name, "uid": "u", "resourceVersion": "1" },
        "data": { "token": "eA==" },
    })
}

fn page(items: &[Value], next: &str) -> Value {
    let mut page = list_of(items);
    page["metadata"]["continue"] = json!(next);
    page
}

async fn list(server: &Server) -> Vec<Batch> {
    let mut listing = Listing::new(server.client());
    let mut batches = Vec::new();
    while let Some(batch) = listing.next().await.unwrap() {
        batches.push(batch);
    }
    server.requests();
    batches
}

fn summary(batch: &Batch) -> Vec<String> {
    let tokens = batch.tokens.iter().map(|token| {
        let value = if token.current() == Some(&Secret::new("x")) {
            "x"
        } else {
            "?"
        };
        format!("{}/{}={value}", token.object.namespace, token.object.name)
    });
    let orphans = batch
        .orphans
        .iter()
        .map(|secret| format!("orphan {}/{}", secret.object.namespace, secret.object.name));
    tokens.chain(orphans).collect()
}

#[tokio::test]
async fn two_sorted_lists_are_merged_in_pages() {
    // `c-a-b` comes before `c-a` in both: `-` is less than `/`.
    let server = Server::new()
        .on(
            "GET",
            TOKENS,
            200,
            &page(&[token("c-a-b", "system"), token("c-a", "default-token")], "t1"),
        )
        .on(
            "GET",
            SECRETS,
            200,
            &page(&[secret("a", "zzz"), secret("c-a-b", "crt-token-system")], "s1"),
        )
        .on(
            "GET",
            &format!("{SECRETS}&continue=s1"),
            200,
            &page(&[secret("c-a", "crt-token-default-token")], "s2"),
        )
        .on(
            "GET",
            &format!("{TOKENS}&continue=t1"),
            200,
            &list_of(&[token("c-a", "system")]),
        )
        .on(
            "GET",
            &format!("{SECRETS}&continue=s2"),
            200,
            &list_of(&[secret("c-a", "crt-token-system"), secret("d", "x")]),
        );
    let batches = list(&server).await;
    assert_eq!(summary(&batches[0]), ["c-a-b/system=x", "c-a/default-token=x"]);
    assert_eq!(summary(&batches[1]), ["c-a/system=x"]);
    assert_eq!(batches.len(), 2);
}

#[tokio::test]
async fn the_first_page_does_not_wait_for_later_secrets() {
    let server = Server::new()
        .on("GET", TOKENS, 200, &page(&[token("c-a", "system")], "t1"))
        .on("GET", SECRETS, 200, &page(&[secret("c-a", "crt-token-system")], "s1"));
    let mut listing = Listing::new(server.client());
    assert_eq!(summary(&listing.next().await.unwrap().unwrap()), ["c-a/system=x"]);
    server.requests();
}

#[tokio::test]
async fn a_secret_without_a_token_is_an_orphan() {
    let one = |name: &str| format!("/apis/management.cattle.io/v3/namespaces/c-a/clusterregistrationtokens/{name}");
    let server = Server::new()
        .on("GET", TOKENS, 200, &list_of(&[token("c-a", "system")]))
        .on(
            "GET",
            SECRETS,
            200,
            &list_of(&[
                secret("c-a", "crt-token-gone"),
                secret("c-a", "crt-token-just-created"),
                secret("c-a", "crt-token-system"),
            ]),
        )
        .on("GET", &one("gone"), 404, &status(404, "NotFound", "no"))
        .on("GET", &one("just-created"), 200, &token("c-a", "just-created"));
    assert_eq!(
        summary(&list(&server).await[0]),
        ["c-a/system=x", "orphan c-a/crt-token-gone"]
    );
}

#[tokio::test]
async fn a_secret_that_is_not_in_the_list_is_read_by_name() {
    // Written after the list was read, or out of order.
    let server = Server::new()
        .on(
            "GET",
            TOKENS,
            200,
            &list_of(&[token("c-a", "default-token"), token("c-a", "system")]),
        )
        .on("GET", SECRETS, 200, &list_of(&[]))
        .on(
            "GET",
            "/api/v1/namespaces/c-a/secrets/crt-token-default-token",
            200,
            &secret("c-a", "crt-token-default-token"),
        )
        .on(
            "GET",
            "/api/v1/namespaces/c-a/secrets/crt-token-system",
            404,
            &status(404, "NotFound", "no"),
        );
    let batches = list(&server).await;
    assert_eq!(summary(&batches[0]), ["c-a/default-token=x", "c-a/system=?"]);
    assert_eq!(batches[0].tokens[1].value, Err(ValueError::NoSecret));
}

#[tokio::test]
async fn with_storage_status_no_secret_is_read() {
    let mut token = token("c-a", "system");
    token["status"] = json!({ "token": "x" });
    let server = Server::new().on("GET", TOKENS, 200, &list_of(&[token]));
    assert_eq!(summary(&list(&server).await[0]), ["c-a/system=x"]);
}

#[tokio::test]
async fn without_permission_to_list_secrets_values_are_unknown() {
    let server = Server::new()
        .on("GET", TOKENS, 200, &page(&[token("c-a", "system")], "t1"))
        .on("GET", SECRETS, 403, &status(403, "Forbidden", "secrets is forbidden"))
        .on(
            "GET",
            &format!("{TOKENS}&continue=t1"),
            200,
            &list_of(&[token("c-b", "system")]),
        );
    let mut listing = Listing::new(server.client());
    for _ in 0..2 {
        let batch = listing.next().await.unwrap().unwrap();
        assert_eq!(batch.tokens[0].value, Err(ValueError::NoPermission));
    }
    assert!(listing.next().await.unwrap().is_none());
    assert!(listing.secrets_unknown());
    server.requests();
}

#[tokio::test]
async fn a_malformed_token_does_not_hide_the_others() {
    let malformed = json!({ "metadata": { "namespace": "c-b", "name": "system" }, "status": { "token": ["?"] } });
    let server = Server::new()
        .on(
            "GET",
            TOKENS,
            200,
            &list_of(&[token("c-a", "system"), malformed, token("c-c", "system")]),
        )
        .on(
            "GET",
            SECRETS,
            200,
            &list_of(&[secret("c-a", "crt-token-system"), secret("c-c", "crt-token-system")]),
        );
    let batches = list(&server).await;
    assert_eq!(summary(&batches[0]), ["c-a/system=x", "c-b/system=?", "c-c/system=x"]);
    assert_eq!(batches[0].tokens[1].value, Err(ValueError::Malformed));
}
