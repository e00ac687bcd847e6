//! The rules of the authenticator, in its order.
//!
//! The client gets the same `401 Unauthorized` for every broken rule. The API server logs which one only at `-v=3`.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::expiration::{self, Expiration};
use crate::secret::{AUTHENTICATION, NAMESPACE, SIGNING, TYPE, TokenSecret, USAGE_PREFIX};

/// The group of all bootstrap tokens. No token may name it.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";
const GROUP_PREFIX: &str = "system:bootstrappers:";
/// The group that kubeadm binds its roles to.
pub const KUBEADM_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// A group of a token besides `system:bootstrappers`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Group(String);

impl Group {
    /// The group as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a text is not a group for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupFlaw {
    /// Nothing between two commas, or after the last one.
    #[error("is empty: a comma too many")]
    Empty,
    /// `system:bootstrappers` itself.
    #[error("is a group of every token and must not be named")]
    Bootstrappers,
    /// Another prefix.
    #[error("does not begin with system:bootstrappers:")]
    NotBootstrappers,
    /// White space.
    #[error("contains a space")]
    Space,
    /// Another character.
    #[error("contains characters other than a-z, 0-9, ':' and '-'")]
    Characters,
    /// The last character is `:` or `-`.
    #[error("does not end with a letter or a digit")]
    End,
    /// More than 256 characters.
    #[error("is longer than 256 characters after system:bootstrappers:")]
    TooLong,
}

impl FromStr for Group {
    type Err = GroupFlaw;

    /// `BootstrapGroupPattern`: `\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`.
    fn from_str(text: &str) -> Result<Self, GroupFlaw> {
        let symbol = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if text.is_empty() {
            return Err(GroupFlaw::Empty);
        }
        if text == BOOTSTRAPPERS {
            return Err(GroupFlaw::Bootstrappers);
        }
        if text.contains(char::is_whitespace) {
            return Err(GroupFlaw::Space);
        }
        let rest = text
            .strip_prefix(GROUP_PREFIX)
            .ok_or(GroupFlaw::NotBootstrappers)?
            .as_bytes();
        if !rest.iter().all(|byte| symbol(byte) || matches!(byte, b':' | b'-')) {
            return Err(GroupFlaw::Characters);
        }
        if !rest.last().is_some_and(symbol) {
            return Err(GroupFlaw::End);
        }
        if rest.len() > 256 {
            return Err(GroupFlaw::TooLong);
        }
        Ok(Self(text.to_owned()))
    }
}

/// What a token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// As a bearer token.
    Authentication,
    /// To sign `cluster-info`, so that `kubeadm join` can trust the cluster by the token.
    Signing,
}

/// A text that is not a usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a usage is authentication or signing")]
pub struct NotAUsage;

impl Usage {
    /// The name of the usage in Kubernetes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authentication => AUTHENTICATION,
            Self::Signing => SIGNING,
        }
    }

    /// The key in the Secret.
    pub fn key(self) -> String {
        format!("{USAGE_PREFIX}{}", self.name())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Usage {
    type Err = NotAUsage;

    fn from_str(text: &str) -> Result<Self, NotAUsage> {
        match text {
            AUTHENTICATION => Ok(Self::Authentication),
            SIGNING => Ok(Self::Signing),
            _ => Err(NotAUsage),
        }
    }
}

/// A reason why the API server rejects a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The Secret is in this namespace.
    #[error("its Secret is in namespace {0}, not in kube-system")]
    Namespace(String),
    /// The name of the Secret contains no id.
    #[error("its Secret is not named bootstrap-token-ID, with an ID of 6 lower-case letters or digits")]
    Name,
    /// The Secret is being deleted.
    #[error("its Secret is being deleted")]
    Deleting,
    /// The Secret is of this type.
    #[error("its Secret is of type {0:?}, not bootstrap.kubernetes.io/token")]
    Type(String),
    /// The Secret has no data.
    #[error("its Secret has no data")]
    NoData,
    /// There is no `token-secret`.
    #[error("token-secret is missing")]
    NoSecret,
    /// `token-secret` is malformed.
    #[error("token-secret is not 16 lower-case letters or digits")]
    MalformedSecret,
    /// There is no `token-id`.
    #[error("token-id is missing")]
    NoId,
    /// `token-id` is another id.
    #[error("token-id is not the id in the Secret's name")]
    IdMismatch,
    /// It has expired.
    #[error("expired at {}", expiration::format(*.0))]
    Expired(Timestamp),
    /// `expiration` is not a time.
    #[error("expiration is not an RFC 3339 time, so it counts as expired")]
    InvalidExpiration,
    /// The usage is missing.
    #[error("its usages do not include authentication")]
    NotForAuthentication,
    /// The usage has another value than `true`.
    #[error("usage-bootstrap-authentication is not exactly \"true\"")]
    AuthenticationNotTrue,
    /// A group is invalid, which makes the whole token invalid.
    #[error("group {group:?} {flaw}")]
    Group {
        /// The text in the Secret.
        group: String,
        /// Why it is invalid.
        flaw: GroupFlaw,
    },
}

