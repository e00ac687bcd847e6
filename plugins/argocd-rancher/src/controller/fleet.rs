//! What all rotations of one command share: the Rancher user, the clusters, and the Applications. The tokens of the user are listed
//! once for all rotations that need them at about the same time.

use std::time::Duration;

use argocd::application::{self, Visible};
use argocd::{ClusterConfig, ClusterSecret, connection, lookup, secret_name};
use cli::rotation::leases;
use client::error::Error;
use client::secret::Secret;
use rancher::api_token::{self, ApiToken};
use rancher::{ClusterId, Observed};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::SCRAPE;
use crate::connections::{Argo, RANCHER, Rancher, of_argocd};
use crate::rotation::ArgocdRancher;
use crate::{mark, report};

/// Argo CD collects the metrics of its clusters every 30 s.
const COLLECTION: Duration = Duration::from_secs(35);

/// The permission to list the Applications in Argo CD's namespace, and all of them.
pub(crate) const LIST_OWN: &str = "grant list on applications.argoproj.io in Argo CD's namespace";
pub(crate) const LIST_ALL: &str = "grant list on applications.argoproj.io in all namespaces";

/// The state when the command began.
pub(crate) struct Fleet {
    pub argo: Argo,
    pub rancher: Rancher,
    /// The Rancher user of this command.
    pub user: api_token::User,
    /// The longest validity that Rancher grants.
    pub limit: Option<Duration>,
    /// The identity of Argo CD, for the marks of tokens.
    pub identity: Option<String>,
    pub clusters: Vec<ClusterSecret>,
    /// All visible Applications. `None`: there is no permission to list them.
    pub applications: Option<Visible>,
    tokens: Mutex<Option<(Instant, Vec<ApiToken>)>>,
}

impl Fleet {
    /// Reads it.
    pub(crate) async fn survey(argo: Argo, rancher: Rancher) -> Result<Self, Error> {
        let of_rancher = async {
            let user = rancher.whoami().await?;
            let limit = api_token::max_ttl(&rancher.client).await;
            Ok((user, limit.map_err(|error| error.on(RANCHER))?))
        };
        let ((user, limit), identity, clusters, applications) =
            futures::try_join!(of_rancher, argo.identity(), argo.clusters(), applications(&argo))?;
        Ok(Self {
            identity,
            user,
            limit,
            clusters,
            applications,
            tokens: Mutex::default(),
            argo,
            rancher,
        })
    }

    /// The tokens of the user, from a request that was sent after `since`.
    pub(crate) async fn tokens(&self, since: Instant) -> Result<Vec<ApiToken>, Error> {
        let mut listed = self.tokens.lock().await;
        if let Some((at, tokens)) = &*listed
            && *at > since
        {
            return Ok(tokens.clone());
        }
        let at = Instant::now();
        let tokens = self.rancher.tokens().await?;
        *listed = Some((at, tokens.clone()));
        Ok(tokens)
    }

    /// A cluster whose Secret was deleted during its rotation, by the name of the Secret or of the cluster in Rancher. It is rebuilt from
    /// what the rotation has left, without a token. `None`: there is no such rotation.
    pub(crate) async fn deleted(&self, name: &str) -> Result<Option<ClusterSecret>, Error> {
        let known = api_token::find_cluster(&self.rancher.client, name).await;
        let id = known.map(|cluster| cluster.id).or_else(|_| name.parse()).ok();
        let of_id = id.map(|id| self.rancher.server_of(&id));
        let of_id = of_id.and_then(|server| secret_name(server.as_str()).ok());
        for secret in [Some(name.to_owned()), of_id].into_iter().flatten() {
            let lease = report::lease(&self.argo.namespace, &secret);
            let rotation = leases::of::<ArgocdRancher>(&self.argo.server, &lease).await?;
            if rotation.is_some_and(|rotation| rotation.in_progress()) {
                return self.rebuilt(&secret).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn rebuilt(&self, secret: &str) -> Result<ClusterSecret, Error> {
        let tokens = self.tokens(Instant::now()).await?;
        let subject = format!("{}/{secret}", self.argo.namespace);
        let is_of = |token: &&ApiToken| {
            let mark = mark::of_ours(token, self.identity.as_deref(), false);
            mark.is_some_and(|mark| mark.subject == subject)
        };
        let scope = tokens.iter().filter(is_of).find_map(|token| token.cluster.clone());
        // A token without a scope is for this cluster only.
        let local = || "local".parse::<ClusterId>();
        let id = scope
            .map_or_else(local, Ok)
            .map_err(|error| Error::failed(error.to_string()))?;
        let object = Observed {
            namespace: self.argo.namespace.clone(),
            name: secret.to_owned(),
            uid: String::new(),
            resource_version: String::new(),
        };
        let config = ClusterConfig::default().with_ca(self.rancher.ca().await?.as_deref());
        Ok(ClusterSecret::placeholder(object, self.rancher.server_of(&id), config))
    }

    /// Whether an Application is deployed to this cluster: then Argo CD watches it. `None`: unknown, without the permission to list
    /// all Applications.
    pub(crate) fn is_watched(&self, cluster: &ClusterSecret) -> Option<bool> {
        self.applications.as_ref()?.any_points_at(cluster)
    }

    /// Waits until the metrics of Argo CD contain the watched ones of these clusters. They lack a cluster that was added just now.
    pub(crate) async fn await_metrics(&self, clusters: &[&ClusterSecret]) {
        let begun = Instant::now();
        let is_watched = |cluster: &&&ClusterSecret| self.is_watched(cluster) == Some(true);
        let watched: Vec<_> = clusters.iter().filter(is_watched).collect();
        while !watched.is_empty() && begun.elapsed() < COLLECTION {
            match connection::read(&self.argo.server.client, &self.argo.namespace).await {
                Ok(Some(metrics)) if watched.iter().any(|cluster| !metrics.contains_key(&cluster.server)) => {
                    tokio::time::sleep(SCRAPE).await;
                }
                // The preflight check says what is wrong.
                _ => return,
            }
        }
    }

    /// Another Secret with the same URL, in words: Argo CD writes to either of them.
    pub(crate) fn duplicate(&self, cluster: &ClusterSecret) -> Option<String> {
        let all = lookup::duplicates(&self.clusters);
        let of_server = |duplicate: &&lookup::Duplicate| matches!(duplicate.what, lookup::SharedField::Server(_));
        let found = all
            .iter()
            .filter(of_server)
            .find(|it| it.secrets.contains(&cluster.object.name))?;
        Some(found.to_string())
    }
}

/// The names of the other Secrets that hold the same token.
pub(crate) fn others_with<'a>(clusters: &'a [ClusterSecret], cluster: &ClusterSecret, token: &Secret) -> Vec<&'a str> {
    let others = clusters.iter().filter(|other| other.object.name != cluster.object.name);
    let sharing = others.filter(|other| other.token().as_ref() == Some(token));
    sharing.map(|other| other.object.name.as_str()).collect()
}

/// `None`: there is no permission to list them.
async fn applications(argo: &Argo) -> Result<Option<Visible>, Error> {
    match application::visible(&argo.server.client, &argo.namespace).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_forbidden() => Ok(None),
        Err(error) => Err(of_argocd(error)),
    }
}
