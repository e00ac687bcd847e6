//! The connections to the management cluster, to a downstream cluster, and to Rancher's public endpoints.
//!
//! `--context` is the management cluster: a Rancher context of any cluster (`…/k8s/clusters/<id>`, `…/k8s/clusters/local`, the
//! bare host), or the management cluster's own kubeconfig. From a Rancher context the connection to the downstream cluster
//! follows, with the same credentials, by the cluster's id. From the management cluster's own kubeconfig it does not: its
//! credentials are not those of a Rancher user.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use cli::Failures;
use cli::app::{Context, GlobalFlags};
use cli::flags::ConnectionFlags;
use cli::rotation::{Commands, OtherKind};
use client::cluster_identity::{self, CaComparison, SYSTEM_NAMESPACE, same_ca};
use client::connection::{Authority, Connection, Environment, Server};
use client::error::{Doing as _, Error};
use engine::rotation::Rotation as _;
use rancher::cluster::{self, Cluster, ClusterId, ClusterKind};
use rancher::probe::{Probe, ServerIdentity};
use rancher::provisioned::{self, ProvisioningCluster};
use rancher::reach::{RancherUrl, Reach};
use rancher::settings::{self, Settings};
use url::Url;

use crate::rotation::observed::DownstreamIdentity;
use crate::rotation::rescue::Rescue;

/// The management cluster, in messages.
pub(crate) const MANAGEMENT: &str = "the management cluster";
/// The downstream cluster, in messages.
pub(crate) const DOWNSTREAM: &str = "the downstream cluster";

/// How long an answer of the downstream cluster may take. Rancher takes half a minute to say that there is no tunnel: too long for an
/// observation, and for thirty clusters.
pub(crate) const LONGEST_ANSWER: Duration = Duration::from_secs(5);

/// The flag for the context of the downstream cluster.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct DownstreamFlags {
    /// Kubeconfig context of the downstream cluster; by default it is reached through Rancher
    #[arg(long, value_name = "NAME", help_heading = "Connection options")]
    pub(crate) downstream_context: Option<String>,
}

impl DownstreamFlags {
    /// The later commands about a cluster, with the same contexts as this one.
    pub(crate) fn commands(&self, cluster: &ClusterId, global: &GlobalFlags) -> Commands {
        let commands = Commands::new::<crate::cli::Crt>(cluster.to_string(), global);
        let commands = commands.with("--downstream-context", self.downstream_context.as_deref());
        let of_rescue = commands.clone().resumed_with(Rescue::ACTION.verb);
        commands.or_of(OtherKind {
            kind: Rescue::KIND,
            display: "a rescue",
            commands: of_rescue,
        })
    }

    /// The commands of kubectl on the downstream cluster. Without its context, they have no connection flags.
    fn on_downstream(&self, global: &GlobalFlags) -> Commands {
        let context = self.downstream_context.as_deref().filter(|name| !name.is_empty());
        let connection = context.map(|name| global.connection.for_context(name));
        let global = GlobalFlags {
            connection: connection.unwrap_or_default(),
            ..GlobalFlags::default()
        };
        Commands::new::<crate::cli::Crt>("", &global)
    }
}

/// The management cluster alone, which is all that listing needs.
#[derive(Clone, Debug)]
pub(crate) struct Management {
    /// The API server with Rancher's objects.
    pub(crate) server: Server,
    connection: Connection,
    reach: Reach,
}

/// Both clusters, and Rancher's public endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    /// The API server with Rancher's objects.
    pub(crate) management: Server,
    /// The downstream cluster. `None` without a route to it; [`Connections::downstream`] says why.
    pub(crate) downstream: Option<Downstream>,
    /// Rancher's public endpoints, which accept or reject a token.
    pub(crate) probe: Probe,
    /// Rancher's settings; empty where they cannot be read.
    pub(crate) settings: Settings,
    /// The cluster as it was when the connections were opened.
    pub(crate) cluster: Cluster,
    /// The provisioning cluster of one that Rancher provisioned. `None`: it has not.
    pub(crate) provisioning: Option<ProvisioningCluster>,
    /// The commands about it, for hints.
    pub(crate) commands: Commands,
    /// The commands of kubectl on the downstream cluster, for hints.
    pub(crate) on_downstream: Commands,
}

/// The downstream cluster.
#[derive(Clone, Debug)]
pub(crate) struct Downstream {
    /// Its API server.
    pub(crate) server: Server,
    /// The route to it.
    pub(crate) route: Route,
    /// The same API server through Rancher's tunnel. `None` without the credentials of a Rancher user.
    pub(crate) proxied: Option<Server>,
}

