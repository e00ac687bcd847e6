//! Harvester's setting `cluster-registration-url`: the import URL, with a registration token in it.
//!
//! Harvester reads it only when it changes, and an empty one deletes the agent's Deployment (seen on Harvester 1.8.2). So it is only read
//! here.

use client::request::{self, Resource};
use client::secret::Secret;
use serde::Deserialize;

use crate::error::Result;

const SETTING: Resource = Resource::new("Setting", "harvesterhci.io/v1beta1", "settings");
const REGISTRATION_URL: &str = "cluster-registration-url";

/// The registration token in the setting, on a Harvester cluster. None if it has none, or if the server has no such setting.
pub async fn registration_token(client: &kube::Client) -> Result<Option<Secret>> {
    #[derive(Deserialize)]
    struct RawSetting {
        value: Option<String>,
    }
    let setting: Option<RawSetting> = request::get(client, SETTING, None, REGISTRATION_URL).await?;
    Ok(setting.and_then(|setting| token_in(&setting.value?)))
}

/// The token of `…/v3/import/<token>_<cluster>.yaml`, in a bare URL (before Harvester 1.7.2) or in JSON.
fn token_in(value: &str) -> Option<Secret> {
    let (_, file) = value.split_once("/v3/import/")?;
    let token = file.split(['_', '.', '"', '/', '?']).next()?;
    (!token.is_empty()).then(|| Secret::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_read_from_both_forms_of_the_setting() {
        let token = |value| token_in(value).map(|token| token.expose().to_owned());
        let json = r#"{"url":"https://rancher.example.com/v3/import/abc_c-m-1.yaml","insecureSkipTLSVerify":true}"#;
        assert_eq!(token(json).as_deref(), Some("abc"));
        assert_eq!(
            token("https://rancher.example.com/v3/import/abc_c-m-1.yaml").as_deref(),
            Some("abc")
        );
        assert_eq!(
            token("https://rancher.example.com/v3/import/abc.yaml").as_deref(),
            Some("abc")
        );
        for without in [
            r#"{"url":"","insecureSkipTLSVerify":false}"#,
            "",
            "https://x/v3/import/",
        ] {
            assert_eq!(token(without), None);
        }
    }
}
