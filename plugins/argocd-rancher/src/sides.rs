//! The two sides: the cluster where Argo CD runs, and Rancher; how each is reached from what the user has.
//!
//! They need not be the same cluster. `--context` is where Argo CD runs. Rancher is reached by a context of its own, or by
//! its URL and a token. A token that Argo CD has is proven without any identity of ours, and with the trust that its Secret
//! gives, since that is how Argo CD calls.

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
use engine::rotation::Rotation as _;
use k8s_openapi::ByteString;
use rancher::api_token::{self, ApiToken, Credential, TokenName, bearing, proof};
use rancher::reach::{RancherUrl, Reach};
use serde::Deserialize;
use url::Url;

use crate::address::RancherAddress as _;
use crate::rotation::ArgocdRancher;

/// Argo CD's side in the words of a sentence.
pub(crate) const ARGOCD: &str = "the cluster of Argo CD";
/// Rancher in the words of a sentence.
pub(crate) const RANCHER: &str = "Rancher";

/// A failed request to the cluster of Argo CD. That may be reached through Rancher, which refuses in a form of its own.
pub(crate) fn of_argocd(error: request::Error) -> Error {
    rancher::Error::from(error).on(ARGOCD)
}

/// Where Argo CD is installed unless somebody chose otherwise.
const NAMESPACE: &str = "argocd";

/// What an unscoped token means.
pub(crate) const UNSCOPED: &str = "an unscoped token works for every cluster that its owner sees, and can issue and revoke tokens: \
    whoever can read the cluster Secret can do all that";

/// How Rancher is reached.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Rancher options")]
#[allow(clippy::struct_field_names, reason = "a field is called as its flag")]
pub(crate) struct RancherFlags {
    /// The kubeconfig context of Rancher: of any of its clusters, or of its bare host
    #[arg(long, value_name = "NAME", conflicts_with = "rancher_url")]
    pub rancher_context: Option<String>,

    /// The URL of Rancher; needs a token too
    #[arg(long, value_name = "URL")]
    pub rancher_url: Option<String>,

    /// Read the token for --rancher-url from standard input
    #[arg(long, requires = "rancher_url", conflicts_with_all = ["rancher_token_file", "rancher_token_secret"])]
    pub rancher_token_stdin: bool,

    /// Read the token for --rancher-url from this file
    #[arg(long, value_name = "FILE", requires = "rancher_url", value_hint = clap::ValueHint::FilePath, conflicts_with = "rancher_token_secret")]
    pub rancher_token_file: Option<PathBuf>,

    /// Read the token for --rancher-url from a Secret where Argo CD runs
    #[arg(long, value_name = "NAMESPACE/NAME/KEY", requires = "rancher_url")]
    pub rancher_token_secret: Option<String>,

    /// Path to a certificate file of the authority that signed Rancher's certificate, for --rancher-url
    #[arg(long, value_name = "FILE", requires = "rancher_url", value_hint = clap::ValueHint::FilePath)]
    pub rancher_certificate_authority: Option<PathBuf>,
}

/// The side of Argo CD.
#[derive(Clone, Debug)]
pub(crate) struct Argo {
    /// The API server where Argo CD runs.
    pub server: Server,
    /// The namespace of Argo CD.
    pub namespace: String,
    connection: Connection,
    /// Clients without an identity, by URL and trust.
    doors: Arc<Mutex<BTreeMap<(String, String), Server>>>,
}

/// Rancher, and who we are there.
#[derive(Clone, Debug)]
pub(crate) struct Rancher {
    /// Its own URL.
    pub base: RancherUrl,
    /// A client of that URL with our identity.
    pub client: Client,
    /// The token that we log in with. `None`: with something else.
    pub login: Option<TokenName>,
    /// Nobody, trusting what the client trusts.
    anonymous: Connection,
}

/// A client without a `Debug` of its own.
#[derive(Clone)]
pub(crate) struct Client(pub kube::Client);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Argo {
    /// Finds it. Sends nothing.
    pub(crate) fn open(global: &GlobalFlags, environment: &Environment) -> Result<Self, Error> {
        let connection = global.connection.load(environment)?;
        let given = global.connection.namespace.as_deref().filter(|name| !name.is_empty());
        let namespace = given.unwrap_or(NAMESPACE).to_owned();
        Ok(Self {
            server: connection.connect()?,
            namespace,
            connection,
            doors: Arc::default(),
        })
    }

