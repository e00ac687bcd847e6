//! The Secret of a token: its content, and the manifest of a new one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::ownership::{self, Owner, Writer};
use client::secret::Secret;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::expiration::{self, Expiration};
use crate::token::{self, Token, TokenId};
use crate::validation::{Group, Usage};

/// The namespace of tokens.
pub const NAMESPACE: &str = "kube-system";
/// The type of the Secrets of tokens.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
/// The prefix of the keys of usages.
pub(crate) const USAGE_PREFIX: &str = "usage-bootstrap-";
pub(crate) const AUTHENTICATION: &str = "authentication";
pub(crate) const SIGNING: &str = "signing";

const ID: &str = "token-id";
const SECRET: &str = "token-secret";
pub(crate) const EXPIRATION: &str = "expiration";
const GROUPS: &str = "auth-extra-groups";
const DESCRIPTION: &str = "description";
/// `kubectl apply` writes the whole manifest into this annotation, with the token.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The Secret of a token. It can be invalid: see [`flaws`](Self::flaws).
#[derive(Clone, Debug)]
pub struct TokenSecret {
    /// Its namespace. Tokens are valid only in `kube-system`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// The id in its name.
    pub id: Option<TokenId>,
    /// `token-id`, which must be equal to `id`.
    pub stated_id: Option<String>,
    /// The token, if the name and `token-secret` are valid.
    pub token: Option<Token>,
    /// `token-secret` is not empty.
    pub has_secret: bool,
    /// `token-secret` is valid.
    pub secret_is_well_formed: bool,
    /// Its type.
    pub kind: String,
    /// It has no data.
    pub has_no_data: bool,
    /// Its usages, sorted, without the prefix `usage-bootstrap-`. Kubernetes knows only `authentication` and `signing`.
    pub usages: Vec<String>,
    /// Usages whose value is not exactly `true`.
    pub usages_off: Vec<String>,
    /// Groups besides `system:bootstrappers`. They can be invalid.
    pub groups: Vec<String>,
    /// When it expires.
    pub expiration: Expiration,
    /// Its description.
    pub description: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, without the one of `kubectl apply`, which contains the token.
    pub annotations: BTreeMap<String, String>,
    /// The annotation of `kubectl apply` exists.
    pub is_in_annotation: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// It is immutable.
    pub immutable: bool,
    /// The tool that manages it: see [`ownership::owner`].
    pub owner: Option<Owner>,
    /// The managers of its fields. `None` in a list.
    pub managed_fields: Option<Vec<ManagedFieldsEntry>>,
}

impl TokenSecret {
    /// The manager that wrote the data last, other than `except`.
    pub fn last_writer(&self, except: &str) -> Option<Writer> {
        let metadata = ObjectMeta {
            managed_fields: self.managed_fields.clone(),
            ..ObjectMeta::default()
        };
        ownership::last_writer(&metadata, &["data"], except)
    }

    /// Reads any Secret.
    pub fn read(secret: KubeSecret) -> Self {
        let metadata = secret.metadata;
        let owner = ownership::owner(&metadata);
        let data = Data(secret.data.as_ref());
        let name = metadata.name.unwrap_or_default();
        let id = TokenId::of_secret_name(&name);
        let half = data.text(SECRET).map(Secret::new).filter(|half| !half.is_empty());
        let (usages, usages_off) = data.usages();
        let mut annotations = metadata.annotations.unwrap_or_default();
        let is_in_annotation = annotations.remove(LAST_APPLIED).is_some();
        let has_secret = data.has(SECRET);
        let secret_is_well_formed = half.as_ref().is_some_and(|half| token::is_secret(half.expose()));
        let token = id.clone().zip(half).and_then(|(id, half)| Token::new(id, half).ok());
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            stated_id: data.text(ID).filter(|id| !id.is_empty()),
            id,
            token,
            has_secret,
            secret_is_well_formed,
            kind: secret.type_.unwrap_or_default(),
            has_no_data: secret.data.as_ref().is_none_or(BTreeMap::is_empty),
            usages,
            usages_off,
            groups: data.groups(),
            expiration: match (data.has(EXPIRATION), data.text(EXPIRATION)) {
                (false, _) => Expiration::Never,
                (true, text) => text.map_or(Expiration::Invalid, |text| Expiration::parse(&text)),
            },
            description: data.lossy(DESCRIPTION),
            labels: metadata.labels.unwrap_or_default(),
            annotations,
            is_in_annotation,
            created: metadata.creation_timestamp.map(|time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            immutable: secret.immutable.unwrap_or(false),
            owner,
            managed_fields: metadata.managed_fields,
            name,
        }
    }

