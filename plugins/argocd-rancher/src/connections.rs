//! The connections to the cluster of Argo CD and to Rancher.
//!
//! They can be different clusters. `--context` is the cluster of Argo CD. Rancher is reached by a context of its own, or by its URL
//! and a token. Argo CD's tokens are checked with no other credential, and with the CA of the cluster Secret, as Argo CD does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use argocd::{ClusterConfig, ClusterSecret, ServerUrl, cluster_secret};
use cli::app::{Context, GlobalFlags};
use cli::rotation::Commands;
use client::cluster_identity;
use client::connection::{Authority, Connection, Environment, Server};
use client::error::{Doing as _, Error};
use client::request::{self, SECRET};
use client::secret::{Fingerprint, Secret};
use engine::rotation::Blocker;
use k8s_openapi::ByteString;
use rancher::ClusterId;
use rancher::api_token::{self, ApiToken, Credential, IssuedToken, NewToken, TokenName, bearing, proof};
use rancher::probe::Probe;
use rancher::reach::{RancherUrl, Reach};
use serde::Deserialize;
use url::Url;

use crate::address::RancherAddress as _;

/// The cluster of Argo CD, in messages.
pub(crate) const ARGOCD: &str = "the cluster of Argo CD";
/// Rancher, in messages.
pub(crate) const RANCHER: &str = "Rancher";

/// The error of a request to the cluster of Argo CD. It may be reached through Rancher, whose errors have another format.
pub(crate) fn of_argocd(error: request::Error) -> Error {
    rancher::Error::from(error).on(ARGOCD)
}

/// Argo CD's default namespace.
pub(crate) const NAMESPACE: &str = "argocd";

/// The warning about an unscoped token.
pub(crate) const UNSCOPED: &str = "an unscoped token works for every cluster that its owner sees, and can issue and revoke tokens: \
    so can everyone who can read the cluster Secret";

/// How to reach Rancher.
#[derive(clap::Args, Clone, Debug, Default)]
#[allow(clippy::struct_field_names, reason = "a field has the name of its flag")]
pub(crate) struct RancherFlags {
    /// The kubeconfig context of Rancher: of the bare host or of any of its clusters
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "rancher_url",
        help_heading = "Rancher options"
    )]
    pub rancher_context: Option<String>,

    /// The URL of Rancher; requires a token
    #[arg(long, value_name = "URL", help_heading = "Rancher options")]
    pub rancher_url: Option<String>,

    /// Read the token for --rancher-url from standard input
    #[arg(long, requires = "rancher_url", conflicts_with_all = ["rancher_token_file", "rancher_token_secret"], help_heading = "Rancher options")]
    pub rancher_token_stdin: bool,

    /// Read the token for --rancher-url from this file
    #[arg(long, value_name = "FILE", requires = "rancher_url", value_hint = clap::ValueHint::FilePath, conflicts_with = "rancher_token_secret", help_heading = "Rancher options")]
    pub rancher_token_file: Option<PathBuf>,

    /// Read the token for --rancher-url from a Secret in Argo CD's cluster
    #[arg(
        long,
        value_name = "NAMESPACE/NAME/KEY",
        requires = "rancher_url",
        help_heading = "Rancher options"
    )]
    pub rancher_token_secret: Option<String>,

    /// Path to a cert file for the certificate authority of --rancher-url
    #[arg(long, value_name = "FILE", requires = "rancher_url", value_hint = clap::ValueHint::FilePath, help_heading = "Rancher options")]
    pub rancher_certificate_authority: Option<PathBuf>,
}

/// The cluster of Argo CD.
#[derive(Clone, Debug)]
pub(crate) struct Argo {
    pub server: Server,
    pub namespace: String,
    connection: Connection,
    /// Clients without a credential, by URL and CA.
    anonymous: Arc<Mutex<BTreeMap<(String, String), Server>>>,
}

/// Rancher, with the credential of this command.
#[derive(Clone)]
pub(crate) struct Rancher {
    /// Its own URL.
    pub base: RancherUrl,
    /// A client for that URL.
    pub client: kube::Client,
    /// The token of this command. `None`: it authenticates with something else.
    pub login: Option<TokenName>,
    /// A connection with the same CA, without a credential.
    anonymous: Connection,
}

impl Argo {
    /// By the flags. Sends nothing.
    pub(crate) fn open(global: &GlobalFlags, environment: &Environment) -> Result<Self, Error> {
        let connection = global.connection.load(environment)?;
        let namespace = global.connection.namespace.as_deref().filter(|name| !name.is_empty());
        let namespace = namespace.unwrap_or(NAMESPACE).to_owned();
        Ok(Self {
            server: connection.connect()?,
            namespace,
            connection,
            anonymous: Arc::default(),
        })
    }

