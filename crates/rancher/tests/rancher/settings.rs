use base64::Engine as _;
use rancher::settings::{self, Settings};
use serde_json::json;

use crate::support::{Server, fixture, status};

const ROOT: &str = "/apis/management.cattle.io/v3";

#[tokio::test]
async fn the_value_of_a_setting_takes_precedence_over_its_default() {
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
    server.requests();
}

#[test]
fn the_ca_checksum_is_that_of_the_agents_environment() {
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

#[tokio::test]
async fn a_feature_exists_or_not() {
    let path = format!("{ROOT}/features/crt-token-ttl-rotation");
    let server =
        Server::new()
            .on("GET", &path, 200, &fixture("feature"))
            .on("GET", &path, 404, &status(404, "NotFound", "no"));
    let client = server.client();
    assert!(settings::has_feature(&client, settings::TTL_ROTATION).await.unwrap());
    assert!(!settings::has_feature(&client, settings::TTL_ROTATION).await.unwrap());
    server.requests();
}
