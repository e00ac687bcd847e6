use argocd::{ServerUrl, secret_name};
use proptest::prelude::*;
use rstest::rstest;

/// Names that Argo CD 3.5.1 has generated.
#[rstest]
#[case("http://foo", "cluster-foo-752281925")]
#[case(
    "http://[FE80::1FF:FE23:4567:890A]:8000",
    "cluster-fe80--1ff-fe23-4567-890a-682802007"
)]
#[case(
    "https://rancher.example.com/k8s/clusters/c-m-abc12345",
    "cluster-rancher.example.com-4044853469"
)]
#[case(
    "https://rancher.example.com/k8s/clusters/c-m-abc12345/",
    "cluster-rancher.example.com-2048470262"
)]
#[case(
    "https://rancher.example.com:8443/k8s/clusters/local",
    "cluster-rancher.example.com-2754885302"
)]
#[case(
    "https://Rancher.Example.com/k8s/clusters/c-m-abc12345",
    "cluster-rancher.example.com-1625377885"
)]
#[case(
    "https://rancher.example.com:443/k8s/clusters/c-m-abc12345",
    "cluster-rancher.example.com-2135796622"
)]
#[case("https://10.0.0.1:6443", "cluster-10.0.0.1-2537316535")]
fn a_secret_has_the_name_that_argo_cd_gives_it(#[case] uri: &str, #[case] name: &str) {
    assert_eq!(secret_name(uri).as_deref(), Ok(name));
}

#[rstest]
#[case("")]
#[case("rancher.example.com")]
#[case("https://")]
#[case("https:///k8s/clusters/local")]
#[case("https://:6443")]
#[case("https://[::1")]
#[case("https://[not-v6]:443")]
fn a_url_without_a_host_has_no_name(#[case] uri: &str) {
    // `[::1` is accepted without its closing bracket.
    let named = secret_name(uri).is_ok();
    assert_eq!(named, uri == "https://[::1", "{uri}");
}

#[test]
fn urls_are_compared_as_text_without_slashes_at_the_end() {
    let of = ServerUrl::new;
    assert_eq!(
        of("https://r.example.com/k8s/clusters/c-a//"),
        of("https://r.example.com/k8s/clusters/c-a")
    );
    for other in [
        "https://R.example.com/k8s/clusters/c-a",
        "https://r.example.com:443/k8s/clusters/c-a",
        "https://r.example.com//k8s/clusters/c-a",
        "https://r.example.com/k8s//clusters/c-a",
    ] {
        assert_ne!(of(other), of("https://r.example.com/k8s/clusters/c-a"));
        assert!(
            of(other).same_place(&of("https://r.example.com/k8s/clusters/c-a")),
            "{other}"
        );
    }
    assert!(!of("https://r.example.com/k8s/clusters/c-b").same_place(&of("https://r.example.com/k8s/clusters/c-a")));
    assert!(!of("").same_place(&of("https://r.example.com")));
}

#[test]
fn a_url_is_printed_without_its_password() {
    let url = ServerUrl::new("https://me:hunter2@r.example.com/k8s/clusters/c-a");
    let shown = format!("{url} {url:?} {}", serde_json::to_string(&url).unwrap());
    assert!(
        !shown.contains("hunter2") && shown.contains("https://r.example.com/k8s/clusters/c-a"),
        "{shown}"
    );
    assert!(url.as_str().contains("hunter2"), "its identity is the whole text");
}

#[test]
fn a_query_distinguishes_two_clusters_of_argo_cd_with_one_api_server() {
    let of = ServerUrl::new;
    let (plain, marked) = (
        of("https://r.example.com/k8s/clusters/c-a"),
        of("https://r.example.com/k8s/clusters/c-a?__uid=7"),
    );
    assert!(!plain.same_place(&marked) && plain.same_endpoint(&marked));
    assert!(!of("https://r.example.com/k8s/clusters/c-b?__uid=7").same_endpoint(&marked));
}

proptest! {
    #[test]
    fn every_name_is_valid_in_kubernetes(host in "[a-zA-Z0-9]([a-zA-Z0-9.-]{0,20}[a-zA-Z0-9])?", port in 1u16..) {
        let name = secret_name(&format!("https://{host}:{port}/k8s/clusters/c-abcde")).unwrap();
        prop_assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.'));
        prop_assert!(name.starts_with("cluster-"));
    }

    #[test]
    fn secret_name_never_panics(text in "\\PC{0,40}") {
        let _ = secret_name(&text);
    }
}
