//! A client from kubectl's flags and a kubeconfig.
//!
//! kube loads a kubeconfig differently from kubectl in about twenty visible ways: a missing file in `KUBECONFIG` is an
//! error, `NO_PROXY` is matched against the proxy, a credential plugin runs three times per client, and so on. So this
//! module builds the client itself, in three steps:
//!
//! 1. [`ConnectionOptions`]: the flags;
//! 2. [`Connection`]: address, identity, trusted certificates and proxy. Files were read, nothing was sent;
//! 3. [`Server`]: a client that authenticates lazily, retries within limits, reports warnings and reads the server's
//!    time.

mod body;
mod environment;
mod exec;
mod identity;
mod kubeconfig;
mod kuberc;
mod log;
mod options;
mod proxy;
mod resolve;
mod transport;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

pub use self::environment::{Environment, user_agent};
use self::identity::Identity;
pub use self::options::{ConnectionOptions, ContextCluster};
pub use self::transport::{certificates, unanswered_writes};
use crate::clock::ServerClock;
use crate::error::Error;
use crate::secret::Secret;

/// The address of an API server and the client's identity. Cheap to clone. Clones and derived connections share one
/// login.
#[derive(Clone, Debug)]
pub struct Connection {
    context: Option<String>,
    namespace: String,
    server: Url,
    trust: Trust,
    /// The kubeconfig's `proxy-url`. The variables are read once the address is known.
    proxy_url: Option<String>,
    identity: Arc<Identity>,
    impersonate: Impersonate,
    request_timeout: Option<Duration>,
    disable_compression: bool,
    /// Tokens may be sent over plain http.
    plain_http: bool,
    /// It is kubectl's default address, because none was configured.
    is_default: bool,
    environment: Arc<Environment>,
}

/// Which server certificates are trusted.
#[derive(Clone, Debug, Default)]
struct Trust {
    /// The CA, PEM; `None` for the system's roots.
    authority: Option<String>,
    /// A CA file that is reloaded.
    authority_file: Option<PathBuf>,
    insecure: bool,
    server_name: Option<String>,
}

/// Which certificates are trusted for a server at another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority<'a> {
    /// Those that this connection trusts.
    Same,
    /// Those of the system's roots.
    Public,
    /// Those of this PEM bundle.
    Pem(&'a str),
}

/// The impersonated user.
#[derive(Clone, Debug, Default)]
struct Impersonate {
    user: Option<String>,
    uid: Option<String>,
    groups: Vec<String>,
    extra: Vec<(String, Vec<String>)>,
}

/// A client of an API server.
#[derive(Clone)]
pub struct Server {
    /// The client.
    pub client: kube::Client,
    /// The server's time.
    pub clock: ServerClock,
    /// The base address.
    pub url: Url,
    /// The namespace to work in where none is named.
    pub namespace: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("url", &self.url.as_str())
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// The context, if one was used.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// The namespace to work in where none is named.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The address of the API server.
    pub fn server(&self) -> &Url {
        &self.server
    }

    /// Builds a client. Nothing is sent, no credential plugin runs, before the first request.
    ///
    /// Must be called within a tokio runtime.
    pub fn connect(&self) -> Result<Server, Error> {
        transport::connect(self)
    }

    /// The same identity, trust and proxy for another address. The login is shared, so a credential plugin does not run
    /// again. Over plain http there is no identity.
    #[must_use]
    pub fn at(&self, url: Url) -> Self {
        let mut other = self.clone();
        if url.host_str() != self.server.host_str() {
            // The server name is for the certificate of the former host.
            other.trust.server_name = None;
        }
        if url.scheme() != "https" {
            other.identity = Arc::new(Identity::anonymous());
        }
        other.server = url;
        other.is_default = false;
        other
    }

    /// The connection without an identity, for public endpoints. No credential is sent.
    #[must_use]
    pub fn anonymous_at(&self, url: Url, authority: Authority<'_>) -> Self {
        let mut other = self.at(url);
        other.identity = Arc::new(Identity::anonymous());
        other.impersonate = Impersonate::default();
        let authority = match authority {
            Authority::Same => return other,
            Authority::Public => None,
            Authority::Pem(pem) => Some(pem.to_owned()),
        };
        other.trust = Trust {
            authority,
            ..Trust::default()
        };
        other
    }

    /// The same address, trust and proxy, with this bearer token as the only identity: no client certificate, no login
    /// of the kubeconfig, no impersonation. So the response depends on the token alone.
    ///
    /// # Errors
    /// If the server is reached over plain http, or the token contains characters that an HTTP header must not contain.
    pub fn with_token(&self, token: &Secret) -> Result<Self, Error> {
        self.require_tls()?;
        let mut other = self.clone();
        other.identity = Arc::new(Identity::token(token)?);
        other.impersonate = Impersonate::default();
        Ok(other)
    }

    /// To be called before a token is shown to the server. Over https the server has proven who it is before anything is
    /// sent.
    ///
    /// # Errors
    /// If the server is reached over plain http, unless that is allowed ([`ConnectionOptions::allow_plain_http`]).
    pub fn require_tls(&self) -> Result<(), Error> {
        if self.server.scheme() == "https" || self.plain_http {
            return Ok(());
        }
        let host = self.server.host_str().unwrap_or_default();
        Err(Error::failed(format!("a token is not sent over plain http to {host}"))
            .hint("use an address that begins with https://, or pass --allow-plain-http"))
    }

    /// The same connection to a server whose certificate is for this name.
    #[must_use]
    pub fn with_server_name(mut self, name: Option<&str>) -> Self {
        self.trust.server_name = name.map(str::to_owned);
        self
    }

    /// The current bearer token, if there is one. Runs the credential plugin if needed.
    pub async fn bearer_token(&self) -> Result<Option<Secret>, Error> {
        let header = self.identity.credential().await?.authorization;
        let token = header
            .as_ref()
            .and_then(|header| header.to_str().ok()?.strip_prefix("Bearer "));
        Ok(token.map(Secret::new))
    }

    /// The trusted CA, PEM. `None` for the system's roots, or if the certificate is not checked
    /// ([`Connection::is_insecure`]).
    pub fn authority(&self) -> Option<&str> {
        self.trust.authority.as_deref()
    }

    /// The user that is impersonated, by a flag or by the kubeconfig.
    pub fn impersonated(&self) -> Option<&str> {
        self.impersonate.user.as_deref()
    }

    /// The server's certificate is not checked.
    pub fn is_insecure(&self) -> bool {
        self.trust.insecure
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