    /// The identity of this Argo CD, for the marks of tokens: the uid of its Secret `argocd-secret`, or else of namespace kube-system.
    /// All users must see the same identity. They can all read Secrets in Argo CD's namespace, but not all can read Namespaces.
    /// `None`: neither can be read.
    pub(crate) async fn identity(&self) -> Result<Option<String>, Error> {
        let client = &self.server.client;
        let metadata = request::get_metadata(client, SECRET, Some(&self.namespace), "argocd-secret").await;
        let metadata = metadata.map_err(of_argocd)?;
        if let Some(uid) = metadata.and_then(|metadata| metadata.uid) {
            return Ok(Some(uid));
        }
        match cluster_identity::uid(client).await {
            Ok(uid) => Ok(Some(uid)),
            Err(error) if error.is_forbidden() || error.is_not_found() => Ok(None),
            Err(error) => Err(of_argocd(error)),
        }
    }

    pub(crate) async fn clusters(&self) -> Result<Vec<ClusterSecret>, Error> {
        let found = cluster_secret::list(&self.server.client, &self.namespace).await;
        found.map_err(of_argocd)
    }

    /// The cluster Secrets whose removal was interrupted.
    pub(crate) async fn detached(&self) -> Result<Vec<ClusterSecret>, Error> {
        let found = cluster_secret::list_detached(&self.server.client, &self.namespace).await;
        found.map_err(of_argocd)
    }

    /// A client as Argo CD calls a cluster: by its URL, with the CA of its Secret, and with this token. It shares the connections of
    /// other clients with the same URL and CA.
    pub(crate) fn as_argocd(
        &self,
        url: &Url,
        config: &ClusterConfig,
        token: &Secret,
        rancher: Option<&Rancher>,
    ) -> Result<Server, Error> {
        let authority = match (config.ca(), rancher) {
            (Some(pem), _) => Fingerprint::of(&pem).to_string(),
            (None, Some(rancher)) if rancher.vouches_for(config) => "that of Rancher".to_owned(),
            (None, _) => "public".to_owned(),
        };
        let key = (url.to_string(), format!("{authority} {:?}", config.server_name()));
        let cached = self.anonymous().get(&key).cloned();
        if let Some(server) = cached {
            return with_token(server, token);
        }
        let server = self.connect(url, config, rancher)?;
        self.anonymous().insert(key, server.clone());
        with_token(server, token)
    }

    /// The same over a new connection: behind a load balancer, another replica may respond.
    pub(crate) fn as_argocd_anew(
        &self,
        url: &Url,
        config: &ClusterConfig,
        token: &Secret,
        rancher: Option<&Rancher>,
    ) -> Result<Server, Error> {
        with_token(self.connect(url, config, rancher)?, token)
    }

    fn connect(&self, url: &Url, config: &ClusterConfig, rancher: Option<&Rancher>) -> Result<Server, Error> {
        let ca = config.ca();
        let connection = match (&ca, rancher) {
            (Some(pem), _) => self.connection.anonymous_at(url.clone(), Authority::Pem(pem)),
            // Argo CD does not verify the certificate here. This command does, as for Rancher.
            (None, Some(rancher)) if rancher.vouches_for(config) => {
                rancher.anonymous.anonymous_at(url.clone(), Authority::Same)
            }
            (None, _) => self.connection.anonymous_at(url.clone(), Authority::Public),
        };
        let connection = match config.server_name() {
            Some(name) => connection.with_server_name(Some(&name)),
            None => connection,
        };
        connection.require_tls()?;
        connection.connect()
    }

    fn anonymous(&self) -> MutexGuard<'_, BTreeMap<(String, String), Server>> {
        self.anonymous.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with_token(server: Server, token: &Secret) -> Result<Server, Error> {
    let client = bearing(&server.client, token)
        .ok_or_else(|| Error::failed("the token in the Secret has characters that are invalid in a request"))?;
    Ok(Server { client, ..server })
}

impl RancherFlags {
    /// The commands for a cluster Secret, with the same connection flags.
    pub(crate) fn commands(&self, secret: &str, global: &GlobalFlags) -> Commands {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let commands = Commands::new::<crate::cli::ArgocdRancher>(secret, global)
            .with("--namespace", global.connection.namespace.as_deref())
            .with("--rancher-context", self.rancher_context.as_deref())
            .with("--rancher-url", self.rancher_url.as_deref())
            .with("--rancher-token-file", path(&self.rancher_token_file).as_deref())
            .with("--rancher-token-secret", self.rancher_token_secret.as_deref())
            .with(
                "--rancher-certificate-authority",
                path(&self.rancher_certificate_authority).as_deref(),
            );
        if self.rancher_token_stdin {
            commands.switched_on("--rancher-token-stdin")
        } else {
            commands
        }
    }