    /// What tells this Argo CD from others, also from one of the same namespace in another cluster: the uid of its Secret
    /// `argocd-secret`. Whoever uses this program may read Secrets in that namespace, and need not be allowed to read
    /// Namespaces; all callers must find the same. Without that Secret it is the uid of namespace kube-system. `None`: neither
    /// can be read.
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

    /// All clusters that Argo CD knows.
    pub(crate) async fn clusters(&self) -> Result<Vec<ClusterSecret>, Error> {
        let found = cluster_secret::list(&self.server.client, &self.namespace).await;
        found.map_err(of_argocd)
    }

    /// The server of a cluster as Argo CD calls it: its URL, the trust of its Secret, and this token. Over the connections that
    /// are open already, where others were called at the same place with the same trust.
    pub(crate) fn as_argocd(
        &self,
        url: &Url,
        config: &ClusterConfig,
        token: &Secret,
        rancher: Option<&Rancher>,
    ) -> Result<Server, Error> {
        let trust = match (config.ca(), rancher) {
            (Some(pem), _) => Fingerprint::of(&pem).to_string(),
            (None, Some(_)) if config.insecure() => "that of Rancher".to_owned(),
            (None, _) => "public".to_owned(),
        };
        let door = (url.to_string(), format!("{trust} {:?}", config.server_name()));
        let known = self.doors().get(&door).cloned();
        if let Some(server) = known {
            return bearing_there(server, token);
        }
        let server = self.connect(url, config, rancher)?;
        self.doors().insert(door, server.clone());
        bearing_there(server, token)
    }

    /// The same over a connection of its own: behind a load balancer it may be another replica that answers.
    pub(crate) fn as_argocd_anew(
        &self,
        url: &Url,
        config: &ClusterConfig,
        token: &Secret,
        rancher: Option<&Rancher>,
    ) -> Result<Server, Error> {
        bearing_there(self.connect(url, config, rancher)?, token)
    }

    fn connect(&self, url: &Url, config: &ClusterConfig, rancher: Option<&Rancher>) -> Result<Server, Error> {
        let ca = config.ca();
        let connection = match (&ca, rancher) {
            (Some(pem), _) => self.connection.anonymous_at(url.clone(), Authority::Pem(pem)),
            // It does not check the certificate; we do, by what we know of Rancher.
            (None, Some(rancher)) if config.insecure() => rancher.anonymous.anonymous_at(url.clone(), Authority::Same),
            (None, _) => self.connection.anonymous_at(url.clone(), Authority::Public),
        };
        let connection = match config.server_name() {
            Some(name) => connection.with_server_name(Some(&name)),
            None => connection,
        };
        connection.connect()
    }

    fn doors(&self) -> MutexGuard<'_, BTreeMap<(String, String), Server>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearing_there(server: Server, token: &Secret) -> Result<Server, Error> {
    let client = bearing(&server.client, token)
        .ok_or_else(|| Error::failed("the token in the Secret has characters that cannot be sent"))?;
    Ok(Server { client, ..server })
}

