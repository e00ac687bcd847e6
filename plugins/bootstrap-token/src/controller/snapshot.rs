//! Everything that is read in one look, with the values and versions that writes need.

use std::collections::BTreeMap;

use bootstrap::cluster_info::{ClusterInfo, Signature};
use bootstrap::{Expiration, Token, TokenSecret, judge};
use client::ownership::Writer;
use client::secret::{Fingerprint, Secret};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::delivery::{self, file, secret};
use crate::rotation::view::{self, Answer, Leg, Record, Side, Standing, Target as SeenTarget};
use crate::side::MANAGER;

/// On what a run has written: the token that it replaces, the run, and the leg of its way.
pub(super) const MARK: &str = "kubectl-rotation.github.io/bootstrap-token";
/// On the Secret of a token that a run has created: its [`Record`].
pub(super) const RECORD: &str = "kubectl-rotation.github.io/bootstrap-token-rotation";

/// A token that ends sooner than this could end while a write is under way.
const NEAR: SignedDuration = SignedDuration::from_mins(5);

/// One look.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) old: Option<TokenSecret>,
    pub(super) new: Option<TokenSecret>,
    pub(super) info: Option<ClusterInfo>,
    pub(super) target: AtTarget,
}

/// What was read at the target.
#[derive(Debug, Default)]
pub(super) enum AtTarget {
    /// Nothing is delivered.
    #[default]
    Nothing,
    /// A file on another host.
    Unreachable,
    /// It is not there.
    Missing(delivery::Target),
    /// A key of a Secret.
    Secret(secret::Key, Box<secret::Seen>),
    /// A file.
    File(std::path::PathBuf, file::Seen),
}

impl AtTarget {
    /// What is in it.
    pub(super) fn content(&self) -> Option<&Secret> {
        match self {
            Self::Secret(_, seen) => Some(&seen.content),
            Self::File(_, seen) => Some(&seen.content),
            Self::Nothing | Self::Unreachable | Self::Missing(_) => None,
        }
    }

    /// The token in it.
    pub(super) fn token(&self) -> Option<Token> {
        delivery::content::token_in(self.content()?)
    }

    /// As `decide` sees it.
    pub(super) fn view(&self, run: Option<&str>, answer: Answer) -> SeenTarget {
        let holds = |content: &Secret, leg, writer: Option<&Writer>| SeenTarget::Holds {
            held: delivery::held(content),
            leg,
            answer,
            writer: writer.map(ToString::to_string),
        };
        match self {
            Self::Nothing => SeenTarget::Nothing,
            Self::Unreachable => SeenTarget::Unreachable,
            Self::Missing(_) => SeenTarget::Missing,
            Self::File(_, seen) => holds(&seen.content, None, None),
            Self::Secret(_, seen) => holds(&seen.content, mark_of(&seen.annotations, run), seen.writer.as_ref()),
        }
    }
}

impl Snapshot {
    /// Every token that was read.
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> {
        let of_secrets = [&self.old, &self.new].map(|secret| secret.as_ref()?.token.clone());
        of_secrets.into_iter().flatten().chain(self.target.token())
    }

    /// Whether the Secret of the old token still holds this value.
    pub(super) fn old_holds(&self, value: Fingerprint) -> bool {
        let token = self.old.as_ref().and_then(|old| old.token.as_ref());
        token.is_some_and(|token| token.fingerprint() == value)
    }

    /// What is known of one token.
    pub(super) fn side(&self, secret: Option<&TokenSecret>, run: Option<&str>, answer: Answer, now: Timestamp) -> Side {
        let token = secret.and_then(|secret| secret.token.as_ref());
        let signed = token.zip(self.info.as_ref());
        Side {
            token: secret.map(|secret| view::Token {
                value: secret.token.as_ref().map(Token::fingerprint),
                standing: standing(secret, now),
                mark: mark_of(&secret.annotations, run),
                record: record_of(&secret.annotations),
            }),
            answer,
            signed: signed.is_some_and(|(token, info)| info.signature(token) == Signature::Valid),
            returned: false,
            writer: secret
                .and_then(|secret| secret.last_writer(MANAGER))
                .map(|writer| writer.to_string()),
        }
    }
}

fn standing(secret: &TokenSecret, now: Timestamp) -> Standing {
    if !judge::why_not(secret, now).is_empty() {
        return Standing::Dead;
    }
    let soon = now.saturating_add(NEAR).unwrap_or(Timestamp::MAX);
    match secret.expiration {
        Expiration::At(end) if end <= soon => Standing::Ending,
        _ => Standing::Sound,
    }
}

/// The leg in the mark of this run.
fn mark_of(annotations: &BTreeMap<String, String>, run: Option<&str>) -> Option<Leg> {
    Leg::in_mark(annotations.get(MARK)?, run)
}

/// `None` too where it cannot be read.
fn record_of(annotations: &BTreeMap<String, String>) -> Option<Record> {
    serde_json::from_str(annotations.get(RECORD)?).ok()
}
