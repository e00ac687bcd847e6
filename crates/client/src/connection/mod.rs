//! From kubectl's flags and kubeconfig to a client.
//!
//! kube's own loading differs from kubectl's in some twenty ways that users notice (a missing file in `KUBECONFIG` is an
//! error, `NO_PROXY` is matched against the proxy, a credential plugin runs three times per client, …), so this module
//! owns the way from the options to the client, in three steps:
//!
//! 1. [`ConnectionOptions`]: what was asked for;
//! 2. [`Connection`]: what it means: an address, an identity, a trust, a proxy. Files were read, nothing was sent;
//! 3. [`Server`]: a client that authenticates lazily, retries within bounds, passes on warnings and learns the time.

mod deadline;
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
pub use self::options::ConnectionOptions;
pub(crate) use self::transport::certificates;
use crate::clock::ServerClock;
use crate::error::Error;
use crate::secret::Secret;

/// Where an API server is and who we are to it. Cheap to clone; clones and derived connections share one login.
#[derive(Clone, Debug)]
pub struct Connection {
    context: Option<String>,
    namespace: String,
    server: Url,
    trust: Trust,
    /// The kubeconfig's `proxy-url`; the variables are looked at when an address is known.
    proxy_url: Option<String>,
    identity: Arc<Identity>,
    impersonate: Impersonate,
    request_timeout: Option<Duration>,
    disable_compression: bool,
    /// Nothing was configured and this is kubectl's default address.
    is_default: bool,
    environment: Arc<Environment>,
}

/// What a server must show to be believed.
#[derive(Clone, Debug, Default)]
struct Trust {
    /// PEM; `None` trusts the system's roots.
    authority: Option<String>,
    /// A bundle that is read again while we run.
    authority_file: Option<PathBuf>,
    insecure: bool,
    server_name: Option<String>,
}

/// Whose certificate a server at another address must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority<'a> {
    /// One that this connection believes.
    Same,
    /// One that the system's roots vouch for.
    Public,
    /// One of this PEM bundle.
    Pem(&'a str),
}

/// Who we ask the server to treat us as.
#[derive(Clone, Debug, Default)]
struct Impersonate {
    user: Option<String>,
    uid: Option<String>,
    groups: Vec<String>,
    extra: Vec<(String, Vec<String>)>,
}

/// A connected API server: what the rest of the workspace talks to.
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
    /// The context it came from, if a context was used.
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

    /// The same identity, trust and proxy for another address. A login is shared: a credential plugin that ran for one
    /// side does not run again for the other.
    #[must_use]
    pub fn at(&self, url: Url) -> Self {
        let mut other = self.clone();
        if url.host_str() != self.server.host_str() {
            // The name was meant for the certificate of that host.
            other.trust.server_name = None;
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
        let mut other = self.clone();
        other.identity = Arc::new(Identity::token(token, &self.server)?);
        other.impersonate = Impersonate::default();
        Ok(other)
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

    /// The certificate authority that the server must show a certificate of, PEM. `None` goes by the system's roots, or
    /// ([`Connection::is_insecure`]) by nothing.
    pub fn authority(&self) -> Option<&str> {
        self.trust.authority.as_deref()
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
