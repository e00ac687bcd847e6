//! What all rotations of one command have in common: who we are in Rancher, what it grants, and which clusters and
//! Applications there are. Our tokens are listed once for all rotations that want to know them at about the same time.

use std::time::Duration;

use argocd::application::{self, Application};
use argocd::{ClusterSecret, lookup};
use client::error::Error;
use client::secret::Secret;
use rancher::api_token::{self, ApiToken};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::address::RancherAddress as _;
use crate::sides::{Argo, RANCHER, Rancher, of_argocd};

/// Both sides, as they were when the command began.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// The side of Argo CD.
    pub argo: Argo,
    /// Rancher.
    pub rancher: Rancher,
    /// Who we are there.
    pub user: api_token::User,
    /// The longest life that Rancher grants.
    pub limit: Option<Duration>,
    /// What tells this Argo CD from others.
    pub identity: Option<String>,
    /// Every cluster that Argo CD knows.
    pub clusters: Vec<ClusterSecret>,
    /// Every Application that can be seen; `None`: they may not be listed.
    pub applications: Option<Vec<Application>>,
    tokens: Mutex<Option<(Instant, Vec<ApiToken>)>>,
}

impl Fleet {
    /// Looks at both sides.
    pub(crate) async fn survey(argo: Argo, rancher: Rancher) -> Result<Self, Error> {
        let of_rancher = async {
            let user = rancher.whoami().await?;
            let limit = api_token::max_ttl(&rancher.client.0).await;
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

    /// Our tokens, as Rancher lists them to a request that was sent after `since`.
    pub(crate) async fn tokens(&self, since: Instant) -> Result<Vec<ApiToken>, Error> {
        let mut listed = self.tokens.lock().await;
        if let Some((at, tokens)) = &*listed
            && *at > since
        {
            return Ok(tokens.clone());
        }
        let at = Instant::now();
        let tokens = api_token::list(&self.rancher.client.0).await;
        let tokens = tokens.map_err(|error| error.on(RANCHER))?;
        *listed = Some((at, tokens.clone()));
        Ok(tokens)
    }

    /// Whether an Application is deployed to this cluster: then Argo CD looks at it all the time.
    pub(crate) fn is_watched(&self, cluster: &ClusterSecret) -> bool {
        let applications = self.applications.iter().flatten();
        applications
            .into_iter()
            .any(|application| application.points_at(cluster))
    }

    /// The other clusters whose Secrets hold the same token, by name of their Secrets.
    pub(crate) fn sharing(&self, cluster: &ClusterSecret, token: &Secret) -> Vec<&str> {
        let others = self
            .clusters
            .iter()
            .filter(|other| other.object.name != cluster.object.name);
        let sharing = others.filter(|other| other.token().as_ref() == Some(token));
        sharing.map(|other| other.object.name.as_str()).collect()
    }

    /// Another Secret for the same place, if there is one: Argo CD writes into any of the two.
    pub(crate) fn duplicate(&self, cluster: &ClusterSecret) -> Option<String> {
        let all = lookup::duplicates(&self.clusters);
        let of_server = |duplicate: &&lookup::Duplicate| matches!(duplicate.what, lookup::Common::Server(_));
        let found = all
            .iter()
            .filter(of_server)
            .find(|it| it.secrets.contains(&cluster.object.name))?;
        Some(found.to_string())
    }

    /// Whether a cluster is reached through this Rancher.
    pub(crate) fn is_of_this_rancher(&self, cluster: &ClusterSecret) -> bool {
        let place = cluster.server.rancher();
        place.is_some_and(|(_, id)| self.rancher.server_of(&id).same_place(&cluster.server))
    }
}

/// `None`: the caller may not see any.
async fn applications(argo: &Argo) -> Result<Option<Vec<Application>>, Error> {
    match application::visible(&argo.server.client, &argo.namespace).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_forbidden() => Ok(None),
        Err(error) => Err(of_argocd(error)),
    }
}