impl RancherFlags {
    /// The commands about a cluster Secret, with the flags that lead to the same two sides. A token on standard input cannot be
    /// repeated: the same flag asks for it again.
    pub(crate) fn commands(&self, secret: &str, global: &GlobalFlags) -> Commands {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let commands = Commands::new(ArgocdRancher::KIND, secret, global)
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

    /// Rancher, where the user has said how to reach it. Sends nothing to Rancher.
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
            let base = Reach::of(connection.server()).base().clone();
            let token = connection.bearer_token().await.doing(format!("log in to {RANCHER}"))?;
            return Ok(Some(Rancher {
                login: token.as_ref().and_then(name_of),
                client: Client(connection.at(base.url().clone()).connect()?.client),
                anonymous: connection.anonymous_at(base.url().clone(), Authority::Same),
                base,
            }));
        }
        match &self.rancher_url {
            Some(url) => self.by_url(url, argo, context).await.map(Some),
            None => Ok(None),
        }
    }

    /// The same for a verb that cannot do without.
    pub(crate) async fn require(&self, argo: &Argo, global: &GlobalFlags, context: &Context) -> Result<Rancher, Error> {
        self.open(argo, global, context).await?.ok_or_else(|| {
            Error::usage("Rancher is needed for this, and nothing says how to reach it")
                .hint("give a context of Rancher with --rancher-context")
                .hint("or its URL with --rancher-url, and a token with --rancher-token-stdin, -file or -secret")
        })
    }

    async fn by_url(&self, text: &str, argo: &Argo, context: &Context) -> Result<Rancher, Error> {
        let url: Url = text
            .parse()
            .map_err(|_| Error::usage("the value of --rancher-url is not a URL"))?;
        if url.scheme() != "https" || url.host_str().is_none() {
            return Err(Error::usage(
                "--rancher-url must begin with https://: a token is sent there",
            ));
        }
        let base = Reach::of(&url).base().clone();
        let token = self.token(argo, context).await?;
        let pem = match &self.rancher_certificate_authority {
            Some(path) => Some(read(path, "the certificate authority")?),
            None => None,
        };
        let authority = pem.as_deref().map_or(Authority::Public, Authority::Pem);
        let anonymous = argo.connection.anonymous_at(base.url().clone(), authority);
        let client = bearing(&anonymous.connect()?.client, &token)
            .ok_or_else(|| Error::usage("the token for --rancher-url has characters that cannot be sent"))?;
        Ok(Rancher {
            base,
            login: name_of(&token),
            client: Client(client),
            anonymous,
        })
    }

    async fn token(&self, argo: &Argo, context: &Context) -> Result<Secret, Error> {
        if self.rancher_token_stdin {
            return context.ui.read_secret().await;
        }
        if let Some(path) = &self.rancher_token_file {
            let token = Secret::new(read(path, "the token")?.trim());
            return if token.is_empty() {
                Err(Error::usage("the file of --rancher-token-file is empty"))
            } else {
                Ok(token)
            };
        }
        match &self.rancher_token_secret {
            Some(place) => from_secret(argo, place).await,
            None => Err(Error::usage("--rancher-url needs a token")
                .hint("give it with --rancher-token-stdin, --rancher-token-file or --rancher-token-secret")),
        }
    }
}

impl Rancher {
    /// A client without any identity.
    pub(crate) fn public(&self) -> Result<kube::Client, Error> {
        Ok(self.anonymous.connect()?.client)
    }

    /// Who we are there. Fails in plain words where this is no Rancher, or we are nobody.
    pub(crate) async fn whoami(&self) -> Result<api_token::User, Error> {
        let asked = api_token::whoami(&self.client.0).await;
        asked.map_err(|error| {
            let code = error.code();
            let error = error.on(RANCHER);
            match code {
                Some(401) => {
                    error.hint("a token that is scoped to one cluster cannot mint others: use one without a scope")
                }
                Some(403 | 404) => error.hint(format!("is {} a Rancher?", self.base)),
                _ => error,
            }
        })
    }

    /// Whether this is the token that we log in with.
    pub(crate) fn logs_in_with(&self, token: &ApiToken) -> bool {
        token.current || self.login.as_ref() == Some(&token.name)
    }

    /// What speaks against a token for this cluster alone, or, `unscoped`, against one for all. Only Rancher's own cluster is
    /// asked about: for others nothing is redirected (seen on Rancher 2.15.0 and 2.12.0).
    pub(crate) async fn wrong_scope(
        &self,
        cluster: &rancher::ClusterId,
        unscoped: bool,
    ) -> Result<Option<(String, &'static str)>, Error> {
        let is_local = cluster.as_str() == "local";
        let redirects = is_local && {
            let asked = proof::needs_no_scope(&self.client.0, cluster).await;
            asked.doing(format!("ask {RANCHER} for what cluster {cluster} serves"))?
        };
        Ok(match (redirects, unscoped) {
            (true, false) => Some((
                format!(
                    "with a token for cluster {cluster} alone Argo CD could not work: this Rancher redirects /api and /apis of \
                     it out of the token's scope"
                ),
                "let Argo CD reach that cluster directly (https://kubernetes.default.svc where it runs there), or issue a token \
                 for all clusters with --unscoped",
            )),
            (false, true) => Some((
                format!("cluster {cluster} does not need a token without a scope"),
                "leave out --unscoped",
            )),
            _ => None,
        })
    }

    /// Where a cluster of its is served, as Argo CD is to be told.
    pub(crate) fn server_of(&self, cluster: &rancher::ClusterId) -> ServerUrl {
        ServerUrl::through_rancher(&self.base, cluster)
    }
}

fn name_of(token: &Secret) -> Option<TokenName> {
    Credential::of(token).api_token().cloned()
}

fn read(path: &std::path::Path, what: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).doing(format!("read {what} from {}", path.display()))
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
    let text =
        text.ok_or_else(|| Error::failed(format!("Secret {namespace}/{name} has no text under the key {key}")))?;
    Ok(Secret::new(text.trim()))
}
