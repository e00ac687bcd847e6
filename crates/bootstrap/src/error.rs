//! What can go wrong between this crate and an API server, with the server's own answer kept for whoever words it.

use client::request;

use crate::token::TokenId;

/// What everything here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed look at, or change of, something about bootstrap tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request that failed: the server did not answer, answered no, or answered something that is not its API's.
    #[error(transparent)]
    Request(#[from] request::Error),
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
    /// A create met a Secret of that name: the id is taken.
    pub fn is_already_exists(&self) -> bool {
        self.request().is_some_and(request::Error::is_already_exists)
    }

    /// The object has changed since it was seen, or exists already (409): look again.
    pub fn is_conflict(&self) -> bool {
        self.request().is_some_and(request::Error::is_conflict)
    }

    /// It is not there (404).
    pub fn is_not_found(&self) -> bool {
        self.request().is_some_and(request::Error::is_not_found)
    }

    /// The caller has no right to this (403).
    pub fn is_forbidden(&self) -> bool {
        self.request().is_some_and(request::Error::is_forbidden)
    }

    /// No answer came, so it is not known whether a write was carried out.
    pub fn is_unanswered(&self) -> bool {
        self.request().is_some_and(request::Error::is_unanswered)
    }

    fn request(&self) -> Option<&request::Error> {
        match self {
            Self::Request(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for client::error::Error {
    fn from(error: Error) -> Self {
        use client::error::Kind;
        let message = error.to_string();
        match error {
            Error::Request(error) => error.into(),
            Error::NoSuchToken(_) => Self::new(Kind::NotFound, message).hint(
                "kubectl bootstrap-token list shows those that are there; an expired one is deleted by Kubernetes",
            ),
            _ => Self::failed(message),
        }
    }
}