impl Downstream {
    /// Whether this is the cluster that the tokens belong to. Through Rancher it is by construction. A context of the user is compared by the
    /// uid of namespace kube-system or, without a tunnel, by the CA that Rancher has recorded.
    pub(crate) async fn identity(&self, cluster: &Cluster) -> Result<DownstreamIdentity, Error> {
        if self.route == Route::ThroughRancher {
            return Ok(DownstreamIdentity::Proven);
        }
        let direct = &self.server.client;
        let here = cluster_identity::uid(direct)
            .await
            .map_err(|error| error.on(DOWNSTREAM))?;
        let there = match &self.proxied {
            Some(server) => {
                let asked = tokio::time::timeout(LONGEST_ANSWER, cluster_identity::uid(&server.client));
                asked.await.ok().and_then(Result::ok)
            }
            None => None,
        };
        if let Some(there) = there {
            return Ok(if there == here {
                DownstreamIdentity::Proven
            } else {
                DownstreamIdentity::Another
            });
        }
        let published = cluster_identity::root_ca(direct, SYSTEM_NAMESPACE)
            .await
            .map_err(|error| error.on(DOWNSTREAM))?;
        let both = published.as_deref().zip(cluster.ca_certificate.as_deref());
        Ok(match both.map(|(here, recorded)| same_ca(here, recorded)) {
            Some(CaComparison::Same) => DownstreamIdentity::Proven,
            _ => DownstreamIdentity::Unproven,
        })
    }
}

/// The route to the downstream cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Through Rancher, over the tunnel that a rotation restarts: short polls only.
    ThroughRancher,
    /// A context that does not go through Rancher.
    Context(String),
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThroughRancher => f.write_str("through Rancher"),
            Self::Context(name) => write!(f, "by context {name}"),
        }
    }
}

impl Management {
    /// Finds the management cluster. Sends nothing.
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

    /// A cluster by its id, its display name, or `namespace/name` of its provisioning object.
    pub(crate) async fn cluster(&self, name: &str) -> Result<Cluster, Error> {
        cluster::find(&self.server.client, name).await.map_err(|error| {
            if error.is_not_found() {
                return self.no_rancher();
            }
            let is_id = name.parse::<ClusterId>().is_ok_and(|id| id.is_generated());
            let is_hidden = error.is_forbidden() && !is_id;
            let error = error.on(MANAGEMENT);
            if is_hidden {
                error.hint("pass the id of the cluster: its display name is known only to who may list clusters")
            } else {
                error
            }
        })
    }

    /// The clusters of a command line, each once. A name among others that leads to none is a failure of its own.
    pub(crate) async fn clusters(&self, names: &[String], unknown: &mut Failures<'_>) -> Result<Vec<Cluster>, Error> {
        let mut clusters: Vec<Cluster> = Vec::with_capacity(names.len());
        for name in names {
            if let Some(cluster) = unknown.found(name, self.cluster(name).await)?
                && clusters.iter().all(|known| known.id != cluster.id)
            {
                clusters.push(cluster);
            }
        }
        Ok(clusters)
    }

    /// The server has no clusters of Rancher, which has at least `local`. An agent may have brought Rancher's kinds along.
    pub(crate) fn no_rancher(&self) -> Error {
        let server = match self.connection.context() {
            Some(context) => format!("context {context:?}"),
            None => format!("the server at {}", self.connection.server()),
        };
        Error::failed(format!(
            "{server} does not lead to a Rancher management cluster: it has no clusters.management.cattle.io"
        ))
        .hint("pass a context of Rancher (…/k8s/clusters/local) with --context")
    }

    /// Rancher's settings; empty for a caller who cannot read them.
    pub(crate) async fn settings(&self) -> Result<Settings, Error> {
        match settings::read(&self.server.client).await {
            Err(error) if error.is_forbidden() => Ok(Settings::default()),
            other => other.map_err(|error| error.on(MANAGEMENT)),
        }
    }

