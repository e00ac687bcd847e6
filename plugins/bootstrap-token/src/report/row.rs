//! One token in the output of `list` and `create`. It contains no secret unless that is requested.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bootstrap::{Expiration, Flaw, Token, TokenSecret, Usage};
use cli::age;
use cli::output::Printable;
use cli::table::Column;
use client::secret::{Fingerprint, Secret};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::API_VERSION;
use super::target::RotationRole;

/// The JSON document of a token, and its row in a table.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenRow {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    /// `None`: the name of the Secret contains no id.
    id: Option<String>,
    fingerprint: Option<Fingerprint>,
    /// `None`: never, or the expiry is invalid.
    expires_at: Option<Timestamp>,
    usages: Vec<String>,
    groups: Vec<String>,
    description: String,
    state: State,
    /// Why the API server rejects it, in the order of its checks.
    reasons: Vec<Reason>,
    /// Problems that do not make it invalid.
    warnings: Vec<&'static str>,
    immutable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<RotationRole>,
    /// The token itself, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Exposed>,
    #[serde(skip)]
    cells: TableCells,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    creation_timestamp: Option<Timestamp>,
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize)]
struct Reason {
    reason: &'static str,
    message: String,
}

/// The cells of the table that differ from the document.
#[derive(Clone, Debug)]
struct TableCells {
    ttl: String,
    expires: String,
    age: String,
    state: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Active,
    /// It only signs `cluster-info`.
    SigningOnly,
    /// It has no usage that Kubernetes knows, such as the token that owns the certificates that kubeadm uploads.
    NoUsage,
    /// It has expired, and the token cleaner has not deleted it.
    Expired,
    Deleting,
    Broken,
}

impl State {
    /// The state in tables and JSON output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::SigningOnly => "signing-only",
            Self::NoUsage => "no-usage",
            Self::Expired => "expired",
            Self::Deleting => "deleting",
            Self::Broken => "broken",
        }
    }
}

pub(crate) fn state(secret: &TokenSecret, flaws: &[Flaw]) -> State {
    if flaws.is_empty() {
        State::Active
    } else if flaws.contains(&Flaw::Deleting) {
        State::Deleting
    } else if let [Flaw::NotForAuthentication] = flaws {
        if secret.is_for(Usage::Signing) {
            State::SigningOnly
        } else {
            State::NoUsage
        }
    } else if flaws
        .iter()
        .all(|flaw| matches!(flaw, Flaw::Expired(_) | Flaw::NotForAuthentication))
    {
        State::Expired
    } else {
        State::Broken
    }
}

impl TokenRow {
    /// `now` is the time of the API server.
    pub(crate) fn new(secret: TokenSecret, now: Timestamp) -> Self {
        let flaws = secret.flaws(now);
        let state = state(&secret, &flaws);
        let warnings = warnings(&secret);
        let cells = TableCells {
            ttl: ttl(secret.expiration, now),
            expires: expires(secret.expiration),
            age: age::since(now, secret.created),
            state: state_cell(state, &flaws, &warnings),
        };
        let reason = |flaw: &Flaw| Reason {
            reason: flaw.code(),
            message: flaw.to_string(),
        };
        Self {
            api_version: API_VERSION,
            kind: "BootstrapToken",
            id: secret.id.as_ref().map(ToString::to_string),
            fingerprint: secret.token.as_ref().map(Token::fingerprint),
            expires_at: secret.expiration.at(),
            state,
            reasons: flaws.iter().map(reason).collect(),
            warnings,
            immutable: secret.immutable,
            owner: secret.owner.as_ref().map(ToString::to_string),
            rotation: None,
            token: None,
            cells,
            metadata: Metadata {
                name: secret.name,
                namespace: secret.namespace,
                uid: secret.uid,
                creation_timestamp: secret.created,
                labels: secret.labels,
            },
            usages: secret.usages,
            groups: secret.groups,
            description: secret.description,
        }
    }

    #[must_use]
    pub(crate) fn with_rotation(mut self, role: Option<RotationRole>) -> Self {
        if let Some(role) = &role {
            self.cells.state = format!("{}; {role}", self.cells.state);
        }
        self.rotation = role;
        self
    }

    #[must_use]
    pub(crate) fn with_token(mut self, token: &Token) -> Self {
        self.token = Some(Exposed(token.text()));
        self
    }
}

/// A token in a document. Only created by [`TokenRow::with_token`].
#[derive(Clone, Debug)]
struct Exposed(Secret);

impl Serialize for Exposed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

fn warnings(secret: &TokenSecret) -> Vec<&'static str> {
    let weakness = secret.token.as_ref().and_then(Token::weakness);
    let annotation = "kubectl apply has written the token into an annotation";
    let annotation = secret.is_in_annotation.then_some(annotation);
    weakness.into_iter().chain(annotation).collect()
}

/// The time until a token expires.
pub(crate) fn ttl(expiration: Expiration, now: Timestamp) -> String {
    time_cell(expiration, |time| age::until(now, Some(time)))
}

/// When a token expires.
pub(crate) fn expires(expiration: Expiration) -> String {
    time_cell(expiration, bootstrap::expiration::format)
}