impl Flaw {
    /// The reason in JSON output.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Namespace(_) => "wrong-namespace",
            Self::Name => "wrong-name",
            Self::Deleting => "deleting",
            Self::Type(_) => "wrong-type",
            Self::NoData => "no-data",
            Self::NoSecret | Self::MalformedSecret => "bad-secret",
            Self::NoId | Self::IdMismatch => "bad-id",
            Self::Expired(_) => "expired",
            Self::InvalidExpiration => "bad-expiration",
            Self::NotForAuthentication | Self::AuthenticationNotTrue => "no-authentication",
            Self::Group { .. } => "bad-group",
        }
    }
}

impl TokenSecret {
    /// All reasons why the API server rejects the token, in the order of the authenticator. Empty: it accepts the token.
    ///
    /// (`AuthenticateToken` in `plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go`, kubernetes/kubernetes v1.36.3.)
    pub fn flaws(&self, now: Timestamp) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        if self.namespace != NAMESPACE {
            flaws.push(Flaw::Namespace(self.namespace.clone()));
        }
        if self.id.is_none() {
            flaws.push(Flaw::Name);
        }
        if self.deleting {
            flaws.push(Flaw::Deleting);
        }
        if self.kind != TYPE {
            flaws.push(Flaw::Type(self.kind.clone()));
        }
        if self.has_no_data {
            flaws.push(Flaw::NoData);
            return flaws;
        }
        flaws.extend(self.flaws_of_halves());
        match self.expiration {
            Expiration::At(end) if end <= now => flaws.push(Flaw::Expired(end)),
            Expiration::Invalid => flaws.push(Flaw::InvalidExpiration),
            Expiration::At(_) | Expiration::Never => {}
        }
        if !self.is_for(Usage::Authentication) {
            let is_off = self.usages_off.iter().any(|usage| usage == AUTHENTICATION);
            flaws.push(if is_off {
                Flaw::AuthenticationNotTrue
            } else {
                Flaw::NotForAuthentication
            });
        }
        flaws.extend(self.groups.iter().filter_map(|group| {
            let flaw = group.parse::<Group>().err()?;
            let group = group.clone();
            Some(Flaw::Group { group, flaw })
        }));
        flaws
    }

    fn flaws_of_halves(&self) -> impl Iterator<Item = Flaw> {
        let half = match (self.secret_is_well_formed, self.has_secret) {
            (true, _) => None,
            (false, true) => Some(Flaw::MalformedSecret),
            (false, false) => Some(Flaw::NoSecret),
        };
        let id = match (&self.stated_id, &self.id) {
            (None, _) => Some(Flaw::NoId),
            (Some(stated), Some(id)) if stated == id.as_str() => None,
            // The name is invalid, which is a flaw of its own.
            (Some(_), None) => None,
            (Some(_), Some(_)) => Some(Flaw::IdMismatch),
        };
        half.into_iter().chain(id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret as KubeSecret;
    use k8s_openapi::jiff::SignedDuration;
    use proptest::prelude::*;
    use regex::Regex;
    use rstest::rstest;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// A Secret that the authenticator accepts, with one key changed (`None` takes it out).
    fn with(key: &str, value: Option<&str>) -> KubeSecret {
        let mut data: BTreeMap<String, ByteString> = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("usage-bootstrap-signing", "true"),
            ("auth-extra-groups", KUBEADM_GROUP),
            ("expiration", "1970-01-01T01:00:00Z"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.into())))
        .collect();
        match value {
            Some(value) => data.insert(key.to_owned(), ByteString(value.into())),
            None => data.remove(key),
        };
        let mut secret = KubeSecret {
            type_: Some(TYPE.to_owned()),
            data: Some(data),
            ..KubeSecret::default()
        };
        secret.metadata.name = Some("bootstrap-token-abcdef".to_owned());
        secret.metadata.namespace = Some(NAMESPACE.to_owned());
        secret
    }

    fn flaws(secret: KubeSecret) -> Vec<String> {
        let read = TokenSecret::read(secret);
        read.flaws(NOW).iter().map(Flaw::to_string).collect()
    }

    #[test]
    fn a_valid_token_has_no_flaw_until_it_expires() {
        let valid = TokenSecret::read(with("description", Some("fine")));
        assert_eq!(valid.flaws(NOW), []);
        let later = NOW + SignedDuration::from_hours(2);
        assert_eq!(valid.flaws(later)[0].to_string(), "expired at 1970-01-01T01:00:00Z");
    }

    #[rstest]
    #[case::masters("system:masters", r#""system:masters" does not begin with system:bootstrappers:"#)]
    #[case::every(
        "system:bootstrappers",
        r#""system:bootstrappers" is a group of every token and must not be named"#
    )]
    #[case::upper(
        "system:bootstrappers:Kubeadm",
        r#""system:bootstrappers:Kubeadm" contains characters other than a-z, 0-9, ':' and '-'"#
    )]
    #[case::comma("system:bootstrappers:a,", r#""" is empty: a comma too many"#)]
    #[case::space(
        "system:bootstrappers:a, system:bootstrappers:b",
        r#"" system:bootstrappers:b" contains a space"#
    )]
    fn an_invalid_group_has_a_message(#[case] groups: &str, #[case] expected: &str) {
        let flaws = flaws(with("auth-extra-groups", Some(groups)));
        assert_eq!(flaws, [format!("group {expected}")]);
    }

    const MALFORMED_SECRET: &str = "token-secret is not 16 lower-case letters or digits";

    #[rstest]
    #[case::newline("token-secret", "0123456789abcdef\n", MALFORMED_SECRET)]
    #[case::upper_secret("token-secret", "0123456789ABCDEF", MALFORMED_SECRET)]
    #[case::empty_secret("token-secret", "", "token-secret is missing")]
    #[case::mismatch("token-id", "ghijkl", "token-id is not the id in the Secret's name")]
    #[case::no_id("token-id", "", "token-id is missing")]
    #[case::capital_true(
        "usage-bootstrap-authentication",
        "True",
        r#"usage-bootstrap-authentication is not exactly "true""#
    )]
    #[case::date(
        "expiration",
        "2026-11-22",
        "expiration is not an RFC 3339 time, so it counts as expired"
    )]
    fn each_flaw_has_a_message(#[case] key: &str, #[case] value: &str, #[case] expected: &str) {
        assert_eq!(flaws(with(key, Some(value))), [expected]);
    }

    #[test]
    fn missing_keys_are_flaws() {
        assert_eq!(
            flaws(with("usage-bootstrap-authentication", None)),
            ["its usages do not include authentication"]
        );
        assert_eq!(flaws(with("expiration", None)), [""; 0]);
        let mut secret = with("x", None);
        secret.data = None;
        assert_eq!(flaws(secret), ["its Secret has no data"]);
    }

    #[test]
    fn a_wrong_namespace_type_or_name_is_a_flaw() {
        let mut secret = with("x", None);
        secret.type_ = Some("Opaque".into());
        secret.metadata.namespace = Some("default".into());
        assert_eq!(
            flaws(secret),
            [
                "its Secret is in namespace default, not in kube-system",
                "its Secret is of type \"Opaque\", not bootstrap.kubernetes.io/token"
            ]
        );
        let mut secret = with("x", None);
        secret.metadata.name = Some("bootstrap-token-ABCDEF".into());
        assert_eq!(
            flaws(secret),
            ["its Secret is not named bootstrap-token-ID, with an ID of 6 lower-case letters or digits"]
        );
    }

    #[test]
    fn flaws_are_in_the_order_of_the_authenticator() {
        let mut secret = with("token-id", Some("ghijkl"));
        let data = secret.data.as_mut().unwrap();
        for (key, value) in [
            ("token-secret", "short"),
            ("expiration", "soon"),
            ("usage-bootstrap-authentication", "1"),
            ("auth-extra-groups", "wheel"),
        ] {
            data.insert(key.to_owned(), ByteString(value.into()));
        }
        let flaws = TokenSecret::read(secret).flaws(NOW);
        let codes: Vec<&str> = flaws.iter().map(Flaw::code).collect();
        assert_eq!(
            codes,
            [
                "bad-secret",
                "bad-id",
                "bad-expiration",
                "no-authentication",
                "bad-group"
            ]
        );
    }

    proptest! {
        /// `BootstrapGroupPattern` in `token/api/types.go` of cluster-bootstrap v0.36.3.
        #[test]
        fn groups_match_the_pattern_of_kubernetes(
            text in prop_oneof![
                "system:bootstrappers:[a-z0-9:-]{0,8}",
                "system:bootstrappers:[a-zA-Z0-9:_ -]{0,8}\\n?",
                "system:bootstrappers:[a-z0-9]{250,260}",
                "system:bootstrappers:[a-z]{254,256}[:-]?",
                "(system)?:?(bootstrappers|masters)?:?[a-z]{0,4}",
                "\\PC{0,40}",
            ]
        ) {
            let pattern = Regex::new(r"\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z").unwrap();
            prop_assert_eq!(text.parse::<Group>().is_ok(), pattern.is_match(&text));
        }

        /// `GetGroups` in `util/secrets/secrets.go`: each part between commas must match.
        #[test]
        fn a_list_of_groups_is_valid_if_each_group_is(
            list in proptest::collection::vec(prop_oneof!["system:bootstrappers:[a-z:]{1,4}", "[a-z]{0,3}"], 0..4)
        ) {
            let text = list.join(",");
            let pattern = Regex::new(r"\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z").unwrap();
            let theirs = text.is_empty() || text.split(',').all(|group| pattern.is_match(group));
            prop_assert_eq!(flaws(with("auth-extra-groups", Some(&text))).is_empty(), theirs);
        }
    }
}