    /// Rancher's own URL, if the context leads to Rancher. A URL without a path may be Rancher's or an API server's, so the
    /// server is asked.
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
                let identity = probe.identify().await.map_err(|error| error.on(MANAGEMENT))?;
                Ok(matches!(identity, ServerIdentity::Rancher).then(|| base.clone()))
            }
        }
    }

    /// Rancher's public endpoints: at the URL of the context if it leads to Rancher and its certificate is verified, else
    /// at the URL that agents use. A token is shown to no server that has not proven who it is.
    pub(crate) fn probe(&self, rancher: Option<&RancherUrl>, settings: &Settings) -> Result<Probe, Error> {
        let verified = rancher.filter(|_| !self.connection.is_insecure());
        let connection = if let Some(base) = verified {
            self.connection.anonymous_at(base.url().clone(), Authority::Same)
        } else {
            let text = settings.server_url.as_deref().ok_or_else(no_server_url)?;
            let url: Url = text.parse().map_err(|_| {
                Error::failed("Rancher's setting server-url is not a URL")
                    .hint("set it to the URL that agents connect to")
            })?;
            // As agents do: without the setting, the certificate is publicly trusted.
            let authority = settings.cacerts.as_deref().map_or(Authority::Public, Authority::Pem);
            self.connection
                .anonymous_at(RancherUrl::new(&url).url().clone(), authority)
        };
        connection.require_tls()?;
        Ok(Probe::new(connection.connect()?.client))
    }

    /// The API server of a cluster through Rancher, with the caller's credentials.
    pub(crate) fn through_rancher(&self, rancher: &RancherUrl, cluster: &ClusterId) -> Result<Server, Error> {
        self.connection.at(rancher.cluster(cluster)).connect()
    }

    /// Opens the connections of a cluster.
    pub(crate) async fn connections(
        &self,
        mut cluster: Cluster,
        flags: &DownstreamFlags,
        global: &GlobalFlags,
        environment: &Environment,
    ) -> Result<Connections, Error> {
        let provisioning = self.provisioning(&mut cluster).await?;
        let settings = self.settings().await?;
        let rancher = self.rancher().await?;
        let proxied = rancher
            .as_ref()
            .map(|base| self.through_rancher(base, &cluster.id))
            .transpose()?;
        let context = flags.downstream_context.as_deref();
        let downstream = match context.filter(|name| !name.is_empty()) {
            Some(name) => Some(by_context(name, &global.connection, environment, &cluster.id, proxied)?),
            None => proxied.map(|server| Downstream {
                proxied: Some(server.clone()),
                route: Route::ThroughRancher,
                server,
            }),
        };
        Ok(Connections {
            management: self.server.clone(),
            downstream,
            probe: self.probe(rancher.as_ref(), &settings)?,
            settings,
            commands: flags.commands(&cluster.id, global),
            on_downstream: flags.on_downstream(global),
            cluster,
            provisioning,
        })
    }

    /// Tells imported clusters from those that Rancher provisioned, as far as the caller may list provisioning clusters.
    pub(crate) async fn tell_kinds(&self, clusters: &mut [Cluster]) -> Result<(), Error> {
        let is_unclear = |cluster: &Cluster| cluster.kind == ClusterKind::Provisioned;
        if !clusters.iter().any(is_unclear) {
            return Ok(());
        }
        let provisioning = match provisioned::list(&self.server.client, None).await {
            Err(error) if error.is_forbidden() => return Ok(()),
            found => found.map_err(|error| error.on(MANAGEMENT))?,
        };
        let with_machines = provisioning.iter().filter(|found| found.has_machines);
        let with_machines: BTreeSet<&ClusterId> = with_machines.map(|found| &found.cluster).collect();
        for cluster in clusters.iter_mut().filter(|cluster| is_unclear(cluster)) {
            if !with_machines.contains(&cluster.id) {
                cluster.kind = ClusterKind::Imported;
            }
        }
        Ok(())
    }

    /// The provisioning cluster of one that Rancher provisioned. An imported one may look like that.
    async fn provisioning(&self, cluster: &mut Cluster) -> Result<Option<ProvisioningCluster>, Error> {
        if cluster.kind != ClusterKind::Provisioned {
            return Ok(None);
        }
        let found = provisioned::of_cluster(&self.server.client, cluster).await;
        let found = found
            .map_err(|error| error.on(MANAGEMENT))?
            .filter(|found| found.has_machines);
        if found.is_none() {
            cluster.kind = ClusterKind::Imported;
        }
        Ok(found)
    }
}

impl Connections {
    /// The same, with the downstream cluster through Rancher.
    pub(crate) fn through_rancher(mut self) -> Self {
        let proxied = self.downstream.and_then(|downstream| downstream.proxied);
        self.downstream = proxied.map(|server| Downstream {
            proxied: Some(server.clone()),
            route: Route::ThroughRancher,
            server,
        });
        self
    }

    /// Finds a cluster by name, and opens its connections.
    pub(crate) async fn open(
        global: &GlobalFlags,
        downstream: &DownstreamFlags,
        context: &Context,
        name: &str,
    ) -> Result<Self, Error> {
        let management = Management::open(global, &context.environment)?;
        let cluster = management.cluster(name).await?;
        management
            .connections(cluster, downstream, global, &context.environment)
            .await
    }

    /// The downstream cluster, or the error that says how to reach it.
    pub(crate) fn downstream(&self) -> Result<&Downstream, Error> {
        self.downstream.as_ref().ok_or_else(|| {
            let id = &self.cluster.id;
            Error::failed(format!(
                "cannot reach downstream cluster {id}: --context is not a context of Rancher, and there is no other route"
            ))
            .hint(format!("pass a context of cluster {id} with --downstream-context"))
            .hint("pass a context of Rancher (…/k8s/clusters/local) with --context")
        })
    }
}

/// The downstream cluster by a context of the user, which must not be known to lead elsewhere.
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
            "pass a context of cluster {wanted}, or omit --downstream-context"
        )));
    }
    let server = connection.connect()?;
    let through_rancher = leads_to.downstream().is_some();
    Ok(Downstream {
        proxied: proxied.or_else(|| through_rancher.then(|| server.clone())),
        route: if through_rancher {
            Route::ThroughRancher
        } else {
            Route::Context(name.to_owned())
        },
        server,
    })
}

fn no_server_url() -> Error {
    Error::failed(
        "cannot find Rancher: its setting server-url is empty or unreadable, and --context is not a context of Rancher with a \
         certificate that is verified",
    )
    .hint("pass a context of Rancher (…/k8s/clusters/local) with --context")
}
