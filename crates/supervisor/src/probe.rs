//! What a supervisor accepts. Seen on K3s 1.36.3, unless a comment says otherwise:
//!
//! | request, as | accepted | rejected | no credentials |
//! |---|---|---|---|
//! | `GET /v1-k3s/token`, server | 405: the token was accepted, the method was not | 401 | 403 |
//! | `GET /v1-k3s/readyz`, node or bootstrap token | 200; 503 while starting | 401 | 403 |
//!
//! A server that is starting answers 503 to every path and every password, so 503 says nothing about a token. A probe reads nothing and
//! changes nothing.

use std::fmt;

use client::secret::Secret;

use crate::clock::ClockReading;
use crate::error::Result;
use crate::supervisor::Supervisor;
use crate::token::TokenUser;
use crate::wire::Login;

/// A credential to probe with.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// A password as a server.
    Server(&'a Secret),
    /// A password as an agent.
    Node(&'a Secret),
    /// A bootstrap token, `ID.SECRET`.
    BootstrapToken(&'a Secret),
}

impl<'a> Credential<'a> {
    fn login(self) -> Login<'a> {
        match self {
            Self::Server(password) => Login::User(TokenUser::Server, password),
            Self::Node(password) => Login::User(TokenUser::Node, password),
            Self::BootstrapToken(token) => Login::Bearer(token),
        }
    }
}

/// What a supervisor answers to a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// It is accepted. The server need not be ready.
    Accepted,
    /// It is rejected (401).
    Rejected,
    /// Neither is proven.
    Unknown(UnknownReason),
}

/// Why the result of a probe is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnknownReason {
    /// The server is starting (503).
    Starting,
    /// There was no response, with the reason.
    NoResponse(String),
    /// Another HTTP status.
    Unexpected(u16),
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("the server is starting"),
            Self::NoResponse(reason) => f.write_str(reason),
            Self::Unexpected(404) => f.write_str("the server does not serve this request (404)"),
            Self::Unexpected(code) => write!(f, "unexpected response {code}"),
        }
    }
}

impl Supervisor {
    /// Whether the server accepts a credential now.
    pub async fn probe(&self, credential: Credential<'_>) -> ProbeResult {
        self.timed_probe(credential).await.0
    }

    /// The same, and the clock of the server, which every response shows.
    pub async fn timed_probe(&self, credential: Credential<'_>) -> (ProbeResult, Option<ClockReading>) {
        let (path, accepted) = match credential {
            Credential::Server(_) => ("token", 405),
            Credential::Node(_) | Credential::BootstrapToken(_) => ("readyz", 200),
        };
        let response = match self.get(self.kind().path(path), credential.login()).await {
            Ok(response) => response,
            Err(error) => {
                let reason = UnknownReason::NoResponse(error.to_string());
                return (ProbeResult::Unknown(reason), None);
            }
        };
        let result = match response.code {
            code if code == accepted => ProbeResult::Accepted,
            401 => ProbeResult::Rejected,
            503 => ProbeResult::Unknown(UnknownReason::Starting),
            code => ProbeResult::Unknown(UnknownReason::Unexpected(code)),
        };
        (result, ClockReading::of_response(&response))
    }

    /// Whether the server is ready to serve agents, asked as an agent. It can be false for a moment after the API server is ready.
    ///
    /// # Errors
    /// If there is no response, or the password is rejected.
    pub async fn probe_ready(&self, password: &Secret) -> Result<bool> {
        let login = Login::User(TokenUser::Node, password);
        let response = self.get(self.kind().path("readyz"), login).await?;
        match response.code {
            200 => Ok(true),
            503 | 500 => Ok(false),
            _ => Err(response.error()),
        }
    }
}