    /// Whether it has this usage.
    pub fn is_for(&self, usage: Usage) -> bool {
        self.usages.iter().any(|word| word == usage.name())
    }

    /// Its id, or the name of the Secret if that contains no id.
    pub fn title(&self) -> &str {
        self.id.as_ref().map_or(&self.name, TokenId::as_str)
    }

    /// Whether it owns the certificates that kubeadm has uploaded. They are deleted with it
    /// (`cmd/kubeadm/app/phases/copycerts/copycerts.go`, kubernetes/kubernetes v1.36.3).
    pub fn owns_uploaded_certificates(&self) -> bool {
        self.description == "Proxy for managing TTL for the kubeadm-certs secret"
    }
}

struct Data<'a>(Option<&'a BTreeMap<String, ByteString>>);

impl Data<'_> {
    fn bytes(&self, key: &str) -> Option<&[u8]> {
        Some(self.0?.get(key)?.0.as_slice())
    }

    fn has(&self, key: &str) -> bool {
        self.bytes(key).is_some_and(|bytes| !bytes.is_empty())
    }

    fn text(&self, key: &str) -> Option<String> {
        std::str::from_utf8(self.bytes(key)?).ok().map(str::to_owned)
    }

    fn lossy(&self, key: &str) -> String {
        String::from_utf8_lossy(self.bytes(key).unwrap_or_default()).into_owned()
    }

    /// The usages whose value is `true`, and the others.
    fn usages(&self) -> (Vec<String>, Vec<String>) {
        let keys = self
            .0
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.starts_with("usage-"));
        let (on, off): (Vec<_>, Vec<_>) = keys.partition(|(_, value)| value.0 == b"true");
        let words = |pairs: Vec<(&String, &ByteString)>| {
            let words = pairs
                .into_iter()
                .map(|(key, _)| key.strip_prefix(USAGE_PREFIX).unwrap_or(key).to_owned());
            words.collect()
        };
        (words(on), words(off))
    }

    fn groups(&self) -> Vec<String> {
        let text = self.lossy(GROUPS);
        if text.is_empty() {
            return Vec::new();
        }
        text.split(',').map(str::to_owned).collect()
    }
}

/// A token to create. Its types guarantee that the authenticator accepts it.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The token.
    pub token: Token,
    /// Its usages.
    pub usages: Vec<Usage>,
    /// Groups besides `system:bootstrappers`.
    pub groups: Vec<Group>,
    /// When it expires, in whole seconds. `None`: never.
    pub expiration: Option<Timestamp>,
    /// Its description, which may be empty.
    pub description: String,
    /// Labels of the Secret.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Secret.
    pub annotations: BTreeMap<String, String>,
}

