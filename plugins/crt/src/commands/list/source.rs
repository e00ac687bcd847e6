//! Where the tokens come from: a few clusters one by one, or all of them in pages.

use std::collections::BTreeMap;

use cli::rotation::leases::LeasedRotations;
use client::connection::Server;
use client::error::Error;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rancher::cluster::{self, Cluster, ClusterId};
use rancher::token::{self, Listing};

use super::group::{Group, Grouping, Known};
use crate::report::product::{LEASE, Rotation};
use crate::rotation::Crt;
use crate::sides::{MANAGEMENT, Management};

/// Up to so many clusters are asked one by one (two requests each); for more, all tokens are read in pages.
const FEW: usize = 40;
/// How many of them at once.
const AT_ONCE: usize = 8;

/// The tokens that were asked for, and what is known of their clusters.
pub(super) struct Source {
    server: Server,
    clusters: Option<BTreeMap<String, Known>>,
    rotations: LeasedRotations<Crt>,
    walk: Walk,
    secrets_unknown: bool,
}

enum Walk {
    Few(Vec<ClusterId>),
    /// In pages; only clusters that are known, where `chosen`.
    All {
        listing: Box<Listing>,
        grouping: Grouping,
        chosen: bool,
        done: bool,
    },
}

impl Source {
    pub(super) async fn open(management: &Management, named: &[String], selector: Option<&str>) -> Result<Self, Error> {
        let server = management.server.clone();
        let (clusters, rotations) = futures::future::try_join(
            clusters(management, named, selector),
            LeasedRotations::read(&server, None, MANAGEMENT),
        )
        .await?;
        let chosen = !named.is_empty() || selector.is_some();
        let ids: Vec<ClusterId> = clusters
            .iter()
            .flatten()
            .filter(|_| chosen)
            .map(|cluster| cluster.id.clone())
            .collect();
        let walk = if chosen && ids.len() <= FEW {
            Walk::Few(ids)
        } else {
            let listing = Box::new(Listing::new(server.client.clone(), None));
            Walk::All {
                listing,
                grouping: Grouping::default(),
                chosen,
                done: false,
            }
        };
        let known = |cluster: Cluster| (cluster.id.to_string(), cluster.into());
        let clusters = clusters.map(|clusters| clusters.into_iter().map(known).collect());
        Ok(Self {
            server,
            clusters,
            rotations,
            walk,
            secrets_unknown: false,
        })
    }

    /// The tokens of some more clusters; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Group>>, Error> {
        match &mut self.walk {
            Walk::Few(ids) => {
                if ids.is_empty() {
                    return Ok(None);
                }
                let client = &self.server.client;
                let asked: Vec<_> = std::mem::take(ids).into_iter().map(|id| one(client, id)).collect();
                let found: Vec<(Group, bool)> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
                self.secrets_unknown |= found.iter().any(|(_, unknown)| *unknown);
                Ok(Some(found.into_iter().map(|(group, _)| group).collect()))
            }
            Walk::All { done: true, .. } => Ok(None),
            Walk::All {
                listing,
                grouping,
                chosen,
                done,
            } => {
                let batch = listing.next().await.map_err(|error| error.on(MANAGEMENT))?;
                *done = batch.is_none();
                self.secrets_unknown |= listing.secrets_unknown();
                let mut groups = grouping.add(batch);
                if *chosen {
                    let wanted = self.clusters.as_ref();
                    groups.retain(|group| wanted.is_some_and(|wanted| wanted.contains_key(&group.namespace)));
                }
                Ok(Some(groups))
            }
        }
    }

    pub(super) fn clusters_known(&self) -> bool {
        self.clusters.is_some()
    }

    pub(super) fn cluster_of(&self, group: &Group) -> Option<&Known> {
        self.clusters.as_ref()?.get(&group.namespace)
    }

    pub(super) fn rotation_of(&self, group: &Group) -> Option<&Rotation> {
        self.rotations.of(&group.namespace, LEASE)
    }

    /// Its Lease as a probe needs it: `Err` where Leases may not be read.
    pub(super) fn lease_of(&self, group: &Group) -> Result<Option<&Rotation>, NoRight> {
        if self.rotations.unknown {
            Err(NoRight)
        } else {
            Ok(self.rotation_of(group))
        }
    }

    pub(super) fn rotations_unknown(&self) -> bool {
        self.rotations.unknown
    }

    pub(super) fn secrets_unknown(&self) -> bool {
        self.secrets_unknown
    }
}

/// The caller may not read it.
pub(super) struct NoRight;

/// The tokens of one cluster, and whether some could not be read for want of a right.
async fn one(client: &kube::Client, id: ClusterId) -> Result<(Group, bool), Error> {
    let found = token::list(client, &id).await.map_err(|error| error.on(MANAGEMENT))?;
    let unreadable = |token: &token::RegistrationToken| token.value == Err(token::ValueError::NoPermission);
    let unknown = found.orphans_unknown && found.tokens.iter().any(unreadable);
    let token::Tokens { tokens, orphans, .. } = found;
    Ok((
        Group {
            namespace: id.to_string(),
            tokens,
            orphans,
        },
        unknown,
    ))
}

/// The clusters that were asked for, each once; all without a name or a selector. `None`: they may not be read, and
/// nothing was asked for by name.
async fn clusters(
    management: &Management,
    named: &[String],
    selector: Option<&str>,
) -> Result<Option<Vec<Cluster>>, Error> {
    if named.is_empty() {
        return match cluster::list(&management.server.client, selector).await {
            Err(error) if error.is_forbidden() && selector.is_none() => Ok(None),
            other => other.map(Some).map_err(|error| error.on(MANAGEMENT)),
        };
    }
    let mut clusters: Vec<Cluster> = Vec::with_capacity(named.len());
    for name in named {
        let cluster = management.cluster(name).await?;
        if clusters.iter().all(|known| known.id != cluster.id) {
            clusters.push(cluster);
        }
    }
    Ok(Some(clusters))
}
