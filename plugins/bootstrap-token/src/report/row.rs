//! One token as a row of `kubectl bootstrap-token list`, for people and for machines. It holds no secret.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bootstrap::judge::{self, Flaw, Usage};
use bootstrap::{Expiration, TokenSecret};
use cli::age;
use cli::output::Printable;
use cli::table::Column;
use client::secret::{Fingerprint, Secret};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::API_VERSION;
use super::product::Part;

/// A row.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    /// The id; `None` where the Secret's name holds none.
    id: Option<String>,
    fingerprint: Option<Fingerprint>,
    /// `None`: never, or it makes no sense; the state tells which.
    expires_at: Option<Timestamp>,
    usages: Vec<String>,
    groups: Vec<String>,
    description: String,
    state: State,
    /// Why the API server refuses it, in the order in which it finds out.
    reasons: Vec<Reason>,
    /// What is not as it should be, and does not keep it from working.
    warnings: Vec<&'static str>,
    immutable: bool,
    /// What else writes its Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// What a rotation under way has to do with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<Part>,
    /// The token itself; only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Exposed>,
    #[serde(skip)]
    shown: Shown,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    /// Of the Secret.
    name: String,
    namespace: String,
    uid: String,
    creation_timestamp: Option<Timestamp>,
    labels: BTreeMap<String, String>,
}

/// A flaw, for machines.
#[derive(Clone, Debug, Serialize)]
struct Reason {
    reason: &'static str,
    message: String,
}

/// What only the table shows.
#[derive(Clone, Debug, Default)]
struct Shown {
    ttl: String,
    expires: String,
    age: String,
    state: String,
}

/// Whether a token works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// The API server accepts it.
    Active,
    /// It only signs `cluster-info`, and was meant to.
    SigningOnly,
    /// It is for nothing that Kubernetes knows; kubeadm's own for its uploaded certificates is such a one.
    NoUsage,
    /// It has ended, and the cleaner has not come yet, or does not run.
    Expired,
    /// Its Secret is being deleted.
    Deleting,
    /// The API server refuses it, and always will.
    Broken,
}

impl State {
    /// As it is shown.
    pub(crate) fn word(self) -> &'static str {
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

/// What the flaws of a token come to.
pub(crate) fn state(secret: &TokenSecret, flaws: &[Flaw]) -> State {
    let has = |wanted: fn(&Flaw) -> bool| flaws.iter().any(wanted);
    if flaws.is_empty() {
        State::Active
    } else if has(|flaw| matches!(flaw, Flaw::Deleting)) {
        State::Deleting
    } else if let [Flaw::NotForAuthentication { present: false }] = flaws {
        if secret.is_for(Usage::Signing) {
            State::SigningOnly
        } else {
            State::NoUsage
        }
    } else if flaws
        .iter()
        .all(|flaw| matches!(flaw, Flaw::Expired(_) | Flaw::NotForAuthentication { present: false }))
    {
        State::Expired
    } else {
        State::Broken
    }
}

impl Row {
    /// The row of a token, by the server's clock.
    pub(crate) fn new(secret: TokenSecret, now: Timestamp) -> Self {
        let flaws = judge::why_not(&secret, now);
        let state = state(&secret, &flaws);
        let warnings = warnings(&secret);
        let shown = Shown {
            ttl: ttl(secret.expiration, now),
            expires: expires(secret.expiration),
            age: age::since(now, secret.created),
            state: shown_state(state, &flaws, &warnings),
        };
        let reason = |flaw: &Flaw| Reason {
            reason: flaw.word(),
            message: flaw.to_string(),
        };
        Self {
            api_version: API_VERSION,
            kind: "BootstrapToken",
            id: secret.id.as_ref().map(ToString::to_string),
            fingerprint: secret.token.as_ref().map(bootstrap::Token::fingerprint),
            expires_at: secret.expiration.at(),
            state,
            reasons: flaws.iter().map(reason).collect(),
            warnings,
            immutable: secret.immutable,
            owner: secret.owner.as_ref().map(ToString::to_string),
            rotation: None,
            token: None,
            shown,
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

    /// With what a rotation under way has to do with it.
    #[must_use]
    pub(crate) fn with_rotation(mut self, part: Option<Part>) -> Self {
        if let Some(part) = &part {
            self.shown.state = format!("{}; {part}", self.shown.state);
        }
        self.rotation = part;
        self
    }

    /// With the token itself, because it was asked for.
    #[must_use]
    pub(crate) fn with_token(mut self, token: &bootstrap::Token) -> Self {
        self.token = Some(Exposed(token.text()));
        self
    }
}

/// The one way in which a token gets into a document: [`Row::with_token`].
#[derive(Clone, Debug)]
struct Exposed(Secret);

impl Serialize for Exposed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

fn warnings(secret: &TokenSecret) -> Vec<&'static str> {
    let weakness = secret.token.as_ref().and_then(bootstrap::Token::weakness);
    let annotation = "kubectl apply has left the token in an annotation";
    let annotation = secret.is_in_annotation.then_some(annotation);
    weakness.into_iter().chain(annotation).collect()
}

/// How long a token lives yet.
pub(crate) fn ttl(expiration: Expiration, now: Timestamp) -> String {
    match expiration {
        Expiration::Never => "<never>".to_owned(),
        Expiration::At(end) => age::until(now, Some(end)),
        Expiration::Unparsable => "<invalid>".to_owned(),
    }
}

/// When it ends.
pub(crate) fn expires(expiration: Expiration) -> String {
    match expiration {
        Expiration::Never => "<never>".to_owned(),
        Expiration::At(end) => bootstrap::expiration::format(end),
        Expiration::Unparsable => "<invalid>".to_owned(),
    }
}

/// The word, and why. Of an expired token the time is told already, of one that only signs the word says it.
fn shown_state(state: State, flaws: &[Flaw], warnings: &[&str]) -> String {
    let tell = matches!(state, State::Broken | State::Expired | State::NoUsage);
    let told = |flaw: &&Flaw| tell && !matches!((state, flaw), (State::Expired, Flaw::Expired(_)));
    let why: Vec<String> = flaws.iter().filter(told).map(ToString::to_string).collect();
    let why = why
        .into_iter()
        .chain(warnings.iter().map(|warning| (*warning).to_owned()));
    let why = why.collect::<Vec<_>>().join("; ");
    if why.is_empty() {
        state.word().to_owned()
    } else {
        format!("{}: {why}", state.word())
    }
}

fn joined(words: &[String]) -> String {
    if words.is_empty() {
        "<none>".to_owned()
    } else {
        words.join(",")
    }
}

impl Printable for Row {
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
            self.shown.ttl.as_str().into(),
            self.shown.expires.as_str().into(),
            joined(&self.usages).into(),
            joined(&self.groups).into(),
            description.map_or_else(none, Cow::from),
            self.shown.age.as_str().into(),
            fingerprint.unwrap_or_else(none),
            format!("{}/{}", self.metadata.namespace, self.metadata.name).into(),
            self.owner.as_deref().map_or_else(none, Cow::from),
            self.shown.state.as_str().into(),
        ]
    }

