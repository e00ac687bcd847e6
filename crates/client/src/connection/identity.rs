//! The client's identity: a token, a token file, a password, a client certificate, or a credential plugin.
//!
//! Connections that are derived from one another share it. It is lazy: a plugin runs when a request needs a credential.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use http::HeaderValue;
use kube::config::{AuthInfo, Cluster};
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use url::Url;

use super::Trust;
use super::environment::Environment;
use super::exec::Plugin;
use super::kubeconfig::non_empty;
use super::resolve::{pem_data, pem_file};
use crate::error::{Error, io_words};
use crate::secret::Secret;

/// How often a token file is read again. (client-go v0.33, `transport/token_source.go`.)
const RELOAD: Duration = Duration::from_mins(1);

/// The credential of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Credential {
    /// The `Authorization` header, marked sensitive.
    pub(super) authorization: Option<HeaderValue>,
    /// The client certificate for TLS.
    pub(super) certificate: Option<Arc<Certificate>>,
    /// The number of the plugin run, so that a rejected credential is renewed once, not by each request that had it.
    pub(super) generation: u64,
}

/// A client certificate and its key, PEM.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) chain: String,
    pub(super) key: Secret,
}

/// A way to get a [`Credential`].
#[derive(Debug)]
pub(super) struct Identity {
    certificate: Option<Arc<Certificate>>,
    login: Login,
}

#[derive(Debug)]
enum Login {
    None,
    Header(HeaderValue),
    File {
        path: PathBuf,
        read: Mutex<Option<(Instant, HeaderValue)>>,
    },
    Plugin(Plugin),
}

impl Identity {
    pub(super) fn anonymous() -> Self {
        Self {
            certificate: None,
            login: Login::None,
        }
    }

    /// Only a bearer token.
    pub(super) fn token(token: &Secret) -> Result<Self, Error> {
        Ok(Self {
            certificate: None,
            login: Login::Header(bearer(token.expose())?),
        })
    }

    /// The identity of a kubeconfig user. Over plain http no credential is ever sent: there is none to begin with.
    pub(super) fn of(
        user: AuthInfo,
        cluster: &Cluster,
        server: &Url,
        trust: &Trust,
        environment: &Environment,
    ) -> Result<Self, Error> {
        if server.scheme() != "https" {
            return Ok(Self::anonymous());
        }
        Ok(Self {
            certificate: certificate(&user)?,
            login: login(user, cluster, server, trust, environment)?,
        })
    }

    /// The current credential. Runs the plugin if there is none or it has expired.
    pub(super) async fn credential(&self) -> Result<Credential, Error> {
        let plain = |authorization| Credential {
            authorization,
            certificate: self.certificate.clone(),
            generation: 0,
        };
        match &self.login {
            Login::None => Ok(plain(None)),
            Login::Header(header) => Ok(plain(Some(header.clone()))),
            Login::File { path, read } => Ok(plain(Some(from_file(path, read).await?))),
            Login::Plugin(plugin) => {
                let mut credential = plugin.credential().await?;
                credential.certificate = credential.certificate.or_else(|| self.certificate.clone());
                Ok(credential)
            }
        }
    }

    /// Reports a rejected credential. `true` if there may be a new one.
    pub(super) async fn refused(&self, credential: &Credential) -> bool {
        match &self.login {
            Login::Plugin(plugin) => {
                plugin.forget(credential.generation).await;
                true
            }
            Login::File { read, .. } => {
                // The file may have been replaced. Read it again, but do not retry with the same token.
                let old = read.lock().await.take().map(|(_, header)| header);
                self.credential().await.is_ok_and(|fresh| fresh.authorization != old)
            }
            Login::None | Login::Header(_) => false,
        }
    }
}

fn login(
    user: AuthInfo,
    cluster: &Cluster,
    server: &Url,
    trust: &Trust,
    environment: &Environment,
) -> Result<Login, Error> {
    // The order is client-go's. A plugin does not run if the header is set.
    if let Some(token) = user.token.as_ref().filter(|token| !token.expose_secret().is_empty()) {
        return Ok(Login::Header(bearer(token.expose_secret())?));
    }
    if let Some(path) = non_empty(user.token_file) {
        return Ok(Login::File {
            path: path.into(),
            read: Mutex::default(),
        });
    }
    if let (Some(name), Some(password)) = (non_empty(user.username), &user.password) {
        let pair = format!("{name}:{}", password.expose_secret());
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        return Ok(Login::Header(sensitive(&format!("Basic {encoded}"))?));
    }
    if let Some(provider) = user.auth_provider {
        let error = format!("no Auth Provider found for name \"{}\"", provider.name);
        return Err(Error::failed(error).hint("use a credential plugin (the user's \"exec\" section) in its place"));
    }
    match user.exec {
        Some(exec) => Ok(Login::Plugin(Plugin::new(exec, cluster, server, trust, environment)?)),
        None => Ok(Login::None),
    }
}

fn certificate(user: &AuthInfo) -> Result<Option<Arc<Certificate>>, Error> {
    let chain = match (
        non_empty(user.client_certificate_data.clone()),
        non_empty(user.client_certificate.clone()),
    ) {
        (Some(data), _) => pem_data(&data, "client-certificate-data")?,
        (None, Some(path)) => pem_file(&path, "client-cert")?,
        (None, None) => return Ok(None),
    };
    let data = user
        .client_key_data
        .as_ref()
        .map(secrecy::ExposeSecret::expose_secret)
        .filter(|data| !data.is_empty());
    let key = match (data, non_empty(user.client_key.clone())) {
        (Some(data), _) => pem_data(data, "client-key-data")?,
        (None, Some(path)) => pem_file(&path, "client-key")?,
        (None, None) => {
            return Err(Error::failed(
                "a client certificate is configured without its client-key",
            ));
        }
    };
    Ok(Some(Arc::new(Certificate {
        chain,
        key: Secret::new(key),
    })))
}

async fn from_file(path: &Path, read: &Mutex<Option<(Instant, HeaderValue)>>) -> Result<HeaderValue, Error> {
    let mut read = read.lock().await;
    if let Some((_, header)) = read.as_ref().filter(|(at, _)| at.elapsed() < RELOAD) {
        return Ok(header.clone());
    }
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let header = bearer(text.trim())?;
            *read = Some((Instant::now(), header.clone()));
            Ok(header)
        }
        // The file is being replaced. Use the last token.
        Err(error) => match read.as_ref() {
            Some((_, header)) => Ok(header.clone()),
            None => Err(Error::failed(format!(
                "cannot read token file {}: {}",
                path.display(),
                io_words(&error)
            ))),
        },
    }
}

/// The `Authorization` header for a bearer token.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, Error> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_str(text).map_err(|_| {
        Error::failed("the credential cannot be sent: it holds characters that no HTTP header may hold")
    })?;
    header.set_sensitive(true);
    Ok(header)
}
