//! The errors of this crate. A failed request keeps the server's response.

use client::request;

use crate::token::TokenId;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed read or change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request failed: there was no response, an error, or not a response of the Kubernetes API.
    #[error(transparent)]
    Request(#[from] request::Error),
    /// There is no Secret with this id.
    #[error("bootstrap token {0} not found")]
    NotFound(TokenId),
    /// `cluster-info` is malformed. The message does not quote it.
    #[error("ConfigMap kube-public/cluster-info {0}")]
    InvalidClusterInfo(&'static str),
    /// There are no random bytes.
    #[error("cannot read random bytes from the operating system")]
    NoRandomness(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// An object of that name exists, so the id is taken.
    pub fn is_already_exists(&self) -> bool {
        self.request().is_some_and(request::Error::is_already_exists)
    }

    /// The object has changed since it was read, or exists already (409).
    pub fn is_conflict(&self) -> bool {
        self.request().is_some_and(request::Error::is_conflict)
    }

    /// The object does not exist (404).
    pub fn is_not_found(&self) -> bool {
        self.request().is_some_and(request::Error::is_not_found)
    }

    /// There is no permission (403).
    pub fn is_forbidden(&self) -> bool {
        self.request().is_some_and(request::Error::is_forbidden)
    }

    /// There was no response, so a write may have been applied.
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
            Error::NotFound(_) => Self::new(Kind::NotFound, message),
            _ => Self::failed(message),
        }
    }
}