    /// As `kubectl get -o name` would call the Secret: what can be given to kubectl again.
    fn name(&self) -> String {
        format!("secret/{}", self.metadata.name)
    }
}

#[cfg(test)]
mod tests {
    use bootstrap::judge::KUBEADM_GROUP;
    use bootstrap::{NewToken, Token};
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

    fn good() -> TokenSecret {
        secret("07401b.zz95accd246ae52d")
    }

    #[rstest]
    #[case::active(good(), "active")]
    #[case::expired(TokenSecret { expiration: Expiration::At(NOW), ..good() }, "expired")]
    #[case::signing(TokenSecret { usages: vec!["signing".into()], ..good() }, "signing-only")]
    #[case::unused(TokenSecret { usages: vec![], ..good() }, "no-usage: it is not for authentication")]
    #[case::deleting(TokenSecret { deleting: true, expiration: Expiration::At(NOW), ..good() }, "deleting")]
    #[case::expired_and_spoiled(
        TokenSecret { expiration: Expiration::At(NOW), immutable: true, stated_id: None, ..good() },
        "broken: token-id is missing; expired at 1970-01-01T00:00:00Z"
    )]
    #[case::published(
        secret("07401b.f395accd246ae52d"),
        "active: its secret stands in public documentation"
    )]
    #[case::in_an_annotation(
        TokenSecret { is_in_annotation: true, ..good() },
        "active: kubectl apply has left the token in an annotation"
    )]
    fn a_token_is_in_one_state_and_the_table_says_why(#[case] secret: TokenSecret, #[case] shown: &str) {
        let row = Row::new(secret, NOW);
        assert_eq!(row.cells().last().unwrap(), shown);
    }

    #[test]
    fn times_are_told_by_the_given_clock_and_the_token_only_when_asked() {
        let row = Row::new(good(), NOW);
        assert_eq!(row.cells()[..3], ["07401b", "60m", "1970-01-01T01:00:00Z"]);
        let eternal = Row::new(
            TokenSecret {
                expiration: Expiration::Never,
                ..good()
            },
            NOW,
        );
        assert_eq!(eternal.cells()[1..3], ["<never>", "<never>"]);
        let json = serde_json::to_string(&row).unwrap();
        assert!(!json.contains("zz95accd246ae52d") && !format!("{row:?}").contains("zz95accd246ae52d"));
        let token = good().token.unwrap();
        let asked = row.with_token(&token);
        assert!(
            serde_json::to_string(&asked)
                .unwrap()
                .contains("07401b.zz95accd246ae52d")
        );
        assert!(!format!("{asked:?}").contains("zz95accd246ae52d"));
    }
}
