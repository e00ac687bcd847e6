//! Rancher's own settings and features: `settings` and `features.management.cattle.io`, both cluster-scoped.

use client::request::{self, Resource};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};
use crate::object;

const SETTING: Resource = object::management("Setting", "settings");
const FEATURE: Resource = object::management("Feature", "features");

/// The feature that exists only with storage `secret`. On by default since Rancher 2.15.0, off in 2.13.8 and 2.14.4.
pub const TTL_ROTATION: &str = "crt-token-ttl-rotation";

/// One setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "RawSetting")]
pub struct Setting {
    /// Set by an administrator, the environment or Rancher itself; may be empty.
    pub value: String,
    /// The default; may be empty.
    pub default: String,
}

impl Setting {
    /// The value, else the default; None if both are empty. (`server-version` may have only a default, seen on Rancher
    /// 2.15.0.)
    pub fn effective(&self) -> Option<&str> {
        [self.value.as_str(), self.default.as_str()]
            .into_iter()
            .find(|text| !text.is_empty())
    }
}

#[derive(Deserialize)]
struct RawSetting {
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    default: Option<String>,
}

impl From<RawSetting> for Setting {
    fn from(raw: RawSetting) -> Self {
        Self {
            value: raw.value.unwrap_or_default(),
            default: raw.default.unwrap_or_default(),
        }
    }
}

/// A setting by name; None if the server has none of that name.
pub async fn setting(client: &kube::Client, name: &str) -> Result<Option<Setting>> {
    Ok(request::get(client, SETTING, None, name).await?)
}

/// The settings that registration depends on, each as it takes effect. None where it is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `server-url`: where agents connect to.
    pub server_url: Option<String>,
    /// `cacerts`: the PEM by which agents trust Rancher; not set with a publicly trusted certificate.
    pub cacerts: Option<String>,
    /// `server-version`, e.g. `v2.15.0`. For display only; nothing is decided by it.
    pub server_version: Option<String>,
    /// `agent-image`, e.g. `rancher/rancher-agent:v2.15.0`.
    pub agent_image: Option<String>,
}

impl Settings {
    /// The checksum that Rancher passes to its agents as `CATTLE_CA_CHECKSUM`: hexadecimal SHA-256 of `cacerts` with one
    /// trailing line break (`pkg/systemtemplate/import.go` of Rancher 2.15.0, `CAChecksum`). None without `cacerts`.
    pub fn ca_checksum(&self) -> Option<String> {
        use std::fmt::Write as _;

        use sha2::{Digest as _, Sha256};
        let mut pem = self.cacerts.clone()?;
        if !pem.ends_with('\n') {
            pem.push('\n');
        }
        Some(
            Sha256::digest(pem.as_bytes())
                .iter()
                .fold(String::new(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                }),
        )
    }
}

/// Reads only the address that agents connect to, with two parallel requests.
pub async fn read_address(client: &kube::Client) -> Result<Settings> {
    let one = |name| async move {
        let setting = setting(client, name).await?;
        Ok::<_, Error>(setting.and_then(|found| found.effective().map(str::to_owned)))
    };
    let (server_url, cacerts) = futures::try_join!(one("server-url"), one("cacerts"))?;
    Ok(Settings {
        server_url,
        cacerts,
        ..Settings::default()
    })
}

/// Reads them, with four parallel requests.
pub async fn read(client: &kube::Client) -> Result<Settings> {
    let one = |name| async move {
        setting(client, name)
            .await
            .map(|setting| setting.and_then(|found| found.effective().map(str::to_owned)))
    };
    let (server_url, cacerts, server_version, agent_image) = futures::future::try_join4(
        one("server-url"),
        one("cacerts"),
        one("server-version"),
        one("agent-image"),
    )
    .await?;
    Ok(Settings {
        server_url,
        cacerts,
        server_version,
        agent_image,
    })
}

/// Whether the server has a feature of this name, enabled or not.
pub async fn has_feature(client: &kube::Client, name: &str) -> Result<bool> {
    let feature: Option<IgnoredAny> = request::get(client, FEATURE, None, name).await?;
    Ok(feature.is_some())
}
