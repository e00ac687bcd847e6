//! What all rotations of one command share: the Rancher user, the clusters, and the Applications. The tokens of the user are listed
//! once for all rotations that need them at about the same time.

use std::time::Duration;

use argocd::application::{self, Application};
use argocd::{ClusterSecret, connection, lookup};
use client::error::Error;
use client::secret::Secret;
use rancher::api_token::{self, ApiToken};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::SCRAPE;
use crate::connections::{Argo, RANCHER, Rancher, of_argocd};

/// Argo CD collects the metrics of its clusters every 30 s.
const COLLECTION: Duration = Duration::from_secs(35);

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
    pub applications: Option<Vec<Application>>,
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

    /// Whether an Application is deployed to this cluster: then Argo CD watches it.
    pub(crate) fn is_watched(&self, cluster: &ClusterSecret) -> bool {
        let mut applications = self.applications.iter().flatten();
        applications.any(|application| application.points_at(cluster))
    }

    /// Waits until the metrics of Argo CD contain the watched ones of these clusters. They lack a cluster that was added just now.
    pub(crate) async fn await_metrics(&self, clusters: &[&ClusterSecret]) {
        let begun = Instant::now();
        let watched: Vec<_> = clusters.iter().filter(|cluster| self.is_watched(cluster)).collect();
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
async fn applications(argo: &Argo) -> Result<Option<Vec<Application>>, Error> {
    match application::visible(&argo.server.client, &argo.namespace).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_forbidden() => Ok(None),
        Err(error) => Err(of_argocd(error)),
    }
}
