use client::secret::Secret;
use proptest::prelude::*;
use rancher::credential_name::Formula;

use crate::support::{SECRET_TOKEN, STATUS_TOKEN, id};

const URL: &str = "https://rancher.example.com";

#[test]
fn names_are_those_of_rancher() {
    // Seen on Rancher 2.15.0 and 2.12.0, with these throw-away tokens.
    for (token, cluster, name) in [
        (SECRET_TOKEN, "c-gsrbc", "cattle-credentials-43cbefdd06"),
        (STATUS_TOKEN, "c-sqqnm", "cattle-credentials-842f369506"),
    ] {
        assert_eq!(Formula::Sha256.name_for(URL, &Secret::new(token), &id(cluster)), name);
        assert_eq!(
            Formula::recognise(name, URL, &Secret::new(token), cluster),
            Some(Formula::Sha256)
        );
    }
}

#[test]
fn the_old_formula_is_md5_without_separators() {
    // printf %s https://rancher.example.comabcc-gsrbc | md5sum
    let name = Formula::Md5.name(URL, &Secret::new("abc"), "c-gsrbc");
    assert_eq!(name, "cattle-credentials-266a2a0");
    assert_eq!(
        Formula::recognise(&name, URL, &Secret::new("abc"), "c-gsrbc"),
        Some(Formula::Md5)
    );
}

#[test]
fn the_import_manifest_names_its_secret_without_a_cluster() {
    let token = Secret::new(SECRET_TOKEN);
    let imported = Formula::Sha256.name(URL, &token, "");
    assert_ne!(imported, Formula::Sha256.name_for(URL, &token, &id("c-gsrbc")));
    assert_eq!(Formula::recognise(&imported, URL, &token, ""), Some(Formula::Sha256));
}

#[test]
fn a_secret_that_was_changed_by_hand_has_no_formula() {
    let name = "cattle-credentials-43cbefdd06";
    assert_eq!(
        Formula::recognise(name, URL, &Secret::new(format!("{SECRET_TOKEN}\n")), "c-gsrbc"),
        None
    );
    assert_eq!(Formula::recognise(name, URL, &Secret::new("another"), "c-gsrbc"), None);
}

#[test]
fn the_manifest_shows_the_formula() {
    assert_eq!(Formula::of_manifest(true), Formula::Sha256);
    assert_eq!(Formula::of_manifest(false), Formula::Md5);
}

proptest! {
    #[test]
    fn every_name_is_valid_and_shows_its_formula(url in "https://[a-z.]{1,40}", token in "[b-z2-9]{1,60}", md5: bool) {
        let formula = if md5 { Formula::Md5 } else { Formula::Sha256 };
        let token = Secret::new(token);
        let name = formula.name_for(&url, &token, &id("c-gsrbc"));
        prop_assert!(name.len() <= 63 && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-'));
        prop_assert_eq!(Formula::recognise(&name, &url, &token, "c-gsrbc"), Some(formula));
    }
}
