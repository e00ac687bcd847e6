use argocd::ServerUrl;
use argocd::lookup::{ServerMatch, by_server, duplicates};
use serde_json::json;

use crate::support::{SERVER, read, secret};

fn other(id: &str) -> String {
    format!("https://rancher.example.com/k8s/clusters/{id}")
}

#[tokio::test]
async fn a_cluster_is_found_by_its_url() {
    let clusters = read(&[
        secret("one", &json!({"server": format!("{SERVER}/")})),
        secret("two", &json!({"server": other("c-bbbbb"), "name": "two"})),
    ])
    .await;
    assert!(matches!(by_server(&clusters, &ServerUrl::new(SERVER)), ServerMatch::One(one) if one.object.name == "one"));
    assert!(matches!(
        by_server(&clusters, &ServerUrl::new(&other("c-ccccc"))),
        ServerMatch::NotFound
    ));
    assert!(duplicates(&clusters).is_empty());
}

#[tokio::test]
async fn two_secrets_with_the_same_url_are_ambiguous() {
    let clusters = read(&[secret("one", &json!({})), secret("copy", &json!({"name": "copy"}))]).await;
    let ServerMatch::Ambiguous(several) = by_server(&clusters, &ServerUrl::new(SERVER)) else {
        panic!("one of two was chosen");
    };
    assert_eq!(several.len(), 2);
    let duplicates: Vec<String> = duplicates(&clusters).iter().map(ToString::to_string).collect();
    assert_eq!(duplicates, [format!("Secrets one and copy are both for {SERVER}")]);
}

#[tokio::test]
async fn another_spelling_of_the_url_is_ambiguous() {
    let clusters = read(&[secret(
        "one",
        &json!({"server": SERVER.replace("rancher.", "Rancher.")}),
    )])
    .await;
    assert!(matches!(by_server(&clusters, &ServerUrl::new(SERVER)), ServerMatch::Ambiguous(one) if one.len() == 1));
}

#[tokio::test]
async fn a_url_with_a_double_slash_is_the_same_cluster() {
    let doubled = SERVER.replace("/k8s", "//k8s");
    let clusters = read(&[
        secret("one", &json!({})),
        secret("copy", &json!({"server": doubled, "name": "copy"})),
    ])
    .await;
    assert!(matches!(by_server(&clusters, &ServerUrl::new(SERVER)), ServerMatch::Ambiguous(both) if both.len() == 2));
    assert_eq!(duplicates(&clusters).len(), 1);
}

#[tokio::test]
async fn a_url_with_a_query_is_found_and_is_no_duplicate() {
    let marked =
        |uid: &str, name: &str| secret(name, &json!({"server": format!("{SERVER}?__uid={uid}"), "name": name}));
    let clusters = read(&[marked("1", "one"), marked("2", "two")]).await;
    let server = ServerUrl::new(SERVER);
    assert!(matches!(by_server(&clusters[..1], &server), ServerMatch::One(one) if one.object.name == "one"));
    assert!(matches!(by_server(&clusters, &server), ServerMatch::Several(both) if both.len() == 2));
    assert!(duplicates(&clusters).is_empty());
}

#[tokio::test]
async fn two_clusters_with_the_same_name_are_duplicates() {
    let clusters = read(&[
        secret("one", &json!({})),
        secret("two", &json!({"server": other("c-bbbbb")})),
    ])
    .await;
    let duplicates: Vec<String> = duplicates(&clusters).iter().map(ToString::to_string).collect();
    assert_eq!(duplicates, ["Secrets one and two both have the cluster name \"one\""]);
}
