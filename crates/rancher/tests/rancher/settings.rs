use base64::Engine as _;
use rancher::settings::{self, Settings};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Server, fixture, status};

const ROOT: &str = "/apis/management.cattle.io/v3";

#[tokio::test]
async fn a_setting_takes_effect_by_its_value_else_by_its_default() {
    let server = Server::new()
        .on(
            "GET",
            &format!("{ROOT}/settings/server-url"),
            200,
            &json!({ "value": "https://rancher.example.com", "default": "" }),
        )
        .on(
            "GET",
            &format!("{ROOT}/settings/cacerts"),
            200,
            &json!({ "value": "", "default": "" }),
        )
        .on(
            "GET",
            &format!("{ROOT}/settings/server-version"),
            200,
            &json!({ "default": "v2.15.0" }),
        )
        .on(
            "GET",
            &format!("{ROOT}/settings/agent-image"),
            404,
            &status(404, "NotFound", "no"),
        );
    let settings = settings::read(&server.client()).await.unwrap();
    assert_eq!(
        settings,
        Settings {
            server_url: Some("https://rancher.example.com".to_owned()),
            cacerts: None,
            server_version: Some("v2.15.0".to_owned()),
            agent_image: None,
        }
    );
    server.seen();
}

#[test]
fn the_ca_checksum_is_the_one_in_the_agents_environment() {
    let aggregation = fixture("stv-aggregation");
    let encoded = aggregation["data"]["ca.crt"].as_str().unwrap();
    let pem = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).unwrap()).unwrap();
    for cacerts in [pem.trim_end().to_owned(), pem] {
        let settings = Settings {
            cacerts: Some(cacerts),
            ..Settings::default()
        };
        assert_eq!(
            settings.ca_checksum().as_deref(),
            Some("566b7005de2cd77fb7b3b94f45f6d22c4a4cc11b2e969d35d3af41fe59153dda")
        );
    }
    assert_eq!(Settings::default().ca_checksum(), None);
}

#[rstest]
#[case::by_default(json!({ "value": null }), json!({ "default": true, "lockedValue": null }), true)]
#[case::switched_off(json!({ "value": false }), json!({ "default": true }), false)]
#[case::locked(json!({ "value": false }), json!({ "default": false, "lockedValue": true }), true)]
#[case::nothing_said(json!({}), json!({}), false)]
#[tokio::test]
async fn a_feature_is_on_if_locked_else_set_else_by_default(
    #[case] spec: Value,
    #[case] status: Value,
    #[case] on: bool,
) {
    let server = Server::new().on(
        "GET",
        &format!("{ROOT}/features/crt-token-ttl-rotation"),
        200,
        &json!({ "spec": spec, "status": status }),
    );
    let feature = settings::feature(&server.client(), settings::TTL_ROTATION)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(feature.enabled, on);
}

#[tokio::test]
async fn a_server_of_era_p_has_no_such_feature() {
    let server = Server::new().on(
        "GET",
        &format!("{ROOT}/features/crt-token-ttl-rotation"),
        404,
        &status(404, "NotFound", "no"),
    );
    assert_eq!(
        settings::feature(&server.client(), settings::TTL_ROTATION)
            .await
            .unwrap(),
        None
    );
}
