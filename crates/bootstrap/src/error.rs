//! What can go wrong between this crate and an API server, with the server's own answer kept for whoever words it.

use std::fmt;

use crate::token::TokenId;

/// What everything here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was tried, as one would put it in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read several.
    List,
    /// Make a new one.
    Create,
    /// Change one.
    Patch,
    /// Remove one.
    Delete,
    /// Ask the API server something.
    Ask,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "read",
            Self::List => "list",
            Self::Create => "create",
            Self::Patch => "change",
            Self::Delete => "delete",
            Self::Ask => "ask for",
        })
    }
}

/// A failed look at, or change of, something about bootstrap tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server did not answer, or answered no.
    #[error("could not {verb} {object}")]
    Request {
        /// What was tried.
        verb: Verb,
        /// On what, as in a sentence.
        object: String,
        /// The server's answer or the transport's failure.
        source: Box<kube::Error>,
    },
    /// No Secret of that id.
    #[error("there is no bootstrap token {0}")]
    NoSuchToken(TokenId),
    /// `cluster-info` is there and makes no sense. Its text is not repeated.
    #[error("ConfigMap kube-public/cluster-info {0}")]
    StrangeClusterInfo(&'static str),
    /// A bundle of certificates that is none.
    #[error("the certificate authority is not a PEM bundle of certificates")]
    NotCertificates,
    /// The operating system gave no random bytes.
    #[error("the operating system has no randomness to give")]
    NoRandomness(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn request(verb: Verb, object: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Request {
            verb,
            object,
            source: Box::new(source),
        }
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// The HTTP status that the API server answered with.
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// A create met a Secret of that name: the id is taken.
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|status| status.reason == "AlreadyExists")
    }

    /// The object has changed since it was seen (409): look again.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && !self.is_already_exists()
    }

    /// It is not there (404).
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The caller has no right to this (403).
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// No answer came, so it is not known whether a write was carried out.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::Request { source, .. } => !matches!(source.as_ref(), kube::Error::Api(status) if status.code < 500),
            _ => false,
        }
    }
}

impl From<Error> for kubectl_core::error::Error {
    fn from(error: Error) -> Self {
        use kubectl_core::error::Kind;
        let message = error.to_string();
        match error {
            Error::Request { verb, object, source } => Self::from(*source).doing(format!("{verb} {object}")),
            Error::NoSuchToken(_) => Self::new(Kind::NotFound, message).hint(
                "kubectl bootstrap-token list shows those that are there; an expired one is deleted by Kubernetes",
            ),
            _ => Self::failed(message),
        }
    }
}
