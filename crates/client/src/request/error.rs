//! The error of a request. It keeps the original response of the server for the message.

use std::fmt;

use kube::core::Status;

use crate::error::Error as UserError;

/// What requests return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was tried. Its `Display` is the verb of an error message.
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

/// A failed request. The caller, who made the client, knows the side.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server did not respond, or with an error. Credentials in the response are replaced by `…`.
    #[error("could not {verb} {object}")]
    Failed {
        /// What was tried.
        verb: Verb,
        /// On what, as in a sentence: `Secret kube-system/x`, `ClusterRoleBindings`.
        object: String,
        /// The server's answer or the transport's failure.
        source: Box<kube::Error>,
    },
    /// The response is not what this API serves. Its text may contain a credential and is not kept.
    #[error("could not {verb} {object}: malformed response at line {line}, column {column}")]
    Unreadable {
        /// What was tried.
        verb: Verb,
        /// On what, as in a sentence.
        object: String,
        /// Where in the answer, from 1; 0 if it was no text at all.
        line: usize,
        /// Where in the line.
        column: usize,
    },
}

impl Error {
    /// A request without a response, or with an error.
    pub fn failed(verb: Verb, object: impl Into<String>, source: kube::Error) -> Self {
        Self::Failed {
            verb,
            object: object.into(),
            source: Box::new(source),
        }
    }

    /// A success that could not be parsed.
    pub fn unreadable(verb: Verb, object: impl Into<String>, at: &serde_json::Error) -> Self {
        Self::Unreadable {
            verb,
            object: object.into(),
            line: at.line(),
            column: at.column(),
        }
    }

    /// A success without a required field.
    pub fn senseless(verb: Verb, object: impl Into<String>) -> Self {
        Self::Unreadable {
            verb,
            object: object.into(),
            line: 0,
            column: 0,
        }
    }

    /// The same, with the object called by what it means to the user: "bootstrap token abcdef", not "Secret …".
    #[must_use]
    pub fn about(mut self, what: impl Into<String>) -> Self {
        let (Self::Failed { object, .. } | Self::Unreadable { object, .. }) = &mut self;
        *object = what.into();
        self
    }

    /// The same error, or the one that `read` returns. `read` gets the beginning of a response that is not the API
    /// server's, such as that of a proxy.
    #[must_use]
    pub fn read_by(mut self, read: impl FnOnce(&str) -> Option<Status>) -> Self {
        if let Self::Failed { source, .. } = &mut self
            && let kube::Error::Api(status) = source.as_mut()
            && status.reason == crate::error::NO_STATUS
            && let Some(understood) = read(&status.message)
        {
            *status = understood.with_code(status.code).boxed();
        }
        self
    }

    /// The `Status` of the API server, if it has rejected the request.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Failed { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Unreadable { .. } => None,
        }
    }

    /// The HTTP status of the response.
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// The object has changed since it was observed, or exists already (409).
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// An object of that name exists.
    pub fn is_already_exists(&self) -> bool {
        self.is_conflict() && self.status().is_some_and(|status| status.reason == "AlreadyExists")
    }

    /// The object does not exist, or the server does not serve this kind (404).
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The caller does not have the permission (403).
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// The response was larger than what is read.
    pub(super) fn is_too_long(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if crate::error::is_too_long(source))
    }

    /// There was no response, so a write may have been carried out.
    pub fn is_unanswered(&self) -> bool {
        self.code().is_none_or(|code| code >= 500)
    }

    /// The error to print, with its side ("the downstream cluster").
    pub fn on(self, side: &str) -> UserError {
        self.worded(&format!(" on {side}"))
    }

    fn worded(self, side: &str) -> UserError {
        match self {
            Self::Failed { verb, object, source } => UserError::from(*source).doing(format!("{verb} {object}{side}")),
            Self::Unreadable { .. } => UserError::failed(self.to_string()),
        }
    }
}

impl From<Error> for UserError {
    fn from(error: Error) -> Self {
        error.worded("")
    }
}