impl NewToken {
    /// The manifest of the Secret. It contains the token.
    pub(crate) fn manifest(&self) -> Value {
        let mut data: BTreeMap<String, String> = BTreeMap::new();
        let mut put = |key: &str, value: &str| data.insert(key.to_owned(), STANDARD.encode(value));
        put(ID, self.token.id.as_str());
        put(SECRET, self.token.secret().expose());
        for usage in &self.usages {
            put(&usage.key(), "true");
        }
        if !self.groups.is_empty() {
            let groups: Vec<&str> = self.groups.iter().map(Group::as_str).collect();
            put(GROUPS, &groups.join(","));
        }
        if let Some(end) = self.expiration {
            put(EXPIRATION, &expiration::format(end));
        }
        if !self.description.is_empty() {
            put(DESCRIPTION, &self.description);
        }
        let mut manifest = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": self.token.id.secret_name(), "namespace": NAMESPACE },
            "type": TYPE,
            "data": data,
        });
        for (field, entries) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            if !entries.is_empty() {
                manifest["metadata"][field] = json!(entries);
            }
        }
        manifest
    }

    /// A merge patch that makes an existing Secret equal to this one. Other usages, groups and expiries are removed.
    pub(crate) fn changes(&self) -> Value {
        let mut manifest = self.manifest();
        let mut data = manifest["data"].take();
        let usages = [Usage::Authentication, Usage::Signing].map(Usage::key);
        for key in usages.iter().map(String::as_str).chain([GROUPS, EXPIRATION]) {
            if data[key].is_null() {
                data[key] = Value::Null;
            }
        }
        json!({ "metadata": { "annotations": self.annotations }, "data": data })
    }

    /// The Secret as it would be created, for a client-side dry run.
    pub fn preview(&self) -> TokenSecret {
        let secret = serde_json::from_value(self.manifest()).unwrap_or_default();
        TokenSecret::read(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> NewToken {
        NewToken {
            token: Token::generate().unwrap(),
            usages: vec![Usage::Authentication, Usage::Signing],
            groups: vec![
                "system:bootstrappers:a".parse().unwrap(),
                "system:bootstrappers:b:c".parse().unwrap(),
            ],
            expiration: Some("2026-11-22T13:00:00.7Z".parse().unwrap()),
            description: "für Knoten 7".to_owned(),
            labels: BTreeMap::from([("env".to_owned(), "test".to_owned())]),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn a_manifest_is_read_back_and_valid() {
        let new = new();
        let read = new.preview();
        assert_eq!(read.token.as_ref(), Some(&new.token));
        assert_eq!(read.usages, ["authentication", "signing"]);
        assert_eq!(read.groups, ["system:bootstrappers:a", "system:bootstrappers:b:c"]);
        assert_eq!(read.expiration.at().unwrap().to_string(), "2026-11-22T13:00:00Z");
        assert_eq!(read.description, "für Knoten 7");
        assert_eq!(read.labels["env"], "test");
        assert_eq!(read.flaws(Timestamp::UNIX_EPOCH), []);
        let unlimited = NewToken {
            expiration: None,
            ..new
        };
        assert_eq!(unlimited.preview().expiration, Expiration::Never);
    }

    #[test]
    fn a_repair_removes_other_usages_groups_and_expiries() {
        let new = NewToken {
            usages: vec![Usage::Authentication],
            groups: Vec::new(),
            expiration: None,
            ..new()
        };
        let changes = new.changes();
        for key in ["usage-bootstrap-signing", "auth-extra-groups", "expiration"] {
            assert_eq!(changes["data"].get(key), Some(&Value::Null), "{key}");
        }
        assert_eq!(changes["data"]["usage-bootstrap-authentication"], json!("dHJ1ZQ=="));
    }

    #[test]
    fn usages_of_other_tools_keep_their_whole_key() {
        let mut manifest = new().manifest();
        manifest["data"]["usage-controller-join"] = json!(STANDARD.encode("true"));
        manifest["data"]["usage-bootstrap-signing"] = json!(STANDARD.encode("yes"));
        let read = TokenSecret::read(serde_json::from_value(manifest).unwrap());
        assert_eq!(read.usages, ["authentication", "usage-controller-join"]);
        assert_eq!(read.usages_off, ["signing"]);
    }

    #[test]
    fn debug_and_annotations_do_not_contain_the_token() {
        let mut manifest = new().manifest();
        let token = new().token;
        manifest["data"][SECRET] = json!(STANDARD.encode(token.secret().expose()));
        manifest["metadata"]["annotations"] = json!({ LAST_APPLIED: manifest.to_string(), "mine": "kept" });
        let read = TokenSecret::read(serde_json::from_value(manifest).unwrap());
        assert!(read.is_in_annotation);
        assert_eq!(read.annotations["mine"], "kept");
        let debug = format!("{read:?}");
        assert!(!debug.contains(token.secret().expose()) && !debug.contains(&STANDARD.encode(token.secret().expose())));
    }
}
