use argocd::ServerUrl;
use argocd::lookup::{Found, by_server, duplicates};
use serde_json::json;

use crate::support::{SERVER, read, secret};

fn other(id: &str) -> String {
    format!("https://rancher.example.com/k8s/clusters/{id}")
}

#[tokio::test]
async fn a_cluster_is_adopted_by_its_address() {
    let clusters = read(&[
        secret("one", &json!({"server": format!("{SERVER}/")})),
        secret("two", &json!({"server": other("c-bbbbb"), "name": "two"})),
    ])
    .await;
    assert!(matches!(by_server(&clusters, &ServerUrl::new(SERVER)), Found::One(one) if one.object.name == "one"));
    assert!(matches!(
        by_server(&clusters, &ServerUrl::new(&other("c-ccccc"))),
        Found::Nothing
    ));
    assert!(duplicates(&clusters).is_empty());
}

#[tokio::test]
async fn two_for_one_address_are_nobodys_guess() {
    let clusters = read(&[secret("one", &json!({})), secret("copy", &json!({"name": "copy"}))]).await;
    let Found::Several(several) = by_server(&clusters, &ServerUrl::new(SERVER)) else {
        panic!("one of two was taken");
    };
    assert_eq!(several.len(), 2);
    let duplicates: Vec<String> = duplicates(&clusters).iter().map(ToString::to_string).collect();
    assert_eq!(duplicates, [format!("Secrets one and copy are both for {SERVER}")]);
}

#[tokio::test]
async fn another_spelling_of_the_same_address_is_not_passed_over() {
    let clusters = read(&[secret(
        "one",
        &json!({"server": SERVER.replace("rancher.", "Rancher.")}),
    )])
    .await;
    assert!(matches!(by_server(&clusters, &ServerUrl::new(SERVER)), Found::Several(one) if one.len() == 1));
}

#[tokio::test]
async fn two_clusters_of_one_name_are_duplicates_too() {
    let clusters = read(&[
        secret("one", &json!({})),
        secret("two", &json!({"server": other("c-bbbbb")})),
    ])
    .await;
    let duplicates: Vec<String> = duplicates(&clusters).iter().map(ToString::to_string).collect();
    assert_eq!(duplicates, ["Secrets one and two both call their cluster \"one\""]);
}
