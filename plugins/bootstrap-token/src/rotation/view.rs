//! What there is on all sides, as far as the next step depends on it: ids and fingerprints, no secret, no time.

use std::fmt;

use client::secret::Fingerprint;
pub use engine::leg::Leg;
use engine::protocol::Obstacle;
use serde::{Deserialize, Serialize};

use super::write::{Shown, Which};

/// All sides of one rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// What speaks against beginning a rotation ([`Doubt`]). Once one is under way it is not asked any more.
    pub obstacles: Vec<Obstacle>,
    /// The id of the token that is rotated: the one asked for, or the journaled one.
    pub id: Id,
    /// The token that is rotated.
    pub old: Side,
    /// The token that takes its place: the one with the journaled id. Empty while there is none.
    pub new: Side,
    /// Where the token is delivered to, and what is there.
    pub target: Target,
    /// The place that `target` was read from: what `--deliver` names, else where the run delivers to.
    pub place: Option<Place>,
    /// The user says that a target on another host is lost for good (`--force=target`). Nobody else can know.
    pub lost: bool,
    /// The id of the token that the command itself logs in with, if it is one.
    pub login: Option<Id>,
    /// An address or the target belongs to another cluster.
    pub another_cluster: Option<Obstacle>,
}

/// The public half of a bootstrap token, six characters; or, in a plan, a placeholder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub String);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What is known about one token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Side {
    /// What its Secret says. `None` when there is none.
    pub token: Option<Token>,
    /// What the API servers say when they are asked with its value: that of the Secret, else (O) the journaled one or (N) the
    /// one that the Secret held last, if this process still knows it or the target still holds it.
    pub answer: Answer,
    /// Whether cluster-info carries a signature with this token that is right.
    pub signed: bool,
    /// Its Secret was seen to be gone and is there again: another writer has created it.
    pub returned: bool,
    /// The writer besides us that wrote its Secret last, in words, if that is known.
    pub writer: Option<String>,
}

/// A Secret `bootstrap-token-<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Fingerprint of the whole token, `id.secret`. `None` where the Secret holds no such value.
    pub value: Option<Fingerprint>,
    /// Whether the authenticator can accept it.
    pub standing: Standing,
    /// The mark of this run that it carries. It names the run and the token that the run replaces: that of another run, or
    /// of a run that replaces another token, is none.
    pub mark: Option<Leg>,
    /// What it says about the rotation that created it.
    pub record: Option<Record>,
}

/// The record of a rotation, on the Secret of the token that it created, written with it in one request.
///
/// Whoever may write Leases cannot write it. So a resumed run goes by this record, and by nothing that the Lease claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The token that is replaced.
    pub old: Known,
    /// Where the new one is delivered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// Whether a token can work, by the rules of the authenticator
/// (kubernetes/kubernetes `plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go`, 1.36) and the API server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It cannot: it has expired, is being deleted, or breaks one of the rules.
    Dead,
    /// It can, but not for longer than five minutes.
    Ending,
    /// It can, and will for as long as any write may be under way.
    Sound,
}

/// What the API servers answer a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Answer {
    /// Each server that was asked accepts it.
    Accepted,
    /// Each server that was asked refuses it.
    Refused,
    /// They do not agree, or one has not answered.
    Mixed,
    /// They cannot be asked: nobody knows the value any more, or there is none yet.
    #[default]
    Unasked,
}

/// Where the token is delivered to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// As it was given: `secret:NS/NAME/KEY` or `file:PATH`.
    pub at: String,
    /// The host that a file is on. A rotation with such a target can be gone on with only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A host without a name.
const SOMEWHERE: &str = "the host where the rotation began";

impl Place {
    /// The host of a file, in words.
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or(SOMEWHERE)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{} on {host}", self.at),
            None => f.write_str(&self.at),
        }
    }
}

/// What is at the place of the delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Nothing is delivered.
    Nothing,
    /// A file on another host than this one.
    Unreachable,
    /// The Secret, its key or the file is not there.
    Missing,
    /// It is there.
    Holds {
        /// What is in it.
        held: Held,
        /// The leg in which this run wrote it, by its mark. A file cannot carry one: its lock, which ends with the process
        /// that holds it, keeps late writes away.
        leg: Option<Leg>,
        /// What the API servers say when they are asked with what was read from it.
        answer: Answer,
        /// The writer besides us that wrote it last, in words, if that is known. Of a file it is not.
        writer: Option<String>,
    },
}

/// A token as it was found in the target, bare or in a kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// Its id. `None` when what is there has not the form of a bootstrap token.
    pub id: Option<Id>,
    /// Fingerprint of the whole of it.
    pub value: Fingerprint,
}

/// What the journal keeps. A resumed run takes all of it from the objects ([`recall`](super::recall)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    /// The token that is rotated.
    pub old: Known,
    /// The one that takes its place. `None` until its id is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Known>,
    /// Where it is delivered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Where it was delivered to before that was left behind, with its host. Another process has to be told again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Place>,
    /// The new token was to be delivered, at least: somebody may have read it, and a late delivery may be under way.
    #[serde(default)]
    pub delivered: bool,
    /// Which token this run has delivered last: if the target holds the other one, another writer has written that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Which>,
    /// The way back was cut off while it was walked: the old token has died, and the new one stays.
    #[serde(default)]
    pub kept: bool,
}

/// A token as the journal knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Known {
    /// Its id.
    pub id: Id,
    /// Fingerprint of its value. Of the new token it is the one that was drawn last: its Secret has the last word.
    pub value: Fingerprint,
}

impl Side {
    /// Whether its Secret holds this value.
    pub fn holds(&self, value: Fingerprint) -> bool {
        self.token.as_ref().is_some_and(|token| token.value == Some(value))
    }

