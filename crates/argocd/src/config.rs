//! The key `config` of a cluster Secret: how Argo CD logs in, as JSON.
//!
//! Each field is kept as the text that it was, in the order in which it stood, so that a change of the token changes the
//! token and nothing else: a field that we do not know, a spelling, a number too long for us, all survive. Go's parser
//! takes keys in any case and the last of several; so do we.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::secret::Secret;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields in the order in which Argo CD writes them (`ClusterConfig` in `pkg/apis/application/v1alpha1/types.go` of
/// Argo CD 3.5.1).
const ORDER: [&str; 8] = [
    "username",
    "password",
    "bearerToken",
    "tlsClientConfig",
    "awsAuthConfig",
    "execProviderConfig",
    "disableCompression",
    "proxyUrl",
];
const TLS_ORDER: [&str; 5] = ["insecure", "serverName", "certData", "keyData", "caData"];
const BEARER: &str = ORDER[2];
const TLS: &str = ORDER[3];

/// How Argo CD logs in to one cluster. Its `Debug` shows which fields there are, never what they hold.
#[derive(Clone, Default)]
pub struct ClusterConfig {
    fields: Fields,
    tls: Fields,
}

/// What stands in `config` is no JSON object of the right shape. The text is not repeated, it holds credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// No JSON object. Argo CD skips the whole Secret.
    #[error("config is not a JSON object")]
    NotJson,
    /// A field that is used here has a value of another type.
    #[error("config has a field of the wrong type")]
    WrongType,
}

/// By which of its fields Argo CD logs in (`RawRestConfig`, Argo CD 3.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `awsAuthConfig`, before everything else.
    Aws,
    /// `execProviderConfig`.
    Exec,
    /// A bearer token.
    Bearer,
    /// User name and password.
    Basic,
    /// A client certificate.
    Certificate,
    /// None at all.
    Anonymous,
}

/// A config with which Argo CD cannot work, though it says so late or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigFlaw {
    /// The client library refuses both at once.
    CaAndInsecure,
    /// The client library refuses both at once.
    BearerAndBasic,
    /// No credential of any sort: what a full write of a redacted cluster leaves behind.
    NoCredential,
    /// `caData` is not base64 of text.
    CaUnreadable,
}

impl fmt::Display for ConfigFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CaAndInsecure => "has both caData and insecure: true, which Argo CD cannot use",
            Self::BearerAndBasic => "has both a bearer token and a user name, which Argo CD cannot use",
            Self::NoCredential => "has no credential",
            Self::CaUnreadable => "has a caData that is not base64 of PEM",
        })
    }
}

impl ClusterConfig {
    /// From the text in a Secret. An empty one is a config without fields.
    pub fn parse(text: &Secret) -> Result<Self, BadConfig> {
        if text.expose().trim().is_empty() {
            return Ok(Self::default());
        }
        let fields = Fields::parse(text.expose()).ok_or(BadConfig::NotJson)?;
        let tls = match fields.raw(TLS).filter(|raw| *raw != "null") {
            Some(raw) => Fields::parse(raw).ok_or(BadConfig::WrongType)?,
            None => Fields::default(),
        };
        let config = Self { fields, tls };
        let texts = [BEARER, "username", "password"].map(|key| config.fields.text(key).is_err());
        let tls = config.tls.text("caData").is_err()
            || config.tls.text("serverName").is_err()
            || config.tls.flag("insecure").is_err();
        if tls || texts.contains(&true) {
            return Err(BadConfig::WrongType);
        }
        Ok(config)
    }

    /// As Argo CD writes one for a bearer token and, where the server's certificate is not publicly trusted, the PEM that
    /// signed it.
    pub fn bearing(token: &Secret, ca: Option<&str>) -> Self {
        let mut config = Self::default();
        config.fields.set(&ORDER, BEARER, json(token.expose()));
        config.with_ca(ca)
    }

    /// The text for the Secret: compact JSON.
    pub fn text(&self) -> Secret {
        Secret::new(self.fields.json())
    }

    /// The bearer token; `None` without one, or with an empty one.
    pub fn bearer_token(&self) -> Option<Secret> {
        let token = self.fields.text(BEARER).ok().flatten()?;
        Some(token).filter(|token| !token.is_empty()).map(Secret::new)
    }

    /// By what Argo CD logs in.
    pub fn method(&self) -> Method {
        let filled = |key: &str| matches!(self.fields.text(key), Ok(Some(text)) if !text.is_empty());
        let there = |key: &str| self.fields.raw(key).is_some_and(|raw| raw != "null");
        let certificate = matches!(self.tls.text("certData"), Ok(Some(data)) if !data.is_empty());
        if there("awsAuthConfig") {
            Method::Aws
        } else if there("execProviderConfig") {
            Method::Exec
        } else if filled(BEARER) {
            Method::Bearer
        } else if filled("username") {
            Method::Basic
        } else if certificate {
            Method::Certificate
        } else {
            Method::Anonymous
        }
    }