fn time_cell(expiration: Expiration, format: impl Fn(Timestamp) -> String) -> String {
    match expiration {
        Expiration::Never => "<never>".to_owned(),
        Expiration::At(time) => format(time),
        Expiration::Invalid => "<invalid>".to_owned(),
    }
}

/// The state with its reasons, except those that the state or another column contains.
fn state_cell(state: State, flaws: &[Flaw], warnings: &[&str]) -> String {
    let has_reasons = matches!(state, State::Broken | State::Expired | State::NoUsage);
    let is_shown = |flaw: &&Flaw| has_reasons && !matches!((state, flaw), (State::Expired, Flaw::Expired(_)));
    let flaws = flaws.iter().filter(is_shown).map(ToString::to_string);
    let reasons: Vec<String> = flaws.chain(warnings.iter().map(ToString::to_string)).collect();
    if reasons.is_empty() {
        state.name().to_owned()
    } else {
        format!("{}: {}", state.name(), reasons.join("; "))
    }
}

fn joined(words: &[String]) -> String {
    if words.is_empty() {
        "<none>".to_owned()
    } else {
        words.join(",")
    }
}

impl Printable for TokenRow {
    const COLUMNS: &'static [Column] = &[
        Column::new("ID"),
        Column::new("TTL"),
        Column::new("EXPIRES"),
        Column::new("USAGES"),
        Column::new("GROUPS"),
        Column::new("DESCRIPTION"),
        Column::wide("AGE"),
        Column::wide("FINGERPRINT"),
        Column::wide("SECRET"),
        Column::wide("OWNER"),
        Column::new("STATE"),
    ];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        let fingerprint = self.fingerprint.map(|print| Cow::from(print.to_string()));
        let none = || Cow::from("<none>");
        let description = Some(self.description.as_str()).filter(|text| !text.is_empty());
        vec![
            self.id.as_deref().map_or_else(none, Cow::from),
            self.cells.ttl.as_str().into(),
            self.cells.expires.as_str().into(),
            joined(&self.usages).into(),
            joined(&self.groups).into(),
            description.map_or_else(none, Cow::from),
            self.cells.age.as_str().into(),
            fingerprint.unwrap_or_else(none),
            format!("{}/{}", self.metadata.namespace, self.metadata.name).into(),
            self.owner.as_deref().map_or_else(none, Cow::from),
            self.cells.state.as_str().into(),
        ]
    }

    /// As in `kubectl get -o name`.
    fn name(&self) -> String {
        format!("secret/{}", self.metadata.name)
    }
}

#[cfg(test)]
mod tests {
    use bootstrap::{KUBEADM_GROUP, NewToken};
    use rstest::rstest;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn secret(token: &str) -> TokenSecret {
        let new = NewToken {
            token: Token::parse(&Secret::new(token)).unwrap(),
            usages: vec![Usage::Authentication, Usage::Signing],
            groups: vec![KUBEADM_GROUP.parse().unwrap()],
            expiration: Some("1970-01-01T01:00:00Z".parse().unwrap()),
            description: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        };
        new.preview()
    }

    fn valid() -> TokenSecret {
        secret("07401b.zz95accd246ae52d")
    }

    #[rstest]
    #[case::active(valid(), "active")]
    #[case::expired(TokenSecret { expiration: Expiration::At(NOW), ..valid() }, "expired")]
    #[case::signing(TokenSecret { usages: vec!["signing".into()], ..valid() }, "signing-only")]
    #[case::unused(TokenSecret { usages: vec![], ..valid() }, "no-usage: its usages do not include authentication")]
    #[case::deleting(TokenSecret { deleting: true, expiration: Expiration::At(NOW), ..valid() }, "deleting")]
    #[case::expired_and_invalid(
        TokenSecret { expiration: Expiration::At(NOW), immutable: true, stated_id: None, ..valid() },
        "broken: token-id is missing; expired at 1970-01-01T00:00:00Z"
    )]
    #[case::published(
        secret("07401b.f395accd246ae52d"),
        "active: its secret is published in documentation"
    )]
    #[case::in_an_annotation(
        TokenSecret { is_in_annotation: true, ..valid() },
        "active: kubectl apply has written the token into an annotation"
    )]
    fn a_token_has_one_state_and_the_table_has_the_reasons(#[case] secret: TokenSecret, #[case] cell: &str) {
        let row = TokenRow::new(secret, NOW);
        assert_eq!(row.cells().last().unwrap(), cell);
    }

    #[test]
    fn times_are_by_the_given_clock_and_the_token_is_only_on_request() {
        let row = TokenRow::new(valid(), NOW);
        assert_eq!(row.cells()[..3], ["07401b", "60m", "1970-01-01T01:00:00Z"]);
        let unlimited = TokenSecret {
            expiration: Expiration::Never,
            ..valid()
        };
        let unlimited = TokenRow::new(unlimited, NOW);
        assert_eq!(unlimited.cells()[1..3], ["<never>", "<never>"]);
        let json = serde_json::to_string(&row).unwrap();
        assert!(!json.contains("zz95accd246ae52d") && !format!("{row:?}").contains("zz95accd246ae52d"));
        let token = valid().token.unwrap();
        let requested = row.with_token(&token);
        let json = serde_json::to_string(&requested).unwrap();
        assert!(json.contains("07401b.zz95accd246ae52d"));
        assert!(!format!("{requested:?}").contains("zz95accd246ae52d"));
    }
}