    /// Whether its Secret holds this value, and will be good for as long as any write may be under way.
    pub fn is_sound(&self, value: Fingerprint) -> bool {
        let sound = |token: &Token| token.value == Some(value) && token.standing == Standing::Sound;
        self.token.as_ref().is_some_and(sound)
    }
}

/// One thing that speaks against beginning a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// There is no Secret for this id.
    Unknown,
    /// It cannot work, for these reasons, so that there is nothing to rotate.
    CannotWork(Vec<String>),
    /// Nothing speaks against it, and the API servers do not accept it.
    NotAccepted,
    /// Its Secret holds no value of the right form.
    NoValue,
    /// Somebody else's program looks after it; deleting it may take that program's own objects along, as
    /// `kubeadm-certs` goes with its token (kubernetes/kubernetes `cmd/kubeadm/app/phases/copycerts/copycerts.go`).
    Owned {
        /// By whom, such as `Secret kube-system/kubeadm-certs`.
        by: String,
    },
    /// The same of the target: it would write the old token back.
    TargetOwned {
        /// By whom.
        by: String,
    },
    /// The command logs in with the token that would be revoked.
    OwnLogin,
    /// This address, given with `--api-server`, is one of another cluster.
    AnotherServer(String),
    /// The kubeconfig in the target trusts another certificate authority than this cluster's.
    TargetOfAnotherCluster,
    /// The new one would live for less than a quarter of an hour, and be about to expire for most of it.
    ShortLived,
    /// The target is not there.
    TargetMissing,
    /// The target cannot be written: it says `immutable: true`.
    TargetImmutable,
    /// The target holds another token, or something that is none.
    TargetHoldsAnother {
        /// The id of what it holds, if it has one.
        id: Option<Id>,
    },
    /// The target is a file that is not on this host.
    TargetElsewhere,
}

impl Doubt {
    /// The check's name for `--force=CHECK`, where it may be overridden.
    pub fn check(&self) -> Option<&'static str> {
        match self {
            Self::Owned { .. } | Self::TargetOwned { .. } => Some("owner"),
            Self::TargetOfAnotherCluster => Some("cluster"),
            _ => None,
        }
    }

    /// In words, about this token and this target.
    pub fn obstacle(&self, id: &Id, place: Option<&Place>) -> Obstacle {
        let at = place.map_or("the target", |place| place.at.as_str());
        let (reason, hint) = match self {
            Self::Unknown => (
                format!("there is no bootstrap token {}", Shown(id)),
                "`kubectl bootstrap-token list` shows those that there are".to_owned(),
            ),
            Self::CannotWork(why) => (
                format!("bootstrap token {} cannot work: {}", Shown(id), why.join("; ")),
                "make a new one with `kubectl bootstrap-token create`".to_owned(),
            ),
            Self::NotAccepted => (
                format!(
                    "the API server does not accept bootstrap token {}, against which nothing speaks",
                    Shown(id)
                ),
                "it must run with `--enable-bootstrap-token-auth`".to_owned(),
            ),
            Self::NoValue => (
                format!("the Secret of bootstrap token {} holds no value of a token", Shown(id)),
                "revoke it, and make a new one with `kubectl bootstrap-token create`".to_owned(),
            ),
            Self::Owned { by } => (
                format!("bootstrap token {} belongs to {by}", Shown(id)),
                "rotate it there; with --force=owner it may be created again after it is revoked".to_owned(),
            ),
            Self::TargetOwned { by } => (
                format!("{at} is written by {by}"),
                "change the token at its source; with --force=owner an old token that is written back is replaced twice, \
                 and the third time undoes the rotation"
                    .to_owned(),
            ),
            Self::OwnLogin => (
                format!("this command logs in with bootstrap token {}, which would be revoked", Shown(id)),
                "use a kubeconfig with another login".to_owned(),
            ),
            Self::AnotherServer(server) => (
                format!("{server} is an API server of another cluster"),
                "give the addresses of this cluster's API servers with --api-server".to_owned(),
            ),
            Self::TargetOfAnotherCluster => (
                format!("the kubeconfig in {at} trusts another certificate authority than this cluster's"),
                "check which cluster it leads to; --force=cluster delivers there all the same".to_owned(),
            ),
            Self::ShortLived => (
                "the new token would live for less than a quarter of an hour".to_owned(),
                "give a longer --ttl".to_owned(),
            ),
            Self::TargetMissing => (
                format!("{at} is not there"),
                "make it with the present token first, or rotate without --deliver".to_owned(),
            ),
            Self::TargetImmutable => (
                format!("{at} is immutable"),
                "rotate without --deliver, and replace that Secret within the overlap".to_owned(),
            ),
            Self::TargetHoldsAnother { id: Some(held) } => (
                format!("{at} holds bootstrap token {}, not {}", Shown(held), Shown(id)),
                format!(
                    "rotate {} instead, write {} there, or leave --deliver out",
                    Shown(held),
                    Shown(id)
                ),
            ),
            Self::TargetHoldsAnother { id: None } => (
                format!("{at} does not hold bootstrap token {}", Shown(id)),
                "nothing is overwritten that is not the token which is rotated: leave --deliver out".to_owned(),
            ),
            Self::TargetElsewhere => elsewhere(place),
        };
        Obstacle {
            check: self.check(),
            reason,
            hint,
        }
    }
}

fn elsewhere(place: Option<&Place>) -> (String, String) {
    let at = place.map_or("the target", |place| place.at.as_str());
    let host = place.map_or(SOMEWHERE, Place::host);
    (
        format!("{at} is on {host}, not here"),
        format!("run the same command on {host}"),
    )
}
