use argocd::ClusterConfig;
use argocd::config::{ConfigFlaw, InvalidConfig, Method};
use client::secret::Secret;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::TOKEN;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const PEM64: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUIKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";

fn parse(text: &str) -> ClusterConfig {
    ClusterConfig::parse(&Secret::new(text)).unwrap()
}

#[test]
fn a_new_config_is_what_argo_cd_writes() {
    // `argocd admin cluster generate-spec --bearer-token` of Argo CD 3.5.1.
    let config = ClusterConfig::bearing(&Secret::new("token-xxxxx:yyyy"), None);
    assert_eq!(
        config.text().expose(),
        r#"{"bearerToken":"token-xxxxx:yyyy","tlsClientConfig":{"insecure":false}}"#
    );
    let config = ClusterConfig::bearing(&Secret::new("token-xxxxx:yyyy"), Some(PEM));
    assert_eq!(
        config.text().expose(),
        format!(r#"{{"bearerToken":"token-xxxxx:yyyy","tlsClientConfig":{{"insecure":false,"caData":"{PEM64}"}}}}"#)
    );
    assert_eq!(config.ca().as_deref(), Some(PEM));
}

#[test]
fn with_bearer_changes_nothing_but_the_token() {
    let text = r#"{ "futureField": {"a":[1, 2.50]}, "bearerToken":"old", "tlsClientConfig": {"insecure":false,"serverName":"x", "odd": 12345678901234567890123}, "proxyUrl":"socks5://p:1080"}"#;
    let changed = parse(text).with_bearer(&Secret::new("new"));
    assert_eq!(
        changed.text().expose(),
        r#"{"futureField":{"a":[1, 2.50]},"bearerToken":"new","tlsClientConfig":{"insecure":false,"serverName":"x", "odd": 12345678901234567890123},"proxyUrl":"socks5://p:1080"}"#
    );
}

#[test]
fn a_ca_is_added_and_removed_in_its_place() {
    let text = r#"{"bearerToken":"t","tlsClientConfig":{"insecure":false,"keyData":"a2V5"},"proxyUrl":""}"#;
    let with = parse(text).with_ca(Some(PEM));
    assert_eq!(
        with.text().expose(),
        format!(
            r#"{{"bearerToken":"t","tlsClientConfig":{{"insecure":false,"keyData":"a2V5","caData":"{PEM64}"}},"proxyUrl":""}}"#
        )
    );
    assert_eq!(parse(with.text().expose()).with_ca(None).text(), parse(text).text());
    // New fields are in the order of Argo CD.
    let from_nothing = parse("").with_ca(None).with_bearer(&Secret::new("t"));
    assert_eq!(
        from_nothing.text().expose(),
        r#"{"bearerToken":"t","tlsClientConfig":{"insecure":false}}"#
    );
    let before_tls = parse(r#"{"username":"u","proxyUrl":"p"}"#).with_bearer(&Secret::new("t"));
    assert_eq!(
        before_tls.text().expose(),
        r#"{"username":"u","bearerToken":"t","proxyUrl":"p"}"#
    );
}

#[test]
fn keys_are_matched_as_in_go() {
    // Any case, and the last of several.
    let config = parse(r#"{"bearertoken":"first","BearerToken":"last","TLSClientConfig":{"INSECURE":true}}"#);
    assert_eq!(config.bearer_token(), Some(Secret::new("last")));
    assert!(config.insecure());
    let changed = config.with_bearer(&Secret::new("new"));
    assert_eq!(
        changed.text().expose(),
        r#"{"bearerToken":"new","TLSClientConfig":{"INSECURE":true}}"#
    );
}

#[rstest]
#[case::bearer(r#"{"bearerToken":"t"}"#, Method::Bearer)]
#[case::aws_first(r#"{"bearerToken":"t","awsAuthConfig":{"clusterName":"c"}}"#, Method::Aws)]
#[case::exec_before_plain(r#"{"bearerToken":"t","execProviderConfig":{"command":"x"}}"#, Method::Exec)]
#[case::basic(r#"{"username":"u","password":"p"}"#, Method::Basic)]
#[case::certificate(r#"{"tlsClientConfig":{"certData":"Yw==","keyData":"aw=="}}"#, Method::Certificate)]
#[case::nothing("", Method::Anonymous)]
#[case::emptied(r#"{"bearerToken":"","tlsClientConfig":{"insecure":false}}"#, Method::Anonymous)]
#[case::nulls(
    r#"{"bearerToken":null,"awsAuthConfig":null,"tlsClientConfig":null}"#,
    Method::Anonymous
)]
fn the_authentication_method_is_the_one_that_argo_cd_uses(#[case] text: &str, #[case] method: Method) {
    assert_eq!(parse(text).method(), method);
}

#[rstest]
#[case(r#"{"bearerToken":"t","tlsClientConfig":{"insecure":true,"caData":"eA=="}}"#, &[ConfigFlaw::CaAndInsecure])]
#[case(r#"{"bearerToken":"t","username":"u"}"#, &[ConfigFlaw::BearerAndBasic])]
#[case(r#"{"bearerToken":"","tlsClientConfig":{"insecure":false}}"#, &[ConfigFlaw::NoCredential])]
#[case(r#"{"bearerToken":"t","tlsClientConfig":{"caData":"%"}}"#, &[ConfigFlaw::CaUnreadable])]
#[case(r#"{"bearerToken":"t","tlsClientConfig":{"insecure":true}}"#, &[])]
#[case(r#"{"bearerToken":"token-x:y\n"}"#, &[ConfigFlaw::TokenBlanks])]
#[case(r#"{"bearerToken":"Bearer token-x:y"}"#, &[ConfigFlaw::TokenPrefix])]
fn unusable_configs_are_detected(#[case] text: &str, #[case] flaws: &[ConfigFlaw]) {
    assert_eq!(parse(text).flaws(), flaws);
}

#[rstest]
#[case("nonsense", InvalidConfig::NotJson)]
#[case("[]", InvalidConfig::NotJson)]
#[case(r#"{"bearerToken":"t""#, InvalidConfig::NotJson)]
#[case(r#"{"bearerToken":{}}"#, InvalidConfig::WrongType)]
#[case(r#"{"tlsClientConfig":"x"}"#, InvalidConfig::WrongType)]
#[case(r#"{"tlsClientConfig":{"insecure":"yes"}}"#, InvalidConfig::WrongType)]
fn invalid_configs_are_rejected(#[case] text: &str, #[case] invalid: InvalidConfig) {
    assert_eq!(ClusterConfig::parse(&Secret::new(text)).unwrap_err(), invalid);
}

#[test]
fn a_config_with_too_many_fields_is_rejected() {
    let fields: Vec<String> = (0..100).map(|nth| format!(r#""{nth}":0"#)).collect();
    let config = |more: &str| ClusterConfig::parse(&Secret::new(format!("{{{}{more}}}", fields.join(","))));
    assert!(config("").is_ok());
    assert_eq!(config(r#","one more":0"#).unwrap_err(), InvalidConfig::NotJson);
}

#[test]
fn debug_output_shows_no_value() {
    let config = ClusterConfig::bearing(&Secret::new(TOKEN), Some(PEM));
    assert_eq!(
        format!("{config:?}"),
        r#"ClusterConfig["bearerToken", "tlsClientConfig"]"#
    );
}

proptest! {
    #[test]
    fn unknown_fields_are_kept(
        keys in proptest::collection::btree_map("[a-z]{1,6}", "\\PC{0,8}", 0..5), token in "\\PC{1,20}",
    ) {
        let before = json!(keys);
        let after = parse(&before.to_string()).with_bearer(&Secret::new(token.clone()));
        let mut after: Value = serde_json::from_str(after.text().expose()).unwrap();
        prop_assert_eq!(after.as_object_mut().unwrap().remove("bearerToken"), Some(json!(token)));
        prop_assert_eq!(after, before);
    }

    #[test]
    fn parse_never_panics(text in "\\PC{0,60}") {
        let _ = ClusterConfig::parse(&Secret::new(text));
    }
}
