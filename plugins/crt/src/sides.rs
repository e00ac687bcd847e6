//! The two sides of one cluster, and Rancher's public door: how each is reached from what the user has.
//!
//! `--context` is the management side: a Rancher context of any cluster (`…/k8s/clusters/<id>`, `…/k8s/clusters/local`,
//! the bare host), or the management cluster's own kubeconfig. Through Rancher the downstream side follows from it, with
//! the same identity, by the cluster's id. From the management cluster's own kubeconfig nothing follows: there is no
//! identity in it that Rancher knows.

use std::fmt;

use cli::app::{Context, GlobalFlags};
use cli::flags::ConnectionFlags;
use cli::rotation::Commands;
use client::connection::{Authority, Connection, Environment, Server};
use client::error::{Doing as _, Error};
use engine::rotation::Rotation as _;
use rancher::cluster::{self, Cluster, ClusterId};
use rancher::probe::{Identity, Probe};
use rancher::reach::{RancherUrl, Reach};
use rancher::settings::{self, Settings};
use url::Url;

use crate::rotation::Crt;

/// The management side in the words of a sentence.
pub(crate) const MANAGEMENT: &str = "the management cluster";
/// The downstream side in the words of a sentence.
pub(crate) const DOWNSTREAM: &str = "the downstream cluster";

/// The flag that gives the downstream side a context of its own.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct DownstreamFlags {
    /// The kubeconfig context of the downstream cluster itself; by default it is reached through Rancher
    #[arg(long, value_name = "NAME", help_heading = "Connection options")]
    pub downstream_context: Option<String>,
}

impl DownstreamFlags {
    /// The later commands about a cluster, with the same contexts as this one.
    pub(crate) fn commands(&self, cluster: &ClusterId, global: &GlobalFlags) -> Commands {
        let commands = Commands::new(Crt::KIND, cluster.to_string(), global);
        commands.with("--downstream-context", self.downstream_context.as_deref())
    }
}

/// The management side alone: all that listing needs.
#[derive(Clone, Debug)]
pub(crate) struct Management {
    /// The API server that keeps Rancher's objects.
    pub server: Server,
    connection: Connection,
    reach: Reach,
}

/// Both sides of one cluster, and Rancher's public door.
#[derive(Clone, Debug)]
pub(crate) struct Sides {
    /// The API server that keeps Rancher's objects.
    pub management: Server,
    /// The cluster's own API server. `None` where there is no way to it; [`Sides::downstream`] says why.
    pub downstream: Option<Downstream>,
    /// Rancher's public door, where a token is asked about.
    pub probe: Probe,
    /// Rancher's settings; empty where they may not be read.
    pub settings: Settings,
    /// The cluster, as it was when the sides were opened.
    pub cluster: Cluster,
}

/// The downstream side.
#[derive(Clone, Debug)]
pub(crate) struct Downstream {
    /// Its API server.
    pub server: Server,
    /// The way to it.
    pub path: Path,
    /// A way to make a fresh call through Rancher's tunnel; `None` without an identity that Rancher knows.
    pub proxied: Option<Server>,
}

/// The way to the downstream side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Through Rancher, over the very tunnel that a rotation restarts: short polls only.
    Derived,
    /// A context that leads there without Rancher.
    DirectContext(String),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Derived => f.write_str("through Rancher"),
            Self::DirectContext(name) => write!(f, "by context {name}"),
        }
    }
}

impl Management {
    /// Finds the management side. Sends nothing.
    pub(crate) fn open(flags: &GlobalFlags, environment: &Environment) -> Result<Self, Error> {
        let given = flags.connection.load(environment)?;
        let reach = Reach::of(given.server());
        let connection = match &reach {
            Reach::Proxy { base, .. } => given.at(base.management()),
            Reach::Root(_) => given,
        };
        Ok(Self {
            server: connection.connect()?,
            connection,
            reach,
        })
    }

    /// A cluster by its id, display name, or `namespace/name` of its provisioning object.
    pub(crate) async fn cluster(&self, asked: &str) -> Result<Cluster, Error> {
        cluster::find(&self.server.client, asked)
            .await
            .map_err(|error| error.on(MANAGEMENT))
    }

    /// Rancher's settings; those of a caller who may not read them are empty.
    pub(crate) async fn settings(&self) -> Result<Settings, Error> {
        match settings::read(&self.server.client).await {
            Err(error) if error.is_forbidden() => Ok(Settings::default()),
            other => other.map_err(|error| error.on(MANAGEMENT)),
        }
    }

    /// Rancher's own URL, if this side is reached through Rancher. A URL without a path may be Rancher's or an API
    /// server's: who answers is asked.
    pub(crate) async fn rancher(&self) -> Result<Option<RancherUrl>, Error> {
        match &self.reach {
            Reach::Proxy { base, .. } => Ok(Some(base.clone())),
            Reach::Root(base) => {
                let probe = Probe::new(
                    self.connection
                        .anonymous_at(base.url().clone(), Authority::Same)
                        .connect()?
                        .client,
                );
                let found = probe.identify().await.map_err(|error| error.on(MANAGEMENT))?;
                Ok(matches!(found, Identity::Rancher).then(|| base.clone()))
            }
        }
    }

