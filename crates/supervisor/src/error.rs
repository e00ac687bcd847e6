//! The errors of this crate. None of them contains a token, nor the text of a response in which one could stand.

use client::error::{Error as UserError, Kind};

use crate::address::ServerAddress;
use crate::ca::{CaHash, Pin};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed request, or a server that is not the expected one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The CA of the server has another hash than the pinned one. Nothing secret was sent.
    #[error("the CA of supervisor {server} has hash {served:.12}…, not {expected:.12}…")]
    OtherCaHash {
        /// The server.
        server: ServerAddress,
        /// The hash of what it serves.
        served: CaHash,
        /// The pinned one.
        expected: CaHash,
    },
    /// The CA of the server is not the kubeconfig's. Nothing secret was sent.
    #[error("the CA of supervisor {server}, with hash {served}, is not the CA of the kubeconfig")]
    NotTheKubeconfigCa {
        /// The server.
        server: ServerAddress,
        /// The hash of what it serves.
        served: CaHash,
    },
    /// There was no response. `sent` says whether the request may have been carried out.
    #[error("supervisor {server}: {}", source.message)]
    NoResponse {
        /// The server.
        server: ServerAddress,
        /// Whether a part of the request was sent.
        sent: bool,
        /// The reason.
        source: Box<UserError>,
    },
    /// The caller no longer allowed the request. Nothing was sent.
    #[error("{request} was not sent to supervisor {server}, because the lock was lost")]
    NotAllowed {
        /// The server.
        server: ServerAddress,
        /// Method and path.
        request: String,
    },
    /// The server rejected the request.
    #[error("supervisor {server} answered {code} to {request}{}", message.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Status {
        /// The server.
        server: ServerAddress,
        /// Method and path.
        request: String,
        /// The HTTP status.
        code: u16,
        /// The message of the server, redacted.
        message: Option<String>,
    },
    /// The response is not what the supervisor sends. It is not quoted.
    #[error("supervisor {server} sent a malformed response to {request}")]
    Malformed {
        /// The server.
        server: ServerAddress,
        /// Method and path.
        request: String,
    },
    /// There are no random bytes.
    #[error("cannot read random bytes from the operating system")]
    NoRandomness(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn other_ca(server: &ServerAddress, served: CaHash, pin: &Pin) -> Self {
        let server = server.clone();
        match pin {
            Pin::Hash(expected) => Self::OtherCaHash {
                server,
                served,
                expected: expected.clone(),
            },
            Pin::Kubeconfig(_) => Self::NotTheKubeconfigCa { server, served },
        }
    }

    /// The HTTP status of the response.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl From<Error> for UserError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::OtherCaHash { .. } => Self::failed(message)
                .hint("use the token of this cluster, or pass the hash of its CA with --ca-hash if the CA was rotated"),
            Error::NotTheKubeconfigCa { .. } => Self::failed(message)
                .hint("compare the hash with the digits between K10 and :: in the file server/token of a server, and pass it with --ca-hash"),
            Error::NoResponse { source, .. } => Self::new(source.kind, message),
            Error::Status { code: 401, .. } => Self::new(Kind::Unauthorized, message),
            Error::Status { code: 403, .. } => Self::new(Kind::Forbidden, message),
            Error::Status { code: 500..=504, .. } => Self::new(Kind::Unavailable, message),
            Error::NotAllowed { .. } => Self::new(Kind::Held, message),
            Error::Status { .. } | Error::Malformed { .. } | Error::NoRandomness(_) => Self::failed(message),
        }
    }
}
