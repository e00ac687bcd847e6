use client::secret::Secret;
use rancher::token::{Batch, Listing, Unknown};
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

async fn walk(server: &Server) -> Vec<Batch> {
    let mut listing = Listing::new(server.client(), None);
    let mut batches = Vec::new();
    while let Some(batch) = listing.next().await.unwrap() {
        batches.push(batch);
    }
    server.seen();
    batches
}

fn shown(batch: &Batch) -> Vec<String> {
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
async fn two_lists_in_the_order_of_their_keys_are_merged_page_by_page() {
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
    let batches = walk(&server).await;
    assert_eq!(shown(&batches[0]), ["c-a-b/system=x", "c-a/default-token=x"]);
    assert_eq!(shown(&batches[1]), ["c-a/system=x"]);
    assert_eq!(batches.len(), 2);
}

#[tokio::test]
async fn the_first_page_does_not_wait_for_secrets_that_come_later() {
    let server = Server::new()
        .on("GET", TOKENS, 200, &page(&[token("c-a", "system")], "t1"))
        .on("GET", SECRETS, 200, &page(&[secret("c-a", "crt-token-system")], "s1"));
    let mut listing = Listing::new(server.client(), None);
    assert_eq!(shown(&listing.next().await.unwrap().unwrap()), ["c-a/system=x"]);
    server.seen();
}

#[tokio::test]
async fn a_secret_whose_token_is_really_gone_is_an_orphan() {
    let one = |name: &str| format!("/apis/management.cattle.io/v3/namespaces/c-a/clusterregistrationtokens/{name}");
    let server = Server::new()
        .on("GET", TOKENS, 200, &list_of(&[token("c-a", "system")]))
        .on(
            "GET",
            SECRETS,
            200,
            &list_of(&[
                secret("c-a", "crt-token-gone"),
                secret("c-a", "crt-token-made-just-now"),
                secret("c-a", "crt-token-system"),
            ]),
        )
        .on("GET", &one("gone"), 404, &status(404, "NotFound", "no"))
        .on("GET", &one("made-just-now"), 200, &token("c-a", "made-just-now"));
    assert_eq!(
        shown(&walk(&server).await[0]),
        ["c-a/system=x", "orphan c-a/crt-token-gone"]
    );
}

#[tokio::test]
async fn a_secret_that_the_list_did_not_show_is_asked_for_by_name() {
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
    let batches = walk(&server).await;
    assert_eq!(shown(&batches[0]), ["c-a/default-token=x", "c-a/system=?"]);
    assert_eq!(batches[0].tokens[1].value, Err(Unknown::NoSecret));
}

#[tokio::test]
async fn era_p_is_listed_without_asking_for_a_single_secret() {
    let mut plain = token("c-a", "system");
    plain["status"] = json!({ "token": "x" });
    let server = Server::new().on("GET", TOKENS, 200, &list_of(&[plain]));
    assert_eq!(shown(&walk(&server).await[0]), ["c-a/system=x"]);
}

#[tokio::test]
async fn without_the_right_to_list_secrets_values_are_unknown_and_it_is_said() {
    let server = Server::new()
        .on("GET", TOKENS, 200, &page(&[token("c-a", "system")], "t1"))
        .on("GET", SECRETS, 403, &status(403, "Forbidden", "secrets is forbidden"))
        .on(
            "GET",
            &format!("{TOKENS}&continue=t1"),
            200,
            &list_of(&[token("c-b", "system")]),
        );
    let mut listing = Listing::new(server.client(), None);
    for _ in 0..2 {
        let batch = listing.next().await.unwrap().unwrap();
        assert_eq!(batch.tokens[0].value, Err(Unknown::NoRight));
    }
    assert!(listing.next().await.unwrap().is_none());
    assert!(listing.secrets_unknown());
    server.seen();
}

#[tokio::test]
async fn a_selector_is_for_tokens_and_then_no_orphans_are_claimed() {
    let server = Server::new()
        .on(
            "GET",
            "/apis/management.cattle.io/v3/clusterregistrationtokens?labelSelector=a%3Db&limit=500",
            200,
            &list_of(&[token("c-a", "system")]),
        )
        .on(
            "GET",
            SECRETS,
            200,
            &list_of(&[secret("c-a", "crt-token-other"), secret("c-a", "crt-token-system")]),
        );
    let mut listing = Listing::new(server.client(), Some("a=b".to_owned()));
    assert_eq!(shown(&listing.next().await.unwrap().unwrap()), ["c-a/system=x"]);
    server.seen();
}

#[tokio::test]
async fn a_broken_token_stands_between_whole_ones() {
    let broken = json!({ "metadata": { "namespace": "c-b", "name": "system" }, "status": { "token": ["?"] } });
    let server = Server::new()
        .on(
            "GET",
            TOKENS,
            200,
            &list_of(&[token("c-a", "system"), broken, token("c-c", "system")]),
        )
        .on(
            "GET",
            SECRETS,
            200,
            &list_of(&[secret("c-a", "crt-token-system"), secret("c-c", "crt-token-system")]),
        );
    let batches = walk(&server).await;
    assert_eq!(shown(&batches[0]), ["c-a/system=x", "c-b/system=?", "c-c/system=x"]);
    assert_eq!(batches[0].tokens[1].value, Err(Unknown::Malformed));
}
