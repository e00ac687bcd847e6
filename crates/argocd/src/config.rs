//! The key `config` of a cluster Secret: how Argo CD authenticates, as JSON.
//!
//! Each field keeps its text and its place, so that a new token changes nothing else, not even unknown fields. As in Go, the case of
//! a key does not matter, and the last of several keys counts.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::secret::Secret;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
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

/// How Argo CD authenticates to one cluster. Its `Debug` shows the names of the fields, never their values.
#[derive(Clone, Default)]
pub struct ClusterConfig {
    fields: Fields,
    tls: Fields,
}

/// `config` is invalid. The text is not in the error, because it contains credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// It is not a JSON object. Argo CD skips the whole Secret.
    #[error("config is not a JSON object")]
    NotJson,
    /// A field has a value of the wrong type.
    #[error("config has a field of the wrong type")]
    WrongType,
}

/// How Argo CD authenticates (`RawRestConfig`, Argo CD 3.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `awsAuthConfig`, which takes precedence.
    Aws,
    /// `execProviderConfig`.
    Exec,
    /// A bearer token.
    Bearer,
    /// User name and password.
    Basic,
    /// A client certificate.
    Certificate,
    /// Without a credential.
    Anonymous,
}

/// Why Argo CD cannot use a config. It reports that late or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigFlaw {
    /// The client library rejects both at once.
    CaAndInsecure,
    /// The client library rejects both at once.
    BearerAndBasic,
    /// No credential: what a full write of a redacted cluster leaves.
    NoCredential,
    /// `caData` is not base64 of text.
    CaUnreadable,
    /// The token begins with `Bearer `, which Argo CD adds itself.
    TokenPrefix,
    /// The token has white space or a control character. Go sends no header with a line break, and no server accepts the others.
    TokenBlanks,
}

impl ConfigFlaw {
    /// Whether another token corrects it.
    pub fn is_of_token(self) -> bool {
        matches!(self, Self::NoCredential | Self::TokenPrefix | Self::TokenBlanks)
    }
}

impl fmt::Display for ConfigFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CaAndInsecure => "has both caData and insecure: true, which Argo CD cannot use",
            Self::BearerAndBasic => "has both a bearer token and a user name, which Argo CD cannot use",
            Self::NoCredential => "has no credential",
            Self::CaUnreadable => "has a caData that is not base64 of PEM",
            Self::TokenPrefix => "has a bearer token that begins with \"Bearer \", which Argo CD adds itself",
            Self::TokenBlanks => "has a bearer token with a space or a line break, which Argo CD cannot use",
        })
    }
}

impl ClusterConfig {
    /// From the text in a Secret. An empty text is a config without fields.
    pub fn parse(text: &Secret) -> Result<Self, InvalidConfig> {
        if text.expose().trim().is_empty() {
            return Ok(Self::default());
        }
        let fields = Fields::parse(text.expose()).ok_or(InvalidConfig::NotJson)?;
        let tls = match fields.raw(TLS).filter(|raw| *raw != "null") {
            Some(raw) => Fields::parse(raw).ok_or(InvalidConfig::WrongType)?,
            None => Fields::default(),
        };
        let config = Self { fields, tls };
        let texts = [BEARER, "username", "password"].map(|key| config.fields.text(key).is_err());
        let tls = config.tls.text("caData").is_err()
            || config.tls.text("serverName").is_err()
            || config.tls.flag("insecure").is_err();
        if tls || texts.contains(&true) {
            return Err(InvalidConfig::WrongType);
        }
        Ok(config)
    }

    /// As Argo CD writes it for a bearer token. `ca`: the PEM of the CA, where the server's certificate is not publicly trusted.
    pub fn bearing(token: &Secret, ca: Option<&str>) -> Self {
        Self::default().with_bearer(token).with_ca(ca)
    }

    /// The text for the Secret: compact JSON.
    pub fn text(&self) -> Secret {
        Secret::new(self.fields.json())
    }

