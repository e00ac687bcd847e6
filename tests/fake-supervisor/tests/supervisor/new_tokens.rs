//! What a PUT does with each kind of value.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, NEW, OLD, OTHER, fingerprint, servers, unpinned};

const SERVER: Option<(&str, &str)> = Some(("server", OLD));

async fn files_and_key(cluster: &Cluster) -> Value {
    let state = cluster.state().await;
    json!([state["servers"]["s1"]["files"], state["datastore"]["keys"]])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_or_refused_value_changes_nothing() {
    let cluster = Cluster::start(servers("config", 1)).await;
    let before = files_and_key(&cluster).await;
    let put = |body: &'static str| cluster.send("s1", Method::PUT, "/v1-k3s/token", SERVER, body);
    assert!(put("{}").await.is_err(), "the handler panics");
    for body in ["", "not json", r#"{"newToken": 7}"#, "7"] {
        assert_eq!(put(body).await.unwrap().status, 400, "{body}");
    }
    for refused in ["abcdef.0123456789abcdef", "K10foo"] {
        assert_eq!(cluster.put("s1", OLD, refused).await, 500, "{refused}");
    }
    assert_eq!(cluster.put("s1", "wrong", NEW).await, 401);
    assert_eq!(files_and_key(&cluster).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_value_is_accepted() {
    let cluster = Cluster::start(servers("nowhere", 1)).await;
    let full = format!("K10{}::server:pw", "f".repeat(64));
    for (sent, stored) in [
        ("x", "x"),
        ("a:b:c-colon", "a:b:c-colon"),
        ("pässwörd-日本", "pässwörd-日本"),
        ("a b\"c,d", "a b\"c,d"),
        (full.as_str(), "pw"),
    ] {
        assert_eq!(cluster.put("s1", OLD, sent).await, 200, "{sent}");
        let state = cluster.state().await;
        let stored = json!(fingerprint(stored));
        assert_eq!(
            state["servers"]["s1"]["files"]["token"]["fingerprint"], stored,
            "{sent}"
        );
        assert_eq!(
            state["servers"]["s1"]["files"]["cred/passwd"]["server"], stored,
            "{sent}"
        );
        assert_eq!(state["datastore"]["keys"], json!([stored]), "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_value_is_replaced_by_a_random_one_that_can_be_taken_back() {
    let cluster = Cluster::start(servers("nowhere", 1)).await;
    assert_eq!(cluster.put("s1", OLD, "").await, 200);
    let text = std::fs::read_to_string(cluster.file("s1", "token")).unwrap();
    let password = text.trim().rsplit(':').next().unwrap();
    assert!(
        password.len() == 32 && password.bytes().all(|b| b.is_ascii_hexdigit()),
        "{password}"
    );
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newline_at_the_end_sticks_until_passwd_has_the_password_of_the_datastore() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put("s1", OLD, "x\n").await, 500);
    assert_eq!(cluster.state().await["datastore"]["keys"], json!([fingerprint("x")]));
    for server in ["s1", "s2", "s3"] {
        assert_eq!(cluster.put(server, OLD, NEW).await, 500, "{server}");
    }
    let rows = "x,node,node,k3s:agent\nx,server,server,k3s:server\n";
    std::fs::write(cluster.file("s2", "cred/passwd"), rows).unwrap();
    assert_eq!(cluster.put("s2", OLD, NEW).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_line_is_stuck_by_the_form_of_a_bootstrap_token() {
    let mut config = unpinned();
    config["line"] = json!("1.33");
    let cluster = Cluster::start(config).await;
    let bad = "abcdef.0123456789abcdef";
    assert_eq!(cluster.put("s1", OLD, bad).await, 500);
    assert_eq!(cluster.state().await["datastore"]["keys"], json!([fingerprint(bad)]));
    assert_eq!(
        (cluster.put("s1", OLD, NEW).await, cluster.put("s2", OLD, NEW).await),
        (500, 500)
    );
    assert!(cluster.log("s1").contains("failed to normalize server token"));
    let full = format!("K10{}::server:{bad}", "a".repeat(64));
    let rows = format!("{full},node,node,k3s:agent\n{full},server,server,k3s:server\n");
    std::fs::write(cluster.file("s2", "cred/passwd"), rows).unwrap();
    assert_eq!(cluster.put("s2", OLD, NEW).await, 200);
    assert_eq!(cluster.state().await["datastore"]["keys"], json!([fingerprint(NEW)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_value_on_a_second_server_poisons_it_and_the_value_of_the_datastore_heals_it() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    assert_eq!(cluster.put("s2", OLD, OTHER).await, 500);
    let state = cluster.state().await;
    assert_eq!(
        state["servers"]["s2"]["files"]["token"]["fingerprint"],
        fingerprint(OTHER)
    );
    assert_eq!(
        state["servers"]["s2"]["files"]["cred/passwd"]["server"],
        fingerprint(OTHER)
    );
    assert_eq!(state["datastore"]["keys"], json!([fingerprint(NEW)]));
    assert_eq!(cluster.put("s2", OLD, NEW).await, 200);
    cluster.starts("s2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_values_at_once_one_wins() {
    let cluster = Cluster::start(unpinned()).await;
    let (first, second) = tokio::join!(cluster.put("s1", OLD, NEW), cluster.put("s2", OLD, OTHER));
    let (winner, loser) = match (first, second) {
        (200, 500) => (NEW, "s2"),
        (500, 200) => (OTHER, "s1"),
        both => panic!("{both:?}"),
    };
    assert_eq!(cluster.state().await["datastore"]["keys"], json!([fingerprint(winner)]));
    assert_eq!(cluster.put(loser, OLD, winner).await, 200);
}
