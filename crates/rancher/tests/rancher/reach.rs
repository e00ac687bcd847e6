use rancher::reach::{RancherUrl, Reach};
use rstest::rstest;
use url::Url;

use crate::support::id;

#[rstest]
#[case::local("https://r.example.com/k8s/clusters/local", "https://r.example.com", Some("local"))]
#[case::cluster(
    "https://r.example.com/k8s/clusters/c-abcde",
    "https://r.example.com",
    Some("c-abcde")
)]
#[case::slash(
    "https://r.example.com/k8s/clusters/c-abcde/",
    "https://r.example.com",
    Some("c-abcde")
)]
#[case::port(
    "https://r.example.com:8443/k8s/clusters/c-m-abc12345",
    "https://r.example.com:8443",
    Some("c-m-abc12345")
)]
#[case::prefix(
    "https://r.example.com/rancher/k8s/clusters/c-abcde",
    "https://r.example.com/rancher",
    Some("c-abcde")
)]
#[case::bare("https://r.example.com", "https://r.example.com", None)]
#[case::bare_slash("https://r.example.com/", "https://r.example.com", None)]
#[case::bare_prefix("https://r.example.com/rancher/", "https://r.example.com/rancher", None)]
#[case::api_server("https://10.0.0.1:6443", "https://10.0.0.1:6443", None)]
#[case::v6("https://[fd00::1]:6443/k8s/clusters/local", "https://[fd00::1]:6443", Some("local"))]
#[case::no_id("https://r.example.com/k8s/clusters", "https://r.example.com/k8s/clusters", None)]
#[case::further(
    "https://r.example.com/k8s/clusters/c-abcde/api",
    "https://r.example.com/k8s/clusters/c-abcde/api",
    None
)]
#[case::user_info(
    "https://me:secret@r.example.com/k8s/clusters/local?a=b#c",
    "https://r.example.com",
    Some("local")
)]
fn a_server_url_is_read(#[case] url: &str, #[case] base: &str, #[case] cluster: Option<&str>) {
    let reach = Reach::of(&url.parse().unwrap());
    assert_eq!(reach.base().to_string(), base);
    match (&reach, cluster) {
        (Reach::Proxy { cluster, .. }, Some(expected)) => assert_eq!(cluster.as_str(), expected),
        (Reach::Root(_), None) => {}
        _ => panic!("{reach:?}"),
    }
}

#[test]
fn the_urls_of_all_clusters_follow_from_one() {
    let context: Url = "https://r.example.com/rancher/k8s/clusters/c-abcde".parse().unwrap();
    let base = Reach::of(&context).base().clone();
    assert_eq!(
        base.cluster(&id("c-m-abc12345")).as_str(),
        "https://r.example.com/rancher/k8s/clusters/c-m-abc12345"
    );
    assert_eq!(
        base.management().as_str(),
        "https://r.example.com/rancher/k8s/clusters/local"
    );
    let root = RancherUrl::new(&"https://r.example.com/".parse().unwrap());
    assert_eq!(
        root.cluster(&id("c-abcde")).as_str(),
        "https://r.example.com/k8s/clusters/c-abcde"
    );
}

#[test]
fn a_downstream_cluster_is_found_by_url() {
    let of = |url: &str| Reach::of(&url.parse().unwrap()).downstream().cloned();
    assert_eq!(of("https://r.example.com/k8s/clusters/c-abcde"), Some(id("c-abcde")));
    assert_eq!(of("https://r.example.com/k8s/clusters/local"), None);
    assert_eq!(of("https://10.0.0.1:6443"), None);
}