    /// The bearer token. `None`: it is missing or empty.
    pub fn bearer_token(&self) -> Option<Secret> {
        self.fields.filled(BEARER).map(Secret::new)
    }

    /// How Argo CD authenticates.
    pub fn method(&self) -> Method {
        let there = |key: &str| self.fields.raw(key).is_some_and(|raw| raw != "null");
        if there("awsAuthConfig") {
            Method::Aws
        } else if there("execProviderConfig") {
            Method::Exec
        } else if self.fields.filled(BEARER).is_some() {
            Method::Bearer
        } else if self.fields.filled("username").is_some() {
            Method::Basic
        } else if self.tls.filled("certData").is_some() {
            Method::Certificate
        } else {
            Method::Anonymous
        }
    }

    /// The server's certificate is not checked.
    pub fn insecure(&self) -> bool {
        self.tls.flag("insecure") == Ok(true)
    }

    /// The name that the server's certificate must have, if it is not the host of the URL.
    pub fn server_name(&self) -> Option<String> {
        self.tls.filled("serverName")
    }

    /// The PEM of the CA that must have signed the server's certificate.
    pub fn ca(&self) -> Option<String> {
        let bytes = STANDARD.decode(self.tls.filled("caData")?).ok()?;
        String::from_utf8(bytes).ok().filter(|pem| !pem.is_empty())
    }

    /// Why Argo CD cannot use it.
    pub fn flaws(&self) -> Vec<ConfigFlaw> {
        let has_ca = self.tls.filled("caData").is_some();
        let has_user = self.fields.filled("username").is_some();
        let method = self.method();
        let token = self.bearer_token().filter(|_| method == Method::Bearer);
        let token = token.as_ref().map_or("", Secret::expose);
        let has_prefix = token
            .get(..7)
            .is_some_and(|start| start.eq_ignore_ascii_case("bearer "));
        let has_blanks = token.chars().any(|c| c.is_whitespace() || c.is_control());
        [
            (has_ca && self.insecure(), ConfigFlaw::CaAndInsecure),
            (method == Method::Bearer && has_user, ConfigFlaw::BearerAndBasic),
            (method == Method::Anonymous, ConfigFlaw::NoCredential),
            (has_ca && self.ca().is_none(), ConfigFlaw::CaUnreadable),
            (has_prefix, ConfigFlaw::TokenPrefix),
            (has_blanks && !has_prefix, ConfigFlaw::TokenBlanks),
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

    /// The same with another CA, or with none. `insecure` is always written, as Argo CD does.
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

/// Argo CD knows ten. Millions of small fields would fill the memory.
const MOST_FIELDS: usize = 100;

/// The fields of an object in their order, each with its text.
#[derive(Clone, Default)]
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The last field of this name in any case, as in Go.
    fn raw(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().rev();
        found
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, raw)| raw.as_str())
    }

    /// A text field that is not empty.
    fn filled(&self, name: &str) -> Option<String> {
        self.text(name).ok().flatten().filter(|text| !text.is_empty())
    }

    /// A text field. `Err`: it is not text.
    fn text(&self, name: &str) -> Result<Option<String>, InvalidConfig> {
        let raw = self.raw(name).unwrap_or("null");
        serde_json::from_str(raw).map_err(|_| InvalidConfig::WrongType)
    }

    fn flag(&self, name: &str) -> Result<bool, InvalidConfig> {
        let raw = self.raw(name).unwrap_or("null");
        let flag: Option<bool> = serde_json::from_str(raw).map_err(|_| InvalidConfig::WrongType)?;
        Ok(flag.unwrap_or_default())
    }

    /// Sets a field in its place. A new field is inserted by `order`.
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
                write!(f, "an object with at most {MOST_FIELDS} fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some((key, raw)) = map.next_entry::<String, Box<RawValue>>()? {
                    if fields.len() == MOST_FIELDS {
                        return Err(A::Error::invalid_length(MOST_FIELDS + 1, &self));
                    }
                    fields.push((key, raw.get().to_owned()));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