    /// Rancher's public door: at the URL by which we reach Rancher, else at the one that its agents use.
    pub(crate) fn probe(&self, rancher: Option<&RancherUrl>, settings: &Settings) -> Result<Probe, Error> {
        let connection = if let Some(base) = rancher {
            self.connection.anonymous_at(base.url().clone(), Authority::Same)
        } else {
            let text = settings.server_url.as_deref().ok_or_else(no_server_url)?;
            let url: Url = text.parse().map_err(|_| {
                Error::failed("Rancher's setting server-url holds no URL").hint("set it to where agents find Rancher")
            })?;
            // As agents do it: without the setting, the certificate is a public one.
            let authority = settings.cacerts.as_deref().map_or(Authority::Public, Authority::Pem);
            self.connection
                .anonymous_at(RancherUrl::new(&url).url().clone(), authority)
        };
        Ok(Probe::new(connection.connect()?.client))
    }

    /// The API server of a cluster through Rancher, with our own identity.
    pub(crate) fn through_rancher(&self, rancher: &RancherUrl, cluster: &ClusterId) -> Result<Server, Error> {
        self.connection.at(rancher.cluster(cluster)).connect()
    }

    /// Opens both sides of a cluster. `downstream_context` is the user's own way to it.
    pub(crate) async fn sides(
        &self,
        cluster: Cluster,
        flags: &ConnectionFlags,
        downstream_context: Option<&str>,
        environment: &Environment,
    ) -> Result<Sides, Error> {
        let settings = self.settings().await?;
        let rancher = self.rancher().await?;
        let proxied = rancher
            .as_ref()
            .map(|base| self.through_rancher(base, &cluster.id))
            .transpose()?;
        let downstream = match downstream_context.filter(|name| !name.is_empty()) {
            Some(name) => Some(by_context(name, flags, environment, &cluster.id, proxied)?),
            None => proxied.map(|server| Downstream {
                proxied: Some(server.clone()),
                path: Path::Derived,
                server,
            }),
        };
        Ok(Sides {
            management: self.server.clone(),
            downstream,
            probe: self.probe(rancher.as_ref(), &settings)?,
            settings,
            cluster,
        })
    }
}

impl Sides {
    /// Finds a cluster by what the user calls it, and opens both of its sides.
    pub(crate) async fn open(
        global: &GlobalFlags,
        downstream: &DownstreamFlags,
        context: &Context,
        asked: &str,
    ) -> Result<Self, Error> {
        let management = Management::open(global, &context.environment)?;
        let cluster = management.cluster(asked).await?;
        let name = downstream.downstream_context.as_deref();
        management
            .sides(cluster, &global.connection, name, &context.environment)
            .await
    }

    /// The downstream side, or the sentence that says how to give one.
    pub(crate) fn downstream(&self) -> Result<&Downstream, Error> {
        self.downstream.as_ref().ok_or_else(|| {
            let id = &self.cluster.id;
            Error::failed(format!(
                "the downstream cluster {id} cannot be reached: the context of the management side is not one of Rancher's, \
                 and no other way to it was given"
            ))
            .hint(format!("give a context of cluster {id} itself with --downstream-context"))
            .hint("or use a context of Rancher (…/k8s/clusters/local) with --context")
        })
    }
}

/// The downstream side by a context of the user's choice, which must not be known to lead elsewhere.
fn by_context(
    name: &str,
    flags: &ConnectionFlags,
    environment: &Environment,
    wanted: &ClusterId,
    proxied: Option<Server>,
) -> Result<Downstream, Error> {
    let connection = flags
        .for_context(name)
        .load(environment)
        .doing(format!("use context {name} for {DOWNSTREAM}"))?;
    let leads_to = Reach::of(connection.server());
    if let Reach::Proxy { cluster, .. } = &leads_to
        && cluster != wanted
    {
        return Err(Error::failed(format!(
            "--downstream-context {name} leads to cluster {cluster}, not to {wanted}"
        ))
        .hint(format!(
            "give a context of cluster {wanted}, or leave --downstream-context out"
        )));
    }
    let server = connection.connect()?;
    let through_rancher = leads_to.downstream().is_some();
    Ok(Downstream {
        proxied: proxied.or_else(|| through_rancher.then(|| server.clone())),
        path: if through_rancher {
            Path::Derived
        } else {
            Path::DirectContext(name.to_owned())
        },
        server,
    })
}

fn no_server_url() -> Error {
    Error::failed("Rancher cannot be found: its setting server-url is empty or may not be read, and --context is not one of Rancher's")
        .hint("use a context of Rancher (…/k8s/clusters/local) with --context")
}
