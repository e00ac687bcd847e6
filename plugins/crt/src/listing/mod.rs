//! The registration tokens of all clusters, or of some: what `list` prints, and what there is to choose from.
//!
//! The tokens of a few clusters are read one by one, all others in pages.

mod group;

use std::collections::BTreeMap;

use cli::Failures;
use cli::rotation::leases::LeasedRotations;
use client::connection::Server;
use client::error::Error;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::jiff::Timestamp;
use rancher::cluster::{self, Cluster, ClusterId};
use rancher::token::{self, Listing};

use self::group::Grouping;
pub(crate) use self::group::{Group, ListedCluster};
use crate::connections::{MANAGEMENT, Management};
use crate::report::rotation::{ClusterRotation, LEASE};
use crate::report::row::{Row, RowInputs};
use crate::report::token_state::ClusterInputs;
use crate::rotation::Crt;

/// Up to this many clusters are read one by one (two requests each). For more, all tokens are read in pages.
const FEW: usize = 40;
/// How many of them in parallel.
const PARALLEL: usize = 8;

/// The requested tokens, and what is known of their clusters.
pub(crate) struct Source {
    server: Server,
    clusters: Option<BTreeMap<String, ListedCluster>>,
    rotations: LeasedRotations<Crt>,
    reading: Reading,
    secrets_unknown: bool,
}

enum Reading {
    Few(Vec<ClusterId>),
    /// In pages. With `filtered` only the clusters of the command line.
    All {
        listing: Box<Listing>,
        grouping: Grouping,
        filtered: bool,
        done: bool,
    },
}

impl Source {
    pub(crate) async fn open(
        management: &Management,
        named: &[String],
        selector: Option<&str>,
        unknown: &mut Failures<'_>,
    ) -> Result<Self, Error> {
        let server = management.server.clone();
        let (clusters, rotations) = futures::future::join(
            clusters(management, named, selector, unknown),
            LeasedRotations::read(&server, None, MANAGEMENT),
        )
        .await;
        let (clusters, rotations) = (clusters?, rotations?);
        let filtered = !named.is_empty() || selector.is_some();
        if !filtered && clusters.as_ref().is_some_and(Vec::is_empty) {
            return Err(management.no_rancher());
        }
        let ids: Vec<ClusterId> = clusters
            .iter()
            .flatten()
            .filter(|_| filtered)
            .map(|cluster| cluster.id.clone())
            .collect();
        let by_id = |cluster: Cluster| (cluster.id.to_string(), ListedCluster::from(cluster));
        let clusters: Option<BTreeMap<_, _>> = clusters.map(|clusters| clusters.into_iter().map(by_id).collect());
        let reading = if filtered && ids.len() <= FEW {
            Reading::Few(ids)
        } else {
            Reading::All {
                listing: Box::new(Listing::new(server.client.clone())),
                grouping: Grouping::of(clusters.iter().flat_map(BTreeMap::keys)),
                filtered,
                done: false,
            }
        };
        Ok(Self {
            server,
            clusters,
            rotations,
            reading,
            secrets_unknown: false,
        })
    }

    /// The tokens of the next clusters. `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Group>>, Error> {
        match &mut self.reading {
            Reading::Few(ids) => {
                if ids.is_empty() {
                    return Ok(None);
                }
                let client = &self.server.client;
                let reads: Vec<_> = std::mem::take(ids).into_iter().map(|id| one(client, id)).collect();
                let found: Vec<(Group, bool)> = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
                self.secrets_unknown |= found.iter().any(|(_, unknown)| *unknown);
                Ok(Some(found.into_iter().map(|(group, _)| group).collect()))
            }
            Reading::All { done: true, .. } => Ok(None),
            Reading::All {
                listing,
                grouping,
                filtered,
                done,
            } => {
                let batch = listing.next().await.map_err(|error| error.on(MANAGEMENT))?;
                *done = batch.is_none();
                self.secrets_unknown |= listing.secrets_unknown();
                let mut groups = grouping.add(batch);
                if *filtered {
                    let wanted = self.clusters.as_ref();
                    groups.retain(|group| wanted.is_some_and(|wanted| wanted.contains_key(&group.namespace)));
                }
                Ok(Some(groups))
            }
        }
    }

    /// What the rows of a cluster depend on.
    pub(crate) fn inputs(&self, group: &Group) -> ClusterInputs {
        group.inputs(self.cluster_of(group), self.clusters.is_some())
    }

    /// The rows of a cluster.
    pub(crate) fn rows(&self, group: &Group, inputs: &ClusterInputs, now: Timestamp) -> Vec<Row> {
        group.rows(&RowInputs {
            name: &group.cluster_name(self.cluster_of(group)),
            cluster: inputs,
            rotation: self.rotation_of(group),
            rotations_unknown: self.rotations.unknown,
            now,
        })
    }

    pub(crate) fn cluster_of(&self, group: &Group) -> Option<&ListedCluster> {
        self.clusters.as_ref()?.get(&group.namespace)
    }

    fn rotation_of(&self, group: &Group) -> Option<&ClusterRotation> {
        self.rotations.of(&group.namespace, LEASE)
    }

    /// The same; `Err` where Leases cannot be read.
    pub(crate) fn lease_of(&self, group: &Group) -> Result<Option<&ClusterRotation>, NoPermission> {
        if self.rotations.unknown {
            Err(NoPermission)
        } else {
            Ok(self.rotation_of(group))
        }
    }

    /// How many of the clusters are not connected.
    pub(crate) fn disconnected(&self) -> usize {
        let clusters = self.clusters.iter().flat_map(BTreeMap::values);
        clusters.filter(|cluster| cluster.is_disconnected).count()
    }

    pub(crate) fn rotations_unknown(&self) -> bool {
        self.rotations.unknown
    }

    pub(crate) fn secrets_unknown(&self) -> bool {
        self.secrets_unknown
    }
}

/// The caller has no permission to read it.
pub(crate) struct NoPermission;

/// The tokens of one cluster, and whether some could not be read for lack of permission.
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

/// The clusters of the command line, each once; all without a name or a selector. `None`: the caller cannot read clusters, and
/// named none.
async fn clusters(
    management: &Management,
    named: &[String],
    selector: Option<&str>,
    unknown: &mut Failures<'_>,
) -> Result<Option<Vec<Cluster>>, Error> {
    let mut clusters = if named.is_empty() {
        match cluster::list(&management.server.client, selector).await {
            Err(error) if error.is_forbidden() && selector.is_none() => return Ok(None),
            Err(error) if error.is_not_found() => return Err(management.no_rancher()),
            other => other.map_err(|error| error.on(MANAGEMENT))?,
        }
    } else {
        management.clusters(named, unknown).await?
    };
    management.tell_kinds(&mut clusters).await?;
    Ok(Some(clusters))
}