    /// Rancher by the flags. `None`: there are none. Sends nothing to Rancher.
    pub(crate) async fn open(
        &self,
        argo: &Argo,
        global: &GlobalFlags,
        context: &Context,
    ) -> Result<Option<Rancher>, Error> {
        if let Some(name) = self.rancher_context.as_deref().filter(|name| !name.is_empty()) {
            let connection = global
                .connection
                .for_context(name)
                .load(&context.environment)
                .doing(format!("use context {name} for {RANCHER}"))?;
            refuse_impersonation(connection.impersonated())?;
            let base = Reach::of(connection.server()).base().clone();
            let token = connection.bearer_token().await.doing(format!("log in to {RANCHER}"))?;
            return Ok(Some(Rancher {
                login: token.as_ref().and_then(name_of),
                client: connection.at(base.url().clone()).connect()?.client,
                anonymous: connection.anonymous_at(base.url().clone(), Authority::Same),
                base,
            }));
        }
        match &self.rancher_url {
            Some(url) => {
                refuse_impersonation(global.connection.impersonate.as_deref())?;
                self.by_url(url, argo, context).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// The same for a command that requires Rancher.
    pub(crate) async fn require(&self, argo: &Argo, global: &GlobalFlags, context: &Context) -> Result<Rancher, Error> {
        self.open(argo, global, context).await?.ok_or_else(|| {
            Error::usage("no connection to Rancher is configured")
                .hint("pass a context of Rancher with --rancher-context")
                .hint("or pass its URL with --rancher-url, and a token with --rancher-token-stdin, -file or -secret")
        })
    }

    async fn by_url(&self, text: &str, argo: &Argo, context: &Context) -> Result<Rancher, Error> {
        let url: Url = text
            .parse()
            .map_err(|_| Error::usage("the value of --rancher-url is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(Error::usage("the value of --rancher-url must begin with https://"));
        }
        let base = Reach::of(&url).base().clone();
        let token = self.token(argo, context).await?;
        let pem = match &self.rancher_certificate_authority {
            Some(path) => Some(read(path, "the certificate authority").await?),
            None => None,
        };
        let authority = pem.as_deref().map_or(Authority::Public, Authority::Pem);
        let anonymous = argo.connection.anonymous_at(base.url().clone(), authority);
        anonymous.require_tls()?;
        let client = bearing(&anonymous.connect()?.client, &token)
            .ok_or_else(|| Error::usage("the token for --rancher-url has characters that are invalid in a request"))?;
        Ok(Rancher {
            base,
            login: name_of(&token),
            client,
            anonymous,
        })
    }

    async fn token(&self, argo: &Argo, context: &Context) -> Result<Secret, Error> {
        if self.rancher_token_stdin {
            return context.ui.read_secret().await;
        }
        if let Some(path) = &self.rancher_token_file {
            let token = Secret::new(read(path, "the token").await?.trim());
            return if token.is_empty() {
                Err(Error::usage("the file of --rancher-token-file is empty"))
            } else {
                Ok(token)
            };
        }
        match &self.rancher_token_secret {
            Some(place) => from_secret(argo, place).await,
            None => Err(Error::usage("--rancher-url needs a token")
                .hint("pass it with --rancher-token-stdin, --rancher-token-file or --rancher-token-secret")),
        }
    }
}

impl Rancher {
    /// Whether the CA of this Rancher is used where the Secret says that Argo CD verifies none.
    fn vouches_for(&self, config: &ClusterConfig) -> bool {
        config.insecure() && !self.anonymous.is_insecure()
    }

    /// The user of this command. The error has a hint if this is not Rancher, or the token is invalid.
    pub(crate) async fn whoami(&self) -> Result<api_token::User, Error> {
        let user = api_token::whoami(&self.client).await;
        user.map_err(|error| {
            let code = error.code();
            let error = error.on(RANCHER);
            match code {
                Some(401) => {
                    error.hint("a token that is scoped to one cluster cannot issue others: use an unscoped one")
                }
                Some(403 | 404) => error.hint(format!("check that {} is the URL of a Rancher server", self.base)),
                _ => error,
            }
        })
    }

    pub(crate) async fn tokens(&self) -> Result<Vec<ApiToken>, Error> {
        let tokens = api_token::list(&self.client).await;
        tokens.map_err(|error| error.on(RANCHER))
    }

    pub(crate) async fn issue(&self, new: &NewToken) -> Result<IssuedToken, Error> {
        let issued = api_token::issue(&self.client, new).await;
        issued.map_err(|error| error.on(RANCHER))
    }

    pub(crate) async fn revoke(&self, name: &TokenName) -> Result<(), Error> {
        let deleted = api_token::delete(&self.client, name).await;
        deleted.map(drop).map_err(|error| error.on(RANCHER))
    }

    /// Whether a cluster is reached through this Rancher.
    pub(crate) fn serves(&self, cluster: &ClusterSecret) -> bool {
        cluster.server.rancher().is_some_and(|(base, _)| base == self.base)
    }

    /// Set if a cluster is reached through another Rancher.
    pub(crate) fn not_here(&self, cluster: &ClusterSecret) -> Option<Blocker> {
        let blocker = || {
            Blocker::new(
                format!("{} is not reached through {}", cluster.server, self.base),
                "pass the Rancher that it is reached through with --rancher-context or --rancher-url",
            )
        };
        (!self.serves(cluster)).then(blocker)
    }

    /// Whether this is the token of this command.
    pub(crate) fn logs_in_with(&self, token: &ApiToken) -> bool {
        token.current || self.login.as_ref() == Some(&token.name)
    }

    /// Set if the cluster needs a token with another scope. Only cluster local can need an unscoped token: for others Rancher does not
    /// redirect (seen on Rancher 2.15.0 and 2.12.0).
    pub(crate) async fn wrong_scope(&self, cluster: &ClusterId, unscoped: bool) -> Result<Option<Blocker>, Error> {
        let is_local = cluster.as_str() == "local";
        let redirects = is_local && {
            let needed = proof::needs_no_scope(&self.client, cluster).await;
            needed.doing(format!("check how {RANCHER} serves cluster {cluster}"))?
        };
        Ok(match (redirects, unscoped) {
            (true, false) => Some(Blocker::new(
                format!(
                    "Argo CD cannot use a token that is limited to cluster {cluster}: this Rancher redirects its /api and /apis out \
                     of the token's scope"
                ),
                "let Argo CD reach that cluster directly (by https://kubernetes.default.svc, if it runs there), or issue an unscoped \
                 token with --unscoped",
            )),
            (false, true) => Some(Blocker::new(
                "an unscoped token is not needed: a token for this cluster only works".to_owned(),
                "omit --unscoped",
            )),
            _ => None,
        })
    }

    /// The CA of its certificate, from its public endpoint. `None`: it is publicly trusted.
    pub(crate) async fn ca(&self) -> Result<Option<String>, Error> {
        let pem = Probe::new(self.anonymous.connect()?.client).ca_certificates().await;
        pem.map_err(|error| error.on(RANCHER))
    }

    /// The URL of one of its clusters, for Argo CD.
    pub(crate) fn server_of(&self, cluster: &ClusterId) -> ServerUrl {
        ServerUrl::through_rancher(&self.base, cluster)
    }
}

/// Rancher issues a token to the owner of the login, not to the impersonated user, although it reports that user as the caller
/// (seen on Rancher 2.15.0).
fn refuse_impersonation(user: Option<&str>) -> Result<(), Error> {
    let Some(user) = user.filter(|user| !user.is_empty()) else {
        return Ok(());
    };
    let message = format!("cannot act as {user} in {RANCHER}: it would issue tokens to the owner of the login instead");
    Err(Error::usage(message).hint("omit --as, and log in to Rancher as the user who is to own the tokens"))
}

fn name_of(token: &Secret) -> Option<TokenName> {
    Credential::of(token).api_token().cloned()
}

/// Not on this thread: the open of a named pipe waits for its other end.
async fn read(path: &std::path::Path, what: &str) -> Result<String, Error> {
    let text = tokio::fs::read_to_string(path).await;
    text.doing(format!("read {what} from {}", path.display()))
}

#[derive(Deserialize)]
struct RawSecret {
    data: Option<BTreeMap<String, ByteString>>,
}

async fn from_secret(argo: &Argo, place: &str) -> Result<Secret, Error> {
    let [namespace, name, key] = place.split('/').collect::<Vec<_>>()[..] else {
        return Err(Error::usage("--rancher-token-secret must be NAMESPACE/NAME/KEY"));
    };
    let secret = request::require::<RawSecret>(&argo.server.client, SECRET, Some(namespace), name).await;
    let secret = secret.map_err(of_argocd)?;
    let bytes = secret.data.and_then(|mut data| data.remove(key));
    let text = bytes.and_then(|bytes| String::from_utf8(bytes.0).ok());
    let text = text.ok_or_else(|| Error::failed(format!("Secret {namespace}/{name} has no text in key {key}")))?;
    Ok(Secret::new(text.trim()))
}