    /// The server's certificate is not checked.
    pub fn insecure(&self) -> bool {
        self.tls.flag("insecure") == Ok(true)
    }

    /// The name that the server's certificate must be for, where it is not the host of the address.
    pub fn server_name(&self) -> Option<String> {
        let name = self.tls.text("serverName").ok().flatten()?;
        Some(name).filter(|name| !name.is_empty())
    }

    /// The PEM that the server is trusted by.
    pub fn ca(&self) -> Option<String> {
        let encoded = self.tls.text("caData").ok().flatten()?;
        let bytes = STANDARD.decode(encoded).ok()?;
        String::from_utf8(bytes).ok().filter(|pem| !pem.is_empty())
    }

    /// What Argo CD cannot work with.
    pub fn flaws(&self) -> Vec<ConfigFlaw> {
        let has_ca = matches!(self.tls.text("caData"), Ok(Some(data)) if !data.is_empty());
        let has_user = matches!(self.fields.text("username"), Ok(Some(name)) if !name.is_empty());
        let method = self.method();
        [
            (has_ca && self.insecure(), ConfigFlaw::CaAndInsecure),
            (method == Method::Bearer && has_user, ConfigFlaw::BearerAndBasic),
            (method == Method::Anonymous, ConfigFlaw::NoCredential),
            (has_ca && self.ca().is_none(), ConfigFlaw::CaUnreadable),
        ]
        .into_iter()
        .filter_map(|(is, flaw)| is.then_some(flaw))
        .collect()
    }

    /// The same with another bearer token.
    #[must_use]
    pub fn with_bearer(mut self, token: &Secret) -> Self {
        self.fields.set(&ORDER, BEARER, json(token.expose()));
        self
    }

    /// The same with another PEM to trust the server by, or with none. `insecure` is always written, as Argo CD does.
    #[must_use]
    pub fn with_ca(mut self, ca: Option<&str>) -> Self {
        if self.tls.raw("insecure").is_none() {
            self.tls.set(&TLS_ORDER, "insecure", "false".to_owned());
        }
        match ca {
            Some(pem) => self.tls.set(&TLS_ORDER, "caData", json(&STANDARD.encode(pem))),
            None => self.tls.remove("caData"),
        }
        let tls = self.tls.json();
        self.fields.set(&ORDER, TLS, tls);
        self
    }
}

impl fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.fields.0.iter().map(|(key, _)| key.as_str());
        write!(f, "ClusterConfig{:?}", names.collect::<Vec<_>>())
    }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The fields of an object, in their order, each as the text that it was.
#[derive(Clone, Default)]
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The last field of that name, in any case, as Go takes it.
    fn raw(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().rev();
        found
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, raw)| raw.as_str())
    }

    /// A field that is to be text. `Err`: it is not.
    fn text(&self, name: &str) -> Result<Option<String>, BadConfig> {
        let raw = self.raw(name).unwrap_or("null");
        serde_json::from_str(raw).map_err(|_| BadConfig::WrongType)
    }

    fn flag(&self, name: &str) -> Result<bool, BadConfig> {
        let raw = self.raw(name).unwrap_or("null");
        let flag: Option<bool> = serde_json::from_str(raw).map_err(|_| BadConfig::WrongType)?;
        Ok(flag.unwrap_or_default())
    }

    /// Puts a value in the place of the field, or, if it was not there, where `order` has it.
    fn set(&mut self, order: &[&str], name: &str, raw: String) {
        let is = |key: &str| key.eq_ignore_ascii_case(name);
        let place = self.0.iter().position(|(key, _)| is(key));
        self.0.retain(|(key, _)| !is(key));
        let rank = |key: &str| order.iter().position(|known| known.eq_ignore_ascii_case(key));
        let place = place.unwrap_or_else(|| {
            let after = self.0.iter().position(|(key, _)| rank(key) > rank(name));
            after.unwrap_or(self.0.len())
        });
        self.0.insert(place.min(self.0.len()), (name.to_owned(), raw));
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }

    fn json(&self) -> String {
        let fields: Vec<String> = self.0.iter().map(|(key, raw)| format!("{}:{raw}", json(key))).collect();
        format!("{{{}}}", fields.join(","))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some((key, raw)) = map.next_entry::<String, Box<RawValue>>()? {
                    fields.push((key, raw.get().to_owned()));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
